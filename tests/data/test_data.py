"""Tiles, preparation of data sets, decoding, augmentation, and the order of training batches."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import dataset_settings, make_data, make_image
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.core.settings import TrainingSettings
from msgunet.data.base import DataSet, RawPair
from msgunet.data.decode import decode
from msgunet.data.images import as_pixels, resize
from msgunet.data.manifest import read_manifest
from msgunet.data.pairs import PairDataset, double, halve, normalise, pyramid, to_pixels, training_order
from msgunet.data.prepare import prepare
from msgunet.data.registry import _REGISTRY
from msgunet.data.sets.bluemarble import BlueMarble, BlueMarbleOptions
from msgunet.data.sets.nyu import palette


def bluemarble(size, **options) -> BlueMarble:
    return BlueMarble(BlueMarbleOptions(**options), size, Path("unused"))


@pytest.mark.parametrize("size", [(192, 96), (256, 256)])
def test_no_training_tile_touches_a_test_tile(size):
    tiles = bluemarble(size).tiles()
    boxes = {
        split: np.array([(x, y, x + size[0], y + size[1]) for x, y, s in tiles if s == split])
        for split in ("train", "test")
    }
    assert len(boxes["test"]) >= 10
    assert len(boxes["train"]) > 3 * len(boxes["test"])
    margin = 8
    for left, top, right, bottom in boxes["test"]:
        other = boxes["train"]
        apart = (other[:, 2] + margin <= left) | (other[:, 0] >= right + margin)
        apart |= (other[:, 3] + margin <= top) | (other[:, 1] >= bottom + margin)
        assert apart.all()


def test_bluemarble_is_registered_and_repeatable(tmp_path):
    options = {"globe_width": 1024, "overlap": 0, "min_land": 0.5}
    manifests = []
    for name in "ab":
        settings = dataset_settings("bluemarble", (64, 64), **options)
        manifests.append(prepare(settings, tmp_path / name, Path("unused"), threads=2).read_text())
    assert manifests[0] == manifests[1]
    pairs = read_manifest(tmp_path / "a" / "manifest.csv")
    assert {pair.split for pair in pairs} == {"train", "test"}
    # Coasts must coincide: where the source is deep blue (sea), the target is bluer than elsewhere.
    differences = []
    for pair in pairs:
        source, target = (np.asarray(Image.open(tmp_path / "a" / p), int) for p in (pair.source, pair.target))
        sea = (source[..., 2] > source[..., 0] + 25) & (source.sum(-1) < 300)
        if 0.05 < sea.mean() < 0.95:
            blue = target[..., 2] - target[..., 0]
            differences.append(blue[sea].mean() - blue[~sea].mean())
        assert hashlib.sha256(source.astype(np.uint8).tobytes()).hexdigest() == pair.source_sha256
    assert len(differences) > 3
    assert min(differences) > 0


def test_all_directions_of_bluemarble_use_the_same_tiles():
    for direction in ("elevation_to_satellite", "satellite_to_elevation"):
        dataset = bluemarble((64, 64), globe_width=512, min_land=0.3, direction=direction)
        pair = dataset.pairs(Path("unused"))[0]
        assert {role: np.shape(image) for role, image in pair.load().items()} == dict.fromkeys(
            ("source", "target"), (64, 64, 3)
        )
        assert dataset.tiles() == bluemarble((64, 64), globe_width=512, min_land=0.3).tiles()


def test_tiles_larger_than_the_globe_are_refused(tmp_path):
    settings = dataset_settings("bluemarble", (512, 512), globe_width=512)
    with pytest.raises(UserError, match="512x512 do not fit a globe of 512x256"):
        prepare(settings, tmp_path, Path("unused"))


class _Fake(DataSet):
    """A data set whose pairs the test defines."""

    title = "fake"
    raw_pairs: list[RawPair] = []

    def pairs(self, work):
        return self.raw_pairs


def prepare_fake(folder, monkeypatch, pairs):
    monkeypatch.setitem(_REGISTRY._classes, "fake", _Fake)
    monkeypatch.setattr(_Fake, "name", "fake", raising=False)
    monkeypatch.setattr(_Fake, "raw_pairs", pairs)
    return prepare(dataset_settings("fake", (16, 16)), folder, folder)


def raw(name, split, source, target=None):
    return RawPair(name, split, lambda: {"source": source, "target": target or source}, name=f"{name}.png")


def test_a_truncated_image_is_named_and_leaves_no_manifest(tmp_path, monkeypatch):
    whole = tmp_path / "whole.jpg"
    make_image(0, 64, 64).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-200])
    pairs = [raw("a", "train", make_image(1, 16, 16)), raw("b", "test", make_image(2, 16, 16))]
    broken = RawPair("c", "train", lambda: {"source": decode(cut, str(cut))}, name="c")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"cut.jpg: the image is damaged"):
        prepare_fake(out, monkeypatch, [*pairs, broken])
    assert not (out / "manifest.csv").exists()


def test_the_same_image_in_both_splits_is_an_error(tmp_path, monkeypatch):
    image = make_image(0, 16, 16)
    with pytest.raises(UserError, match="1 test images are also training images: b = a"):
        prepare_fake(tmp_path, monkeypatch, [raw("a", "train", image), raw("b", "test", image)])


def test_other_errors_in_pairs(tmp_path, monkeypatch):
    a, b = raw("a", "train", make_image(0, 16, 16)), raw("b", "test", make_image(1, 16, 16))
    with pytest.raises(
        UserError, match=r"have the same id as another pair; rename their files:\n  a\.png: a, as a\.png"
    ):
        prepare_fake(tmp_path, monkeypatch, [a, a, b])
    with pytest.raises(UserError, match="no test pairs"):
        prepare_fake(tmp_path, monkeypatch, [a])
    odd = raw("c", "test", make_image(1, 16, 16), make_image(1, 16, 8))
    with pytest.raises(UserError, match=r"c\.png: the source is 16x16, but the target is 16x8"):
        prepare_fake(tmp_path, monkeypatch, [a, odd])


def test_all_problems_are_reported_together(tmp_path, monkeypatch):
    good = [raw("a", "train", make_image(0, 16, 16)), raw("b", "test", make_image(1, 16, 16))]
    odd = [raw(f"c{i}", "test", make_image(i, 16, 16), make_image(i, 16, 8)) for i in range(3)]
    with pytest.raises(UserError) as caught:
        prepare_fake(tmp_path, monkeypatch, [*good, *odd])
    assert len(caught.value.problems) == 3
    many = [raw(f"d{i:02d}", "test", make_image(i, 16, 16), make_image(i, 16, 8)) for i in range(40)]
    with pytest.raises(UserError) as caught:
        prepare_fake(tmp_path, monkeypatch, [*good, *many])
    assert len(caught.value.problems) == 11
    assert "there may be more" in caught.value.problems[-1]


def test_an_interrupted_preparation_resumes(tmp_path, monkeypatch):
    """It decodes only the pairs that are not complete. The result equals that of an uninterrupted preparation."""
    decoded = []

    def counted(pair):
        return RawPair(pair.id, pair.split, lambda: decoded.append(pair.id) or pair.load(), pair.name)

    pairs = [raw(f"p{i}", "test" if i == 5 else "train", make_image(i, 16, 16)) for i in range(6)]
    whole = prepare_fake(tmp_path / "whole", monkeypatch, pairs).read_text()
    broken = RawPair("p3", "train", lambda: 1 / 0, "p3")
    with pytest.raises(ZeroDivisionError):
        prepare_fake(tmp_path / "cut", monkeypatch, [*map(counted, pairs[:3]), broken, *pairs[4:]])
    done = [json.loads(line)["pair"]["id"] for line in (tmp_path / "cut" / ".journal").read_text().splitlines()[1:]]
    assert done
    (tmp_path / "cut" / "train" / f"{done[0]}.source.png").write_bytes(b"half")
    with (tmp_path / "cut" / ".journal").open("a") as journal:
        journal.write('{"pair": {"id": "p')
    decoded.clear()
    assert prepare_fake(tmp_path / "cut", monkeypatch, list(map(counted, pairs))).read_text() == whole
    assert sorted(decoded) == sorted({p.id for p in pairs} - set(done[1:]))
    assert not (tmp_path / "cut" / ".journal").exists()


def test_a_journal_with_another_fingerprint_is_discarded(tmp_path, monkeypatch):
    pairs = [raw("a", "train", make_image(0, 16, 16)), raw("b", "test", make_image(1, 16, 16))]
    prepare_fake(tmp_path, monkeypatch, pairs)
    (tmp_path / ".journal").write_text("something else\n")
    prepare_fake(tmp_path, monkeypatch, pairs)
    assert len(read_manifest(tmp_path / "manifest.csv")) == 2


def test_only_folders_of_the_same_preparation_are_written_to(tmp_path, monkeypatch):
    """A folder with a user's files or with other settings is refused."""
    pairs = [raw("a", "train", make_image(0, 16, 16)), raw("b", "test", make_image(1, 16, 16))]
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "photo.png").write_bytes(b"x")
    with pytest.raises(UserError, match="is not empty and is not a prepared data set"):
        prepare_fake(tmp_path / "mine", monkeypatch, pairs)
    assert [p.name for p in (tmp_path / "mine").rglob("*")] == ["train", "photo.png"]
    prepare_fake(tmp_path / "other", monkeypatch, pairs)
    with pytest.raises(UserError, match="contains a data set with other settings"):
        prepare(dataset_settings("fake", (8, 8)), tmp_path / "other", tmp_path)


