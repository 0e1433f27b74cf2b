"""ONNX export of every method: the outputs equal PyTorch's at any size, or no file is written."""

import copy
import re
import shutil
import subprocess
import venv as virtualenv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
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

# torch's exporter takes 20 seconds for each: the two that have everything the others have, and the others in CI.
EXPORTED = [
    name if name in ("msgunet", "pix2pixhd_local") else pytest.param(name, marks=pytest.mark.slow) for name in TRAINABLE
]


@pytest.mark.parametrize("name", EXPORTED)
def test_outputs_equal_pytorchs_at_any_size_and_batch(trained_runs, tmp_path, name):
    path, out = trained_runs / name / "generator.safetensors", tmp_path / "model.onnx"
    assert main(["export", str(path), "--onnx", str(out)]) == 0
    model = load_generator(path, torch.device("cpu"))
    for layer in model.network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.eval()
    session = onnxruntime.InferenceSession(str(out))
    exact = copy.deepcopy(model.network).double()
    scales = model.method.scales(model.method.options, (64, 64))
    torch.manual_seed(0)
    assert [o.name for o in session.get_outputs()] == ["output", "output_1"][:scales]
    for width, height in ((64, 128), (256, 128), (192, 64)):
        source = F.interpolate(torch.rand(1, 3, 5, 5) * 2 - 1, (height, width), mode="bicubic").clamp(-1, 1)
        sources = pyramid(source, scales, "photo")
        actual = session.run(None, {"source": source.numpy()})
        with torch.inference_mode():
            expected = [output.numpy() for output in exact([image.double() for image in sources])]
        assert [a.shape for a in actual] == [e.shape for e in expected]
        # How much rounding matters depends on the weights; PyTorch's own errors show it.
        ours = [output.numpy() for output in model(sources, "")]
        largest = [max(np.abs(a - e).max() for a, e in zip(found, expected, strict=True)) for found in (actual, ours)]
        assert largest[0] < 4 * largest[1] + 1e-5
        assert np.abs(actual[0]).max() > 0.05, "the outputs are not blank"
        # An image's outputs do not depend on its neighbours in the batch.
        twice = session.run(None, {"source": np.concatenate([source.numpy(), -source.numpy()])})
        assert np.abs(twice[0][:1] - actual[0]).max() < 4 * largest[1] + 1e-5
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

    def wrong(network, *arguments, **options):
        network.network.heads[0].bias.data += 0.01
        real(network, *arguments, **options)

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


@pytest.mark.parametrize("kind", ["8-bit RGB", "16-bit grey", "five channels"])
def test_the_card_describes_the_file_and_its_example_works(tmp_path, compute, monkeypatch, kind):
    grey, five = (ImageFormat(channels=n, range=(0, 65535)) for n in (1, 5))
    kinds = {"8-bit RGB": {}, "16-bit grey": dict.fromkeys(("source_format", "target_format"), grey)}
    changes = kinds.get(kind, {"source_format": five, "target_format": ImageFormat(channels=2, range=(0, 255))})
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
        pixels = np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)
        if kind == "five channels":
            tifffile.imwrite("source.tif", np.stack([pixels // (k + 1) for k in range(5)], -1))
        else:
            Image.fromarray(pixels).save("source.png")
    assert main(["export", str(run / "generator.safetensors"), "--onnx"]) == 0
    (run / "generator.onnx").rename("generator.onnx")
    assert {p.key: p.value for p in onnx.load("generator.onnx").metadata_props}["stride"] == "16"
    card = (run / "generator.md").read_text()
    title = "16-bit, 5 channels (photo) → 8-bit, 2 channels" if kind == "five channels" else f"{kind} (photo) → {kind}"
    assert f"| source → target | {title} (photo) |" in card
    assert ("| native | " in card) == (not changes)
    assert ("Not evaluated" in card) == bool(changes)
    assert card.count("largest difference from PyTorch") == 3
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    model = msgunet.load(run / "generator.safetensors", device="cpu")
    if kind == "five channels":
        ours, exported = model.translate(tifffile.imread("source.tif")), tifffile.imread("target.tif")
        assert (exported.shape, exported.dtype) == (ours.shape, ours.dtype)
    else:
        ours, exported = model.translate(Image.open("source.png")), Image.open("target.png")
        assert (exported.size, exported.mode) == (ours.size, ours.mode)
    assert np.abs(np.asarray(exported, int) - np.asarray(ours, int)).max() <= 1


# Run by another Python, since only one version of OpenCV can be installed at a time.
READ = """
import sys, cv2, numpy as np
data = np.load(sys.argv[2])
network = cv2.dnn.readNetFromONNX(sys.argv[1])
network.setInput(data["source"], "source")
names = [name for name in data.files if name != "source"]
for name, output in zip(names, network.forward(names)):
    assert output.shape == data[name].shape, (name, output.shape)
    print(cv2.__version__, np.abs(output - data[name]).max())
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5])
def test_opencv_reads_the_files(trained_runs, tmp_path, version):
    """Installs OpenCV. Version 4 needs files of a single size, and counts the padding in averages."""
    virtualenv.create(tmp_path / "opencv", with_pip=True)
    python = tmp_path / "opencv" / "bin" / "python"
    wanted = f"opencv-python-headless>={version},<{version + 1}"
    subprocess.run([python, "-m", "pip", "install", "-q", wanted], check=True)
    for name in TRAINABLE:
        model = trained_runs / name / "generator.safetensors"
        for width, height in (128, 64), (100, 70):
            out = tmp_path / f"{name}-{width}x{height}.onnx"
            assert main(["export", str(model), "--onnx", str(out), "--size", str(width), str(height)]) == 0
            wrong = version == 4 and "OpenCV 4 computes this file wrongly" in out.with_suffix(".md").read_text()
            assert wrong == (version == 4 and name == "pix2pixhd_local")
            source = export._images(3, (width, height))[:1].numpy()
            session = onnxruntime.InferenceSession(str(out))
            outputs = dict(
                zip([o.name for o in session.get_outputs()], session.run(None, {"source": source}), strict=True)
            )
            np.savez(tmp_path / "data.npz", source=source, **outputs)
            read = subprocess.run(
                [python, "-c", READ, out, tmp_path / "data.npz"], check=True, capture_output=True, text=True
            )
            lines = [line.split() for line in read.stdout.splitlines()]
            assert len(lines) == len(outputs)
            assert all(line[0].startswith(f"{version}.") for line in lines)
            assert all((float(line[1]) < 1e-3) != wrong for line in lines)


def test_a_file_of_a_single_size(trained_runs, tmp_path, monkeypatch, capsys):
    shutil.copytree(trained_runs / "msgunet", tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    assert main(["export", "generator.safetensors", "--size", "100", "70"]) == 0
    file = onnx.load("generator-100x70.onnx")
    (dims,) = ([d.dim_value for d in one.type.tensor_type.shape.dim] for one in file.graph.input)
    assert dims == [1, 3, 70, 100]
    sizes = [[d.dim_value for d in one.type.tensor_type.shape.dim][2:] for one in file.graph.output]
    assert sizes == [[70, 100], [35, 50]]
    card = Path("generator-100x70.md").read_text()
    assert "The batch is 1, the width 100 and the height 70." in card
    assert card.count("largest difference from PyTorch") == 1
    with pytest.raises(SystemExit):
        main(["export", "generator.safetensors", "--size", "0", "70"])
    assert "argument --size: " in capsys.readouterr().err
