"""The paper's claims, their measurements and their verdicts."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from made import fill, make_plan

from msgunet.report import claims
from msgunet.report.collect import Collection
from msgunet.report.speed import speed_table
from msgunet.report.summary import unlearned
from msgunet.report.tables import build_tables

SPEED = {"images_per_s": 1.0, "speedup": 1.0, "speedup_q25": 1.0, "speedup_q75": 1.0, "tflop_per_s": 1.0}
SPEED |= {"share_of_limit": 1.0, "q25_ms": 1.0, "q75_ms": 1.0, "matrix_tflop_per_s": 1.0, "bandwidth_gb_per_s": 1.0}


def networks() -> pd.DataFrame:
    """Return the cost of MSG U-Net and of both Pix2Pix-HD networks at 2048x1024, measured on a CPU."""
    cost = pd.read_csv(ROOT / "results" / "measured" / "cpu_cost.csv")
    return cost[cost["part"] == "generator"].reset_index(drop=True)


def test_efficiency_is_judged_against_both_networks_and_in_every_precision():
    cost = networks().assign(latency_ms=[100.0, 110.0, 226.0], peak_memory_mib=[1000.0, 1790.0, 1800.0])
    found = {(c.claim.removeprefix("MSG U-Net "), c.on.split(", ")[1]): c for c in claims.efficiency(cost, None)}
    part, whole = "global generator", "with the local enhancer"
    assert found["needs 2.5 times fewer operations", part].measured == "2.60×"
    assert found["needs 2.5 times fewer operations", part].verdict == claims.HOLDS
    assert found["needs 2.5 times fewer operations", whole].verdict == claims.FAILS
    # Nearly 2.5 means at least 2.25, and half means at least 1.8.
    assert found["is nearly 2.5 times faster", part].verdict == claims.HOLDS
    assert found["is nearly 2.5 times faster", whole].verdict == claims.FAILS
    assert found["needs half the memory", part].verdict == claims.HOLDS
    assert found["needs half the memory", whole].verdict == claims.FAILS
    speed = pd.concat(
        cost.assign(part="inference", way=way, precision="bf16", median_ms=times)
        for way, times in (("plain", [1.0, 10.0, 10.0]), ("engine", [10.0, 25.0, 20.0]))
    )
    found = {(c.claim.removeprefix("MSG U-Net "), c.on.split(", ")[1]): c for c in claims.efficiency(cost, speed)}
    assert found["is nearly 2.5 times faster", part].measured == "2.26× (fp32), 2.00× (bf16)"
    assert found["is nearly 2.5 times faster", part].verdict == claims.PARTLY
    assert found["is nearly 2.5 times faster", whole].verdict == claims.PARTLY
    assert list(claims.efficiency(cost[:2], None)) == [], "no claims without the three networks"
    notes = speed_table(speed.assign(**SPEED), {}, "msgunet bench").notes
    (note,) = (note for note in notes if "faster. Against Pix2Pix-HD at 2048×1024, global generator" in note)
    assert note.endswith("the factor is 2.00× (bf16): the claim does not hold.")
    counted = list(claims.efficiency(cost.drop(columns=["latency_ms", "peak_memory_mib"]), None))
    assert [c.verdict for c in counted[2:]] == [claims.OPEN] * 4


@pytest.mark.parametrize(
    ("differences", "better", "close"),
    [
        ({"psnr": (1.0, True), "ssim": (0.1, True), "vif": (0.1, True)}, claims.HOLDS, claims.HOLDS),
        ({"psnr": (1.0, True), "ssim": (0.1, False), "vif": (-0.1, True)}, claims.PARTLY, claims.PARTLY),
        ({"psnr": (-2.0, True), "ssim": (-0.1, False), "vif": (-0.1, True)}, claims.FAILS, claims.FAILS),
        ({"psnr": (-1.28, True), "ssim": (-0.0304, False), "vif": (-0.01, True)}, claims.FAILS, claims.HOLDS),
        ({"psnr": (-1.29, True), "ssim": (-0.031, False), "vif": (-0.011, True)}, claims.FAILS, claims.FAILS),
        ({}, claims.OPEN, claims.OPEN),
    ],
)
def test_better_needs_significance_and_close_the_papers_own_deficit(differences, better, close):
    assert claims._better(differences) == better
    assert claims._close(differences) == close


@pytest.mark.parametrize(
    ("images", "methods", "verdict"),
    [(5, 2, claims.FEW), (6, 2, claims.HOLDS), (6, 3, claims.FEW), (7, 3, claims.HOLDS)],
)
def test_too_few_images_for_significance_leave_the_verdict_open(working_folder, images, methods, verdict):
    """Holm's correction is over all pairs of methods."""
    narrow = {"width": 0.0625, "discriminator_width": 0.0625}
    entries = {"pix2pix": {"options": narrow}, "msgunet": {"options": narrow | {"scales": 2}}}
    if methods == 3:
        entries["pan"] = {"options": narrow}
    plan = make_plan(working_folder, methods=entries)
    fill(plan, images)
    other, ours = (run.folder / "metrics.csv" for run in plan.runs[:2])
    frame = pd.read_csv(other, converters={"id": str})
    if methods == 3:
        third = frame.assign(**{metric: frame[metric] - 9 for metric in ("psnr", "ssim", "vif")})
        third.to_csv(plan.runs[2].folder / "metrics.csv", index=False)
    frame[["psnr", "ssim", "vif"]] += 1
    frame.to_csv(ours, index=False)
    claim = build_tables(_collection(plan)).frames["claims"].iloc[0]
    assert claim["verdict"] == verdict
    assert claim["measured"].startswith("PSNR +1.00 dB")


