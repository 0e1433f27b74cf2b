"""The design table: every trained entry against the suite's reference entry, in quality and cost."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from msgunet.core.metrics import FEWEST_IMAGES, METRICS, headings
from msgunet.core.provenance import device_of
from msgunet.core.table import Cell, Table, number
from msgunet.report.collect import Collection
from msgunet.report.files import compared
from msgunet.report.statistics import LEVEL
from msgunet.report.summary import comparisons
from msgunet.report.table1 import ONE_TRAINING, bracketed, nothing_bold, protocol_note

_COST = ["parameters", "tflop", "latency_ms", "peak_memory_mib"]
# Each column of cost in the table: heading, column of the CSV, format, factor.
_COLUMNS = [
    ("Parameters", "parameters", ",.0f", 1),
    ("TFLOP", "tflop", ".3g", 1),
    ("Time (ms)", "latency_ms", ",.1f", 1),
    ("Memory (MiB)", "peak_memory_mib", ",.0f", 1),
    ("Training (min)", "training_seconds", ",.1f", 1 / 60),
]


def design_frame(collection: Collection, summary: pd.DataFrame, cost: pd.DataFrame | None) -> pd.DataFrame:
    """Return the comparison of all trained entries with the reference entry of the suite.

    Args:
        collection: the suite's results. The suite names a reference entry.
        summary: the rows of Table 1.
        cost: the rows of `msgunet cost`; None if there are none yet.

    Returns:
        One row for each data set, protocol and trained entry: first the reference, then the others by their difference
        in the first metric, the best one first, then those without one. For each metric the mean with its interval, the
        difference (entry - reference) with its interval and test as in `statistics.compare`; then the cost of the
        generator, and the mean time of a training in seconds.

    """
    metrics = collection.settings["metrics"]
    keys = ["dataset", "protocol", "entry"]
    rows = summary[summary["trained"] & summary["dataset"].isin(compared(collection.settings))]
    means = [f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high")]
    frame = rows[[*keys, "title", "width", "height", "status", "seeds", *means]]
    tests = comparisons(collection, collection.reference)
    for metric in metrics:
        found = tests[tests["metric"] == metric].rename(columns={"first": "entry", **_names(metric)})
        frame = frame.merge(found[[*keys, *_names(metric).values()]], how="left", on=keys)
        frame[f"{metric}_significant"] = frame[f"{metric}_significant"].eq(True)
    if cost is not None:
        at = ["entry", "width", "height"]
        generators = cost[cost["part"] == "generator"].reindex(columns=[*at, *_COST])
        frame = frame.merge(generators, how="left", on=at)
    frame = frame.assign(**{name: None for name in _COST if name not in frame})
    frame["training_seconds"] = [_training_seconds(collection, *key) for key in frame[["dataset", "entry"]].to_numpy()]
    groups = [_sorted(part, metrics[0], collection.reference) for _, part in frame.groupby(keys[:2], sort=False)]
    return pd.concat(groups).assign(reference=collection.reference, suite=collection.suite)


def _names(metric: str) -> dict[str, str]:
    """Return the columns of a metric by those of `statistics.compare`."""
    ends = {end: f"{metric}_difference_{end}" for end in ("low", "high")}
    kept = ("difference", "images", "wins", "p", "p_holm", "significant")
    return {"difference": f"{metric}_difference", **ends, **{name: f"{metric}_{name}" for name in kept}}


def _training_seconds(collection: Collection, dataset: str, entry: str) -> float | None:
    """Return the mean time of the finished trainings of an entry, in seconds."""
    seconds = [facts["seconds"] for run in collection.runs_of(dataset)[entry] if (facts := run.facts())]
    return sum(seconds) / len(seconds) if seconds else None


def _sorted(part: pd.DataFrame, metric: str, reference: str | None) -> pd.DataFrame:
    effect = part[f"{metric}_difference"].astype(float) * (1 if METRICS[metric].higher_is_better else -1)
    effect = effect.mask(part["entry"] == reference, math.inf)
    return part.loc[effect.sort_values(ascending=False, kind="stable").index]


def reason_for_none(row: Mapping[str, Any], metric: str, reference: Mapping[str, Any], protocol: str) -> str:
    """Return why a row of `design_frame` has no difference in a metric; empty if it has one.

    Args:
        row: the entry's row.
        metric: the metric.
        reference: the row of the reference entry.
        protocol: the protocol of both.

    """
    if row["status"] != "done":
        return row["status"]
    if reference["status"] != "done":
        return "–"
    if protocol == "native" and any(row[side] != reference[side] for side in ("width", "height")):
        return "other size"
    return "undefined" if pd.isna(row[f"{metric}_difference"]) else ""


def design_table(collection: Collection, dataset: str, protocol: str, part: pd.DataFrame) -> Table:
    """Return the comparison with the reference entry on a data set in a protocol, from its part of `design_frame`."""
    metrics, several = collection.settings["metrics"], collection.several_seeds()
    costs = [column for column in _COLUMNS if part[column[1]].notna().any()]
    columns = ["Method", "Size", *(["Trainings"] if several else [])]
    for heading in headings(metrics).values():
        columns += [f"{heading}, difference", "p"]
    columns += [of_cost for of_cost, *_ in costs]
    rows = []
    records = part.to_dict("records")
    for row in records:
        is_reference = row["entry"] == collection.reference
        cells: list[Cell | str] = [f"{row['title']} (reference)" if is_reference else row["title"]]
        cells += [f"{row['width']}×{row['height']}", *([number(row["seeds"], ",")] if several else [])]
        for metric in metrics:
            cells += _own(row, metric) if is_reference else _difference(row, metric, records[0], protocol)
        for _, column, form, factor in costs:
            cells.append(number(None if pd.isna(row[column]) else row[column] * factor, form))
        rows.append(cells)
    title = f"Comparison with {collection.titles[collection.reference]}, {dataset}, {protocol} protocol"
    notes = _notes(collection, dataset, protocol, part)
    command = collection.command("tables/design.csv")
    return Table(f"design_{dataset}_{protocol}", title, columns, rows, notes, command)


def _own(row: Mapping[str, Any], metric: str) -> list[Cell | str]:
    """Return the cells of the reference entry: its mean, which sorts as no difference from itself, and no test."""
    if row["status"] != "done" or pd.isna(row[metric]):
        return [Cell("undefined" if row["status"] == "done" else row["status"]), "–"]
    text = bracketed(row, metric, f"{metric}_low", f"{metric}_high", f".{METRICS[metric].digits}f")
    return [Cell(text, 0.0), "–"]


def _difference(row: Mapping[str, Any], metric: str, reference: Mapping[str, Any], protocol: str) -> list[Cell | str]:
    if reason := reason_for_none(row, metric, reference, protocol):
        return [Cell(reason), "–"]
    name, bold = f"{metric}_difference", bool(row[f"{metric}_significant"])
    text = bracketed(row, name, f"{name}_low", f"{name}_high", f"+.{METRICS[metric].digits}f")
    return [Cell(text, row[name], bold), number(row[f"{metric}_p_holm"], ".2g", bold=bold)]


def _notes(collection: Collection, dataset: str, protocol: str, part: pd.DataFrame) -> list[str]:
    metrics, title = collection.settings["metrics"], collection.titles[collection.reference]
    tests = pd.concat(
        part[[f"{metric}_difference", f"{metric}_images"]]
        .set_axis(["difference", "images"], axis=1)
        .dropna()
        .astype({"images": int})
        .assign(metric=metric)
        for metric in metrics
    )
    sizes = part[["width", "height"]].drop_duplicates()
    notes = [
        f"First row: means of {title}, the reference entry of this suite. Other rows: mean difference, entry − {title},"
        " on the same test images with its 95 % interval: images are resampled for both together, and the training "
        f"noise of each separately. Best first in {METRICS[metrics[0]].heading}.",
        *direction_note(metrics),
        "p: two-sided Wilcoxon signed-rank test on the means over trainings, with Holm's correction over the "
        f"comparisons with {title} in a metric; entries are not tested against each other here. Bold: p below "
        f"{LEVEL:g}, zero outside the interval, and all trainings agree on the sign.",
        seeds_note(collection),
        *([f"Fewer than {FEWEST_IMAGES} images have no interval."] if tests["images"].lt(FEWEST_IMAGES).any() else []),
        *(nothing_bold(tests, metrics) if len(tests) else [f"No finished entry can be compared with {title} here."]),
    ]
    if protocol == "native" and len(sizes) > 1:
        notes.append(
            f"Entries of another size than {title}'s have other targets here, so they are not compared with it. The "
            "full protocol compares them on the same targets."
        )
    notes += [protocol_note(collection, dataset, protocol), *_cost_notes(collection, dataset)]
    notes += [*collection.undefined(dataset, protocol), *collection.unfinished(dataset)]
    return [*notes, collection.environment()]


def direction_note(metrics: list[str]) -> list[str]:
    """Say in which metrics a negative difference is the better one, if there are any."""
    lower = [METRICS[metric].name for metric in metrics if not METRICS[metric].higher_is_better]
    return [f"Lower is better in {', '.join(lower)}: there, a negative difference is an improvement."] if lower else []


def seeds_note(collection: Collection) -> str:
    """Say what is known of training noise in the differences of a suite."""
    count = len(collection.settings["seeds"])
    if count == 1:
        return ONE_TRAINING
    wide = " Two or three trainings say little about training noise, so the intervals are wide." if count < 4 else ""
    return f"Each entry has {count} trainings, one for each seed.{wide}"


def _cost_notes(collection: Collection, dataset: str) -> list[str]:
    cost = collection.cost()
    if cost is None:
        return ["The cost of the networks is not counted yet."]
    notes = ["Parameters and operations (1 MAC = 2 FLOP, of one image): those of the generator at the entry's size."]
    if "latency_ms" in cost:
        notes[0] += f" Time of one image and memory: measured on {device_of(cost)}, in fp32."
    runs = [run for of_entry in collection.runs_of(dataset).values() for run in of_entry if run.trainable]
    devices = sorted({facts["device"] for run in runs if (facts := run.facts())})
    if devices:
        notes.append(f"Training: mean time of a training on {', '.join(devices)}.")
        notes[-1] += " Times on different devices are not comparable." if len(devices) > 1 else ""
    return notes
