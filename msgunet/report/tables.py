"""All tables of a suite as CSV, Markdown, LaTeX and HTML; Table 1 and its comparisons are built here."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msgunet.core.files import atomic, remove_leftovers
from msgunet.core.metrics import METRICS
from msgunet.core.table import Cell, Table, number
from msgunet.methods.method import schedule_label
from msgunet.methods.registry import build_method
from msgunet.report.ablation import ablation_frame, ablation_grid
from msgunet.report.claims import claims_frame, claims_table
from msgunet.report.collect import Collection, Run
from msgunet.report.costs import cost_table
from msgunet.report.published import published
from msgunet.report.reproduction import reproduction_frame, reproduction_table
from msgunet.report.speed import speed_table
from msgunet.report.statistics import LEVEL, bootstrap, compare, tied

_CONVENTIONS = (
    "PSNR, SSIM and VIF are computed for each image as stored (SSIM and VIF with piq), and averaged over images. PSNR "
    "is at most 100 dB. SSIM uses a Gaussian 11×11 window without pooling. VIF is computed in the pixel domain on "
    "luma.",
    "Brackets: 95 % bootstrap interval over test images and seeds.",
)
_TIED = (
    "Bold: the best trained method and all methods that do not differ from it significantly at the "
    f"{100 * LEVEL:g} % level (Wilcoxon's signed-rank test on the same images, seeds averaged, Holm's correction over "
    "all pairs of methods)."
)
_PROTOCOLS = {
    "native": "Native protocol: each output is compared with the target at the network's own size, as in the paper.",
    "full": (
        "Full protocol: each output is first resized to the data set's full size (bicubic) and compared with the same "
        "target for all methods."
    ),
}
_ENDINGS = {".csv", ".md", ".tex", ".html", ".pdf", ".png"}
_FLAT = (
    "The rows 'copy' and 'mean' are reference points for the numbers. SSIM scores a flat colour highly wherever the "
    "target is nearly flat (open sea), so 'mean' is hard to beat in SSIM on images that are mostly sea."
)


@dataclass(frozen=True)
class Tables:
    """All tables of a suite: formatted tables by section, and their numbers by name of the CSV file."""

    sections: dict[str, list[Table]]
    frames: dict[str, pd.DataFrame]

    @property
    def all(self) -> list[Table]:
        """The tables of all sections."""
        return [table for tables in self.sections.values() for table in tables]

    def write(self, folder: Path) -> None:
        """Write all tables into a folder, and remove the files of an earlier state of the suite."""
        for name, frame in self.frames.items():
            with atomic(folder / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.8g")
        for table in self.all:
            table.write(folder)
        remove_stale(folder, {*self.frames, *(table.name for table in self.all)})


def build_tables(collection: Collection) -> Tables:
    """Build every table from the available results; cells without a result state the reason."""
    summary, pairs = summarise(collection), comparisons(collection)
    ablation = ablation_frame(collection)
    cost, speed = collection.cost(), collection.speed()
    frames = {"table1": summary, "comparisons": pairs, "ablation": ablation}
    frames["reproduction"] = reproduction_frame(summary, ablation, cost, collection)
    frames["claims"] = claims_frame(collection, pairs, ablation)
    groups = [(dataset, protocol) for dataset in collection.datasets for protocol in collection.settings["protocols"]]
    sections = {
        "results": [_table1(collection, *group, _part(summary, *group), _part(pairs, *group)) for group in groups],
        "comparisons": [_comparisons(collection, *group, _part(pairs, *group)) for group in groups],
        "reproduction": [
            claims_table(frames["claims"], collection),
            reproduction_table(frames["reproduction"], collection),
        ],
        "ablation": [ablation_grid(collection, ablation, *key) for key in collection.ablated()],
        "cost": [cost_table(cost, collection.titles, collection.command("tables/cost.csv"))],
    }
    frames["cost"] = (pd.DataFrame(columns=["entry"]) if cost is None else cost).assign(suite=collection.suite)
    if speed is not None:
        frames["speed"] = speed.assign(suite=collection.suite)
        command = f"msgunet bench {collection.suite_argument} --out {collection.results / 'speed.csv'}"
        sections["cost"].append(speed_table(speed, collection.titles, command))
    return Tables(sections, frames)


def write_tables(settings_file: Path, results: Path) -> None:
    """Write every table as Markdown, LaTeX and HTML, and their numbers as CSV, in `results/tables`."""
    build_tables(Collection(settings_file, results)).write(results / "tables")


def remove_stale(folder: Path, names: set[str]) -> None:
    """Remove tables and figures of an earlier state of the suite: those whose names are not in `names`.

    Another process can make the same report at the same time.
    """
    remove_leftovers(folder)
    for path in folder.iterdir():
        if path.suffix in _ENDINGS and path.stem not in names and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def _part(frame: pd.DataFrame, dataset: str, protocol: str) -> pd.DataFrame:
    rows = (frame["dataset"] == dataset) & (frame["protocol"] == protocol)
    return frame[rows].reset_index(drop=True)


def summarise(collection: Collection) -> pd.DataFrame:
    """Return one row per data set, entry and protocol: means, intervals, the paper's numbers and conditions."""
    paper = published("table1")
    rows = []
    for dataset, entry in collection.datasets.items():
        for runs in collection.runs_of(dataset).values():
            settings = runs[0].settings
            same_size = (paper["width"] == settings.size[0]) & (paper["height"] == settings.size[1])
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
                    reported = len(match) and protocol == "native"
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
            interval = bootstrap(values, collection.settings["resamples"])
            row[metric], row[f"{metric}_low"], row[f"{metric}_high"] = interval
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


