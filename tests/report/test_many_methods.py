"""Figures and page with seven methods, long titles, equal results and several seeds."""

import itertools
import json
import re
import shutil
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from made import fill, make_plan
from matplotlib.artist import Artist
from matplotlib.legend import Legend
from matplotlib.text import Text
from test_titles import write_cost

from msgunet.core.table import Cell, Table
from msgunet.report import figures
from msgunet.report.figures.gradients import _depth
from msgunet.report.figures.labels import place_labels
from msgunet.report.figures.style import NamedFigure, styles
from msgunet.report.page import write_page
from msgunet.report.tables import write_tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NARROW = {"width": 0.0625, "discriminator_width": 0.0625}
TITLES = {
    "pix2pix": "Pix2Pix",
    "pan": "Perceptual adversarial network, margin 50",
    "pix2pixhd": "Pix2Pix-HD, global generator, three downsamplings",
    "msgunet": "MSG U-Net",
    "plain": "MSG U-Net, three scales, no discriminator",
    "wide": "MSG U-Net, two scales, twice the width, trained twice as long",
    "ours": "Attention-residual translation network for high resolutions (ours)",
}
METHODS = {"plain": "msgunet", "wide": "msgunet", "ours": "pix2pixhd"}
# The last three are as good and as fast as another one.
PSNR = {"pix2pix": 23.0, "pan": 22.0, "pix2pixhd": 24.0, "msgunet": 24.5, "plain": 24.5, "wide": 24.5, "ours": 24.0}
MILLISECONDS = {"pix2pix": 3.0, "pan": 3.1, "pix2pixhd": 9.0, "msgunet": 4.0, "plain": 4.0, "wide": 4.0, "ours": 9.0}


class Seen(Artist):
    """Records where texts, axes and legends are on the page, in pixels, in the last drawing of each kind of file."""

    zorder = -1  # drawn first
    now = None  # the record of the current drawing

    def __init__(self, figure):
        super().__init__()
        self.figure, self.files = figure, {}
        self.set_in_layout(False)

    def draw(self, renderer):
        Seen.now = self.files[type(renderer).__name__] = SimpleNamespace(
            texts=[],
            axes=[axes.get_window_extent(renderer).frozen() for axes in self.figure.axes if axes.axison],
            legends=[found.get_window_extent(renderer).frozen() for found in self.figure.findobj(Legend)],
            page=self.figure.bbox.frozen(),
        )


def draw_text(text, renderer, draw=Text.draw):
    """Draw a text and record it; a text that is not drawn, such as that of a hidden tick, is not recorded."""
    if text.get_visible() and text.get_text().strip() and Seen.now:
        Seen.now.texts.append((text.get_text(), Text.get_window_extent(text, renderer)))
    draw(text, renderer)


