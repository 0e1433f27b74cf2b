"""PNG files that are written fast: without loss, with and without imagecodecs."""

import io
import sys

import numpy as np
import pytest
from conftest import make_image
from PIL import Image

from msgunet.data.images import read_raw, save


@pytest.mark.parametrize("codecs", [True, False])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (200, 90)])
def test_pixels_are_kept(tmp_path, monkeypatch, codecs, dtype, channels, size):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)
    path = tmp_path / "x.png"
    with monkeypatch.context() as patch:
        if not codecs:
            patch.setitem(sys.modules, "imagecodecs", None)
        if not codecs and (dtype, channels) == (np.uint16, 3):
            with pytest.raises(ModuleNotFoundError):
                save(path, pixels)
            return
        # Mirrored, so that the memory is in another order.
        save(path, pixels[:, ::-1])
    assert np.array_equal(read_raw(path, "x"), pixels[:, ::-1])


@pytest.mark.parametrize("codecs", [True, False])
def test_a_photograph_takes_no_more_space_than_by_pillow(tmp_path, monkeypatch, codecs):
    noise = np.random.default_rng(0).normal(0, 2, (256, 512, 3))
    pixels = (np.asarray(make_image(0, 512, 256)) + noise).round().clip(0, 255).astype(np.uint8)
    before = io.BytesIO()
    Image.fromarray(pixels).save(before, "PNG", compress_level=4)
    if not codecs:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
    save(tmp_path / "x.png", pixels)
    assert (tmp_path / "x.png").stat().st_size < 1.02 * len(before.getvalue())
