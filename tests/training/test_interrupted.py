"""The last line of a training that Ctrl-C stops: what is saved, and that the same command resumes."""

import os
import signal

import pytest
from conftest import make_settings, write_run

from msgunet.cli.main import main
from msgunet.core.settings import ComputeSettings, TrainingSettings
from msgunet.training import loop
from msgunet.training.checkpoint import checkpoints
from msgunet.training.state import checkpoint_folder


@pytest.fixture
def interrupted(tmp_path, data, monkeypatch, capsys):
    """Return a function that trains, with an action before one of the steps, and returns the lines that it prints."""
    settings = make_settings(data, training=TrainingSettings(epochs=4, decay_epochs=0, batch_size=2))
    run = write_run(tmp_path / "run", settings)
    file, original = tmp_path / "compute.json", loop.step
    folder = checkpoint_folder(tmp_path / "run", settings)

    def call(number: int, action, often: bool = False) -> tuple[list[str], int]:
        calls = []

        def step(*arguments):
            calls.append(1)
            if len(calls) == number:
                action()
            return original(*arguments)

        monkeypatch.setattr(loop, "step", step)
        minutes = 1e-9 if often else 10
        file.write_text(ComputeSettings(device="cpu", checkpoint_minutes=minutes).model_dump_json())
        status = main(["train", "--run", str(run), "--out", str(run.parent), "--compute", str(file)])
        return capsys.readouterr().err.splitlines(), status

    return call, folder


def once():
    os.kill(os.getpid(), signal.SIGINT)


def twice():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_says_what_is_saved_and_that_the_same_command_resumes(interrupted):
    train, folder = interrupted
    lines, status = train(5, once)
    assert status == 130
    expected = f"stopped by SIGINT after step 5 of 12; the state is saved in {folder}; the same command resumes from it"
    assert lines[-1] == expected
    assert checkpoints(folder)[0][1] == 5
    lines, status = train(0, once)
    assert status == 0
    assert f"resuming from step 5 ({folder})" in lines


def test_a_second_ctrl_c_names_the_last_checkpoint(interrupted):
    train, folder = interrupted
    lines, status = train(4, twice, often=True)
    assert status == 130
    assert checkpoints(folder)[0][1] == 3
    expected = f"interrupted; the state of step 3 is saved in {folder}; the same command resumes from it"
    assert lines[-1] == expected
    lines, status = train(0, once)
    assert f"resuming from step 3 ({folder})" in lines


def test_without_a_checkpoint_nothing_is_promised(interrupted, monkeypatch):
    train, folder = interrupted
    lines, status = train(4, twice)
    assert (status, checkpoints(folder)) == (130, [])
    assert lines[-1] == "interrupted; no state was saved; the same command begins at step 0"
    with monkeypatch.context() as patch:
        # While the data are read, before the first step.
        patch.setattr(loop, "training_order", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        lines, status = train(0, once)
    assert status == 130
    assert lines[-1] == "interrupted; no state was saved; the same command begins at step 0"
    assert train(0, once)[1] == 0
