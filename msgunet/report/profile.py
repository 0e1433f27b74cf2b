"""Where the time of one network goes: the tables of `msgunet profile`."""

from collections.abc import Iterator, Mapping

import pandas as pd

from msgunet.core.provenance import device_of
from msgunet.core.table import Cell, Table, number

_OPERATORS = {"operator": "by torch's operators", "kernel": "by the GPU's kernels"}


def profile_tables(frame: pd.DataFrame, titles: Mapping[str, str], rows: int, command: str) -> Iterator[Table]:
    """A table by layer, where there are layers, one by operator, and on a GPU one by kernel; `rows` of each at most."""
    first = frame.iloc[0]
    network = f"{titles.get(first['entry'], first['entry'])} at {first['width']}×{first['height']}"
    what = f"{network}, {first['part']}, {first['way']}, {first['precision']}"
    for level, part in frame.groupby("level", sort=False):
        if level == "layer":
            yield _by_layer(part, f"{what}: by layer", rows, command)
        else:
            yield _by_operator(part, f"{what}: {_OPERATORS[level]}", rows, command)


def _by_layer(frame: pd.DataFrame, title: str, rows: int, command: str) -> Table:
    columns = ["Layer", "Kind", "Calls", "Time (ms)", "Share", "GFLOP", "MB", "Limit (ms)", "Lost (ms)"]
    first, total = frame.iloc[0], frame.sum(numeric_only=True)
    cells = [
        [row["name"], row["kind"], number(row["calls"], "g"), *_numbers(row, total)] for _, row in frame.iterrows()
    ]
    shown = [*_cut(cells, rows, len(columns)), ["all of these", "", "", *_numbers(total, total)]]
    form = _form(total["median_ms"])
    notes = [
        f"all of these take {total['median_ms']:{form}} ms, a pass in which nothing is measured "
        f"{first['undisturbed_ms']:{form}} ms; measured passes take {first['slowdown']:.2f} times as long (by turns)",
        "limit: the larger of operations over the rate of large matrix products and bytes over the bandwidth of a "
        f"large copy, measured here: {first['matrix_tflop_per_s']:.3g} TFLOP/s in {first['precision']}, "
        f"{first['bandwidth_gb_per_s']:.3g} GB/s; lost: the time above it, below 0 where data stay in the caches",
        "GFLOP: 1 MAC = 2 FLOP; MB: the fewest bytes that a layer reads and writes, every tensor once; between layers, "
        "that every operation there does",
        "between layers: additions, concatenations, resizing and the like, and Python; layers that do nothing are not "
        "listed",
        f"median of {first['repeats']:.0f} passes after three to warm up; {device_of(frame)}",
        *_software(first),
    ]
    return Table("profile_layers", title, columns, shown, notes, command)


def _numbers(row: pd.Series, total: pd.Series) -> list[Cell]:
    form = _form(total["median_ms"])
    return [
        number(row["median_ms"], form),
        number(row["share"], ".1%"),
        number(1000 * row["tflop"], _form(1000 * total["tflop"])),
        number(1000 * row["moved_gb"], _form(1000 * total["moved_gb"])),
        number(row["limit_ms"], form),
        number(row["lost_ms"], form),
    ]


def _by_operator(frame: pd.DataFrame, title: str, rows: int, command: str) -> Table:
    one = {"inference": "pass", "training": "step"}[frame["part"].iloc[0]]
    columns = ["Kernel" if frame["level"].iloc[0] == "kernel" else "Operator", f"Calls a {one}", f"ms a {one}", "Share"]
    first = frame.iloc[0]
    form = _form(first["measured_ms"])
    cells = [
        [row["name"], number(row["calls"], "g"), number(row["mean_ms"], form), number(row["share"], ".1%")]
        for _, row in frame.iterrows()
    ]
    device = "the GPU's" if first["device_type"] == "cuda" else "the CPU's"
    notes = [
        f"all of these take {frame['mean_ms'].sum():{form}} ms of a {one} of {first['measured_ms']:{form}} ms; without "
        f"torch's profiler a {one} takes {first['undisturbed_ms']:{form}} ms",
        f"{device} time, without that of operators which an operator calls; mean of {first['repeats']:.0f}; "
        f"{device_of(frame)}",
        *_software(first),
    ]
    return Table(f"profile_{first['level']}s", title, columns, _cut(cells, rows, len(columns)), notes, command)


def _cut(cells: list[list[Cell | str]], rows: int, width: int) -> list[list[Cell | str]]:
    """The first rows, and how many more there are."""
    more = len(cells) - rows
    return cells if more < 1 else [*cells[:rows], [f"({more} more)", *[""] * (width - 1)]]


def _form(whole: float) -> str:
    """How the parts of a whole are written."""
    return ",.1f" if whole >= 100 else ".3f"


def _software(row: pd.Series) -> list[str]:
    return [str(row["versions"]), f"commit {row['commit']}"]
