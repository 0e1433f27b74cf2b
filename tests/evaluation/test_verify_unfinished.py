"""`msgunet verify SUITE` names the runs that are not evaluated, and why."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from made import fill, make_plan

from msgunet.cli.main import main
from msgunet.core.attempts import LOCK, attempt
from msgunet.core.errors import OutOfMemory, UserError
from msgunet.core.files import KernelLock
from msgunet.evaluation import shared

CONTINUES = "the suite continues with 'snakemake --cores all --config suite=made.yaml'"


@pytest.fixture
def plan(working_folder):
    return make_plan(working_folder, methods={"msgunet": {"options": NARROW}, "mean": {}, "copy": {}}, seeds=[0, 1])


NARROW = {"width": 0.0625, "discriminator_width": 0.0625, "scales": 2}


def run_of(plan, entry, seed=0):
    return next(run for run in plan.runs if (run.settings.entry, run.settings.seed) == (entry, seed))


def test_each_reason_is_said_as_status_says_it(plan, capsys):
    fill(plan, images=1, without=("msgunet",))
    with (
        contextlib.suppress(OutOfMemory),
        attempt(run_of(plan, "msgunet").folder, "train", run_of(plan, "msgunet").settings),
    ):
        raise OutOfMemory("needs 9 GB")
    (run_of(plan, "copy").folder / "evaluation.json").unlink()
    assert main(["verify", "made.yaml"]) == 2
    output = capsys.readouterr().out
    assert "3 of 4 runs are not evaluated:" in output
    assert "\nMSG U-Net (seed 0) on bluemarble: out of memory: needs 9 GB\n" in output
    assert "\nMSG U-Net (seed 1) on bluemarble: not yet\n" in output
    assert "\ncopy (source) on bluemarble: trained, not evaluated\n" in output
    assert CONTINUES in output
    assert main(["status", "made.yaml"]) == 0
    assert "MSG U-Net (seed 0) on bluemarble: out of memory: needs 9 GB" in capsys.readouterr().out


def test_without_any_evaluated_run_the_error_lists_all(plan, capsys):
    run = run_of(plan, "msgunet")
    with KernelLock(run.folder / LOCK).acquire(timeout=0):
        assert main(["verify", "made.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: suite 'made' has no evaluated run yet\n")
    assert "MSG U-Net (seed 0) on bluemarble: running\n" in error
    assert "mean (training target) on bluemarble: not yet\n" in error
    assert CONTINUES in error


def test_shared_reference_rows_of_a_further_seed_are_left_out(plan, monkeypatch):
    """Earlier versions repeated them for every seed; a trained run that is missing is still named."""
    keys = [("bluemarble", "mean", 1), ("bluemarble", "msgunet", 7)]
    record = SimpleNamespace(runs=[SimpleNamespace(key=key) for key in keys], changed=lambda _: [], suite="made")
    monkeypatch.setattr(shared, "read_shared", lambda _: record)
    monkeypatch.setattr(shared, "read_frame", lambda _: None)
    with pytest.raises(UserError) as caught:
        shared.verify_shared(Path(), 0, None)
    assert caught.value.problems == ("msgunet on bluemarble, seed 7: made.yaml has no such run",)
