"""The cost table, with the paper's figures beside ours, and in words what our counts say about them."""

from collections.abc import Mapping

import pandas as pd

from msgunet.core.checkout import shipped
from msgunet.core.provenance import device_of
from msgunet.core.table import Table, number
from msgunet.report.published import published

# Quoted where a table has no times of its own.
_ON_A_CPU = "results/measured/cpu_cost.csv"
_LOCAL_ENHANCER = 182_701_827  # parameters of Pix2Pix-HD with one local enhancer, as published


_TITLE = "Cost of the networks at the suite's sizes"


def cost_table(frame: pd.DataFrame | None, titles: Mapping[str, str], command: str) -> Table:
    """The cost of every network, from the rows of `msgunet cost`; None: there are none yet."""
    if frame is None:
        return Table(
            "cost", _TITLE, ["Network"], [], ["not counted yet, or there is no network in this suite"], command
        )
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
        "every generator at every size of the suite that it can be built for; in brackets: not used by the suite",
        "one image; 1 MAC = 2 FLOP; convolutions, counted by torch's counter at the true size and for generators by "
        "fvcore too (column gmac_fvcore of the CSV); fvcore skips: " + (_skipped(frame) or "nothing"),
    ]
    if timed:
        how = f"median and quartiles of {frame['repeats'].max():.0f} passes after a warm-up"
        notes.append(f"{how}; memory: {frame['memory_kind'].dropna().iloc[0]}; {device_of(frame)}, fp32")
    notes += [str(frame["versions"].iloc[0]), f"commit {frame['commit'].iloc[0]}"]
    return Table("cost", _TITLE, columns, rows, notes, command)


def complexity_notes(frame: pd.DataFrame) -> list[str]:
    """In words what the table says about the paper's 1.28 and 3.32 TFLOP, where it has the networks behind them."""
    three = paper_networks(frame[frame["part"] == "generator"])
    if three is None:
        return []
    ours, part, whole = (row["tflop"] for row in three)
    words = [
        "the paper's complexity figures are FLOP, two for each MAC: its 1.28 TFLOP for MSG U-Net are our "
        f"{ours:.2f}; its 3.32 for Pix2Pix-HD are the global generator with three downsamplings, our {part:.2f}",
        f"with the local enhancer that its authors publish for 2048×1024, Pix2Pix-HD needs {whole:.2f} TFLOP, "
        f"{whole / ours:.2f} times MSG U-Net's: the paper's factor of 2.5 ({part / ours:.1f} by our counts) "
        "holds against the global generator only",
    ]
    measured, where = frame, "here"
    if "latency_ms" not in frame:
        measured = pd.read_csv(shipped(_ON_A_CPU))
        where = f"by 'msgunet cost --suite cpu' at commit {measured['commit'].iloc[0]} ({_ON_A_CPU})"
    three = paper_networks(measured[measured["part"] == "generator"])
    if three is not None:
        (time, part_time, whole_time), (memory, part_memory, whole_memory) = (
            [row[column] for row in three] for column in ("latency_ms", "peak_memory_mib")
        )
        words.append(
            f"measured at 2048×1024 {where}, {device_of(measured)}, fp32: the global generator takes "
            f"{part_time / time:.1f} times MSG U-Net's time and {part_memory / memory:.1f} times its memory, with the "
            f"local enhancer it is {whole_time / time:.1f} and {whole_memory / memory:.1f} times; the paper says "
            "2.5 times the time, and 8 against 4 GB"
        )
    return words


def paper_networks(frame: pd.DataFrame) -> list[pd.Series] | None:
    """Of rows of generators: MSG U-Net, the global one that the paper counted and the one with the enhancer.

    All at 2048x1024, known by their parameters.
    """
    if "parameters" not in frame:
        # Of an earlier version of `msgunet bench`.
        return None
    there = (frame["width"] == 2048) & (frame["height"] == 1024)
    by_parameters = frame[there].drop_duplicates("parameters").set_index("parameters")
    wanted = [*published("complexity")["parameters"], _LOCAL_ENHANCER]
    return [by_parameters.loc[count] for count in wanted] if set(wanted) <= set(by_parameters.index) else None


def _skipped(frame: pd.DataFrame) -> str:
    return ", ".join(sorted({op for text in frame["fvcore_skipped"].dropna() for op in str(text).split()}))
