"""The suites for a GPU, made small enough for a CPU: from archives to shared results."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from checkout import copy_checkout, edit_suite, snakemake

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
        if name in OPTIONS:
            entry["options"] = {**entry.get("options", {}), **NARROW, **OPTIONS[name]}
    if "minutes" in suite["training"]:
        suite["training"]["minutes"] = 0.1
    else:
        suite["training"] |= {"epochs": 1, "decay_epochs": 1}
    # tf32 is for GPUs.
    suite["training"]["precision"] = "fp32"
    suite["perceptual"]["width"] = 0.125
    if "gradients" in suite:
        suite["gradients"] |= {"epochs": 1, "records": 4}
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
