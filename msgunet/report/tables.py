"""Table 1 and the ablation tables (2 and 3), with the paper's numbers beside ours, and all tables as files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from msgunet.files import atomic, write_text
from msgunet.method import schedule_label
from msgunet.published import published
from msgunet.registry import build_method, get_method
from msgunet.report.collect import Collection, Run
from msgunet.report.costs import cost_table
from msgunet.report.render import Table

NOT_YET = "not yet"
_HEADINGS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "vif": "VIF"}
_DIGITS = {"psnr": 2, "ssim": 3, "vif": 3}
_CONVENTIONS = (
    "PSNR, SSIM and VIF by piq on 8-bit RGB pictures, mean over pictures of one value per picture; SSIM Gaussian 11×11 "
    "without pooling; VIF in the pixel domain on luma",
    "in brackets: 95 % bootstrap interval over test pictures and seeds",
)
_PROTOCOLS = {
    "native": "native protocol: each output against the target at the network's own size, as in the paper",
    "full": "full protocol: each output first brought to the data set's full size (bicubic), one target for all",
}
_FLAT = (
    "the rows 'copy' and 'mean' show what a number is worth: SSIM gives one flat colour a high score wherever the "
    "target is nearly flat (open sea), so 'mean' is hard to beat in SSIM on pictures that are mostly sea"
)


@dataclass(frozen=True)
class Tables:
    """All tables of a suite: for reading by section, and their numbers by the CSV's name."""

    results: list[Table]
    ablation: list[Table]
    cost: list[Table]
    frames: dict[str, pd.DataFrame]


def build_tables(collection: Collection) -> Tables:
    """Make every table that can be made from what has been measured."""
    summary = summarise(collection)
    parts = summary.groupby(["dataset", "protocol"], sort=False)
    results = [_table1_part(collection, *map(str, key), part.reset_index(drop=True)) for key, part in parts]
    ablation_frame, ablation = ablation_tables(collection)
    frames = {"table1": summary, "ablation": ablation_frame}
    cost, of_cost = collection.cost(), []
    if cost is not None:
        frames["cost"] = cost.assign(suite=collection.suite)
        command = collection.command("tables/cost.csv")
        of_cost.append(cost_table(frames["cost"], collection.titles, command))
    return Tables(results, ablation, of_cost, frames)


