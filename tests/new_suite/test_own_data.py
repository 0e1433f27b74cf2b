"""A user's own images: the inspection of a folder, the suite written for it, and the page of the docs about it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from checkout import copy_checkout
from conftest import ROOT, make_image
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import TrainingSettings
from msgunet.data.images import read
from msgunet.new_suite import choose
from msgunet.new_suite.discover import discover
from msgunet.suite.plan import load_plan


def put(folder: Path, *names: str, size=(60, 40), change=lambda image: image) -> Path:
    """Write images with these names."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        change(make_image(i, *size)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("before", "after"), ("before", "after")),
        (("photos", "labels"), ("labels", "photos")),
        (("A", "B"), ("A", "B")),
        (("scan_gt", "scan_noisy"), ("scan_noisy", "scan_gt")),
        (("one", "two"), ("one", "two")),
    ],
)
def test_two_folders_are_distinguished_by_their_names(tmp_path, names, roles):
    for name in names:
        put(tmp_path / name, "train/1.png", "train/2.png", "test/3.jpg")
    found = discover(tmp_path)
    assert found.options == {"source": str(tmp_path / roles[0]), "target": str(tmp_path / roles[1])}
    assert (found.size, found.other_sizes, found.counts) == ((60, 40), 0, (2, 1))


def test_images_that_hold_a_pair(tmp_path):
    def doubled(image):
        return Image.fromarray(np.hstack([np.asarray(image), 255 - np.asarray(image)]))

    put(tmp_path, *(f"{i}.jpg" for i in range(9)), size=(60, 50), change=doubled)
    put(tmp_path, "other.jpg", size=(40, 50), change=doubled)
    found = discover(tmp_path)
    assert found.options == {"pairs": str(tmp_path)}
    assert (found.size, found.other_sizes, found.counts) == ((60, 50), 1, (8, 2))


def test_formats_and_kinds_are_found(tmp_path):
    for i in range(4):
        for role in ("in", "out"):
            (tmp_path / role).mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 4000, (64, 64, 5)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "in" / f"{i}.tif", pixels, photometric="minisblack", planarconfig="contig")
        colours = np.array([[200, 0, 0], [0, 90, 0], [0, 0, 30]], np.uint8)
        labels = colours[np.random.default_rng(i).integers(0, 3, (64, 64))]
        Image.fromarray(labels).save(tmp_path / "out" / f"{i}.png")
    found = discover(tmp_path)
    assert found.options["source_format"] == {"channels": 5, "range": [0, 4095]}
    assert found.options["target_kind"] == "labels"
    assert "target_format" not in found.options
    assert "source_kind" not in found.options
    grey = tmp_path / "grey"
    for role in ("a", "b"):
        put(grey / role, "1.png", "2.png", change=lambda image: image.convert("L"))
    assert discover(grey).options["source_format"] == {"channels": 1, "range": [0, 255]}
    put(grey / "b", "2.png")
    assert "target_format" not in discover(grey).options, "grey images mixed with coloured ones"


def test_folders_without_pairs_are_refused_with_a_remedy(tmp_path):
    def refused(match: str, folder: Path) -> None:
        with pytest.raises(UserError, match=match):
            discover(folder)

    refused("there is no folder", tmp_path / "nothing")
    refused("no images", tmp_path)
    refused(
        r"1 single images, and no second folder(.|\n)*1.png \(40x60\)", put(tmp_path / "single", "1.png", size=(40, 60))
    )
    three = tmp_path / "three"
    for name in "xyz":
        put(three / name, "1.png")
    refused(r"images in 3 folders \(x, y, z\)", three)
    above = tmp_path / "above"
    for name in ("train/a", "train/b", "test/a", "test/b"):
        put(above / name, "1.png", "2.png")
    with pytest.raises(UserError, match="the split is above the folders a, b") as caught:
        discover(above)
    # The suggested command works.
    subprocess.run(["bash", "-c", str(caught.value).splitlines()[-1]], check=True)
    assert discover(above).counts == (2, 2)
    spaces = tmp_path / "with spaces"
    for name in ("train/a", "train/b", "val/a", "val/b"):
        put(spaces / name, "1.png")
    with pytest.raises(UserError) as caught:
        discover(spaces)
    subprocess.run(["bash", "-c", str(caught.value).splitlines()[-1]], check=True)
    assert discover(spaces).counts == (1, 1)
    refused("0 pairs for training and 1 for testing", put(put(tmp_path / "one", "a/1.png"), "b/1.png"))
    unpaired = put(tmp_path / "unpaired", "a/1.png", "a/2.png", "b/1.png")
    refused("1 image has no counterpart", unpaired)
    put(unpaired, "b/2.png", size=(30, 30))
    refused(r"source and target differ in size in 1 pair;.*", unpaired)
    put(unpaired, "b/2.png")
    (unpaired / "a/1.png").write_bytes(b"no image")
    refused("1.png: not an image", unpaired)