def test_the_papers_own_deficits():
    assert claims.published_deficits() == pytest.approx({"psnr": -1.28, "ssim": -0.03, "vif": -0.01})


def test_a_suites_claims(working_folder):
    plan = make_plan(working_folder, gradients={"dataset": "bluemarble", "records": 4})
    fill(plan, images=12, without=("pix2pix",))
    runs = {run.settings.entry: run for run in plan.runs}
    cells = pd.read_csv(runs["msgunet"].folder / "ablation.csv", converters={"id": str})
    cells["ssim"] = np.where(cells["input_width"] == 128, 0.7, 0.679)
    cells.to_csv(runs["msgunet"].folder / "ablation.csv", index=False)
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    frame = build_tables(collection).frames["claims"]
    assert list(frame["verdict"]) == [claims.OPEN, claims.FAILS, claims.OPEN]
    assert frame["on"].iloc[0] == "bluemarble, 128×64 and 64×64, full protocol (not in the paper)"
    assert frame["measured"].iloc[1] == "SSIM 0.700 → 0.679"
    fill(plan, images=12)
    pixels = pd.read_csv(runs["pix2pix"].folder / "metrics.csv", converters={"id": str})
    better = pixels.assign(psnr=pixels["psnr"] + 3, ssim=pixels["ssim"] + 0.1, vif=pixels["vif"] - 0.1)
    better.to_csv(runs["msgunet"].folder / "metrics.csv", index=False)
    collection = Collection(plan.results / "settings" / "report.json", plan.results)
    first = build_tables(collection).frames["claims"].iloc[0]
    assert first["measured"] == "PSNR +3.00 dB*, SSIM +0.100*, VIF −0.100*"
    assert first["verdict"] == claims.PARTLY


@pytest.mark.parametrize(("factor", "verdict"), [(2.5, claims.HOLDS), (1.5, claims.FAILS)])
def test_gradients_are_compared_layer_by_layer(factor, verdict):
    def gradients(size: float, *heads: str) -> pd.DataFrame:
        rows = [
            {"kind": "layer", "step": step, "layer": layer, "norm": (1 if step == 8 else 100) * size * root, "count": n}
            for step in (2, 4, 6, 8)
            for layer, n, root in (("a", 4, 2.0), ("b", 100, 10.0), ("c", 9, 3.0), *((head, 1, 1e9) for head in heads))
        ]
        return pd.DataFrame(rows)

    tables = {"with": gradients(factor, "heads.1"), "without": gradients(1.0)}
    settings = SimpleNamespace(dataset="maps", size=(512, 512))
    runs = [
        SimpleNamespace(
            title="MSG U-Net", settings=settings, folder=SimpleNamespace(name=name), table=lambda _, frame=frame: frame
        )
        for name, frame in tables.items()
    ]
    (claim,) = claims._gradients(SimpleNamespace(gradients=runs))
    assert (claim.measured, claim.verdict) == (f"{factor:.2f} times larger with them", verdict)


def test_the_table_counts_verdicts(working_folder):
    plan = make_plan(working_folder)
    fill(plan, without=("pix2pix",))
    (table,) = (t for t in build_tables(_collection(plan)).sections["reproduction"] if t.name == "claims")
    assert table.notes[0].startswith("2 claims: ")
    assert any("at least 6 images for two methods and 8 for four" in note for note in table.notes)
    assert sum(int(word) for word in table.notes[0].replace(",", "").split() if word.isdigit()) == 4
    quality, smaller = (row[2] for row in table.rows)
    assert quality == "–"
    assert smaller.startswith("SSIM 0.")


def test_methods_below_the_mean_image_are_named_beside_their_verdicts(working_folder):
    plan = make_plan(working_folder)
    fill(plan, without=("pix2pix",))

    def notes():
        return [note for note in unlearned(_collection(plan)) if "did not reach the PSNR" in note]

    # The made values of the mean image are the highest.
    [note] = notes()
    assert note.startswith("bluemarble, full protocol: MSG U-Net did not reach")
    (table,) = (t for t in build_tables(_collection(plan)).sections["reproduction"] if t.name == "claims")
    assert note in table.notes
    mean = next(run.folder / "metrics.csv" for run in plan.runs if run.settings.entry == "mean")
    frame = pd.read_csv(mean, converters={"id": str})
    frame.assign(psnr=frame["psnr"] - 10).to_csv(mean, index=False)
    assert notes() == []
    mean.unlink()
    assert notes() == []


def _collection(plan) -> Collection:
    return Collection(plan.results / "settings" / "report.json", plan.results)