def comparisons(collection: Collection) -> pd.DataFrame:
    """Compare all pairs of trained methods by Wilcoxon's test, per data set, protocol and metric; seeds averaged."""
    frames = []
    for dataset in collection.datasets:
        rows = {name: runs for name, runs in collection.runs_of(dataset).items() if runs[0].trainable}
        rows = {name: runs for name, runs in rows.items() if status_of(runs) == "done"}
        for protocol in collection.settings["protocols"]:
            for metric in collection.settings["metrics"]:
                values = pd.DataFrame({n: per_image(runs, protocol, metric).mean(axis=1) for n, runs in rows.items()})
                frames.append(compare(values).assign(dataset=dataset, protocol=protocol, metric=metric))
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


def _table1(collection: Collection, dataset: str, protocol: str, part: pd.DataFrame, pairs: pd.DataFrame) -> Table:
    metrics = collection.settings["metrics"]
    with_paper = part[[f"paper_{m}" for m in metrics]].notna().any(axis=None)
    columns = ["Method", "Size"]
    winners = {}
    for metric in metrics:
        columns += [METRICS[metric].heading, "paper"] if with_paper else [METRICS[metric].heading]
        trained = part[part["trained"]].set_index("entry")[metric].astype(float).dropna()
        winners[metric] = tied(pairs[pairs["metric"] == metric], trained.idxmax()) if len(trained) else set()
    rows = []
    for _, row in part.iterrows():
        cells: list[Cell | str] = [row["title"], f"{row['width']}×{row['height']}"]
        for metric in metrics:
            cells.append(_with_interval(row, metric, row["entry"] in winners[metric]))
            if with_paper:
                cells.append(number(row[f"paper_{metric}"], ".2f"))
        rows.append(cells)
    notes = [collection.data_conditions(dataset), _PROTOCOLS[protocol], *_CONVENTIONS, _TIED, _FLAT]
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
    title = f"Table 1, {dataset}, {protocol} protocol"
    command = collection.command("tables/table1.csv")
    return Table(f"table1_{dataset}_{protocol}", title, columns, rows, notes, command)


def _with_interval(row: pd.Series, metric: str, bold: bool) -> Cell:
    if row["status"] != "done":
        return Cell(row["status"])
    if pd.isna(row[metric]):
        return Cell("undefined")
    form = f".{METRICS[metric].digits}f"
    mean, low, high = (number(row[f"{metric}{suffix}"], form).text for suffix in ("", "_low", "_high"))
    return Cell(f"{mean} [{low}, {high}]", row[metric], bold)


def _comparisons(collection: Collection, dataset: str, protocol: str, pairs: pd.DataFrame) -> Table:
    metrics = collection.settings["metrics"]
    columns = ["Methods"]
    for metric in metrics:
        columns += [f"{METRICS[metric].heading}, difference", "p"]
    rows = []
    for (first, second), tests in pairs.groupby(["first", "second"], sort=False):
        cells: list[Cell | str] = [f"{collection.titles[first]} − {collection.titles[second]}"]
        for metric, test in tests.set_index("metric").loc[metrics].iterrows():
            form = f"+.{METRICS[str(metric)].digits}f"
            significant = test["p_holm"] < LEVEL
            cells.append(number(test["difference"], form, bold=significant))
            cells.append(number(test["p_holm"], ".2g", bold=significant))
        rows.append(cells)
    count = pairs["images"].max() if len(pairs) else 0
    notes = [
        f"Mean difference over {count} test images, with seeds averaged. p: two-sided Wilcoxon signed-rank test with "
        f"Holm's correction over all pairs of methods in a metric. Bold: p below {LEVEL:g}.",
        *([] if len(rows) else ["This table needs at least two finished trained methods."]),
        *(["With fewer than six images, no difference can reach p below 0.05."] if count < 6 else []),
        _PROTOCOLS[protocol],
        *collection.undefined(dataset, protocol),
        *collection.unfinished(dataset),
        collection.environment(),
    ]
    title = f"Differences between methods, {dataset}, {protocol} protocol"
    command = collection.command("tables/comparisons.csv")
    return Table(f"comparisons_{dataset}_{protocol}", title, columns, rows, notes, command)
