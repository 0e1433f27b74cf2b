"""The page in a real browser, opened from disk."""

import io
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from made import EVIL, big_images, fill, make_plan
from PIL import Image

from msgunet.report.figures import write_figures
from msgunet.report.page import write_page
from msgunet.report.tables import write_tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DEMO = ROOT / "results" / "demo"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = make_plan(folder)
        fill(plan)
        settings = plan.results / "settings" / "report.json"
        write_tables(settings, plan.results)
        write_figures(settings, plan.results)
        write_page(settings, plan.results)
        # The page must work from this folder alone.
        page = folder / "elsewhere"
        shutil.copytree(plan.results / "report", page)
        shutil.rmtree(folder / "results")
        shutil.rmtree(folder / "data")
    return page


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The page of the results of `make demo`, written again."""
    if not (DEMO / "report" / "index.html").is_file():
        pytest.skip("'make demo' has not run here")
    folder = tmp_path_factory.mktemp("demo")
    ignore = shutil.ignore_patterns("checkpoints", "tensorboard", "samples", "report")
    shutil.copytree(DEMO, folder / "results" / "demo", ignore=ignore)
    (folder / "data").symlink_to(ROOT / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        results = Path("results/demo")
        return write_page(results / "settings" / "report.json", results).resolve().parent


@pytest.fixture(params=["made", "demo"])
def report(request):
    return request.getfixturevalue(request.param)


class Opened:
    """A page opened from a folder, with all errors and requests."""

    def __init__(self, browser, folder, width=1400):
        self.errors, self.requests = [], []
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        start = time.monotonic()
        self.page.goto((folder / "index.html").resolve().as_uri())
        self.wait_until_drawn()
        self.seconds = time.monotonic() - start

    def wait_until_drawn(self):
        """Wait until every viewer has drawn its images."""
        self.page.wait_for_function("""browser.panes().length && browser.panes().every(({ viewer: { world } }) => {
            const count = browser.state.side && !browser.state.error ? 1 : 2;
            const items = [...Array(world.getItemCount()).keys()].map((i) => world.getItemAt(i));
            return items.length === count && items.every((item) => item.getFullyLoaded());
        })""")
        self.page.wait_for_timeout(100)

    def pixels(self):
        """Return the pixels of the first viewer around the middle of its height, as an array (H, W, 3)."""
        with Image.open(io.BytesIO(self.page.locator(".viewer .canvas").first.screenshot())) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        return pixels[2 * len(pixels) // 5 : 3 * len(pixels) // 5]

    def clean(self):
        assert self.errors == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        self.page.close()


@pytest.fixture
def opened(browser, report):
    page = Opened(browser, report)
    yield page
    page.clean()


def test_the_slider_moves(opened):
    page, divider = opened.page, opened.page.locator("#divider")
    clip = "browser.panes()[0].item.getClip()?.x ?? 0"
    middle, before = page.evaluate(clip), opened.pixels()
    divider.focus()
    for _ in range(200):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert page.evaluate(clip) > middle
    assert (opened.pixels() != before).any()
    width = page.evaluate("browser.panes()[0].item.getContentSize().x")
    page.keyboard.press("Home")
    page.wait_for_timeout(200)
    assert page.evaluate(clip) == 0, "only the right image"
    page.keyboard.press("End")
    page.wait_for_timeout(200)
    assert page.evaluate(clip) == width, "only the left image"
    assert page.evaluate("browser.panes()[0].item.getOpacity()") == 0


def test_all_viewers_share_zoom_and_position(opened):
    page = opened.page
    home = page.evaluate("browser.panes()[0].viewer.viewport.getZoom(true)")
    page.locator(".viewer .canvas").first.hover()
    for _ in range(3):
        page.mouse.wheel(0, -500)
        page.wait_for_timeout(300)
    page.wait_for_timeout(600)
    zoom = page.evaluate("browser.panes()[0].viewer.viewport.getZoom(true)")
    assert zoom > 1.2 * home
    page.click("#side-view")
    opened.wait_until_drawn()
    count = page.locator(".viewer").count()
    assert count >= 4
    zooms = page.evaluate("browser.panes().map(p => p.viewer.viewport.getZoom())")
    assert zooms == pytest.approx([zoom] * count, rel=0.02)
    canvas = page.locator(".viewer .canvas").nth(1).bounding_box()
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 20, steps=5)
    page.mouse.up()
    page.wait_for_timeout(800)
    centers = page.evaluate("browser.panes().map(p => { const c = p.viewer.viewport.getCenter(); return [c.x, c.y]; })")
    assert centers[0] != pytest.approx([0.5, 0.5], abs=0.01)
    for center in centers:
        assert center == pytest.approx(centers[1], abs=0.01)
    # The next image keeps the position.
    page.click("#next")
    opened.wait_until_drawn()
    assert page.evaluate("browser.panes()[0].viewer.viewport.getZoom()") == pytest.approx(zoom, rel=0.02)
    page.click("#fit")
    page.wait_for_timeout(800)
    assert page.evaluate("browser.panes()[0].viewer.viewport.getZoom(true)") < zoom


def test_the_error_map_of_an_image_with_itself_is_dark(opened):
    page = opened.page
    page.click("#error")
    opened.wait_until_drawn()
    assert page.locator("#legend").is_visible()
    width = opened.pixels().shape[1]
    assert opened.pixels()[:, width // 2 - 50 : width // 2 + 50].max() > 25
    page.select_option("#right", "target")
    opened.wait_until_drawn()
    assert opened.pixels()[:, width // 2 - 50 : width // 2 + 50].max() < 6
    page.click("#error")
    opened.wait_until_drawn()
    assert opened.pixels()[:, width // 2 - 50 : width // 2 + 50].max() > 25


def test_images_sort_by_disagreement_and_keys_step_through_them(opened):
    page = opened.page
    names = page.locator("#thumbnails button").evaluate_all("found => found.map(b => b.dataset.id)")
    page.select_option("#order", "disagreement")
    opened.wait_until_drawn()
    values = page.locator("#thumbnails button span:last-child").all_text_contents()
    assert [float(v) for v in values] == sorted(map(float, values), reverse=True)
    ranked = page.locator("#thumbnails button").evaluate_all("found => found.map(b => b.dataset.id)")
    assert sorted(ranked) == sorted(names)
    # The largest disagreement, computed independently.
    data = page.evaluate("window.suite[0]")
    protocol, metric = data["protocols"][0], data["metrics"][0]["name"]

    def spread(image):
        values = [of_entry[protocol][metric] for of_entry in image["values"].values()]
        return max(values) - min(values)

    assert max(data["images"], key=spread)["id"] == ranked[0]
    page.locator("#thumbnails button").first.focus()
    page.keyboard.press("n")
    opened.wait_until_drawn()
    assert page.locator("#image-name").text_content().startswith(ranked[1])
    page.keyboard.press("p")
    page.keyboard.press("p")
    opened.wait_until_drawn()
    assert page.locator("#image-name").text_content().startswith(ranked[-1])


def test_tables_sort_and_their_cells_are_the_csvs(opened, report):
    page = opened.page
    frame = pd.read_csv(report / "tables" / "table1.csv")
    frame = frame[frame["protocol"] == "native"].set_index("title")
    section = page.locator("section.table[id$='_native']").first
    first = section.locator("tbody tr").first
    row = frame.loc[first.locator("th").text_content()]
    expected = f"{row['psnr']:.2f} [{row['psnr_low']:.2f}, {row['psnr_high']:.2f}]"
    assert first.locator("td").nth(1).text_content() == expected
    heading = section.locator("thead th", has_text="PSNR")
    heading.focus()
    for key, ascending in (("Enter", False), ("Enter", True)):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        titles = section.locator("tbody th").all_text_contents()
        assert titles == list(frame["psnr"].sort_values(ascending=ascending).index)


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_wider_than_the_window(browser, report, width):
    found = Opened(browser, report, width)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.locator("#divider").bounding_box()["width"] > 0.8 * min(width, 900)
    found.clean()


def test_names_do_not_break_out(browser, made):
    found = Opened(browser, made)
    text = found.page.locator("section.table[id$='_native'] tbody th").first.text_content()
    assert text == EVIL
    assert EVIL in found.page.locator("#left").text_content()
    assert found.page.locator("script").count() == 5
    found.clean()


def test_the_demos_page_is_small(demo):
    assert sum(path.stat().st_size for path in demo.rglob("*") if path.is_file()) < 25e6


def test_stepping_through_images_quickly_ends_with_the_last(opened):
    page = opened.page
    names = page.locator("#thumbnails button").evaluate_all("found => found.map(b => b.dataset.id)")
    page.locator(".openseadragon-canvas").first.focus()
    for key in "npnpnn":
        page.keyboard.press(key)
    opened.wait_until_drawn()
    page.wait_for_timeout(500)
    opened.wait_until_drawn()
    assert page.locator("#image-name").text_content().startswith(names[2])
    # The keyboard focus stays where it was, even when the view is rebuilt.
    page.keyboard.press("e")
    opened.wait_until_drawn()
    assert page.evaluate("document.activeElement.className").startswith("openseadragon-canvas")
    page.keyboard.press("e")
    opened.wait_until_drawn()
    assert page.locator("#error").get_attribute("aria-pressed") == "false"


def test_five_hundred_large_images_open_in_three_seconds(browser, working_folder):
    plan = make_plan(working_folder, size=(2048, 1024), methods={"msgunet": {"options": {"scales": 2}}}, ablation={})
    big_images(plan, 500)
    settings = plan.results / "settings" / "report.json"
    write_tables(settings, plan.results)
    write_page(settings, plan.results)
    found = Opened(browser, plan.results / "report")
    assert found.seconds < 3 * float(os.environ.get("SLOW_MACHINE", "1"))
    assert found.page.locator("#thumbnails button").count() == 500
    images = [url for url in found.requests if url.endswith(".png")]
    assert len(images) == 2, "only the displayed images are loaded"
    assert sum(url.endswith(".jpg") for url in found.requests) < 100
    found.clean()
