"""The suites for a GPU, made small enough for a CPU: from archives to shared results."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from checkout import copy_checkout, edit_suite, snakemake

from msgunet.cli.hour import parts_of
from msgunet.core.errors import UserError
from msgunet.suite.plan import load_plan

SMALLER = 8
NARROW = {"width": 0.0625, "discriminator_width": 0.0625}
OPTIONS = {
    "pix2pix": {"downsamplings": 4},
    "pan": {"downsamplings": 4},
    "pix2pixhd": {"blocks": 1},
    "msgunet": {"scales": 2},
}


def small(suite: dict) -> None:
    for data in suite["datasets"].values():
        data["size"] = [side // SMALLER for side in data["size"]]
        if "globe_width" in data.get("options", {}):
            data["options"]["globe_width"] //= SMALLER
        if "pairs" in data:
            data["pairs"] = [min(count, most) for count, most in zip(data["pairs"], (12, 7), strict=True)]
    for name, entry in suite["methods"].items():
        if "size" in entry:
            entry["size"] = [side // SMALLER for side in entry["size"]]
        if (method := entry.get("method", name)) in OPTIONS:
            entry["options"] = {**entry.get("options", {}), **NARROW, **OPTIONS[method]}
        if "minutes" in entry.get("training", {}):
            entry["training"]["minutes"] = 0.1
    training = suite.setdefault("training", {"minutes": 1})
    if "minutes" in training:
        training["minutes"] = 0.1
    else:
        training |= {"epochs": 1, "decay_epochs": 1}
    # tf32 is for GPUs.
    training["precision"] = "fp32"
    suite["perceptual"] = {"weights": "untrained", "width": 0.125}
    if "gradients" in suite:
        length = {"minutes": 0.1} if "minutes" in suite["gradients"] else {"epochs": 1}
        suite["gradients"] |= {**length, "records": 4}
    suite["cost"] = {"repeats": 2, "warmup": 1}
    suite["compute"] |= {"gpu_required": False, "threads": 1, "workers": 0}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["maps_epochs", "maps_minutes", "cityscapes_samples", "bluemarble_full"])
def test_a_suite_for_a_gpu_runs_from_archives_to_shared_results(tmp_path, shared, name):
    folder = copy_checkout(tmp_path / "checkout")
    edit_suite(folder, small, name)
    edit_suite(folder, lambda suite: suite.update(data={"mirror": str(shared / "mirror")}), name)
    done = snakemake(folder, "--cores", "2", "--config", f"suite={name}")
    assert done.returncode == 0, done.stderr
    share = subprocess.run(
        [sys.executable, "-m", "msgunet", "share", name], cwd=folder, capture_output=True, text=True, check=False
    )
    assert share.returncode == 0, share.stderr
    (out,) = (folder / "results" / "cpu").glob(f"*/{name}")
    metrics, table = pd.read_csv(out / "metrics.csv"), pd.read_csv(out / "tables" / "table1.csv")
    assert (table["status"] == "done").all()
    assert len(metrics) == table["images"].sum()
    free = name == "bluemarble_full"
    assert bool(list(out.glob("figures/images_*"))) == free
    assert ("- no images of" in (out / "README.md").read_text()) != free
    facts = [json.loads(path.read_text()) for path in (folder / "results" / name / "runs").glob("*/*/*/training.json")]
    times = [fact["seconds"] for fact in facts if fact["steps"]]
    assert times
    if name != "maps_epochs":
        # The configured time, and at most a step longer.
        assert 6 <= min(times) <= max(times) < 12
    else:
        assert (out / "gradients.csv").is_file()
    claims = pd.read_csv(out / "tables" / "claims.csv")
    assert set(claims["verdict"]) <= {"holds", "holds in part", "does not hold", "too few images"}, claims
    # The suites have two or six test images here; maps have seven, for four methods.
    assert "too few images" in set(claims["verdict"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_hour_on_a_gpu_from_start_to_shared_results_and_cut_off_in_between(tmp_path, shared):
    folder = copy_checkout(tmp_path / "checkout")
    for name in ("gpu_hour", "speed"):
        edit_suite(folder, small, name)
        edit_suite(folder, lambda suite: suite.update(data={"mirror": str(shared / "mirror")}), name)

    def hour(*arguments):
        command = [sys.executable, "-m", "msgunet", "hour", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    cut = hour("--minutes", "1.2")
    assert cut.returncode == 2
    assert "not begun, 1.2 minutes are over" in cut.stderr
    assert "the same command continues" in cut.stderr
    (shared_speed,) = (folder / "results" / "cpu").glob("*/speed/speed.csv")
    first = pd.read_csv(shared_speed)
    assert set(first["part"]) == {"inference"}

    done = hour()
    assert done.returncode == 0, done.stderr
    speed = pd.read_csv(shared_speed)
    assert set(speed["part"]) == {"inference", "training"}
    kept = speed.merge(first, on=["entry", "width", "part", "way", "precision", "finished"])
    assert len(kept) == len(first) > 0, "rows are timed again"
    out = shared_speed.parent.parent / "gpu_hour"
    assert (pd.read_csv(out / "tables" / "table1.csv")["status"] == "done").all()
    assert {"metrics.csv", "gradients.csv", "README.md"} <= {path.name for path in out.iterdir()}
    gradients = pd.read_csv(out / "gradients.csv")
    assert gradients.groupby("variant")["step"].nunique().between(1, 4).all()
    lines = done.stdout.partition("\n- ")[0].splitlines()
    order = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    assert order == [
        "speed of inference",
        "quality on maps",
        "speed of training",
        "gradients",
        "bluemarble_2048",
        "cost, ablation, tables and page",
    ]


def test_a_training_without_a_limit_of_time_has_no_place_in_an_hour():
    with pytest.raises(UserError, match=r"methods\.pix2pix: training.minutes is not set"):
        parts_of(load_plan("maps_epochs"), "maps_epochs", "speed")


def test_the_parts_fit_an_hour_and_the_important_ones_come_first():
    parts = parts_of(load_plan("gpu_hour"), "gpu_hour", "speed")
    assert sum(part.minutes for part in parts) <= 60
    titles = [part.title for part in parts]
    assert titles.index("speed of inference") < titles.index("quality on maps") < titles.index("tests of the GPU")
