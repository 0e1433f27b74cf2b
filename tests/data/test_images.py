"""Image formats other than 8-bit RGB: reading, training, evaluation, display, and writing without loss."""

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import yaml
from conftest import TRAINABLE, make_image, make_settings
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import RGB, ImageFormat
from msgunet.data.images import read, read_raw, resize, save, to_display
from msgunet.data.pairs import normalise, to_pixels, to_tensor
from msgunet.evaluation.metrics import measure
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.suite.plan import load_plan
from msgunet.training.state import TrainingState
from msgunet.training.step import step

GREY16 = ImageFormat(channels=1, range=(0, 65535))


def deep(seed: int, channels: int, width: int = 48, height: int = 32) -> np.ndarray:
    """A smooth random image of 16 bits."""
    planes = [np.asarray(make_image(seed + i, width, height)).astype(np.uint16) for i in range(channels)]
    return np.stack([257 * plane[..., 0] + plane[..., 1] for plane in planes], -1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("bits", [8, 16])
def test_written_images_are_read_back_unchanged(tmp_path, channels, bits):
    given = ImageFormat(channels=channels, range=(0, 2**bits - 1))
    pixels = deep(0, channels) if bits == 16 else (deep(0, channels) >> 8).astype(np.uint8)
    path = tmp_path / f"x{given.suffix}"
    save(path, pixels)
    for found in (read(path, "x", given), read_raw(path, "x")):
        assert found.dtype == pixels.dtype
        assert np.array_equal(found, pixels)


@pytest.mark.parametrize("how", ["png by Pillow", "big-endian tiff", "planes", "pages", "interleaved", "lzw"])
def test_16_bit_values_are_read_from_every_layout(tmp_path, how):
    pixels = deep(0, 5 if how in ("planes", "pages", "interleaved") else 1)
    path = tmp_path / ("x.png" if "png" in how else "x.tif")
    if how == "png by Pillow":
        Image.fromarray(pixels[..., 0]).save(path)
    elif how == "interleaved":
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    elif how == "planes":
        tifffile.imwrite(path, np.moveaxis(pixels, -1, 0), photometric="minisblack", planarconfig="separate")
    elif how == "pages":
        tifffile.imwrite(path, np.moveaxis(pixels, -1, 0))
    else:
        tifffile.imwrite(path, pixels[..., 0], byteorder=">", compression="lzw" if how == "lzw" else None)
    found = read(path, "x", ImageFormat(channels=pixels.shape[2], range=(0, 65535)))
    assert found.dtype == np.uint16
    assert np.array_equal(found, pixels)


def test_images_in_another_format_are_refused_by_name(tmp_path):
    Image.fromarray(deep(0, 1)[..., 0]).save(tmp_path / "deep.png")
    make_image(0, 48, 32).save(tmp_path / "rgb.png")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8), np.float32))
    (tmp_path / "cut.png").write_bytes((tmp_path / "deep.png").read_bytes()[:-40])
    (tmp_path / "cut.tif").write_bytes((tmp_path / "float.tif").read_bytes()[:100])
    for name, given, reason in (
        ("rgb.png", GREY16, "3 channels of 8 bits, but 1 of 16 bits are expected"),
        ("deep.png", ImageFormat(channels=3, range=(0, 4095)), "1 channels of 16 bits, but 3 of 16 bits are expected"),
        ("deep.png", ImageFormat(channels=1), "is not 8-bit RGB$"),
        ("float.tif", GREY16, "2 axes of float32"),
        ("cut.png", GREY16, "the image is damaged"),
        ("cut.tif", GREY16, "the image is damaged"),
    ):
        with pytest.raises(UserError, match=f"{name}: .*{reason}"):
            read(tmp_path / name, name, given)
    for wrong in ({"range": (255, 0)}, {"range": (0, 70_000)}, {"channels": 0}):
        with pytest.raises(ValidationError):
            ImageFormat(**wrong)


