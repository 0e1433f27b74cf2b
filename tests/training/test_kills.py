"""Repeatedly kill trainings and saving loops at random times: `python -m pytest -m slow -k kills`."""

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
    """Processes that have already imported torch, so that each lives only as long as its training."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["msgunet.training.loop"])
    return context


def run_training(arguments: list[str]) -> None:
    """Run a training once, in a separate process group."""
    os.setsid()
    raise SystemExit(main(arguments))


@pytest.mark.parametrize("name", TRAINABLE)
def test_twenty_kills_and_five_terminations_change_nothing(tmp_path, compute, processes, name):
    data = make_data(tmp_path / "data", train=8)
    # The phases are long enough for the training to outlast all signals.
    training = TrainingSettings(epochs=100, decay_epochs=100, batch_size=2, flip=True, ema=0.9)
    options = {"coarse_epochs": 50, "coarse_decay_epochs": 50, "freeze_epochs": 30} if "local" in name else {}
    settings = make_settings(data, name, training=training, options=options)
    quiet = compute.model_copy(update={"sample_epochs": 1000, "log_steps": 7})
    whole = train(tmp_path / "whole", settings, quiet)
    folder = tmp_path / "killed"
    run = write_run(folder, settings)
    compute_file = tmp_path / "compute.json"
    compute_file.write_text(quiet.model_copy(update={"checkpoint_minutes": 0.002, "workers": 1}).model_dump_json())
    arguments = ["train", "--run", str(run), "--out", str(folder), "--compute", str(compute_file)]
    draw = random.Random(name)
    signals = [signal.SIGKILL] * 20 + [signal.SIGTERM] * 5
    draw.shuffle(signals)
    checkpoint_dir = checkpoint_folder(folder, settings)
    steps = []
    for sent in signals:
        process = processes.Process(target=run_training, args=(arguments,))
        process.start()
        before, deadline = newest(checkpoint_dir), time.monotonic() + 60
        # Each process must make progress, or the training would never end.
        while newest(checkpoint_dir) == before:
            assert process.is_alive(), f"the training was too short: it ended after {len(steps)} signals"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        os.killpg(process.pid, sent)
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if sent == signal.SIGKILL else 143)
        assert not (folder / "generator.safetensors").exists()
        steps.append(newest(checkpoint_dir))
    assert steps == sorted(steps)
    process = processes.Process(target=run_training, args=(arguments,))
    process.start()
    process.join(600)
    assert process.exitcode == 0
    assert sha256_file(folder / "generator.safetensors") == whole


def newest(folder: Path) -> int:
    return max((step for _, step in checkpoints(folder)), default=0)


def save_forever(folder: str) -> None:
    """Save a megabyte repeatedly, as fast as possible."""
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
        process = processes.Process(target=save_forever, args=(str(tmp_path),))
        process.start()
        previous = newest(tmp_path)
        while newest(tmp_path) < previous + 1:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.join()
        for path, step in checkpoints(tmp_path):
            assert torch.load(path, weights_only=True)["step"] == step
        loaded = load_checkpoint(tmp_path)["step"]
        assert loaded > last
        last = loaded
    assert "damaged" not in capsys.readouterr().err
