"""The ablation's table: means over images and seeds, next to the paper's numbers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from msgunet.report.ablation import ablation_frame, ablation_grid
from msgunet.report.statistics import interval

SIZES = [(1024, 512), (2048, 1024)]
SIZE = ["input_width", "input_height", "output_width", "output_height"]


def cells(value) -> pd.DataFrame:
    """Return the ablation of six images, where `value` is a function of image, input and output."""
    rows = [(f"{n}", *a, *b, value(n, a, b)) for n in range(6) for a in SIZES for b in SIZES]
    return pd.DataFrame(rows, columns=["id", *SIZE, "ssim"])


def run(seed: int, table: pd.DataFrame | None, state: str = "not yet"):
    return SimpleNamespace(
        title="MSG U-Net",
        settings=SimpleNamespace(seed=seed, method="msgunet"),
        ablation=lambda: table,
        state=SimpleNamespace(cell=state, sentence=f"it is {state}"),
    )


def collection(*runs, kind="cityscapes"):
    return SimpleNamespace(
        suite="mine",
        settings={"resamples": 300},
        datasets={"streets": {"kind": kind}},
        ablated=lambda: [("streets", "ours")],
        runs_of=lambda _: {"ours": list(runs)},
        label=lambda one: f"seed {one.settings.seed}",
        data_conditions=lambda _: "",
        run_conditions=lambda _: "",
        environment=lambda: "",
        command=lambda _: "",
    )


def of(frame: pd.DataFrame, source: tuple[int, int], output: tuple[int, int]) -> pd.Series:
    return frame.set_index(SIZE).loc[(*source, *output)]


def test_a_cell_is_the_mean_over_the_images_that_all_seeds_have():
    values = np.random.default_rng(0).uniform(size=(2, 6))
    values[1, 2] = np.nan
    small, large = SIZES
    tables = [cells(lambda n, a, b, k=k: values[k, n] if a == b == small else a[0] / 1e4 + n) for k in (0, 1)]
    tables[1].loc[(tables[1]["input_width"] == 2048) & (tables[1]["output_width"] == 1024), "ssim"] = np.nan
    frame = ablation_frame(collection(run(0, tables[0]), run(1, tables[1])))
    assert len(frame) == 4, "the paper's other cells are left out"
    assert set(frame["status"]) == {"done"}
    assert (set(frame["dataset"]), set(frame["entry"]), set(frame["suite"])) == ({"streets"}, {"ours"}, {"mine"})
    row = of(frame, small, small)
    kept = np.delete(values, 2, axis=1)
    assert (row["ssim"], row["values"]) == (pytest.approx(kept.mean()), 10)
    assert (row["ssim_low"], row["ssim_high"]) == pytest.approx(interval(kept, 300, (-1, 1))[1:])
    assert interval(kept, 300)[2] > 1 == row["ssim_high"], "cut at the end of the range"
    assert of(frame, small, large)["ssim"] == pytest.approx(0.1024 + 2.5)
    undefined = of(frame, large, small)
    assert undefined["values"] == 0
    assert undefined[["ssim", "ssim_low", "ssim_high"]].isna().all()
    assert [of(frame, a, b)["paper_ssim"] for a in SIZES for b in SIZES] == [0.67, 0.68, 0.69, 0.69]


def test_until_all_seeds_are_measured_the_papers_cells_are_listed():
    runs = run(0, cells(lambda *_: 0.5)), run(1, None, "failed"), run(2, None, "running")
    frame = ablation_frame(collection(*runs))
    assert len(frame) == 25
    assert frame["ssim"].isna().all()
    assert set(frame["status"]) == {"failed"}, "the first that is missing"
    assert of(frame, (128, 64), (256, 128))["paper_ssim"] == 0.43
    assert ablation_frame(collection(*runs, kind="bluemarble")).empty, "the paper has none of these"
    notes = ablation_grid(collection(*runs), frame, "streets", "ours").notes
    assert [note for note in notes if "Not measured" in note] == [
        "Not measured yet: seed 1: it is failed",
        "Not measured yet: seed 2: it is running",
    ]


def test_the_grid_has_inputs_as_rows_and_shades_ours_and_the_papers_separately():
    values = {(1024, 1024): 0.5, (1024, 2048): 0.6, (2048, 1024): 0.9, (2048, 2048): np.nan}
    ours = collection(run(0, cells(lambda _, a, b: values[a[0], b[0]])))
    frame = ablation_frame(ours)
    other = frame.assign(entry="other", ssim=0.1)
    table = ablation_grid(ours, pd.concat([frame, other, other.assign(dataset="elsewhere")]), "streets", "ours")
    papers = ["paper 1024×512", "paper 2048×1024"]
    assert table.columns == ["Input \\ output", "1024×512", "2048×1024", *papers]
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["1024×512", "0.500", "0.600", "0.67", "0.68"],
        ["2048×1024", "0.900", "undefined", "0.69", "0.69"],
    ]
    shades = [[cell.shade for cell in row[1:]] for row in table.cells]
    assert shades[0] == pytest.approx([0, 0.25, 0, 0.5])
    assert (shades[1][0], shades[1][2:]) == (1, [1, 1])
    assert not any("The paper reports no such numbers" in note for note in table.notes)


def test_without_numbers_of_the_paper_there_are_only_ours_and_equal_ones_have_no_shade():
    ours = collection(run(0, cells(lambda *_: 0.5)), kind="bluemarble")
    table = ablation_grid(ours, ablation_frame(ours), "streets", "ours")
    assert table.columns == ["Input \\ output", "1024×512", "2048×1024"]
    assert [len(row) for row in table.cells] == [3, 3]
    assert {cell.shade for row in table.cells for cell in row[1:]} == {0}
    assert any("The paper reports no such numbers" in note for note in table.notes)
    assert ablation_frame(collection_of_none()).empty


def collection_of_none():
    return SimpleNamespace(suite="mine", ablated=list)
