"""The requirements of jobs, and the forecast of `msgunet plan`."""

import dataclasses

import pandas as pd
import pytest
import torch
from conftest import ROOT

from msgunet.cli.main import main
from msgunet.core.settings import ComputeSettings
from msgunet.methods.registry import build_method
from msgunet.suite import forecast, jobs
from msgunet.suite.plan import load_plan
from msgunet.training.memory import step_needs


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Make plans of suites in an empty folder, without prepared data sets."""
    monkeypatch.chdir(tmp_path)

    def make(name="paper", old="", new=""):
        load_plan.cache_clear()
        path = tmp_path / f"{name}.yaml"
        text = (ROOT / "config" / f"{name}.yaml").read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return load_plan(str(path))

    yield make
    load_plan.cache_clear()


def run_of(plan, entry, dataset):
    return next(run for run in plan.runs if (run.settings.entry, run.settings.dataset) == (entry, dataset))


@pytest.mark.parametrize(
    ("entry", "dataset"),
    [("pix2pix", "maps"), ("pan", "maps"), ("pix2pixhd_global", "cityscapes"), ("msgunet", "nyu")],
)
def test_requests_are_more_than_the_counts(plan, entry, dataset):
    """A request covers the memory of a step on a CPU, and its operations at the assumed speed."""
    paper = plan("paper", "gpu_required: true", "job_hours: 1000000")
    run = run_of(paper, entry, dataset)
    method = build_method(run.settings)
    [phase] = method.phases(run.settings.training)
    needs = step_needs(method, run.settings, phase, ComputeSettings())
    requested = jobs.training(paper, run)
    assert needs.memory / 1e6 < requested.mem_mb < 1.5 * needs.memory / 1e6 + 8000
    assert requested.gpu == 0
    hours = needs.flop * phase.length * jobs.pairs(paper, run)[0] / (4e10 * 4) / 3600
    assert hours < requested.runtime / 60 < 8 * hours


def test_requests_grow_with_the_attempt_up_to_the_limits(plan):
    paper = plan()
    run = run_of(paper, "msgunet", "cityscapes")
    first, second, tenth = (jobs.training(paper, run, attempt) for attempt in (1, 2, 10))
    assert first.gpu == 1
    assert first.runtime == tenth.runtime == 24 * 60
    assert first.mem_mb < second.mem_mb < tenth.mem_mb == 2 * first.mem_mb
    evaluations = [jobs.evaluation(paper, run, attempt) for attempt in (1, 2)]
    assert evaluations[1].runtime == pytest.approx(2 * evaluations[0].runtime, abs=1)
    assert jobs.cost(paper).gpu == 1
    reference = run_of(paper, "mean", "cityscapes")
    assert jobs.training(paper, reference).gpu == jobs.evaluation(paper, reference).gpu == 0
    without = dataclasses.replace(paper, networks=paper.networks.model_copy(update={"networks": ()}))
    assert jobs.cost(without).gpu == 0, "a suite of reference rows has no networks"
    compute = paper.suite.compute.model_copy(update={"processes": 2})
    team = dataclasses.replace(paper, suite=paper.suite.model_copy(update={"compute": compute}))
    requested = jobs.training(team, run)
    assert (requested.gpu, requested.mem_mb) == (2, 2 * first.mem_mb)


@pytest.mark.parametrize(("dataset", "count"), [("cityscapes", 2975), ("nyu", 795), ("maps", 1096)])
def test_pairs_are_known_before_they_are_prepared(plan, dataset, count):
    paper = plan()
    assert jobs.pairs(paper, run_of(paper, "msgunet", dataset))[0] == count


def table(text: str) -> pd.DataFrame:
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return pd.DataFrame(cells[2:], columns=cells[0])


def test_plan_counts_steps_and_time(plan, capsys, tmp_path):
    plan("demo")
    main(["plan", str(tmp_path / "demo.yaml"), "--rate", "0.001"])
    output = capsys.readouterr().out
    planned = table(output).set_index("Training")
    assert planned.loc["MSG U-Net", "Pairs"] == "256"
    assert planned.loc["MSG U-Net", "Steps"] == "768"
    hours = 768 * float(planned.loc["MSG U-Net", "TFLOP a step"]) / 0.001 / 3600
    assert planned.loc["MSG U-Net", "Time"] == f"{hours:.1f} h"
    assert "17 (preparations 1, trainings 6, evaluations 6, ablations 1, gradient trainings 2, cost 1)" in output
    assert "at 0.001 TFLOP/s" in output


def test_time_limited_trainings_take_their_minutes(plan, capsys, tmp_path):
    made = plan("maps_minutes")
    run = run_of(made, "msgunet", "maps")
    assert jobs.pairs(made, run) == (274, 69), "of the 1096 available pairs"
    assert jobs.training(made, run).runtime == 20 + 5
    main(["plan", str(tmp_path / "maps_minutes.yaml"), "--rate", "30"])
    output = capsys.readouterr().out
    planned = table(output).set_index("Training")
    assert set(planned["Time"]) == {"300 s"}
    steps = int(planned.loc["MSG U-Net", "Steps"].replace(",", ""))
    assert steps == pytest.approx(30 * 300 / float(planned.loc["MSG U-Net", "TFLOP a step"]), rel=0.01)
    assert int(planned.loc["MSG U-Net", "Epochs"]) == round(steps / 274)
    assert "all trainings: 20 min of device time" in output
    plan("maps_minutes", "minutes: 5", "minutes: 0.0001")
    assert main(["plan", str(tmp_path / "maps_minutes.yaml"), "--rate", "0.5"]) == 0, "less than a step"


def speed(path, **changes):
    row = {
        **{"entry": "msgunet", "width": 128, "height": 128, "part": "training", "way": "engine", "precision": "fp32"},
        **{"tflop_per_s": 0.5, "device": "A card", "device_type": "cuda", "threads": 1, "commit": "abc"},
    }
    pd.DataFrame([row, {**row, "width": 2048, "height": 1024, "tflop_per_s": 2.0}]).assign(**changes).to_csv(path)
    return str(path)


def test_plan_uses_measured_speeds_and_marks_missing_ones(plan, capsys, tmp_path):
    plan("demo")
    main(["plan", str(tmp_path / "demo.yaml"), "--speed", speed(tmp_path / "speed.csv")])
    output = capsys.readouterr().out
    reached = table(output).set_index("Training")["TFLOP/s"]
    assert reached["MSG U-Net"] == "0.5"
    assert reached["Pix2Pix"] == "0.5*"
    assert "measured on A card at commit abc" in output
    assert "of GPU time" in output


def test_plan_prefers_the_speeds_in_the_suites_results(plan, capsys, tmp_path, monkeypatch):
    """Those that bench or new-suite measured; a table of bench without training steps is none."""
    made, path = plan("demo"), str(tmp_path / "demo.yaml")
    monkeypatch.setattr(forecast, "cpu_name", lambda: "This processor")
    results = tmp_path / made.results
    results.mkdir(parents=True)
    here = {"device": "This processor", "device_type": "cpu"}

    def origin() -> str:
        assert main(["plan", path]) == 0
        return capsys.readouterr().out

    fallback = origin()
    assert "measured on AMD EPYC" in fallback
    advice = "this machine is not AMD EPYC but This processor; to time its steps: msgunet bench"
    assert f"{advice} {path} --part training" in fallback
    speed(results / forecast.STEPS_FILE, **here, commit="new")
    speed(results / "speed.csv", **here, part="inference")
    assert "measured on This processor, 1 CPU thread at commit new" in (found := origin())
    assert "this machine is not" not in found
    speed(results / "speed.csv", **here, commit="bench")
    assert "measured on This processor, 1 CPU thread at commit bench" in origin()
    speed(results / "speed.csv", device="A card", device_type="cuda")
    assert "this machine is not" not in origin(), "nothing is known of this machine's GPU without torch"


@pytest.mark.parametrize(
    ("wanted", "measured", "expected"),
    [
        ("bf16", "fp32", "† not measured in bf16: the speed in fp32, which is a lower estimate if the device computes"),
        ("tf32", "fp32", "† not measured in tf32: the speed in fp32, which is a lower estimate if the device computes"),
        ("fp32", "bf16", "† not measured in fp32: the speed in bf16, which fp32 hardly reaches"),
    ],
)
def test_plan_estimates_a_precision_that_was_not_measured(plan, capsys, tmp_path, wanted, measured, expected):
    plan("demo", "perceptual: {weights", f"training: {{precision: {wanted}}}\nperceptual: {{weights")
    path = speed(tmp_path / "speed.csv", precision=measured)
    assert main(["plan", str(tmp_path / "demo.yaml"), "--speed", path]) == 0
    output = capsys.readouterr().out
    reached = table(output).set_index("Training")["TFLOP/s"]
    assert reached["MSG U-Net"] == "0.5†"
    assert reached["Pix2Pix"] == "0.5*†"
    assert f"- {expected}" in output
    assert f"measured on A card at commit abc ({measured})" in output


def test_plan_uses_the_projects_measurements_in_each_precision(plan, capsys, tmp_path):
    """Each comes from the device on which it was measured, and the note names every device that is used."""
    first, second = (
        pd.read_csv(ROOT / "results" / "measured" / name).query("part == 'training' and way == 'engine'")
        for name in ("cpu_speed.csv", "cpu_bf16_speed.csv")
    )
    origins = [
        f"AMD EPYC, 2 CPU threads at commit {frame['commit'].iloc[0]} ({precision})"
        for frame, precision in ((first, "fp32"), (second, "bf16"))
    ]
    for precision, frame, origin in (("fp32", first, origins[0]), ("bf16", second, origins[1])):
        plan("demo", "perceptual: {weights", f"training: {{precision: {precision}}}\nperceptual: {{weights")
        assert main(["plan", str(tmp_path / "demo.yaml")]) == 0
        output = capsys.readouterr().out
        rate = frame.loc[frame["precision"] == precision, "tflop_per_s"].iloc[0]
        assert table(output).set_index("Training").loc["MSG U-Net", "TFLOP/s"] == f"{rate:.3g}*"
        assert f"measured on {origin}; for another device" in output
    plan("demo", "batch_size: 2", "batch_size: 2, precision: bf16")
    assert main(["plan", str(tmp_path / "demo.yaml")]) == 0
    assert f"measured on {' and '.join(origins)}; for another device" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"part": "inference"}, "has no training step"),
        ({"way": None}, "has no training step"),
    ],
)
def test_plan_refuses_useless_speeds(plan, capsys, tmp_path, changes, expected):
    plan("demo")
    path = speed(tmp_path / "speed.csv", **changes)
    assert main(["plan", str(tmp_path / "demo.yaml"), "--speed", path]) == 2
    assert expected in capsys.readouterr().err
    assert main(["plan", str(tmp_path / "demo.yaml"), "--speed", "elsewhere.csv"]) == 2
    assert "elsewhere.csv: not a table written by 'msgunet bench'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "demo", "--rate", "0"])


def test_longest_trainings_first_on_several_gpus():
    assert forecast._parallel_hours([5, 4, 3, 3, 3], 2) == 10
    assert forecast._parallel_hours([5, 4, 3, 3, 3], 16) == 5
    assert forecast._parallel_hours([], 4) == 0


def test_check_for_a_cluster_needs_no_gpu_here(plan, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CITYSCAPES_CREDENTIALS", "/nonexistent")
    plan("paper", "disk_gb: 200", "disk_gb: 0")
    path = str(tmp_path / "paper.yaml")
    if not torch.cuda.is_available():
        assert main(["check", path]) == 2
        assert "a CUDA GPU: torch finds none" in capsys.readouterr().err
    assert main(["check", path, "--cluster"]) == 2
    errors = capsys.readouterr().err
    assert "CUDA" not in errors
    assert "cityscapes" in errors