def make(folder):
    """Write the results of the seven methods and two reference rows, with two seeds each; return the plan."""
    entries = {name: {"title": title, "options": NARROW} for name, title in TITLES.items()}
    for name in ("pix2pix", "pan"):
        entries[name]["size"] = [64, 64]
    for name, method in METHODS.items():
        entries[name]["method"] = method
    for name, width in (("msgunet", 0.0625), ("plain", 0.125), ("wide", 0.1875)):
        entries[name]["options"] = {"width": width, "discriminator_width": 0.0625, "scales": 2}
    entries["ours"]["options"] = {**NARROW, "blocks": 2}
    report = {"examples": 1, "resamples": 100}
    plan = make_plan(folder, methods={**entries, "mean": {}, "copy": {}}, seeds=[0, 1], ablation={}, report=report)
    fill(plan, images=6)
    write_cost(plan)
    for run in plan.runs:
        if run.trainable:
            metrics = pd.read_csv(run.folder / "metrics.csv", converters={"id": str})
            metrics["psnr"] = PSNR[run.settings.entry] + 0.1 * run.settings.seed + metrics["id"].astype(int) / 10
            metrics["ssim"], metrics["vif"] = metrics["psnr"] / 40, metrics["psnr"] / 100
            metrics.to_csv(run.folder / "metrics.csv", index=False)
    cost = pd.read_csv(plan.results / "cost.csv")
    cost["latency_ms"] = cost["entry"].map(MILLISECONDS).fillna(1.0)
    cost.to_csv(plan.results / "cost.csv", index=False)
    return plan


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The report of seven methods: the folder of the results, and what is seen in each figure."""
    folder, seen, save = tmp_path_factory.mktemp("many"), {}, figures._save

    def draw(drawn, place):
        seen[drawn.name] = Seen(drawn.figure)
        drawn.figure.add_artist(seen[drawn.name])
        save(drawn, place)
        Seen.now = None
        seen[drawn.name] = seen[drawn.name].files

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(figures, "_save", draw)
        patch.setattr(Text, "draw", draw_text)
        plan = make(folder)
        settings = plan.results / "settings" / "report.json"
        write_tables(settings, plan.results)
        figures.write_figures(settings, plan.results)
        write_page(settings, plan.results)
    return folder / plan.results, seen


FIGURES = [f"{name}_bluemarble" for name in ("distributions", "quality_cost", "images", "learning")] + ["cost_by_size"]
PNG, PDF = "RendererAgg", "MixedModeRenderer"


@pytest.mark.parametrize("file", [PNG, PDF])
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off_or_covered(many, name, file):
    seen = many[1][name][file]
    assert len(seen.texts) > len(TITLES)
    for (text, box), (other, other_box) in itertools.combinations(seen.texts, 2):
        assert not box.padded(-0.5).overlaps(other_box.padded(-0.5)), f"{text!r} and {other!r}"
    for text, box in seen.texts:
        assert seen.page.x0 <= box.x0, text
        assert box.x1 <= seen.page.x1, text
        assert seen.page.y0 <= box.y0, text
        assert box.y1 <= seen.page.y1, text
    for legend, axes in itertools.product(seen.legends, seen.axes):
        assert not legend.overlaps(axes), "the legend covers data"


@pytest.mark.parametrize("name", FIGURES)
def test_methods_are_in_the_tables_order(many, name):
    results, seen = many
    rows = pd.read_csv(results / "tables" / "table1.csv").drop_duplicates("entry")
    order = list(rows[rows["trained"]]["title"])
    assert order == list(TITLES.values())
    places = []
    for title in order:
        name_of_method = re.escape("".join(title.split()))
        pattern = rf"\d?{name_of_method}(,\d+MiB|,seed0\d+×\d+)?"
        (box,) = [box for text, box in seen[name][PNG].texts if re.fullmatch(pattern, "".join(text.split()))]
        # Columns from left to right, then rows from the top; rows of different widths are right-aligned in one figure.
        places.append((0 if name.startswith("distributions") else round(box.x0), -box.y1))
    assert places == sorted(places)


def test_conditions_are_said_once_in_a_caption(many):
    captions = {f["name"]: f["caption"] for f in json.loads((many[0] / "figures" / "figures.json").read_text())}
    for name in ("images_bluemarble", "learning_bluemarble"):
        caption = captions[name]
        for title in TITLES.values():
            assert caption.count(f" {title}: ") == 1, title
        assert caption.count("All methods: 1 + 1 epochs, batch 1, learning rate 0.0002") == 1
        # What differs is said for each method.
        assert caption.count("learning rate") == 1
        assert caption.count("blocks 2") == 1
        assert caption.count("device a processor") == 1


def test_equal_methods_are_all_labelled(many):
    seen = many[1]["quality_cost_bluemarble"][PNG]
    for axes in seen.axes:
        inside = [text for text, box in seen.texts if axes.contains(*box.min) and axes.contains(*box.max)]
        assert sorted(inside) == list("1234567")


def test_labels_find_free_places_or_none_is_drawn():
    figure, axis = mpl.pyplot.subplots(figsize=(3, 3))
    points, others = np.full((6, 2), 0.5), np.array([[0.5, 0.52]])
    labels = place_labels(axis, points, list("123456"), others)
    boxes = [Text.get_window_extent(label) for label in labels if isinstance(label, Text)]
    marker = axis.transData.transform(others)[0]
    assert len(boxes) == 6
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert not [box for box in boxes if box.contains(*marker)]
    for label in labels:
        label.remove()
    assert place_labels(axis, points, ["a title that is much too long for these small axes"] * 6, others) is None
    assert not axis.texts
    mpl.pyplot.close(figure)


def test_the_legend_of_gradients_by_depth_covers_no_curve(tmp_path):
    """Whatever the gradients are: here the curves cross all places."""
    depths = [{"step": 1, "kind": "layer", "layer": f"l{i}.weight", "depth": i, "count": 1} for i in range(30)]
    frames = {
        variant: pd.DataFrame(depths).assign(norm=[10.0 ** -(i % count) for i in range(30)])
        for variant, count in (("without", 7), ("with", 5))
    }
    figure = _depth(frames)
    figures._save(NamedFigure("depth", "a title", "a caption", figure), tmp_path)
    (legend,) = figure.findobj(Legend)
    assert len(legend.get_texts()) == 2
    assert not [axes for axes in figure.axes if axes.get_window_extent().overlaps(legend.get_window_extent())]


def test_twenty_methods_have_twenty_styles():
    runs = [SimpleNamespace(trainable=True, settings=SimpleNamespace(entry=f"m{i}")) for i in range(20)]
    found = styles(SimpleNamespace(runs=runs))
    assert len({(style["color"], style["marker"]) for style in found.values()}) == 20


def test_latex_wraps_long_texts_and_counts_their_lines():
    title = " − ".join([TITLES["ours"], TITLES["wide"]])
    table = Table("t", "wide", ["Methods", "PSNR"], [[title, Cell("1", 1.0)]] * 20, ["note"], "cmd")
    latex = table.latex()
    assert r"\begin{tabular}{>{\raggedright\arraybackslash}p{12em}r}" in latex
    assert r"\usepackage{array}" in latex.splitlines()[1]
    # Six lines a row, so seven rows a page.
    assert latex.count(r"\begin{table}") == 3
    assert latex.count("Attention-residual") == 20
    short = Table("t", "narrow", ["Method", "PSNR"], [["MSG U-Net", Cell("1", 1.0)]] * 45, ["note"], "cmd").latex()
    assert r"\begin{tabular}{lr}" in short
    assert "array}" not in short
    assert short.count(r"\begin{table}") == 1


@pytest.fixture(scope="module", params=[1280, 390])
def opened(request, many):
    """The page in a browser, in a wide and in a narrow window."""
    if BROWSER is None:
        pytest.skip("no Chromium on the path")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": request.param, "height": 900})
        page.goto((many[0] / "report" / "index.html").as_uri())
        page.wait_for_function("window.browser && browser.panes().length")
        yield page
        browser.close()


# Scrolls each table to its end and returns where its first and last column then are.
SCROLLED = """() => [...document.querySelectorAll("section.table .scroll, #metrics .scroll")].map((outer) => {
    outer.scrollLeft = 1e6;
    const frame = outer.getBoundingClientRect();
    const row = outer.querySelector("tbody tr") ?? outer.querySelector("tr");
    const [first, last] = [row.firstElementChild, row.lastElementChild].map((cell) => cell.getBoundingClientRect());
    outer.scrollLeft = 0;
    return { first: first.left - frame.left, share: first.width / frame.width, rest: last.right - frame.right,
             hidden: outer.scrollWidth - outer.clientWidth, name: outer.getAttribute("aria-label") ?? "" };
})"""


def test_tables_scroll_to_their_last_column_beside_the_names(opened):
    found = opened.evaluate(SCROLLED)
    assert len(found) >= 8
    for table in found:
        assert table["rest"] <= 1, table
        assert table["first"] >= -1, table
        if table["hidden"] > 0:
            assert table["share"] < 0.5, table
    assert opened.evaluate("document.documentElement.scrollWidth") <= opened.viewport_size["width"]
    if opened.viewport_size["width"] > 1000:
        assert not [table for table in found if table["name"].startswith("Table 1") and table["hidden"] > 0]
        assert not [table for table in found if not table["name"] and table["hidden"] > 0], "the metrics of an image"


def test_figures_are_legible_in_a_narrow_window(opened):
    sizes = opened.evaluate("""() => [...document.querySelectorAll("figure img")].map((image) => (
        [image.getBoundingClientRect().width / image.getAttribute("width"),
         getComputedStyle(image.closest("div")).overflowX]))""")
    assert len(sizes) == len(FIGURES)
    for share, overflow in sizes:
        assert share >= 0.49
        assert overflow == "auto"


def test_names_above_the_two_images_do_not_overlap(opened):
    opened.select_option("#left", label=f"{TITLES['wide']}, seed 0 (128×64)")
    left, right = (opened.locator(f".viewer .name.{side}").bounding_box() for side in ("first", "second"))
    assert left["x"] + left["width"] <= right["x"]


def test_headings_leave_out_no_level(opened):
    levels = opened.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
