"""Table 1, its differences between methods, and the same for each training."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from msgunet.core.metrics import FEWEST_IMAGES, METRICS, conventions, headings
from msgunet.core.table import Cell, Table, number
from msgunet.report.collect import Collection
from msgunet.report.statistics import LEVEL, best, tied, undecidable

ONE_TRAINING = (
    "There is one training of each method, so nothing is known of training noise: another training could reverse any "
    "difference."
)
_TIED = (
    "Bold: the best trained method and all methods that do not differ from it significantly. A difference is "
    f"significant if p is below {LEVEL:g} (Wilcoxon's signed-rank test on the same images, Holm's correction over all "
    "pairs of methods), its 95 % interval leaves out zero, and all trainings agree on its sign."
)
_SIZES = (
    "The methods have different sizes here, and their outputs are compared with different targets: nothing is tested "
    "or bold between sizes. The full protocol compares them on the same targets."
)
_PROTOCOLS = {
    "native": "Native protocol: each output is compared with the target at the network's own size, as in the paper.",
    "full": (
        "Full protocol: each output is first resized to the data set's full size (bicubic; outputs that are labels by "
        "nearest neighbour) and compared with the same target for all methods."
    ),
}
_WIDE = (
    "Two or three trainings say little about training noise, so their intervals are wide; they end where the metric's "
    "range does."
)
_SEA = (
    "SSIM scores a flat colour highly wherever the target is nearly flat (open sea), so 'mean' is hard to beat in SSIM "
    "on images that are mostly sea."
)


def table1(collection: Collection, dataset: str, protocol: str, part: pd.DataFrame, pairs: pd.DataFrame) -> Table:
    """Return Table 1 of a data set in a protocol, from its part of the summary and of the comparisons."""
    metrics = collection.settings["metrics"]
    reported = {m for m in metrics if part[f"paper_{m}"].notna().any()}
    with_paper = {m for m in metrics if METRICS[m].in_paper} if reported else set()
    several = (part["seeds"] > 1).any()
    columns = ["Method", "Size", *(["Trainings"] if several else [])]
    trained = part[part["trained"]].set_index("entry")
    comparable = protocol != "native" or len(trained[["width", "height"]].drop_duplicates()) < 2
    winners = {}
    for metric, heading in headings(metrics).items():
        columns += [heading, "paper"] if metric in with_paper else [heading]
        values = trained[metric].astype(float).dropna() if comparable else []
        tests = pairs[pairs["metric"] == metric]
        decided = len(values) and not undecidable(tests)
        winners[metric] = tied(tests, best(values, METRICS[metric].higher_is_better)) if decided else set()
    rows = []
    for _, row in part.iterrows():
        cells: list[Cell | str] = [row["title"], f"{row['width']}×{row['height']}"]
        cells += [number(row["seeds"] if row["trained"] else None, ",")] if several else []
        for metric in metrics:
            cells.append(_with_interval(row, metric, row["entry"] in winners[metric]))
            if metric in with_paper:
                cells.append(number(row[f"paper_{metric}"], ".2f"))
        rows.append(cells)
    notes = [collection.data_conditions(dataset), protocol_note(collection, dataset, protocol), *conventions(metrics)]
    notes.append(interval_note(part, [f"{metric}_images" for metric in metrics]))
    notes += _bold_notes(pairs, metrics) if comparable else [_SIZES]
    notes += _reference_notes(collection, dataset)
    if with_paper:
        notes.append("The paper's numbers are listed for every row of the same method and size, whatever its settings.")
        if (part["width"] == 2048).any():
            notes.append(
                "The paper does not state which generator its Pix2Pix-HD uses. Its 3.32 TFLOP are those of the global "
                "generator with three downsamplings, without the local enhancer."
            )
    else:
        notes.append(f"The paper reports no numbers for {dataset} at these sizes in this protocol.")
    notes += collection.undefined(dataset, protocol)
    notes += collection.unfinished(dataset)
    notes += [collection.run_conditions(runs) for runs in collection.runs_of(dataset).values()]
    notes.append(collection.environment())
    subject = f"{dataset}, {protocol} protocol"
    command, caption = collection.command("tables/table1.csv"), f"Quality on {subject}"
    return Table(f"table1_{dataset}_{protocol}", f"Table 1, {subject}", columns, rows, notes, command, caption)


def protocol_note(collection: Collection, dataset: str, protocol: str) -> str:
    """Say what a protocol compares, and whether the other one gives the same numbers."""
    same = " All outputs have the data set's size, so both protocols agree."
    return _PROTOCOLS[protocol] + (same if collection.protocols_agree(dataset) else "")


def _bold_notes(pairs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say what bold means, and in which metrics nothing can be bold and why."""
    decidable = any(not undecidable(pairs[pairs["metric"] == metric]) for metric in metrics)
    return [*([_TIED] if decidable else []), *nothing_bold(pairs, metrics)]


