"""Arguments that several verbs share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRECISIONS = ["fp32", "tf32", "bf16"]

# Adds a verb: its name, its function, a summary, details for its own help.
AddVerb = Callable[..., argparse.ArgumentParser]


def verb_adder(sub_parsers: Any) -> AddVerb:
    """Return a function that adds a verb to a parser's sub-parsers."""

    def verb(name: str, function: Callable[[Any], None], summary: str, details: str = "") -> argparse.ArgumentParser:
        sub = sub_parsers.add_parser(name, help=summary, description=f"{summary} {details}".strip())
        sub.set_defaults(verb=function)
        return sub

    return verb


def path(sub: argparse.ArgumentParser, flag: str, text: str, required: bool = True) -> None:
    """Add an argument that is a path."""
    sub.add_argument(flag, type=Path, metavar="PATH", required=required, help=text)


def suite(sub: argparse.ArgumentParser) -> None:
    """Add the suite that a verb works on."""
    text = "name of a suite in config/, or path of a .yaml file (default: paper)"
    sub.add_argument("suite", nargs="?", default="paper", help=text)


def compute(sub: argparse.ArgumentParser) -> None:
    """Add the settings of this machine."""
    text = "settings of this machine (device, threads, folder of the archives): settings/compute.json of a suite"
    path(sub, "--compute", text, False)


def methods(sub: argparse.ArgumentParser) -> None:
    """Add the files of custom methods, which the user must name before they are executed."""
    text = "Python file of a custom method that the settings name (for several, repeat it)"
    sub.add_argument("--method", type=Path, action="append", default=[], dest="methods", metavar="FILE", help=text)


def jobs(sub: argparse.ArgumentParser, text: str) -> None:
    """Add the number of images that are worked on at once."""
    sub.add_argument("--jobs", type=positive, metavar="N", help=text)


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def above_zero(text: str) -> float:
    """Parse a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
