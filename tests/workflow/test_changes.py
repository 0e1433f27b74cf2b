"""`msgunet plan --changes` lists the jobs that Snakemake's dry run lists, and the settings that are the reason."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import copy_checkout, edit_suite, finished_tiny, jobs, snakemake
from own import put_pairs

RULES = {
    "fetch": "download",
    "prepare": "preparation",
    "train": "training",
    "gradients": "gradient training",
    "evaluate": "evaluation",
    "ablate": "ablation",
}


# The command, and on standard error what its Snakemake says.
_OVERHEARD = """
import subprocess, sys
from msgunet.cli.main import main

def run(command, real=subprocess.run, **options):
    done = real(command, **options)
    if "snakemake" in command:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done

subprocess.run = run
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def copied(tmp_path_factory, tmp_path) -> Path:
    return shutil.copytree(finished_tiny(tmp_path_factory), tmp_path / "copied", symlinks=True)


def changes(folder: Path, suite: str = "tiny") -> list[str]:
    """Return the lines of the command, once its jobs agree with those of Snakemake."""
    command = [sys.executable, "-c", _OVERHEARD, "plan", suite, "--changes"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    expected = jobs(done.stderr)
    assert counted([first]) == expected
    assert counted(lines) == expected
    return [line.strip() for line in lines]


def counted(lines: list[str]) -> dict[str, int]:
    """Return the number of jobs by rule at the ends of lines."""
    counts: dict[str, int] = {}
    for line in lines:
        for part in line.rsplit(": ", 1)[-1].split(", "):
            number, word = match.groups() if (match := re.fullmatch(r"(\d+) (.+?)s?", part)) else ("1", part)
            rule = next((rule for rule, known in RULES.items() if known == word), word)
            if rule in (*RULES, "cost", "tables", "figures", "page"):
                counts[rule] = counts.get(rule, 0) + int(number)
    return counts


REPORT = "report: its inputs change: tables, figures, page"


def test_a_finished_suite_has_nothing_to_run(copied):
    assert changes(copied) == []
    edit_suite(copied, lambda s: s["compute"].update(workers=1, checkpoint_minutes=3))
    assert changes(copied) == []


def test_settings_of_trainings(copied):
    edit_suite(copied, lambda s: s["methods"]["pix2pix"].update(training={"epochs": 4, "learning_rate": 1e-4}))
    expected = [
        "pix2pix on bluemarble, seed 0: training.epochs 1 → 4; training.learning_rate 0.0002 → 0.0001: 1 training, "
        "1 evaluation",
        REPORT,
    ]
    assert changes(copied) == expected
    assert changes(copied) == expected, "the dry run has updated the settings files"
    method = copied / "baselines" / "pan.py"
    method.write_text(method.read_text().replace("    version = 3", "    version = 4"))
    edit_suite(copied, lambda s: s["gradients"].update(epochs=2))
    found = changes(copied)
    assert "pan on bluemarble, seed 0: version 3 → 4: 1 training, 1 evaluation" in found
    for variant in ("with", "without"):
        name = f"gradients on bluemarble, {variant} intermediate outputs"
        assert f"{name}: training.epochs 1 → 2: 1 gradient training" in found
    assert "cost: cost.networks has changed: cost" in found


def test_settings_of_evaluations_and_reports(copied):
    edit_suite(copied, lambda s: s["report"].update(examples=1))
    assert changes(copied) == ["report: report.examples 2 → 1: tables, figures, page"]
    edit_suite(copied, lambda s: s.update(evaluation={"metrics": ["psnr"]}))
    found = changes(copied)
    assert len(found) == 6 + 1
    expected = 'msgunet on bluemarble, seed 0: evaluation.metrics ["psnr", "ssim", "vif"] → ["psnr"]: 1 evaluation'
    assert expected in found
    assert found[-1].endswith(': report.metrics ["psnr", "ssim", "vif"] → ["psnr"]: tables, figures, page')
    edit_suite(copied, lambda s: s.update(evaluation={"precision": "training"}))
    found = changes(copied)
    assert 'msgunet on bluemarble, seed 0: evaluation.precision "fp32" → "training": 1 evaluation' in found
    assert counted(found).keys() == {"evaluate", "tables", "figures", "page"}, "no training, no ablation"


def test_missing_results(copied):
    (copied / "results/tiny/runs/bluemarble/pan/seed0/metrics.csv").unlink()
    assert changes(copied) == ["pan on bluemarble, seed 0: missing: metrics.csv: 1 evaluation", REPORT]
    edit_suite(copied, lambda s: s.update(seeds=[0, 1]))
    found = changes(copied)
    (line,) = [line for line in found if line.startswith("pix2pix on bluemarble, seed 1: missing: generator.safe")]
    assert line.endswith(": 1 training, 1 evaluation")
    assert not [line for line in found if line.startswith(("mean", "copy"))], "reference rows have one run"


def test_settings_of_a_data_set(copied):
    edit_suite(copied, lambda s: s["datasets"]["bluemarble"]["options"].update(min_land=0.4))
    found = changes(copied)
    change = "datasets.bluemarble.options.min_land 0.5 → 0.4"
    assert re.fullmatch(rf"data/bluemarble-64x64-[0-9a-f]{{8}}: {change}: 1 preparation", found[0])
    assert f"pan on bluemarble, seed 0: {change}: 1 training, 1 evaluation" in found
    assert f"msgunet on bluemarble, seed 0: {change}: 1 training, 1 evaluation, 1 ablation" in found


def test_the_users_own_images(tmp_path):
    folder = copy_checkout(tmp_path / "checkout")
    put_pairs(folder / "mine", *(f"{i}.png" for i in range(5)))

    def own(suite):
        options = {"source": "mine/a", "target": "mine/b"}
        suite["datasets"] = {"mine": {"kind": "folder", "size": [32, 32], "options": options}}
        suite["methods"] = {"mean": {}}
        del suite["ablation"], suite["gradients"]

    edit_suite(folder, own)
    found = changes(folder)
    assert re.fullmatch(r"data/folder-32x32-[0-9a-f]{8}: missing: manifest.csv: 1 preparation", found[0])
    assert snakemake(folder, "--cores", "2", "--config", "suite=tiny").returncode == 0
    assert changes(folder) == []
    put_pairs(folder / "mine", "3.png")
    found = changes(folder)
    assert re.fullmatch(r"data/folder-32x32-[0-9a-f]{8}: your own images have changed: 1 preparation", found[0])
    assert "mean on mine, seed 0: its inputs change: 1 training, 1 evaluation" in found


def test_a_suite_that_snakemake_cannot_plan(copied):
    edit_suite(copied, lambda s: s.update(data={"mirror": "nowhere"}))
    (copied / "Snakefile").unlink()
    command = [sys.executable, "-m", "msgunet", "plan", "tiny", "--changes"]
    done = subprocess.run(command, cwd=copied, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'snakemake -n' cannot plan this suite:\n  ")
    assert "Traceback" not in done.stderr
