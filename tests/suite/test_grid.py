"""An entry with a grid stands for one entry for each combination of its values."""

import pytest
from suites import GOOD, plan_of, problems_of


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
        ({"widht": [1, 2]}, "methods.pix2pix.options.widht: unknown key; did you mean 'width'?"),
        ({"width": [1, "x"]}, "methods.pix2pix.options.width: Input should be a valid number"),
        ({"training.epoch": [1]}, "methods.pix2pix.training.epoch: unknown key; did you mean 'epochs'?"),
        ({"width": 1}, "methods.pix2pix.grid.width: Input should be a valid tuple (got 1)"),
        ({1: [2]}, "methods.pix2pix.grid.1: Input should be a valid string"),
        ({"width": []}, "methods.pix2pix.grid.width: Tuple should have at least 1 item"),
        ({"width": [[1]]}, "methods.pix2pix.grid.width.0: Value error, a value of a grid is a number, a text, true"),
        (
            {"width": [1], "dropout": [True], "norm": [1]},
            "methods.pix2pix.grid: Dictionary should have at most 2 items",
        ),
        ({"width": [1, 1]}, "methods.pix2pix.grid: two entries would have the name 'pix2pix_width_1'"),
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
