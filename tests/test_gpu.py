"""A GPU computes what a CPU computes. Without a GPU, the CPU replaces it for one method, so that these tests run."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, TRAINABLE, make_data, make_image, make_settings, train
from safetensors.torch import load_file

import msgunet
from msgunet.cli.main import main
from msgunet.core.errors import InterruptedTraining
from msgunet.core.settings import ComputeSettings, EvaluationSettings, ImageFormat, TrainingSettings
from msgunet.data.pairs import pyramid, to_pixels
from msgunet.evaluation.evaluate import evaluate
from msgunet.evaluation.metrics import measure
from msgunet.methods import cudnn_graphs
from msgunet.methods.conv_act import layer_of
from msgunet.methods.generator import load_generator, save_generator
from msgunet.methods.registry import build_method
from msgunet.training import loop
from msgunet.training.memory import step_needs

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
EVERY = [("msgunet", "cpu"), *(pytest.param(name, "cuda", marks=GPU) for name in TRAINABLE)]
# Grey levels that tf32 and bf16 may differ by, on average and at most. SPADE normalises its activations in every block,
# which magnifies rounding: 0.83 on average on an H100 in bf16.
ROUGH = {"spade": (1.5, 24)}


# Relative differences between the trainings of a GPU and a CPU in fp32: losses and norms of gradients in the first
# step, then in all steps. On an H100, the losses of the first step agreed and its norms differed by up to 1.5 %; the
# norms of steps 12 to 14 by up to 18 % (with the enhancer). Later steps diverge, since Adam turns a tiny gradient into
# a full step. SPADE's do most: on a CPU, the memory layout alone changes its later losses by 22 %. Three times that.
FP32 = {"spade": (1e-3, 0.05, 0.66, 0.35)}
# The same for the first step in tf32 and bf16, three times what bf16 changes on a CPU: losses by 0.03 % (Pix2Pix) to
# 0.7 %, norms by 0.3 % to 6 % (Pix2Pix-HD, whose instance norms magnify rounding).
LOWER = {
    "msgunet": (0.012, 0.06),
    "pan": (0.003, 0.06),
    "pix2pix": (0.003, 0.05),
    "pix2pixhd": (0.005, 0.17),
    "pix2pixhd_local": (0.02, 0.05),
    "spade": (0.02, 0.05),
}


@pytest.fixture
def no_dropout(monkeypatch):
    """Disable dropout, because devices draw different random numbers."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, x: x)


def on(device: str, compute: ComputeSettings) -> ComputeSettings:
    return compute.model_copy(update={"device": device})


def precisions(device: str) -> list[str]:
    return ["fp32", "bf16", *(["tf32"] if device == "cuda" else [])]


@pytest.mark.parametrize(("name", "device"), EVERY)
def test_outputs_and_metrics_equal_those_of_the_cpu(tmp_path, trained_runs, compute, no_dropout, name, device):
    """fp32 agrees up to rounding; tf32 and bf16 differ by less than half a grey level on average (see `ROUGH`)."""
    path = trained_runs / name / "generator.safetensors"
    source = make_image(3, 96, 64)
    expected = np.asarray(msgunet.load(path, device="cpu").translate(source, name="p"), float)
    assert expected.std() > 10, "the generator is trained"
    for precision in precisions(device):
        actual = np.asarray(msgunet.load(path, device=device, precision=precision).translate(source, name="p"), float)
        difference = np.abs(actual - expected)
        mean, most = (0.02, 1) if precision == "fp32" else ROUGH.get(name, (0.5, 12))
        assert difference.mean() < mean, precision
        assert difference.max() <= most, precision
    for where in ("cpu", device):
        run, out = trained_runs / name / "run.json", tmp_path / where
        evaluate(run, path, out, EvaluationSettings(), on(where, compute), None)
    first, second = (pd.read_csv(tmp_path / where / "metrics.csv") for where in ("cpu", device))
    columns = ["psnr", "ssim"]
    np.testing.assert_allclose(first[columns], second[columns], atol=0.01)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("values", [(0, 255), (100, 40000)])
def test_pixels_and_metrics_on_a_device_are_those_of_the_cpu(tmp_path, device, values):
    """Bytes are normalised, halved and rounded on the device: to the last bit as on a CPU. Metrics agree to 1e-9."""
    given = ImageFormat(range=values)
    settings = make_settings("unused", "msgunet", source_format=given, target_format=given)
    method, path = build_method(settings), tmp_path / "generator.safetensors"
    save_generator(path, method.published_state(method.build_generator().state_dict()), settings)
    draw = np.random.default_rng(0)
    target, output = (draw.integers(*values, (64, 64, 3), endpoint=True).astype(given.dtype) for _ in "to")
    expected, actual = (load_generator(path, where).sources(target) for where in ("cpu", device))
    for theirs, ours in zip(expected, actual, strict=True):
        assert ours.device.type == device
        assert torch.equal(ours.cpu(), theirs)
    numbers = torch.linspace(-1.1, 1.1, 30_000).reshape(3, 100, 100)
    assert np.array_equal(to_pixels(numbers.to(device), given), to_pixels(numbers, given))
    on_cpu, there = (measure(output, target, values=values, device=torch.device(d)) for d in ("cpu", device))
    assert there == pytest.approx(on_cpu, abs=1e-9)


