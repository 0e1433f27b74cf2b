"""Translating for people: messages about what they passed, and the Python side in an interactive session."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_image, make_settings
from PIL import Image

import msgunet
from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat
from msgunet.methods.generator import save_generator
from msgunet.methods.registry import build_method

# Words and settings of trainings, which a user who translates does not have.
TRAINING = ("trained on", "compute.", "training.", "dataset", "data set", "suite")


def publish(path: Path, name="msgunet", **changes) -> Path:
    """Publish an untrained generator of a narrow method."""
    settings = make_settings("unused", name, **changes)
    method = build_method(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_generator(path, method.published_state(method.build_generator().state_dict()), settings)
    return path


def refused(capsys, *arguments) -> str:
    capsys.readouterr()
    assert main(["translate", *map(str, arguments), "--out", "out"]) == 2
    return capsys.readouterr().err


@pytest.fixture
def results(working_folder) -> Path:
    """A folder of results with generators of three runs."""
    for entry in ("msgunet", "pix2pix", "pan"):
        publish(Path("results/mine/runs/maps", entry, "seed0/generator.safetensors"), entry)
    make_image(0, 30, 30).save("a.png")
    return Path("results")


def test_a_folder_or_a_missing_file_as_model_names_the_nearest_generators(results, capsys):
    runs = results / "mine/runs/maps"
    error = refused(capsys, runs / "pan/seed0", "a.png")
    expected = f"{runs}/pan/seed0/generator.safetensors"
    assert error == (
        f"error: {runs}/pan/seed0 is a folder; name the generator.safetensors of a run; found in or below "
        f"{runs}/pan/seed0: {expected}\n"
    )
    error = refused(capsys, "results", "a.png")
    assert "results is a folder" in error
    assert all(f"{runs}/{entry}/seed0/generator.safetensors" in error for entry in ("msgunet", "pix2pix", "pan"))
    publish(results / "mine/runs/maps/copy/seed0/generator.safetensors", "msgunet")
    assert " and 1 more\n" in refused(capsys, "results", "a.png")
    error = refused(capsys, runs / "msgnet/seed0/generator.safetensors", "a.png")
    assert f"msgnet/seed0/generator.safetensors: no such file; found in or below {runs}: {runs}/msgunet/" in error
    error = refused(capsys, "generator.safetensors", "a.png")
    assert "generator.safetensors: no such file; found in or below .: results/mine/" in error
    Path("empty").mkdir()
    assert "there is no generator in or below empty" in refused(capsys, "empty", "a.png")
    with pytest.raises(UserError, match="is a folder; name the generator"):
        msgunet.load("results")


def test_the_search_for_generators_has_an_end(working_folder, capsys, monkeypatch):
    from msgunet.methods import nearest

    monkeypatch.setattr(nearest, "_LOOKED_AT", 50)
    deep = Path(*(f"d{i}" for i in range(60)))
    publish(deep / "generator.safetensors")
    Path("d0", "loop").symlink_to(working_folder)
    assert "there is no generator in or below" in nearest.instead_of(Path("x"))
    monkeypatch.setattr(nearest, "_LOOKED_AT", 500)
    assert nearest.instead_of(Path("x")).endswith(f"{deep}/generator.safetensors")


def test_messages_speak_of_translating(results, capsys):
    model = results / "mine/runs/maps/msgunet/seed0/generator.safetensors"
    Image.new("CMYK", (30, 30)).save("cmyk.jpg")
    Image.fromarray(np.zeros((30, 30), np.uint16)).save("deep.png")
    Path("broken.png").write_bytes(b"no image")
    errors = [refused(capsys, model, "cmyk.jpg", "deep.png", "broken.png")]
    assert errors[0].count("this model translates 8-bit RGB, so convert the image") == 2
    errors.append(refused(capsys, model, "a.png", "deep.png", "--scale", "7"))
    assert errors[-1] == "error: scale 7: msgunet has outputs at scales 0 to 1\n", "once, before the first image"
    assert not Path("out").exists() or not any(Path("out").iterdir())
    errors.append(refused(capsys, model, "a.png", "--memory", "0.000001"))
    assert "0.0 GB" not in errors[-1]
    if not torch.cuda.is_available():
        errors.append(refused(capsys, model, "a.png", "--device", "cuda"))
        assert errors[-1] == "error: device cuda: torch finds no CUDA GPU; choose the device auto or cpu\n"
    for error in errors:
        assert [word for word in TRAINING if word in error] == [], error


def test_a_model_tells_what_it_is(tmp_path):
    grey = ImageFormat(channels=1, range=(0, 4095))
    model = msgunet.load(publish(tmp_path / "x.safetensors", target_format=grey, size=(96, 64)), device="cpu")
    assert repr(model) == (
        "Model(method='msgunet', dataset='negatives', size=(96, 64), scales=2, source='8-bit RGB', "
        "target='16-bit grey, 0 to 4095')"
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_translate_takes_paths(tmp_path, kind):
    # Its dropout is seeded by the name of the image.
    path = publish(tmp_path / "x.safetensors", "pix2pix")
    model = msgunet.load(path, device="cpu")
    make_image(0, 75, 43).save(tmp_path / "in.png")
    output = model.translate(kind(tmp_path / "in.png"))
    assert isinstance(output, Image.Image)
    assert output.size == (75, 43)
    given = ["translate", str(path), str(tmp_path / "in.png"), "--out", str(tmp_path / "out")]
    assert main([*given, "--device", "cpu", "--threads", "1"]) == 0
    assert np.array_equal(np.asarray(output), np.asarray(Image.open(tmp_path / "out" / "in.png")))
    for wrong, match in (("no.png", r"no\.png: no such file"), ("", "a folder, not an image")):
        with pytest.raises(UserError, match=match):
            model.translate(kind(tmp_path / wrong))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png: not an image"):
        model.translate(kind(tmp_path / "broken.png"))


def test_a_path_gives_an_array_where_pillow_has_no_such_images(tmp_path):
    five = ImageFormat(channels=5)
    model = msgunet.load(publish(tmp_path / "x.safetensors", target_format=five), device="cpu")
    make_image(0, 60, 40).save(tmp_path / "in.png")
    assert model.translate(tmp_path / "in.png").shape == (40, 60, 5)
    sixteen = ImageFormat(channels=1, range=(0, 65535))
    model = msgunet.load(publish(tmp_path / "y.safetensors", target_format=sixteen), device="cpu")
    assert model.translate(tmp_path / "in.png").mode == "I;16"


def test_the_package_lists_its_names_without_loading_torch():
    code = (
        "import sys, msgunet; names = dir(msgunet); assert 'torch' not in sys.modules; "
        "assert {'load', 'Model', 'Method', '__version__'} <= set(names), names; "
        "assert not [name for name in names if not hasattr(msgunet, name)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