def test_everything_wrong_is_said_at_once(tmp_path):
    """Missing counterparts on both sides, damaged images, other sizes and other formats, each with its file."""
    names = [f"{i:02}.png" for i in range(30)]
    put(tmp_path / "in", *names)
    put(tmp_path / "out", *names)
    (tmp_path / "in/03.png").unlink()
    (tmp_path / "out/04.png").unlink()
    put(tmp_path / "out", "05.png", size=(64, 40))
    for damaged in ("in/00.png", "in/06.png"):
        (tmp_path / damaged).write_bytes((tmp_path / damaged).read_bytes()[:900])
    (tmp_path / "out/08.png").write_bytes(b"no image")
    Image.fromarray(np.full((40, 60), 300, np.uint16)).save(tmp_path / "in/29.png")
    with pytest.raises(UserError) as caught:
        discover(tmp_path)
    expected = [
        f"1 image has no counterpart in {tmp_path}/in: 03",
        f"1 image has no counterpart in {tmp_path}/out: 04",
        f"{tmp_path}/in/00.png: the image is damaged",
        f"{tmp_path}/in/06.png: the image is damaged",
        f"the sources have several formats, convert them to one: 1 of 27 are 16-bit grey: {tmp_path}/in/29.png;",
        f"{tmp_path}/out/08.png: not an image",
        "source and target differ in size in 1 pair",
        "05: the source is 60x40, the target 64x40",
    ]
    problems = caught.value.problems
    assert len(problems) == len(expected), "\n".join(problems)
    for begin in expected:
        assert [begin in problem for problem in problems].count(True) == 1, (begin, problems)


def test_untidy_folders(tmp_path):
    """Capital letters, hidden folders, other suffixes, and TIFFs of all kinds."""
    for role, ending in (("A", "png"), ("B", "TIFF")):
        put(tmp_path / role, *(f"Train/{i}.{i}.{ending}" for i in range(5)), f"Test/9.{ending}")
    put(tmp_path / ".thumbs", "x.png")
    put(tmp_path / "A" / ".hidden", "x.png")
    assert discover(tmp_path).counts == (5, 1)
    rest = put(tmp_path / "rest", "a/1.png", "a/2.png")
    (rest / "b").mkdir()
    palette = make_image(0, 60, 40).quantize(200)
    for i in (1, 2):
        palette.save(rest / "b" / f"{i}.tif")
    assert "target_format" not in discover(rest).options, "palette colours are resolved"
    for i in (1, 2):
        tifffile.imwrite(rest / "b" / f"{i}.tif", np.full((3, 40, 60), i, np.uint8), photometric="minisblack")
    options = discover(rest).options
    assert "target_format" not in options
    pages = np.arange(3 * 40 * 60).reshape(3, 40, 60).astype(np.uint8)
    tifffile.imwrite(rest / "pages.tif", pages, photometric="minisblack")
    assert np.array_equal(read(rest / "pages.tif", "x"), np.moveaxis(pages, 0, -1)), "pages are channels"
    for i in (1, 2):
        make_image(0, 60, 40).convert("CMYK").save(rest / "b" / f"{i}.tif")
    with pytest.raises(UserError, match="the image has mode CMYK"):
        discover(rest)
    for i in (1, 2):
        tifffile.imwrite(rest / "b" / f"{i}.tif", np.zeros((17, 40, 60), np.uint16))
    with pytest.raises(UserError, match="17 channels, at most 16"):
        discover(rest)
    with pytest.raises(UserError, match="pass one of: --data FOLDER; --source FOLDER and"):
        discover(rest, rest / "a", rest / "b")


