"""The repository checkout that contains the package, with the shipped suites and the paper's numbers."""

from pathlib import Path

from msgunet.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def repository_file(path: str) -> Path:
    """Return the path of a file or folder that is in the repository but not in the package.

    Raises:
        UserError: the package is installed without a checkout.

    """
    full_path = ROOT / path
    if not full_path.exists():
        raise UserError(
            f"{path} is part of the project's repository, but this msgunet is installed without it: clone the "
            "repository and work there, after 'make environment' or 'pip install -e .[suite]'"
        )
    return full_path
