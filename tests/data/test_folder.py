"""Data sets of kind `folder`: a user's write_images images."""

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


def write_images(folder: Path, names: list[str], size=(32, 16)) -> Path:
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
    source = write_images(tmp_path / "s", names)
    target = write_images(tmp_path / "t", [name.replace(".png", ".jpg") for name in names])
    pairs = prepare_folder(tmp_path, source=str(source), target=str(target))
    assert [p.split for p in pairs].count("test") == 2
    again = prepare_folder(tmp_path, source=str(source), target=str(target))
    assert again == pairs
    shutil.rmtree(tmp_path / "out")
    other = prepare_folder(tmp_path, source=str(source), target=str(target), split_seed=1)
    assert [p.split for p in other] != [p.split for p in pairs]


def test_a_subset_of_the_pairs_of_each_split(tmp_path):
    names = [f"train/{i:02d}.png" for i in range(10)] + [f"val/{i}.png" for i in range(3)]
    write_images(tmp_path / "p", names, size=(64, 16))
    settings = dataset_settings("folder", (32, 16), **FolderOptions(pairs=str(tmp_path / "p")).model_dump(mode="json"))
    subset = settings.model_copy(update={"pairs": (4, 5)})
    pairs = read_manifest(prepare(subset, tmp_path / "out", tmp_path))
    assert [p.id for p in pairs if p.split == "train"] == ["train_00", "train_02", "train_05", "train_07"]
    assert [p.id for p in pairs if p.split == "test"] == ["val_0", "val_1", "val_2"], "all available pairs"
    assert len(read_manifest(prepare(settings, tmp_path / "all", tmp_path))) == 13


def test_pairs_side_by_side_with_a_given_split(tmp_path):
    write_images(tmp_path / "p", ["train/a.png", "train/b.png", "val/a.png"], size=(65, 16))
    pairs = prepare_folder(tmp_path, pairs=str(tmp_path / "p"), source_side="right")
    assert {p.id: p.split for p in pairs} == {"train_a": "train", "train_b": "train", "val_a": "test"}
    whole = np.asarray(Image.open(tmp_path / "p" / "train" / "a.png"))
    source, target = (np.asarray(Image.open(tmp_path / "out" / p)) for p in (pairs[0].source, pairs[0].target))
    assert np.array_equal(source, whole[:, 33:])
    assert np.array_equal(target, whole[:, :32])


def test_images_outside_the_split_folders_are_an_error(tmp_path):
    write_images(tmp_path / "p", ["train/a.png", "train/b.png", "val/a.png", "preview.png"])
    with pytest.raises(UserError, match=r"1 images are outside the folders train and test \(or val\).*: preview"):
        prepare_folder(tmp_path, pairs=str(tmp_path / "p"))


def test_unpaired_images_are_named(tmp_path):
    write_images(tmp_path / "s", [f"{i:02d}.png" for i in range(14)])
    write_images(tmp_path / "t", ["00.png", "01.png"])
    with pytest.raises(UserError, match=r"12 images have no counterpart in .*/t: 02, 03, .*, 11$"):
        prepare_folder(tmp_path, source=str(tmp_path / "s"), target=str(tmp_path / "t"))


@pytest.mark.parametrize(("one", "other"), [("a.png", "a.jpg"), ("é.png", "e\u0301.png"), ("a.png", "A.png")])
def test_names_that_some_file_systems_do_not_distinguish(tmp_path, one, other):
    write_images(tmp_path / "p", [one, other])
    with pytest.raises(UserError, match="1 names occur twice"):
        prepare_folder(tmp_path, pairs=str(tmp_path / "p"))


def test_unicode_forms_of_a_name_match(tmp_path):
    write_images(tmp_path / "s", ["é.png", "b.png"])
    write_images(tmp_path / "t", ["e\u0301.png", "b.png"])
    assert len(prepare_folder(tmp_path, source=str(tmp_path / "s"), target=str(tmp_path / "t"))) == 2


def test_invalid_combinations_of_folders_are_an_error():
    for options in ({}, {"source": "a"}, {"source": "a", "target": "b", "pairs": "c"}):
        with pytest.raises(ValidationError, match="give either 'source' and 'target', or 'pairs'"):
            FolderOptions(**options)
