"""The workflow by ordinary users: without a home, in a container say, and in a folder that a group shares."""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from checkout import copy_checkout, edit_suite
from users import as_user, open_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIRST, SECOND, GROUP = 51235, 51236, 51237
TABLE = "results/tiny/tables/table1.csv"
FIGURES = "results/tiny/figures/figures.json"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that all users can write to."""
    with open_folder() as folder:
        yield folder


@pytest.fixture
def folder(place) -> Path:
    """A checkout with a suite of one training and a reference row."""
    folder = copy_checkout(place / "checkout")

    def shorten(suite) -> None:
        suite["methods"] = {name: suite["methods"][name] for name in ("msgunet", "mean")}
        suite["ablation"] = {"methods": []}
        del suite["gradients"]

    edit_suite(folder, shorten)
    return folder


def give(folder: Path, uid: int, gid: int) -> None:
    """Make a user and a group the owners of all files; the group's folders pass their group on."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid)
        if path.is_dir():
            path.chmod(path.stat().st_mode | 0o2000)


def snakemake(uid: int, folder: Path, *arguments: str, **options):
    command = (sys.executable, "-m", "snakemake", "--cores", "2", *arguments, "--config", "suite=tiny")
    run = as_user(uid, *command, cwd=folder, **options)
    run.output = re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr)
    return run


def test_a_suite_runs_without_a_home_and_without_noise(folder, place):
    give(folder, FIRST, FIRST)
    run = snakemake(FIRST, folder, TABLE, FIGURES, env={"HOME": "/nonexistent", "TMPDIR": str(place)})
    assert run.returncode == 0, run.output
    assert set(pd.read_csv(folder / TABLE)["status"]) == {"done"}
    logs = {path: path.read_text() for path in folder.glob("results/tiny/logs/**/*.log")}
    assert len(logs) >= 6
    assert not [path for path, text in logs.items() if re.search("cache|nonexistent|Fontconfig", text)]


@pytest.mark.parametrize("profile", [(), ("--profile", "profiles/slurm"), ("--workflow-profile", "profiles/slurm")])
def test_a_home_that_cannot_be_written_is_not_needed(folder, place, profile):
    give(folder, FIRST, FIRST)
    home = place / "home"
    home.mkdir()
    home.chmod(0o555)
    run = snakemake(FIRST, folder, "-n", *profile, env={"HOME": str(home)})
    assert run.returncode == 0, run.output
    assert "evaluate" in run.output
    assert list(home.iterdir()) == []


RUNS = "results/tiny/runs/bluemarble"
GENERATOR = f"{RUNS}/mean/seed0/generator.safetensors"


@pytest.fixture
def shared(folder) -> Path:
    """A Git checkout of the first user, in a folder of the group; also the users' copies of the package."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", folder)
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    give(folder, FIRST, GROUP)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o060)
    return folder


def test_a_second_user_finishes_a_suite_in_a_folder_of_their_group(shared):
    head = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", shared, "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    mask = {"gid": GROUP, "umask": 0o002}
    assert snakemake(FIRST, shared, GENERATOR, **mask).returncode == 0
    run = snakemake(SECOND, shared, TABLE, **mask)
    assert run.returncode == 0, run.output
    assert (shared / GENERATOR).stat().st_uid == FIRST
    assert (shared / TABLE).stat().st_uid == SECOND
    table = pd.read_csv(shared / TABLE)
    assert set(table["status"]) == {"done"}
    assert set(table["commit"]) == {head.stdout.strip()}, "both users' results name the commit"
    run = snakemake(FIRST, shared, FIGURES, **mask)
    assert run.returncode == 0, run.output


def test_without_the_mask_the_second_user_reads_whose_files_are_closed(shared):
    assert snakemake(FIRST, shared, GENERATOR, gid=GROUP).returncode == 0
    run = snakemake(SECOND, shared, TABLE, gid=GROUP)
    assert run.returncode == 1
    assert f"benchmark.lock belongs to user id {FIRST} (-rw-r--r--), and you are uid{SECOND}" in run.output
    assert "'umask 002'" in run.output
    assert f"chmod -R g+rwX {shared} " in run.output
    assert "file system" not in run.output
    assert "Traceback" not in run.output

    # Partly opened: everything that is closed is found before any work.
    (shared / ".snakemake" / "benchmark.lock").chmod(0o664)
    run = snakemake(SECOND, shared, TABLE, gid=GROUP)
    assert run.returncode == 1
    assert "of the folders and files" in run.output
    assert f"belongs to user id {FIRST}" in run.output
    assert "steps (" not in run.output, "a job has run"

    # What the message advises.
    assert as_user(FIRST, "chmod", "-R", "g+rwX", shared, gid=GROUP).returncode == 0
    run = snakemake(SECOND, shared, TABLE, gid=GROUP, umask=0o002)
    assert run.returncode == 0, run.output


def test_status_sees_another_users_training_although_its_lock_is_closed(shared):
    assert snakemake(FIRST, shared, GENERATOR, gid=GROUP).returncode == 0
    (shared / GENERATOR).unlink()
    lock = shared / RUNS / "mean" / "seed0" / ".lock"
    assert lock.stat().st_mode & 0o777 == 0o644
    command = (sys.executable, "-m", "msgunet", "status", "tiny")
    states = []
    with lock.open() as handle:
        for operation in (fcntl.LOCK_EX, fcntl.LOCK_UN):
            fcntl.flock(handle, operation)
            run = as_user(SECOND, *command, gid=GROUP, cwd=shared)
            assert run.returncode == 0, run.stderr
            states.append(re.search(r"\| mean[^|]*\|[^|]*\| *(\w+( \w+)?)", run.stdout)[1])
    assert states == ["running", "not yet"]
