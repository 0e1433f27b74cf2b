"""Fake results of a suite that compares its entries with a reference entry."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from made import fill, make_plan
from test_titles import write_cost

from msgunet.core.text import from_markdown
from msgunet.report import figures
from msgunet.report.collect import Collection
from msgunet.report.figures import design
from msgunet.report.tables import build_tables

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}
# Not in the order of the differences, and the reference in the middle.
EFFECTS = {"worse": -1.0, "better": 2.0, "base": 0.0, "same": 0.02, "small": 1.0}
TITLES = {"worse": "Worse", "better": "Better", "base": "Base", "same": "Same", "small": "Small"}
IMAGES = 9


def make(folder, images=IMAGES, without=(), cost=True, **changes):
    """Write the results of five entries and `mean`; `small` works at half the size. Return the plan."""
    entries = {name: {"method": "msgunet", "options": {**NARROW, "scales": 2}} for name in EFFECTS}
    entries["small"] = {"method": "pan", "size": [32, 32], "options": {**NARROW, "downsamplings": 4}}
    methods = {name: {**entry, "title": TITLES[name]} for name, entry in entries.items()}
    given = {"methods": {**methods, "mean": {}}, "ablation": {}, "comparison": {"reference": "base"}, **changes}
    plan = make_plan(folder, size=(64, 64), **given)
    fill(plan, images, without)
    draw = np.random.default_rng(5)
    level = draw.normal(24, 3, images)
    for run in (run for run in plan.runs if run.trainable):
        path = run.folder / "metrics.csv"
        if path.exists():
            frame = pd.read_csv(path, converters={"id": str})
            for protocol in ("native", "full"):
                noise = 0.03 * draw.normal() + 0.2 * draw.normal(size=images)
                psnr = level + EFFECTS.get(run.settings.entry, 0) + noise
                frame.loc[frame["protocol"] == protocol, ["psnr", "ssim", "vif"]] = np.c_[psnr, psnr / 40, psnr / 99]
            frame.to_csv(path, index=False)
    if cost:
        write_cost(plan)
    return plan


def report(plan) -> SimpleNamespace:
    """Write the tables; return the collection, the tables, the CSV of the comparison and its figures."""
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    tables = build_tables(collection)
    (plan.results / "tables").mkdir(exist_ok=True)
    tables.write(plan.results / "tables")
    frame = pd.read_csv(plan.results / "tables" / "design.csv") if collection.reference else None
    figures._set_look()
    return SimpleNamespace(
        collection=collection, tables=tables, frame=frame, figures=list(design.draw(collection, tables))
    )


def cells_of(plan, protocol="full") -> dict[str, list[str]]:
    """Return the cells of each row of the Markdown table by the first one."""
    text = from_markdown((plan.results / "tables" / f"design_bluemarble_{protocol}.md").read_text())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {row[0]: row[1:] for row in rows}


def notes_of(plan, protocol="full") -> str:
    return (plan.results / "tables" / f"design_bluemarble_{protocol}.md").read_text()