@pytest.mark.parametrize(("name", "device"), EVERY)
def test_a_training_equals_that_of_the_cpu(tmp_path, data, compute, no_dropout, name, device):
    settings = make_settings(data, name, training=TrainingSettings(epochs=1, decay_epochs=1, batch_size=2, ema=0.9))
    histories = []
    for where in ("cpu", device):
        train(tmp_path / where, settings, on(where, compute))
        histories.append(pd.read_csv(tmp_path / where / "history.csv").drop(columns="seconds"))
    first, second = histories
    norms = ["gradient_generator", "gradient_discriminator"]
    losses = first.columns.drop(norms)
    tolerances = FP32.get(name, (1e-3, 0.05, 0.05, 0.3))
    np.testing.assert_allclose(first.loc[0, losses], second.loc[0, losses], rtol=tolerances[0], atol=1e-4)
    np.testing.assert_allclose(first.loc[0, norms], second.loc[0, norms], rtol=tolerances[1])
    np.testing.assert_allclose(first[losses], second[losses], rtol=tolerances[2], atol=0.01)
    np.testing.assert_allclose(first[norms], second[norms], rtol=tolerances[3])
    facts = json.loads((tmp_path / device / "training.json").read_text())
    assert facts["device_type"] == device
    assert facts["peak_memory_mib"] > 0
    for precision in precisions(device)[1:]:
        rough = settings.model_copy(update={"training": settings.training.model_copy(update={"precision": precision})})
        train(tmp_path / precision, rough, on(device, compute))
        history = pd.read_csv(tmp_path / precision / "history.csv").drop(columns="seconds")
        assert np.isfinite(history.to_numpy()).all()
        for columns, tolerance in zip((losses, norms), LOWER[name], strict=True):
            np.testing.assert_allclose(first.loc[0, columns], history.loc[0, columns], rtol=tolerance, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_stopped_training_resumes_to_the_same_result(tmp_path, data, compute, monkeypatch, device):
    settings = make_settings(data, training=TrainingSettings(epochs=2, decay_epochs=1, batch_size=2))
    train(tmp_path / "whole", settings, on(device, compute))
    done, step = [], loop.step

    def stopped(*arguments):
        done.append(1)
        if len(done) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(loop, "step", stopped)
    with pytest.raises(InterruptedTraining):
        train(tmp_path / "parts", settings, on(device, compute))
    train(tmp_path / "parts", settings, on(device, compute))
    whole, parts = (load_file(tmp_path / name / "generator.safetensors") for name in ("whole", "parts"))
    # A GPU sums in a different order each time, and Adam turns even a tiny gradient into a full step.
    worst = max((whole[key].float() - parts[key].float()).abs().mean().item() for key in whole)
    assert worst <= (0 if device == "cpu" else 1e-3)


@pytest.mark.parametrize(("name", "device"), EVERY)
def test_fused_layers_and_replayed_passes_are_near_to_fp32(trained_runs, no_dropout, capsys, name, device):
    """The largest error of a pixel, relative to the outputs' largest value, in every pass up to replayed ones."""
    path = trained_runs / name / "generator.safetensors"
    exact = load_generator(path, "cpu")
    method, settings = exact.method, exact.settings
    scales = method.scales(method.options, settings.size)
    # Rounding to 8 bits in each of some 20 layers. A wrongly padded or activated layer is off by much more.
    allowed = {"fp32": 5e-3, "tf32": 0.02, "bf16": 0.2 if name in ROUGH else 0.08}
    for precision in precisions(device):
        model = load_generator(path, device, precision)
        for key in range(5):
            torch.manual_seed(key)
            size = settings.size[::-1]
            sources = pyramid(torch.rand(1, settings.channels[0], *size) * 2 - 1, scales, settings.source_kind)
            for right, found in zip(exact(sources, key), model(sources, key), strict=True):
                error = float((found.cpu() - right).abs().max() / right.abs().max())
                print(f"{name}, {precision}, pass {key}: largest relative error {error:.1e}")
                assert error < allowed[precision], (precision, key)
        assert len(model._passes._recordings) == (device == "cuda"), precision
    assert "cuDNN refuses" not in capsys.readouterr().err


@pytest.mark.gpu
@GPU[1]
def test_cudnn_computes_what_pytorch_computes():
    """Each kind of fused layer alone, in bf16; the largest error is relative to the largest value."""
    assert cudnn_graphs.problem(torch.device("cuda")) is None
    torch.manual_seed(0)
    for transposed, pad, end in [(False, (1, 2, 1, 2), "leaky_relu"), (False, (2, 1, 2, 1), "none")] + [
        (True, (1, 1, 1, 1), end) for end in ("leaky_relu", "tanh", "none")
    ]:
        x, weight = torch.randn(2, 16, 24, 40), torch.randn(16, 16, 4, 4) / 16
        bias, stride = torch.randn(16), (2, 2) if transposed else (1, 1)
        other = torch.randn(2, 16, 48, 80) if transposed else torch.randn(2, 16, 24, 40)
        settings = (stride, pad, transposed, (0, 0), end, 0.2, 256)
        for given in (other, None):
            tensors = [None if t is None else t.bfloat16() for t in (x, weight, bias, given)]
            right = torch.ops.msgunet.conv_act(*(None if t is None else t.float() for t in tensors), *settings)
            on_gpu = [None if t is None else t.cuda() for t in tensors]
            layer = layer_of(*on_gpu, *settings)
            found = cudnn_graphs.run(layer, *on_gpu)
            assert found is not None, layer
            assert float((found.cpu().float() - right).abs().max() / right.abs().max()) < 0.01, layer


@pytest.mark.parametrize("device", DEVICES)
def test_tiles_agree_with_the_whole_image(trained_runs, device):
    source = make_image(5, 300, 200)
    model = msgunet.load(trained_runs / "msgunet" / "generator.safetensors", device=device)
    whole, tiled = (np.asarray(model.translate(source, tile=tile), float) for tile in (None, 160))
    assert np.abs(whole - tiled).mean() < 1


@pytest.mark.parametrize("device", DEVICES)
def test_bench_measures_every_precision_of_the_device(tmp_path, working_folder, capsys, device):
    suite = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
    suite["compute"]["device"] = device
    (working_folder / "own.yaml").write_text(yaml.safe_dump(suite))
    requested = ["--precision", *(precisions(device) if device == "cuda" else ["fp32"])]
    assert main(["bench", "own.yaml", "--entry", "msgunet", "--repeats", "2", *requested]) == 0
    frame = pd.read_csv("results/own/speed.csv")
    assert set(frame["precision"]) == set(requested[1:])
    assert set(frame["device_type"]) == {device}
    assert (frame[["peak_memory_mib", "limit_tflop_per_s", "limit_ms"]] > 0).all(axis=None)
    assert {path.suffix for path in (working_folder / "results" / "own").glob("speed.*")} == {
        *(".csv", ".md", ".tex", ".html", ".pdf", ".png")
    }
    if device == "cuda":
        engine = frame[frame["way"] == "engine"]
        # Nothing is faster than the limits, but caches keep some of the bytes of so small a network.
        assert (engine["foretold_ms"] < 2 * engine["median_ms"]).all()
        rates = frame.groupby("precision")["limit_tflop_per_s"].first()
        assert rates["fp32"] < rates["tf32"] < rates["bf16"]


@pytest.mark.gpu
@GPU[1]
def test_the_check_of_this_gpu_finds_nothing(capsys):
    assert main(["check", "speed", "--gpu"]) == 0, capsys.readouterr().out


@pytest.mark.gpu
@GPU[1]
@pytest.mark.parametrize("name", ["pix2pix", "pix2pixhd", "msgunet"])
def test_a_step_needs_the_forecast_memory(tmp_path, compute, name):
    # The peak counts from the third step on, and is recorded before the sample grid, after which it counts again.
    data = make_data(tmp_path / "data", 256, 256, train=8, test=1)
    settings = make_settings(data, name, (256, 256), options={"width": 0.5, "discriminator_width": 0.5})
    settings = settings.model_copy(update={"training": TrainingSettings(epochs=1, decay_epochs=0, batch_size=1)})
    method = build_method(settings)
    needs = step_needs(method, settings, method.phases(settings.training)[-1], compute)
    train(tmp_path / "run", settings, on("cuda", compute.model_copy(update={"sample_epochs": 1})))
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert facts["steps"] == 8
    # cuDNN needs additional working memory.
    assert 0.8 * needs.memory < 2**20 * facts["peak_memory_mib"] < 1.5 * needs.memory + 2**28


@pytest.mark.gpu
@GPU[1]
def test_a_suite_for_a_gpu_is_written_and_can_be_loaded(working_folder):
    for role in ("source", "target"):
        for i in range(8):
            path = working_folder / "own" / role / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_image(i, 256, 256).save(path)
    assert main(["new-suite", "mine.yaml", "--data", "own", "--hours", "0.5", "--device", "cuda"]) == 0
    assert main(["plan", "mine.yaml", "--rate", "50"]) == 0
