"""A user's own images as a data set."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import dataset_settings, make_image
from PIL import Image
from pydantic import ValidationError

from msgunet.core.errors import UserError
from msgunet.data.manifest import read_manifest
from msgunet.data.prepare import prepare
from msgunet.data.sets.folder import FolderOptions


def own(folder: Path, names: list[str], size=(32, 16)) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(zlib.crc32(f"{folder.name}{i}".encode()), *size).save(path)
    return folder


def prepare_folder(tmp_path, **options):
    options = FolderOptions(**options).model_dump(mode="json")
    return read_manifest(prepare(dataset_settings("folder", (32, 16), **options), tmp_path / "out", tmp_path))


def test_two_folders_with_the_same_names(tmp_path):
    names = [f"{i}.png" for i in range(10)]
    source = own(tmp_path / "s", names)
    target = own(tmp_path / "t", [name.replace(".png", ".jpg") for name in names])
    pairs = prepare_folder(tmp_path, source=str(source), target=str(target))
    assert [p.split for p in pairs].count("test") == 2
    again = prepare_folder(tmp_path, source=str(source), target=str(target))
    assert again == pairs
    shutil.rmtree(tmp_path / "out")
    other = prepare_folder(tmp_path, source=str(source), target=str(target), split_seed=1)
    assert [p.split for p in other] != [p.split for p in pairs]


def test_some_of_the_pairs_of_each_split(tmp_path):
    names = [f"train/{i:02d}.png" for i in range(10)] + [f"val/{i}.png" for i in range(3)]
    own(tmp_path / "p", names, size=(64, 16))
    settings = dataset_settings("folder", (32, 16), **FolderOptions(pairs=str(tmp_path / "p")).model_dump(mode="json"))
    some = settings.model_copy(update={"pairs": (4, 5)})
    pairs = read_manifest(prepare(some, tmp_path / "out", tmp_path))
    assert [p.id for p in pairs if p.split == "train"] == ["train_00", "train_02", "train_05", "train_07"]
    assert [p.id for p in pairs if p.split == "test"] == ["val_0", "val_1", "val_2"], "all that there are"
    assert len(read_manifest(prepare(settings, tmp_path / "all", tmp_path))) == 13


def test_side_by_side_and_their_own_split(tmp_path):
    own(tmp_path / "p", ["train/a.png", "train/b.png", "val/a.png"], size=(65, 16))
    pairs = prepare_folder(tmp_path, pairs=str(tmp_path / "p"), source_side="right")
    assert {p.id: p.split for p in pairs} == {"train_a": "train", "train_b": "train", "val_a": "test"}
    whole = np.asarray(Image.open(tmp_path / "p" / "train" / "a.png"))
    source, target = (np.asarray(Image.open(tmp_path / "out" / p)) for p in (pairs[0].source, pairs[0].target))
    assert np.array_equal(source, whole[:, 33:])
    assert np.array_equal(target, whole[:, :32])


def test_images_beside_the_split_are_an_error(tmp_path):
    own(tmp_path / "p", ["train/a.png", "train/b.png", "val/a.png", "preview.png"])
    with pytest.raises(UserError, match=r"1 images are beside the folders train and test \(or val\).*: preview"):
        prepare_folder(tmp_path, pairs=str(tmp_path / "p"))


def test_images_without_a_partner_are_named(tmp_path):
    own(tmp_path / "s", [f"{i:02d}.png" for i in range(14)])
    own(tmp_path / "t", ["00.png", "01.png"])
    with pytest.raises(UserError, match=r"12 images have no partner in .*/t: 02, 03, .*, 11$"):
        prepare_folder(tmp_path, source=str(tmp_path / "s"), target=str(tmp_path / "t"))


@pytest.mark.parametrize(("one", "other"), [("a.png", "a.jpg"), ("é.png", "e\u0301.png"), ("a.png", "A.png")])
def test_names_that_some_file_systems_do_not_tell_apart(tmp_path, one, other):
    own(tmp_path / "p", [one, other])
    with pytest.raises(UserError, match="1 names stand twice"):
        prepare_folder(tmp_path, pairs=str(tmp_path / "p"))


def test_unicode_forms_are_the_same_name(tmp_path):
    own(tmp_path / "s", ["é.png", "b.png"])
    own(tmp_path / "t", ["e\u0301.png", "b.png"])
    assert len(prepare_folder(tmp_path, source=str(tmp_path / "s"), target=str(tmp_path / "t"))) == 2


def test_what_is_no_way_to_name_folders_is_said():
    for options in ({}, {"source": "a"}, {"source": "a", "target": "b", "pairs": "c"}):
        with pytest.raises(ValidationError, match="give either 'source' and 'target', or 'pairs'"):
            FolderOptions(**options)
