"""All metrics from evaluation to figures, with random weights in the place of the published ones."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_data
from made import make_plan
from random_weights import write_weights

from msgunet.cli.main import main
from msgunet.core.files import read_settings
from msgunet.core.settings import EvaluationSettings, MachineSettings
from msgunet.evaluation.evaluate import evaluate
from msgunet.report.collect import Collection
from msgunet.report.figures import write_figures
from msgunet.report.model_card import _metrics
from msgunet.report.tables import build_tables
from msgunet.training import loop

NARROW = {"width": 0.0625, "discriminator_width": 0.0625, "downsamplings": 5}
WANTED = ["psnr", "ssim", "vif", "ms_ssim", "lpips", "dists"]


@pytest.fixture
def plan(working_folder, monkeypatch):
    """A suite with one narrow training, evaluated on two images of 192×192."""
    plan = make_plan(
        working_folder,
        (192, 192),
        methods={"pix2pix": {"options": NARROW}},
        evaluation={"metrics": WANTED},
        training={"epochs": 1, "decay_epochs": 0},
        compute={"device": "cpu"},
        data=write_weights(working_folder / "weights", monkeypatch),
        ablation={},
        description="all metrics",
    )
    make_data(plan.data[0].folder, 192, 192, train=1, test=2)
    machine = read_settings(plan.results / "settings" / "compute.json", MachineSettings)
    wanted = read_settings(plan.results / "settings" / "evaluation.json", EvaluationSettings)
    for run in plan.runs:
        loop.train(run.folder / "run.json", run.folder, machine, Path("unused"))
        generator = run.folder / "generator.safetensors"
        evaluate(run.folder / "run.json", generator, run.folder, wanted, machine, None, 1, machine)
    return plan


def test_all_metrics_from_evaluation_to_figures(plan, capsys):
    settings = plan.results / "settings" / "report.json"
    run = plan.runs[0]
    rows = pd.read_csv(run.folder / "metrics.csv")
    assert rows[WANTED].notna().all(axis=None)
    assert (rows[["lpips", "dists"]] > 0).all(axis=None)
    assert json.loads((run.folder / "evaluation.json").read_text())["metrics_version"] == 2
    assert main(["tables", "--settings", str(settings), "--results", str(plan.results)]) == 0
    text = (plan.results / "tables" / "table1_bluemarble_native.md").read_text()
    heading = next(line for line in text.splitlines() if line.startswith("| Method"))
    expected = ["PSNR (dB) ↑", "SSIM ↑", "VIF ↑", "MS-SSIM ↑", "LPIPS ↓", "DISTS ↓"]
    assert [column.strip() for column in heading.split("|")][3:-1] == expected
    written = pd.read_csv(plan.results / "tables" / "table1.csv").set_index(["entry", "protocol"])
    assert written.loc[(run.settings.entry, "native"), "lpips"] == pytest.approx(rows["lpips"].mean(), rel=1e-6)
    figures = {figure["name"] for figure in write_figures(settings, plan.results)}
    assert "distributions_bluemarble" in figures
    assert build_tables(Collection(settings, plan.results)).frames["table1"]["dists"].notna().all()
    assert "| protocol | PSNR ↑ | SSIM ↑ | VIF ↑ | MS-SSIM ↑ | LPIPS ↓ | DISTS ↓ |" in _metrics(
        run.folder, run.settings
    )
    capsys.readouterr()
    assert main(["explain", "made.yaml", "pix2pix", "dists", "p01"]) == 0
    assert "DISTS, lower is better: 1 − the weighted sum" in capsys.readouterr().out
    # Values that another device would give, and one that none would.
    for change, agree in ((5e-5, True), (5e-4, False)):
        changed = rows.assign(lpips=rows["lpips"] + change)
        changed.to_csv(run.folder / "metrics.csv", index=False)
        assert main(["verify", "made.yaml"]) == 2, "the checksum differs"
        output = capsys.readouterr()
        assert ("4 of 4 rows agree" in output.out.splitlines()[0]) == agree
        assert ("LPIPS is" in output.err) != agree
    _missing_weights_stop_everything(plan, capsys)


def _missing_weights_stop_everything(plan, capsys):
    (plan.results.parent.parent / "weights" / "vgg16-397923af.pth").unlink()
    run = plan.runs[0]
    (run.folder / "metrics.csv").unlink()
    arguments = ["--run", run.folder / "run.json", "--generator", run.folder / "generator.safetensors"]
    arguments += ["--settings", plan.results / "settings/evaluation.json", "--out", run.folder]
    arguments += ["--compute", plan.results / "settings/compute.json"]
    for command in (["evaluate", *map(str, arguments)], ["verify", "made.yaml"], ["check", "made.yaml"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("vgg16-397923af.pth, which does not exist") == 1
    assert not (run.folder / "metrics.csv").exists()
