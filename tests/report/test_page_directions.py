"""Where lower is better, the page's bold values and orders of images follow it, in a real browser."""

import pandas as pd
from made import fill, make_plan
from test_page import browser, pytestmark  # noqa: F401

from msgunet.report.page import write_page
from msgunet.report.tables import write_tables

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}


def test_bold_and_the_orders_follow_the_direction(browser, working_folder):  # noqa: F811
    methods = {"pix2pix": {"options": NARROW}, "pan": {"options": NARROW}}
    evaluation = {"metrics": ["psnr", "lpips"], "protocols": ["native"]}
    plan = make_plan(working_folder, methods=methods, evaluation=evaluation, ablation={})
    fill(plan, images=4)
    settings = plan.results / "settings" / "report.json"
    write_tables(settings, plan.results)
    index = write_page(settings, plan.results)
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(index.resolve().as_uri())
    page.wait_for_selector("#metrics td")
    pix2pix, pan = (pd.read_csv(run.folder / "metrics.csv", dtype={"id": str}) for run in plan.runs)
    pix2pix, pan = (rows[rows["protocol"] == "native"].set_index("id") for rows in (pix2pix, pan))
    assert page.locator("#metrics thead th").all_text_contents() == ["Method", "PSNR (dB) ↑", "LPIPS ↓"]
    first = page.locator("#thumbnails button").first.get_attribute("data-id")
    bold = page.locator("#metrics strong").all_text_contents()
    lowest = min(rows.loc[first, "lpips"] for rows in (pix2pix, pan))
    assert f"{lowest:.3f}" in bold
    right = {"methods/pix2pix": pix2pix, "methods/pan": pan}[page.locator("#right").input_value()]
    for metric, ascending in (("lpips", True), ("psnr", False)):
        page.select_option("#metric", metric)
        for order, flipped in (("best", False), ("worst", True)):
            page.select_option("#order", order)
            names = page.locator("#thumbnails button").evaluate_all("found => found.map(b => b.dataset.id)")
            assert names == right[metric].sort_values(ascending=ascending != flipped).index.to_list()
    page.close()
    assert errors == []
