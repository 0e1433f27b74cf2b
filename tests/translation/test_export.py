"""ONNX export of every method: the outputs equal PyTorch's at any size, or no file is written."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import TRAINABLE, make_data, make_image, make_settings, train
from PIL import Image
from torch.nn import functional as F

import msgunet
from msgunet.cli.main import main
from msgunet.core.settings import ImageFormat
from msgunet.data.pairs import pyramid
from msgunet.evaluation.evaluate import EvaluationSettings, evaluate
from msgunet.methods.generator import load_generator, save_generator
from msgunet.methods.registry import build_method
from msgunet.translation import export, translate


@pytest.mark.parametrize("name", TRAINABLE)
def test_outputs_equal_pytorchs_at_any_size_and_batch(trained_runs, tmp_path, name):
    path, out = trained_runs / name / "generator.safetensors", tmp_path / "model.onnx"
    assert main(["export", str(path), "--onnx", str(out)]) == 0
    model = load_generator(path, torch.device("cpu"))
    for layer in model.network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.eval()
    session = onnxruntime.InferenceSession(str(out))
    scales = model.method.scales(model.method.options, (64, 64))
    assert [o.name for o in session.get_outputs()] == ["output", "output_1"][:scales]
    for width, height in ((64, 128), (256, 128), (192, 64)):
        source = F.interpolate(torch.rand(1, 3, 5, 5) * 2 - 1, (height, width), mode="bicubic").clamp(-1, 1)
        expected = model(pyramid(source, scales, "photo"), "")
        actual = session.run(None, {"source": source.numpy()})
        assert [a.shape for a in actual] == [tuple(e.shape) for e in expected]
        assert max(np.abs(a - e.numpy()).max() for a, e in zip(actual, expected, strict=True)) < 1e-4
        assert np.abs(actual[0]).max() > 0.05, "the outputs are not blank"
        # An image's outputs do not depend on its neighbours in the batch.
        twice = session.run(None, {"source": np.concatenate([source.numpy(), -source.numpy()])})
        assert np.abs(twice[0][:1] - actual[0]).max() < 1e-4
    draw = np.random.default_rng(0)
    translator = translate.Model(model)
    for width, height in [(65, 65), (5, 4), (3, 140), *draw.integers(2, 200, (50, 2)).tolist()]:
        pixels = np.asarray(make_image(width, width, height))
        source = pixels.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
        for scale, output in enumerate(session.run(None, {"source": source})):
            expected = translator.translate(pixels, scale)
            actual = ((output[0].transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255)
            assert actual.shape == expected.shape
            # Between two levels, rounding differs.
            assert np.abs(actual - expected).max() <= 1


def test_a_file_that_differs_is_not_written(trained_runs, tmp_path, monkeypatch, capsys):
    real = export._export

    def wrong(network, *arguments):
        network.network.heads[0].bias.data += 0.01
        real(network, *arguments)

    monkeypatch.setattr(export, "_export", wrong)
    assert (
        main(["export", str(trained_runs / "msgunet/generator.safetensors"), "--onnx", str(tmp_path / "x.onnx")]) == 2
    )
    assert re.search(
        r"64x64: largest difference from PyTorch \S+, but at most 1e-04 is allowed", capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_no_other_file_is_overwritten(trained_runs, tmp_path, capsys):
    model = str(trained_runs / "msgunet/generator.safetensors")
    assert main(["export", model, "--onnx", model]) == 2
    assert "choose a file name that ends in .onnx" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("mine")
    assert main(["export", model, "--onnx", str(tmp_path / "README.onnx")]) == 2
    assert "README.md already exists and is not a model card" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("kind", ["8-bit RGB", "16-bit grey"])
def test_the_card_describes_the_file_and_its_example_works(tmp_path, compute, monkeypatch, kind):
    grey = ImageFormat(channels=1, range=(0, 65535))
    changes = {} if kind == "8-bit RGB" else {"source_format": grey, "target_format": grey}
    monkeypatch.chdir(tmp_path)
    settings = make_settings(tmp_path / "data", **changes)
    run = tmp_path / "run"
    if not changes:
        make_data(tmp_path / "data")
        train(run, settings, compute)
        evaluate(run / "run.json", run / "generator.safetensors", run, EvaluationSettings(), compute, None)
        make_image(0, 96, 64).save("source.png")
    else:
        method = build_method(settings)
        save_generator(run / "generator.safetensors", method.build_generator().state_dict(), settings)
        Image.fromarray(np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)).save("source.png")
    assert main(["export", str(run / "generator.safetensors"), "--onnx"]) == 0
    (run / "generator.onnx").rename("generator.onnx")
    assert {p.key: p.value for p in onnx.load("generator.onnx").metadata_props}["stride"] == "16"
    card = (run / "generator.md").read_text()
    assert f"| source → target | {kind} (photo) → {kind} (photo) |" in card
    assert ("| native | " in card) == (not changes)
    assert ("Not evaluated" in card) == bool(changes)
    assert card.count("largest difference from PyTorch") == 3
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    ours = msgunet.load(run / "generator.safetensors", device="cpu").translate(Image.open("source.png"))
    exported = Image.open("target.png")
    assert (exported.size, exported.mode) == (ours.size, ours.mode)
    assert np.abs(np.asarray(exported, int) - np.asarray(ours, int)).max() <= 1
