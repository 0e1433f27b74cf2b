"""What decoders say about files: once for each kind, with the first file and the number of files."""

import io
import re
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from conftest import dataset_settings, make_image
from own import put, put_pairs
from PIL import Image

import msgunet
from msgunet.core.errors import UserError
from msgunet.data.decoder_notes import collected_notes, note, reading
from msgunet.data.images import read, read_raw
from msgunet.data.prepare import prepare
from msgunet.data.sets.folder import FolderOptions
from msgunet.new_suite.discover import discover

# EXIF data that ends in its second entry.
CUT_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x01\0"


def with_cut_exif(path):
    """Insert damaged EXIF data into a JPEG file, as some cameras and editors write."""
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(CUT_EXIF) + 2) + CUT_EXIF + data[2:])


def png_with(path, kind, content):
    """Add a chunk after the header of a PNG file."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data[:33] + chunk + data[33:])


@pytest.fixture
def cameras(tmp_path):
    """Pairs with damaged EXIF data in four of five sources."""
    names = [f"{i}.jpg" for i in range(5)]
    folder = put_pairs(tmp_path / "pairs", *names)
    for name in names[1:]:
        with_cut_exif(folder / "a" / name)
    return folder


def run(code, *arguments):
    """Run Python code in another process, in which no test framework catches warnings."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; from pathlib import Path\n{code}", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )


def test_preparation_says_each_kind_once_with_the_first_file(cameras, tmp_path):
    options = FolderOptions(source=str(cameras / "a"), target=str(cameras / "b")).model_dump(mode="json")
    (tmp_path / "dataset.json").write_text(dataset_settings("folder", (32, 16), **options).model_dump_json())
    code = "from msgunet.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = run(code, "prepare", "--settings", tmp_path / "dataset.json", "--out", tmp_path / "out", "--threads", "3")
    (line,) = [line for line in done.stderr.splitlines() if "EXIF" in line]
    assert line == (
        f"{cameras}/a/1.jpg (and 3 other files): Corrupt EXIF data. Expecting to read 12 bytes but only got 10."
    )
    assert "Warning" not in done.stderr


def test_a_new_suite_says_it_too(cameras, capsys, recwarn):
    discover(cameras)
    assert capsys.readouterr().err.count("Corrupt EXIF data") == 1
    assert not recwarn.list


def test_kinds_are_distinguished_but_not_by_numbers(capsys):
    with collected_notes():
        for i in range(12):
            with reading(f"{i:02d}.tif"):
                note(f"Tag {i} is\n  wrong")
        with reading("05.tif"):
            note("another")
    assert capsys.readouterr().err == "00.tif (and 11 other files): Tag 0 is wrong\n05.tif: another\n"


def test_names_in_notes_are_printable(capsys):
    with collected_notes(), reading("a\x1b[2J\udcff"):
        note("odd")
    assert "\x1b" not in capsys.readouterr().err


def test_a_file_that_fails_is_only_an_error(tmp_path, capsys):
    put(tmp_path, "x.jpg")
    with_cut_exif(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:-300])
    with collected_notes(), pytest.raises(UserError, match=r"x\.jpg: the image is damaged"):
        read(tmp_path / "x.jpg", "x.jpg")
    assert capsys.readouterr().err == ""


def test_other_warnings_and_other_programs_keep_theirs(tmp_path, capsys):
    put(tmp_path, "x.jpg")
    with_cut_exif(tmp_path / "x.jpg")
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        msgunet.read(tmp_path / "x.jpg", "x.jpg")
    with collected_notes():
        read(tmp_path / "x.jpg", "x.jpg")
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
    assert "mine" not in capsys.readouterr().err
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        Image.open(tmp_path / "x.jpg").getexif()


def test_libpng_is_said_with_the_name(tmp_path, capsys):
    """Only 16-bit PNG files are read by libpng; its most frequent warning is about the colour profile."""
    for role in ("raw", "clean"):
        for i in range(3):
            (tmp_path / role).mkdir(exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 4000, (40, 60)).astype(np.uint16)
            msgunet.save(tmp_path / role / f"{i}.png", pixels[..., None])
            png_with(tmp_path / role / f"{i}.png", b"iCCP", b"icc\0\0" + zlib.compress(bytes(200)))
    code = "from msgunet.new_suite.discover import discover; discover(Path(sys.argv[1]))"
    assert run(code, tmp_path).stderr == f"{tmp_path}/clean/0.png (and 5 other files): PNG warning: iCCP: too short\n"
    with pytest.warns(UserWarning, match=r"x\.png: PNG warning: iCCP: too short"):
        read_raw(tmp_path / "raw" / "0.png", "x.png")


def test_further_images_of_a_tiff_are_named_once(tmp_path, capsys):
    folder = tmp_path / "pairs"
    names = [f"{i}.tif" for i in range(4)]
    put_pairs(folder, *names)
    for i in (1, 2, 3):
        with tifffile.TiffWriter(folder / "a" / f"{i}.tif") as tiff:
            tiff.write(np.asarray(make_image(i, 60, 40)), photometric="rgb")
            tiff.write(np.asarray(make_image(9, 30, 20)), photometric="rgb")
    options = FolderOptions(source=str(folder / "a"), target=str(folder / "b")).model_dump(mode="json")
    prepare(dataset_settings("folder", (32, 16), **options), tmp_path / "out", tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "images in the file" in line]
    assert lines == [f"{folder}/a/1.tif (and 2 other files): only the first of 2 images in the file is read"]
    with pytest.warns(UserWarning, match=r"1\.tif: only the first of 2 images"):
        msgunet.read(folder / "a" / "1.tif", "1.tif")


@pytest.mark.parametrize("count", [7, 12])
def test_many_channels_print_nothing(tmp_path, count):
    """Pillow logs an error about them, without the name; another reader reads them."""
    for role in ("a", "b"):
        (tmp_path / role).mkdir()
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 60, count)).astype(np.uint8)
            tifffile.imwrite(tmp_path / role / f"{i}.tif", pixels, photometric="minisblack", planarconfig="contig")
    code = "from msgunet.new_suite.discover import discover; print(discover(Path(sys.argv[1])).options)"
    done = run(code, tmp_path)
    assert f"'channels': {count}" in done.stdout
    assert done.stderr == ""


def test_all_animations_are_named_in_one_error(tmp_path, capsys):
    """The first frame of an animation is never taken for an image."""
    folder = put_pairs(tmp_path / "pairs", "still.png")
    frames = [make_image(i, 60, 40) for i in range(3)]
    for role in ("a", "b"):
        for kind in ("gif", "webp", "apng"):
            buffer = io.BytesIO()
            frames[0].save(buffer, "png" if kind == "apng" else kind, save_all=True, append_images=frames[1:])
            (folder / role / f"{kind}.{kind}").write_bytes(buffer.getvalue())
        for i, frame in enumerate(frames):
            tifffile.imwrite(folder / role / "pages.tif", np.asarray(frame), photometric="rgb", append=i > 0)
    options = FolderOptions(source=str(folder / "a"), target=str(folder / "b")).model_dump(mode="json")
    with pytest.raises(UserError) as caught:
        prepare(dataset_settings("folder", (32, 16), **options), tmp_path / "out", tmp_path)
    for kind in ("gif", "webp", "apng"):
        assert len(re.findall(rf"{kind}\.{kind}: an animation of 3 frames", str(caught.value))) == 1
    assert "pages.tif (and 1 other file): only the first of 3 images in the file is read" in capsys.readouterr().err
    with pytest.raises(UserError, match="an animation of 3 frames"):
        discover(folder)
