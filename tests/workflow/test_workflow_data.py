"""The workflow from archives to page: maps from a mirror folder, Cityscapes through its login, a user's own folder."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from checkout import copy_checkout, edit_suite, jobs, snakemake
from conftest import made_once, make_image
from servers import PASSWORD, USER, serving

ZIPS = {
    "gtFine_trainvaltest.zip": "4237c19de34c8a376e9ba46b495d6f66",
    "leftImg8bit_trainvaltest.zip": "0a6e97e94b616a514066c9e2adb0c97f",
}
NARROW = {"width": 0.0625, "discriminator_width": 0.0625}
OWN = {"source": "own/source", "target": "own/target"}
RUN = ("--cores", "2", "--config", "suite=three.yaml")


class _Watch(threading.Thread):
    """Search the command lines of all processes for a text, repeatedly."""

    def __init__(self, text: str) -> None:
        super().__init__(daemon=True)
        self._text, self._over = text.encode(), threading.Event()
        self.found: list[bytes] = []
        self.scans = 0

    def run(self) -> None:
        while not self._over.wait(0.2):
            self.scans += 1
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = file.read_bytes()
                except OSError:
                    continue
                if self._text in line:
                    self.found.append(line)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def __enter__(self) -> "_Watch":
        self.start()
        return self


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shared) -> Path:
    """A checkout in which the suite has run; tests leave it as it is."""
    return made_once(tmp_path_factory, "workflow_data", lambda folder: run_suite(copy_checkout(folder), shared))


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished checkout, with all its times."""
    return shutil.copytree(finished, tmp_path / "copied", symlinks=True)


def run_suite(folder: Path, shared: Path) -> None:
    """Run the workflow from archives to the page; samples with their own checksums replace the published archives."""
    cityscapes = folder / "msgunet" / "data" / "sets" / "cityscapes.py"
    text = cityscapes.read_text()
    files = {name: (shared / "mirror" / name).read_bytes() for name in ZIPS}
    for name, published in ZIPS.items():
        assert published in text
        text = text.replace(published, hashlib.md5(files[name]).hexdigest())
    cityscapes.write_text(text)
    for i in range(10):
        for role in ("source", "target"):
            path = folder / "own" / role / f"a {{name}} {i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_image(i, 80, 40).save(path)
    suite = {
        "description": "three data sets, for a test",
        "datasets": {
            "maps": {"size": [32, 32]},
            "cityscapes": {"size": [64, 32]},
            "mine": {"kind": "folder", "size": [64, 32], "options": OWN},
        },
        "methods": {"pix2pix": {"options": {**NARROW, "downsamplings": 3}}},
        "training": {"epochs": 1, "decay_epochs": 0, "batch_size": 8},
        "evaluation": {"metrics": ["psnr", "ssim"], "protocols": ["native"]},
        "cost": {"repeats": 1, "warmup": 0},
        "report": {"examples": 1, "resamples": 100},
        "data": {"mirror": {"maps": str(shared / "mirror")}},
    }
    (folder / "three.yaml").write_text(yaml.safe_dump(suite))
    account = {"CITYSCAPES_USERNAME": USER, "CITYSCAPES_PASSWORD": PASSWORD}
    with serving(files) as server, _Watch(PASSWORD) as watch:
        run = snakemake(folder, *RUN, env={**os.environ, **account, "CITYSCAPES_URL": server.url})
    assert run.returncode == 0, run.stdout + run.stderr
    assert watch.scans > 5
    assert watch.found == []
    assert PASSWORD not in run.stdout + run.stderr
    assert server.counts["POST"] == 2, "one login for each of the two jobs"


