"""The workflow on a real Slurm: same results as on one machine, despite cancelled jobs, time limits and kills.

Tests mostly wait, so run them in parallel with `-n 6`.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from checkout import copy_checkout, edit_suite, newest, snakemake
from conftest import SHARED, common_folder, made_once
from filelock import FileLock

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]

PROFILE = ("--workflow-profile", "profiles/slurm", "--config", "suite=tiny")
# Of five steps each.
EPOCHS = 20
RUN = "results/tiny/runs/bluemarble/msgunet/seed0"
GENERATOR = f"{RUN}/generator.safetensors"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A cluster with the partitions `cpu` and `gpu`: an existing one, or one that all pytest processes share."""
    script, common = SHARED / "slurm" / "start-slurm.sh", common_folder(tmp_path_factory)
    folder, users, lock = common / "slurm", common / "slurm-users", FileLock(common / "slurm.lock")
    me = users / str(os.getpid())
    with lock:
        if not users.is_dir():
            if shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0:
                users = None
            elif not script.is_file() or os.getuid() != 0:
                pytest.skip("no Slurm is available, and none can be started")
            else:
                size = {"SLURM_TEST_CPUS": "16", "SLURM_TEST_MEM_MB": "64000", "SLURM_TEST_GPUS": "4"}
                subprocess.run(["bash", script, "start", folder], check=True, env={**os.environ, **size}, timeout=300)
                users.mkdir()
        if users is not None:
            me.touch()
    yield
    if users is None:
        return
    with lock:
        me.unlink()
        if not any(users.iterdir()):
            users.rmdir()
            subprocess.run(["bash", script, "stop", folder], check=True, timeout=120)


def checkout(folder: Path, finished: Path | None = None) -> Path:
    """Make a checkout whose profile sends trainings to GPUs and checks jobs more often."""
    copy_checkout(folder)
    if finished is not None:
        shutil.copytree(finished / "data", folder / "data", symlinks=True)
    path = folder / "profiles" / "slurm" / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    profile["slurm-init-seconds-before-status-checks"] = 5
    profile["slurm-keep-successful-logs"] = True
    profile["latency-wait"] = 15
    profile["set-resources"] = {"train": {"gpu": 1}, "gradients": {"gpu": 1}}
    path.write_text(yaml.safe_dump(profile))
    return folder


def edit_profile(folder: Path, change) -> None:
    path = folder / "profiles" / "slurm" / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    change(profile)
    path.write_text(yaml.safe_dump(profile))


def without_gpus(profile) -> None:
    """Request no GPUs, so that jobs need not wait for those of other tests."""
    del profile["set-resources"]


def job_ids(folder: Path, rule: str) -> dict[str, list[str]]:
    """Return Slurm's job ids, by the wildcards of the job."""
    found: dict[str, list[str]] = {}
    for log in (folder / ".snakemake" / "slurm_logs" / f"rule_{rule}").rglob("*.log"):
        found.setdefault(log.parent.name, []).append(log.stem)
    return found


def about(job: str) -> dict[str, str]:
    """Return Slurm's information about a job."""
    text = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return dict(field.split("=", 1) for field in text.split() if "=" in field)


def output_of(folder: Path, job: str) -> str:
    """Return the output of a training job."""
    [log] = (folder / ".snakemake" / "slurm_logs" / "rule_train").rglob(f"{job}.log")
    return log.read_text()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def long(epochs: int, **compute):
    """Change the tiny suite to one method, trained for this many epochs of five steps."""

    def change(suite):
        suite["methods"] = {"msgunet": suite["methods"]["msgunet"] | {"training": {"epochs": epochs, "batch_size": 4}}}
        del suite["ablation"], suite["gradients"]
        suite["compute"] |= {"checkpoint_minutes": 0.02, **compute}

    return change


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Start Snakemake in the background, with its output in `snakemake.log`."""
    command = [sys.executable, "-m", "snakemake", *PROFILE, *arguments]
    with (folder / "snakemake.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def wait_for(condition, seconds: float, folder: Path):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, (folder / "snakemake.log").read_text()
        time.sleep(0.2)
    return found


def take_time(folder: Path, seconds: float) -> None:
    """Delay each training step by this many seconds, to leave time for other events; its result stays the same."""
    path = folder / "msgunet" / "training" / "loop.py"
    slow = f"_step = step\n\n\ndef step(*arguments):\n    time.sleep({seconds})\n    return _step(*arguments)\n"
    path.write_text(f"{path.read_text()}\n\n{slow}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A checkout in which the generator of `long(EPOCHS)` was trained without Slurm or interruption."""

    def make(folder: Path) -> None:
        edit_suite(copy_checkout(folder), long(EPOCHS))
        run = snakemake(folder, "--cores", "2", "--config", "suite=tiny", "--", GENERATOR)
        assert run.returncode == 0, run.stdout + run.stderr

    return made_once(tmp_path_factory, "alone", make)


def test_the_suite_has_the_same_results_as_on_one_machine(tmp_path, slurm):
    local = copy_checkout(tmp_path / "local")
    run = snakemake(local, "--cores", "2", "--config", "suite=tiny")
    assert run.returncode == 0, run.stdout + run.stderr
    folder = checkout(tmp_path / "checkout")
    run = snakemake(folder, *PROFILE)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (folder / "results/tiny/report/index.html").is_file()
    generators = sorted(path.relative_to(local) for path in local.glob("results/tiny/runs/*/*/*/generator.safetensors"))
    assert len(generators) == 6
    assert [digest(folder / path) for path in generators] == [digest(local / path) for path in generators]
    trainings = job_ids(folder, "train")
    assert len(trainings) == 6
    ids = [job for jobs in trainings.values() for job in jobs]
    assert len(set(ids)) == 6
    for job in ids:
        facts = about(job)
        assert (facts["Partition"], facts["JobState"], facts["TresPerJob"]) == ("gpu", "COMPLETED", "gres:gpu:1")
    assert {about(job)["Partition"] for jobs in job_ids(folder, "evaluate").values() for job in jobs} == {"cpu"}
    assert not {"tables", "figures", "page", "fetch"} & {
        path.name.removeprefix("rule_") for path in (folder / ".snakemake/slurm_logs").iterdir()
    }


