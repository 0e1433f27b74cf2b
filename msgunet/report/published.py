"""The numbers published in the paper, from `results/published`."""

import pandas as pd

from msgunet.core.checkout import repository_file
from msgunet.core.frames import read_frame


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
