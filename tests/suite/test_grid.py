"""An entry with a grid stands for one entry for each combination of its values."""

import pytest
from suites import GOOD, plan_of, problems_of

from msgunet.core.errors import UserError
from msgunet.evaluation.explain import explain
from msgunet.suite.networks import trained_networks


def suite(grid, **entry) -> dict:
    return {**GOOD, "methods": {"pix2pix": {**entry, "grid": grid}, "pan": {}}}


def test_a_grid_has_an_entry_for_each_combination(tmp_path):
    plan = plan_of(
        tmp_path,
        """
datasets: {bluemarble: {size: [64, 64]}}
methods:
  pix2pix:
    options: {dropout: 0.25}
    training: {epochs: 3}
    grid: {width: [0.5, 1], training.learning_rate: [1e-3, 1e-4]}
  pan: {}
""",
    )
    found = {
        run.settings.entry: (run.settings.options["width"], run.settings.training.learning_rate) for run in plan.runs
    }
    pan = found.pop("pan")
    assert pan[0] == 1
    assert found == {
        "pix2pix_width_0_5_learning_rate_0_001": (0.5, 1e-3),
        "pix2pix_width_0_5_learning_rate_0_0001": (0.5, 1e-4),
        "pix2pix_width_1_learning_rate_0_001": (1, 1e-3),
        "pix2pix_width_1_learning_rate_0_0001": (1, 1e-4),
    }
    assert all(run.settings.method == "pix2pix" for run in plan.runs[:4])
    assert all(run.settings.training.epochs == 3 for run in plan.runs[:4])
    assert all(run.settings.options["dropout"] == 0.25 for run in plan.runs[:4])
    assert plan.titles["pix2pix_width_0_5_learning_rate_0_001"] == "Pix2Pix, width 0.5, learning rate 0.001"
    assert plan.titles["pan"] == "PAN"
    assert plan.report["grids"] == {
        "pix2pix": {
            "axes": [["width", [0.5, 1]], ["training.learning_rate", [1e-3, 1e-4]]],
            "entries": list(found),
            "title": "Pix2Pix",
        }
    }


def test_a_title_and_another_method_stay(tmp_path):
    plan = plan_of(tmp_path, {**GOOD, "methods": {"mine": {"method": "pan", "title": "Mine", "grid": {"width": [1]}}}})
    assert plan.titles == {"mine_width_1": "Mine, width 1"}
    assert plan.runs[0].settings.method == "pan"


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({"widht": [1, 2]}, "methods.pix2pix.grid.widht: unknown key; did you mean 'width'?"),
        ({"width": [1, "x"]}, "methods.pix2pix.grid.width: expected a number (got 'x')"),
        ({"training.epoch": [1]}, "methods.pix2pix.grid.training.epoch: unknown key; did you mean 'training.epochs'?"),
        ({"width": 1}, "methods.pix2pix.grid.width: expected a list such as [10, 100] (got 1)"),
        ({1: [2]}, "methods.pix2pix.grid.1: expected a text (got 1)"),
        ({"width": []}, "methods.pix2pix.grid.width: it is empty, but needs at least one value"),
        ({"width": [[1]]}, "methods.pix2pix.grid.width.0: a value of a grid is a number, a text, true"),
        (
            {"width": [1], "dropout": [True], "norm": [1]},
            "methods.pix2pix.grid: a grid has at most two axes, but this one has 3: dropout, norm, width",
        ),
        ({"width": [1, 1]}, "methods.pix2pix.grid.width: 1 is listed twice"),
        ({"width": [1, 1.0000001]}, "methods.pix2pix.grid: two entries would have the name 'pix2pix_width_1'"),
        ({"width": [-1]}, "methods.pix2pix.grid.width: expected a number above 0 (got -1)"),
        (
            {"training.epochs": [-1, 2]},
            "methods.pix2pix.grid.training.epochs: expected a number of at least 0",
        ),
    ],
)
def test_what_is_wrong_with_a_grid_is_said_once_at_its_entry(tmp_path, grid, expected):
    problems = problems_of(tmp_path, suite(grid))
    assert sum(expected in problem for problem in problems) == 1, problems
    assert not [problem for problem in problems if "methods.pix2pix_" in problem]


def test_a_name_that_another_entry_has(tmp_path):
    methods = {"pix2pix": {"grid": {"width": [1]}}, "pix2pix_width_1": {"method": "pix2pix"}}
    problems = problems_of(tmp_path, {**GOOD, "methods": methods})
    assert any("methods.pix2pix.grid: two entries would have the name 'pix2pix_width_1'" in p for p in problems)


@pytest.mark.parametrize(
    ("grid", "entry", "expected"),
    [
        (
            {"width": [1, 2]},
            {"options": {"width": 3}},
            "grid.width: the grid sets it, but so does methods.pix2pix.opt",
        ),
        (
            {"training.epochs": [1]},
            {"training": {"epochs": 3}},
            "grid.training.epochs: the grid sets it, but so does methods.pix2pix.training.epochs (3), which would be",
        ),
    ],
)
def test_a_value_that_the_grid_would_override_is_refused(tmp_path, grid, entry, expected):
    (problem,) = problems_of(tmp_path, suite(grid, **entry))
    assert f"methods.pix2pix.{expected}" in problem


def test_the_name_of_a_grid_is_answered_with_its_entries(tmp_path):
    """Where a suite or a command needs one entry."""
    entries = "it has a grid, whose entries are pix2pix_width_1, pix2pix_width_2"
    given = suite({"width": [1, 2]})
    (problem,) = problems_of(tmp_path, {**given, "ablation": {"methods": ["pix2pix"]}})
    assert f"ablation.methods: there is no method entry 'pix2pix'; {entries}" in problem
    plan = plan_of(tmp_path, given)
    with pytest.raises(UserError, match=f"--entry pix2pix: suite 'mine' does not train it; {entries}"):
        trained_networks(plan, ["pix2pix"])
    with pytest.raises(UserError, match=f"suite 'mine' has no entry 'pix2pix'; {entries}"):
        next(explain(plan, "mine.yaml", "pix2pix", "psnr", None))
