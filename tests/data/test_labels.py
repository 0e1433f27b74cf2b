"""Label ids: as grey images, in images with a palette, and beyond the labels that there are."""

import re
import struct
import zlib

import numpy as np
import pytest
from conftest import ROOT, dataset_settings, make_image
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.data.decode import decode
from msgunet.data.images import read, read_raw
from msgunet.data.prepare import prepare
from msgunet.data.sets.folder import FolderOptions
from msgunet.new_suite.discover import discover


def label_pairs(folder, ids, dtype=np.uint8, count=16, size=64):
    """Write photos, and grey images of blocks with these ids."""
    for i in range(count):
        for role in ("photo", "label"):
            (folder / role).mkdir(parents=True, exist_ok=True)
        make_image(i, size, size).save(folder / "photo" / f"{i:02d}.png")
        blocks = np.random.default_rng(i).choice(np.array(ids, dtype), (4, 4))
        blocks.flat[:2] = ids[0], ids[-1]
        Image.fromarray(np.kron(blocks, np.ones((size // 4, size // 4), dtype))).save(folder / "label" / f"{i:02d}.png")
    return folder


def label_note(found):
    notes = [note for note in found.notes if "label ids" in note]
    assert len(notes) <= 1
    return notes[0] if notes else ""


def test_grey_label_ids_are_noticed_and_spread_over_the_range(tmp_path):
    found = discover(label_pairs(tmp_path, range(34)))
    assert found.options["source_format"] == {"channels": 1, "range": [0, 33]}
    assert found.options["source_kind"] == "labels"
    note = label_note(found)
    assert "hold only values from 0 to 33, as label ids do, which are nearly one colour in the range 0 to 255" in note
    assert "the range 0 to 33 spreads them" in note
    assert "PNG with a palette" in note


@pytest.mark.parametrize(
    ("ids", "dtype", "values", "expected"),
    [
        ([0, 1], np.uint8, "0 to 1", [0, 1]),
        # 255 marks pixels without a label: it is no id, and no range can hold it with the others spread.
        ([*range(19), 255], np.uint8, "0 to 18 and 255", [0, 255]),
        (range(1000, 1020), np.uint16, "1000 to 1019", [1000, 1019]),
        # A range that ends below 256 would mean 8 bits.
        (range(10), np.uint16, "0 to 9", [0, 256]),
    ],
)
def test_other_label_ids(tmp_path, ids, dtype, values, expected):
    found = discover(label_pairs(tmp_path, list(ids), dtype))
    assert found.options["source_format"]["range"] == expected
    assert found.options["source_kind"] == "labels"
    assert f"hold only values from {values}, as label ids do" in label_note(found)


@pytest.mark.parametrize("ids", [[0, 255], [0, 128, 255], list(range(0, 250, 25))])
def test_grey_images_of_few_but_distant_values_are_not_taken_for_ids(tmp_path, ids):
    found = discover(label_pairs(tmp_path, ids))
    assert label_note(found) == ""
    assert found.options["source_format"] == {"channels": 1, "range": [0, 255]}


def test_one_image_of_many_values_decides_against_ids(tmp_path):
    folder = label_pairs(tmp_path, range(34))
    # Not in a sample of 12.
    make_image(99, 64, 64).convert("L").save(folder / "label" / "06.png")
    assert label_note(discover(folder)) == ""


def test_an_id_beyond_the_labels_is_an_error(tmp_path):
    folder = label_pairs(tmp_path / "labels", range(34), count=4)
    options = FolderOptions(**discover(folder).options).model_dump(mode="json")
    pixels = np.array(Image.open(folder / "label" / "02.png"))
    pixels[0, 0] = 40
    Image.fromarray(pixels).save(folder / "label" / "02.png")
    with pytest.raises(UserError) as caught:
        prepare(dataset_settings("folder", (32, 32), **options), tmp_path / "out", tmp_path)
    assert "1 source has values outside the range 0 to 33, and no label may be cut" in str(caught.value)
    assert f"{folder}/label/02.png: 0.0244 % of the pixels, with values from 0 to 40" in str(caught.value)


def png(path, indices, colours):
    """Write a PNG with a palette of this many colours; no writer would write a value beyond it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in indices.astype(np.uint8))
    palette = np.arange(1, 3 * colours + 1).astype(np.uint8).tobytes()
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*given) for given in chunks))


def gif(path, colours):
    """Write a GIF of the values 0 to 9 with a palette of 16 colours, and change that number in its header."""
    image = Image.fromarray((np.arange(100).reshape(10, 10) % 10).astype(np.uint8), "P")
    image.putpalette(list(range(30)))
    image.save(path)
    data = bytearray(path.read_bytes())
    bits = {16: 3, 8: 2, 4: 1}
    assert data[10] & 7 == bits[16]
    data[10] = data[10] & ~7 | bits[colours]
    path.write_bytes(data[: 13 + 3 * colours] + data[13 + 3 * 16 :])


@pytest.mark.parametrize("reader", [decode, read, read_raw])
def test_a_value_beyond_the_palette_is_an_error_not_black(tmp_path, reader):
    indices = np.arange(100).reshape(10, 10) % 10
    png(tmp_path / "all.png", indices, 10)
    reader(tmp_path / "all.png", "all.png")
    png(tmp_path / "x.png", indices, 9)
    with pytest.raises(UserError, match=r"^x\.png: the image holds the value 9, but its palette .* only for 0 to 8"):
        reader(tmp_path / "x.png", "x.png")
    gif(tmp_path / "all.gif", 16)
    reader(tmp_path / "all.gif", "all.gif")
    gif(tmp_path / "x.gif", 8)
    with pytest.raises(UserError, match=r"^x\.gif: the image holds the value 9, but its palette .* only for 0 to 7"):
        reader(tmp_path / "x.gif", "x.gif")
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(list(range(30)))
    image.save(tmp_path / "all.bmp")
    image.save(tmp_path / "all.tif")
    assert reader(tmp_path / "all.bmp", "all.bmp") is not None
    assert reader(tmp_path / "all.tif", "all.tif") is not None


def test_the_palette_of_the_docs_gives_each_label_a_colour(tmp_path, monkeypatch):
    folder = label_pairs(tmp_path, range(34))
    (folder / "label").rename(folder / "labels")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-data.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "putpalette" in block]
    before = np.array(Image.open(folder / "labels" / "00.png"))
    monkeypatch.chdir(folder)
    exec(code, {})
    found = discover(folder)
    assert label_note(found) == ""
    assert "source_format" not in found.options, "8-bit RGB"
    assert found.options["source_kind"] == "labels"
    pixels = read(folder / "labels" / "00.png", "x")
    assert pixels[before == 33].tolist() == [[119, 11, 32]] * (before == 33).sum()