def nothing_bold(pairs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say in which metrics nothing can be bold and why."""
    metrics_of: dict[str, list[str]] = {}
    for metric in metrics:
        metrics_of.setdefault(undecidable(pairs[pairs["metric"] == metric]), []).append(METRICS[metric].name)
    return [f"Nothing is bold in {', '.join(names)}: {reason}." for reason, names in metrics_of.items() if reason]


def _reference_notes(collection: Collection, dataset: str) -> list[str]:
    """Say what the rows without a training are for, if there are any."""
    runs = [runs[0] for runs in collection.runs_of(dataset).values() if not runs[0].trainable]
    if not runs:
        return []
    titles = " and ".join(f"'{run.title}'" for run in runs)
    note = (
        f"{titles}: {'reference points' if len(runs) > 1 else 'a reference point'} for the numbers, without training."
    )
    means = [run for run in runs if run.settings.method == "mean"]
    return [f"{note} {_SEA}" if means and collection.datasets[dataset]["kind"] == "bluemarble" else note]


def interval_note(part: pd.DataFrame, counts: Sequence[str]) -> str:
    """Say what the intervals of some rows cover; `counts` are the columns with the number of images."""
    few = ((part[counts] > 0) & (part[counts] < FEWEST_IMAGES)).any(axis=None)
    seeds = sorted(set(part.loc[part["trained"], "seeds"])) or [1]
    text = "Brackets: 95 % interval over test images"
    if seeds == [1]:
        text += (
            ". There is one training of each method, so nothing is known of training noise: the intervals and tests "
        )
        text += "describe these very trainings."
    else:
        text += f" and trainings ({' or '.join(map(str, seeds))} seeds of each method)."
        text += " A method with one training has an interval over images only." if 1 in seeds else ""
        text += f" {_WIDE}" if {2, 3} & set(seeds) else ""
    return f"{text} Fewer than {FEWEST_IMAGES} images have no interval." if few else text


def seeds_table(collection: Collection, dataset: str, protocol: str, part: pd.DataFrame) -> Table:
    """Return the means of each training of a data set in a protocol."""
    metrics = collection.settings["metrics"]
    rows = [
        [row["title"], str(row["seed"]), *(number(row[m], f".{METRICS[m].digits}f", "undefined") for m in metrics)]
        for row in part.to_dict("records")
    ]
    columns = ["Method", "Seed", *headings(metrics).values()]
    notes = ["Means over the test images of each training.", protocol_note(collection, dataset, protocol)]
    notes += collection.unfinished(dataset)
    title = f"Each training, {dataset}, {protocol} protocol"
    name = f"seeds_{dataset}_{protocol}"
    return Table(name, title, columns, rows, [*notes, collection.environment()], collection.command("tables/seeds.csv"))


def _with_interval(row: pd.Series, metric: str, bold: bool) -> Cell:
    if row["status"] != "done":
        return Cell(row["status"])
    if pd.isna(row[metric]):
        return Cell("undefined")
    return Cell(
        bracketed(row, metric, f"{metric}_low", f"{metric}_high", f".{METRICS[metric].digits}f"), row[metric], bold
    )


def bracketed(row: Mapping[str, Any], value: str, low: str, high: str, form: str) -> str:
    """Return a value with its interval in brackets, if it has one."""
    mean, *ends = (number(row[key], form).text for key in (value, low, high))
    return mean if pd.isna(row[low]) else f"{mean} [{', '.join(ends)}]"


def comparisons_table(collection: Collection, dataset: str, protocol: str, pairs: pd.DataFrame) -> Table:
    """Return the differences between all pairs of methods of a data set in a protocol."""
    metrics = collection.settings["metrics"]
    several = collection.several_seeds()
    columns = ["Methods", *(["Trainings"] if several else [])]
    for heading in headings(metrics).values():
        columns += [f"{heading}, difference", *(["wins"] if several else []), "p"]
    rows = []
    for (first, second), tests in pairs.groupby(["first", "second"], sort=False):
        cells: list[Cell | str] = [f"{collection.titles[first]} − {collection.titles[second]}"]
        cells += ["{trainings_first} and {trainings_second}".format(**tests.iloc[0])] if several else []
        for metric, test in tests.set_index("metric").loc[metrics].iterrows():
            form, bold = f"+.{METRICS[str(metric)].digits}f", bool(test["significant"])
            text = bracketed(test, "difference", "low", "high", form)
            cells.append(Cell("undefined" if pd.isna(test["difference"]) else text, test["difference"], bold))
            cells += [number(test["wins"], ".0%")] if several else []
            cells.append(number(test["p_holm"], ".2g", bold=bold))
        rows.append(cells)
    count = pairs["images"].max() if len(pairs) else 0
    none = ["This table needs at least two finished trained methods of one size."]
    notes = [
        f"Mean difference over {count} test images and all trainings of each method, with its 95 % interval: images "
        "are resampled for both methods together, and the training noise of each method separately. p: two-sided "
        "Wilcoxon signed-rank test on the means over trainings, with Holm's correction over all pairs of methods in a "
        f"metric. Bold: p below {LEVEL:g}, zero outside the interval, and all trainings agree on the sign.",
        "Wins: share of the pairs of one training of each method in which the first has the better mean."
        if several
        else ONE_TRAINING,
        *(nothing_bold(pairs, metrics) if len(rows) else none),
        protocol_note(collection, dataset, protocol),
        *collection.undefined(dataset, protocol),
        *collection.unfinished(dataset),
        collection.environment(),
    ]
    title = f"Differences between methods, {dataset}, {protocol} protocol"
    command = collection.command("tables/comparisons.csv")
    return Table(f"comparisons_{dataset}_{protocol}", title, columns, rows, notes, command)
