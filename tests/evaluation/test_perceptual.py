"""LPIPS and DISTS against independent implementations with the same random weights, and their errors."""

from types import SimpleNamespace

import numpy as np
import piq
import pytest
import torch
from conftest import make_image
from random_weights import features, random_weights, write_weights
from torch import nn

from msgunet.core.errors import UserError
from msgunet.core.settings import DataSettings
from msgunet.evaluation.metrics import CPU, measure, perceptual
from msgunet.evaluation.metrics.networks import load_networks


@pytest.fixture(scope="module")
def networks():
    states = random_weights()
    return {name: getattr(perceptual, name)(states["vgg16"], states[name]) for name in ("lpips", "dists")}


def images(width: int, height: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return an output and its target, (H, W, C)."""
    draw = np.random.default_rng(width)
    target = np.asarray(make_image(1, width, height))[..., :channels]
    output = target * 0.8 + draw.normal(10, 15, target.shape)
    return output.clip(0, 255).round().astype(np.uint8), target


def tensors(*pixels: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(p / 255).float().permute(2, 0, 1)[None] for p in pixels]


@torch.inference_mode()
@pytest.mark.parametrize("size", [(48, 40), (33, 17)])
def test_lpips_is_the_published_formula(networks, size):
    """Zhang et al. 2018, equation 1: features of unit length, weighted squared differences, means over places."""
    pair = images(*size)
    expected = 0.0
    for i, (a, b) in enumerate(zip(*(features(x, nn.MaxPool2d(2)) for x in tensors(*pair)), strict=True)):
        difference = a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)
        linear = random_weights()["lpips"][f"lin{i}.model.1.weight"]
        expected += float((linear * difference**2).sum(1).mean())
    assert measure(*pair, ("lpips",), networks=networks)["lpips"] == pytest.approx(expected, rel=1e-5)
    swapped = measure(*pair[::-1], ("lpips",), networks=networks)["lpips"]
    assert swapped == pytest.approx(expected, rel=1e-5), "symmetric"


@torch.inference_mode()
@pytest.mark.parametrize("size", [(48, 40), (300, 264)])
def test_dists_is_piqs_own_class(networks, monkeypatch, size):
    """With weights whose sum is 1: the authors' code divides by it, and piq's file has been divided."""
    states = random_weights()
    total = sum(float(factors.sum()) for factors in states["dists"].values())
    layers = perceptual._vgg16({key: value.clone() for key, value in states["vgg16"].items()})
    monkeypatch.setattr("piq.perceptual.vgg16", lambda **_: SimpleNamespace(features=layers))
    published = {key: factors / total for key, factors in states["dists"].items()}
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: published)
    theirs, pair = piq.DISTS(), images(*size)
    expected = float(theirs(*tensors(*pair)))
    assert measure(*pair, ("dists",), networks=networks)["dists"] == pytest.approx(expected, abs=1e-6)
    assert 0.001 < expected < 1


def test_identical_images_have_no_distance_and_grey_is_repeated(networks):
    names = ("lpips", "dists")
    output, target = images(40, 40)
    found = measure(target, target, names, networks=networks)
    assert (found["lpips"], found["dists"]) == (0, pytest.approx(0, abs=1e-6))
    assert found["dists"] >= 0, "rounding makes it negative"
    once, three = (
        measure(np.repeat(output[..., :1], n, 2), np.repeat(target[..., :1], n, 2), names, networks=networks)
        for n in (1, 3)
    )
    assert once == three
    assert once["lpips"] > 0


def test_where_they_are_not_defined_a_note_says_why(networks):
    for size, channels, reason in (((40, 15), 3, "smaller than 16 pixels"), ((40, 40), 2, "2 channels, not 1 or 3")):
        row = measure(*images(*size, channels), ("lpips", "dists"), networks=networks)
        assert row == {"lpips": None, "dists": None, "note": f"lpips: {reason}; dists: {reason}"}
    assert None not in measure(*images(16, 16), ("lpips", "dists"), networks=networks).values()


def test_values_do_not_depend_on_the_range_of_the_pixels(networks):
    output, target = images(40, 40)
    expected = measure(output, target, ("lpips",), networks=networks)["lpips"]
    wide = [image.astype(np.uint16) * 257 for image in (output, target)]
    found = measure(*wide, ("lpips",), (0, 65535), networks=networks)["lpips"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_files_are_read_once_and_only_where_needed(tmp_path, monkeypatch, networks):
    files = DataSettings(**write_weights(tmp_path, monkeypatch))
    found = load_networks(("psnr", "lpips", "dists"), files, CPU)
    assert list(found) == ["lpips", "dists"]
    pair = images(40, 40)
    expected = measure(*pair, ("lpips", "dists"), networks=networks)
    assert measure(*pair, ("lpips", "dists"), networks=found) == expected
    (tmp_path / "vgg16-397923af.pth").unlink()
    assert load_networks(("psnr", "ms_ssim"), files, CPU) == {}


def test_missing_and_other_weights_are_one_error_each(tmp_path, monkeypatch):
    files = DataSettings(vgg16=f"{tmp_path}/a.pth", lpips=f"{tmp_path}/b.pth", dists=f"{tmp_path}/c.pt")
    (tmp_path / "c.pt").write_bytes(b"x" * 12288)
    with pytest.raises(UserError) as error:
        load_networks(("lpips", "dists"), files, CPU)
    missing, other = error.value.problems
    assert missing.startswith(
        f"weights of LPIPS and DISTS: data.vgg16 is {tmp_path}/a.pth, which does not exist (528 MB"
    )
    assert f"data.lpips is {tmp_path}/b.pth" in missing
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in missing
    assert "'msgunet fetch vgg16 lpips' downloads them into data/weights" in missing
    assert other.startswith(f"{tmp_path}/c.pt: the sha256 is ")
    assert "expected f5e65c96" in other


def test_no_network_is_asked_for(monkeypatch):
    """piq's own classes download when they are made."""

    def refuse(*_, **__):
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("piq.perceptual.vgg16", refuse)
    states = random_weights()
    perceptual.lpips(states["vgg16"], states["lpips"])
    perceptual.dists(states["vgg16"], states["dists"])
