"""What `new-suite` says about images that differ in shape, format or alpha: how many, and which."""

from pathlib import Path

import numpy as np
import pytest
from conftest import dataset_settings, make_image
from own import put
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.data.prepare import prepare
from msgunet.data.sets.folder import FolderOptions
from msgunet.new_suite import choose
from msgunet.new_suite.discover import discover
from msgunet.suite.plan import load_plan


def names(count: int, start: int = 0) -> list[str]:
    return [f"{i:02d}.png" for i in range(start, start + count)]


@pytest.fixture
def suite(working_folder, monkeypatch, capsys):
    """Return a function that writes a suite of 128x128 images for the folder `p`, with what it printed."""
    monkeypatch.setattr(choose, "_times", lambda *given: dict.fromkeys(choose.METHODS, choose.Step(0.01, 1e9)))
    monkeypatch.setattr(choose, "_sizes", lambda *given: [(128, 128)])

    def write() -> tuple[str, str]:
        assert main(["new-suite", "mine.yaml", "--data", "p", "--hours", "500", "--device", "cpu", "--force"]) == 0
        return Path("mine.yaml").read_text(), capsys.readouterr().out

    return write


def test_changes_of_shape_are_told_for_the_worst_with_their_number(suite):
    for role in "ab":
        put(Path("p") / role, *names(20), size=(128, 128))
        put(Path("p") / role, *names(15, 20), size=(120, 200))
        put(Path("p") / role, *names(1, 35), size=(150, 128))
        put(Path("p") / role, *names(1, 36), size=(160, 128))
        put(Path("p") / role, *names(1, 37), size=(130, 128))
    text, printed = suite()
    sentence = (
        "Resizing changes the shape of 15 portrait images by 67 %, 2 landscape images by up to 25 %. "
        "The option fit keeps shapes: crop or pad."
    )
    assert f"    # {sentence}\n" in text
    assert f"  {sentence}\n" in printed
    load_plan.cache_clear()
    assert load_plan("mine.yaml")
    Path("mine.yaml").write_text(text.replace("    options:\n", "    options:\n      fit: crop\n"))
    load_plan.cache_clear()
    assert load_plan("mine.yaml").data[0].entry.options["fit"] == "crop"
    for role in "ab":
        for path in sorted((Path("p") / role).iterdir())[20:37]:
            path.unlink()
    assert "Resizing changes" not in "".join(suite())


def test_formats_that_differ_come_with_their_number_and_names(tmp_path):
    for role in "ab":
        put(tmp_path / role, *names(60))
    deep = [f"{i:02d}.png" for i in (1, 13, 29, 30, 44, 58)]
    for name in deep:
        pixels = np.asarray(make_image(0, 60, 40))[..., 0].astype(np.uint16) * 257
        Image.fromarray(pixels).save(tmp_path / "a" / name)
    with pytest.raises(UserError) as caught:
        discover(tmp_path)
    listed = ", ".join(str(tmp_path / "a" / name) for name in deep[:5])
    assert str(caught.value) == (
        f"the sources have several formats, convert them to one: 6 of 60 are 16-bit grey: {listed}, …; 54 are 8-bit RGB"
    )


def test_grey_images_among_coloured_ones_are_named(tmp_path):
    for role in "ab":
        put(tmp_path / role, *names(60))
    for name in ("07.png", "31.png"):
        make_image(0, 60, 40).convert("L").save(tmp_path / "b" / name)
    files = f"{tmp_path}/b/07.png, {tmp_path}/b/31.png"
    assert f"2 of 60 targets are grey and are read as RGB: {files}." in discover(tmp_path).notes


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_that_is_dropped_is_named_once(tmp_path, capsys, mode):
    for role in "ab":
        put(tmp_path / "p" / role, *names(30))
    for i in (4, 11, 25):
        image = make_image(i, 60, 40)
        if mode == "P":
            image.quantize(64).save(tmp_path / "p" / "a" / f"{i:02d}.png", transparency=3)
        else:
            image.putalpha(Image.linear_gradient("L").resize(image.size))
            image.convert(mode).save(tmp_path / "p" / "a" / f"{i:02d}.png")
    opaque = make_image(1, 60, 40)
    opaque.putalpha(255)
    opaque.save(tmp_path / "p" / "a" / "06.png")
    expected = (
        f"{tmp_path}/p/a/04.png (and 2 other files): the alpha channel is dropped, although it is not opaque everywhere"
    )
    discover(tmp_path / "p")
    assert capsys.readouterr().err.splitlines().count(expected) == 1
    options = FolderOptions(source=f"{tmp_path}/p/a", target=f"{tmp_path}/p/b").model_dump(mode="json")
    prepare(dataset_settings("folder", (32, 16), **options), tmp_path / "out", tmp_path, threads=2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "alpha" in line]
    assert lines == [expected]