def test_values_outside_the_range_are_clipped(tmp_path):
    given = ImageFormat(channels=1, range=(100, 4095))
    tifffile.imwrite(tmp_path / "x.tif", np.array([[0, 100, 4095, 9000]], np.uint16))
    pixels = read(tmp_path / "x.tif", "x", given)
    assert pixels.ravel().tolist() == [100, 100, 4095, 4095]
    tensor = normalise(to_tensor(pixels), given.range)
    assert tensor.flatten().tolist() == [-1, -1, 1, 1]
    assert to_pixels(tensor, given).ravel().tolist() == [100, 100, 4095, 4095]
    assert str(given) == "16-bit grey, 100 to 4095"


@pytest.mark.parametrize("given", [GREY16, ImageFormat(channels=5, range=(0, 4095)), RGB], ids=str)
def test_every_value_survives_the_round_trip_to_the_network(given):
    low, high = given.range
    values = np.arange(low, high + 1, dtype=given.dtype)
    pixels = np.stack([values] * given.channels, -1)[None]
    assert np.array_equal(to_pixels(normalise(to_tensor(pixels), given.range), given), pixels)


def test_16_bit_images_are_resized_like_8_bit_images():
    colours = np.asarray(make_image(0, 64, 48))
    fine = resize(colours.astype(np.uint16) * 256, (40, 30), "photo")
    coarse = resize(colours, (40, 30), "photo")
    assert fine.dtype == np.uint16
    # Pillow rounds 8 bits twice.
    assert np.abs(fine / 256 - coarse).max() < 1.6
    labels = resize(deep(0, 2), (20, 20), "labels")
    assert set(labels[..., 1].ravel()) <= set(deep(0, 2)[..., 1].ravel())


def test_16_bit_metrics_use_the_range_of_the_format():
    given = ImageFormat(channels=1, range=(0, 4095))
    target = deep(0, 1, 64, 64) // 16
    output = np.clip(target.astype(int) + np.random.default_rng(0).integers(-300, 300, target.shape), 0, 4095)
    output = output.astype(np.uint16)
    row = measure(output, target, values=given.range)
    assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(target, output, data_range=4095), abs=1e-9)
    # Restored well: one level in two, at 16 bits. Nothing is added to the squared error.
    fine, close = deep(0, 1, 64, 64), deep(0, 1, 64, 64)
    close[::2] ^= 1
    value = measure(close, fine, ["psnr"], values=(0, 65535))["psnr"]
    assert value == pytest.approx(20 * np.log10(65535) + 10 * np.log10(2), abs=1e-9)
    one, two = (image[..., 0].astype(float) for image in (target, output))
    expected = structural_similarity(one, two, data_range=4095, gaussian_weights=True, use_sample_covariance=False)
    assert row["ssim"] == pytest.approx(expected, abs=2e-3)
    six = measure(np.repeat(output, 6, 2), np.repeat(target, 6, 2), values=given.range)
    assert [six[name] for name in ("psnr", "ssim", "vif")] == pytest.approx(
        [row[name] for name in ("psnr", "ssim", "vif")], abs=1e-4
    )


@pytest.mark.parametrize("channels", [(1, 1), (6, 2)], ids=str)
@pytest.mark.parametrize("name", TRAINABLE)
def test_every_method_takes_a_step_with_other_numbers_of_channels(name, channels):
    formats = [ImageFormat(channels=count, range=(0, 4095)) for count in channels]
    # SPADE derives classes from colours, and these images have none.
    options = {"palette": "none"} if name == "spade" else {}
    settings = make_settings("unused", name, source_format=formats[0], target_format=formats[1], options=options)
    method = build_method(settings)
    state = TrainingState(method, settings, torch.device("cpu"))
    phase = method.phases(settings.training)[-1]
    state.begin_phase(method, phase, resumed=False)
    perceptual = load_perceptual(settings.perceptual, None) if settings.perceptual else None
    scales = method.scales(method.options, settings.size)
    sources, targets = ([torch.rand(1, count, 64 >> k, 64 >> k) * 2 - 1 for k in range(scales)] for count in channels)
    found = step(method, state, sources, targets, perceptual, 1e-3, None)
    assert all(torch.isfinite(value) for value in found.values())
    assert [o.shape for o in state.generator(sources)] == [t.shape for t in targets]


