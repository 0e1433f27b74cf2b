"""Pairs as tensors: values, pyramids, augmentation and order, against plain numpy."""

import hashlib

import numpy as np
import pytest
import torch
from conftest import make_data

from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat, TrainingSettings
from msgunet.data import pairs as module
from msgunet.data.pairs import (
    PairDataset,
    blank_pyramid,
    bytes_on,
    double,
    halve,
    keyed_seed,
    normalise,
    pyramid,
    to_pixels,
    to_tensor,
    training_order,
)

PHOTOS = ("photo", "photo")
GRID = torch.arange(12.0).view(1, 1, 2, 6)


def test_labels_are_halved_and_doubled_without_new_values():
    assert halve(GRID, "labels").tolist() == [[[[0, 2, 4]]]]
    assert double(GRID[..., :2], "labels").tolist() == [[[[0, 0, 1, 1], [0, 0, 1, 1], [6, 6, 7, 7], [6, 6, 7, 7]]]]


def test_photos_are_doubled_bilinearly():
    # Pixel centres are at 0.25 and 0.75 of the original's; beyond the outermost centres, values are constant.
    assert double(GRID[..., :1, :2], "photo")[0, 0].tolist() == [[0, 0.25, 0.75, 1]] * 2
    assert double(GRID[..., :1], "photo")[0, 0, :, 0].tolist() == [0, 1.5, 4.5, 6]


@pytest.mark.parametrize("kind", ["photo", "labels"])
def test_a_pyramid_halves_again_and_again(kind):
    image = torch.randn(2, 3, 8, 16)
    levels = pyramid(image, 3, kind)
    assert [tuple(level.shape[2:]) for level in levels] == [(8, 16), (4, 8), (2, 4)]
    blocks = image.numpy().reshape(2, 3, 2, 4, 4, 4)
    expected = blocks.mean((3, 5)) if kind == "photo" else blocks[:, :, :, 0, :, 0]
    assert levels[2].numpy() == pytest.approx(expected, abs=1e-6)
    assert pyramid(image, 1, kind)[0] is image
    blank = blank_pyramid(3, (16, 8), batch=2)
    assert [level.shape for level in blank] == [level.shape for level in levels]
    assert all(level.is_contiguous(memory_format=torch.channels_last) and not level.any() for level in blank)
    assert blank_pyramid(1, (16, 8))[0].shape == (1, 3, 8, 16)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 65535), (100, 300), (7, 40)])
def test_values_are_scaled_to_the_networks_range_and_back(low, high):
    values = np.linspace(low, high, 5).round().astype(int)
    scaled = normalise(torch.from_numpy(values), (low, high))
    assert scaled.tolist() == pytest.approx(((values - low) / (high - low) * 2 - 1).tolist(), abs=1e-6)
    image_format = ImageFormat(range=(low, high))
    outputs = torch.tensor([-1.5, -1, -0.3, 0.1, 1, 1.5]).view(1, 1, 6)
    expected = [low, low, low + 0.35 * (high - low), low + 0.55 * (high - low), high, high]
    pixels = to_pixels(outputs, image_format)
    assert pixels.shape == (1, 6, 1)
    assert pixels.dtype == (np.uint8 if high <= 255 else np.uint16)
    assert pixels.ravel().tolist() == pytest.approx(expected, abs=0.51)


def test_values_outside_the_range_are_clipped():
    assert normalise(torch.tensor([0, 90, 310, 65535]), (100, 300)).tolist() == [-1, -1, 1, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tensors_hold_the_pixels(dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (4, 6, 3)).astype(dtype)
    tensor = to_tensor(pixels[:, ::-1])
    assert tensor.dtype == (torch.uint8 if dtype is np.uint8 else torch.int32)
    assert np.array_equal(tensor.numpy(), pixels[:, ::-1].transpose(2, 0, 1))


def test_seeds_are_the_first_63_bits_of_a_hash():
    """Every training depends on them: another seed would be another training."""
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(b"3/photo/7").digest())
    assert keyed_seed(3, "photo", 7) == int(bits[:63], 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), 16, 12, train=2, test=1)


