"""Real runs of the workflow on the tiny suite, in a copy of the checkout."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from checkout import copy_checkout, edit_suite, finished_tiny, jobs, newest, snakemake
from made import EVIL
from readers import read_html

TINY = ("--cores", "2", "--config", "suite=tiny")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return finished_tiny(tmp_path_factory)


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished checkout, with all its times."""
    return shutil.copytree(finished, tmp_path / "copied", symlinks=True)


def dry(folder: Path, suite: str = "tiny") -> dict[str, int]:
    run = snakemake(folder, "-n", "--cores", "2", "--config", f"suite={suite}")
    assert run.returncode == 0, run.stdout + run.stderr
    return jobs(run.stdout + run.stderr)


def test_all_outputs_exist(finished):
    results = finished / "results" / "tiny"
    table = pd.read_csv(results / "tables" / "table1.csv")
    assert len(table) == 6 * 2
    assert set(table["status"]) == {"done"}
    assert {"psnr", "psnr_low", "psnr_high", "ssim", "vif", "commit", "device", "schedule"} <= set(table.columns)
    ablation = pd.read_csv(results / "tables" / "ablation.csv")
    assert len(ablation) == 4
    cost = pd.read_csv(results / "tables" / "cost.csv")
    generators = cost[cost["part"] == "generator"]
    assert set(zip(generators["entry"], generators["width"], generators["used"], strict=True)) == {
        *(("pix2pix", 32, True), ("pix2pix", 64, False), ("pan", 32, True), ("pan", 64, False)),
        *(("pix2pixhd", 32, False), ("pix2pixhd", 64, True), ("msgunet", 64, True)),
    }
    for name in ("table1_bluemarble_native", "table1_bluemarble_full", "ablation_bluemarble_msgunet", "cost"):
        markdown = (results / "tables" / f"{name}.md").read_text()
        assert "Made by `snakemake --cores all --config suite=tiny" in markdown
        assert r"\toprule" in (results / "tables" / f"{name}.tex").read_text()
    claims = pd.read_csv(results / "tables" / "claims.csv").set_index("place")
    assert claims.loc["Fig. 2", "verdict"] != "not measured", "the tables are made after the gradients"
    for name in ("fig2_gradients", "gradient_depth", "images_bluemarble"):
        assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_needs_nothing_but_its_folder(finished):
    page = finished / "results" / "tiny" / "report" / "index.html"
    html = page.read_text()
    linked = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']*)["']""", html)
    assert len(linked) > 20
    assert [link for link in linked if not (page.parent / link).is_file()] == []
    assert not [path for path in page.parent.rglob("*") if path.is_symlink()]
    table = pd.read_csv(finished / "results" / "tiny" / "tables" / "table1.csv")
    cell = f"{table['psnr'][0]:.2f} [{table['psnr_low'][0]:.2f}, {table['psnr_high'][0]:.2f}]"
    assert cell in html


def test_snakemakes_own_report_has_tables_figures_and_the_page(finished, tmp_path):
    path = tmp_path / "report.zip"
    run = snakemake(finished, *TINY, "--report", str(path))
    assert run.returncode == 0, run.stdout + run.stderr
    with zipfile.ZipFile(path) as archive:
        html = next(archive.read(name) for name in archive.namelist() if name.endswith("report.html")).decode()
        names = archive.namelist()
        table = next(archive.read(name) for name in names if name.endswith("table1_bluemarble_native.html")).decode()
    assert EVIL in read_html(table)
    assert "alert(" not in html
    for name in ("table1_bluemarble_native.html", "images_bluemarble.png", "index.html"):
        assert any(other.endswith(name) for other in names), name
    assert {"Tables", "Figures", "Page"} <= set(re.findall(r"[A-Z][a-z]+", html))


def test_a_second_run_has_nothing_to_do(finished):
    assert dry(finished) == {}
    run = snakemake(finished, *TINY)
    assert "Nothing to be done" in run.stdout + run.stderr


def test_without_one_methods_metrics_only_their_dependents_run(copied):
    metrics = copied / "results/tiny/runs/bluemarble/pan/seed0/metrics.csv"
    kept = metrics.read_bytes(), metrics.stat()
    metrics.unlink()
    assert dry(copied) == {"evaluate": 1, "tables": 1, "figures": 1, "page": 1}
    metrics.write_bytes(kept[0])
    os.utime(metrics, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
    assert dry(copied) == {}


def test_a_training_setting_trains_that_method_again(copied):
    suite = copied / "config" / "tiny.yaml"
    text = suite.read_text()
    edit_suite(copied, lambda s: s["methods"]["pix2pix"].update(training={"learning_rate": 1e-4}))
    planned = snakemake(copied, "-n", *TINY).stdout
    assert jobs(planned) == {"train": 1, "evaluate": 1, "tables": 1, "figures": 1, "page": 1}
    assert "runs/bluemarble/pix2pix/seed0/run.json" in planned
    goal = "results/tiny/runs/bluemarble/pix2pix/seed0/generator.safetensors"
    before = (copied / goal).read_bytes()
    run = snakemake(copied, *TINY, "--", goal)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (copied / goal).read_bytes() != before
    suite.write_text(text)
    assert snakemake(copied, *TINY, "--", goal).returncode == 0
    assert (copied / goal).read_bytes() == before


def test_two_processes_train_a_run_through_the_rule(copied):
    edit_suite(copied, lambda s: s["compute"].update(processes=2))
    assert dry(copied) == {}, "it changes no result"
    run = copied / "results/tiny/runs/bluemarble/pix2pix/seed0"
    (run / "generator.safetensors").unlink()
    shutil.rmtree(run / "checkpoints")
    done = snakemake(copied, *TINY, "--", str((run / "generator.safetensors").relative_to(copied)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run / "training.json").read_text())["processes"] == 2
    edit_suite(copied, lambda s: s["compute"].update(gpu_required=True))
    (run / "generator.safetensors").unlink()
    planned = snakemake(copied, "-n", *TINY, "--resources", "gpu=2").stdout
    assert "gpu=2" in re.search(r"rule train:.*?\n\n", planned, re.S)[0]


def test_settings_of_the_report_and_of_the_machine_train_nothing(copied):
    edit_suite(copied, lambda s: s["compute"].update(workers=1, checkpoint_minutes=3))
    assert dry(copied) == {}
    edit_suite(copied, lambda s: s["report"].update(examples=1))
    assert dry(copied) == {"tables": 1, "figures": 1, "page": 1}


def test_a_reference_entry_makes_only_the_report_again_with_the_files_that_compare(copied):
    edit_suite(copied, lambda s: s.update(comparison={"reference": "msgunet"}))
    assert dry(copied) == {"tables": 1, "figures": 1, "page": 1}
    assert snakemake(copied, *TINY).returncode == 0
    found = {path.name for path in (copied / "results" / "tiny").glob("*/design*")}
    texts = {f"design_bluemarble_{p}.{end}" for p in ("native", "full") for end in ("md", "tex", "html")}
    assert found == {"design.csv", *texts, "design_bluemarble.pdf", "design_bluemarble.png"}


def test_a_methods_version_trains_it_again(copied):
    path = copied / "baselines" / "pan.py"
    path.write_text(path.read_text().replace("    version = 3", "    version = 4"))
    assert dry(copied) == {"train": 1, "evaluate": 1, "cost": 1, "tables": 1, "figures": 1, "page": 1}


def test_a_failed_method_leaves_the_others_and_is_retried_later(tmp_path, finished):
    """One method's training fails; the others finish, the table reports the failure, and none of them runs twice."""
    folder = copy_checkout(tmp_path / "checkout")
    shutil.copytree(finished / "data", folder / "data", symlinks=True)
    method = folder / "baselines" / "pix2pixhd.py"
    text = method.read_text()
    head = "    def _build(self, head: bool):"
    assert head in text
    broken = text.replace(head, f"{head}\n        raise OSError('broken')")
    method.write_text(broken)

    def only(suite):
        suite["methods"] = {k: v for k, v in suite["methods"].items() if k in ("pix2pixhd", "mean")}
        del suite["ablation"], suite["gradients"]

    edit_suite(folder, only)
    run = snakemake(folder, *TINY)
    assert run.returncode != 0
    assert (folder / "results/tiny/runs/bluemarble/mean/seed0/metrics.csv").exists(), run.stdout + run.stderr
    assert "Some jobs failed; the report is made from the results so far." in run.stdout + run.stderr
    table = (folder / "results/tiny/tables/table1_bluemarble_native.md").read_text()
    assert re.search(r"Pix2Pix-HD .*\| +failed \|", table)
    assert "- Pix2Pix-HD: failed: [Errno" not in table
    assert re.search(r"- Pix2Pix-HD: failed: OSError: broken \(pix2pixhd\.py:\d+\)", table)
    # Its tries that follow end at once.
    assert "not tried again, because the error would come again: OSError: broken" in run.stdout + run.stderr
    assert re.search(r"mean .*\[", table)
    page = (folder / "results/tiny/report/index.html").read_text()
    assert "The suite is not finished" in page
    assert "Pix2Pix-HD: failed: OSError: broken" in page
    assert "mean (training target)" in page
    # The status is at the end of Snakemake's output.
    assert re.search(r"Pix2Pix-HD +\| bluemarble +\| failed", run.stdout + run.stderr)
    method.write_text(text)
    assert dry(folder) == {"train": 1, "evaluate": 1, "cost": 1, "tables": 1, "figures": 1, "page": 1}