def test_from_archives_to_the_page(finished):
    table = pd.read_csv(finished / "results" / "three" / "tables" / "table1.csv")
    assert (table["status"] == "done").all()
    assert table.groupby("dataset")["images"].first().to_dict() == {"cityscapes": 2, "maps": 69, "mine": 2}
    page = (finished / "results" / "three" / "report" / "index.html").read_text()
    assert "274 training and 69 test pairs" in page
    assert "6 training and 2 test pairs" in page
    kept = [line for line in page.splitlines() if "Do not redistribute this page" in line]
    assert len(kept) == 2, "for maps and Cityscapes, not for custom images"
    assert any("research only, images may not be redistributed" in line for line in kept)
    assert sorted(p.name for p in (finished / "data" / "archives").glob("[!.]*")) == sorted(ZIPS)


def test_the_password_is_in_no_file(finished):
    """No file below the checkout: .snakemake with its metadata and logs, results, settings, logs, archives."""
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert any(".snakemake" in path.parts for path in files)
    for secret in (PASSWORD, "secret-cookie"):
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_archives_can_be_removed_and_restored_once_they_are_prepared(copied):
    archives = copied / "data" / "archives"
    for name in ZIPS:
        (archives / name).rename(copied / name)
    assert jobs(snakemake(copied, "-n", *RUN).stdout) == {}
    for name in ZIPS:
        (copied / name).rename(archives / name)
        (archives / name).touch()
    assert jobs(snakemake(copied, "-n", *RUN).stdout) == {}


def test_a_missing_account_is_reported_before_any_work(finished, tmp_path):
    folder = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("data", "results", ".snakemake")
    shutil.copytree(finished, folder, ignore=lambda d, names: ignore(d, names) if Path(d) == finished else set())
    (folder / "msgunet" / "data").mkdir(exist_ok=True)
    shutil.copytree(finished / "results" / "published", folder / "results" / "published")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CITYSCAPES")}
    run = snakemake(folder, *RUN, env={**clean, "CITYSCAPES_CREDENTIALS": "/nonexistent"})
    assert run.returncode != 0
    assert "gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip need an account" in run.stdout + run.stderr
    assert not (folder / "data" / "archives").exists()


def test_one_more_custom_image_makes_another_data_set(copied):
    added = [copied / "own" / role / "new.png" for role in ("source", "target")]
    for path in added:
        make_image(99, 80, 40).save(path)
    assert jobs(snakemake(copied, "-n", *RUN).stdout) == {
        # Twice: with the larger training images for jitter.
        **{"prepare": 2, "train": 1, "evaluate": 1},
        **{"tables": 1, "figures": 1, "page": 1},
    }
    for path in added:
        path.unlink()
    assert jobs(snakemake(copied, "-n", *RUN).stdout) == {}


def test_data_lists_available_files(finished):
    done = subprocess.run(
        [sys.executable, "-m", "msgunet", "data", "--compute", "results/three/settings/compute.json"],
        cwd=finished,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "274 training and 69 test pairs of 32x32" in done.stdout
    assert "archive   data/archives/gtFine_trainvaltest.zip" in done.stdout


def test_weights_that_were_downloaded_again_train_nothing(tmp_path):
    """Weights are checked by their hash; a modification time after a training means nothing."""
    tiny = ("--cores", "2", "--config", "suite=tiny")
    folder = copy_checkout(tmp_path / "checkout")
    edit_suite(folder, lambda suite: suite.update(perceptual={"weights": "imagenet"}))
    weights = folder / "data/weights/vgg19-dcbb9e9d.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert jobs(snakemake(folder, "-n", *tiny).stdout)["train"] == 6
    (prepared,) = folder.glob("data/bluemarble-*")
    run = folder / "results/tiny/runs/bluemarble/msgunet/seed0"
    outputs = [run / name for name in ("generator.safetensors", "history.csv", "training.json")]
    for path in (prepared / "manifest.csv", *outputs):
        path.touch()
    later = time.time() + 60
    os.utime(weights, (later, later))
    goal = str(outputs[0].relative_to(folder))
    done = snakemake(folder, "-n", *tiny, "--rerun-triggers", "mtime", "--", goal)
    assert "Nothing to be done" in done.stdout + done.stderr
