"""A training on a disk that is full for a while. The disk is a real one; the training fills and frees it."""

import os
import re
import signal

import pytest
from conftest import make_settings, train, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msgunet.cli.main import main
from msgunet.core.attempts import state_of
from msgunet.core.disk import PAUSES
from msgunet.core.errors import InterruptedTraining, UserError
from msgunet.core.files import sha256_file
from msgunet.core.settings import EvaluationSettings, TrainingSettings
from msgunet.training import keeper, loop
from msgunet.training.checkpoint import checkpoints
from msgunet.training.state import checkpoint_folder


@pytest.fixture
def at_step(monkeypatch):
    """Do something before some steps of a training: `at_step({3: disk.fill})`."""

    def set_up(actions):
        original, steps = loop.step, []

        def step(*arguments):
            steps.append(None)
            actions.get(len(steps), lambda: None)()
            return original(*arguments)

        monkeypatch.setattr(loop, "step", step)

    return set_up


def test_only_what_no_result_needs_is_skipped(tmp_path, disk, data, compute, at_step, capsys):
    """Thirty steps, ten epochs; the disk is full in steps 2 to 27, and the training owes no checkpoint."""
    settings = make_settings(data, training=TrainingSettings(epochs=10, decay_epochs=0, batch_size=2))
    whole = train(tmp_path / "whole", settings, compute)
    folder = disk.folder / "run"
    capsys.readouterr()
    at_step({2: disk.fill, 28: disk.free})
    assert train(folder, settings, compute) == whole
    lines = [line for line in capsys.readouterr().err.splitlines() if "the training goes on" in line]
    assert len(lines) == 2, "one for each kind"
    for line, name in zip(lines, ("samples/epoch-0001.png", "tensorboard/events.out"), strict=True):
        assert str(folder / name) in line
        assert "No space left on device" in line
    assert [path.name for path in (folder / "samples").iterdir()] == ["epoch-0010.png"]
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    for tag in board.Tags()["scalars"]:
        assert [event.step for event in board.Scalars(tag)] == list(range(1, 31)), "nothing is missing or damaged"
    assert not list(folder.rglob(".tmp-*"))


def test_a_disk_that_is_full_from_the_start_until_the_end(tmp_path, disk, data, compute, at_step, monkeypatch, capsys):
    """The result is waited for."""
    monkeypatch.setenv(PAUSES, "0.2 " * 50)
    settings = make_settings(data)
    whole = train(tmp_path / "whole", settings, compute)
    run = write_run(tmp_path, settings)
    disk.fill()
    timers = []
    at_step({6: lambda: timers.append(disk.free_in(1))})
    assert main(["train", "--run", str(run), "--out", str(disk.folder / "run")]) == 0
    timers[0].join()
    assert f"{checkpoint_folder(disk.folder / 'run', settings)}/next.pt: No space left" in capsys.readouterr().err
    assert sha256_file(disk.folder / "run" / "generator.safetensors") == whole


def test_a_checkpoint_is_tried_again_while_the_training_goes_on(
    tmp_path, disk, data, compute, at_step, monkeypatch, capsys
):
    monkeypatch.setenv(PAUSES, "0 " * 10)
    settings = make_settings(data)
    whole = train(tmp_path / "whole", settings, compute)
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9})
    folder = disk.folder / "run"
    at_step({3: disk.fill, 5: disk.free})
    assert train(folder, settings, often) == whole
    err = capsys.readouterr().err
    assert f"{checkpoint_folder(folder, settings)}: could not write the checkpoint of step 3" in err
    assert "the training goes on, and tries again in 0 s" in err
    assert "the checkpoint of step 5 is written" in err


def test_a_checkpoint_that_cannot_be_written_for_long_ends_the_training(disk, data, compute, at_step, monkeypatch):
    monkeypatch.setenv(PAUSES, "0 0")
    settings = make_settings(data)
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9})
    folder = disk.folder / "run"
    at_step({3: disk.fill})
    with pytest.raises(UserError, match="step 5") as caught:
        train(folder, settings, often)
    for part in (
        checkpoint_folder(folder, settings),
        "No space left on device",
        "previous checkpoint is intact",
        "free",
    ):
        assert str(part) in str(caught.value)
    assert checkpoints(checkpoint_folder(folder, settings))[0][1] == 2
    state = state_of(folder, settings, EvaluationSettings())
    assert (state.status, state.cell) == ("failed", "failed")
    assert "No space left on device" in state.why, "although the disk has no space for a new file"
    assert "memory" not in state.why


def test_a_stopped_training_waits_a_moment_for_its_last_checkpoint(disk, data, compute, at_step, monkeypatch):
    monkeypatch.setattr(keeper, "_URGENT_PAUSES", (0.2,) * 50)
    settings = make_settings(data)
    at_step({4: lambda: (disk.fill(), disk.free_in(1), os.kill(os.getpid(), signal.SIGTERM))})
    with pytest.raises(InterruptedTraining, match="after step 4"):
        train(disk.folder / "run", settings, compute)
    assert checkpoints(checkpoint_folder(disk.folder / "run", settings))[0][1] == 4


@pytest.mark.parametrize("waiting", [True, False])
def test_a_job_of_the_workflow_waits_and_a_command_by_hand_does_not(disk, data, compute, monkeypatch, capsys, waiting):
    settings = make_settings(data, "copy")
    folder = disk.folder / "run"
    train(folder, settings, compute)
    monkeypatch.delenv(PAUSES, raising=False)
    if waiting:
        monkeypatch.setenv(PAUSES, "0.2 " * 50)
    capsys.readouterr()
    disk.fill()
    timer = disk.free_in(1)
    files = ["--run", str(folder / "run.json"), "--generator", str(folder / "generator.safetensors")]
    status = main(["evaluate", *files, "--out", str(folder)])
    timer.join()
    err = capsys.readouterr().err
    assert status == (0 if waiting else 2), err
    line = rf"{folder}/\S+: No space left on device; free disk space"
    assert re.search(rf"^{line}; trying again in 0.2 s$" if waiting else rf"^error: {line}$", err, re.M), err
    assert (state_of(folder, settings, EvaluationSettings()).status == "done") is waiting
