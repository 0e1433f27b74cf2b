"""All tables of a suite as CSV, Markdown, LaTeX and HTML; here Table 1 and its comparisons."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msgunet.core.files import atomic
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

HEADINGS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "vif": "VIF"}
_DIGITS = {"psnr": 2, "ssim": 3, "vif": 3}
_CONVENTIONS = (
    "PSNR, SSIM and VIF by piq on the images as stored, mean over images of one value per image; SSIM Gaussian "
    "11×11 without pooling; VIF in the pixel domain on luma",
    "in brackets: 95 % bootstrap interval over test images and seeds",
)
_TIED = (
    "bold: the best trained method, and those that Wilcoxon's signed-rank test on the same images (seeds averaged, "
    f"Holm's correction over all pairs of methods) cannot tell from it at the {100 * LEVEL:g} % level"
)
_PROTOCOLS = {
    "native": "native protocol: each output against the target at the network's own size, as in the paper",
    "full": "full protocol: each output first brought to the data set's full size (bicubic), one target for all",
}
_ENDINGS = {".csv", ".md", ".tex", ".html", ".pdf", ".png"}
_FLAT = (
    "the rows 'copy' and 'mean' show what a number is worth: SSIM gives one flat colour a high score wherever the "
    "target is nearly flat (open sea), so 'mean' is hard to beat in SSIM on images that are mostly sea"
)


@dataclass(frozen=True)
class Tables:
    """All tables of a suite: for reading by section, and their numbers by the CSV's name."""

    sections: dict[str, list[Table]]
    frames: dict[str, pd.DataFrame]

    @property
    def all(self) -> list[Table]:
        """The tables of all sections."""
        return [table for tables in self.sections.values() for table in tables]

    def write(self, folder: Path) -> None:
        """Write all of them into a folder; files of an earlier state of the suite go."""
        for name, frame in self.frames.items():
            with atomic(folder / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.8g")
        for table in self.all:
            table.write(folder)
        remove_others(folder, {*self.frames, *(table.name for table in self.all)})


def build_tables(collection: Collection) -> Tables:
    """Make every table from what has been measured; what is missing says so in its place."""
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
        command = f"msgunet bench {collection.suite} --out {collection.results / 'speed.csv'}"
        sections["cost"].append(speed_table(speed, collection.titles, command))
    return Tables(sections, frames)


def write_tables(settings_file: Path, results: Path) -> None:
    """Write every table as Markdown, LaTeX and HTML, and their numbers as CSV, in `results/tables`."""
    build_tables(Collection(settings_file, results)).write(results / "tables")


def remove_others(folder: Path, names: set[str]) -> None:
    """Remove tables and figures of an earlier state of the suite, whose names are not among these; nothing else."""
    for path in folder.iterdir():
        if path.suffix in _ENDINGS and path.stem not in names:
            path.unlink()


def _part(frame: pd.DataFrame, dataset: str, protocol: str) -> pd.DataFrame:
    there = (frame["dataset"] == dataset) & (frame["protocol"] == protocol)
    return frame[there].reset_index(drop=True)


def summarise(collection: Collection) -> pd.DataFrame:
    """One row per data set, method and protocol: means, intervals, the paper's numbers, conditions as columns."""
    paper = published("table1")
    rows = []
    for dataset, entry in collection.datasets.items():
        for runs in collection.runs_of(dataset).values():
            settings = runs[0].settings
            same = (paper["width"] == settings.size[0]) & (paper["height"] == settings.size[1])
            match = paper[same & (paper["method"] == settings.method) & (paper["dataset"] == entry["kind"])]
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
                    # The paper measures each method at its own size.
                    there = len(match) and protocol == "native"
                    row[f"paper_{metric}"] = float(match[metric].iloc[0]) if there else None
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
            found = bootstrap(values, collection.settings["resamples"])
            row[metric], row[f"{metric}_low"], row[f"{metric}_high"] = found
    return row


def status_of(runs: list[Run]) -> str:
    """Of the seeds of a row: done, how many of them, or why there is no number."""
    states = [run.state for run in runs if not run.evaluation_facts()]
    count = len(runs) - len(states)
    if not states:
        return "done"
    words = [state.cell for state in states if state.cell != "not yet"] or ["not yet"]
    return f"{words[0]}, {count} of {len(runs)} seeds done" if count else words[0]


def per_image(runs: list[Run], protocol: str, metric: str) -> pd.DataFrame:
    """A metric of every test image (rows, by id) and seed (columns) of a row that is done."""
    frames = [run.measured() for run in runs]
    columns = {
        run.settings.seed: frame[frame["protocol"] == protocol].set_index("id")[metric]
        for run, frame in zip(runs, frames, strict=True)
    }
    return pd.DataFrame(columns).sort_index()


def comparisons(collection: Collection) -> pd.DataFrame:
    """Wilcoxon's test between every two trained methods, for each data set, protocol and metric; seeds averaged."""
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
    """What a row of a CSV says about the trainings behind it."""
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
        columns += [HEADINGS[metric], "paper"] if with_paper else [HEADINGS[metric]]
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
        notes.append("the paper's numbers stand beside every row of their method and size, whatever its settings")
        if (part["width"] == 2048).any():
            notes.append(
                "the paper does not say which generator its Pix2Pix-HD is; its 3.32 TFLOP are the global generator's "
                "with three downsamplings, without the local enhancer"
            )
    else:
        notes.append(f"the paper has no numbers for {dataset} at these sizes in this protocol")
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
    form = f".{_DIGITS[metric]}f"
    mean, low, high = (number(row[f"{metric}{suffix}"], form).text for suffix in ("", "_low", "_high"))
    return Cell(f"{mean} [{low}, {high}]", row[metric], bold)


def _comparisons(collection: Collection, dataset: str, protocol: str, pairs: pd.DataFrame) -> Table:
    metrics = collection.settings["metrics"]
    columns = ["Methods"]
    for metric in metrics:
        columns += [f"{HEADINGS[metric]}, difference", "p"]
    rows = []
    for (first, second), tests in pairs.groupby(["first", "second"], sort=False):
        cells: list[Cell | str] = [f"{collection.titles[first]} − {collection.titles[second]}"]
        for metric, test in tests.set_index("metric").loc[metrics].iterrows():
            form = f"+.{_DIGITS[str(metric)]}f"
            clear = test["p_holm"] < LEVEL
            cells += [number(test["difference"], form, bold=clear), number(test["p_holm"], ".2g", bold=clear)]
        rows.append(cells)
    count = pairs["images"].max() if len(pairs) else 0
    notes = [
        f"mean difference over {count} test images, seeds averaged; Wilcoxon's signed-rank test (two-sided), p by "
        f"Holm's correction for all pairs of methods in a metric; bold: below {LEVEL:g}",
        *([] if len(rows) else ["two trained methods that are done are needed"]),
        *(["with fewer than six images no difference can have p below 0.05"] if count < 6 else []),
        _PROTOCOLS[protocol],
        *collection.unfinished(dataset),
        collection.environment(),
    ]
    title = f"Differences between methods, {dataset}, {protocol} protocol"
    command = collection.command("tables/comparisons.csv")
    return Table(f"comparisons_{dataset}_{protocol}", title, columns, rows, notes, command)
