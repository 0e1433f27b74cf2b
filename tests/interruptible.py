"""A command in a process of its own that can be interrupted in the middle of a pipeline."""

import sys

_CODE = r"""
import importlib, signal, sys, time
# Shells let background jobs ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from msgunet.cli.main import main
module = importlib.import_module(sys.argv.pop(1))
real = module.save
def save(path, *arguments, **options):
    real(path, *arguments, **options)
    sys.stdout.write("half written\n")
    sys.stdout.flush()
    time.sleep(0.3)
module.save = save
sys.exit(main(sys.argv[1:]))
"""


def slowly(module: str, *arguments: str) -> list[str]:
    """Return a `msgunet` command that says "half written" when `module` has saved an image, and then takes a while."""
    return [sys.executable, "-c", _CODE, module, *arguments]
