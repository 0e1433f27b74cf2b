"""The workflow by ordinary users: without a home, in a container say, and in a folder that a group shares."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from checkout import copy_checkout, edit_suite
from users import as_user, open_folder

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
