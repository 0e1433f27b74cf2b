"""The speed table, from the rows of `msgunet bench`."""

from collections.abc import Mapping

import pandas as pd

from msgunet.core.provenance import device_of
from msgunet.core.table import Table, number
from msgunet.report.claims import efficiency


def speed_table(frame: pd.DataFrame, titles: Mapping[str, str], command: str) -> Table:
    """Every way and precision of every network and size; speed-ups are over plain PyTorch in the first precision."""
    columns = ["Network", "Size", "Part", "Way", "Precision", "Time (ms)", "quartiles", "Images/s", "Speed-up"]
    columns += ["quartiles", "Memory (MiB)", "TFLOP/s", "Share of limit"]
    rows = []
    for row in frame.to_dict("records"):
        rows.append(
            [
                titles.get(row["entry"], row["entry"]),
                f"{row['width']}×{row['height']}",
                row["part"],
                row["way"],
                row["precision"],
                number(row["median_ms"], ".1f"),
                f"{row['q25_ms']:.1f}–{row['q75_ms']:.1f}",
                number(row["images_per_s"], ".3g"),
                number(row["speedup"], ".2f"),
                f"{row['speedup_q25']:.2f}–{row['speedup_q75']:.2f}",
                number(row["peak_memory_mib"], ".0f"),
                number(row["tflop_per_s"], ".3g"),
                number(row["share_of_limit"], ".0%"),
            ]
        )
    first = frame.iloc[0]
    rates = frame.drop_duplicates("precision")
    limits = ", ".join(f"{r.matrix_tflop_per_s:.3g} TFLOP/s in {r.precision}" for r in rates.itertuples())
    notes = [
        "plain: what one writes first, contiguous memory and every loss with passes of its own; engine: what this "
        "project does; compiled: that under torch.compile",
        f"median and quartiles of {first['repeats']} passes or steps after a warm-up, in turns in one process; "
        "speed-up: of the same turn, over the first row of each network and part",
        f"{device_of(frame)}; measured here: {limits} (large matrix products), "
        f"{first['bandwidth_gb_per_s']:.3g} GB/s (copying)",
        "share of limit: the larger of operations over that rate and the fewest bytes that the convolutions move over "
        "that bandwidth, by the time; operations without any that are done twice, 1 MAC = 2 FLOP",
        "memory: " + ("of the device" if first["device_type"] == "cuda" else "of the process, above the state before"),
        *(
            f"{claim.claim}, says the paper; {claim.on}: {claim.measured}, so it {claim.verdict}"
            for claim in efficiency(None, frame)
            if claim.measured
        ),
        str(first["versions"]),
        f"commit {first['commit']}",
    ]
    return Table("speed", "Speed of training steps and inference", columns, rows, notes, command)
