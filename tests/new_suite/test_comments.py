"""The comments of a suite that `new-suite` writes agree with its values, and say what a newcomer has to know."""

import numpy as np
import pytest
import yaml
from own import put
from PIL import Image

from msgunet.cli.main import main
from msgunet.new_suite import choose
from msgunet.new_suite.discover import discover


def written(folder, monkeypatch, sizes, fits=0):
    """Return the suite for ten pairs of these sizes, as text and as values, and all of its comments.

    `fits` is the place of the size that the machine can train, from the largest down.
    """
    for role in "ab":
        for i in range(10):
            put(folder / "pics" / role, f"{i}.png", size=sizes[i % len(sizes)])
    tried = []

    def times(_, size, *__):
        tried.append(size)
        return dict.fromkeys(choose.METHODS, choose.Step(0.001, 1e9)) if len(tried) > fits else None

    monkeypatch.setattr(choose, "_times", times)
    assert main(["new-suite", "mine.yaml", "--data", "pics", "--hours", "1", "--device", "cpu"]) == 0
    text = (folder / "mine.yaml").read_text()
    comments = [line.strip().removeprefix("# ") for line in text.splitlines() if line.strip().startswith("#")]
    return yaml.safe_load(text)["datasets"]["mine"]["size"], comments


@pytest.mark.parametrize(
    ("sizes", "fits", "size", "expected"),
    [
        ([(128, 128)], 0, [128, 128], "All 10 pairs are 128x128 and keep this size."),
        (
            [(300, 457)],
            0,
            [288, 448],
            "All 10 pairs are 300x457. All are resized to 288x448, which changes their aspect ratio by 2 %.",
        ),
        ([(200, 100)], 0, [192, 96], "All 10 pairs are 200x100. All are resized to 192x96."),
        # Visible changes are in the comment on shapes alone.
        ([(100, 95)], 0, [96, 96], "All 10 pairs are 100x95. All are resized to 96x96."),
        ([(256, 256)], 1, [192, 192], "All 10 pairs are 256x256. All are resized to 192x192."),
        (
            [(128, 128), (128, 128), (100, 150)],
            0,
            [128, 128],
            "7 of 10 pairs are 128x128, the others have other sizes. All are resized to 128x128.",
        ),
    ],
)
def test_the_comment_on_sizes_agrees_with_the_size(working_folder, monkeypatch, sizes, fits, size, expected):
    chosen, comments = written(working_folder, monkeypatch, sizes, fits)
    assert chosen == size
    assert [comment for comment in comments if "pairs are" in comment] == [expected]
    shapes = [comment for comment in comments if comment.startswith("Resizing changes the shape")]
    assert len(shapes) == (sizes[-1] in [(100, 95), (100, 150)])
    assert not any("this size," in comment or "to this size" in comment for comment in comments)


def test_the_comment_on_epochs_names_what_both_keys_mean(working_folder, monkeypatch):
    _, comments = written(working_folder, monkeypatch, [(128, 128)])
    (comment,) = (comment for comment in comments if "Published: 100 and 100." in comment)
    assert comment.startswith("Epochs at the full learning rate, and decay epochs, in which it falls to zero.")


def test_the_range_of_16_bits_is_explained(tmp_path):
    """Where it comes from, what it does, where it is written, and what happens beyond it."""
    draw = np.random.default_rng(0)
    put(tmp_path / "a", *(f"{i}.png" for i in range(10)))
    (tmp_path / "b").mkdir()
    for i in range(10):
        values = draw.integers(900, 3900, (40, 60)).astype(np.uint16)
        values[0, :2] = 900, 3899
        Image.fromarray(values).save(tmp_path / "b" / f"{i}.png")
    found = discover(tmp_path)
    assert found.options["target_format"] == {"channels": 1, "range": [0, 4095]}
    (note,) = (note for note in found.notes if "16 bits" in note)
    assert note == (
        "The targets have 16 bits. Networks see the range [0, 4095] from black to white: a guess from the values of "
        "all 10 images, which are between 900 and 3899. If you know the lowest and highest value that your device can "
        "give, write them in target_format; values outside the range are refused or cut (docs/own-data.md)."
    )
