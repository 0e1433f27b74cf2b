"""Input against output resolution: the paper's Tables 2 and 3 beside ours."""

import pandas as pd

from msgunet.core.table import Cell, Table, number
from msgunet.report.collect import Collection
from msgunet.report.published import published
from msgunet.report.statistics import bootstrap

_SIZE = ["input_width", "input_height", "output_width", "output_height"]


def ablation_frame(collection: Collection) -> pd.DataFrame:
    """One row per cell: mean SSIM over test images and seeds with its interval, and the paper's."""
    paper = pd.concat([published("table2"), published("table3")])
    frames = []
    for dataset, name in collection.ablated():
        runs = collection.runs_of(dataset)[name]
        found = [run.ablation() for run in runs]
        rows = []
        if all(frame is not None for frame in found):
            seeds = pd.concat([frame.assign(seed=run.settings.seed) for run, frame in zip(runs, found, strict=True)])
            for size, cell in seeds.groupby(_SIZE):
                values = cell.pivot(index="seed", columns="id", values="ssim").dropna(axis=1).to_numpy(float)
                row = {**dict(zip(_SIZE, size, strict=True)), "ssim": None, "ssim_low": None, "ssim_high": None}
                if values.size:
                    found_here = bootstrap(values, collection.settings["resamples"])
                    row |= dict(zip(("ssim", "ssim_low", "ssim_high"), found_here, strict=True))
                rows.append({**row, "values": values.size, "status": "done"})
        kind, method = collection.datasets[dataset]["kind"], runs[0].settings.method
        published_here = paper[(paper["dataset"] == kind) & (paper["method"] == method)]
        published_here = published_here[[*_SIZE, "ssim"]].rename(columns={"ssim": "paper_ssim"})
        ours = pd.DataFrame(rows, columns=[*_SIZE, "ssim", "ssim_low", "ssim_high", "values", "status"])
        # The paper's cells are there before ours; ours that the paper does not have stand for themselves.
        both = ours.merge(published_here, "left" if rows else "right", _SIZE)
        state = next((run.state.cell for run, frame in zip(runs, found, strict=True) if frame is None), "not yet")
        frames.append(both.assign(dataset=dataset, entry=name, status=both["status"].fillna(state)))
    columns = ["dataset", "entry", *_SIZE, "ssim", "ssim_low", "ssim_high", "values", "paper_ssim", "status"]
    frame = pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    return frame.assign(suite=collection.suite)


def ablation_grid(collection: Collection, frame: pd.DataFrame, dataset: str, name: str) -> Table:
    """The grid of one method on one data set: rows are inputs, columns are outputs, ours and then the paper's."""
    runs = collection.runs_of(dataset)[name]
    cells = frame[(frame["dataset"] == dataset) & (frame["entry"] == name)]
    inputs, outputs = (
        sorted({(w, h) for w, h in zip(cells[f"{side}_width"], cells[f"{side}_height"], strict=True)})
        for side in ("input", "output")
    )
    parts = ["ssim", "paper_ssim"] if cells["paper_ssim"].notna().any() else ["ssim"]
    columns = ["Input \\ output", *(f"{w}×{h}" for w, h in outputs)]
    columns += [f"paper {w}×{h}" for w, h in outputs] if len(parts) > 1 else []
    by_size = cells.set_index(_SIZE)
    missing = [f"{collection.label(run)}: {run.state.sentence}" for run in runs if run.ablation() is None]
    rows = []
    for size in inputs:
        row: list[Cell | str] = ["{}×{}".format(*size)]
        for part, form in zip(parts, (".3f", ".2f"), strict=False):
            # Each side has its own shades: what is to be compared is the course, not the level.
            low, high = cells[part].min(), cells[part].max()
            for output in outputs:
                value = by_size.loc[(*size, *output), part]
                shade = None if pd.isna(value) else (value - low) / (high - low) if high > low else 0.0
                status = by_size.loc[(*size, *output), "status"]
                missing_text = ("undefined" if status == "done" else status) if part == "ssim" else "–"
                row.append(number(value, form, missing_text, shade=shade))
        rows.append(row)
    notes = [
        "SSIM of every output scale against the target at that scale; the source is brought down to the input "
        "resolution and from there up again to all scales; one training",
        "shades from the lowest to the highest value of each side",
        *(f"not measured yet; {sentence}" for sentence in missing),
        *([] if len(parts) > 1 or not rows else ["the paper has no such numbers for this data set"]),
        collection.data_conditions(dataset),
        "SSIM by piq on the images as stored, Gaussian 11×11 without pooling, mean over images and seeds",
        collection.run_conditions(runs),
        collection.environment(),
    ]
    title = f"Tables 2 and 3, {runs[0].title} on {dataset}: input against output resolution (SSIM)"
    command = collection.command("tables/ablation.csv")
    return Table(f"ablation_{dataset}_{name}", title, columns, rows, notes, command)
