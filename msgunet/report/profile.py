"""The tables of `msgunet profile`: the time of one network by layer, operator and kernel."""

from collections.abc import Iterator, Mapping

import pandas as pd

from msgunet.core.provenance import device_of
from msgunet.core.table import Cell, Table, number

_OPERATORS = {"operator": "by torch operator", "kernel": "by GPU kernel"}


def profile_tables(frame: pd.DataFrame, titles: Mapping[str, str], rows: int, command: str) -> Iterator[Table]:
    """Yield a table by layer (if any), one by operator, and on a GPU one by kernel, each with at most `rows` rows."""
    first = frame.iloc[0]
    network = f"{titles.get(first['entry'], first['entry'])} at {first['width']}×{first['height']}"
    subject = f"{network}, {first['part']}, {first['way']}, {first['precision']}"
    for level, part in frame.groupby("level", sort=False):
        if level == "layer":
            yield _by_layer(part, f"{subject}: by layer", rows, command)
        else:
            yield _by_operator(part, f"{subject}: {_OPERATORS[level]}", rows, command)


def _by_layer(frame: pd.DataFrame, title: str, rows: int, command: str) -> Table:
    columns = ["Layer", "Kind", "Calls", "Time (ms)", "Share", "GFLOP", "MB", "Limit (ms)", "Lost (ms)"]
    first, total = frame.iloc[0], frame.sum(numeric_only=True)
    cells = [
        [row["name"], row["kind"], number(row["calls"], "g"), *_numbers(row, total)] for _, row in frame.iterrows()
    ]
    table_rows = [*_cut(cells, rows, len(columns)), ["total", "", "", *_numbers(total, total)]]
    form = _form(total["median_ms"])
    notes = [
        f"The total is {total['median_ms']:{form}} ms; a pass without per-layer timing takes "
        f"{first['undisturbed_ms']:{form}} ms. Passes with it take {first['slowdown']:.2f} times as long (measured in "
        "turns).",
        "Limit: the larger of the operations divided by the rate of a large matrix product or convolution, the faster "
        f"of the two ({first['limit_tflop_per_s']:.3g} TFLOP/s in {first['precision']}), and the bytes divided by the "
        f"bandwidth of a large copy ({first['bandwidth_gb_per_s']:.3g} GB/s). Lost: the time above the limit, "
        "negative where data stay in the caches.",
        "GFLOP: 1 MAC = 2 FLOP. MB: the fewest bytes that a layer reads and writes, with every tensor counted once; "
        "between layers, the bytes of every single operation.",
        "Between layers: additions, concatenations, resizing and the like, and Python. Layers that do nothing are not "
        "listed.",
        f"Median of {first['repeats']:.0f} passes after three warm-up passes on {device_of(frame)}.",
        *_software(first),
    ]
    return Table("profile_layers", title, columns, table_rows, notes, command)


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
    columns = [
        "Kernel" if frame["level"].iloc[0] == "kernel" else "Operator",
        f"Calls per {one}",
        f"ms per {one}",
        "Share",
    ]
    first = frame.iloc[0]
    form = _form(first["measured_ms"])
    cells = [
        [row["name"], number(row["calls"], "g"), number(row["mean_ms"], form), number(row["share"], ".1%")]
        for _, row in frame.iterrows()
    ]
    device = "GPU" if first["device_type"] == "cuda" else "CPU"
    notes = [
        f"All rows together take {frame['mean_ms'].sum():{form}} ms of a {one} of {first['measured_ms']:{form}} ms. "
        f"Without torch's profiler, a {one} takes {first['undisturbed_ms']:{form}} ms.",
        f"{device} time of each operator, without the operators that it calls; mean of {first['repeats']:.0f} repeats "
        f"on {device_of(frame)}.",
        *_software(first),
    ]
    return Table(f"profile_{first['level']}s", title, columns, _cut(cells, rows, len(columns)), notes, command)


def _cut(cells: list[list[Cell | str]], rows: int, width: int) -> list[list[Cell | str]]:
    """Return the first rows, followed by a row with the number of those left out."""
    left_out = len(cells) - rows
    return cells if left_out < 1 else [*cells[:rows], [f"({left_out} more)", *[""] * (width - 1)]]


def _form(total: float) -> str:
    """Return the number format for the parts of a total."""
    return ",.1f" if total >= 100 else ".3f"


def _software(row: pd.Series) -> list[str]:
    return [str(row["versions"]), f"commit {row['commit']}"]
