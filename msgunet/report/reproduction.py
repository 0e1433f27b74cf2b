"""Each number of the paper, our number, and whether the paper's is inside our interval."""

from typing import Any

import pandas as pd

from msgunet.core.metrics import METRICS
from msgunet.core.table import Table, number
from msgunet.report.collect import Collection
from msgunet.report.published import published

_COLUMNS = ["place", "dataset", "entry", "title", "what", "unit", "paper", "ours", "low", "high", "status"]
_ROUNDING = 0.005 + 1e-9
_WORDS = {True: "inside", False: "outside"}


def reproduction_frame(
    summary: pd.DataFrame, ablation: pd.DataFrame, cost: pd.DataFrame | None, collection: Collection
) -> pd.DataFrame:
    """Return one row per number of the paper for which the suite has the network, data set and size.

    `difference`: ours - paper. `inside`: whether the paper's number is inside our 95 % interval. Counts have no
    interval: for them, whether ours equals the paper's at the paper's digits.
    """
    rows: list[dict[str, Any]] = []
    for row in summary.to_dict("records"):
        for metric in collection.settings["metrics"]:
            ours = {"ours": row[metric], "low": row[f"{metric}_low"], "high": row[f"{metric}_high"]}
            quantity = f"{METRICS[metric].name} at {row['width']}×{row['height']}"
            rows.append(
                {
                    "place": "Table 1",
                    **{key: row[key] for key in ("dataset", "entry", "title", "status")},
                    **{"what": quantity, "unit": METRICS[metric].unit.strip(), "paper": row[f"paper_{metric}"], **ours},
                }
            )
    for row in ablation.to_dict("records"):
        quantity = "SSIM, {input_width}×{input_height} → {output_width}×{output_height}".format(**row)
        rows.append(
            {
                "place": "Tables 2 and 3",
                **{"dataset": row["dataset"], "entry": row["entry"], "title": collection.titles[row["entry"]]},
                **{"what": quantity, "unit": "", "paper": row["paper_ssim"], "status": row["status"]},
                **{"ours": row["ssim"], "low": row["ssim_low"], "high": row["ssim_high"]},
            }
        )
    rows += [] if cost is None else _complexity(cost, collection)
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    frame[["paper", "ours", "low", "high"]] = frame[["paper", "ours", "low", "high"]].astype(float)
    frame = frame[frame["paper"].notna()].reset_index(drop=True)
    frame["difference"] = frame["ours"] - frame["paper"]
    # The paper's numbers are rounded: each covers all values that round to it.
    inside = (frame["low"] - _ROUNDING <= frame["paper"]) & (frame["paper"] <= frame["high"] + _ROUNDING)
    is_count = frame["unit"] == "TFLOP"
    inside[is_count] = frame["ours"].round(2)[is_count] == frame["paper"][is_count]
    frame["inside"] = inside.map(_WORDS).where(frame["low"].notna() | is_count & frame["ours"].notna(), "")
    return frame.assign(suite=collection.suite)


def _complexity(cost: pd.DataFrame, collection: Collection) -> list[dict[str, Any]]:
    """Return the paper's operation counts; times and memory, from another device, are in notes of the cost table."""
    place = published("complexity")["place"].iloc[0]
    return [
        {
            "place": place,
            **{"dataset": "", "entry": row["entry"], "title": collection.titles[row["entry"]], "status": "done"},
            **{"what": f"operations at {row['width']}×{row['height']}", "unit": "TFLOP"},
            **{"paper": row["paper_tflop"], "ours": row["tflop"], "low": None, "high": None},
        }
        for row in cost[cost["paper_tflop"].notna()].to_dict("records")
    ]


def reproduction_table(frame: pd.DataFrame, collection: Collection) -> Table:
    """Return the formatted table."""
    columns = ["Method", "Data set", "In the paper", "Quantity", "Paper", "Ours", "95 % interval", "Difference"]
    columns += ["Paper's number"]
    rows = []
    for row in frame.to_dict("records"):
        digits = 2 if row["unit"] else 3
        low, high = (number(row[side], f".{digits}f").text for side in ("low", "high"))
        rows.append(
            [
                *(
                    row["title"],
                    row["dataset"] or "–",
                    row["place"],
                    row["what"] + (row["unit"] and f" ({row['unit']})"),
                ),
                number(row["paper"], ".2f"),
                number(row["ours"], f".{digits}f", row["status"]),
                "–" if pd.isna(row["low"]) else f"{low} to {high}",
                number(row["difference"], f"+.{digits}f"),
                row["inside"] or "–",
            ]
        )
    done = frame[frame["inside"] != ""]
    numbers = frame.drop_duplicates(["place", "dataset", "what", "paper"])
    notes = [
        f"{len(frame)} comparisons with {len(numbers)} numbers of the paper. {len(done)} are measured; in "
        f"{(done['inside'] == 'inside').sum()} of these, the paper's number is inside our interval."
        if len(frame)
        else "The paper reports no numbers for the data sets, methods and sizes of this suite.",
        "Interval: over test images and, where there are several trainings, over those. It does not cover how much the "
        "paper's own number would vary with another training.",
        "The paper's numbers have two decimal places: one is inside if any value that rounds to it is in our interval. "
        "Operations are counted and have no interval: the paper's number is inside if ours rounds to it.",
        "Difference: ours − the paper's.",
        *(note for dataset in collection.datasets for note in collection.unfinished(dataset)),
        collection.environment(),
    ]
    command = collection.command("tables/reproduction.csv")
    return Table("reproduction", "The paper's numbers and ours", columns, rows, notes, command)
