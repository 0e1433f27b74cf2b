"""Metrics against independent implementations, protocols, the ablation, and cost."""

import csv
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NARROW, ROOT, TRAINABLE, make_image, make_settings, method_class, write_run
from PIL import Image

from msgunet.core.settings import EvaluationSettings, Network, NetworkList
from msgunet.cost.count import cost, counts
from msgunet.data.manifest import read_manifest
from msgunet.evaluation.ablation import ablate, reduced_pyramid
from msgunet.evaluation.evaluate import evaluate
from msgunet.evaluation.metrics import measure
from msgunet.report.costs import complexity_notes
from msgunet.suite.plan import load_plan
from msgunet.training.loop import train


def test_vif_is_undefined_for_a_constant_target(tmp_path, data, compute):
    """The other metrics are defined; without a reason, VIF would be 1 for every output."""
    blank = Image.new("RGB", (64, 64), (10, 20, 30))
    row = measure(make_image(0, 64, 64), blank)
    assert (row["vif"], row["note"]) == (None, "vif: constant target")
    assert 0 < row["ssim"] < 0.9
    assert measure(blank, make_image(0, 64, 64))["vif"] is not None, "a constant output is judged"
    blank.save(data / "test" / "p06.target.png")
    run, generator = trained(tmp_path / "run", make_settings(data, "copy"), compute)
    evaluate(run, generator, tmp_path / "run", EvaluationSettings(), compute, None)
    frame = pd.read_csv(tmp_path / "run" / "metrics.csv")
    of_blank = frame["id"] == "p06"
    assert set(frame.loc[of_blank, "protocol"]) == {"native", "full"}
    assert set(frame.loc[of_blank, "note"]) == {"vif: constant target"}
    assert frame["vif"].isna().equals(of_blank)
    assert frame[["psnr", "ssim"]].notna().all(axis=None)