def test_jitter_crops_everywhere_and_flips_half_of_the_time(folder):
    training = TrainingSettings(flip=True, jitter=2)
    pairs = PairDataset(folder, "train", (14, 10), PHOTOS, training=training, seed=1)
    # The crops are from the prepared images, which have the size to crop from.
    whole = PairDataset(folder, "train", (16, 12), PHOTOS).images(1)[0].transpose(2, 0, 1)
    crops = {}
    for x in range(3):
        for y in range(3):
            crop = whole[:, y : y + 10, x : x + 14]
            crops |= {crop.tobytes(): (x, y, False), np.ascontiguousarray(crop[..., ::-1]).tobytes(): (x, y, True)}
    found = [crops[pairs[(epoch, 1)].source.numpy().tobytes()] for epoch in range(400)]
    assert {*found} == {*crops.values()}
    assert np.mean([flipped for *_, flipped in found]) == pytest.approx(0.5, abs=0.1)
    plain = PairDataset(folder, "train", (16, 12), PHOTOS, training=TrainingSettings(), seed=1)
    assert np.array_equal(plain[(5, 1)].source.numpy(), whole), "without augmentation"


def test_jitter_needs_larger_images_unless_both_sides_suffice(tmp_path):
    folder = make_data(tmp_path, 16, 12, train=2, test=1)
    manifest = folder / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",16,12,16,12,", ",16,12,32,24,"))
    training = TrainingSettings(jitter=2)
    assert PairDataset(folder, "train", (14, 10), PHOTOS, training=training)[(0, 0)].source.shape == (3, 10, 14)
    for size in ((14, 12), (16, 10)):
        with pytest.raises(UserError, match=f"at {size[0] + 2}x{size[1] + 2}, which are not in"):
            PairDataset(folder, "train", size, PHOTOS, training=training)


@pytest.mark.parametrize(("spare", "kept"), [(1, True), (0, False), (-1, False)])
def test_images_are_kept_in_memory_if_they_fit(folder, monkeypatch, spare, kept):
    """Two pairs of an 8-bit and a 16-bit image: six and three values of one and two bytes."""
    formats = (ImageFormat(), ImageFormat(channels=1, range=(0, 65535)))
    monkeypatch.setattr(module, "_CACHE_BYTES", 2 * 16 * 12 * (3 * 1 + 1 * 2) + spare)
    reads = []
    monkeypatch.setattr(module, "read", lambda *_: reads.append(1) or np.zeros((12, 16, 3), np.uint8))
    pairs = PairDataset(folder, "train", (16, 12), PHOTOS, formats)
    for _ in range(3):
        pairs.images(0)
    assert len(reads) == (2 if kept else 6)


def test_a_batch_drops_the_rest_of_an_epoch_and_follows_the_seed():
    for count, batch, sizes in ((7, 3, [3, 3]), (6, 3, [3, 3]), (2, 3, [2])):
        batches = list(training_order(count, batch, seed=5, epochs=2, first_step=0))
        assert [len(indices) for indices in batches] == sizes * 2
        assert [{epoch for epoch, _ in indices} for indices in batches] == [{0}] * len(sizes) + [{1}] * len(sizes)
        for epoch in range(2):
            order = np.random.default_rng(keyed_seed(5, epoch)).permutation(count)
            part = batches[epoch * len(sizes) : (epoch + 1) * len(sizes)]
            assert [index for indices in part for _, index in indices] == order[: sum(sizes)].tolist()


def test_bytes_of_8_and_16_bits_are_their_values_on_a_device():
    for dtype, values in ((np.uint8, [0, 1, 127, 128, 254, 255]), (np.uint16, [0, 1, 32767, 32768, 65534, 65535])):
        image = np.array(values, dtype).reshape(1, 2, 3)
        assert bytes_on(torch.device("cpu"), image).tolist() == [
            [[[v[c] for v in image.tolist()[0]]] for c in range(3)]
        ]
