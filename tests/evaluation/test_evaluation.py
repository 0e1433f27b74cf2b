"""Metrics against independent implementations, protocols, the ablation, and cost."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NARROW, ROOT, TRAINABLE, make_image, make_settings, method_class, write_run
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from msgunet.core.settings import EvaluationSettings, Network, NetworkList
from msgunet.cost.count import cost, counts
from msgunet.data.manifest import read_manifest
from msgunet.evaluation.ablation import ablate, reduced_pyramid
from msgunet.evaluation.evaluate import evaluate
from msgunet.evaluation.metrics import measure
from msgunet.report.costs import complexity_notes
from msgunet.suite.plan import load_plan
from msgunet.training.loop import train


def noisy(image: Image.Image, seed: int = 0, sigma: float = 12) -> Image.Image:
    array = np.asarray(image, float)
    noise = np.random.default_rng(seed).normal(0, sigma, array.shape)
    return Image.fromarray((array + noise).round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [(48, 48), (256, 256), (640, 320), (1024, 512)])
def test_psnr_and_ssim_agree_with_scikit_image_at_every_size(size):
    target = make_image(1, *size)
    output = noisy(target)
    ours = measure(output, target)
    a, b = np.asarray(target), np.asarray(output)
    assert ours["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)
    independent = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1, data_range=255
    )
    assert ours["ssim"] == pytest.approx(independent, abs=1e-3)


def vif_by_definition(target: np.ndarray, output: np.ndarray) -> float:
    """Pixel-domain VIF (Sheikh and Bovik 2006, the authors' vifp), implemented from its formulas, on luma."""
    from scipy.ndimage import convolve

    luma = np.array([0.299, 0.587, 0.114])
    x, y = target @ luma, output @ luma
    above = below = 0.0
    for scale in range(4):
        n = 2 ** (4 - scale) + 1
        axis = np.arange(n) - n // 2
        window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (n / 5) ** 2))
        window /= window.sum()

        def mean(image, window=window, n=n):
            return convolve(image, window)[n // 2 : image.shape[0] - n // 2, n // 2 : image.shape[1] - n // 2]

        if scale:
            x, y = mean(x)[::2, ::2], mean(y)[::2, ::2]
        mx, my = mean(x), mean(y)
        vx, vy = (np.maximum(mean(i * i) - m * m, 0) for i, m in ((x, mx), (y, my)))
        cov = mean(x * y) - mx * my
        gain = cov / (vx + 1e-10)
        noise = vy - gain * cov
        gain, noise = np.where(vx < 1e-10, 0, gain), np.where(vx < 1e-10, vy, noise)
        vx = np.where(vx < 1e-10, 0, vx)
        noise, gain = np.where(gain < 0, vy, noise), np.maximum(gain, 0)
        noise = np.maximum(noise, 1e-10)
        above += np.log10(1 + gain**2 * vx / (noise + 2)).sum()
        below += np.log10(1 + vx / 2).sum()
    return above / below


def test_vif_agrees_with_its_definition_and_is_not_symmetric():
    target = make_image(2, 128, 96)
    output = noisy(target)
    ours = measure(output, target)["vif"]
    # piq's luma and its noise variance on [0, 1] images differ from the definition's in the last digits.
    assert ours == pytest.approx(vif_by_definition(np.asarray(target, float), np.asarray(output, float)), abs=5e-3)
    assert abs(measure(target, output)["vif"] - ours) > 0.01, "not symmetric"


@pytest.mark.parametrize(
    ("case", "expected"),
    [("identical", (100, 1, 1)), ("constant", None), ("small", None), ("black and white", None)],
)
def test_metrics_are_finite_or_empty_with_a_reason(case, expected):
    size = (8, 30) if case == "small" else (64, 64)
    target = make_image(0, *size)
    output = target
    if case == "constant":
        target = output = Image.new("RGB", size, (10, 20, 30))
    if case == "black and white":
        target, output = Image.new("RGB", size), Image.new("RGB", size, (255, 255, 255))
    row = measure(output, target)
    json.loads(json.dumps(row, allow_nan=False))
    for name in ("psnr", "ssim", "vif"):
        assert row[name] is not None or name in row["note"]
    if expected:
        assert tuple(row[n] for n in ("psnr", "ssim", "vif")) == pytest.approx(expected, abs=1e-3)
    if case == "small":
        assert row["ssim"] is None
        assert "ssim: smaller than 11 pixels" in row["note"]


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


def test_images_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="the output has shape"):
        measure(make_image(0, 16, 16), make_image(0, 16, 32))


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
