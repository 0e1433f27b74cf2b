"""The user that a process runs as. Containers often run as a user id without a name."""

import getpass
import os


def ensure_name() -> None:
    """Set LOGNAME if the user id has no name: torch and Snakemake ask for one, and fail without it."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["LOGNAME"] = f"uid{os.getuid()}"
