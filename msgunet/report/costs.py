"""The cost table, with the paper's figures next to ours and notes that compare the two."""

from collections.abc import Mapping

import pandas as pd

from msgunet.core.checkout import repository_file
from msgunet.core.frames import read_frame
from msgunet.core.provenance import device_of
from msgunet.core.table import Table, number
from msgunet.report.published import published

# Quoted where a table has no times.
_CPU_COST = "results/measured/cpu_cost.csv"
_LOCAL_ENHANCER = 182_701_827  # parameters of Pix2Pix-HD with one local enhancer, as published

_TITLE = "Cost of the networks at the suite's sizes"


def cost_table(frame: pd.DataFrame | None, titles: Mapping[str, str], command: str) -> Table:
    """Return the cost of every network from the rows of `msgunet cost`; `frame` is None if there are none yet."""
    if frame is None:
        return Table("cost", _TITLE, ["Network"], [], ["Not counted yet, or this suite has no networks."], command)
    titles = {**titles, "vgg19": "VGG-19"}
    timed = "latency_ms" in frame
    with_paper = frame["paper_tflop"].notna().any()
    columns = ["Network", "Part", "Size", "Parameters", "GMAC", "TFLOP"]
    columns += ["paper"] if with_paper else []
    columns += ["Time (ms)", "quartiles", "Memory (MiB)"] if timed else []
    rows = []
    for _, row in frame.iterrows():
        size = f"{row['width']}×{row['height']}"
        cells = [
            titles.get(row["entry"], row["entry"]),
            row["part"],
            size if row["used"] else f"({size})",
            number(row["parameters"], ","),
        ]
        cells += [number(row["gmac"], ".3f"), number(row["tflop"], ".3g")]
        if with_paper:
            cells.append(number(row["paper_tflop"], ".2f"))
        if timed and row["part"] == "generator":
            quartiles = f"{row['latency_q25_ms']:.1f}–{row['latency_q75_ms']:.1f}"
            cells += [number(row["latency_ms"], ".1f"), quartiles, number(row["peak_memory_mib"], ".0f")]
        rows.append(cells + ["–"] * (len(columns) - len(cells)))
    notes = complexity_notes(frame)
    notes += [
        "Every generator is listed at every size of the suite that it can be built for. Sizes in brackets are not used "
        "by the suite.",
        "Operations are those of the convolutions for one image; 1 MAC = 2 FLOP. They are counted by torch's counter "
        "at the true size and, for generators, also by fvcore (column gmac_fvcore of the CSV). fvcore skips: "
        + (_skipped(frame) or "nothing"),
    ]
    if timed:
        time = f"Time: median and quartiles of {frame['repeats'].max():.0f} passes after a warm-up"
        notes.append(
            f"{time}. Memory: {frame['memory_kind'].dropna().iloc[0]}. Measured on {device_of(frame)}, in fp32."
        )
    notes += [str(frame["versions"].iloc[0]), f"commit {frame['commit'].iloc[0]}"]
    return Table("cost", _TITLE, columns, rows, notes, command)


def complexity_notes(frame: pd.DataFrame) -> list[str]:
    """Compare our counts with the paper's 1.28 and 3.32 TFLOP, if the table has the networks behind them."""
    networks = paper_networks(frame[frame["part"] == "generator"])
    if networks is None:
        return []
    ours, part, whole = (row["tflop"] for row in networks)
    notes = [
        "The paper's complexity figures are FLOP, two for each MAC. Its 1.28 TFLOP for MSG U-Net correspond to our "
        f"{ours:.2f}; its 3.32 TFLOP for Pix2Pix-HD are those of the global generator with three downsamplings, our "
        f"{part:.2f}.",
        f"With the local enhancer that its authors publish for 2048×1024, Pix2Pix-HD needs {whole:.2f} TFLOP, "
        f"{whole / ours:.2f} times as many as MSG U-Net. The paper's factor of 2.5 ({part / ours:.1f} by our counts) "
        "therefore holds only against the global generator.",
    ]
    measured, where = frame, "here"
    if "latency_ms" not in frame:
        measured = read_frame(repository_file(_CPU_COST))
        where = f"by 'msgunet cost --suite cpu' at commit {measured['commit'].iloc[0]} ({_CPU_COST})"
    networks = paper_networks(measured[measured["part"] == "generator"])
    if networks is not None:
        (time, part_time, whole_time), (memory, part_memory, whole_memory) = (
            [row[column] for row in networks] for column in ("latency_ms", "peak_memory_mib")
        )
        notes.append(
            f"Measured at 2048×1024 {where} on {device_of(measured)} in fp32, the global generator needs "
            f"{part_time / time:.1f} times the time and {part_memory / memory:.1f} times the memory of MSG U-Net; with "
            f"the local enhancer, the factors are {whole_time / time:.1f} and {whole_memory / memory:.1f}. The paper "
            "reports 2.5 times the time, and 8 GB against 4 GB."
        )
    return notes


def paper_networks(frame: pd.DataFrame) -> list[pd.Series] | None:
    """Return the rows of MSG U-Net, the global generator counted in the paper, and the one with the local enhancer.

    All three are at 2048x1024 and identified by their number of parameters. Returns None if one is missing from the
    rows of generators in `frame`.
    """
    if "parameters" not in frame:
        # Written by an earlier version of `msgunet bench`.
        return None
    at_size = (frame["width"] == 2048) & (frame["height"] == 1024)
    by_parameters = frame[at_size].drop_duplicates("parameters").set_index("parameters")
    counts = [*published("complexity")["parameters"], _LOCAL_ENHANCER]
    return [by_parameters.loc[count] for count in counts] if set(counts) <= set(by_parameters.index) else None


def _skipped(frame: pd.DataFrame) -> str:
    return ", ".join(sorted({op for text in frame["fvcore_skipped"].dropna() for op in str(text).split()}))