def write_tables(settings_file: Path, results: Path) -> None:
    """Write every table as CSV, Markdown and LaTeX in `results/tables`."""
    tables = build_tables(Collection(settings_file, results))
    folder = results / "tables"
    for name, frame in tables.frames.items():
        with atomic(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.8g")
    for table in (*tables.results, *tables.ablation, *tables.cost):
        write_text(folder / f"{table.name}.md", table.markdown())
        write_text(folder / f"{table.name}.tex", table.latex())


def bootstrap(values: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """Mean of `values` (seeds, images) and its 95 % interval, resampling images and, where there are several, seeds.

    The resampling is seeded: the same values always give the same interval.
    """
    draw = np.random.default_rng(0)
    seeds, images = values.shape
    of_images = draw.integers(0, images, (resamples, images))
    of_seeds = draw.integers(0, seeds, (resamples, seeds))
    means = (
        values.mean(0)[of_images].mean(1)
        if seeds == 1
        else np.array([values[np.ix_(s, i)].mean() for s, i in zip(of_seeds, of_images, strict=True)])
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


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
                    "width": settings.size[0],
                    "height": settings.size[1],
                    "protocol": protocol,
                    **_measured(runs, protocol, collection.settings["measures"], collection.settings["resamples"]),
                }
                for measure in collection.settings["measures"]:
                    # The paper measures each method at its own size.
                    there = len(match) and protocol == "native"
                    row[f"paper_{measure}"] = float(match[measure].iloc[0]) if there else None
                rows.append({**row, **_columns(collection, runs)})
    return pd.DataFrame(rows)


def _measured(runs: list[Run], protocol: str, measures: list[str], resamples: int) -> dict:
    frames = [frame for run in runs if (frame := run.table("metrics.csv")) is not None]
    if len(frames) < len(runs):
        return {"status": f"{len(frames)} of {len(runs)} seeds" if frames else NOT_YET}
    frames = [frame[frame["protocol"] == protocol].sort_values("id") for frame in frames]
    row: dict = {"status": "done", "seeds": len(frames), "images": len(frames[0])}
    for measure in measures:
        values = np.array([frame[measure] for frame in frames], float)
        values = values[:, np.isfinite(values).all(0)]
        row[f"{measure}_images"] = values.shape[1]
        if values.size:
            row[measure], row[f"{measure}_low"], row[f"{measure}_high"] = bootstrap(values, resamples)
    return row


def _columns(collection: Collection, runs: list[Run]) -> dict:
    settings, facts = runs[0].settings, runs[0].facts()
    method = build_method(settings)
    return {
        "suite": collection.suite,
        "epochs": schedule_label(method.phases(settings.training)) if method.trainable else "",
        "perceptual": settings.perceptual.weights if settings.perceptual else "",
        "device": facts.get("device", ""),
        "torch": facts.get("versions", {}).get("torch", ""),
        "commit": facts.get("commit", ""),
    }


def _table1_part(collection: Collection, dataset: str, protocol: str, part: pd.DataFrame) -> Table:
    measures = collection.settings["measures"]
    with_paper = part[[f"paper_{m}" for m in measures]].notna().any(axis=None)
    columns, rows, bold = ["Method", "Size"], [], set()
    for measure in measures:
        columns += [_HEADINGS[measure], "paper"] if with_paper else [_HEADINGS[measure]]
    trained = ~part["entry"].map(lambda e: _trivial(collection, dataset, e))
    for index, row in part.iterrows():
        cells = [row["title"], f"{row['width']}×{row['height']}"]
        for measure in measures:
            cells.append(_with_interval(row, measure))
            best = part.loc[trained, measure].max() if measure in part else None
            if trained[index] and best is not None and row.get(measure) == best:
                bold.add((int(index), len(cells) - 1))
            if with_paper:
                value = row[f"paper_{measure}"]
                cells.append("–" if pd.isna(value) else f"{value:.2f}")
        rows.append(cells)
    notes = [collection.data_conditions(dataset), _PROTOCOLS[protocol], *_CONVENTIONS, _FLAT]
    if with_paper:
        notes.append("the paper's numbers stand beside every row of their method and size, whatever its settings")
        if (part["width"] == 2048).any():
            notes.append(
                "the paper does not say which generator its Pix2Pix-HD is; its 3.32 TFLOP are the global generator's "
                "with three downsamplings, without the local enhancer"
            )
    else:
        notes.append(f"the paper has no numbers for {dataset} at these sizes in this protocol")
    notes += [collection.run_conditions(runs) for runs in collection.runs_of(dataset).values()]
    notes.append(collection.environment())
    title = f"Table 1, {dataset}, {protocol} protocol"
    command = collection.command("tables/table1.csv")
    return Table(f"table1_{dataset}_{protocol}", title, columns, rows, notes, command, bold)


def _trivial(collection: Collection, dataset: str, entry: str) -> bool:
    return not get_method(collection.runs_of(dataset)[entry][0].settings.method).trainable


def _with_interval(row: pd.Series, measure: str) -> str:
    if row["status"] != "done":
        return row["status"]
    if pd.isna(row.get(measure)):
        return "undefined"
    digits = _DIGITS[measure]
    return f"{row[measure]:.{digits}f} [{row[f'{measure}_low']:.{digits}f}, {row[f'{measure}_high']:.{digits}f}]"


def ablation_tables(collection: Collection) -> tuple[pd.DataFrame, list[Table]]:
    """Tables 2 and 3: all cells, and one grid per data set and method, ours and the paper's."""
    paper = pd.concat([published("table2"), published("table3")])
    size = ["input_width", "input_height", "output_width", "output_height"]
    frames, tables = [], []
    for dataset, entry in collection.datasets.items():
        for name, runs in collection.runs_of(dataset).items():
            if name not in collection.settings["ablation"]:
                continue
            found = [frame for run in runs if (frame := run.table("ablation.csv")) is not None]
            if len(found) < len(runs):
                continue
            settings = runs[0].settings
            mean = pd.concat(found).groupby(size)["ssim"].agg(["mean", "count"]).reset_index()
            mean = mean.rename(columns={"mean": "ssim", "count": "values"})
            published_here = paper[(paper["dataset"] == entry["kind"]) & (paper["method"] == settings.method)]
            mean = mean.merge(published_here[[*size, "ssim"]].rename(columns={"ssim": "paper_ssim"}), "left", size)
            mean.insert(0, "entry", name)
            mean.insert(0, "dataset", dataset)
            frames.append(mean.assign(**_columns(collection, runs)))
            tables.append(_ablation_grid(collection, dataset, runs, mean))
    columns = ["dataset", "entry", *size, "ssim", "values", "paper_ssim"]
    return pd.concat(frames) if frames else pd.DataFrame(columns=columns), tables


def _ablation_grid(collection: Collection, dataset: str, runs: list[Run], mean: pd.DataFrame) -> Table:
    inputs = mean[["input_width", "input_height"]].drop_duplicates().sort_values("input_width").to_numpy().tolist()
    outputs = mean[["output_width", "output_height"]].drop_duplicates().sort_values("output_width").to_numpy().tolist()
    cells = mean.set_index(["input_width", "output_width"])
    rows = []
    for width, height in inputs:
        row = [f"{width}×{height}"]
        for output_width, _ in outputs:
            cell = cells.loc[(width, output_width)]
            paper = "" if pd.isna(cell["paper_ssim"]) else f" (paper {cell['paper_ssim']:.2f})"
            row.append("undefined" if pd.isna(cell["ssim"]) else f"{cell['ssim']:.3f}{paper}")
        rows.append(row)
    settings = runs[0].settings
    notes = [
        "SSIM of every output scale against the target at that scale; the source is brought down to the input "
        "resolution and from there up again to all scales; one training",
        collection.data_conditions(dataset),
        *_CONVENTIONS[:1],
        collection.run_conditions(runs),
        collection.environment(),
    ]
    columns = ["Input \\ output", *(f"{w}×{h}" for w, h in outputs)]
    title = f"Tables 2 and 3, {runs[0].title} on {dataset}: input against output resolution (SSIM)"
    command = collection.command("tables/ablation.csv")
    return Table(f"ablation_{dataset}_{settings.entry}", title, columns, rows, notes, command)
