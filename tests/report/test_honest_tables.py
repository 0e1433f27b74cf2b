"""What tables say that a reader could otherwise take for more than it is."""

import re

import pandas as pd
import pytest
from made import fill, make_plan

from msgunet.core.metrics import METRICS, PAPERS
from msgunet.report.collect import Collection
from msgunet.report.page import write_page
from msgunet.report.tables import Tables, build_tables

NARROW = {"options": {"width": 0.0625, "discriminator_width": 0.0625}}
PAIR = {"pix2pix": NARROW, "msgunet": NARROW}
FOUR = {**PAIR, "pan": NARROW, "second": {"method": "pix2pix", **NARROW}}


def tables_of(folder, images, methods, without=(), **changes) -> Tables:
    """Return the tables of a suite whose methods all differ clearly, with made numbers."""
    plan = make_plan(folder, methods=methods, ablation={}, report={"examples": 1, "resamples": 100}, **changes)
    fill(plan, images, without)
    for n, run in enumerate(plan.runs):
        frame = pd.read_csv(run.folder / "metrics.csv", converters={"id": str})
        for metric in PAPERS:
            frame[metric] = 0.2 * (n % len(methods)) + frame["id"].astype(int) / 1000 + run.settings.seed / 10
        frame.to_csv(run.folder / "metrics.csv", index=False)
    return build_tables(Collection(plan.results / "settings" / "report.json", plan.results))


def named(tables: Tables, name: str):
    return next(table for table in tables.all if table.name == name)


@pytest.mark.parametrize(("images", "methods", "some"), [(5, PAIR, 0), (6, PAIR, 1), (7, FOUR, 0), (8, FOUR, 1)])
def test_nothing_is_bold_where_nothing_could_be_significant(working_folder, images, methods, some):
    tables = tables_of(working_folder, images, methods)
    for protocol in ("native", "full"):
        table = named(tables, f"table1_bluemarble_{protocol}")
        bold = [cell for row in table.cells for cell in row if cell.bold]
        assert len(bold) == (3 * some), "the best method in each metric, or none"
        differences = named(tables, f"comparisons_bluemarble_{protocol}")
        assert any(cell.bold for row in differences.cells for cell in row) == bool(some)
        needed = 6 if methods is PAIR else 8
        for notes in (table.notes, differences.notes):
            reasons = [note for note in notes if note.startswith("Nothing is bold in PSNR, SSIM, VIF: ")]
            assert len(reasons) == 1 - some
            assert some or reasons[0].endswith(f"p below 0.05 needs at least {needed} images.")
        assert any(note.startswith("Bold: the best trained method") for note in table.notes) == bool(some)
    claims = tables.frames["claims"]
    better = claims[claims["claim"].str.contains("better")]
    assert len(better)
    assert (better["verdict"] == "too few images").all() == (not some)
    assert better["measured"].str.endswith(f"{images} images of at least {needed}").all() == (not some)


def test_a_single_finished_method_is_not_the_best(working_folder):
    tables = tables_of(working_folder, 8, {"msgunet": NARROW})
    table = named(tables, "table1_bluemarble_native")
    assert not [cell for row in table.cells for cell in row if cell.bold]
    assert any("there are no two finished trained methods to compare" in note for note in table.notes)


def test_intervals_of_two_trainings_end_with_the_range_of_the_metric(working_folder):
    tables = tables_of(working_folder, 8, PAIR, seeds=[0, 8])
    frame = tables.frames["table1"]
    assert (frame["ssim_high"] == 1).any(), "the made trainings are far apart"
    for metric, (low, high) in {"psnr": (0, 100), "ssim": (-1, 1), "vif": (0, float("inf"))}.items():
        assert (frame[f"{metric}_low"] >= low).all()
        assert (frame[f"{metric}_high"] <= high).all()
        assert METRICS[metric].range == (low, high)
    assert (tables.frames["comparisons"]["high"] > 1).any(), "a difference has no such end"
    notes = " ".join(named(tables, "table1_bluemarble_native").notes)
    assert "Two or three trainings say little about training noise, so their intervals are wide" in notes
    one = " ".join(named(tables_of(working_folder, 8, PAIR), "table1_bluemarble_native").notes)
    assert "say little" not in one


