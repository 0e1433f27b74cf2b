"""One rule for each kind of image: decoded to 8-bit RGB, kept as ids, or refused by name."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from conftest import make_image
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.data.decode import decode, decode_ids
from msgunet.data.images import as_pixels, resize


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    image = make_image(3, 20, 10)
    expected = np.asarray(image.convert(mode).convert("RGB"))
    image.convert(mode).save(tmp_path / "x.png")
    assert np.array_equal(np.asarray(decode(tmp_path / "x.png", "x")), expected)


def test_the_exif_orientation_is_applied(tmp_path):
    image = make_image(4, 40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated by a quarter turn
    image.save(tmp_path / "x.png", exif=exif)
    rotated = image.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(decode(tmp_path / "x.png", "x")), np.asarray(rotated))


def test_ids_keep_their_values(tmp_path):
    deep = Image.fromarray(np.array([[7, 26001], [33000, 0]], np.uint16))
    deep.save(tmp_path / "x.png")
    assert np.asarray(decode_ids(tmp_path / "x.png", "x")).tolist() == [[7, 26001], [33000, 0]]
    assert resize(as_pixels(deep), (4, 4), "labels").max() == 33000
    make_image(0, 8, 8).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match="an image of ids must have one channel"):
        decode_ids(tmp_path / "rgb.png", "rgb.png")


def test_16_bit_and_cmyk_images_are_refused_by_name(tmp_path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    # Pillow cannot write 16-bit colours, so the PNG is built by hand and the TIFF is written by tifffile.
    deep = np.full((8, 8, 3), 40_000, np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "colours.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    tifffile.imwrite(tmp_path / "colours.tif", deep)
    make_image(0, 8, 8).convert("CMYK").save(tmp_path / "print.jpg")
    for name in ("deep.png", "print.jpg", "colours.png", "colours.tif"):
        with pytest.raises(UserError, match=rf"{name}: the image has mode .*, which is not 8-bit RGB"):
            decode(tmp_path / name, name)
