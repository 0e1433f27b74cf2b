"""docs/report.md lists every file of a report."""

import re

from conftest import ROOT
from made import fill, make_plan

from msgunet.report.collect import Collection
from msgunet.report.files import figure_names, table_names
from msgunet.report.tables import build_tables

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}


def test_every_file_of_a_report_is_documented(working_folder):
    """Of a suite that has every kind: seeds, a grid, an ablation, gradients and a reference entry."""
    methods = {
        "pix2pix": {"options": {"discriminator_width": 0.0625}, "grid": {"width": [0.0625, 0.125]}},
        "msgunet": {"options": {**NARROW, "scales": 2}},
    }
    gradients = {"method": "msgunet", "dataset": "bluemarble", "epochs": 1, "records": 2}
    reference = {"reference": "msgunet"}
    plan = make_plan(working_folder, methods=methods, gradients=gradients, seeds=[0, 1], comparison=reference)
    tables, figures = (
        [n for names in kind(plan.report).values() for n in names] for kind in (table_names, figure_names)
    )
    assert {"seeds_bluemarble_full", "ablation_bluemarble_msgunet", "grid_bluemarble_pix2pix"} <= set(tables)
    assert {"design_bluemarble_full", "design_bluemarble_native"} <= set(tables)
    assert {"design_bluemarble", "fig2_gradients", "ablation_bluemarble_msgunet", "grid_bluemarble_pix2pix"} <= set(
        figures
    )
    fill(plan, 6)
    frames = build_tables(Collection(plan.results / "settings" / "report.json", plan.results)).frames
    page = (ROOT / "docs" / "report.md").read_text()
    sections = dict(re.findall(r"^## (Tables|Figures)\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL))
    listed = {
        section: {name for row in re.findall(r"^\| `.*", text, re.MULTILINE) for name in re.findall("`([^`]*)`", row)}
        for section, text in sections.items()
    }

    def pattern(name: str) -> str:
        name = re.sub("_(native|full)$", "_<protocol>", name.replace("bluemarble", "<data set>"))
        return re.sub("_(pix2pix|msgunet)$", "_<entry>", name)

    assert {pattern(name) for name in tables} <= listed["Tables"]
    assert {f"{name}.csv" for name in frames} <= listed["Tables"]
    assert {pattern(name) for name in figures} <= listed["Figures"]