def test_trainings_of_a_method_stand_together(working_folder):
    frame = tables_of(working_folder, 8, PAIR, seeds=[3, 5]).frames["seeds"]
    part = frame[frame["protocol"] == "native"]
    assert [*zip(part["entry"], part["seed"], strict=True)] == [(name, seed) for name in PAIR for seed in (3, 5)]


@pytest.mark.parametrize("references", [(), ("mean",), ("copy",), ("mean", "copy")])
def test_only_reference_rows_that_are_there_are_explained(working_folder, references):
    tables = tables_of(working_folder, 8, {**PAIR, **{name: {} for name in references}})
    notes = " ".join(named(tables, "table1_bluemarble_native").notes)
    assert ("reference point" in notes) == bool(references)
    assert ("reference points" in notes) == (len(references) == 2)
    assert ("'mean (training target)'" in notes) == ("mean" in references)
    assert ("open sea" in notes) == ("mean" in references)


def test_captions_in_latex_have_no_number_of_their_own(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    tables = build_tables(Collection(plan.results / "settings" / "report.json", plan.results))
    captions = [re.search(r"\\caption\{(.*)\}", table.latex())[1] for table in tables.all]
    assert any("Quality on bluemarble, native protocol" in caption for caption in captions)
    assert not [caption for caption in captions if re.match(r"(Table|Tables|Fig\.) \d", caption)]
    shown = named(tables, "ablation_bluemarble_msgunet")
    assert shown.title.startswith("Tables 2 and 3, "), "elsewhere, it says which of the paper's tables it is"


def test_markdown_explains_no_shades(working_folder):
    plan = make_plan(
        working_folder,
        methods={
            "pix2pix": {**NARROW, "grid": {"dropout": [0, 0.5]}},
            "msgunet": {"options": {**NARROW["options"], "scales": 2}},
        },
    )
    fill(plan)
    tables = build_tables(Collection(plan.results / "settings" / "report.json", plan.results))
    shaded = [table for table in tables.all if any(cell.colour for row in table.cells for cell in row)]
    assert {table.name for table in shaded} == {"grid_bluemarble_pix2pix", "ablation_bluemarble_msgunet"}
    for table in shaded:
        assert "Shades" not in table.markdown()
        assert "Shades range from" in table.latex()
        assert "Shades range from" in table.html()


def test_protocols_that_agree_are_shown_once(working_folder):
    plan = make_plan(working_folder, methods=PAIR, ablation={}, seeds=[0, 1])
    fill(plan)
    settings = plan.results / "settings" / "report.json"
    tables = build_tables(Collection(settings, plan.results))
    for name in ("table1", "seeds", "comparisons"):
        for protocol in ("native", "full"):
            notes = " ".join(named(tables, f"{name}_bluemarble_{protocol}").notes)
            assert "so both protocols agree" in notes
    page = write_page(settings, plan.results).read_text()
    assert page.count("The native and the full protocol therefore give the same numbers") == 1
    for name in ("table1", "seeds", "comparisons"):
        assert f'id="table-{name}_bluemarble_native"' in page
        assert f'id="table-{name}_bluemarble_full"' not in page
        assert (plan.results / "report" / "tables" / f"{name}_bluemarble_full.md").is_file(), "but it is a file"


def test_protocols_that_differ_are_both_shown(working_folder):
    plan = make_plan(working_folder)
    fill(plan)
    settings = plan.results / "settings" / "report.json"
    page = write_page(settings, plan.results).read_text()
    assert "therefore give the same numbers" not in page
    for protocol in ("native", "full"):
        assert f'id="table-table1_bluemarble_{protocol}"' in page
    collection = Collection(settings, plan.results)
    assert "protocols agree" not in " ".join(named(build_tables(collection), "table1_bluemarble_full").notes)
