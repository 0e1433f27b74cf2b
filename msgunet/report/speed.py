"""The speed table, from the rows of `msgunet bench`."""

from collections.abc import Mapping

import pandas as pd

from msgunet.core.provenance import device_of
from msgunet.core.table import Table, number
from msgunet.report.claims import efficiency


def limit_of(frame: pd.DataFrame) -> tuple[str, str]:
    """Return the column with the device's best rate in a table of `msgunet bench`, and how it was measured.

    Tables of earlier versions have a lower rate, which a network can exceed.
    """
    if "limit_tflop_per_s" in frame:
        return "limit_tflop_per_s", "the faster of a large matrix product and a large convolution"
    return "matrix_tflop_per_s", "large matrix products"


def speed_table(frame: pd.DataFrame, titles: Mapping[str, str], command: str) -> Table:
    """Return the speed of every network and size in each implementation and precision.

    Speed-ups are relative to plain PyTorch in the first precision.
    """
    columns = [
        "Network",
        "Size",
        "Part",
        "Implementation",
        "Precision",
        "Time (ms)",
        "quartiles",
        "Images/s",
        "Speed-up",
    ]
    columns += ["quartiles", "Memory (MiB)", "TFLOP/s", "Share of limit"]
    # Only for GPUs, and not in tables of earlier versions.
    foretold = "foretold_ms" in frame and frame["foretold_ms"].notna().any()
    files = (frame["part"] == "translate").any()
    columns += ["Foretold (ms)"] * bool(foretold) + ["Network's share"] * bool(files)
    # The rows of a network together, whatever the order of the measurements.
    places = frame.groupby(["entry", "width", "height"], sort=False).ngroup()
    frame = frame.loc[places.sort_values(kind="stable").index]
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
                *([number(row["foretold_ms"], ".1f")] if foretold else []),
                *([number(row.get("network_share"), ".0%")] if files else []),
            ]
        )
    first = frame.iloc[0]
    rates = frame.drop_duplicates("precision")
    rate, work = limit_of(frame)
    limits = ", ".join(f"{row[rate]:.3g} TFLOP/s in {row['precision']}" for row in rates.to_dict("records"))
    notes = [
        "Implementations: plain is straightforward PyTorch with contiguous memory and separate passes for every loss; "
        "engine is this project's optimised path; compiled is the engine under torch.compile.",
        f"Times are the median and quartiles of {first['repeats']} passes or steps after a warm-up, taken in turns "
        "within one process. Speed-ups are relative to the first row of each network and part in the same turn.",
        *(
            [
                "Part translate: from image file to image file, time for one image; plain reads, translates and writes "
                "one image after the other, engine does so in a pipeline of threads; both use the engine's network. "
                "Network's share: the network alone as a share of that time."
            ]
            if files
            else []
        ),
        f"Measured on {device_of(frame)}, which reaches {limits} ({work}) and "
        f"{first['bandwidth_gb_per_s']:.3g} GB/s (copying).",
        "Share of limit: the least possible time as a share of the measured time. It is the larger of the operations "
        "divided by that rate and the fewest bytes that the convolutions move divided by that bandwidth. Recomputed "
        "operations are not counted; 1 MAC = 2 FLOP.",
        *(
            ["A share above 100 %: the library computes some convolutions with fewer operations (Winograd, FFT)."]
            if (frame["share_of_limit"] > 1).any()
            else []
        ),
        *(
            [
                "Foretold: each operation of the engine takes the longer of its arithmetic at that rate and its bytes "
                "at that bandwidth, one after the other ('msgunet profile --predict' lists them)."
            ]
            if foretold
            else []
        ),
        "Memory: that of the device, with the working memory of the algorithms that cuDNN's search found fastest; "
        "another search can find others."
        if first["device_type"] == "cuda"
        else "Memory: that of the process, above its level before the measurement.",
        *(
            f"The paper claims that {claim.claim}. Against {claim.on}, the factor is {claim.measured}: the claim "
            f"{claim.verdict}."
            for claim in efficiency(None, frame)
            if claim.measured
        ),
        str(first["versions"]),
        f"commit {first['commit']}",
    ]
    return Table("speed", "Speed of training steps and inference", columns, rows, notes, command)