def test_a_cancelled_training_saves_and_resumes_to_the_same_generator(tmp_path, slurm, alone):
    folder = checkout(tmp_path / "checkout", alone)
    edit_suite(folder, long(EPOCHS, checkpoint_minutes=60))
    take_time(folder, 0.2)
    process = start(folder, "--", GENERATOR)
    log = folder / "results/tiny/logs/train/bluemarble.msgunet.seed0.log"
    wait_for(lambda: log.is_file() and "step " in log.read_text(), 120, folder)
    [[first]] = job_ids(folder, "train").values()
    subprocess.run(["scancel", first], check=True)
    assert process.wait(timeout=600) == 0, (folder / "snakemake.log").read_text()
    [ids] = job_ids(folder, "train").values()
    assert sorted(about(job)["JobState"] for job in ids) == ["CANCELLED", "COMPLETED"]
    [last] = [job for job in ids if job != first]
    stopped = re.search(r"stopped by SIGTERM after step (\d+)", output_of(folder, first))
    assert stopped is not None
    assert f"resuming from step {stopped[1]} " in output_of(folder, last)
    assert digest(folder / GENERATOR) == digest(alone / GENERATOR)


def test_a_training_receives_a_signal_before_its_time_limit(tmp_path, slurm, alone):
    folder = checkout(tmp_path / "checkout", alone)
    edit_suite(folder, long(EPOCHS, job_hours=2 / 60, checkpoint_minutes=60))
    take_time(folder, 0.6)
    # Slurm can be half a minute early.
    edit_profile(folder, lambda profile: profile["default-resources"].update(slurm_extra="'--signal=TERM@60'"))
    edit_profile(folder, without_gpus)
    process = start(folder, "--", GENERATOR)
    assert process.wait(timeout=900) == 0, (folder / "snakemake.log").read_text()
    [ids] = job_ids(folder, "train").values()
    states = sorted(about(job)["JobState"] for job in ids)
    assert (states[0], {*states[1:]}) == ("COMPLETED", {"FAILED"})
    assert any("stopped by SIGTERM after step" in output_of(folder, job) for job in ids)
    assert digest(folder / GENERATOR) == digest(alone / GENERATOR)


def test_a_training_longer_than_its_jobs_is_finished_by_several(tmp_path, slurm, alone):
    folder = checkout(tmp_path / "checkout", alone)
    edit_suite(folder, long(EPOCHS, job_hours=1 / 60))
    # Slurm checks time limits every half a minute.
    take_time(folder, 1.0)
    # A signal two minutes before the end would come immediately.
    edit_profile(folder, lambda profile: profile["default-resources"].pop("slurm_extra"))
    edit_profile(folder, without_gpus)
    process = start(folder, "--", GENERATOR)
    assert process.wait(timeout=900) == 0, (folder / "snakemake.log").read_text()
    [ids] = job_ids(folder, "train").values()
    states = sorted(about(job)["JobState"] for job in ids)
    assert states[0] == "COMPLETED"
    assert {*states[1:]} == {"TIMEOUT"}
    assert {about(job)["TimeLimit"] for job in ids} == {"00:01:00"}
    seconds = json.loads((folder / RUN / "training.json").read_text())["seconds"]
    assert seconds > 60
    assert digest(folder / GENERATOR) == digest(alone / GENERATOR)


def test_a_restart_with_orphaned_jobs_trains_in_one_process_at_a_time(tmp_path, slurm, alone):
    folder = checkout(tmp_path / "checkout", alone)
    edit_suite(folder, long(EPOCHS))
    # Time for a second Snakemake and its job to start.
    take_time(folder, 1.0)
    process = start(folder)
    wait_for(lambda: newest(folder / RUN) > 4, 120, folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    [[orphan]] = job_ids(folder, "train").values()
    again = start(folder)
    ids = wait_for(lambda: [i for jobs in job_ids(folder, "train").values() for i in jobs if i != orphan], 120, folder)
    wait_for(lambda: "another process is training in" in output_of(folder, ids[0]), 60, folder)
    assert about(orphan)["JobState"] == "RUNNING"
    assert again.wait(timeout=600) == 0, (folder / "snakemake.log").read_text()
    assert (folder / "results/tiny/report/index.html").is_file()
    assert digest(folder / GENERATOR) == digest(alone / GENERATOR)


def test_a_training_by_two_processes_is_one_job_with_two_gpus(tmp_path, slurm, alone):
    folder = checkout(tmp_path / "checkout", alone)
    edit_suite(folder, long(2, processes=2, threads=2))
    edit_profile(folder, lambda profile: profile["set-resources"].update(train={"gpu": 2}))
    run = snakemake(folder, *PROFILE, "--", GENERATOR)
    assert run.returncode == 0, run.stdout + run.stderr
    [[job]] = job_ids(folder, "train").values()
    facts = about(job)
    assert (facts["TresPerJob"], facts["NumCPUs"], facts["NumNodes"]) == ("gres:gpu:2", "4", "1")
    assert json.loads((folder / RUN / "training.json").read_text())["processes"] == 2