def test_a_failed_preparation_removes_the_earlier_manifest(tmp_path, monkeypatch):
    pairs = [raw("a", "train", make_image(0, 16, 16)), raw("b", "test", make_image(1, 16, 16))]
    manifest = prepare_fake(tmp_path, monkeypatch, pairs)
    with pytest.raises(UserError):
        prepare_fake(tmp_path, monkeypatch, [*pairs, raw("c", "test", make_image(1, 16, 16), make_image(1, 8, 8))])
    assert not manifest.exists()


def test_a_disk_that_is_too_small_is_reported_first(tmp_path, monkeypatch):
    monkeypatch.setattr("msgunet.data.prepare.shutil.disk_usage", lambda _: type("", (), {"free": 100})())
    pairs = [raw("a", "train", make_image(0, 16, 16)), raw("b", "test", make_image(1, 16, 16))]
    with pytest.raises(UserError, match=r"2 pairs of 16x16 need about 0\.0 GB"):
        prepare_fake(tmp_path, monkeypatch, pairs)


def test_leftover_images_are_removed(tmp_path, monkeypatch):
    pairs = [raw("a", "train", make_image(0, 16, 16)), raw("b", "test", make_image(1, 16, 16))]
    prepare_fake(tmp_path, monkeypatch, pairs)
    (tmp_path / "train" / "old.source.png").touch()
    prepare_fake(tmp_path, monkeypatch, pairs)
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == ["a.source.png", "a.target.png"]


