"""Images as people have them: rows of the table in docs/own-data.md about files. test_own_names.py has the others."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import dataset_settings, make_image
from own import prepared, put, put_pairs
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat
from msgunet.data.decode import decode
from msgunet.data.images import read, read_raw
from msgunet.data.prepare import prepare
from msgunet.new_suite import choose
from msgunet.new_suite.discover import discover
from msgunet.suite.models import DataSetEntry
from msgunet.suite.runs import data_plan

NUMBERS = [str(i) for i in range(5)]


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("count", [4, 5])
def test_bands_of_a_tiff_beyond_rgb_are_never_dropped(tmp_path, count, planar, compression):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, count), np.uint8)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    layout = {"photometric": "rgb", "extrasamples": ["unspecified"] * (count - 3), "planarconfig": planar}
    for name in NUMBERS:
        for role in "ab":
            (tmp_path / role).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / role / f"{name}.tif", stored, compression=compression, **layout)
    file = tmp_path / "a" / "0.tif"
    assert discover(tmp_path).options["source_format"] == {"channels": count, "range": [0, 255]}
    assert np.array_equal(read(file, "x", ImageFormat(channels=count)), pixels)
    for channels in (1, 3):
        with pytest.raises(UserError, match=f"x: the image has {count} channels of 8 bits, but {channels} of 8 bits"):
            read(file, "x", ImageFormat(channels=channels))
    with pytest.raises(UserError, match=r"x: (the image has several pages or more bands|not an image)"):
        decode(file, "x")


def test_declared_alpha_of_a_tiff_is_dropped(tmp_path):
    pixels = np.full((40, 60, 4), 255, np.uint8)
    pixels[..., :3] = np.asarray(make_image(0, 60, 40))
    for alpha in ("unassalpha", "assocalpha"):
        tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", extrasamples=[alpha])
        assert np.array_equal(read(tmp_path / "x.tif", "x"), pixels[..., :3])


def test_a_tiff_with_three_grey_bands_is_read(tmp_path):
    pixels = np.asarray(make_image(0, 60, 40))
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read(tmp_path / "x.tif", "x"), pixels)


@pytest.mark.parametrize("kind", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_once_by_every_reader(tmp_path, orientation, kind):
    """new-suite's sizes, 8 bits and 16 bits agree."""
    image, exif = make_image(0, 64, 48), Image.Exif()
    exif[0x0112] = orientation
    for name in NUMBERS:
        for role in "ab":
            (tmp_path / role).mkdir(exist_ok=True)
            image.save(tmp_path / role / f"{name}.{kind}", exif=exif)
    file = tmp_path / "a" / f"0.{kind}"
    size = (64, 48) if orientation < 5 else (48, 64)
    assert discover(tmp_path).size == size
    turned = read(file, "x")
    assert turned.shape == (*size[::-1], 3)
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    expected = np.asarray(Image.open(file) if kind == "jpg" else image)
    if method is not None:
        expected = np.asarray(Image.fromarray(expected).transpose(Image.Transpose(method)))
    assert np.array_equal(turned, expected)
    assert np.array_equal(read_raw(file, "x"), expected)
    if kind != "jpg":
        Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257).save(file, exif=exif)
        deep = read(file, "x", ImageFormat(channels=1, range=(0, 65535)))[..., 0]
        assert np.array_equal(deep // 257, expected[..., 0])


def test_a_turned_tiff_and_its_upright_partner_are_a_pair(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "pairs"
    for name in NUMBERS:
        image = make_image(int(name), 60, 40)
        for role in "ab":
            (folder / role).mkdir(parents=True, exist_ok=True)
        image.save(folder / "a" / f"{name}.tif", exif=exif)
        image.transpose(Image.Transpose.ROTATE_270).save(folder / "b" / f"{name}.png")
    pairs = prepared(folder, size=(40, 60))
    assert {(pair.source_width, pair.source_height) for pair in pairs} == {(40, 60)}
    assert all(pair.source_sha256 == pair.target_sha256 for pair in pairs)


@pytest.mark.parametrize("ending", [".gif", ".jfif", ".jpe", ".webp", ".ppm", ".apng", ".mpo", ".pnm"])
def test_every_format_that_is_read_is_found(tmp_path, ending):
    folder = put(tmp_path / "pairs" / "a", *(f"{i}.png" for i in range(5))).parent
    (folder / "b").mkdir()
    kind = {".apng": "PNG", ".pnm": "PPM"}.get(ending)
    for i in range(5):
        make_image(i, 60, 40).save(folder / "b" / f"{i}{ending}", kind)
    assert len(prepared(folder)) == 5


def test_files_that_are_not_read_are_named(tmp_path):
    folder = put_pairs(tmp_path / "pairs", *(f"{i}.png" for i in range(6)))
    (folder / "b" / "3.png").rename(folder / "b" / "3.HEIC")
    (folder / "b" / "4.png").rename(folder / "b" / "4.xyz")
    (folder / "b" / "5.png").unlink()
    (folder / "b" / "5.png").symlink_to("nowhere")
    (folder / "b" / "3.txt").touch()
    with pytest.raises(UserError) as caught:
        discover(folder)
    first, second = caught.value.problems
    assert first == f"3 images have no counterpart in {folder / 'b'}: 3, 4, 5"
    assert second.startswith("4 files were not read (.heic, .txt, .xyz, broken link): ")
    for name in "345":
        (folder / "a" / f"{name}.png").unlink()
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "data.json"):
        (folder / "a" / name).touch()
    notes = discover(folder).notes
    assert any(note.startswith("2 files were not read (.heic, broken link): ") for note in notes), notes
    assert not any("Thumbs" in note or ".txt" in note for note in notes)
    shutil.rmtree(folder / "b")
    (folder / "b").mkdir()
    (folder / "b" / "1.avif").touch()
    with pytest.raises(UserError, match=r"images in 1 folders \(a\)(.|\n)*1 file was not read \(\.avif\)"):
        discover(folder)
    settings = dataset_settings("folder", (32, 16), pairs=str(folder / "b"))
    with pytest.raises(UserError, match=r"no images in .*\n1 file was not read \(\.avif\): .*1\.avif"):
        prepare(settings, tmp_path / "out", tmp_path)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_is_refused_by_name(tmp_path, kind):
    frames = [make_image(i, 60, 40) for i in range(3)]
    frames[0].save(tmp_path / f"x.{kind}", save_all=True, append_images=frames[1:])
    for function in (decode, read, read_raw):
        with pytest.raises(UserError, match=rf"x\.{kind}: an animation of 3 frames"):
            function(tmp_path / f"x.{kind}", f"x.{kind}")


def test_a_16_bit_ppm_is_not_read_as_8_bits(tmp_path):
    (tmp_path / "x.ppm").write_bytes(b"P6 2 2 65535\n" + bytes(range(24)))
    with pytest.raises(UserError, match=r"mode RGB \(16 bits\), which is not 8-bit RGB"):
        read(tmp_path / "x.ppm", "x.ppm")


def test_a_changed_time_changes_no_identity_but_the_preparation(tmp_path):
    options = {"pairs": str(put(tmp_path / "p", "1.png", "2.png"))}
    entry = DataSetEntry(kind="folder", size=(32, 32), options=options)
    before = data_plan("mine", entry)
    os.utime(tmp_path / "p" / "1.png", (4e9, 4e9))
    after = data_plan("mine", entry)
    assert (after.folder, after.settings) == (before.folder, before.settings)
    assert after.times != before.times
    put(tmp_path / "p", "3.png")
    assert data_plan("mine", entry).folder != before.folder


@pytest.mark.parametrize("count", [2, 3])
def test_few_pairs_give_a_suite_with_a_warning(working_folder, monkeypatch, capsys, count):
    monkeypatch.setattr(choose, "_times", lambda *given: dict.fromkeys(choose.METHODS, choose.Step(0.01, 1e9)))
    for role in "ab":
        put(Path("pairs") / role, *(f"{i}.png" for i in range(count)), size=(128, 128))
    assert main(["new-suite", "mine.yaml", "--data", "pairs", "--hours", "500", "--device", "cpu"]) == 0
    training = {2: "1 training pair", 3: "2 training pairs"}[count]
    warnings = (
        f"Only {training}: enough to try the commands, too few to compare methods.",
        "Only 1 test pair: to tell four methods apart, tests need at least 8, and intervals need 5.",
    )
    printed, written = capsys.readouterr().out, Path("mine.yaml").read_text()
    for warning in warnings:
        assert warning in printed
        assert warning in written
