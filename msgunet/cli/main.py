"""The `msgunet` command: runs a verb, and turns errors that a user can cause into a message and an exit status."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence

from msgunet.cli.extras import advice
from msgunet.cli.parser import parser
from msgunet.core.bugs import bugs_named
from msgunet.core.disk import PAUSES, describe, disk_error, patiently
from msgunet.core.errors import InterruptedTraining, UserError
from msgunet.core.permissions import explain
from msgunet.core.text import printable
from msgunet.core.user import ensure_user

# Errors that the user's files and folders can cause.
_USERS_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)


def _run(options: argparse.Namespace) -> None:
    """Run a verb. In a job of the workflow, an error of the disk is waited for, and the verb runs again."""
    # Processes that train together cannot run again alone.
    if PAUSES in os.environ and os.environ.get("WORLD_SIZE", "1") == "1":
        patiently(lambda: options.verb(options))
    else:
        options.verb(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit status: 0 done, 2 a user's error, 143 or 130 stopped by SIGTERM or Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser().print_help()
        return 0
    options = parser().parse_args(given)
    ensure_user()
    options.arguments = given
    try:
        for file in getattr(options, "methods", ()):
            # Imported here, so that the help stays fast.
            from msgunet.methods.method_file import trust

            trust(file)
        with bugs_named():
            _run(options)
    except UserError as error:
        lines = [f"{'' if p.startswith(' ') else 'error: '}{p}" for p in error.problems]
        print(printable("\n".join([*lines, *([error.trace] if error.trace else [])])), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (text := advice(given[0], error.name)) is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of the output has closed it (`msgunet show | head`). Python must not report this at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in _USERS_ERRORS:
            raise
        text = describe(error) if disk_error(error) else explain(error)
        print(f"error: {printable(text)}", file=sys.stderr)
        return 2
    except InterruptedTraining as error:
        print(error, file=sys.stderr)
        return 128 + error.signal
    return 0
