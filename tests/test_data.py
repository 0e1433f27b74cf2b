"""Data: tiling, pairing, preparing, the order of a training."""

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_data, make_picture
from PIL import Image

from msgunet import registry
from msgunet.config import TrainingSettings
from msgunet.data.base import DataSet, RawPair, decode, resize
from msgunet.data.manifest import read_manifest
from msgunet.data.pairs import PairDataset, double, halve, normalise, pyramid, to_image, training_order
from msgunet.data.prepare import prepare
from msgunet.data.sets.bluemarble import BlueMarble, BlueMarbleOptions
from msgunet.data.sets.nyu import palette
from msgunet.errors import UserError


def write_dataset(folder: Path, kind: str, size, **options) -> Path:
    """A dataset.json as a plan writes it."""
    path = folder / "dataset.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "kind": kind, "version": 1, "size": list(size), "options": options}))
    return path


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
        settings = write_dataset(tmp_path / name, "bluemarble", (64, 64), **options)
        manifests.append(prepare(settings, tmp_path / name, Path("unused")).read_text())
    assert manifests[0] == manifests[1]
    pairs = read_manifest(tmp_path / "a" / "manifest.csv")
    assert {pair.split for pair in pairs} == {"train", "test"}
    # Coasts lie at the same place: where the source is deep blue, the target is sea, and it is brighter.
    agree = []
    for pair in pairs:
        source, target = (np.asarray(Image.open(tmp_path / "a" / p), int) for p in (pair.source, pair.target))
        sea = (source[..., 2] > source[..., 0] + 25) & (source.sum(-1) < 300)
        if 0.05 < sea.mean() < 0.95:
            blue = target[..., 2] - target[..., 0]
            agree.append(blue[sea].mean() - blue[~sea].mean())
        assert hashlib.sha256(source.astype(np.uint8).tobytes()).hexdigest() == pair.source_sha256
    assert len(agree) > 3
    assert min(agree) > 0


def test_all_directions_of_bluemarble_use_the_same_tiles():
    for direction in ("elevation_to_satellite", "satellite_to_elevation"):
        dataset = bluemarble((64, 64), globe_width=512, min_land=0.3, direction=direction)
        pair = dataset.pairs(Path("unused"))[0]
        assert pair.source().size == pair.target().size == (64, 64)
        assert dataset.tiles() == bluemarble((64, 64), globe_width=512, min_land=0.3).tiles()


def test_tiles_larger_than_the_globe_are_refused(tmp_path):
    settings = write_dataset(tmp_path, "bluemarble", (512, 512), globe_width=512)
    with pytest.raises(UserError, match="512x512 do not fit a globe of 512x256"):
        prepare(settings, tmp_path, Path("unused"))


class _Fake(DataSet):
    """Pairs given by the test."""

    title = "fake"
    given: list[RawPair] = []

    def pairs(self, work):
        return self.given


def prepare_fake(folder, monkeypatch, pairs):
    monkeypatch.setitem(registry._DATASETS, "fake", _Fake)
    monkeypatch.setattr(_Fake, "name", "fake", raising=False)
    monkeypatch.setattr(_Fake, "given", pairs)
    return prepare(write_dataset(folder, "fake", (16, 16)), folder, folder)


def raw(name, split, source, target=None):
    return RawPair(name, split, lambda: source, lambda: target or source, name=f"{name}.png")


def test_a_truncated_picture_is_named_and_leaves_no_manifest(tmp_path, monkeypatch):
    whole = tmp_path / "whole.jpg"
    make_picture(0, 64, 64).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-200])
    pairs = [raw("a", "train", make_picture(1, 16, 16)), raw("b", "test", make_picture(2, 16, 16))]
    broken = RawPair("c", "train", lambda: decode(cut, str(cut)), lambda: decode(cut, str(cut)), name="c")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"cut.jpg: not a whole picture"):
        prepare_fake(out, monkeypatch, [*pairs, broken])
    assert not (out / "manifest.csv").exists()


def test_the_same_picture_in_both_splits_is_an_error(tmp_path, monkeypatch):
    picture = make_picture(0, 16, 16)
    with pytest.raises(UserError, match="1 test pictures are also training pictures: b = a"):
        prepare_fake(tmp_path, monkeypatch, [raw("a", "train", picture), raw("b", "test", picture)])


