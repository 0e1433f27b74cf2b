"""Several trainings, one training, too few images and different sizes: what tables and figures say of each."""

import pandas as pd
import pytest
from made import fill, make_plan

from msgunet.report.figures import write_figures
from msgunet.report.files import lead_protocol, table_names
from msgunet.report.show import show
from msgunet.report.tables import write_tables

METRICS = ["psnr", "ssim", "vif"]


def report(folder, images=8, **changes):
    """Return the plan of a made suite and the texts of its tables."""
    plan = make_plan(folder, **changes)
    fill(plan, images)
    write_tables(plan.results / "settings" / "report.json", plan.results)
    return plan, {path.stem: path.read_text() for path in plan.results.glob("tables/*.md")}


def bold(text: str) -> int:
    return sum(line.count("**") // 2 for line in text.splitlines() if line.startswith("|"))


def test_each_training_has_a_row_and_a_mark(working_folder):
    plan, texts = report(working_folder, seeds=[3, 5])
    assert set(table_names(plan.report)["results"]) == {name for name in texts if name.startswith(("table1", "seeds"))}
    rows = [line for line in texts["seeds_bluemarble_full"].splitlines() if line.startswith("| MSG U-Net")]
    assert [line.split("|")[2].strip() for line in rows] == ["3", "5"]
    frame = pd.read_csv(plan.results / "tables" / "seeds.csv")
    for run in plan.runs:
        measured = pd.read_csv(run.folder / "metrics.csv")
        if not run.trainable:
            continue
        row = frame[(frame["entry"] == run.settings.entry) & (frame["seed"] == run.settings.seed)]
        row = row[row["protocol"] == "native"].iloc[0]
        expected = measured[measured["protocol"] == "native"][METRICS].mean()
        assert row[METRICS].astype(float).to_list() == pytest.approx(expected.to_list(), rel=1e-6)
    assert "| Trainings |" in texts["table1_bluemarble_full"]
    assert "95 % interval over test images and trainings (2 seeds of each method)" in texts["table1_bluemarble_full"]
    differences = texts["comparisons_bluemarble_full"]
    assert "| 2 and 2 " in differences
    assert differences.count("wins") == 3
    pairs = pd.read_csv(plan.results / "tables" / "comparisons.csv")
    assert set(pairs["wins"]) <= {0, 0.25, 0.5, 0.75, 1}
    assert (pairs["low"] < pairs["difference"]).all()
    figures = write_figures(plan.results / "settings" / "report.json", plan.results)
    captions = {figure["name"]: figure["caption"] for figure in figures}
    assert "White diamonds: the mean of each training." in captions["distributions_bluemarble"]


def test_reference_rows_have_one_run_whatever_the_seeds(working_folder):
    plan, texts = report(working_folder, seeds=[3, 5])
    (run,) = (run for run in plan.runs if run.settings.entry == "mean")
    assert run.settings.seed == 3
    assert plan.label(run) == "mean (training target)"
    (row,) = (line for line in texts["table1_bluemarble_full"].splitlines() if line.startswith("| mean"))
    assert row.split("|")[3].strip() == "–"
    assert "one training" not in texts["table1_bluemarble_full"]
    assert set(pd.read_csv(plan.results / "tables" / "seeds.csv")["entry"]) == {"pix2pix", "msgunet"}
    assert "Trainings of each method: 2." in texts["claims"]


def test_a_single_training_is_said_to_be_one(working_folder):
    plan, texts = report(working_folder)
    assert not [name for name in texts if name.startswith("seeds")]
    for name in ("table1_bluemarble_full", "comparisons_bluemarble_full", "claims"):
        assert "nothing is known of training noise" in texts[name], name
    assert pd.read_csv(plan.results / "tables" / "comparisons.csv")["wins"].isna().all()


def test_methods_of_different_sizes_are_compared_in_the_full_protocol_only(working_folder, capsys):
    """In the made suite, Pix2Pix works at half the size of MSG U-Net."""
    plan, texts = report(working_folder, images=12)
    assert bold(texts["table1_bluemarble_native"]) == 0
    assert bold(texts["table1_bluemarble_full"]) > 0
    assert "nothing is tested or bold between sizes" in texts["table1_bluemarble_native"]
    assert "needs at least two finished trained methods of one size" in texts["comparisons_bluemarble_native"]
    pairs = pd.read_csv(plan.results / "tables" / "comparisons.csv")
    assert set(pairs["protocol"]) == {"full"}
    assert "64×64, full protocol" in texts["claims"]
    show(plan, "made.yaml")
    assert "Table 1, bluemarble, full protocol" in capsys.readouterr().out


def test_methods_of_one_size_lead_with_the_papers_protocol():
    both = ("native", "full")
    assert lead_protocol([(64, 64), (64, 64)], "auto", both) == "native"
    assert lead_protocol([(64, 64), (128, 64)], "auto", both) == "full"
    assert lead_protocol([(64, 64), (128, 64)], "native", both) == "native"
    assert lead_protocol([(64, 64), (128, 64)], "auto", ("native",)) == "native"


def test_four_images_have_no_interval_and_nothing_is_bold(working_folder):
    plan, texts = report(working_folder, images=4)
    for name in ("table1_bluemarble_native", "table1_bluemarble_full"):
        assert bold(texts[name]) == 0
        assert "Fewer than 5 images have no interval." in texts[name]
        rows = [line for line in texts[name].splitlines() if line.startswith("| MSG U-Net")]
        assert "[" not in rows[0]
    assert pd.read_csv(plan.results / "tables" / "table1.csv")["psnr_low"].isna().all()
    reproduction = texts["reproduction"]
    assert "nan" not in reproduction
    write_figures(plan.results / "settings" / "report.json", plan.results)


def test_only_images_of_the_sea_are_said_to_be_of_the_sea(working_folder):
    _, texts = report(working_folder)
    assert "open sea" in texts["table1_bluemarble_full"]
    _, texts = report(working_folder, datasets={"maps": {"size": [128, 64]}})
    assert "open sea" not in texts["table1_maps_full"]
