"""Published data sets from intact and damaged archives, and the commands for data sets."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, dataset_settings, make_image
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import DataSettings
from msgunet.data.manifest import read_manifest
from msgunet.data.overview import overview
from msgunet.data.prepare import check_prepared, prepare
from msgunet.data.sets.nyu import palette


def counts(manifest: Path) -> tuple[int, int]:
    splits = [pair.split for pair in read_manifest(manifest)]
    return splits.count("train"), splits.count("test")


def test_maps_from_the_real_archive(shared, tmp_path):
    manifest = prepare(dataset_settings("maps", (128, 128)), tmp_path, shared / "mirror", threads=2)
    assert counts(manifest) == (274, 69)
    pair = read_manifest(manifest)[0]
    assert (pair.source_width, pair.source_height) == (600, 600)
    assert check_prepared(tmp_path) == []
    # Aerial photographs are darker than maps.
    for pair in read_manifest(manifest)[:5]:
        source, target = (np.asarray(Image.open(tmp_path / path), float) for path in (pair.source, pair.target))
        assert source.mean() < target.mean()


def test_cityscapes_from_the_real_archives(shared, tmp_path):
    manifest = prepare(dataset_settings("cityscapes", (2048, 1024)), tmp_path, shared / "mirror", threads=2)
    assert counts(manifest) == (6, 2)
    pairs = read_manifest(manifest)
    assert (pairs[0].source_width, pairs[0].source_height) == (2048, 1024)
    colours = np.asarray(Image.open(tmp_path / pairs[0].source))
    codes = set(np.unique(colours @ [2**16, 2**8, 1]))
    assert 128 * 2**16 + 64 * 2**8 + 128 in codes, "the road's colour"
    assert len(codes) < 35
    assert [extra.split("=")[0] for extra in pairs[0].extras.split()] == ["instance_ids", "label_ids"]
    files = (f"train/{pairs[0].id}.{role}.png" for role in ("label_ids", "instance_ids"))
    labels, instances = (np.asarray(Image.open(tmp_path / file)) for file in files)
    road = (colours == (128, 64, 128)).all(-1)
    assert set(labels[road]) == {7}, "the road's id"
    assert instances.dtype == np.uint16
    numbered = instances >= 1000
    assert (instances[numbered] // 1000 == labels[numbered]).all(), "an instance id begins with its label id"
    assert check_prepared(tmp_path) == []
    (tmp_path / f"train/{pairs[0].id}.label_ids.png").unlink()
    assert len(check_prepared(tmp_path)) == 1


def test_ids_can_be_left_out(shared, tmp_path):
    manifest = prepare(dataset_settings("cityscapes", (64, 32), ids=False), tmp_path, shared / "mirror")
    assert {pair.extras for pair in read_manifest(manifest)} == {""}
    assert len(list((tmp_path / "train").iterdir())) == 12


def write_nyu(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    h5py, scipy_io = pytest.importorskip("h5py"), pytest.importorskip("scipy.io")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 48), np.uint8)
    labels = np.zeros((3, 64, 48), np.uint16)
    labels[:, 5, 7] = 21
    labels[:, 9, 11] = 894
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["labels"] = images, labels
    scipy_io.savemat(folder / "splits.mat", {"trainNdxs": np.array([[1], [3]]), "testNdxs": np.array([[2]])})
    mapping = np.full((1, 894), 40)
    mapping[0, 20] = 1
    scipy_io.savemat(folder / "classMapping40.mat", {"mapClass": mapping})
    return images, labels


def test_nyu_reverses_the_axes_of_matlab(tmp_path):
    images, _ = write_nyu(tmp_path)
    pairs = read_manifest(prepare(dataset_settings("nyu", (64, 48)), tmp_path / "out", tmp_path))
    assert [(p.id, p.split) for p in pairs] == [("0001", "train"), ("0003", "train"), ("0002", "test")]
    photo, label = (np.asarray(Image.open(tmp_path / "out" / p)) for p in (pairs[0].target, pairs[0].source))
    assert photo[7, 5].tolist() == images[0, :, 5, 7].tolist()
    assert label[7, 5].tolist() == palette(895)[21].tolist()
    assert label[0, 0].tolist() == [0, 0, 0]


def test_nyu_colours_are_well_separated():
    colours = palette(895).astype(int)
    assert colours[0].tolist() == [0, 0, 0]
    apart = np.abs(colours[:, None] - colours[None]).max(-1) + 255 * np.eye(895, dtype=int)
    assert apart.min() >= 28
    assert apart[np.arange(894), np.arange(1, 895)].min() >= 100, "neighbouring ids are far apart"


def test_nyu_with_40_classes(tmp_path):
    write_nyu(tmp_path)
    pairs = read_manifest(prepare(dataset_settings("nyu", (64, 48), classes="40"), tmp_path / "out", tmp_path))
    label = np.asarray(Image.open(tmp_path / "out" / pairs[0].source))
    assert label[7, 5].tolist() == palette(895)[1].tolist()
    assert label[11, 9].tolist() == palette(895)[40].tolist()
    assert label[0, 0].tolist() == [0, 0, 0]
    (tmp_path / "classMapping40.mat").unlink()
    with pytest.raises(UserError, match=r"classMapping40\.mat is not in"):
        prepare(dataset_settings("nyu", (64, 48), classes="40"), tmp_path / "again", tmp_path)


def test_nyu_splits_beyond_the_images_are_an_error(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    write_nyu(tmp_path)
    scipy_io.savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[1], [9]]), "testNdxs": np.array([[2]])})
    with pytest.raises(UserError, match="lists 1 images beyond the 3"):
        prepare(dataset_settings("nyu", (64, 48)), tmp_path / "out", tmp_path)


def test_missing_archives_are_all_named(tmp_path):
    with pytest.raises(UserError) as caught:
        prepare(dataset_settings("cityscapes", (64, 64)), tmp_path, tmp_path / "none")
    assert len(caught.value.problems) == 2
    assert "gtFine_trainvaltest.zip" in caught.value.problems[0]
    assert "cityscapes-dataset.com" in caught.value.problems[0]


CITYSCAPES = ("gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip")


def test_damaged_archives_are_named(tmp_path):
    (tmp_path / "maps.tar.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"maps\.tar\.gz: the archive is damaged"):
        prepare(dataset_settings("maps", (64, 64)), tmp_path / "o", tmp_path)
    for name in CITYSCAPES:
        (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="the archive is damaged"):
        prepare(dataset_settings("cityscapes", (64, 64)), tmp_path / "o2", tmp_path)


@pytest.mark.parametrize("where", [0.5, 0.999])
def test_an_archive_damaged_in_the_middle_is_an_error_not_a_smaller_data_set(shared, tmp_path, where):
    raw = bytearray((shared / "mirror" / "maps.tar.gz").read_bytes())
    raw[int(len(raw) * where)] ^= 0xFF
    (tmp_path / "maps.tar.gz").write_bytes(raw)
    with pytest.raises(UserError, match=r"maps\.tar\.gz: the archive is damaged|the image is damaged"):
        prepare(dataset_settings("maps", (16, 16)), tmp_path / "o", tmp_path)
    assert not (tmp_path / "o" / "manifest.csv").exists()


def test_a_damaged_image_in_a_zip_is_named(shared, tmp_path):
    (tmp_path / CITYSCAPES[0]).symlink_to(shared / "mirror" / CITYSCAPES[0])
    raw = bytearray((shared / "mirror" / CITYSCAPES[1]).read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / CITYSCAPES[1]).write_bytes(raw)
    with pytest.raises(UserError, match=r"leftImg8bit/.*\.png is damaged"):
        prepare(dataset_settings("cityscapes", (16, 16)), tmp_path / "o", tmp_path)


def test_prepare_by_name(shared, tmp_path, capsys):
    arguments = ["prepare", "cityscapes", "--mirror", str(shared / "mirror"), "--out", str(tmp_path / "c")]
    assert main([*arguments, "--size", "128", "64"]) == 0
    assert "6 train and 2 test pairs of 128x64" in capsys.readouterr().out
    assert main(["prepare", "citiscapes", "--out", str(tmp_path / "c")]) == 2
    assert "did you mean 'cityscapes'" in capsys.readouterr().err
    for wrong in ([], ["folder"], ["maps", "--size", "4", "4"]):
        assert main(["prepare", *wrong, "--out", str(tmp_path / "new")]) == 2
        assert "error: " in capsys.readouterr().err


def test_data_lists_every_data_set(working_folder, shared, capsys):
    text = "\n".join(overview(DataSettings(mirror={"maps": str(shared / "mirror")})))
    assert "not the published file of 250,242,400 bytes" in text
    assert "data/archives/gtFine_trainvaltest.zip (241 MB" in text
    assert "'msgunet fetch cityscapes' downloads it" in text
    assert "do not redistribute reports with its images" in text
    assert main(["data"]) == 0
    assert "maps: Aerial Images to Maps" in capsys.readouterr().out


def test_data_check_finds_changed_and_damaged_images(working_folder, capsys):
    folder = working_folder / "data" / "bluemarble-64x64-0"
    settings = dataset_settings("bluemarble", (64, 64), globe_width=1024, overlap=0.0, min_land=0.5)
    manifest = prepare(settings, folder, working_folder)
    (folder / "dataset.json").write_text(json.dumps(settings.model_dump(mode="json")))
    assert main(["data", "check", "bluemarble"]) == 0
    assert "all images as in the manifest" in capsys.readouterr().out
    first, second = read_manifest(manifest)[:2]
    make_image(3, 64, 64).save(folder / first.target)
    (folder / second.source).write_bytes(b"half")
    assert main(["data", "check", "bluemarble"]) == 2
    errors = capsys.readouterr().err
    assert f"{first.target}: its pixels differ from the manifest" in errors
    assert second.source in errors
    assert main(["data", "check"]) == 2
    assert main(["data", "check", "maps"]) == 2
    assert "maps: nothing to check" in capsys.readouterr().err


def test_a_killed_preparation_resumes(shared, tmp_path):
    settings = tmp_path / "dataset.json"
    settings.write_text(dataset_settings("maps", (128, 128)).model_dump_json())
    command = [sys.executable, "-m", "msgunet", "prepare", "--settings", str(settings), "--out", str(tmp_path / "o")]
    command += ["--mirror", str(shared / "mirror"), "--threads", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ)
    journal = tmp_path / "o" / ".journal"
    while not (journal.is_file() and journal.read_text().count("\n") > 20):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "o" / "manifest.csv").exists()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    remaining = int(done.stderr.split(" pairs to prepare")[0].split()[-1])
    assert remaining <= 343 - 20
    assert counts(tmp_path / "o" / "manifest.csv") == (274, 69)
    assert not list((tmp_path / "o").glob(".unpack-*"))