def read(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def trained(folder, settings, compute):
    run = write_run(folder, settings)
    train(run, folder, compute, folder)
    return run, folder / "generator.safetensors"


def test_copy_gets_the_metrics_of_its_source(tmp_path, data, compute):
    run, generator = trained(tmp_path / "run", make_settings(data, "copy", size=(32, 32)), compute)
    evaluate(run, generator, tmp_path / "run", EvaluationSettings(), compute, None)
    rows = read(tmp_path / "run" / "metrics.csv")
    pairs = read_manifest(data / "manifest.csv", "test")
    assert len(rows) == 2 * len(pairs)
    assert {(r["protocol"], r["width"], r["height"]) for r in rows} == {("native", "32", "32"), ("full", "64", "64")}
    pair = pairs[0]
    source, target = (Image.open(data / p) for p in (pair.source, pair.target))
    small = [i.resize((32, 32), Image.Resampling.LANCZOS) for i in (source, target)]
    by_protocol = {r["protocol"]: r for r in rows if r["id"] == pair.id}
    assert float(by_protocol["native"]["psnr"]) == pytest.approx(measure(*small)["psnr"], abs=1e-4)
    resized = small[0].resize((64, 64), Image.Resampling.BICUBIC)
    assert float(by_protocol["full"]["psnr"]) == pytest.approx(measure(resized, target)["psnr"], abs=1e-4)
    with Image.open(tmp_path / "run" / "predictions" / f"{pair.id}.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(small[0]))


def test_equal_images_are_measured_once(tmp_path, data, compute, monkeypatch):
    module, calls = sys.modules[evaluate.__module__], []
    monkeypatch.setattr(module, "measure", lambda *a: calls.append(a) or measure(*a))
    run, generator = trained(tmp_path / "run", make_settings(data, "copy"), compute)
    evaluate(run, generator, tmp_path / "run", EvaluationSettings(), compute, None)
    rows = read(tmp_path / "run" / "metrics.csv")
    assert len(rows) == 2 * len(calls) == 2 * len(read_manifest(data / "manifest.csv", "test"))
    first, second = ({k: v for k, v in row.items() if k != "protocol"} for row in rows[:2])
    assert first == second


def test_evaluating_twice_gives_the_same_although_dropout_stays_on(tmp_path, data, compute):
    run, generator = trained(tmp_path / "run", make_settings(data, "pix2pix", options={"downsamplings": 6}), compute)
    found = []
    for name in "ab":
        torch.rand(3)
        evaluate(run, generator, tmp_path / name, EvaluationSettings(metrics=("psnr",)), compute, None)
        found.append((tmp_path / name / "metrics.csv").read_text())
    assert found[0] == found[1]


def test_ablation_has_every_cell_and_its_first_column_is_the_plain_result(tmp_path, data, compute):
    run, generator = trained(tmp_path / "run", make_settings(data), compute)
    ablate(run, generator, tmp_path / "ablation.csv", compute, None)
    rows = read(tmp_path / "ablation.csv")
    cells = {(r["input_width"], r["output_width"]) for r in rows}
    assert cells == {("64", "64"), ("64", "32"), ("32", "64"), ("32", "32")}
    evaluate(run, generator, tmp_path / "run", EvaluationSettings(metrics=("ssim",)), compute, None)
    plain = {r["id"]: r["ssim"] for r in read(tmp_path / "run" / "metrics.csv") if r["protocol"] == "native"}
    full = {r["id"]: r["ssim"] for r in rows if (r["input_width"], r["output_width"]) == ("64", "64")}
    assert {k: float(v) for k, v in full.items()} == pytest.approx({k: float(v) for k, v in plain.items()}, abs=1e-6)


def test_a_reduced_source_holds_nothing_finer_than_its_scale():
    source = torch.rand(1, 3, 32, 32)
    levels = reduced_pyramid(source, 3, 2, "photo")
    again = reduced_pyramid(
        torch.nn.functional.avg_pool2d(source, 4).repeat_interleave(4, 2).repeat_interleave(4, 3), 3, 2, "photo"
    )
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(levels, again, strict=True))
    assert [level.shape[-1] for level in levels] == [32, 16, 8]


def describe(name, size, **options):
    settings = make_settings("unused", name, size)
    values = method_class(name).Options.model_validate(options).model_dump(mode="json")
    identity = settings.model_dump(include={"method", "file", "code"})
    return Network(entry=name, part="generator", size=size, options=values, used=True, **identity)


KNOWN_SKIPPED = {
    "add",
    "add_",
    "avg_pool2d",
    "leaky_relu",
    "leaky_relu_",
    "tanh",
    "pad",
    "reflection_pad2d",
    "instance_norm",
    "ones",
    "dropout",
}
# These convert colours to classes and scale each pixel.
SKIPPED_IN_SPADE = {"argmin", "square", "sub", "sum", "mul", "__rshift__"}


@pytest.mark.parametrize("name", TRAINABLE)
def test_both_counters_agree_and_fvcore_skips_nothing_new(name):
    row = counts(describe(name, (256, 128), **NARROW.get(name, {})))
    assert row["gmac_fvcore"] == pytest.approx(row["gmac"], rel=1e-3)
    assert row["tflop"] == 2 * row["gmac"] / 1000 > 0
    assert set(row["fvcore_skipped"].split()) <= KNOWN_SKIPPED | (SKIPPED_IN_SPADE if name == "spade" else set())


@pytest.mark.parametrize(
    ("entry", "part", "size", "parameters", "gmac"),
    [
        ("pix2pix", "discriminator", (256, 256), 2_768_705, 3.197),
        ("pix2pixhd", "discriminator", (512, 512), 5_535_618, 17.635),
        ("pix2pixhd", "discriminator", (2048, 1024), 8_303_427, 143.279),
        ("pix2pixhd", "generator", (2048, 1024), 182_701_827, 585.156),
        ("pix2pixhd_global", "generator", (2048, 1024), 45_593_347, 1662.958),
        ("msgunet", "generator", (2048, 1024), 57_875_279, 638.751),
        ("msgunet", "generator", (512, 512), 57_672_140, 159.405),
        ("vgg19", "perceptual", (2048, 1024), 20_024_384, 815.373),
    ],
)
def test_the_paper_suites_cost_table_has_the_published_counts(entry, part, size, parameters, gmac, monkeypatch):
    monkeypatch.setattr("msgunet.cost.count._fvcore_gmac", lambda _: (0.0, ""))
    networks = load_plan("paper").networks.networks
    network = next(n for n in networks if (n.entry, n.part, n.size) == (entry, part, size))
    row = counts(network)
    assert row["parameters"] == parameters
    assert row["gmac"] == pytest.approx(gmac, rel=1e-3)


def test_the_papers_operations_come_out():
    ours = counts(describe("msgunet", (2048, 1024)))
    assert ours["tflop"] == pytest.approx(1.28, abs=0.005)
    theirs = counts(describe("pix2pixhd", (2048, 1024), downsamplings=3, generator="global"))
    assert theirs["tflop"] == pytest.approx(3.33, abs=0.005)


def test_the_paper_suites_counts_take_less_than_a_minute_and_explain_the_figures(tmp_path):
    out = tmp_path / "cost.csv"
    code = (
        "import sys; from msgunet.cli.main import main; from msgunet.device.measuring import memory_mib; "
        "status = main(sys.argv[1:]); print('MiB', memory_mib('VmHWM')); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "cost", "--suite", "paper", "--counts-only", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout.split()[-1]) < 4096, "a laptop's memory"
    paper = {r["entry"]: float(r["paper_tflop"]) for r in read(out) if r["paper_tflop"]}
    assert paper == {"msgunet": 1.28, "pix2pixhd_global": 3.32}
    assert "Its 1.28 TFLOP for MSG U-Net correspond to our 1.28" in done.stdout
    assert "global generator with three downsamplings, our 3.33" in done.stdout
    assert "Pix2Pix-HD needs 1.17 TFLOP" in done.stdout
    assert "Measured at 2048×1024" in done.stdout
    assert "latency_ms" not in read(out)[0]


def test_a_suite_of_trivial_rows_has_no_cost(tmp_path, compute):
    cost(NetworkList(networks=[]), tmp_path / "cost.csv", compute, counts_only=True)
    assert read(tmp_path / "cost.csv") == []


def test_other_networks_do_not_get_the_papers_figures(tmp_path, compute, monkeypatch):
    monkeypatch.setattr("msgunet.cost.count._fvcore_gmac", lambda _: (0.0, ""))
    networks = [describe("msgunet", (2048, 1024), width=0.5), describe("pix2pixhd", (2048, 1024), generator="global")]
    cost(NetworkList(networks=networks), tmp_path / "cost.csv", compute, counts_only=True)
    frame = pd.read_csv(tmp_path / "cost.csv")
    assert frame["paper_tflop"].isna().all()
    assert complexity_notes(frame) == []


def test_cost_times_and_weighs(tmp_path, compute):
    networks = [describe("msgunet", (64, 64), width=0.25), describe("pix2pix", (64, 64), width=0.0625)]
    cost(NetworkList(repeats=3, warmup=1, networks=networks), tmp_path / "cost.csv", compute)
    rows = read(tmp_path / "cost.csv")
    assert float(rows[0]["latency_q25_ms"]) <= float(rows[0]["latency_ms"]) <= float(rows[0]["latency_q75_ms"])
    assert float(rows[0]["latency_ms"]) > float(rows[1]["latency_ms"]) > 0
    assert float(rows[0]["peak_memory_mib"]) > 4 * int(rows[0]["parameters"]) / 2**20, "at least its weights"
    assert rows[0]["device"]
    assert "torch=" in rows[0]["versions"]