def test_a_killed_training_resumes_from_the_checkpoint(copied):
    """SIGKILL Snakemake and all its processes; the same command resumes and makes the generator.

    The generator of a shorter training stays until then.
    """
    folder = copied

    def long(suite):
        suite["methods"] = {"msgunet": suite["methods"]["msgunet"] | {"training": {"epochs": 10, "batch_size": 4}}}
        del suite["ablation"], suite["gradients"]
        suite["compute"]["checkpoint_minutes"] = 1e-4

    edit_suite(folder, long)
    run_folder = folder / "results/tiny/runs/bluemarble/msgunet/seed0"
    target = "results/tiny/runs/bluemarble/msgunet/seed0/generator.safetensors"
    earlier = (folder / target).read_bytes()
    shutil.rmtree(run_folder / "checkpoints")
    plan = subprocess.run([sys.executable, "-m", "msgunet", "plan", "tiny"], cwd=folder, capture_output=True, text=True)
    changes = "trained before with other settings (training.batch_size 8 → 4, training.epochs 1 → 10): begins at step 0"
    assert changes in " ".join(plan.stdout.split())
    command = [sys.executable, "-m", "snakemake", *TINY, "--", target]
    process = subprocess.Popen(
        command, cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while not (found := newest(run_folder)) or found < 5:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert changes in process.stdout.read()
    assert (folder / target).read_bytes() == earlier
    step = newest(run_folder)
    run = snakemake(folder, *TINY, "--", target)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (folder / target).read_bytes() != earlier
    resumed = re.search(r"resuming from step (\d+)", run.stdout + run.stderr)
    assert resumed is not None
    assert int(resumed[1]) >= step - 1 > 0


def test_a_second_snakemake_is_refused(copied):
    hold = (
        "import filelock, sys, time; l = filelock.FileLock('.snakemake/benchmark.lock'); l.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=copied, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "held"
    (copied / "results/tiny/report/index.html").unlink()
    run = snakemake(copied, *TINY)
    holder.kill()
    holder.wait()
    assert run.returncode != 0
    assert "another Snakemake is running in this folder" in run.stdout + run.stderr
    assert not (copied / "results/tiny/report/index.html").exists()
    assert snakemake(copied, *TINY).returncode == 0


def test_the_papers_dag_is_quick_and_missing_files_are_reported_before_any_work(tmp_path):
    folder = copy_checkout(tmp_path / "checkout")
    # CPU time, so that other work on the machine does not count.
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = snakemake(folder, "-n", "--cores", "2")
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    assert run.returncode == 0, run.stdout + run.stderr
    found = jobs(run.stdout + run.stderr)
    assert (found["prepare"], found["train"], found["evaluate"]) == (3, 19, 19)
    assert seconds < 5 * float(os.environ.get("SLOW_MACHINE", "1"))
    assert found["fetch"] == 6, "five archives and VGG-19"
    account = {"CITYSCAPES_CREDENTIALS": "/nonexistent"}
    downloaded = snakemake(folder, "--cores", "2", env={**os.environ, **account})
    edit_suite(folder, lambda suite: suite.update(data={"mirror": "elsewhere"}), "paper")
    mirrored = snakemake(folder, "--cores", "2")
    for run, parts in (
        (downloaded, ("cityscapes: gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip need an account",)),
        (mirrored, ("cityscapes: gtFine_trainvaltest.zip", "nyu: splits.mat", "maps: maps.tar.gz is not in elsewhere")),
    ):
        assert run.returncode != 0
        for part in (*parts, "suite=demo"):
            assert part in run.stdout + run.stderr
        assert "Finished job" not in run.stdout + run.stderr
    assert not list((folder / "data").rglob("manifest.csv"))
    assert not (folder / "data" / "archives").exists()


@pytest.mark.parametrize(
    ("config", "expected"),
    [("suite=demmo", "did you mean 'demo'?"), ("siute=demo", "did you mean 'suite'?"), ("suite=../x", "has only a-z")],
)
def test_a_wrong_suite_is_named(finished, config, expected):
    run = snakemake(finished, "-n", "--config", config)
    assert run.returncode != 0
    assert expected in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
