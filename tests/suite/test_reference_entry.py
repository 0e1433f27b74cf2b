"""The reference entry of a suite: what it can be, said before anything runs, with all other problems."""

import pytest
from suites import GOOD, plan_of, problems_of

METHODS = {"msgunet": {}, "pix2pix": {"size": [32, 32]}, "mean": {}}
DATA = {"bluemarble": {"size": [64, 64]}, "maps": {"size": [64, 64]}}


def suite(reference, **changes) -> dict:
    return {**GOOD, "methods": METHODS, "comparison": {"reference": reference}, **changes}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (suite("msgunt"), "there is no method entry 'msgunt'; did you mean 'msgunet'?"),
        (suite("mean"), "'mean' is not trained; name one that is: msgunet, pix2pix"),
        (suite("mean", methods={"mean": {}, "copy": {}}), "'mean' is not trained, and no other entry is"),
        (
            suite("msgunet", methods={"msgunet": {}, "mean": {}}),
            "'msgunet' is the only trained entry; there is none to compare with it",
        ),
        (
            suite("msgunet", datasets=DATA, methods={**METHODS, "msgunet": {"datasets": ["bluemarble"]}}),
            "'msgunet' does not run on maps, as other entries do; let it run there, too, or name an entry",
        ),
        (
            suite("pix2pix", methods={"pix2pix": {"grid": {"width": [1, 2]}}}),
            "there is no method entry 'pix2pix'; it has a grid, whose entries are pix2pix_width_1, pix2pix_width_2",
        ),
        (suite(3), "expected a text (got 3)"),
        (suite("msgunet", comparison={"reference": "msgunet", "to": 1}), ""),
        (suite("msgunet", comparison={}), ""),
    ],
)
def test_what_no_entry_can_be_compared_with_is_one_error(tmp_path, given, expected):
    (problem,) = problems_of(tmp_path, given)
    assert ": comparison." in problem
    assert expected in problem


def test_it_is_said_with_all_other_problems(tmp_path):
    problems = problems_of(tmp_path, suite("mean", seeds=[-1], methods={**METHODS, "pan": {"sizes": 3}}))
    for place in ("seeds.0", "methods.pan.sizes", "comparison.reference: 'mean' is not trained"):
        assert sum(f": {place}" in problem for problem in problems) == 1, problems


def test_an_entry_of_a_grid_and_an_entry_on_more_data_sets_can_be_it(tmp_path):
    grid = {"pix2pix": {"grid": {"width": [1, 2]}}}
    plan = plan_of(tmp_path, suite("pix2pix_width_2", methods=grid))
    assert plan.report["reference"] == "pix2pix_width_2"
    methods = {"msgunet": {}, "pix2pix": {"datasets": ["maps"]}, "mean": {}}
    assert plan_of(tmp_path, suite("msgunet", datasets=DATA, methods=methods)).report["reference"] == "msgunet"


def test_it_is_no_setting_of_a_run(tmp_path):
    runs = [[run.text for run in plan_of(tmp_path, given).runs] for given in (suite("msgunet"), suite("pix2pix"))]
    assert runs[0] == runs[1]
