"""Which folders of single images `new-suite` takes for pairs side by side, and what it says about the others."""

import tarfile
import zipfile

import numpy as np
import pytest
from conftest import make_image
from own import put
from PIL import Image, ImageFilter

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.new_suite.discover import discover
from msgunet.new_suite.halves import pairs_among
from msgunet.suite.plan import load_plan


def scene(seed: int, width: int, height: int) -> Image.Image:
    """Return an image with what all photographs of a kind have in common: sky above ground, darker corners."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    common = 50 * np.tanh(4 * (y - 0.1)) - 30 * (x**2 + y**2)
    own = np.asarray(make_image(seed, width, height), float)
    return Image.fromarray((128 + common[..., None] + 0.6 * (own - 128)).clip(0, 255).astype(np.uint8))


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    return Image.fromarray(np.hstack([np.asarray(image.convert("RGB")) for image in (left, right)]))


PARTNERS = {
    "negative": lambda image: Image.eval(image, lambda value: 255 - value),
    "grey": lambda image: image.convert("L"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "edges": lambda image: image.filter(ImageFilter.FIND_EDGES),
    "mask": lambda image: image.convert("L").point(lambda value: 255 * (value > 110)),
    "noisy": lambda image: Image.fromarray(
        (np.asarray(image) + np.random.default_rng(0).normal(0, 60, (*image.size[::-1], 3))).clip(0, 255).astype("u1")
    ),
}


@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("count", [2, 30])
def test_images_that_hold_a_pair_are_told(tmp_path, partner, count):
    for i in range(count):
        image = scene(i, 64, 80)
        side_by_side(PARTNERS[partner](image), image).save(tmp_path / f"{i}.png")
    assert discover(tmp_path).options == {"pairs": str(tmp_path)}


@pytest.mark.parametrize("make", [make_image, scene])
@pytest.mark.parametrize("count", [2, 30])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_wide_single_images_are_no_pairs(tmp_path, make, count, mode):
    for i in range(count):
        make(i, 120, 60).convert(mode).save(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match=rf"in only \d+ of {min(count, 24)} images that were compared, the halves"):
        discover(tmp_path)
    found = discover(None, pairs=tmp_path)
    assert found.options["pairs"] == str(tmp_path), "the user knows better"
    assert found.size == (60, 60)


def test_published_pairs_and_single_photographs(tmp_path, shared):
    """Maps hold pairs; their halves, and the photographs of Cityscapes, are single images with wide shapes."""
    with tarfile.open(shared / "mirror" / "maps.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    maps = sorted(tmp_path.glob("maps/*/*.jpg"))
    found, sampled = pairs_among(maps)
    assert found > 0.8 * sampled
    for name, box in {"aerial": (0, 0, 600, 300), "map": (600, 0, 1200, 300)}.items():
        (tmp_path / name).mkdir()
        for file in maps[:40]:
            with Image.open(file) as image:
                image.crop(box).save(tmp_path / name / f"{file.parent.name}{file.stem}.png")
        found, sampled = pairs_among(sorted((tmp_path / name).iterdir()))
        assert found < 0.4 * sampled, name
    with zipfile.ZipFile(shared / "mirror" / "leftImg8bit_trainvaltest.zip") as archive:
        archive.extractall(tmp_path)
    found, sampled = pairs_among(sorted(tmp_path.glob("leftImg8bit/*/*/*.png")))
    assert found < 0.4 * sampled


def test_every_image_must_have_the_shape_of_a_pair(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(6)), size=(40, 60))
    put(tmp_path, "square.png", size=(50, 50))
    put(tmp_path, "wide.png", size=(120, 50))
    put(tmp_path, "odd.png", size=(121, 50))
    with pytest.raises(UserError) as caught:
        discover(tmp_path)
    (message,) = caught.value.problems
    assert message.startswith(f"{tmp_path}: 9 single images, and no second folder with the same names.")
    assert "7 are not clearly wider than high (1.2 times): 0.png (40x60), 1.png (40x60), 2.png (40x60), …" in message
    assert "1 have an odd width: odd.png (121x50)" in message
    assert "pass --pairs FOLDER instead" in message
    for line in ("FOLDER/before/1.png", "FOLDER/after/test/3.png", "FOLDER/trainA/1.png", "--source FOLDER --target"):
        assert line in message
    assert all(len(line) < 95 for line in message.splitlines()[1:])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("source", "target"), True),
        (("input_2024", "output_2024"), True),
        (("before", "gt"), True),
        # The names only suggest it: some people translate photos to labels, or B to A.
        (("labels", "photos"), False),
        (("A", "B"), False),
        (("trainA", "trainB", "testA", "testB"), False),
        (("source", "other"), False),
        (("one", "two"), False),
    ],
)
def test_folders_whose_names_say_their_roles_are_not_doubted(tmp_path, names, said):
    for name in names:
        put(tmp_path / name, *(f"{i}.png" for i in range(10)))
    (note,) = (note for note in discover(tmp_path).notes if "Sources are in" in note)
    assert ("If it is the other way round, swap them." in note) == (not said)


@pytest.mark.parametrize(("count", "tests", "intervals"), [(20, True, True), (25, True, False), (40, False, False)])
def test_too_few_test_pairs_are_told_before_anything_is_trained(tmp_path, count, tests, intervals):
    """A fifth of the pairs are for testing."""
    for name in ("source", "target"):
        put(tmp_path / name, *(f"{i:02d}.png" for i in range(count)))
    notes = " ".join(discover(tmp_path).notes)
    assert ("to tell four methods apart, tests need at least 8" in notes) == tests
    assert ("and intervals need 5" in notes) == intervals


def test_pairs_can_be_forced(working_folder, monkeypatch, capsys):
    from msgunet.new_suite import choose

    monkeypatch.setattr(choose, "_times", lambda *given: dict.fromkeys(choose.METHODS, choose.Step(0.01, 1e9)))
    put(working_folder / "p", *(f"{i}.png" for i in range(30)), size=(257, 128))
    given = ["new-suite", "mine.yaml", "--hours", "1", "--device", "cpu"]
    assert main([*given, "--data", "p"]) == 2
    assert "30 have an odd width" in capsys.readouterr().err
    assert main([*given, "--pairs", "p"]) == 0
    load_plan.cache_clear()
    assert load_plan("mine.yaml").data[0].entry.options == {"pairs": "p"}
    for wrong in ([], ["--data", "p", "--pairs", "p"], ["--source", "p"], ["--pairs", "p", "--target", "p"]):
        assert main([*given, *wrong]) == 2
        assert "pass one of: --data FOLDER; --source FOLDER and --target FOLDER; --pairs" in capsys.readouterr().err
    assert main([*given, "--pairs", "nowhere"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
