"""The status of runs, from real trainings that finish, fail, run out of memory, are stopped or still running."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import make_settings, train, write_run
from made import fill, make_plan

from msgunet.cli.main import main
from msgunet.core.attempts import attempt, duration, state_of
from msgunet.core.errors import OutOfMemory, UserError
from msgunet.core.settings import ComputeSettings, EvaluationSettings, TrainingSettings
from msgunet.evaluation import evaluate as evaluation
from msgunet.suite.status import report_is_due
from msgunet.training import loop, memory

EVALUATION = EvaluationSettings()
LONG = TrainingSettings(epochs=2000, decay_epochs=0, batch_size=2)


def test_a_training_that_is_not_evaluated_and_one_that_is(tmp_path, data, compute):
    settings = make_settings(data)
    assert state_of(tmp_path / "run", settings, EVALUATION).status == "not yet"
    train(tmp_path / "run", settings, compute)
    state = state_of(tmp_path / "run", settings, EVALUATION)
    assert (state.status, state.step, state.total, state.cell) == ("trained", 6, 6, "not yet")
    arguments = (tmp_path / "run" / "run.json", tmp_path / "run" / "generator.safetensors", tmp_path / "run")
    evaluation.evaluate(*arguments, EVALUATION, compute, None)
    assert state_of(tmp_path / "run", settings, EVALUATION).status == "done"
    other = make_settings(data, seed=1)
    assert state_of(tmp_path / "run", other, EVALUATION).status == "not yet", "has other settings"


def test_a_failed_training_states_the_reason_until_the_next_attempt(tmp_path, data, compute):
    bad = make_settings(data, training=LONG.model_copy(update={"learning_rate": 1e30}))
    with pytest.raises(UserError):
        train(tmp_path, bad, compute)
    state = state_of(tmp_path, bad, EVALUATION)
    assert (state.status, state.cell) == ("failed", "failed")
    assert "not finite" in state.why
    assert "learning_rate" in state.sentence
    good = make_settings(data)
    train(tmp_path, good, compute)
    assert state_of(tmp_path, good, EVALUATION).status == "trained"
    assert not list(tmp_path.glob("failed-*"))


def test_out_of_memory_is_distinguished_from_other_failures(tmp_path, data, compute, monkeypatch):
    settings = make_settings(data)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    with pytest.raises(OutOfMemory):
        train(tmp_path, settings, compute)
    assert state_of(tmp_path, settings, EVALUATION).cell == "out of memory"
    monkeypatch.undo()

    def full(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(loop, "step", full)
    with pytest.raises(OutOfMemory):
        train(tmp_path, settings, compute)
    assert state_of(tmp_path, settings, EVALUATION).cell == "out of memory"


def test_an_evaluation_that_fails_is_named(tmp_path, data, compute, monkeypatch):
    settings = make_settings(data)
    train(tmp_path, settings, compute)
    monkeypatch.setattr(evaluation, "measure", lambda *_: 1 / 0)
    arguments = (tmp_path / "run.json", tmp_path / "generator.safetensors", tmp_path)
    with pytest.raises(ZeroDivisionError):
        evaluation.evaluate(*arguments, EVALUATION, compute, None)
    state = state_of(tmp_path, settings, EVALUATION)
    assert state.status == "failed"
    assert re.fullmatch(r"evaluate: ZeroDivisionError: division by zero \(test_status\.py:\d+\)", state.why)


def test_running_and_stopped(tmp_path, data):
    settings = make_settings(data, training=LONG)
    run = write_run(tmp_path / "run", settings)
    compute = tmp_path / "compute.json"
    compute.write_text(ComputeSettings(device="cpu").model_dump_json())
    command = [sys.executable, "-m", "msgunet", "train", "--run", run, "--out", run.parent, "--compute", compute]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while (state := state_of(run.parent, settings, EVALUATION)).step is None:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        assert (state.status, state.total) == ("running", 6000)
        assert state.left > 0
        assert state.cell == "not yet"
        assert "running at step" in state.sentence
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
    state = state_of(run.parent, settings, EVALUATION)
    assert state.status == "stopped"
    assert state.step >= 1
    assert not state.why, "a training that was stopped has not failed"


def test_an_attempt_on_a_full_disk_raises_its_own_error(tmp_path, data, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msgunet.core.attempts.write_json", full)
    with pytest.raises(KeyError), attempt(tmp_path, "train", make_settings(data)):
        raise KeyError("the stage's own")


def test_a_damaged_file_is_named(tmp_path, data):
    (tmp_path / "generator.safetensors").touch()
    (tmp_path / "training.json").write_text('{"steps": 1')
    with pytest.raises(UserError, match=r"training.json is damaged"):
        state_of(tmp_path, make_settings(data), EVALUATION)


def test_the_table_lists_finished_and_pending_work(working_folder, capsys):
    plan = make_plan(working_folder, seeds=[0, 1])
    fill(plan, without=("msgunet",))
    run = next(run for run in plan.runs if run.settings.entry == "msgunet")
    note = {"step": 2, "total": 8, "seconds": 3.0, "rate": 0.7, "settings": run.settings.identity}
    (run.folder / "progress.json").write_text(json.dumps(note))
    assert main(["status", "made.yaml"]) == 0
    output = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in output.splitlines() if line.startswith("| MSG U-Net")]
    cells = [[cell.strip() for cell in row] for row in rows]
    # Six steps at 1.5 s each, and eight at the speed of the other seed.
    assert [row[2:] for row in cells] == [["stopped", "2/8", "0:03", "0:09"], ["not yet", "0/8", "–", "0:12"]]
    assert "5 runs: 3 done, 1 stopped, 1 not yet" in output
    assert "about 0:21 left" in output
    assert "still to be made, apart from trainings: cost, tables, figures, page" in output


@pytest.mark.parametrize("stopped", [False, True])
def test_an_evaluation_that_was_stopped_is_still_to_be_made(working_folder, capsys, stopped):
    plan = make_plan(working_folder)
    fill(plan)
    run = next(run for run in plan.runs if run.settings.entry == "pix2pix")
    (run.folder / "evaluation.json").unlink()
    if stopped:
        failure = {"settings": run.settings.identity, "word": "stopped", "why": "it may have been killed"}
        (run.folder / "failed-evaluate.json").write_text(json.dumps(failure))
    assert main(["status", "made.yaml"]) == 0
    pending = next(line for line in capsys.readouterr().out.splitlines() if "still to be made" in line)
    assert pending.count("evaluation of ") == 1


def test_a_time_limited_training_has_the_rest_of_its_minutes_left(working_folder, capsys):
    plan = make_plan(working_folder, training={"minutes": 2})
    fill(plan, without=("msgunet", "pix2pix"))
    run = next(run for run in plan.runs if run.settings.entry == "msgunet")
    note = {"step": 2, "total": 9, "seconds": 30.0, "rate": 0.07, "settings": run.settings.identity}
    (run.folder / "progress.json").write_text(json.dumps(note))
    assert main(["status", "made.yaml"]) == 0
    output = capsys.readouterr().out
    parts = [line.partition("| bluemarble |")[2] for line in output.splitlines()]
    rows = [[cell.strip() for cell in part.split("|")[:-1]] for part in parts if part]
    assert rows[:2] == [["not yet", "–", "–", "2:00"], ["stopped", "2/9", "0:30", "1:30"]]
    assert "about 3:30 left" in output


def test_durations():
    assert [duration(s) for s in (0, 59.6, 3600, 3723)] == ["0:00", "1:00", "1:00:00", "1:02:03"]


def test_a_report_is_due_unless_it_was_stopped(working_folder):
    plan = make_plan(working_folder)
    fill(plan, without=("msgunet", "pix2pix"))
    run = next(run for run in plan.runs if run.settings.entry == "msgunet")
    with pytest.raises(ValueError, match="no"), attempt(run.folder, "train", run.settings):
        raise ValueError("no")
    assert report_is_due(plan), "one has failed, another has not started"
    other = next(run for run in plan.runs if run.settings.entry == "pix2pix")
    note = {"step": 2, "total": 8, "seconds": 3.0, "rate": 0.7, "settings": other.settings.identity}
    (other.folder / "progress.json").write_text(json.dumps(note))
    assert not report_is_due(plan), "the other was stopped"


def test_a_killed_training_is_reported(tmp_path, data):
    settings = make_settings(data)
    code = (
        "import os, signal; from pathlib import Path; from msgunet.core.attempts import attempt; "
        "from msgunet.core.settings import RunSettings; from msgunet.core.files import read_settings; "
        f"folder = Path({str(tmp_path)!r}); settings = read_settings(folder / 'run.json', RunSettings)\n"
        "with attempt(folder, 'train', settings): os.kill(os.getpid(), signal.SIGKILL)"
    )
    write_run(tmp_path, settings)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    state = state_of(tmp_path, settings, EVALUATION)
    assert (state.status, state.cell) == ("stopped", "not yet")
    assert "ended without reporting an error" in state.sentence


def test_of_several_processes_the_first_failure_counts(tmp_path, data):
    settings = make_settings(data)
    with contextlib.suppress(UserError), attempt(tmp_path, "train", settings):
        with contextlib.suppress(OutOfMemory), attempt(tmp_path, "train", settings):
            raise OutOfMemory("the second GPU is full")
        raise UserError("another process of this training has ended")
    assert state_of(tmp_path, settings, EVALUATION).status == "out of memory"


def test_metrics_of_an_earlier_training_or_too_few_metrics_are_not_done(tmp_path, data, compute):
    settings = make_settings(data)
    train(tmp_path, settings, compute)
    arguments = (tmp_path / "run.json", tmp_path / "generator.safetensors", tmp_path)
    evaluation.evaluate(*arguments, EvaluationSettings(metrics=["psnr"]), compute, None)
    assert state_of(tmp_path, settings, EvaluationSettings(metrics=["psnr"])).status == "done"
    assert state_of(tmp_path, settings, EVALUATION).status == "trained"
    evaluation.evaluate(*arguments, EVALUATION, compute, None)
    assert state_of(tmp_path, settings, EVALUATION).status == "done"
    facts = json.loads((tmp_path / "training.json").read_text())
    (tmp_path / "training.json").write_text(json.dumps({**facts, "finished": "later"}))
    assert state_of(tmp_path, settings, EVALUATION).status == "trained"
    (tmp_path / "generator.safetensors").unlink()
    assert state_of(tmp_path, settings, EVALUATION).status == "stopped"
