"""The numbers of Table 1: means and intervals of every method, of every training, and the tests between methods."""

import math

import pandas as pd

from msgunet.core.metrics import METRICS
from msgunet.methods.method import schedule_label
from msgunet.methods.registry import build_method
from msgunet.report.collect import Collection, Run
from msgunet.report.published import published
from msgunet.report.statistics import compare, interval


def summarise(collection: Collection) -> pd.DataFrame:
    """Return one row per data set, entry and protocol: means, intervals, the paper's numbers and conditions."""
    paper = published("table1")
    rows = []
    for dataset, entry in collection.datasets.items():
        for runs in collection.runs_of(dataset).values():
            settings = runs[0].settings
            same_size = (paper["width"] == settings.size[0]) & (paper["height"] == settings.size[1])
            variant = collection.is_variant(settings)
            match = paper[same_size & (paper["method"] == settings.method) & (paper["dataset"] == entry["kind"])]
            for protocol in collection.settings["protocols"]:
                row = {
                    "dataset": dataset,
                    "entry": settings.entry,
                    "title": runs[0].title,
                    "trained": runs[0].trainable,
                    "width": settings.size[0],
                    "height": settings.size[1],
                    "protocol": protocol,
                    **_measured(collection, runs, protocol),
                }
                for metric in collection.settings["metrics"]:
                    # The paper evaluates each method at its own size.
                    reported = len(match) and protocol == "native" and METRICS[metric].in_paper and not variant
                    row[f"paper_{metric}"] = float(match[metric].iloc[0]) if reported else None
                rows.append({**row, **conditions_of(collection, runs)})
    return pd.DataFrame(rows)


def _measured(collection: Collection, runs: list[Run], protocol: str) -> dict:
    metrics = collection.settings["metrics"]
    row: dict = {"status": status_of(runs), "seeds": len(runs), "images": 0}
    row |= {f"{m}{suffix}": None for m in metrics for suffix in ("", "_low", "_high", "_images")}
    if row["status"] != "done":
        return row
    for metric in metrics:
        values = per_image(runs, protocol, metric)
        row["images"] = len(values)
        values = values.dropna().to_numpy().T
        row[f"{metric}_images"] = values.shape[1]
        if values.size:
            found = interval(values, collection.settings["resamples"], METRICS[metric].range)
            row[metric], row[f"{metric}_low"], row[f"{metric}_high"] = found
    return row


def status_of(runs: list[Run]) -> str:
    """Return the status of a row: done, or why it has no number, with the number of finished seeds if there are any."""
    states = [run.state for run in runs if not run.evaluation_facts()]
    count = len(runs) - len(states)
    if not states:
        return "done"
    words = [state.cell for state in states if state.cell != "not yet"] or ["not yet"]
    return f"{words[0]}, {count} of {len(runs)} seeds done" if count else words[0]


def per_image(runs: list[Run], protocol: str, metric: str) -> pd.DataFrame:
    """Return a metric for every test image (rows, by id) and seed (columns) of a finished row."""
    frames = [run.measured() for run in runs]
    columns = {
        run.settings.seed: frame[frame["protocol"] == protocol].set_index("id")[metric]
        for run, frame in zip(runs, frames, strict=True)
    }
    return pd.DataFrame(columns).sort_index()


def trainings(collection: Collection) -> pd.DataFrame:
    """Return one row per data set, entry, seed and protocol: the means over the test images of each training."""
    rows = []
    by_entry = [runs for dataset in collection.datasets for runs in collection.runs_of(dataset).values()]
    for run in (run for runs in by_entry for run in runs if run.trainable):
        frame = run.measured()
        if frame is None:
            continue
        keys = {"dataset": run.settings.dataset, "entry": run.settings.entry, "title": run.title}
        for protocol in collection.settings["protocols"]:
            part = frame[frame["protocol"] == protocol]
            means = {metric: part[metric].mean() for metric in collection.settings["metrics"]}
            rows.append({**keys, "seed": run.settings.seed, "protocol": protocol, "images": len(part), **means})
    columns = ["dataset", "entry", "title", "seed", "protocol", "images", *collection.settings["metrics"]]
    return pd.DataFrame(rows, columns=columns).assign(suite=collection.suite)


def comparisons(collection: Collection, reference: str | None = None) -> pd.DataFrame:
    """Compare all pairs of trained methods per data set, protocol and metric; see `statistics.compare`.

    In the native protocol, only methods of the same size are compared. With a `reference`, all others are compared only
    with this entry.
    """
    frames = []
    for dataset in collection.datasets:
        rows = {name: runs for name, runs in collection.runs_of(dataset).items() if runs[0].trainable}
        rows = {name: runs for name, runs in rows.items() if status_of(runs) == "done"}
        for protocol in collection.settings["protocols"]:
            sizes = {name: runs[0].settings.size for name, runs in rows.items()} if protocol == "native" else None
            for metric in collection.settings["metrics"]:
                values = {name: per_image(runs, protocol, metric) for name, runs in rows.items()}
                higher = METRICS[metric].higher_is_better
                tests = compare(values, collection.settings["resamples"], sizes, higher, reference)
                frames.append(tests.assign(dataset=dataset, protocol=protocol, metric=metric))
    frame = pd.concat(frames, ignore_index=True)
    keys = ["dataset", "protocol", "metric"]
    return frame[[*keys, *frame.columns.drop(keys)]].assign(suite=collection.suite)


def conditions_of(collection: Collection, runs: list[Run]) -> dict:
    """Return the columns of a CSV row that describe the trainings behind it."""
    settings, facts = runs[0].settings, runs[0].facts()
    method, training = build_method(settings), settings.training
    return {
        "suite": collection.suite,
        "schedule": schedule_label(method.phases(training), training.minutes) if method.trainable else "",
        "perceptual": settings.perceptual.weights if settings.perceptual else "",
        "device": facts.get("device", ""),
        "torch": facts.get("versions", {}).get("torch", ""),
        "commit": facts.get("commit", ""),
    }


def unlearned(collection: Collection) -> list[str]:
    """Return a note for each data set on the methods that do not reach the PSNR of the mean training target."""
    notes = []
    for dataset in collection.datasets if "psnr" in collection.settings["metrics"] else ():
        protocol = collection.protocols(dataset)[0]
        done = [runs for runs in collection.runs_of(dataset).values() if status_of(runs) == "done"]
        rows = [(runs[0], per_image(runs, protocol, "psnr").mean(axis=None)) for runs in done]
        mean = next((psnr for run, psnr in rows if run.settings.method == "mean"), -math.inf)
        if below := [run.title for run, psnr in rows if run.trainable and psnr < mean]:
            notes.append(
                f"{dataset}, {protocol} protocol: {', '.join(below)} did not reach the PSNR of one image for all "
                "sources, the mean of the training targets: too little is learned for a verdict on quality to mean "
                "anything."
            )
    return notes