def test_a_data_set_of_16_bit_grey_pairs_from_preparation_to_report(working_folder):
    """The verbs prepare, train, evaluate and report it, and the outputs are 16-bit grey."""
    for i in range(8):
        for role, pixels in (("before", deep(i, 1, 64, 64)), ("after", 65535 - deep(i, 1, 64, 64))):
            path = working_folder / "scans" / role / ("train" if i < 6 else "test") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0]).save(path)
    grey = {"channels": 1, "range": [0, 65535]}
    options = {"source": "scans/before", "target": "scans/after", "source_format": grey, "target_format": grey}
    narrow = {"width": 0.0625, "discriminator_width": 0.0625}
    suite = {
        "datasets": {"scans": {"kind": "folder", "size": [64, 64], "options": options}},
        "methods": {
            "msgunet": {"options": {**narrow, "scales": 2}},
            "pix2pix": {"options": narrow},
            "copy": {},
            "mean": {},
        },
        "training": {"epochs": 60, "decay_epochs": 0, "batch_size": 2, "learning_rate": 2e-3},
        "perceptual": {"weights": "untrained", "width": 0.0625},
        "ablation": {"methods": ["msgunet"]},
        "report": {"examples": 1, "resamples": 100},
    }
    (working_folder / "grey.yaml").write_text(yaml.safe_dump(suite))
    load_plan.cache_clear()
    plan = load_plan("grey.yaml")
    plan.write()
    data = plan.data[0].folder
    assert main(["prepare", "--settings", str(data / "dataset.json"), "--out", str(data)]) == 0
    with Image.open(data / "test" / "test_7.source.png") as image:
        assert np.array_equal(np.asarray(image), deep(7, 1, 64, 64)[..., 0])
    for run in plan.runs:
        settings, generator = str(run.folder / "run.json"), str(run.folder / "generator.safetensors")
        assert main(["train", "--run", settings, "--out", str(run.folder)]) == 0
        assert main(["evaluate", "--run", settings, "--generator", generator, "--out", str(run.folder)]) == 0
    folders = {run.settings.entry: run.folder for run in plan.runs}
    model = folders["msgunet"]
    out = str(model / "ablation.csv")
    arguments = ["--run", str(model / "run.json"), "--generator", str(model / "generator.safetensors")]
    assert main(["ablate", *arguments, "--out", out]) == 0
    for run in plan.runs:
        with Image.open(run.folder / "predictions" / "test_7.png") as image:
            assert image.mode == "I;16"
            assert (np.asarray(image) % 257).any(), "more values than fit in 8 bits"
    psnr = {entry: pd.read_csv(folder / "metrics.csv")["psnr"].mean() for entry, folder in folders.items()}
    assert min(psnr["msgunet"], psnr["pix2pix"]) > psnr["mean"] + 8
    mean = load_file(folders["mean"] / "generator.safetensors")["picture"]
    expected = np.mean([65535 - deep(i, 1, 64, 64).astype(float) for i in range(6)], 0) / 32767.5 - 1
    assert mean.permute(1, 2, 0).numpy() == pytest.approx(expected, abs=1e-5)
    assert main(["report", "grey.yaml"]) == 0
    images = working_folder / "results/grey/report/images/scans"
    for path in (images / "target" / "test_7.png", images / "methods" / "msgunet" / "test_7.png"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
    target = np.asarray(Image.open(images / "target" / "test_7.png"))
    assert np.array_equal(target, to_display(65535 - deep(7, 1, 64, 64), GREY16))
    table = working_folder / "results/grey/tables/table1_scans_native.md"
    assert "16-bit grey: 6 training and 2 test pairs" in table.read_text()
