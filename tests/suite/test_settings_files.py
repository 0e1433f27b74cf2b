"""Settings files change exactly when they should."""

import json

import pytest
from suites import GOOD, changed_files, plan_of


def test_a_title_is_not_part_of_a_run(tmp_path):
    after = json.loads(json.dumps(GOOD))
    after["methods"]["msgunet"]["title"] = "Mine"
    assert changed_files(tmp_path, GOOD, after) == {"results/mine/settings/report.json"}


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("report", {"examples": 2}, {"settings/report.json"}),
        ("evaluation", {"metrics": ["psnr"]}, {"settings/evaluation.json", "settings/report.json"}),
        ("evaluation", {"precision": "fp32"}, set()),
        ("evaluation", {"precision": "training"}, {"settings/evaluation.json", "settings/report.json"}),
        ("compute", {"workers": 2}, {"settings/compute.json"}),
        ("cost", {"repeats": 7}, {"settings/cost.json"}),
        ("comparison", {"reference": "msgunet"}, {"settings/report.json"}),
        ("description", "another text", {"settings/report.json"}),
        ("data", {"mirror": "elsewhere"}, {"settings/compute.json"}),
    ],
)
def test_other_settings_leave_the_runs_alone(tmp_path, section, value, expected):
    changed = changed_files(tmp_path, GOOD, {**GOOD, section: value})
    assert changed == {f"results/mine/{name}" for name in expected}


def test_a_training_setting_of_one_method_changes_that_run_alone(tmp_path):
    after = json.loads(json.dumps(GOOD))
    after["methods"]["pix2pix"]["training"] = {"epochs": 3}
    assert changed_files(tmp_path, GOOD, after) == {"results/mine/runs/bluemarble/pix2pix/seed0/run.json"}


def test_swapped_learning_rates_change_both_runs(tmp_path):
    a, b = json.loads(json.dumps(GOOD)), json.loads(json.dumps(GOOD))
    for suite, rates in ((a, (1e-3, 2e-3)), (b, (2e-3, 1e-3))):
        for entry, rate in zip(suite["methods"].values(), rates, strict=True):
            entry["training"] = {"learning_rate": rate}
    assert len(changed_files(tmp_path, a, b)) == 2


def test_key_order_changes_nothing(tmp_path):
    after = {"methods": dict(reversed(GOOD["methods"].items())), "datasets": GOOD["datasets"]}
    assert not {path for path in changed_files(tmp_path, GOOD, after) if "/runs/" in path}


def test_a_data_setting_moves_the_data_and_changes_every_run(tmp_path):
    after = json.loads(json.dumps(GOOD))
    after["datasets"]["bluemarble"]["options"] = {"min_land": 0.5}
    changed = changed_files(tmp_path, GOOD, after)
    assert len([path for path in changed if path.endswith("dataset.json")]) == 2
    assert len([path for path in changed if path.endswith("run.json")]) == 2


def test_unchanged_settings_keep_their_modification_time(working_folder):
    plan = plan_of(working_folder, GOOD)
    plan.write()
    times = {path: path.stat().st_mtime_ns for path in plan.files}
    plan.write()
    assert times == {path: path.stat().st_mtime_ns for path in plan.files}