def test_other_mistakes_in_pairs(tmp_path, monkeypatch):
    a, b = raw("a", "train", make_picture(0, 16, 16)), raw("b", "test", make_picture(1, 16, 16))
    with pytest.raises(UserError, match="have the id of another pair: a"):
        prepare_fake(tmp_path, monkeypatch, [a, a, b])
    with pytest.raises(UserError, match="no test pairs"):
        prepare_fake(tmp_path, monkeypatch, [a])
    odd = raw("c", "test", make_picture(1, 16, 16), make_picture(1, 16, 8))
    with pytest.raises(UserError, match=r"c\.png: the source is 16x16, the target 16x8"):
        prepare_fake(tmp_path, monkeypatch, [a, odd])


def test_left_over_pictures_are_removed(tmp_path, monkeypatch):
    pairs = [raw("a", "train", make_picture(0, 16, 16)), raw("b", "test", make_picture(1, 16, 16))]
    prepare_fake(tmp_path, monkeypatch, pairs)
    (tmp_path / "train" / "old.source.png").touch()
    prepare_fake(tmp_path, monkeypatch, pairs)
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == ["a.source.png", "a.target.png"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_kinds_of_pictures_become_rgb(tmp_path, mode):
    picture = make_picture(3, 20, 10)
    expected = np.asarray(picture.convert(mode).convert("RGB"))
    picture.convert(mode).save(tmp_path / "x.png")
    assert np.array_equal(np.asarray(decode(tmp_path / "x.png", "x")), expected)


def test_sixteen_bits_and_cmyk_are_refused_by_name(tmp_path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    make_picture(0, 8, 8).convert("CMYK").save(tmp_path / "print.jpg")
    for name in ("deep.png", "print.jpg"):
        with pytest.raises(UserError, match=rf"{name}: pictures of mode .* are not supported"):
            decode(tmp_path / name, name)


def test_labels_keep_their_colours():
    labels = Image.fromarray(palette(40)[np.random.default_rng(0).integers(0, 40, (48, 64))])
    before = {tuple(c) for c in np.asarray(labels).reshape(-1, 3)}
    assert {tuple(c) for c in np.asarray(resize(labels, (40, 30), "labels")).reshape(-1, 3)} <= before
    tensor = normalise(torch.from_numpy(np.array(labels)).permute(2, 0, 1)[None])
    small = pyramid(tensor, 3, "labels")[-1]
    for level in (small, double(small, "labels")):
        assert {tuple(c) for c in np.asarray(to_image(level[0])).reshape(-1, 3)} <= before


def test_halving_photos_takes_the_mean():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert halve(x, "photo").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_eight_bits_survive_the_way_to_the_network_and_back():
    image = make_picture(5, 32, 16)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert np.array_equal(np.asarray(to_image(normalise(tensor))), np.asarray(image))


def test_training_order_is_keyed_and_resumes_anywhere():
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
    one, other = (PairDataset(folder, "train", (64, 64), ("photo", "photo"), training, 7) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one[(3, 2)], other[(3, 2)], strict=True))
    seen = {one[(epoch, 2)].source.numpy().tobytes() for epoch in range(6)}
    assert len(seen) == 6
    source, target = one[(0, 1)]
    assert (source.int() + target.int() - 255).abs().max() <= 2, "source and target are moved together"


def test_maps_from_the_real_archive(shared, tmp_path):
    manifest = prepare(write_dataset(tmp_path, "maps", (64, 64)), tmp_path, shared / "mirror")
    splits = [pair.split for pair in read_manifest(manifest)]
    assert (splits.count("train"), splits.count("test")) == (274, 69)
    pair = read_manifest(manifest)[0]
    assert (pair.source_width, pair.source_height) == (600, 600)


def test_cityscapes_from_the_real_archives(shared, tmp_path):
    manifest = prepare(write_dataset(tmp_path, "cityscapes", (256, 128)), tmp_path, shared / "mirror")
    pairs = read_manifest(manifest)
    assert ([p.split for p in pairs].count("train"), [p.split for p in pairs].count("test")) == (6, 2)
    assert (pairs[0].source_width, pairs[0].source_height) == (2048, 1024)
    colours = {tuple(c) for c in np.asarray(Image.open(tmp_path / pairs[0].source)).reshape(-1, 3)}
    assert (128, 64, 128) in colours, "the road's colour"
    assert len(colours) < 35


def test_nyu_in_matlabs_axes(tmp_path):
    h5py = pytest.importorskip("h5py")
    scipy_io = pytest.importorskip("scipy.io")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 48), np.uint8)
    labels = np.zeros((3, 64, 48), np.uint16)
    labels[:, 5, 7] = 21
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["labels"] = images, labels
    scipy_io.savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[1], [3]]), "testNdxs": np.array([[2]])})
    out = tmp_path / "out"
    pairs = read_manifest(prepare(write_dataset(out, "nyu", (64, 48)), out, tmp_path))
    assert [(p.id, p.split) for p in pairs] == [("0001", "train"), ("0003", "train"), ("0002", "test")]
    photo, label = (np.asarray(Image.open(out / p)) for p in (pairs[0].target, pairs[0].source))
    assert photo[7, 5].tolist() == images[0, :, 5, 7].tolist()
    assert label[7, 5].tolist() == palette(895)[21].tolist()
    assert label[0, 0].tolist() == [0, 0, 0]
    assert len({tuple(c) for c in palette(895)}) == 895, "every id has a colour of its own"


