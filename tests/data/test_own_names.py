"""Folders as people have them: rows of the table in docs/own-data.md about names of files and folders, and links."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import dataset_settings, make_image
from own import prepared, put, put_pairs
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.data.find import find, looks_like_a_split
from msgunet.data.prepare import prepare
from msgunet.new_suite import choose
from msgunet.new_suite.discover import discover


def refused(match: str, folder: Path):
    with pytest.raises(UserError, match=match):
        discover(folder)


@pytest.mark.parametrize("roles", [("training", "validation"), ("trainval", "testing"), ("Train", "dev")], ids=str)
def test_known_names_of_splits(tmp_path, roles):
    names = [f"{roles[0]}/{i}.png" for i in range(3)] + [f"{roles[1]}/9.png"]
    folder = put_pairs(tmp_path / "ade", *names, roles=("images", "annotations"))
    assert discover(folder).counts == (3, 1)
    pairs = prepared(folder)
    assert [pair.id for pair in pairs if pair.split == "test"] == [f"{roles[1]}_9"]


@pytest.mark.parametrize("ending", ["{}A {}B", "{}_images {}_labels"])
def test_the_layout_of_cyclegan(tmp_path, ending):
    folder = tmp_path / "cycle"
    for split, names in {"train": ["1.png", "2.jpg"], "test": ["3.png"]}.items():
        for role in ending.split():
            put(folder / role.format(split), *names)
    found = discover(folder)
    assert found.counts == (2, 1)
    first = "_labels" if "labels" in ending else "A"
    assert found.options["source"] == str(folder / f"*{first}")
    pairs = prepared(folder)
    assert {pair.id: pair.split for pair in pairs} == {"train_1": "train", "train_2": "train", "test_3": "test"}
    source = np.asarray(Image.open(tmp_path / "out" / pairs[0].source))
    assert source.shape == (16, 32, 3)
    put(folder / ending.split()[0].format("train"), "more.png")
    refused(r"1 image has no counterpart in .*: train/more", folder)


def test_a_folder_that_looks_like_a_split_is_asked_about(tmp_path):
    for number, (train, test) in enumerate((("train2017", "val2017"), ("trn", "tst"), ("x", "validation_set"))):
        folder = put_pairs(tmp_path / str(number), f"{train}/1.png", f"{train}/2.png", f"{test}/3.png")
        match = rf"is {train} or {test} a split\?" if train != "x" else r"is validation_set a split\?"
        refused(match + r".*train, training, trainval \(for training\)", folder)
    refused(r"is city_val a split", put_pairs(tmp_path / "deep", "x/city_val/1.png", "x/other/2.png"))
    top = tmp_path / "top"
    for name in ("train2017", "val2017"):
        put(top / name, "1.png")
    refused(r"is train2017 or val2017 a split\?", top)
    unpaired = tmp_path / "unpaired"
    for name in ("trainA", "trainB", "testA"):
        put(unpaired / name, "1.png")
    refused(r"is testA or trainA or trainB a split\?", unpaired)
    for name in ("latest", "contest", "valley", "device", "restrain"):
        assert not looks_like_a_split(name), name


def test_linked_folders_are_entered_and_loops_are_not(tmp_path):
    put_pairs(tmp_path / "elsewhere", *(f"{i}.png" for i in range(5)))
    folder = put_pairs(tmp_path / "pairs", *(f"x/{i}.png" for i in range(5)))
    for role in "ab":
        (folder / role / "link").symlink_to(tmp_path / "elsewhere" / role)
        (folder / role / "loop").symlink_to(folder / role)
        (folder / role / "x" / "loop").symlink_to(folder)
    assert sum(discover(folder).counts) == 10
    assert sum(path.name == "3.png" for path in find(folder / "a").images) == 2


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    folder, scandir = put_pairs(tmp_path / "pairs", "x/1.png", "2.png"), os.scandir

    def locked(path):
        if str(path).endswith("x"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match="a/x: Permission denied; its images would be missing"):
        find(folder / "a")


def test_folders_that_share_a_linked_folder_each_have_its_images(tmp_path):
    folder = put_pairs(tmp_path / "pairs", "x/1.png", "y/1.png", roles="a")
    put(tmp_path / "masks", "1.png")
    (folder / "b").mkdir()
    for name in "xy":
        (folder / "b" / name).symlink_to(tmp_path / "masks")
    assert sum(discover(folder).counts) == 2


@pytest.mark.parametrize(
    "names",
    [("कि", "का", "क"), ("photo(1)", "photo[1]", "photo_1_"), ("a b", "a_b", "train_a"), ("é!", "É?")],
    ids=["vowel signs", "brackets", "space", "capital"],
)
def test_names_that_differ_in_other_characters_have_distinct_ids(tmp_path, names):
    pairs = prepared(put_pairs(tmp_path / "pairs", *(f"{name}.png" for name in (*names, "plain-1.x"))))
    ids = [pair.id for pair in pairs]
    assert len({name.casefold() for name in ids}) == len(names) + 1
    assert {"plain-1.x", *(name for name in names if name.isascii() and name.isidentifier())} <= set(ids)


def test_ids_without_a_collision_have_no_hash(tmp_path):
    pairs = prepared(put_pairs(tmp_path / "pairs", "IMG 1.png", "b/c.png", "कि.png"))
    assert {pair.id for pair in pairs} == {"IMG_1", "b_c", "क_"}


@pytest.mark.parametrize("length", [200, 231, 2000])
def test_deep_folders_have_ids_of_limited_length(tmp_path, length):
    parts = "/".join(["p" * 49] * (length // 50))
    names = [f"{parts}/{'x' * (length % 50)}{i}.png" for i in range(3)]
    pairs = prepared(put_pairs(tmp_path / "pairs", *names))
    plain = {name.removesuffix(".png").replace("/", "_") for name in names}
    assert len({pair.id for pair in pairs}) == 3
    assert max(len(pair.id) for pair in pairs) <= 230
    assert ({pair.id for pair in pairs} == plain) == (length == 200)


def test_names_that_are_not_utf_8(tmp_path, monkeypatch, working_folder, capsys):
    monkeypatch.setattr(choose, "_times", lambda *given: dict.fromkeys(choose.METHODS, choose.Step(0.01, 1e9)))
    odd = os.fsdecode(b"caf\xe9")
    put_pairs(Path("pairs"), *(f"{i}.png" for i in range(5)), f"{odd}.png", "caf\N{REPLACEMENT CHARACTER}.png")
    for role in "ab":
        for path in (Path("pairs") / role).iterdir():
            make_image(1 + len(path.name), 128, 128).save(path)
        Path("pairs", role, f"{odd}.heic").touch()
    assert main(["new-suite", "mine.yaml", "--data", "pairs", "--hours", "1", "--device", "cpu"]) == 0
    assert "caf\\udce9.heic" in capsys.readouterr().out
    assert "caf\\udce9.heic" in Path("mine.yaml").read_text()
    put_pairs(Path("other"), *(f"{i}.png" for i in range(5)), f"{odd}.png")
    assert len(prepared(Path("other"))) == 6
    Path("other", "a", f"{odd}.png").write_bytes(b"damaged")
    shutil.rmtree("out")
    settings = dataset_settings("folder", (32, 16), source="other/a", target="other/b")
    Path("settings.json").write_text(settings.model_dump_json())
    assert main(["prepare", "--settings", "settings.json", "--out", "out2"]) == 2
    assert "other/a/caf\\udce9.png: not an image" in capsys.readouterr().err
    Path("other").rename(odd)
    assert main(["new-suite", "other.yaml", "--data", odd]) == 2
    assert "caf\\udce9/a: a suite cannot hold this name" in capsys.readouterr().err


def test_a_line_break_in_a_name_does_not_leave_the_comment(working_folder, monkeypatch):
    monkeypatch.setattr(choose, "_times", lambda *given: dict.fromkeys(choose.METHODS, choose.Step(0.01, 1e9)))
    for role in "ab":
        put(Path("pairs") / role, *(f"{i}.png" for i in range(5)), size=(128, 128))
    Path("pairs", "a", "x\ncompute: {device: cuda}\n.heic").touch()
    assert main(["new-suite", "mine.yaml", "--data", "pairs", "--hours", "1", "--device", "cpu"]) == 0
    assert "\ncompute: {device: cuda}" not in Path("mine.yaml").read_text()


def test_an_error_about_equal_ids_names_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr("msgunet.data.sets.folder._ids", lambda names: dict.fromkeys(names, "same"))
    folder = put_pairs(tmp_path / "pairs", "1.png", "2.png")
    settings = dataset_settings("folder", (32, 16), source=str(folder / "a"), target=str(folder / "b"))
    with pytest.raises(UserError, match=r"1 pairs have the same id.*\n.*a/2\.png and .*b/2\.png: same, as .*a/1\.png"):
        prepare(settings, tmp_path / "out", tmp_path)
