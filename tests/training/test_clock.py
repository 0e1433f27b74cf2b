"""The training time: what it includes, and that it goes on after a resume."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from conftest import make_settings, train

from msgunet.core.errors import InterruptedTraining
from msgunet.core.settings import TrainingSettings
from msgunet.data.pairs import PairDataset
from msgunet.training import clock, keeper, loop
from msgunet.training.state import TrainingState


@pytest.fixture
def now(monkeypatch):
    """The time, which passes only where a test says so: one second in each step."""
    found, step = [0.0], loop.step

    def slow(*arguments):
        found[0] += 1
        return step(*arguments)

    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: found[0]))
    monkeypatch.setattr(loop, "step", slow)
    return found


def slowly(monkeypatch, now, owner, name, seconds, calls=1_000_000):
    """Let the first calls of a function take some seconds more."""
    original, left = getattr(owner, name), [calls]

    def slow(*arguments, **options):
        now[0] += seconds if left[0] > 0 else 0
        left[0] -= 1
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, slow)


def facts_of(folder):
    with (folder / "history.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    return json.loads((folder / "training.json").read_text()), rows


def test_slow_first_images_checkpoints_and_grids_are_no_training_time(tmp_path, data, compute, monkeypatch, now):
    slowly(monkeypatch, now, PairDataset, "__getitem__", 1000, calls=6)
    slowly(monkeypatch, now, TrainingState, "save", 100)
    slowly(monkeypatch, now, keeper, "save_grid", 10)
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9, "sample_epochs": 1})
    training = TrainingSettings(epochs=1, decay_epochs=0, batch_size=2, minutes=9.5 / 60)
    train(tmp_path / "run", make_settings(data, training=training), often)
    facts, rows = facts_of(tmp_path / "run")
    assert (facts["steps"], facts["seconds"]) == (13, 10), "three steps before the clock starts, then one second each"
    assert rows == [(step, max(0, step - 3)) for step in range(1, 14)]
    assert now[0] > 5000


def test_slow_images_later_are_training_time(tmp_path, data, compute, monkeypatch, now):
    slowly(monkeypatch, now, PairDataset, "__getitem__", 0.25)
    training = TrainingSettings(epochs=2, decay_epochs=0, batch_size=2)
    train(tmp_path / "run", make_settings(data, training=training), compute)
    facts, _ = facts_of(tmp_path / "run")
    assert (facts["steps"], facts["seconds"]) == (6, 3 * 1.5), "two images a step"


def test_the_time_goes_on_after_a_resume(tmp_path, data, compute, monkeypatch, now):
    settings = make_settings(data, training=TrainingSettings(epochs=4, decay_epochs=0, batch_size=2))
    one = loop.step

    def stopped(*arguments):
        result = one(*arguments)
        if arguments[1].step == 6:
            signals[0].received = 15
        return result

    signals, original = [], loop.Signals

    def recorded():
        signals.insert(0, original())
        return signals[0]

    monkeypatch.setattr(loop, "Signals", recorded)
    monkeypatch.setattr(loop, "step", stopped)
    with pytest.raises(InterruptedTraining, match="after step 7 of 12"):
        train(tmp_path / "run", settings, compute)
    now[0] += 1e6
    monkeypatch.setattr(loop, "step", one)
    train(tmp_path / "run", settings, compute)
    facts, rows = facts_of(tmp_path / "run")
    assert facts["seconds"] == (7 - 3) + (5 - 3), "each part begins with three steps before the clock starts"
    assert [seconds for _, seconds in rows] == sorted(seconds for _, seconds in rows)


def test_a_clock_waits_for_the_device_and_leaves_out_pauses(monkeypatch):
    found, waited = [0.0], []
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: found[0]))
    monkeypatch.setattr(clock, "wait_for", waited.append)
    ours = clock.Clock()
    with ours.paused():
        found[0] += 5
    assert ours.elapsed() == 0
    device = torch.device("cpu")
    ours.start(device)
    ours.start(device)
    assert waited == [device]
    found[0] += 2
    with ours.paused():
        found[0] += 30
    found[0] += 1
    assert ours.elapsed() == 3
    assert ours.elapsed() == 0