def test_labels_keep_their_colours():
    labels = Image.fromarray(palette(40)[np.random.default_rng(0).integers(0, 40, (48, 64))])
    before = {tuple(c) for c in np.asarray(labels).reshape(-1, 3)}
    assert {tuple(c) for c in resize(as_pixels(labels), (40, 30), "labels").reshape(-1, 3)} <= before
    tensor = normalise(torch.from_numpy(np.array(labels)).permute(2, 0, 1)[None])
    small = pyramid(tensor, 3, "labels")[-1]
    for level in (small, double(small, "labels")):
        assert {tuple(c) for c in to_pixels(level[0]).reshape(-1, 3)} <= before


def test_halving_photos_takes_the_mean():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert halve(x, "photo").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_8_bit_values_survive_the_round_trip_to_the_network():
    image = make_image(5, 32, 16)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert np.array_equal(to_pixels(normalise(tensor)), np.asarray(image))


def test_training_order_is_keyed_and_resumes_at_any_step():
    whole = list(training_order(10, 3, seed=1, epochs=3, first_step=0))
    assert len(whole) == 9
    for step in range(10):
        assert list(training_order(10, 3, 1, 3, step)) == whole[step:]
    epochs = [sorted(i for batch in whole[e * 3 : e * 3 + 3] for _, i in batch) for e in range(3)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert list(training_order(10, 3, 2, 3, 0)) != whole


def test_augmentation_is_keyed_by_epoch_and_index(tmp_path):
    folder = make_data(tmp_path)
    training = TrainingSettings(flip=True, jitter=8)
    one, other = (
        PairDataset(folder, "train", (64, 64), ("photo", "photo"), training=training, seed=7) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one[(3, 2)], other[(3, 2)], strict=True))
    seen = {one[(epoch, 2)].source.numpy().tobytes() for epoch in range(6)}
    assert len(seen) == 6
    source, target = one[(0, 1)]
    assert (source.int() + target.int() - 255).abs().max() <= 2, "source and target are augmented together"
