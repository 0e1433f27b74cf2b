"""`msgunet translate` on folders as people have them: rows of the table in docs/own-data.md."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import ROOT, make_image
from own import put
from PIL import Image

import msgunet
from msgunet.cli.main import main
from msgunet.core.errors import UserError

GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"


def translate(*arguments: str) -> int:
    return main(["translate", str(GENERATOR), *arguments, "--out", "out", "--device", "cpu"])


def written() -> list[str]:
    return sorted(str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file())


def test_linked_folders_and_all_formats_are_translated(working_folder):
    put(Path("elsewhere"), "1.gif", "2.jfif", "3.ppm")
    put(Path("photos"), "0.png")
    Path("photos/link").symlink_to(Path("elsewhere").resolve())
    Path("photos/link/loop").symlink_to(Path("photos").resolve())
    assert translate("photos") == 0
    assert written() == ["0.png", "link/1.png", "link/2.png", "link/3.png"]
    assert translate("photos", "--keep-format") == 0
    with Image.open("out/link/2.jfif") as image:
        assert image.format == "JPEG"


def test_files_that_are_not_translated_are_named(working_folder, capsys):
    put(Path("photos"), "0.png")
    for name in ("1.heic", "2.HEIC", "Thumbs.db", "notes.txt"):
        Path("photos", name).touch()
    assert translate("photos") == 0
    errors = capsys.readouterr().err
    assert "2 files were not read (.heic): photos/1.heic, photos/2.HEIC; convert such files to PNG or TIFF" in errors
    assert "notes.txt" not in errors
    Path("photos/0.png").unlink()
    assert translate("photos") == 2
    assert "2 files were not read (.heic)" in capsys.readouterr().err


def test_a_name_that_is_not_utf_8_is_translated(working_folder):
    odd = os.fsdecode(b"caf\xe9")
    put(Path("photos"), f"{odd}.png", f"{odd}/1.png")
    assert translate("photos") == 0
    assert written() == [f"{odd}.png", f"{odd}/1.png"]


def test_errors_give_no_advice_of_another_verb(working_folder, capsys):
    Path("README.md").write_text("# Not an image")
    tifffile.imwrite("bands.tif", np.zeros((40, 60, 5), np.uint8), photometric="rgb")
    Image.fromarray(np.zeros((40, 60), np.uint16)).save("deep.png")
    assert translate("README.md", "bands.tif", "deep.png") == 2
    errors = capsys.readouterr().err
    assert "README.md: not an image, or not in one of the formats PNG" in errors
    assert "bands.tif: the image has 5 channels of 8 bits, but 3 of 8 bits are expected; " in errors
    assert "deep.png: the image has mode I;16 (16 bits), which is not 8-bit RGB; " in errors
    assert errors.count("this model translates 8-bit RGB, so convert the image") == 2
    for word in ("prepare", "suite", "source_format", "restore"):
        assert word not in errors


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_is_applied_once(working_folder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    method = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation]
    image = make_image(0, 60, 40)
    image.transpose(method).save("upright.png")
    image.save("turned.tif", exif=exif)
    image.save("turned.png", exif=exif)
    model = msgunet.load(GENERATOR, device="cpu")
    expected = np.asarray(model.translate(Image.open("upright.png"), name="x"))
    for name in ("turned.tif", "turned.png"):
        assert np.array_equal(np.asarray(model.translate(Image.open(name), name="x")), expected)
        assert np.array_equal(np.asarray(model.translate(msgunet.read(Path(name), name), name="x")), expected)


def test_an_opened_image_with_more_bands_is_refused(working_folder):
    tifffile.imwrite("bands.tif", np.zeros((40, 60, 5), np.uint8), photometric="rgb")
    with pytest.raises(UserError, match=r"the image has several pages or more bands than .* translates 8-bit RGB"):
        msgunet.load(GENERATOR, device="cpu").translate(Image.open("bands.tif"))
