"""Lower is better in some metrics: what each part of a report then calls the best."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from made import fill, make_plan
from matplotlib import pyplot as plt
from test_wrapping import SimpleNamespace

from msgunet.core.metrics import METRICS, PAPERS, conventions, headings
from msgunet.core.text import latex
from msgunet.evaluation.explain import explain
from msgunet.report.claims import claims_frame
from msgunet.report.collect import Collection
from msgunet.report.figures import grid as grid_figure
from msgunet.report.figures.quality_cost import _pareto, quality_cost
from msgunet.report.grids import grid_table, shade_range
from msgunet.report.page.images import write_images
from msgunet.report.reproduction import reproduction_frame
from msgunet.report.statistics import best, compare
from msgunet.report.table1 import seeds_table
from msgunet.report.tables import build_tables

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}
WANTED = ["psnr", "ssim", "vif", "ms_ssim", "lpips", "dists"]


@pytest.fixture
def collection(working_folder):
    """Two methods of one size; the second has the higher PSNR and the higher LPIPS on every image."""
    methods = {"pix2pix": {"options": NARROW}, "pan": {"options": NARROW}, "mean": {}}
    plan = make_plan(working_folder, methods=methods, evaluation={"metrics": WANTED}, ablation={})
    fill(plan, images=8)
    return Collection(plan.results / "settings" / "report.json", plan.results)


@pytest.fixture
def tables(collection):
    return build_tables(collection)


def table(tables, name: str):
    return next(one for one in tables.all if one.name == name)


def test_the_lowest_mean_is_bold(tables):
    one = table(tables, "table1_bluemarble_native")
    pix2pix, pan, _ = one.cells
    bold = {column: (a.bold, b.bold) for column, a, b in zip(one.columns, pix2pix, pan, strict=True)}
    assert bold["LPIPS ↓"] == bold["DISTS ↓"] == (True, False)
    assert bold["MS-SSIM ↑"] == (False, True)


def test_headings_have_arrows_only_if_lower_is_better_in_one(collection, tables):
    assert list(headings(["psnr", "lpips"]).values()) == ["PSNR (dB) ↑", "LPIPS ↓"]
    assert list(headings(PAPERS).values()) == ["PSNR (dB)", "SSIM", "VIF"]
    assert list(headings(["psnr", "lpips"], unit=False).values()) == ["PSNR ↑", "LPIPS ↓"]
    notes = table(tables, "table1_bluemarble_native").notes
    assert "↑: higher is better; ↓: lower is better." in notes
    assert any(note.startswith("PSNR, SSIM, VIF, MS-SSIM, LPIPS and DISTS are computed") for note in notes)
    assert conventions(PAPERS) == [
        "PSNR, SSIM and VIF are computed for each image as stored, in double precision, and averaged over images. PSNR "
        "is at most 100 dB. SSIM uses a Gaussian 11×11 window without pooling. VIF is computed in the pixel domain on "
        "luma."
    ]
    assert latex("↑ ↓") == r"$\uparrow$ $\downarrow$"
    assert "LPIPS ↓, difference" in table(tables, "comparisons_bluemarble_native").columns
    assert "LPIPS ↓" in seeds_table(collection, "bluemarble", "native", tables.frames["seeds"]).columns


def test_the_first_wins_where_its_mean_is_lower():
    a = pd.DataFrame(np.random.default_rng(0).normal(0, 1, (8, 2)))
    values = {"a": a, "b": a + 5}
    wins = [compare(values, 50, None, higher)["wins"].iloc[0] for higher in (True, False)]
    assert wins == [0, 1]
    assert compare(values, 50, None, False)["difference"].iloc[0] == pytest.approx(-5)
    assert compare({"a": a + 5, "b": a}, 50, None, False)["wins"].iloc[0] == 0
    one = {name: frame[[0]] for name, frame in values.items()}
    assert pd.isna(compare(one, 50, None, False)["wins"].iloc[0]), "one training says nothing of another"


def test_best_of_several():
    values = pd.Series({"a": 1.0, "b": 3.0, "c": 2.0})
    assert (best(values, True), best(values, False)) == ("b", "a")


def test_dark_is_good_in_a_grid(working_folder, monkeypatch):
    options = {"discriminator_width": 0.0625}
    grid = {"options": options, "grid": {"width": [0.0625, 0.125, 0.25]}}
    plan = make_plan(working_folder, methods={"pix2pix": grid}, evaluation={"metrics": ["psnr", "lpips"]}, ablation={})
    fill(plan, images=6)
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    tables = build_tables(collection)
    one = grid_table(collection, tables.frames["table1"], "bluemarble", "pix2pix")
    # The entries of the grid have ever larger values in both metrics.
    shades = [row[-1].shade for row in one.cells]
    assert [cells[0].text for cells in one.cells] == ["PSNR (dB) ↑"] * 3 + ["LPIPS ↓"] * 3
    assert (shades[0], shades[2], shades[3], shades[5]) == (0, 1, 1, 0)
    assert shade_range(pd.DataFrame([[0.5]]), "lpips") == (0.5, pytest.approx(0.49))
    drawn = []
    monkeypatch.setattr(grid_figure.sns, "heatmap", lambda *_, **how: drawn.append(how))
    (figure,) = grid_figure.draw(collection, tables)
    plt.close(figure.figure)
    assert [how["cmap"] for how in drawn] == ["Blues", "Blues_r"]
    assert all(how["vmin"] < how["vmax"] for how in drawn)
    assert [axis.get_title() for axis in figure.figure.axes] == ["PSNR (dB) ↑", "LPIPS ↓"]


def test_the_line_of_quality_and_time_goes_down_to_better_values():
    rows = pd.DataFrame({"latency_ms": [1.0, 2, 3, 4], "psnr": [20.0, 19, 22, 21], "lpips": [0.3, 0.4, 0.1, 0.2]})
    figure, axes = plt.subplots()
    for metric in ("psnr", "lpips"):
        _pareto(axes, rows, metric)
    plt.close(figure)
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 3], [1, 3]]
    runs = [SimpleNamespace(trainable=True, settings=SimpleNamespace(entry=entry)) for entry in "ab"]
    means = pd.DataFrame({"entry": ["a", "b"], "title": ["a", "b"], "latency_ms": [1.0, 9.0], "peak_memory_mib": 9.0})
    means = means.assign(lpips=[0.3, 0.2], lpips_low=[0.2, 0.1], lpips_high=[0.4, 0.3])
    collection = SimpleNamespace(settings={"metrics": ["lpips"]}, runs=runs)
    figure = quality_cost(collection, means, pd.DataFrame(columns=["entry", "lpips"]))
    plt.close(figure)
    assert figure.axes[0].get_ylabel() == "LPIPS ↓"


def test_claims_and_the_papers_numbers_are_about_the_papers_metrics(working_folder):
    methods = {name: {"options": NARROW} for name in ("pix2pix", "msgunet")}
    frames = []
    for wanted in (WANTED, PAPERS):
        plan = make_plan(working_folder, methods=methods, evaluation={"metrics": list(wanted)}, ablation={})
        fill(plan, images=8)
        collection = Collection(plan.results / "settings" / "report.json", plan.results)
        tables = build_tables(collection)
        summary = tables.frames["table1"]
        ours = claims_frame(collection, tables.frames["comparisons"], tables.frames["ablation"])
        better = ours[ours["claim"].str.contains("better than")]
        assert re.findall(r"[A-Z-]{3,}", better["measured"].iloc[0].replace("dB", "")) == ["PSNR", "SSIM", "VIF"]
        frames.append(better)
        numbers = reproduction_frame(summary.assign(paper_psnr=20.0), tables.frames["ablation"], None, collection)
        assert set(numbers["what"].str.split().str[0]) == {"PSNR"}
    assert list(frames[0]["verdict"]) == list(frames[1]["verdict"])


def test_the_page_knows_the_direction(collection):
    (data,) = write_images(collection, collection.results / "pictures")
    found = {one["name"]: (one["heading"], one["digits"], one["higher"]) for one in data["metrics"]}
    assert found["psnr"] == ("PSNR (dB) ↑", 2, True)
    assert found["lpips"] == ("LPIPS ↓", 3, False)
    assert list(found) == WANTED
    json.dumps(data)


def test_explain_lists_the_worst_images_first(collection, working_folder):
    from msgunet.suite.plan import load_plan

    plan = load_plan("made.yaml")
    frame = pd.read_csv(collection.runs[0].folder / "metrics.csv", dtype={"id": str})
    native = frame[frame["protocol"] == "native"].set_index("id")
    for metric, word in (("lpips", "highest"), ("psnr", "lowest")):
        text = "\n".join(explain(plan, "made.yaml", "pix2pix", metric, None))
        worst = native[metric].idxmax() if word == "highest" else native[metric].idxmin()
        assert f"{'lower' if word == 'highest' else 'higher'} is better" in text
        assert re.search(rf"{word}: {worst} ", text)


def test_the_papers_three_are_the_default():
    assert PAPERS == ("psnr", "ssim", "vif")
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["lpips", "dists"]
