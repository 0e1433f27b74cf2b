"""The checkout that the package lies in, where the shipped suites and the paper's numbers are."""

from pathlib import Path

from msgunet.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def shipped(path: str) -> Path:
    """A file or folder of the repository that is not part of the package.

    Raises:
        UserError: the package is installed without a checkout.

    """
    found = ROOT / path
    if not found.exists():
        raise UserError(
            f"{path} is in the project's repository, and this msgunet is installed without it: clone the repository, "
            "and work there with 'make environment' or 'pip install -e .[suite]'"
        )
    return found
