"""Helpers to run the real workflow in a copy of the checkout."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import ROOT, made_once
from made import EVIL, EVIL_DESCRIPTION

from msgunet.training.checkpoint import checkpoints


def snakemake(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run Snakemake in a folder and return the finished process, with its output."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **options)


def copy_checkout(folder: Path) -> Path:
    """Copy the files of the workflow and their bytecode, without data, results and environment; return `folder`."""
    folder.mkdir(parents=True)
    # Another process may be writing bytecode.
    ignore = shutil.ignore_patterns("*.pyc.*")
    for name in ("msgunet", "baselines", "config", "workflow", "profiles", "examples", "Snakefile", "environment.yml"):
        source = ROOT / name
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder)
    (folder / "results").mkdir()
    for name in ("published", "measured"):
        shutil.copytree(ROOT / "results" / name, folder / "results" / name)
    return folder


def jobs(output: str) -> dict[str, int]:
    """Return the number of jobs by rule, from the table that a dry run prints; without `all`."""
    table = re.search(r"Job stats:\n.*?\n-+.*?\n(.*?)\n\n", output, re.S)
    if table is None:
        assert "Nothing to be done" in output, output
        return {}
    counts = (line.split() for line in table[1].splitlines())
    return {name: int(count) for name, count in counts if name not in ("all", "total")}


def edit_suite(folder: Path, change, name: str = "tiny") -> None:
    path = folder / "config" / f"{name}.yaml"
    suite = yaml.safe_load(path.read_text())
    change(suite)
    path.write_text(yaml.safe_dump(suite, sort_keys=False))


def newest(run_folder: Path) -> int:
    """Return the step of a run's newest checkpoint; 0 if there is none."""
    steps = [step for folder in run_folder.glob("checkpoints/*") for _, step in checkpoints(folder)]
    return max(steps, default=0)


def finished_tiny(tmp_path_factory) -> Path:
    """Return a checkout in which the tiny suite has run from data to page; tests leave it as it is.

    Its description and a title have the markup of every format.
    """

    def make(folder: Path) -> None:
        copy_checkout(folder)
        edit_suite(folder, lambda s: (s.update(description=EVIL_DESCRIPTION), s["methods"]["pan"].update(title=EVIL)))
        run = snakemake(folder, "--cores", "2", "--config", "suite=tiny")
        assert run.returncode == 0, run.stdout + run.stderr

    return made_once(tmp_path_factory, "workflow", make)
