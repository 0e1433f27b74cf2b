"""`msgunet show` says when Table 1 is not of the suite as it is now."""

import json

import pytest
from made import fill, make_plan

from msgunet.report.show import show
from msgunet.report.tables import write_tables

ADVICE = "Again: snakemake --cores all --config suite=made.yaml"


@pytest.fixture
def shown(working_folder, capsys):
    """Return a function that prints Table 1 for a suite with these changes, after that of the first call was made."""
    plans = []

    def make(without=(), **changes):
        plans.append(make_plan(working_folder, **changes))
        if len(plans) == 1:
            fill(plans[0], 6, without)
            write_tables(plans[0].results / "settings" / "report.json", plans[0].results)
        show(plans[-1], "made.yaml")
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("Made from other settings")]

    return make


def test_a_table_of_the_suite_as_it_is_needs_no_word(shown):
    assert shown() == []
    assert shown(compute={"threads": 3}) == [], "this decides no result"


def test_an_unfinished_suite_is_not_taken_for_a_changed_one(shown):
    assert shown(without=("msgunet",)) == []


def test_changed_settings_and_further_methods_are_named(shown):
    methods = {"msgunet": {"options": {"width": 0.0625, "discriminator_width": 0.0625, "scales": 2}}, "mean": {}}
    assert shown(methods=methods) == []
    (line,) = shown(methods={**methods, "pan": {}}, training={"epochs": 2, "decay_epochs": 1})
    assert "current ones: MSG U-Net on bluemarble, " in line
    assert "PAN on bluemarble. Again" in line
    assert line.endswith(ADVICE)


def test_a_changed_file_of_a_method_is_noticed(shown, working_folder):
    """What changes is the hash of its code in the settings of its runs, here by hand."""
    assert shown() == []
    path = working_folder / "results/made/runs/bluemarble/msgunet/seed0/evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": "of other code"}))
    (line,) = shown()
    assert "current ones: MSG U-Net on bluemarble. Again" in line


def test_changed_settings_of_the_report_are_noticed(shown, working_folder, capsys):
    assert shown() == []
    settings = working_folder / "results/made/settings/report.json"
    before = settings.read_text()
    plan = make_plan(working_folder, report={"examples": 2, "resamples": 300})
    settings.write_text(before)
    show(plan, "made.yaml")
    assert "current ones: the report. Again" in capsys.readouterr().out
