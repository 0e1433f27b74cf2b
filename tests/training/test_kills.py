"""Trainings and saving loops killed at random, again and again: `python -m pytest -m slow -k kills`."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import TRAINABLE, make_data, make_settings, train, write_run

from msgunet.cli.main import main
from msgunet.core.files import sha256_file
from msgunet.core.settings import TrainingSettings
from msgunet.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from msgunet.training.state import checkpoint_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def processes():
    """Processes that have torch imported already, so that a life is as long as its training."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["msgunet.training.loop"])
    return context


def life(arguments: list[str]) -> None:
    """One life of a training, in a process group of its own."""
    os.setsid()
    raise SystemExit(main(arguments))


@pytest.mark.parametrize("name", TRAINABLE)
def test_twenty_kills_and_five_terminations_change_nothing(tmp_path, compute, processes, name):
    data = make_data(tmp_path / "data", train=8)
    # One epoch of each kind of phase more than enough for all lives.
    training = TrainingSettings(epochs=100, decay_epochs=100, batch_size=2, flip=True, ema=0.9)
    options = {"coarse_epochs": 50, "coarse_decay_epochs": 50, "freeze_epochs": 30} if "local" in name else {}
    settings = make_settings(data, name, training=training, options=options)
    quiet = compute.model_copy(update={"sample_epochs": 1000, "log_steps": 7})
    whole = train(tmp_path / "whole", settings, quiet)
    folder = tmp_path / "killed"
    run = write_run(folder, settings)
    machine = tmp_path / "compute.json"
    machine.write_text(quiet.model_copy(update={"checkpoint_minutes": 0.002, "workers": 1}).model_dump_json())
    arguments = ["train", "--run", str(run), "--out", str(folder), "--compute", str(machine)]
    draw = random.Random(name)
    signals = [signal.SIGKILL] * 20 + [signal.SIGTERM] * 5
    draw.shuffle(signals)
    place = checkpoint_folder(folder, settings)
    steps = []
    for sent in signals:
        process = processes.Process(target=life, args=(arguments,))
        process.start()
        before, deadline = newest(place), time.monotonic() + 60
        # Each life must get somewhere, or the training would never end.
        while newest(place) == before:
            assert process.is_alive(), f"it ended after {len(steps)} signals: too short a training"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        os.killpg(process.pid, sent)
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if sent == signal.SIGKILL else 143)
        assert not (folder / "generator.safetensors").exists()
        steps.append(newest(place))
    assert steps == sorted(steps)
    process = processes.Process(target=life, args=(arguments,))
    process.start()
    process.join(600)
    assert process.exitcode == 0
    assert sha256_file(folder / "generator.safetensors") == whole


def newest(folder: Path) -> int:
    return max((step for _, step in checkpoints(folder)), default=0)


def save_for_ever(folder: str) -> None:
    """Save a megabyte as fast as it goes."""
    folder = Path(folder)
    step = newest(folder)
    state = {"x": torch.rand(250_000)}
    while True:
        step += 1
        save_checkpoint(folder, step, {**state, "step": step})


def test_two_hundred_kills_in_a_hot_saving_loop_leave_no_unreadable_checkpoint(tmp_path, processes, capsys):
    draw = random.Random(0)
    last = 0
    for _ in range(200):
        process = processes.Process(target=save_for_ever, args=(str(tmp_path),))
        process.start()
        begun = newest(tmp_path)
        while newest(tmp_path) < begun + 1:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.join()
        for path, step in checkpoints(tmp_path):
            assert torch.load(path, weights_only=True)["step"] == step
        found = load_checkpoint(tmp_path)["step"]
        assert found > last
        last = found
    assert "damaged" not in capsys.readouterr().err
