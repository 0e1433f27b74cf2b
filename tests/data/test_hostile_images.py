"""Images that are not what their name says: no program is started, and the error names the file."""

import zlib

import numpy as np
import pytest
import tifffile
from conftest import ROOT, make_image

import msgunet
from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.data.decode import decode, decode_ids
from msgunet.data.images import read, read_raw

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 40 40
%%EndComments
0 0 40 40 rectfill
showpage
%%EOF
"""
GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"


@pytest.fixture
def no_programs(monkeypatch):
    """Fails a test in which Pillow looks for Ghostscript."""
    from PIL import EpsImagePlugin

    def started(*given, **options):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)


@pytest.mark.parametrize("function", [decode, decode_ids, read, read_raw])
def test_an_eps_named_png_starts_no_program(tmp_path, no_programs, function):
    (tmp_path / "x.png").write_bytes(EPS)
    with pytest.raises(UserError, match=r"x\.png: not an image, or not in one of the formats PNG, JPEG"):
        function(tmp_path / "x.png", str(tmp_path / "x.png"))


def test_prepare_discover_and_translate_refuse_it_too(tmp_path, no_programs, capsys, working_folder):
    for role in ("before", "after"):
        folder = working_folder / "pairs" / role
        folder.mkdir(parents=True)
        for number in range(10):
            make_image(number, 128, 128).save(folder / f"{number}.png")
    (working_folder / "pairs" / "before" / "3.png").write_bytes(EPS)
    assert main(["new-suite", "mine.yaml", "--data", "pairs", "--device", "cpu"]) == 2
    assert "before/3.png: not an image" in capsys.readouterr().err
    (working_folder / "x.jpg").write_bytes(EPS)
    assert main(["translate", str(GENERATOR), "x.jpg", "--out", "out"]) == 2
    assert "x.jpg: not an image" in capsys.readouterr().err
    assert not list((working_folder / "out").glob("*.png"))


def test_formats_of_phones_are_read(tmp_path):
    first, second = make_image(1, 16, 16), make_image(2, 16, 16)
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    assert read(tmp_path / "phone.jpg", "phone.jpg").shape == (16, 16, 3)


def test_a_header_that_claims_a_huge_image_takes_no_memory(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="minisblack", planarconfig="contig")
    data = (tmp_path / "x.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "x.tif") as tiff:
        tags = [tiff.pages[0].tags[name] for name in ("ImageWidth", "ImageLength")]
        offsets = [tag.valueoffset for tag in tags]
        sizes = [2 if tag.dtype == 3 else 4 for tag in tags]
    changed = bytearray(data)
    for offset, size in zip(offsets, sizes, strict=True):
        changed[offset : offset + size] = (60_000).to_bytes(size, "little")
    (tmp_path / "x.tif").write_bytes(changed)
    with pytest.raises(UserError, match=r"x\.tif: its header claims 60000x60000x4 values"):
        read_raw(tmp_path / "x.tif", "x.tif")
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(UserError, match=r"x\.png: its header claims 60000x60000x3 values"):
        read_raw(tmp_path / "x.png", "x.png")


def test_the_public_reader_is_the_same(tmp_path):
    (tmp_path / "x.png").write_bytes(EPS)
    with pytest.raises(UserError, match="not an image"):
        msgunet.read(tmp_path / "x.png", "x.png")


def test_one_place_opens_images():
    sources = [path for folder in ("msgunet", "baselines", "examples") for path in (ROOT / folder).rglob("*.py")]
    # The model card is an example for other programs.
    opening = {str(path.relative_to(ROOT)) for path in sources if "Image.open(" in path.read_text()}
    assert opening == {"msgunet/data/decode.py", "msgunet/report/model_card.py"}
