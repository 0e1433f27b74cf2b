"""The option `fit` of a user's own images: what is done with another aspect ratio than that of the data set."""

import numpy as np
import pytest
from conftest import dataset_settings, make_image
from own import put, put_pairs
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.data.images import fit_shape
from msgunet.data.manifest import read_manifest
from msgunet.data.prepare import prepare
from msgunet.data.sets.folder import FolderOptions
from msgunet.suite.models import DataSetEntry
from msgunet.suite.runs import data_plan


def prepared(tmp_path, options, size, **changes):
    """Prepare a folder, and return the images of the first pair and the sizes that the manifest gives as published."""
    given = FolderOptions(**options).model_dump(mode="json")
    settings = dataset_settings("folder", size, **given).model_copy(update=changes)
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    pairs = read_manifest(prepare(settings, out, tmp_path))
    images = [np.asarray(Image.open(out / path)) for path in (pairs[0].source, pairs[0].target)]
    return *images, {(pair.source_width, pair.source_height) for pair in pairs}


@pytest.mark.parametrize("size", [(64, 64), (64, 32), (32, 64), (37, 91)])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50), (121, 33), (9, 300)])
def test_the_shape_has_the_aspect_ratio(size, shape):
    pixels = np.asarray(make_image(0, *shape))
    for fit in ("crop", "pad"):
        height, width = fit_shape(pixels, size, fit).shape[:2]
        # To the nearest pixel.
        assert abs(width - height * size[0] / size[1]) <= 0.5 or abs(height - width * size[1] / size[0]) <= 0.5
        smaller = width <= shape[0] and height <= shape[1]
        assert smaller if fit == "crop" else (width >= shape[0] and height >= shape[1])
        assert width == shape[0] or height == shape[1], "one side stays whole"
    assert fit_shape(pixels, size, "stretch") is pixels


def test_crop_keeps_the_centre_and_pad_continues_as_in_a_mirror():
    row = np.arange(6, dtype=np.uint8)[None, :, None].repeat(3, 0)
    assert fit_shape(row, (3, 3), "crop")[0, :, 0].tolist() == [1, 2, 3]
    assert fit_shape(row, (10, 3), "pad")[0, :, 0].tolist() == [1, 0, 0, 1, 2, 3, 4, 5, 5, 4]
    narrow = fit_shape(row[:, :2], (10, 3), "pad")
    assert narrow[0, :, 0].tolist() == [0, 1, 1, 0, 0, 1, 1, 0, 0, 1], "wider than the image itself"
    tall = row.swapaxes(0, 1)
    assert fit_shape(tall, (3, 10), "pad")[:, 0, 0].tolist() == [1, 0, 0, 1, 2, 3, 4, 5, 5, 4]


def test_both_images_of_a_pair_are_treated_alike(tmp_path):
    names = [f"{i}.png" for i in range(5)]
    folder = put_pairs(tmp_path / "p", *names, roles=["a"])
    (folder / "b").mkdir()
    for name in names:
        image = Image.open(folder / "a" / name)
        Image.eval(image, lambda value: 255 - value).save(folder / "b" / name)
    whole = np.asarray(Image.open(folder / "a" / "0.png"))
    options = {"source": str(folder / "a"), "target": str(folder / "b")}
    for fit, sizes in {"stretch": (60, 40), "crop": (40, 40), "pad": (60, 60)}.items():
        source, target, published = prepared(tmp_path, {**options, "fit": fit}, (40, 40))
        assert published == {sizes}
        assert np.abs(source.astype(int) + target - 255).max() <= 1
        if fit == "crop":
            assert np.array_equal(source, whole[:, 10:50]), "the centre, not resized"
    stretched = prepared(tmp_path, options, (40, 40))[0]
    assert np.array_equal(stretched, prepared(tmp_path, {**options, "fit": "stretch"}, (40, 40))[0])
    source, target, published = prepared(tmp_path, {**options, "fit": "pad", "source_kind": "labels"}, (60, 60))
    assert np.array_equal(source, np.pad(whole, ((10, 10), (0, 0), (0, 0)), mode="symmetric"))


def test_pairs_side_by_side_are_fitted_one_by_one(tmp_path):
    put(tmp_path / "p", *(f"{i}.png" for i in range(5)), size=(120, 40))
    whole = np.asarray(Image.open(tmp_path / "p" / "0.png"))
    source, target, _ = prepared(tmp_path, {"pairs": str(tmp_path / "p"), "fit": "crop"}, (40, 40))
    assert np.array_equal(source, whole[:, 10:50])
    assert np.array_equal(target, whole[:, 70:110])


def test_the_larger_images_for_jitter_show_the_same(tmp_path):
    """Their aspect ratio differs a little, but they must show what the others show."""
    folder = put_pairs(tmp_path / "p", *(f"{i}.png" for i in range(5)))
    options = {"source": str(folder / "a"), "target": str(folder / "b"), "fit": "crop"}
    source, _, published = prepared(tmp_path, options, (32, 16), train_size=(62, 46))
    assert published == {(60, 30)}
    assert source.shape[:2] == (46, 62)


def test_pairs_of_different_sizes_are_named_as_they_are(tmp_path):
    folder = put_pairs(tmp_path / "p", *(f"{i}.png" for i in range(5)))
    put(folder / "b", "3.png", size=(80, 30))
    for fit in ("crop", "pad"):
        options = {"source": str(folder / "a"), "target": str(folder / "b"), "fit": fit}
        with pytest.raises(UserError, match="the source is 60x40, but the target is 80x30"):
            prepared(tmp_path, options, (32, 32))


def test_the_default_changes_no_identity(tmp_path):
    options = {"pairs": str(put(tmp_path / "p", "1.png", "2.png"))}
    assert "fit" not in FolderOptions(**options).model_dump(mode="json")
    before = data_plan("mine", DataSetEntry(kind="folder", size=(32, 32), options=options))
    same = data_plan("mine", DataSetEntry(kind="folder", size=(32, 32), options={**options, "fit": "stretch"}))
    other = data_plan("mine", DataSetEntry(kind="folder", size=(32, 32), options={**options, "fit": "pad"}))
    assert before.folder == same.folder != other.folder
