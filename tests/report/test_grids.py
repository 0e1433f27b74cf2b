"""A grid's table and figure show the means of its entries at the place of their values."""

import pandas as pd
import pytest
from made import fill, make_plan

from msgunet.core.text import from_markdown
from msgunet.report.figures import write_figures
from msgunet.report.files import figure_names, table_names
from msgunet.report.page import write_page
from msgunet.report.tables import write_tables

NARROW = {"discriminator_width": 0.0625}


def rows_of(path) -> list[list[str]]:
    lines = [line for line in from_markdown(path.read_text()).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


@pytest.fixture
def made(working_folder):
    def make(grid, without=()):
        entry = {"size": [64, 64], "options": NARROW, "grid": grid}
        methods = {"pix2pix": entry, "mean": {}}
        plan = make_plan(working_folder, methods=methods, ablation={"methods": []}, seeds=[0, 1])
        fill(plan, without=without)
        settings = plan.results / "settings" / "report.json"
        write_tables(settings, plan.results)
        write_figures(settings, plan.results)
        return plan

    return make


def mean(plan, entry: str, metric: str) -> float:
    frames = [pd.read_csv(plan.results / f"runs/bluemarble/{entry}/seed{seed}/metrics.csv") for seed in (0, 1)]
    rows = pd.concat(frames)
    return rows[rows["protocol"] == "native"][metric].mean()


def test_two_keys_are_the_two_axes(made):
    plan = made({"width": [0.0625, 0.125], "dropout": [0.5, 0, 0.25]})
    heading, *rows = rows_of(plan.results / "tables" / "grid_bluemarble_pix2pix.md")
    assert heading == ["Metric", "width", "dropout 0.5", "dropout 0", "dropout 0.25"]
    assert [row[:2] for row in rows[:2]] == [["PSNR (dB)", "width 0.0625"], ["PSNR (dB)", "width 0.125"]]
    assert [row[0] for row in rows[2:]] == ["SSIM", "SSIM", "VIF", "VIF"]
    for row, width in zip(rows[:2], ("0_0625", "0_125"), strict=True):
        for cell, dropout in zip(row[2:], ("0_5", "0", "0_25"), strict=True):
            expected = mean(plan, f"pix2pix_width_{width}_dropout_{dropout}", "psnr")
            assert float(cell) == pytest.approx(expected, abs=0.005)
    assert (plan.results / "figures" / "grid_bluemarble_pix2pix.png").is_file()
    page = write_page(plan.results / "settings" / "report.json", plan.results).read_text()
    assert '<h2 id="grids">' in page
    assert "Pix2Pix on bluemarble: width and dropout" in page
    assert table_names(plan.report)["grids"] == figure_names(plan.report)["grids"] == ["grid_bluemarble_pix2pix"]


def test_one_key_is_a_column_and_unfinished_entries_say_so(made):
    plan = made({"width": [0.0625, 0.125]}, without=("pix2pix_width_0_125",))
    heading, *rows = rows_of(plan.results / "tables" / "grid_bluemarble_pix2pix.md")
    assert heading == ["Metric", "width", "mean"]
    assert float(rows[0][2]) == pytest.approx(mean(plan, "pix2pix_width_0_0625", "psnr"), abs=0.005)
    assert rows[1] == ["PSNR (dB)", "width 0.125", "not yet"]
    assert (plan.results / "figures" / "grid_bluemarble_pix2pix.png").is_file()


def test_without_a_grid_there_is_no_section(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    write_tables(plan.results / "settings" / "report.json", plan.results)
    page = write_page(plan.results / "settings" / "report.json", plan.results).read_text()
    assert 'id="grids"' not in page
    assert "grids" not in plan.report
