"""Large images: any size that fits into memory is translated; data sets have a limit, which a setting raises."""

import zlib

import numpy as np
import pytest
import tifffile
from conftest import ROOT, make_image
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.data.decode import open_image
from msgunet.data.images import read, read_raw
from msgunet.data.limits import SETTING, limited_by_memory

GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"


def claim(path, width, height, bits=8):
    """Write a PNG that has only a header."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(b"")
    chunks = b"".join((len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in (header, data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def translate(*images, out, more=()):
    return main(["translate", str(GENERATOR), *map(str, images), "--out", str(out), "--device", "cpu", *more])


def test_an_image_above_the_limit_of_data_sets_is_translated_in_tiles(tmp_path, monkeypatch):
    monkeypatch.setenv(SETTING, "0.01")
    make_image(0, 700, 500).save(tmp_path / "large.png")
    assert translate(tmp_path / "large.png", out=tmp_path / "out", more=["--tile", "256"]) == 0
    with Image.open(tmp_path / "out" / "large.png") as image:
        assert image.size == (700, 500)


def test_250_megapixels_are_opened_where_memory_allows(tmp_path):
    path = claim(tmp_path / "large.png", 16_000, 15_625)
    with limited_by_memory(4e9), open_image(path, "large.png") as image:
        assert image.size == (16_000, 15_625)
    with pytest.raises(
        UserError, match=r"large\.png: its header claims 16000x15625x3 values, more than 240 megapixels"
    ):
        read(path, "large.png")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_header_that_claims_more_than_the_memory_is_refused(tmp_path, capsys, bits):
    claim(tmp_path / "hostile.png", 60_000, 60_000, bits)
    make_image(0, 70, 50).save(tmp_path / "small.png")
    assert translate(tmp_path, out=tmp_path / "out", more=["--memory", "2"]) == 2
    errors = capsys.readouterr().err
    needed = "hostile.png: its header claims 60000x60000x3 values; reading them needs 43.2 GB of memory, but "
    assert needed in errors
    assert "GB are available" in errors
    assert "1 of 2 images were translated" in errors
    with limited_by_memory(1e9), pytest.raises(UserError, match=r"needs (10\.8|21\.6) GB of memory, but 1\.0 GB"):
        read_raw(tmp_path / "hostile.png", "hostile.png")


def test_a_tiff_is_limited_in_the_same_way(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((4, 200, 300), np.uint16), photometric="minisblack")
    assert read_raw(tmp_path / "x.tif", "x.tif").shape == (200, 300, 4)
    monkeypatch.setenv(SETTING, "0.05")
    with pytest.raises(UserError, match=r"x\.tif: its header claims 4x200x300 values, more than 0\.05 megapixels"):
        read_raw(tmp_path / "x.tif", "x.tif")
    with limited_by_memory(479_999), pytest.raises(UserError, match=r"needs 0\.5 MB"):
        read_raw(tmp_path / "x.tif", "x.tif")
    with limited_by_memory(480_000):
        assert read_raw(tmp_path / "x.tif", "x.tif").shape == (200, 300, 4)


def test_the_setting_is_named_and_raises_the_limit_of_data_sets(tmp_path, monkeypatch):
    make_image(0, 2000, 1500).save(tmp_path / "x.png")
    monkeypatch.setenv(SETTING, "2")
    with pytest.raises(UserError) as caught:
        read(tmp_path / "x.png", "x.png")
    assert "the limit for images of data sets and archives" in str(caught.value)
    assert str(caught.value).endswith(f"set {SETTING}=3")
    monkeypatch.setenv(SETTING, "3")
    assert read(tmp_path / "x.png", "x.png").shape == (1500, 2000, 3)
    monkeypatch.setenv(SETTING, "many")
    with pytest.raises(UserError, match=f"{SETTING}=many: must be a number of megapixels above 0"):
        read(tmp_path / "x.png", "x.png")


def test_the_limit_of_pillow_stays_for_images_that_others_open(tmp_path):
    limit, path = Image.MAX_IMAGE_PIXELS, claim(tmp_path / "large.png", 16_000, 15_625)
    assert limit == 2**30 // 4 // 3, "the limit of Pillow itself"
    with limited_by_memory(4e9), open_image(path, "large.png"), pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert limit == Image.MAX_IMAGE_PIXELS