def test_missing_archives_are_all_named(tmp_path):
    with pytest.raises(UserError) as caught:
        prepare(write_dataset(tmp_path, "cityscapes", (64, 64)), tmp_path, tmp_path / "none")
    assert len(caught.value.problems) == 2
    assert "gtFine_trainvaltest.zip" in caught.value.problems[0]
    assert "cityscapes-dataset.com" in caught.value.problems[0]


def test_damaged_archives_are_named(tmp_path):
    (tmp_path / "maps.tar.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"maps\.tar\.gz: not a whole archive"):
        prepare(write_dataset(tmp_path / "o", "maps", (64, 64)), tmp_path / "o", tmp_path)
    for name in ("gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"):
        (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="not a whole archive"):
        prepare(write_dataset(tmp_path / "o", "cityscapes", (64, 64)), tmp_path / "o", tmp_path)


def test_an_archive_damaged_in_the_middle_is_no_smaller_data_set(shared, tmp_path):
    raw = bytearray((shared / "mirror" / "maps.tar.gz").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / "maps.tar.gz").write_bytes(raw)
    with pytest.raises(UserError, match=r"maps\.tar\.gz: not a whole archive|not a whole picture"):
        prepare(write_dataset(tmp_path / "o", "maps", (16, 16)), tmp_path / "o", tmp_path)
    assert not (tmp_path / "o" / "manifest.csv").exists()


def test_nothing_is_unpacked_outside_the_folder(tmp_path):
    picture = tmp_path / "x.jpg"
    make_picture(0, 32, 16).save(picture)
    with tarfile.open(tmp_path / "maps.tar.gz", "w:gz") as archive:
        for name in ("../maps/train/1.jpg", "/maps/train/2.jpg", "maps/train/../../3.jpg"):
            member = archive.gettarinfo(picture)
            member.name = name
            with picture.open("rb") as file:
                archive.addfile(member, file)
        link = tarfile.TarInfo("maps/train/4.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match="no pairs"):
        prepare(write_dataset(tmp_path / "o", "maps", (16, 16)), tmp_path / "o", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["maps.tar.gz", "o", "x.jpg"]


def test_labels_without_a_photograph_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "gtFine_trainvaltest.zip", "w") as archive:
        archive.writestr("gtFine/train/ulm/ulm_000000_000019_gtFine_color.png", b"")
    with zipfile.ZipFile(tmp_path / "leftImg8bit_trainvaltest.zip", "w") as archive:
        archive.writestr("leftImg8bit/README", b"")
    with pytest.raises(UserError, match="1 label pictures have no photograph"):
        prepare(write_dataset(tmp_path / "o", "cityscapes", (64, 64)), tmp_path / "o", tmp_path)
