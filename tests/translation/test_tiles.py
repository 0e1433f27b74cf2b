"""Tiles of an image against the whole image, for custom methods with layers that need the whole image."""

import numpy as np
import pytest
import torch
import yaml
from conftest import make_image, make_settings
from own_code import EXAMPLE, SUITE
from PIL import Image
from test_translate import translate, untrained

import msgunet
from msgunet.cli.main import main
from msgunet.core.settings import RunSettings
from msgunet.methods import method_file
from msgunet.methods.generator import save_generator
from msgunet.methods.norms import InstanceNorm, fixed_statistics, whole_image_layers
from msgunet.methods.registry import build_method, custom_methods

NORM = "nn.BatchNorm2d(channels)"


def published(folder, norm):
    """Publish a generator of the documented example with another norm; its weights do not depend on the norm."""
    method_file._loaded.clear()
    text = EXAMPLE.replace(NORM, norm).replace("    Method,\n", "    InstanceNorm,\n    Method,\n")
    (folder / "my_method.py").write_text(text)
    code = custom_methods("my_method.py").code
    changes = {"entry": "mine", "method": "mine", "version": 1, "file": "my_method.py", "code": code}
    changes["options"] = {"filters": 8, "blocks": 3}
    settings = RunSettings.model_validate(make_settings("unused", "mean").model_dump() | changes)
    torch.manual_seed(0)
    state = build_method(settings).build_generator().state_dict()
    for name, weight in state.items():
        if weight.ndim == 4:
            # Large enough for outputs with contrast.
            weight.mul_(10)
        elif "body" in name and weight.is_floating_point():
            torch.nn.init.uniform_(weight, 0.5, 1)
    path = folder / "generator.safetensors"
    save_generator(path, state, settings)
    return path


def whole_and_tiled(path, precision="fp32"):
    """Return the outputs for an image that is dark on one side, in one piece and in tiles, in grey levels."""
    model = msgunet.load(path, device="cpu", precision=precision)
    source = np.asarray(make_image(0, 512, 384), float) * np.linspace(0.1, 1, 512)[:, None]
    source = Image.fromarray(source.astype(np.uint8))
    whole, tiled, again = (np.asarray(model.translate(source, tile=tile), float) for tile in (None, 128, None))
    assert np.array_equal(whole, again), "tiles change nothing afterwards"
    return whole, tiled


def difference(one, other):
    return np.abs(one - other).mean()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torchs_instance_norm_has_the_statistics_of_the_whole_image(method_folder, precision):
    expected, ours = whole_and_tiled(published(method_folder, "InstanceNorm()"), precision)
    whole, tiled = whole_and_tiled(published(method_folder, "nn.InstanceNorm2d(channels)"), precision)
    assert whole.std() > 20
    tolerance = {"fp32": 0.01, "bf16": 1}[precision]
    assert difference(whole, expected) < tolerance
    assert difference(tiled, ours) < tolerance
    assert difference(tiled, whole) < difference(ours, expected) + tolerance


@pytest.mark.parametrize("norm", [InstanceNorm(), torch.nn.InstanceNorm2d(3), torch.nn.InstanceNorm2d(3, affine=True)])
def test_a_part_of_an_image_is_normalised_as_in_the_whole(norm):
    for weight in norm.parameters():
        torch.nn.init.uniform_(weight, 0.5, 2)
    network, image = torch.nn.Sequential(norm).eval(), torch.rand(1, 3, 16, 16) * torch.linspace(0.1, 1, 16)
    with torch.no_grad():
        whole = network(image)
        assert not torch.allclose(network(image[..., :8]), whole[..., :8], atol=0.1)
        with fixed_statistics(network, image):
            assert torch.allclose(network(image[..., :8]), whole[..., :8], atol=1e-5)
        assert torch.equal(network(image), whole)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ("nn.GroupNorm(2, channels)", "layers.2.body.1 (GroupNorm)"),
        ("nn.AdaptiveAvgPool2d(1)", "layers.2.body.1 (AdaptiveAvgPool2d)"),
    ],
)
def test_layers_that_need_the_whole_image_are_named(method_folder, capsys, layer, named):
    path = published(method_folder, layer)
    suite = {**SUITE, "methods": {"mine": {"file": "my_method.py", "options": {"filters": 8, "blocks": 3}}}}
    (method_folder / "small.yaml").write_text(yaml.safe_dump(suite))
    assert main(["check", "small.yaml"]) == 0
    assert f"; not for tiles: {named}, layers.2.body.4" in capsys.readouterr().out
    for name in "ab":
        make_image(0, 300, 200).save(method_folder / f"{name}.png")
    translate(path, "a.png", "b.png", out="whole")
    assert "tiles" not in capsys.readouterr().err
    translate(path, "a.png", "b.png", out="tiled", more=["--tile", "128"])
    errors = capsys.readouterr().err
    assert errors.count("warning: images are cut into tiles, but layers of this generator need the whole image") == 1
    assert named in errors


def test_a_norm_over_the_channels_of_each_pixel_needs_no_whole_image():
    assert whole_image_layers(torch.nn.Sequential(torch.nn.LayerNorm(8))) == []
    assert whole_image_layers(torch.nn.Sequential(torch.nn.LayerNorm((8, 4, 4)))) == ["0 (LayerNorm)"]


def test_images_that_are_cut_into_tiles_are_counted_in_one_line(tmp_path, capsys):
    model = untrained(tmp_path, "pix2pixhd")
    for name, size in (("a", (100, 60)), ("b", (60, 60)), ("c", (100, 100))):
        make_image(0, *size).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    translate(model, *paths, out=tmp_path / "out", more=["--tile", "64"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "cut into" in line]
    assert lines == ["2 of 3 images were cut into 2 to 4 tiles; seams can be visible (docs/own-data.md)"]
    translate(model, paths[1], out=tmp_path / "out", more=["--tile", "64"])
    assert "cut into" not in capsys.readouterr().err
