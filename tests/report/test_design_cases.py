"""The comparison with a reference entry where something is missing, and its figure."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest
from design_made import NARROW, cells_of, make, notes_of, report
from matplotlib import pyplot
from matplotlib.colors import to_hex

from msgunet.core.metrics import METRICS
from msgunet.report.figures import design
from msgunet.report.files import figure_names, table_names
from msgunet.report.page import _shown, write_page
from msgunet.report.show import show


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    pyplot.close("all")


def rows_of(figure) -> list[str]:
    return [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]


def points_of(axes) -> list[tuple[float, str]]:
    """Return the value and the filling of the point of each row, from the top."""
    found = [one for one in axes.collections if len(one.get_offsets()) == 1]
    found = sorted(found, key=lambda one: one.get_offsets()[0][1])
    return [(float(one.get_offsets()[0][0]), to_hex(one.get_facecolor()[0])) for one in found[1::2]]


def test_the_figure_has_a_panel_a_metric_and_a_row_an_entry(working_folder):
    plan = make(working_folder, seeds=[0, 1])
    found = report(plan)
    (made,), frame = found.figures, found.frame
    rows = frame[frame["protocol"] == "full"]
    assert rows_of(made.figure) == ["Base (reference)", "Better", "Small", "Same", "Worse"]
    for axes, metric in zip(made.figure.axes, ("psnr", "ssim", "vif"), strict=True):
        points = points_of(axes)
        assert [value for value, _ in points] == pytest.approx(rows[f"{metric}_difference"].to_list()[1:], rel=1e-6)
        filled = [colour != "#ffffff" for _, colour in points]
        assert filled == rows[f"{metric}_significant"].to_list()[1:]
        lines = {tuple(line.get_xdata()) for line in axes.get_lines() if line.get_ydata()[0] == line.get_ydata()[1]}
        ends = rows[[f"{metric}_difference_low", f"{metric}_difference_high"]].to_numpy()[1:]
        assert sorted(lines) == [pytest.approx(tuple(end), rel=1e-6) for end in sorted(map(tuple, ends))]
        dots = [one.get_offsets()[:, 0] for one in axes.collections if len(one.get_offsets()) == 4]
        assert [pairs.mean() for pairs in dots] == pytest.approx([value for value, _ in points])
        assert axes.get_xlabel().endswith("← worse    better →")
    assert any(filled)
    assert not all(filled)
    assert "Dots: the differences of each pair of one training of both." in made.caption


def test_where_lower_is_better_the_order_turns_and_axis_and_notes_say_so(working_folder, monkeypatch):
    monkeypatch.setitem(METRICS, "psnr", replace(METRICS["psnr"], higher_is_better=False))
    plan = make(working_folder)
    (made,) = report(plan).figures
    assert list(cells_of(plan))[1:] == ["Base (reference)", "Worse", "Same", "Small", "Better"]
    assert "Lower is better in PSNR: there, a negative difference is an improvement." in notes_of(plan)
    assert rows_of(made.figure)[1:] == ["Worse", "Same", "Small", "Better"]
    assert [axes.get_xlabel().splitlines()[-1] for axes in made.figure.axes] == [
        "← better    worse →",
        *["← worse    better →"] * 2,
    ]
    assert "Lower is better in PSNR:" in made.caption


def test_four_images_have_no_interval_and_no_star(working_folder):
    plan = make(working_folder, images=4)
    found = report(plan)
    (made,), frame = found.figures, found.frame
    assert not frame["psnr_significant"].any()
    assert frame["psnr_difference_low"].isna().all()
    text = notes_of(plan)
    assert not [line for line in text.splitlines() if line.startswith("|") and "**" in line]
    assert "[" not in "".join(cells_of(plan)["Better"])
    assert "Fewer than 5 images have no interval." in text
    assert "Nothing is bold in PSNR, SSIM, VIF: with 4 test images and 4 pairs of methods" in text
    assert {colour for _, colour in points_of(made.figure.axes[0])} == {"#ffffff"}
    assert "nothing is known of training noise" in made.caption


def test_unfinished_entries_are_the_last_rows_and_an_unfinished_reference_is_said(working_folder):
    plan = make(working_folder, without=("better",))
    (made,) = report(plan).figures
    cells = cells_of(plan)
    assert list(cells)[1:] == ["Base (reference)", "Small", "Same", "Worse", "Better"]
    assert cells["Better"].count("not yet") == 3
    assert rows_of(made.figure)[-1] == "Better"
    assert "not yet" in [text.get_text() for text in made.figure.axes[0].texts]


def test_without_the_reference_there_is_a_table_without_differences_and_no_figure(working_folder):
    plan = make(working_folder, without=("base",), cost=False)
    found = report(plan)
    frame = found.frame
    assert frame[[name for name in frame if name.endswith("_difference")]].isna().all(axis=None)
    cells = cells_of(plan)
    assert "not yet" in cells["Base (reference)"]
    assert "Parameters" not in cells["Method"]
    assert "No finished entry can be compared with Base here." in notes_of(plan)
    assert "The cost of the networks is not counted yet." in notes_of(plan)
    assert found.figures == []


def test_the_declared_figure_is_drawn_even_if_nothing_can_be_compared(working_folder):
    """In the native protocol alone, with entries of different sizes."""
    methods = {
        "msgunet": {"options": {**NARROW, "scales": 2}},
        "pan": {"size": [32, 32], "options": {**NARROW, "downsamplings": 4}},
    }
    changes = {"methods": methods, "comparison": {"reference": "msgunet"}, "evaluation": {"protocols": ["native"]}}
    plan = make(working_folder, **changes)
    (made,) = report(plan).figures
    assert figure_names(plan.report)["design"] == [made.name]
    assert table_names(plan.report)["design"] == ["design_bluemarble_native"]
    assert [text.get_text() for text in made.figure.axes[0].texts][1:] == ["other size"]


def test_many_metrics_have_two_lines_of_panels(working_folder, monkeypatch):
    """More than four next to each other would be too narrow in print."""
    plan = make(working_folder)
    found = report(plan)
    collection, tables = found.collection, found.tables
    frame = tables.frames["design"]
    for name in ("a", "b"):
        monkeypatch.setitem(METRICS, name, METRICS["ssim"])
        same = {column: column.replace("ssim", name) for column in frame if column.startswith("ssim")}
        frame[list(same.values())] = frame[list(same)]
        tables.frames["seeds"][name] = tables.frames["seeds"]["ssim"]
    monkeypatch.setitem(collection.settings, "metrics", ["psnr", "ssim", "vif", "a", "b"])
    (made,) = design.draw(collection, tables)
    made.figure.draw_without_rendering()
    assert len(made.figure.axes) == 5
    assert made.figure.get_figwidth() < 10
    boxes = [axes.get_tightbbox() for axes in made.figure.axes]
    assert len({round(axes.get_position().y0, 2) for axes in made.figure.axes}) == 2
    assert not [1 for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def test_no_reference_no_table_no_section(working_folder):
    plan = make(working_folder, comparison=None)
    report(plan)
    assert not list(plan.results.glob("tables/design*"))
    assert table_names(plan.report)["design"] == figure_names(plan.report)["design"] == []
    assert 'id="design"' not in write_page(plan.results / "settings" / "report.json", plan.results).read_text()


def test_the_terminal_shows_it_below_table_1(working_folder, capsys):
    plan = make(working_folder, comparison=None)
    report(plan)
    plan = make(working_folder)
    show(plan, "made.yaml")
    shown = capsys.readouterr().out
    assert "Comparison with" not in shown
    assert "Made from other settings than the suite's current ones: the report." in shown
    report(plan)
    show(plan, "made.yaml")
    shown = capsys.readouterr().out
    assert 0 < shown.index("Table 1, bluemarble, full") < shown.index("Comparison with Base, bluemarble, full protocol")
    assert "other settings" not in shown


def test_a_protocol_with_the_same_numbers_is_shown_once(working_folder):
    methods = {name: {"method": "msgunet", "options": {**NARROW, "scales": 2}} for name in ("base", "same")}
    plan = make(working_folder, methods=methods)
    found = report(plan)
    assert len(found.tables.sections["design"]) == 2
    assert len(_shown(found.collection, found.tables)["design"]) == 1


def test_undefined_metrics_are_no_differences(working_folder):
    plan = make(working_folder)
    for path in plan.results.glob("runs/bluemarble/*/*/metrics.csv"):
        pd.read_csv(path, converters={"id": str}).assign(vif=None).to_csv(path, index=False)
    found = report(plan)
    (made,), frame = found.figures, found.frame
    assert frame["vif_difference"].isna().all()
    assert cells_of(plan)["Better"].count("undefined") == 1
    assert [text.get_text() for text in made.figure.axes[2].texts] == ["undefined"] * 5
