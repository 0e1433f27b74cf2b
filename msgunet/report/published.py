"""The numbers published in the paper, from `results/published`."""

import pandas as pd

from msgunet.core.checkout import repository_file
from msgunet.core.frames import read_frame
from msgunet.core.settings import RunSettings
from msgunet.methods.registry import method_of

# The options that make other networks than the paper's, and what else than the defaults is the paper's: it does not
# state which generator of Pix2Pix-HD it trained, and counts the one with three downsamplings.
_NETWORK = ("width", "channels", "levels", "scales", "blocks", "downsamplings", "intermediate_outputs")
_NETWORK += ("discriminators", "source_scales", "skips", "norm")
_ALSO_PAPERS = {("pix2pixhd", "downsamplings"): 3}


def published(name: str) -> pd.DataFrame:
    """Return a table of the paper's numbers: `table1`, `table2`, `table3` or `complexity`."""
    return read_frame(repository_file(f"results/published/{name}.csv"))


def with_paper_cost(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's complexity figures to the generators that it reports.

    A network is identified by its method, size and number of parameters, not by its name in a suite, so a variant does
    not get the figures of another network.
    """
    paper = published("complexity").drop(columns=["place", "title"]).assign(part="generator")
    figures = {"tflop": "paper_tflop", "memory_gb": "paper_memory_gb", "relative_time": "paper_relative_time"}
    return frame.merge(paper.rename(columns=figures), "left", ["method", "part", "width", "height", "parameters"])


def other_network(settings: RunSettings) -> str:
    """Return the options with which a run's networks are others than the paper's; empty if they are the paper's."""
    method = method_of(settings)
    defaults = method.Options()
    papers = {**defaults.model_dump(mode="json"), "scales": method.scales(defaults, settings.size)}
    given = {key: settings.options.get(key) for key in _NETWORK}
    others = {
        key: value
        for key, value in given.items()
        if value not in (None, papers.get(key), _ALSO_PAPERS.get((method.name, key)))
    }
    return ", ".join(f"{key} {value}" for key, value in others.items())
