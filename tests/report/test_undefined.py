"""Metrics that are not defined for some or all test images: they are left out, counted, and never fail a report."""

import numpy as np
import pandas as pd
import pytest
from made import fill, make_plan

from msgunet.report.figures import write_figures
from msgunet.report.model_card import _metrics
from msgunet.report.page import write_page
from msgunet.report.show import show
from msgunet.report.statistics import compare
from msgunet.report.tables import write_tables


@pytest.fixture
def plan(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    return plan


def undefine(run, ids, metric="vif", reason="vif: constant target"):
    path = run.folder / "metrics.csv"
    frame = pd.read_csv(path, dtype={"id": str, "note": str})
    rows = frame["id"].isin(ids)
    frame.loc[rows, metric] = np.nan
    frame.loc[rows, "note"] = reason
    frame.to_csv(path, index=False)
    return frame


def report(plan):
    settings = plan.results / "settings" / "report.json"
    write_tables(settings, plan.results)
    write_figures(settings, plan.results)
    write_page(settings, plan.results)
    show(plan, "made.yaml")
    tables = plan.results / "tables"
    return pd.read_csv(tables / "table1.csv"), pd.read_csv(tables / "comparisons.csv")


def test_constant_targets_are_left_out_of_vif_and_counted(plan, capsys):
    frames = {run.settings.entry: undefine(run, ["0004", "0007"]) for run in plan.runs}
    summary, pairs = report(plan)
    for row in summary.to_dict("records"):
        frame = frames[row["entry"]]
        values = frame.loc[frame["protocol"] == row["protocol"], "vif"].dropna()
        assert row["vif"] == pytest.approx(values.mean())
        assert (row["images"], row["vif_images"], row["ssim_images"]) == (8, 6, 8)
    assert set(pairs.loc[pairs["metric"] == "vif", "images"]) == {6}
    assert "- 2 images without VIF: constant target\n" in capsys.readouterr().out
    for protocol in ("native", "full"):
        for table in (f"table1_bluemarble_{protocol}", f"comparisons_bluemarble_{protocol}"):
            text = (plan.results / "tables" / f"{table}.md").read_text()
            assert "- 2 images without VIF: constant target\n" in text


def test_a_metric_without_any_value_does_not_fail_the_report(plan, capsys):
    every = [f"{i:04d}" for i in range(4, 12)]
    for run in plan.runs:
        undefine(run, every)
    summary, pairs = report(plan)
    assert summary["vif"].isna().all()
    assert summary["ssim"].notna().all()
    without = pairs[pairs["metric"] == "vif"]
    assert without[["difference", "p", "p_holm"]].isna().all(axis=None)
    assert pairs.loc[pairs["metric"] == "ssim", "p_holm"].notna().all()
    out = capsys.readouterr().out
    assert "undefined" in out
    assert "- 8 images without VIF: constant target\n" in out
    run = plan.runs[0]
    lines = _metrics(run.folder, run.settings).splitlines()
    assert lines[2].endswith("| undefined |")
    assert "nan" not in "".join(lines)


def test_a_reason_of_one_method_names_it(plan, capsys):
    """Also in results of earlier versions, whose notes have no colon."""
    [run] = [run for run in plan.runs if run.settings.entry == "msgunet"]
    undefine(run, ["0004"], "ssim", "ssim needs 11 pixels")
    report(plan)
    assert "- MSG U-Net: 1 image without SSIM: needs 11 pixels\n" in capsys.readouterr().out


def test_pairs_without_a_common_image_are_not_tested_and_correct_no_other():
    draw = np.random.default_rng(0)
    values = {name: pd.DataFrame(draw.normal(size=(12, 1))) for name in "ab"}
    found = compare(values | {"c": pd.DataFrame([[np.nan]] * 12)}, 100).set_index(["first", "second"])
    alone = compare(values, 100)
    assert found.loc[("a", "b"), "p_holm"] == alone["p_holm"].iloc[0]
    assert found.loc[[("a", "c"), ("b", "c")], ["difference", "p", "p_holm"]].isna().all(axis=None)
