"""Checkpoints and interruptions: training resumes exactly, survives signals, and refuses foreign checkpoints."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TRAINABLE, make_data, make_settings, train, write_run

from msgunet.cli.main import main
from msgunet.core.errors import InterruptedTraining, UserError
from msgunet.core.files import read_settings
from msgunet.core.settings import ComputeSettings, EvaluationSettings, NetworkList, RunSettings, TrainingSettings
from msgunet.cost.count import cost
from msgunet.evaluation.ablation import ablate
from msgunet.evaluation.evaluate import evaluate
from msgunet.methods.registry import build_method
from msgunet.training import loop
from msgunet.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from msgunet.training.state import TrainingState, checkpoint_folder


class _KillError(Exception):
    """Simulates a power failure."""


@pytest.mark.parametrize(("name", "precision"), [*((name, "fp32") for name in TRAINABLE), ("msgunet", "bf16")])
def test_resume_in_mid_epoch_is_exact(tmp_path, data, compute, monkeypatch, name, precision):
    training = TrainingSettings(epochs=1, decay_epochs=1, batch_size=2, flip=True, ema=0.9, precision=precision)
    settings = make_settings(data, name, training=training)
    whole = train(tmp_path / "whole", settings, compute.model_copy(update={"log_steps": 3}))
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9, "log_steps": 3})
    original, calls = loop.step, []

    def cut(*arguments):
        calls.append(None)
        if len(calls) == 5:
            raise _KillError
        return original(*arguments)

    monkeypatch.setattr(loop, "step", cut)
    with pytest.raises(_KillError):
        train(tmp_path / "cut", settings, often)
    assert len(checkpoints(checkpoint_folder(tmp_path / "cut", settings))) == 3
    assert train(tmp_path / "cut", settings, often) == whole
    total = 3 * sum(phase.length for phase in build_method(settings).phases(training))
    assert len(calls) == 5 + total - 4, "it resumed from step 4"
    histories = [(tmp_path / n / "history.csv").read_text().splitlines() for n in ("whole", "cut")]
    without_time = [[row.split(",")[:3] + row.split(",")[4:] for row in rows] for rows in histories]
    assert without_time[0] == without_time[1]


@pytest.fixture(scope="module")
def coarse_to_fine(tmp_path_factory) -> tuple[RunSettings, str]:
    """The settings of a training in phases, and the hash of its generator."""
    folder = tmp_path_factory.mktemp("coarse_to_fine")
    training = TrainingSettings(epochs=2, decay_epochs=0, ema=0.9)
    settings = make_settings(make_data(folder / "data"), "pix2pixhd_local", training=training)
    return settings, train(folder / "whole", settings, ComputeSettings(device="cpu"))


@pytest.mark.parametrize("cut", [3, 6, 12, 15])
def test_coarse_to_fine_resumes_exactly(tmp_path, coarse_to_fine, compute, monkeypatch, cut):
    settings, whole = coarse_to_fine
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9})
    original, calls = loop.step, []

    def stop(*arguments):
        calls.append(None)
        if len(calls) == cut + 1:
            raise _KillError
        return original(*arguments)

    monkeypatch.setattr(loop, "step", stop)
    with pytest.raises(_KillError):
        train(tmp_path / "cut", settings, often)
    assert train(tmp_path / "cut", settings, often) == whole


def command(folder: Path, *extra: str) -> list[str]:
    run = str(folder / "run.json")
    return [sys.executable, "-m", "msgunet", "train", "--run", run, "--out", str(folder), *extra]


def start_long(tmp_path: Path, name: str, compute: ComputeSettings) -> tuple[Path, subprocess.Popen]:
    """Start a training of a few seconds in a separate process group, and wait for its first checkpoint or sample."""
    data = make_data(tmp_path / "long", train=8)
    folder = tmp_path / name
    settings = make_settings(data, training=TrainingSettings(epochs=7, decay_epochs=0, batch_size=2))
    write_run(folder, settings)
    compute_file = tmp_path / "compute.json"
    compute_file.write_text(compute.model_dump_json())
    process = subprocess.Popen(
        command(folder, "--compute", str(compute_file)), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not checkpoints(checkpoint_folder(folder, settings)) and not list(folder.glob("samples/epoch*")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return folder, process


def test_a_checkpoint_of_an_earlier_version_is_resumed(tmp_path, data, compute, monkeypatch):
    """Resume in the same phase with the saved optimisers, and get the same result."""
    settings = make_settings(data, "pix2pixhd_local", training=TrainingSettings(epochs=1, decay_epochs=1, batch_size=2))
    whole = train(tmp_path / "whole", settings, compute)
    done, step = [], loop.step

    def stopped(*arguments):
        done.append(1)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(loop, "step", stopped)
    with pytest.raises(InterruptedTraining):
        train(tmp_path / "parts", settings, compute)
    monkeypatch.undo()
    folder = checkpoint_folder(tmp_path / "parts", settings)
    old = load_checkpoint(folder)
    assert old.pop("phase") == 0
    assert old.pop("peak_mib") > 0
    save_checkpoint(folder, old["step"], old)
    assert train(tmp_path / "parts", settings, compute) == whole


def finish(folder: Path, compute: ComputeSettings, capsys) -> str:
    result = train(folder, read_settings(folder / "run.json", RunSettings), compute)
    assert "resuming from step" in capsys.readouterr().err
    return result


def test_kill_and_terminate_change_nothing(tmp_path, compute, capsys):
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9, "workers": 2, "sample_epochs": 1000})
    killed, process = start_long(tmp_path, "killed", often)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "generator.safetensors").exists()
    rare = often.model_copy(update={"checkpoint_minutes": 10, "sample_epochs": 1})
    stopped = []
    # Ctrl-C sends SIGINT to the whole group too.
    for number in (signal.SIGTERM, signal.SIGINT):
        folder, process = start_long(tmp_path, number.name.lower(), rare)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 128 + number, stderr
        assert f"stopped by {number.name}" in stderr
        assert not (folder / "generator.safetensors").exists()
        stopped.append(folder)
    quiet = compute.model_copy(update={"workers": 2, "sample_epochs": 1000})
    hashes = {finish(folder, quiet, capsys) for folder in (killed, *stopped)}
    hashes.add(train(tmp_path / "whole", read_settings(killed / "run.json", RunSettings), compute))
    assert len(hashes) == 1


def test_a_second_trainer_leaves_or_waits(tmp_path, compute, capsys):
    folder, process = start_long(tmp_path, "busy", compute.model_copy(update={"checkpoint_minutes": 1e-9}))
    # Pause the first training while it holds the lock.
    os.killpg(process.pid, signal.SIGSTOP)
    third = subprocess.Popen([*command(folder), "--wait"], stderr=subprocess.PIPE, text=True)
    try:
        assert main(command(folder)[3:]) == 2
        assert f"another process is training in {folder}; wait for it" in capsys.readouterr().err
        assert f"another process is training in {folder}; waiting for it to end" in third.stderr.readline()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    rest = third.communicate(timeout=120)[1]
    assert third.returncode == 0
    assert "resuming from step" in rest
    assert (folder / "generator.safetensors").is_file()


def test_a_file_system_without_locks_is_refused(tmp_path, data, compute, monkeypatch):
    def no_lock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_lock)
    with pytest.raises(UserError, match="cannot be locked"):
        train(tmp_path / "out", make_settings(data), compute)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_training_for_gpus_does_not_start_without(tmp_path, data, compute):
    required = compute.model_copy(update={"gpu_required": True})
    with pytest.raises(UserError, match="torch finds no CUDA GPU here"):
        train(tmp_path / "out", make_settings(data), required)
    train(tmp_path / "mean", make_settings(data, "mean"), required)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_nothing_is_measured_on_a_cpu_where_a_gpu_is_required(tmp_path, data, compute):
    required = compute.model_copy(update={"gpu_required": True})
    for method in ("msgunet", "mean"):
        folder = tmp_path / method
        train(folder, make_settings(data, method), compute)
        files = (folder / "run.json", folder / "generator.safetensors")
        if method == "mean":
            evaluate(*files, folder, EvaluationSettings(), required, None)
            continue
        with pytest.raises(UserError, match="torch finds no CUDA GPU here"):
            evaluate(*files, folder, EvaluationSettings(), required, None)
        with pytest.raises(UserError, match="torch finds no CUDA GPU here"):
            ablate(*files, folder / "ablation.csv", required, None)
    network = {"entry": "x", "part": "generator", "method": "mean", "size": (64, 64), "options": {}, "used": True}
    with pytest.raises(UserError, match="torch finds no CUDA GPU here"):
        cost(NetworkList(networks=[network]), tmp_path / "cost.csv", required)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage, capsys):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step, "x": torch.rand(100)})
    newest = checkpoints(tmp_path)[0][0]
    raw = bytearray(newest.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    newest.write_bytes(raw[: -100 if damage == "cut" else None])
    assert load_checkpoint(tmp_path)["step"] == 1
    assert "damaged" in capsys.readouterr().err
    checkpoints(tmp_path)[1][0].write_bytes(b"")
    with pytest.raises(UserError, match="all 2 checkpoints"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    save_checkpoint(tmp_path, 1, {"x": Evil()})
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_a_full_disk_leaves_the_checkpoint_before(small_disk):
    save_checkpoint(small_disk, 1, {"step": 1, "x": torch.rand(100_000)})
    with pytest.raises(UserError, match=r"could not write the checkpoint of step 2: it needs 4,000,000 bytes"):
        save_checkpoint(small_disk, 2, {"step": 2, "x": torch.rand(1_000_000)})
    assert load_checkpoint(small_disk)["step"] == 1
    assert not list(small_disk.glob(".tmp-*"))


def test_three_checkpoints_are_kept(tmp_path):
    for step in range(6):
        save_checkpoint(tmp_path, step, {"step": step})
    assert [step for _, step in checkpoints(tmp_path)] == [5, 4, 3]


OTHER = TrainingSettings(epochs=1, decay_epochs=1, batch_size=2, learning_rate=1e-3)


def test_other_settings_train_anew_and_lose_nothing(tmp_path, data, compute):
    folder = tmp_path / "run"
    first = train(folder, make_settings(data), compute)
    other = train(folder, make_settings(data, training=OTHER), compute)
    assert other != first
    assert other == train(tmp_path / "fresh", make_settings(data, training=OTHER), compute)
    assert len(list((folder / "checkpoints").iterdir())) == 2
    assert train(folder, make_settings(data), compute) == first, "the checkpoint of the first settings still exists"


def test_a_checkpoint_of_other_settings_is_refused_by_key(tmp_path, data, compute, capsys):
    folder, other = tmp_path / "run", make_settings(data, training=OTHER)
    train(folder, make_settings(data), compute)
    checkpoint_folder(folder, make_settings(data)).rename(checkpoint_folder(folder, other))
    write_run(folder, other)
    assert main(["train", "--run", str(folder / "run.json"), "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "training.learning_rate: 0.0002 in the checkpoint, 0.001 now" in error
    assert str(folder / "checkpoints") in error


def test_a_missing_item_is_an_error(tmp_path, data, compute):
    settings = make_settings(data)
    folder = tmp_path / "run"
    train(folder, settings, compute)
    state = load_checkpoint(checkpoint_folder(folder, settings))
    # Checkpoints of earlier versions lack these two items.
    for item in state.keys() - {"phase", "peak_mib"}:
        method = loop.build_method(settings)
        less = {key: value for key, value in state.items() if key != item}
        with pytest.raises(UserError, match=f"has no {item}"):
            TrainingState(method, settings, torch.device("cpu")).load(less, settings, folder)
    del state["optimizers"]["discriminator"]
    with pytest.raises(UserError, match="has no discriminator"):
        TrainingState(method, settings, torch.device("cpu")).load(state, settings, folder)
