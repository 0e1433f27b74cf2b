"""The command line."""

import argparse

from msgunet.cli.arguments import verb_adder
from msgunet.cli.hour import add_hour
from msgunet.cli.stages import add_stages
from msgunet.cli.tools import add_tools
from msgunet.core.version import __version__

_EPILOG = """\
'msgunet VERB --help' explains the arguments of a verb.

The workflow runs all verbs that a suite needs:
  snakemake --cores all --config suite=demo

Every verb also works by itself. For example, to train one run by hand, let
'snakemake --cores all --config suite=demo -n' write the settings files, prepare
the data set (msgunet prepare --settings data/NAME/dataset.json --out data/NAME),
then:
  msgunet train --run results/demo/runs/bluemarble/msgunet/seed0/run.json --out /tmp/try
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="msgunet",
        description="Paired image-to-image translation at high resolution: train, evaluate and report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"msgunet {__version__}")
    sub_parsers = top.add_subparsers(title="verbs", required=True, metavar="VERB")
    verb = verb_adder(sub_parsers)
    add_tools(verb)
    add_hour(verb)
    add_stages(verb)
    return top
