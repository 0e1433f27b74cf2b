"""SIGTERM to Snakemake alone, as `docker stop` and systemd's KillMode=mixed send it, in mid training."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import edit_suite, finished_tiny, newest, snakemake

TARGET = "results/tiny/runs/bluemarble/msgunet/seed0/generator.safetensors"
COMMAND = ("--cores", "2", "--config", "suite=tiny", "--", TARGET)


@pytest.fixture
def copied(tmp_path_factory, tmp_path) -> Path:
    """A copy of the finished checkout."""
    return shutil.copytree(finished_tiny(tmp_path_factory), tmp_path / "copied", symlinks=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_to_snakemake_alone_saves_the_training(copied, tmp_path, processes):
    folder = copied

    def long(suite):
        suite["methods"] = {"msgunet": suite["methods"]["msgunet"] | {"training": {"epochs": 100, "batch_size": 4}}}
        del suite["ablation"], suite["gradients"]
        suite["compute"].update(processes=processes, checkpoint_minutes=60)

    edit_suite(folder, long)
    run_folder = folder / TARGET.rpartition("/")[0]
    shutil.rmtree(run_folder)
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *COMMAND],
        cwd=folder,
        start_new_session=True,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(run_folder.glob("samples/epoch-*.png")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert newest(run_folder) == 0
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    text = (tmp_path / "log").read_text()
    assert status != 0, text
    step = newest(run_folder)
    assert step > 0, text
    assert f"stopped by SIGTERM after step {step} of" in text
    assert text.count("localrule train:") == 1, "no further attempt has started"
    assert "the report is made" not in text
    assert not (folder / TARGET).exists()
    # Only the start of the second run matters.
    second = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *COMMAND],
        cwd=folder,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    resumed = None
    for line in second.stderr:
        if resumed := re.search(r"resuming from step (\d+)", line):
            second.send_signal(signal.SIGTERM)
            break
    second.communicate(timeout=60)
    assert resumed is not None, "it resumes without --unlock"
    assert int(resumed[1]) == step


def test_an_evaluation_is_stopped_too_and_no_report_is_made(copied):
    folder = copied

    def slow(suite):
        suite["methods"] = {"mean": {}, "copy": {}}
        del suite["ablation"], suite["gradients"]

    edit_suite(folder, slow)
    command = ("--cores", "1", "--config", "suite=tiny")
    results = folder / "results" / "tiny"
    (results / "runs/bluemarble/copy/seed0/metrics.csv").unlink()
    shutil.rmtree(results / "report")
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *command], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "rule evaluate:" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=30)[1]
    assert process.returncode != 0
    assert "the report is made" not in rest
    assert not (results / "report").exists()
    assert snakemake(folder, *command).returncode == 0
