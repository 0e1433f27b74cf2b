"""The conditions of data and trainings in tables, figures and model cards."""

import pytest
from made import fill, make_plan
from own import put_pairs

from msgunet.report.collect import Collection
from msgunet.report.tables import build_tables

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}


def notes(folder, **options) -> list[str]:
    """Return the notes of Table 1 of a user's own images with these options."""
    put_pairs(folder, *(f"{i:04d}.png" for i in range(10)))
    data = {"kind": "folder", "size": [128, 64], "options": {"source": "a", "target": "b", **options}}
    plan = make_plan(folder, datasets={"mine": data}, methods={"pix2pix": {"options": NARROW}}, ablation={})
    fill(plan, images=6)
    tables = build_tables(Collection(plan.results / "settings" / "report.json", plan.results)).sections["results"]
    return next(table.notes for table in tables if table.name == "table1_mine_full")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "photographs resized by Lanczos"),
        ({"fit": "crop"}, "photographs resized by Lanczos; images of other shapes cropped to their centre (fit: crop)"),
        ({"fit": "pad"}, "photographs resized by Lanczos; images of other shapes padded as in a mirror (fit: pad)"),
        (
            {"target_kind": "labels"},
            "photographs resized by Lanczos; targets are labels, resized by nearest neighbour",
        ),
        (
            {"source_kind": "labels", "target_kind": "labels", "fit": "crop"},
            "sources and targets are labels, resized by nearest neighbour; "
            "images of other shapes cropped to their centre (fit: crop)",
        ),
    ],
)
def test_tables_say_how_images_got_their_size(working_folder, options, expected):
    first, *rest = notes(working_folder, **options)
    assert first == f"Custom images at 128×64, 8-bit RGB: 4 training and 6 test pairs; {expected}"
    assert any("outputs that are labels by nearest neighbour" in note for note in rest)