def test_the_suite_describes_the_images_and_can_be_planned(working_folder, capsys, monkeypatch):
    put(
        working_folder / "pics/a",
        *(f"{i}.png" for i in range(10)),
        size=(200, 130),
        change=lambda image: image.convert("L"),
    )
    put(working_folder / "pics/b", *(f"{i}.png" for i in range(10)), size=(200, 130))
    given = ["new-suite", "mine.yaml", "--data", "pics", "--hours", "0.2", "--device", "cpu"]
    assert main(given) == 0
    text = Path("mine.yaml").read_text()
    assert "# Sources are in a, targets in b." in text
    suite = yaml.safe_load(text)
    data = suite["datasets"]["mine"]
    assert "# All 10 pairs are 200x130. All are resized to {}x{}".format(*data["size"]) in text
    assert data["options"]["source_format"] == {"channels": 1, "range": [0, 255]}
    width, height = data["size"]
    assert width <= 256
    assert abs(width / height / (200 / 130) - 1) < 0.15
    assert list(suite["methods"]) == ["pix2pix", "pan", "pix2pixhd", "msgunet", "mean", "copy"]
    assert 4 <= sum(TrainingSettings(**suite["training"]).model_dump()[k] for k in ("epochs", "decay_epochs")) <= 200
    load_plan.cache_clear()
    assert len(load_plan("mine.yaml").runs) == 6
    capsys.readouterr()
    assert main(given) == 2
    assert "mine.yaml exists already" in capsys.readouterr().err
    assert main([*given, "--force"]) == 0
    assert main(["new-suite", "My Suite.yaml", "--data", "pics"]) == 2
    assert "a suite needs a file name like my_images.yaml" in capsys.readouterr().err
    assert main(["new-suite", "short.yaml", "--data", "pics", "--hours", "1e-6"]) == 2
    assert "1e-06 hours are too few to train 4 methods on 8 pairs" in capsys.readouterr().err
    # Where steps could be timed, the smallest number of hours that does is named.
    monkeypatch.setattr(choose, "_times", lambda *_: dict.fromkeys(choose.METHODS, choose.Step(100.0, 1e9)))
    assert main(["new-suite", "short.yaml", "--data", "pics", "--hours", "0.5"]) == 2
    hours = re.search(r"pass at least --hours ([\d.]+)", capsys.readouterr().err)[1]
    assert (
        main(["new-suite", "short.yaml", "--data", "pics", "--hours", str(float(hours) / choose._MARGIN - 0.02)]) == 2
    )
    monkeypatch.setattr(choose, "_times", lambda *_: dict.fromkeys(choose.METHODS, choose.Step(129.0, 1e9)))
    assert main(["new-suite", "short.yaml", "--data", "pics", "--hours", hours]) == 0
    Path("short.yaml").unlink()
    assert not Path("short.yaml").exists()
    for name in "ab":
        put(working_folder / "small" / name, *(f"{i}.png" for i in range(10)), size=(64, 80))
    assert main(["new-suite", "small.yaml", "--data", "small", "--device", "cpu"]) == 2
    assert "images of 64x80 are too small: the shorter side needs at least 92 pixels" in capsys.readouterr().err


def test_a_suite_can_have_any_name_and_place(working_folder, monkeypatch):
    """Names that YAML reads as numbers or booleans, and paths with special characters."""
    monkeypatch.setattr(choose, "_times", lambda *given: dict.fromkeys(choose.METHODS, choose.Step(0.01, 1e9)))
    folder = working_folder / "a: b #c 'd' {e} é"
    for role in ("before", "after"):
        put(folder / role, *(f"{i}.png" for i in range(10)), size=(200, 130))
    for name in ("2024", "on", "null", "1e3", "mine"):
        assert main(["new-suite", f"{name}.yaml", "--data", str(folder), "--hours", "1", "--device", "cpu"]) == 0
        load_plan.cache_clear()
        assert load_plan(f"{name}.yaml").data[0].entry.options["source"] == str(folder / "before")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_on_custom_images_from_first_to_last_command(tmp_path, shared):
    """Run every command and the Python of docs/own-data.md, in order, from the download on and for one epoch."""
    folder = copy_checkout(tmp_path / "checkout")
    shutil.copy(shared / "mirror" / "maps.tar.gz", folder)
    page = (ROOT / "docs" / "own-data.md").read_text()
    assert page.count("--hours 0.3\n") == 1
    one = "sed -i 's/epochs: [0-9]*, decay_epochs: [0-9]*/epochs: 1, decay_epochs: 0/' my_maps.yaml"
    one += " && grep -q 'epochs: 1, decay_epochs: 0' my_maps.yaml"
    page = page.replace("--hours 0.3\n", f"--hours 0.3\n{one}\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    output = ""
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL):
        command = ["bash", "-ec", block] if kind == "sh" else [sys.executable, "-c", block]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, block + done.stdout + done.stderr
        output += done.stdout
    table = output[output.index("| Method") :]
    for title in ("Pix2Pix ", "PAN", "Pix2Pix-HD", "MSG U-Net"):
        assert re.search(rf"\| {title} *\| .*\d\d\.\d\d \[", table), table
    assert (folder / "results/my_maps/report/index.html").is_file()
    sources = sorted(p.name for p in (folder / "results/my_maps/report/images/my_maps/source").iterdir())
    assert len(sources) == 69
    assert sorted(p.name for p in (folder / "translated").iterdir()) == sources
    with Image.open(folder / "again.png") as image:
        assert image.size == (500, 300)
    assert (folder / "my_maps.onnx").is_file()
    assert "| native | " in (folder / "my_maps.md").read_text()
