"""Input versus output resolution: our Tables 2 and 3 next to the paper's."""

import pandas as pd

from msgunet.core.metrics import METRICS
from msgunet.core.table import Cell, Table, number
from msgunet.report.collect import Collection
from msgunet.report.published import published
from msgunet.report.statistics import interval

_SIZE = ["input_width", "input_height", "output_width", "output_height"]


def ablation_frame(collection: Collection) -> pd.DataFrame:
    """Return one row per cell: mean SSIM over test images and seeds, its interval, and the paper's value."""
    paper = pd.concat([published("table2"), published("table3")])
    frames = []
    for dataset, name in collection.ablated():
        runs = collection.runs_of(dataset)[name]
        tables = [run.ablation() for run in runs]
        rows = []
        if all(table is not None for table in tables):
            seeds = pd.concat([table.assign(seed=run.settings.seed) for run, table in zip(runs, tables, strict=True)])
            for size, cell in seeds.groupby(_SIZE):
                values = cell.pivot(index="seed", columns="id", values="ssim").dropna(axis=1).to_numpy(float)
                row = {**dict(zip(_SIZE, size, strict=True)), "ssim": None, "ssim_low": None, "ssim_high": None}
                if values.size:
                    found = interval(values, collection.settings["resamples"], METRICS["ssim"].range)
                    row |= dict(zip(("ssim", "ssim_low", "ssim_high"), found, strict=True))
                rows.append({**row, "values": values.size, "status": "done"})
        kind, method = collection.datasets[dataset]["kind"], runs[0].settings.method
        paper_cells = paper[(paper["dataset"] == kind) & (paper["method"] == method)]
        paper_cells = paper_cells[[*_SIZE, "ssim"]].rename(columns={"ssim": "paper_ssim"})
        ours = pd.DataFrame(rows, columns=[*_SIZE, "ssim", "ssim_low", "ssim_high", "values", "status"])
        # Until ours are measured, the paper's cells are listed; then all of ours, with the paper's where it has them.
        both = ours.merge(paper_cells, "left" if rows else "right", _SIZE)
        state = next((run.state.cell for run, table in zip(runs, tables, strict=True) if table is None), "not yet")
        frames.append(both.assign(dataset=dataset, entry=name, status=both["status"].fillna(state)))
    columns = ["dataset", "entry", *_SIZE, "ssim", "ssim_low", "ssim_high", "values", "paper_ssim", "status"]
    frame = pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    return frame.assign(suite=collection.suite)


def ablation_grid(collection: Collection, frame: pd.DataFrame, dataset: str, name: str) -> Table:
    """Return the grid of one entry on one data set: rows are inputs, columns outputs, ours then the paper's."""
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
            # Ours and the paper's are shaded separately: their trends are to be compared, not their levels.
            low, high = cells[part].min(), cells[part].max()
            for output in outputs:
                value = by_size.loc[(*size, *output), part]
                shade = None if pd.isna(value) else (value - low) / (high - low) if high > low else 0.0
                status = by_size.loc[(*size, *output), "status"]
                missing_text = ("undefined" if status == "done" else status) if part == "ssim" else "–"
                row.append(number(value, form, missing_text, shade=shade))
        rows.append(row)
    notes = [
        "SSIM of the output at each scale against the target at that scale. The source is resized down to the input "
        "resolution and from there up again to all scales. All cells are from the same training.",
        *(f"Not measured yet: {sentence}" for sentence in missing),
        *([] if len(parts) > 1 or not rows else ["The paper reports no such numbers for this data set."]),
        collection.data_conditions(dataset),
        "SSIM is computed for each image as stored (Gaussian 11×11 window, no pooling) and averaged over "
        "images and seeds.",
        collection.run_conditions(runs),
        collection.environment(),
    ]
    shades = "Shades range from the lowest to the highest value, separately for our numbers and the paper's."
    caption = f"{runs[0].title} on {dataset}: input versus output resolution (SSIM)"
    command = collection.command("tables/ablation.csv")
    title = f"Tables 2 and 3, {caption}"
    return Table(f"ablation_{dataset}_{name}", title, columns, rows, notes, command, caption, shades)
