"""What figures leave out, and what they add, so that all of it can be read and belongs to something."""

import itertools
import json
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from made import fill, make_plan
from matplotlib.lines import Line2D
from matplotlib.text import Text

from msgunet.report import figures
from msgunet.report.collect import Collection
from msgunet.report.figures import cost, grid, training
from msgunet.report.figures.labels import place_labels
from msgunet.report.figures.style import plain_ticks, thin_ticks
from msgunet.report.tables import build_tables

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}


@pytest.fixture
def axes():
    figures._set_look()
    figure, axis = mpl.pyplot.subplots(figsize=(3, 3))
    yield axis
    mpl.pyplot.close(figure)


@pytest.mark.parametrize("span", [(1, 9), (0.3, 2000), (0.02, 0.9), (1e-6, 1e8), (230, 480)])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("side", ["x", "y"])
def test_labels_of_logarithmic_ticks_do_not_touch(axes, span, plain, side):
    axes.figure.set_size_inches(1.6, 1.6)
    axes.plot(span, span)
    axes.set(xscale="log", yscale="log")
    axis = getattr(axes, f"{side}axis")
    if plain:
        plain_ticks(axis)
    axes.figure.draw_without_rendering()
    thin_ticks(axes.figure)
    axes.figure.draw_without_rendering()
    low, high = axis.get_view_interval()
    ticks = [tick for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if low <= tick.get_loc() <= high]
    boxes = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()]
    assert boxes
    assert not [1 for a, b in itertools.combinations(boxes, 2) if a.padded(1).overlaps(b.padded(1))]


def lines_and_texts(axis, points):
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.figure.draw_without_rendering()
    drawn = place_labels(axis, np.array(points), [str(n) for n in range(len(points))], np.empty((0, 2)))
    kinds = [[one for one in drawn if isinstance(one, kind)] for kind in (Line2D, Text)]
    assert not axis.dataLim.width > 0, "lines leave the limits alone"
    return kinds


def test_labels_of_points_at_one_place_have_lines_to_their_own(axes):
    points = [(0.5, 0.5), (0.5, 0.505), (0.502, 0.5), (0.5, 0.495), (0.498, 0.5), (0.1, 0.1)]
    lines, texts = lines_and_texts(axes, points)
    assert len(texts) == 6
    assert len(lines) == 5, "the point alone needs none"
    pixels = [axes.transData.transform(line.get_xydata()) for line in lines]
    for line, point, text in zip(pixels, points, texts, strict=False):
        assert line[0] == pytest.approx(axes.transData.transform(point))
        box = text.get_window_extent().padded(1)
        assert box.contains(*line[1])


def test_labels_beside_single_points_have_no_lines(axes):
    lines, texts = lines_and_texts(axes, [(0.2, 0.2), (0.8, 0.2), (0.5, 0.8)])
    assert (len(lines), len(texts)) == (0, 3)


def costs(*sizes) -> tuple[pd.DataFrame, SimpleNamespace]:
    rows = [
        {"entry": entry, "width": size, "height": size, "tflop": n + 1.0, "latency_ms": 3.0, "peak_memory_mib": 2000.0}
        for size in sizes
        for n, entry in enumerate("abc")
    ]
    frame = pd.DataFrame(rows).assign(part="generator", device="A card", device_type="cuda", commit="abc")
    runs = [SimpleNamespace(trainable=True, settings=SimpleNamespace(entry=entry)) for entry in "abc"]
    return frame, SimpleNamespace(runs=runs, titles={e: f"method {e}" for e in "abc"}, speed=lambda: None)


def test_costs_at_one_size_are_bars_in_which_equal_methods_are_all_seen():
    frame, collection = costs(64)
    (drawn,) = cost.draw(collection, SimpleNamespace(frames={"cost": frame}))
    assert (drawn.name, drawn.title) == ("cost_by_size", "Cost at 64×64")
    for axis, values in zip(drawn.figure.axes, ([1, 2, 3], [3, 3, 3], [2000] * 3), strict=True):
        assert [bar.get_width() for bar in axis.patches] == values
        assert not axis.get_lines()
    assert [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()] == [f"method {e}" for e in "abc"]
    assert [text.get_text() for text in drawn.figure.axes[2].texts] == ["2,000"] * 3
    mpl.pyplot.close(drawn.figure)


def test_costs_at_several_sizes_are_curves():
    frame, collection = costs(64, 128)
    (drawn,) = cost.draw(collection, SimpleNamespace(frames={"cost": frame}))
    assert drawn.title == "Cost by size"
    assert [len(axis.get_lines()) for axis in drawn.figure.axes] == [3, 3, 3]
    assert not drawn.figure.axes[0].patches
    mpl.pyplot.close(drawn.figure)


def test_terms_that_are_always_zero_have_no_panel():
    tables = [
        pd.DataFrame({"step": [1, 2], "gan": [1.0, 2.0], "d_margin": [0.0, 0.0], "own": [0, 0]}),
        pd.DataFrame({"step": [1, 2], "l1": [0.0, 1.0], "gan": [0.0, 0.0], "gradient_norm": [0.0, 0.0]}),
    ]
    assert training._terms(tables) == (["gan", "l1"], ["d_margin", "own"])


def test_learning_curves_say_what_they_leave_out(working_folder):
    plan = make_plan(working_folder, methods={"pan": {"options": NARROW}}, ablation={})
    fill(plan, 2)
    path = plan.runs[0].folder / "history.csv"
    pd.read_csv(path).assign(d_margin=0.0, l1=[0.5, 0.01]).to_csv(path, index=False)
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    (drawn,) = training.draw(collection, None)
    assert {axis.get_title() for axis in drawn.figure.axes if axis.axison} == {"adversarial, generator", "L1"}
    assert "Zero throughout and left out: discriminator, margin." in drawn.caption
    assert drawn.figure.axes[1].get_yscale() == "log"
    mpl.pyplot.close(drawn.figure)
    pd.read_csv(path).assign(gan=0.0, l1=0.0).to_csv(path, index=False)
    assert not list(training.draw(collection, None)), "nothing to draw"


def test_a_grids_figure_and_table_name_method_trainings_and_what_is_fixed(working_folder):
    entry = {"size": [64, 64], "options": {"discriminator_width": 0.0625}, "grid": {"width": [0.0625, 0.125]}}
    plan = make_plan(working_folder, methods={"pix2pix": entry}, ablation={}, seeds=[3, 5])
    fill(plan)
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    tables = build_tables(collection)
    (drawn,) = grid.draw(collection, tables)
    mpl.pyplot.close(drawn.figure)
    (table,) = tables.sections["grids"]
    assert drawn.caption.startswith("Pix2Pix on bluemarble: width. ")
    for text in (drawn.caption, json.dumps(table.notes, ensure_ascii=False)):
        assert "2 trainings of each entry (seeds 3, 5) in the native protocol." in text
        assert "All entries: pix2pix, 64×64, 1 + 1 epochs, batch 1, learning rate 0.0002" in text
        assert "discriminator_width 0.0625" in text
        assert "width 0.125" not in text
