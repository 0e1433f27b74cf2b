"""Values outside the range of a data set: counted, named, and an error unless they are few or allowed."""

import json

import numpy as np
import pytest
from conftest import dataset_settings
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.core.settings import ImageFormat
from msgunet.data import prepare as preparing
from msgunet.data.images import read
from msgunet.data.manifest import read_manifest
from msgunet.data.prepare import prepare
from msgunet.data.sets.folder import FolderOptions
from msgunet.new_suite.discover import discover
from msgunet.suite.models import DataSetEntry
from msgunet.suite.runs import data_plan


def slices(folder, tops, size=40):
    """Write 16-bit grey pairs; the highest value of each target is given."""
    for i, top in enumerate(tops):
        for role in ("raw", "clean"):
            (folder / role).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, top if role == "clean" else 900, (size, size))
            pixels.flat[:2] = 0, top if role == "clean" else 900
            Image.fromarray(pixels.astype(np.uint16)).save(folder / role / f"{i:02d}.png")
    return folder


def settings(folder, high, **options):
    return dataset_settings(
        "folder",
        (32, 32),
        **FolderOptions(
            source=str(folder / "raw"),
            target=str(folder / "clean"),
            source_format=ImageFormat(channels=1, range=(0, 1023)),
            target_format=ImageFormat(channels=1, range=(0, high)),
            **options,
        ).model_dump(mode="json"),
    )


def test_the_range_of_a_new_suite_holds_the_values_of_all_images(tmp_path):
    # A sample of 12 of 40 images would miss these two.
    slices(tmp_path, [3900 if i in (5, 22) else 1000 for i in range(40)])
    found = discover(tmp_path)
    assert found.options["target_format"]["range"] == [0, 4095]
    assert found.options["source_format"]["range"] == [0, 1023]
    assert any("the values of all 40 images, which are between 0 and 3900" in note for note in found.notes)


def test_values_far_from_zero_get_a_range_of_their_own(tmp_path):
    for role in "ab":
        (tmp_path / role).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(32_000, 34_000, (40, 40)).astype(np.uint16)
            pixels.flat[:2] = 31_990, 34_010
            Image.fromarray(pixels).save(tmp_path / role / f"{i}.png")
    assert discover(tmp_path).options["source_format"]["range"] == [31_990, 34_010]


def test_many_cut_pixels_are_an_error_that_names_the_images_and_the_range(tmp_path, capsys):
    folder = slices(tmp_path / "ct", [1000, 1000, 3900, 2000, 1000, 1000])
    (tmp_path / "dataset.json").write_text(settings(folder, 1023).model_dump_json())
    command = ["prepare", "--settings", str(tmp_path / "dataset.json"), "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second finds the pairs already prepared
        assert main(command) == 2
        message = capsys.readouterr().err
        assert "2 targets have values outside the range 0 to 1023, and at most 0.1 % of an image may be cut" in message
        worst = message.index(f"{folder}/clean/02.png: 7")
        assert worst < message.index(f"{folder}/clean/03.png: 4"), "the worst comes first"
        assert "% of the pixels, with values from 0 to 3900" in message
        assert "target_format: {channels: 1, range: [0, 3900]}" in message
        assert "allow_outside: true" in message
        assert "source" not in message
        assert not (tmp_path / "out" / "manifest.csv").exists()
    manifest = prepare(settings(folder, 3900), tmp_path / "other", tmp_path)
    assert len(read_manifest(manifest)) == 6
    assert "outside" not in capsys.readouterr().out


def test_cut_values_are_allowed_by_one_setting(tmp_path, capsys):
    folder = slices(tmp_path / "ct", [1000, 3900])
    manifest = prepare(settings(folder, 1023, allow_outside=True), tmp_path / "out", tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "outside" in line]
    assert line.startswith("1 target has values outside the range 0 to 1023: ")
    assert f"The worst is {folder}/clean/01.png: 7" in line
    targets = [
        read(manifest.parent / pair.target, "x", ImageFormat(channels=1, range=(0, 65535)))
        for pair in read_manifest(manifest)
    ]
    assert max(target.max() for target in targets) < 1400, "cut before they are resized"


def test_a_few_hot_pixels_are_one_line(tmp_path, capsys):
    folder = slices(tmp_path / "ct", [1000, 1000, 1000], size=64)
    path = folder / "clean" / "01.png"
    pixels = np.array(Image.open(path))
    pixels[3, 3:7] = 1100  # 4 of 4096, just below 0.1 %
    Image.fromarray(pixels).save(path)
    prepare(settings(folder, 1023), tmp_path / "out", tmp_path)
    line = "1 target has values outside the range 0 to 1023: 4 pixels are cut. The worst is "
    assert f"{line}{path}: 0.0977 % of the pixels, with values from 0 to 1100\n" in capsys.readouterr().out
    pixels[3, 7] = 1100
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=r"at most 0\.1 % of an image may be cut"):
        prepare(settings(folder, 1023), tmp_path / "again", tmp_path)


def test_an_interrupted_preparation_forgets_no_cut_pixels(tmp_path, monkeypatch):
    folder = slices(tmp_path / "ct", [3900, 1000, 1000, 1000])
    real, done = preparing._prepare_pair, []

    def stops_after_one(raw, *given):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(raw.id)
        return real(raw, *given)

    monkeypatch.setattr(preparing, "_prepare_pair", stops_after_one)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings(folder, 1023), tmp_path / "out", tmp_path)
    assert done == ["00"]
    monkeypatch.setattr(preparing, "_prepare_pair", lambda raw, *given: done.append(raw.id) or real(raw, *given))
    with pytest.raises(UserError, match=r"00\.png: 7"):
        prepare(settings(folder, 1023), tmp_path / "out", tmp_path)
    assert done == ["00", "01", "02", "03"]


def test_both_sides_of_one_image_get_one_range(tmp_path):
    for i, top in enumerate((500, 800)):
        pixels = np.zeros((32, 64), np.uint16)
        pixels[:, 40:] = top
        pixels[:, :20] = 2 * top
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    given = ImageFormat(channels=1, range=(0, 300))
    options = FolderOptions(pairs=str(tmp_path), source_format=given, target_format=given).model_dump(mode="json")
    with pytest.raises(UserError) as caught:
        prepare(dataset_settings("folder", (32, 32), **options), tmp_path / "out", tmp_path)
    for role in ("source", "target"):
        assert f"{role}_format: {{channels: 1, range: [0, 1600]}}" in str(caught.value)


def test_the_setting_changes_no_other_data_set(tmp_path):
    slices(tmp_path, [1000, 1000])
    options = {"source": str(tmp_path / "raw"), "target": str(tmp_path / "clean")}

    def plan(**more):
        return data_plan("mine", DataSetEntry(kind="folder", size=(32, 32), options=options | more))

    assert "allow_outside" not in json.loads(plan().settings)["options"], "hashes of data sets stay the same"
    assert plan(allow_outside=False).folder == plan().folder
    assert plan(allow_outside=True).folder != plan().folder
