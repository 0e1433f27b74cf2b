"""The comparison with a suite's reference entry, against scipy and numpy on the files of the evaluations."""

import re

import numpy as np
import pandas as pd
import pytest
from design_made import EFFECTS, IMAGES, cells_of, make, notes_of, report
from matplotlib import pyplot
from scipy import stats

from msgunet.report import figures
from msgunet.report.figures import design
from msgunet.report.files import figure_names, table_names
from msgunet.report.page import write_page
from msgunet.report.share import share


def measured(plan, entry, metric, protocol) -> np.ndarray:
    """Return the values (trainings, images) of an entry, read from its files."""
    frames = [pd.read_csv(path) for path in sorted(plan.results.glob(f"runs/bluemarble/{entry}/*/metrics.csv"))]
    return np.array([frame[frame["protocol"] == protocol].sort_values("id")[metric] for frame in frames])


def holm_by_hand(p: dict[str, float]) -> dict[str, float]:
    corrected, largest = {}, 0.0
    for k, name in enumerate(sorted(p, key=p.get)):
        largest = max(largest, min(1.0, (len(p) - k) * p[name]))
        corrected[name] = largest
    return corrected


@pytest.fixture(scope="module", params=[[0], [3, 5]], ids=["one seed", "two seeds"])
def made(request, tmp_path_factory):
    """The plan of a suite with its tables, one with a single training and one with two, and the comparison's CSV."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("design")
        patch.chdir(folder)
        plan = make(folder, seeds=request.param, report={"examples": 1, "resamples": 4000})
        yield plan, report(plan).frame
        pyplot.close("all")


@pytest.mark.parametrize("protocol", ["native", "full"])
@pytest.mark.parametrize("metric", ["psnr", "ssim", "vif"])
def test_numbers_are_scipys(made, metric, protocol):
    plan, frame = made
    rows = frame[frame["protocol"] == protocol].set_index("entry")
    others = [name for name in EFFECTS if name != "base" and (protocol == "full" or name != "small")]
    base = measured(plan, "base", metric, protocol)
    differences = {name: measured(plan, name, metric, protocol).mean(0) - base.mean(0) for name in others}
    p = {name: stats.wilcoxon(values).pvalue for name, values in differences.items()}
    corrected = holm_by_hand(p)
    assert set(rows.index[rows[f"{metric}_difference"].notna()]) == set(others)
    for name, values in differences.items():
        row = rows.loc[name]
        assert row[f"{metric}_images"] == IMAGES
        assert row[f"{metric}_difference"] == pytest.approx(values.mean(), rel=1e-6)
        assert row[f"{metric}_p"] == pytest.approx(p[name], rel=1e-6)
        assert row[f"{metric}_p_holm"] == pytest.approx(corrected[name], rel=1e-6)
        low, high = (row[f"{metric}_difference_{end}"] for end in ("low", "high"))
        assert low < values.mean() < high
        theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
        if len(base) == 1:
            assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=0.08 * (high - low))
        else:
            assert high - low > 2 * (theirs.high - theirs.low), "training noise is part of it"
        pairs = np.subtract.outer(measured(plan, name, metric, protocol).mean(1), base.mean(1)).ravel()
        agree = len(set(np.sign(pairs))) == 1
        assert row[f"{metric}_significant"] == (corrected[name] < 0.05 and (low > 0 or high < 0) and agree)
    assert rows.loc["better", f"{metric}_p_holm"] == pytest.approx(len(others) * 2 / 2**IMAGES)
    assert rows.loc["base", metric] == pytest.approx(base.mean(), rel=1e-6)


def test_differences_and_intervals_are_those_of_all_pairs(made):
    plan, frame = made
    pairs = pd.read_csv(plan.results / "tables" / "comparisons.csv")
    rows = frame.set_index(["protocol", "entry"])
    compared = 0
    for pair in pairs[(pairs["first"] == "base") | (pairs["second"] == "base")].to_dict("records"):
        other, sign = (pair["second"], -1) if pair["first"] == "base" else (pair["first"], 1)
        row, name = rows.loc[(pair["protocol"], other)], f"{pair['metric']}_difference"
        ends = sorted(sign * pair[end] for end in ("low", "high"))
        assert row[name] == pytest.approx(sign * pair["difference"])
        assert [row[f"{name}_low"], row[f"{name}_high"]] == pytest.approx(ends)
        assert row[f"{pair['metric']}_p_holm"] <= pair["p_holm"]
        compared += 1
    assert compared == 3 * (4 + 3)


def test_the_table_shows_the_numbers_best_first_below_the_reference(made):
    plan, frame = made
    seeds = len(plan.suite.seeds)
    cells = cells_of(plan)
    assert list(cells) == ["Method", "Base (reference)", "Better", "Small", "Same", "Worse"]
    heading, own = cells["Method"], cells["Base (reference)"]
    full = frame[frame["protocol"] == "full"].set_index("entry")
    assert list(full.index) == ["base", "better", "small", "same", "worse"]
    place = heading.index("PSNR (dB), difference")
    assert re.fullmatch(rf"{full.loc['base', 'psnr']:.2f} \[.*\]", own[place])
    assert own[place + 1] == "–"
    row = full.loc["better"]
    ends = [f"{row[f'psnr_difference{end}']:+.2f}" for end in ("", "_low", "_high")]
    assert cells["Better"][place].strip("*").replace("−", "-") == "{} [{}, {}]".format(*ends)
    assert cells["Better"][place + 1].strip("*") == f"{row['psnr_p_holm']:.2g}"
    assert ("Trainings" in heading) == (seeds > 1)
    known = "nothing is known of training noise" in notes_of(plan)
    assert known == (seeds == 1)
    assert "Holm's correction over the comparisons with Base in a metric" in notes_of(plan)
    significant = full["psnr_significant"].sum()
    assert notes_of(plan).count("**") >= 4 * significant
    assert significant > 0


def test_cost_and_training_time_stand_beside_the_differences(made):
    plan, frame = made
    cost = pd.read_csv(plan.results / "cost.csv")
    generators = cost[(cost["part"] == "generator") & cost["used"]].set_index("entry")
    rows = frame[frame["protocol"] == "full"].set_index("entry")
    for name in EFFECTS:
        for column in ("parameters", "tflop", "latency_ms", "peak_memory_mib"):
            assert rows.loc[name, column] == pytest.approx(generators.loc[name, column])
        assert rows.loc[name, "training_seconds"] == 2.0, "as every made training says"
    cells = cells_of(plan)
    costs = ["Parameters", "TFLOP", "Time (ms)", "Memory (MiB)", "Training (min)"]
    assert cells["Method"][-5:] == costs
    found = dict(zip(costs, cells["Small"][-5:], strict=True))
    small = generators.loc["small"]
    assert found["TFLOP"] == f"{small['tflop']:.3g}"
    assert found["Time (ms)"] == f"{small['latency_ms']:.1f}"
    assert "measured on a processor" in notes_of(plan)


def test_entries_of_other_sizes_are_compared_in_the_full_protocol_only(made):
    plan, _ = made
    native = cells_of(plan, "native")
    assert list(native)[-1] == "Small"
    assert native["Small"].count("other size") == 3
    assert "so they are not compared with it" in notes_of(plan, "native")
    assert "other size" not in notes_of(plan, "full")


def test_files_are_those_declared_in_one_order_first_on_the_page_and_shared(made, monkeypatch):
    plan, _ = made
    monkeypatch.setattr(figures, "_DRAWERS", {"design": design.draw})
    settings = plan.results / "settings" / "report.json"
    figures.write_figures(settings, plan.results)
    page = write_page(settings, plan.results).read_text()
    assert page.index('id="design"') < page.index('id="table-design_bluemarble_full"') < page.index('id="results"')
    assert 'src="figures/design_bluemarble.png"' in page
    assert "tables/design.csv" in page
    shared = share(plan, "made.yaml", plan.results.parent / "shared", "a command")
    for folder in (plan.results, shared):
        tables = {path.stem for path in folder.glob("tables/design_*.md")}
        assert tables == {*table_names(plan.report)["design"]} == {f"design_bluemarble_{p}" for p in ("full", "native")}
        drawn = {path.stem for path in folder.glob("figures/design*.png")}
        assert drawn == {*figure_names(plan.report)["design"]} == {"design_bluemarble"}
    for suffix in ("md", "tex", "html"):
        text = (plan.results / "tables" / f"design_bluemarble_full.{suffix}").read_text()
        body = text[text.index("Base (reference)") :]
        places = [body.index(title) for title in ("Better", "Small", "Same", "Worse")]
        assert places == sorted(places)
