"""The paper's own numbers, in `results/published`."""

import pandas as pd

from msgunet.core.checkout import shipped


def published(name: str) -> pd.DataFrame:
    """A table of the paper's own numbers: `table1`, `table2`, `table3` or `complexity`."""
    return pd.read_csv(shipped(f"results/published/{name}.csv"))


def with_paper_cost(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's complexity figures to the generators that have them.

    A network is known by its method, size and number of parameters, not by its name in a suite: a variant does not get
    the figures of another network.
    """
    paper = published("complexity").drop(columns=["place", "title"]).assign(part="generator")
    figures = {"tflop": "paper_tflop", "memory_gb": "paper_memory_gb", "relative_time": "paper_relative_time"}
    return frame.merge(paper.rename(columns=figures), "left", ["method", "part", "width", "height", "parameters"])
