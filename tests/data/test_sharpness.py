"""Training images are as sharp as test images: jitter crops from the original's pixels, as published."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import dataset_settings, make_data
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.core.settings import DataSetSettings, RunSettings, TrainingSettings
from msgunet.data.pairs import PairDataset
from msgunet.data.prepare import check_prepared, prepare
from msgunet.suite.plan import load_plan

JITTER = TrainingSettings(flip=True, jitter=30)


def sharpness(pixels) -> float:
    """The mean absolute difference of horizontal neighbours."""
    return float(np.abs(np.diff(np.asarray(pixels, np.float64), axis=1)).mean())


def ratios(settings: DataSetSettings, out: Path) -> list[float]:
    """The sharpness of jittered training images over that of the same images without jitter: source, target."""
    prepare(settings, out, Path("none"))
    larger = settings.model_copy(update={"train_size": (286, 286)})
    prepare(larger, out.with_name(f"{out.name}-train286x286"), Path("none"))
    pairs = PairDataset(out, "train", (256, 256), ("photo", "photo"), resampling=settings.resampling, training=JITTER)
    found = [
        [sharpness(side.permute(1, 2, 0)) for item in ((0, index), index) for side in pairs[item]]
        for index in range(len(pairs))
    ]
    jittered_source, jittered_target, source, target = np.mean(found, axis=0)
    return [jittered_source / source, jittered_target / target]


def published_ratio(images: list[Image.Image]) -> float:
    """The same ratio in the published pipeline: the original to 286 pixels, then a crop of 256; the original to 256."""
    rng = np.random.default_rng(1)
    jittered, plain = [], []
    for image in images:
        x, y = (int(v) for v in rng.integers(0, 31, 2))
        jittered.append(sharpness(image.resize((286, 286), Image.Resampling.BICUBIC).crop((x, y, x + 256, y + 256))))
        plain.append(sharpness(image.resize((256, 256), Image.Resampling.BICUBIC)))
    return np.mean(jittered) / np.mean(plain)


@pytest.mark.parametrize("resampling", ["lanczos", "bicubic"])
def test_jittered_photographs_are_as_sharp_as_published(tmp_path, shared, resampling):
    images = []
    with tarfile.open(shared / "mirror" / "maps.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                (tmp_path / "maps").mkdir(exist_ok=True)
                (tmp_path / "maps" / Path(member.name).name).write_bytes(archive.extractfile(member).read())
                images.append(Image.open(tmp_path / "maps" / Path(member.name).name))
            if len(images) == 40:
                break
    settings = dataset_settings("folder", (256, 256), pairs=str(tmp_path / "maps"), test_share=0.05)
    found = ratios(settings.model_copy(update={"resampling": resampling}), tmp_path / "data")
    boxes = [(0, 0, 600, 600), (600, 0, 1200, 600)]
    expected = [published_ratio([image.crop(box) for image in images]) for box in boxes]
    assert found == pytest.approx(expected, abs=0.02)


def test_tiles_of_the_globe_are_cropped_from_its_published_pixels(tmp_path):
    options = {"globe_width": 3600, "overlap": 0, "min_land": 0.3}
    settings = DataSetSettings(kind="bluemarble", version=1, size=(256, 256), pairs=(8, 1), options=options)
    ratios(settings, tmp_path / "data")
    for folder in (tmp_path / "data", tmp_path / "data-train286x286"):
        assert check_prepared(folder) == []
    for path in sorted((tmp_path / "data" / "train").glob("*.png")):
        tile, larger = Image.open(path), Image.open(tmp_path / "data-train286x286" / "train" / path.name)
        reduced = larger.resize((256, 256), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(tile, float) - np.asarray(reduced, float)).mean() < 2, "the same place"
        assert sharpness(larger) > 1.02 * sharpness(tile.resize((286, 286), Image.Resampling.LANCZOS))


def test_a_suite_prepares_larger_training_images_only_for_methods_that_need_them(working_folder):
    suite = {
        "datasets": {"bluemarble": {"size": [256, 256]}},
        "methods": {"msgunet": {}, "mean": {}, "half": {"method": "pix2pix", "size": [128, 128]}},
        "perceptual": {"weights": "untrained", "width": 0.125},
    }
    plans = []
    for number, methods in enumerate([{}, {"pix2pix": {}}]):
        path = working_folder / f"suite{number}.yaml"
        path.write_text(yaml.safe_dump({**suite, "methods": {**suite["methods"], **methods}}))
        plans.append(load_plan(str(path)))
    without, both = plans
    assert without.larger == ()
    assert [data.folder.name for data in both.larger] == [f"{both.data[0].folder.name}-train286x286"]
    assert both.data == without.data
    assert '"train_size": [\n    286,\n    286\n  ]' in both.files[both.larger[0].folder / "dataset.json"]

    def settings(plan) -> dict[str, RunSettings]:
        return {run.settings.entry: run.settings.model_copy(update={"suite": ""}) for run in plan.runs}

    assert {**settings(both), **settings(without)} == settings(both), "a further method changes no other run"


def test_training_does_not_enlarge_where_the_original_has_the_pixels(tmp_path):
    folder = make_data(tmp_path / "data")
    manifest = folder / "manifest.csv"
    PairDataset(folder, "train", (64, 64), ("photo", "photo"), training=JITTER)
    manifest.write_text(manifest.read_text().replace(",64,64,64,64,", ",64,64,128,128,"))
    with pytest.raises(UserError, match=r"jitter needs the 6 training images of .*data at 94x94, which are not in"):
        PairDataset(folder, "train", (64, 64), ("photo", "photo"), training=JITTER)
    smaller = PairDataset(folder, "train", (32, 32), ("photo", "photo"), training=JITTER)
    assert smaller[(0, 0)].source.shape == (3, 32, 32)
    make_data(tmp_path / "data-train94x94", 94, 94, train=5)
    with pytest.raises(UserError, match="jitter needs the 6 training images"):
        PairDataset(folder, "train", (64, 64), ("photo", "photo"), training=JITTER)
    make_data(tmp_path / "data-train94x94", 94, 94)
    pairs = PairDataset(folder, "train", (64, 64), ("photo", "photo"), training=JITTER)
    (x, y), flipped = _crop_of(pairs)
    crop = np.asarray(Image.open(tmp_path / "data-train94x94" / "train" / "p00.source.png"))[y : y + 64, x : x + 64]
    assert np.array_equal(pairs[(0, 0)].source.permute(1, 2, 0), crop[:, ::-1] if flipped else crop)


def _crop_of(pairs: PairDataset) -> tuple[tuple[int, int], bool]:
    """The corner of the crop of the item (0, 0), and whether it is flipped, by searching all."""
    image = np.asarray(Image.open(pairs.folder.with_name("data-train94x94") / "train" / "p00.source.png"))
    item = pairs[(0, 0)].source.permute(1, 2, 0).numpy()
    for flipped, wanted in ((False, item), (True, item[:, ::-1])):
        for x in range(31):
            for y in range(31):
                if np.array_equal(image[y : y + 64, x : x + 64], wanted):
                    return (x, y), flipped
    raise AssertionError("the item is no crop of the larger image")
