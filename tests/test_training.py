"""Training: it resumes exactly, survives signals, and refuses what it cannot do right."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import make_data, make_settings, write_run
from PIL import Image

from msgunet.cli import main
from msgunet.config import ComputeSettings, TrainingSettings
from msgunet.data.pairs import PairDataset
from msgunet.errors import UserError
from msgunet.files import sha256_file
from msgunet.inference import load_generator
from msgunet.method import Phase
from msgunet.registry import methods
from msgunet.training import loop
from msgunet.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from msgunet.training.loop import Schedule
from msgunet.training.state import TrainingState, checkpoint_folder

TRAINABLE = [name for name, method in methods().items() if method.trainable]


def train(folder: Path, settings, compute) -> str:
    """Train in this process; the hash of the published generator."""
    loop.train(write_run(folder, settings), folder, compute, Path("unused"))
    return sha256_file(folder / "generator.safetensors")


def test_a_training_writes_what_it_says(tmp_path, data, compute):
    folder = tmp_path / "run"
    train(folder, make_settings(data, training=TrainingSettings(epochs=2, decay_epochs=1, batch_size=2)), compute)
    rows = (folder / "history.csv").read_text().splitlines()
    assert rows[0].startswith("step,epoch,learning_rate,seconds,")
    assert {"gan", "features", "perceptual", "d_fake", "d_real"} <= set(rows[0].split(","))
    rates = [float(row.split(",")[2]) for row in rows[1:]]
    assert rates == [2e-4] * 6 + [1e-4] * 3
    assert list((folder / "tensorboard").iterdir())
    with Image.open(folder / "samples" / "epoch-0003.png") as grid:
        assert grid.size == (3 * 64, 4 * 64)
    assert not list(folder.rglob(".tmp-*"))


def test_weights_move(tmp_path, data, compute):
    first = tmp_path / "start"
    train(first, make_settings(data, training=TrainingSettings(epochs=0, decay_epochs=0)), compute)
    train(tmp_path / "end", make_settings(data), compute)
    start, end = (load_generator(tmp_path / n / "generator.safetensors", torch.device("cpu")) for n in ("start", "end"))
    pairs = zip(start.network.named_parameters(), end.network.parameters(), strict=True)
    assert [name for (name, a), b in pairs if torch.equal(a, b)] == []


class _KillError(Exception):
    """Stands for the power cord."""


@pytest.mark.parametrize("name", TRAINABLE)
def test_resume_in_mid_epoch_is_exact(tmp_path, data, compute, monkeypatch, name):
    training = TrainingSettings(epochs=2, decay_epochs=1, batch_size=2, flip=True, ema=0.9)
    # Deep enough for Pix2Pix to have dropout, whose randomness must resume too.
    options = {"downsamplings": 6} if name in ("pix2pix", "pan") else {}
    settings = make_settings(data, name, training=training, options=options)
    whole = train(tmp_path / "whole", settings, compute.model_copy(update={"log_steps": 3}))
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9, "log_steps": 3})
    original, calls = loop._step, []

    def cut(*arguments):
        calls.append(None)
        if len(calls) == 5:
            raise _KillError
        return original(*arguments)

    monkeypatch.setattr(loop, "_step", cut)
    with pytest.raises(_KillError):
        train(tmp_path / "cut", settings, often)
    assert len(checkpoints(checkpoint_folder(tmp_path / "cut", settings))) == 3
    assert train(tmp_path / "cut", settings, often) == whole
    assert len(calls) == 5 + 9 - 4, "it went on from step 4"
    histories = [(tmp_path / n / "history.csv").read_text().splitlines() for n in ("whole", "cut")]
    without_time = [[row.split(",")[:3] + row.split(",")[4:] for row in rows] for rows in histories]
    assert without_time[0] == without_time[1]


def test_workers_change_nothing(tmp_path, data, compute):
    settings = make_settings(data, training=TrainingSettings(epochs=1, decay_epochs=0, flip=True, jitter=4))
    assert train(tmp_path / "a", settings, compute) == train(
        tmp_path / "b", settings, compute.model_copy(update={"workers": 2})
    )


def test_gradient_records_change_nothing_and_are_evenly_spaced(tmp_path, data, compute):
    training = TrainingSettings(epochs=4, decay_epochs=0, batch_size=2)
    plain = train(tmp_path / "a", make_settings(data, training=training), compute)
    train(tmp_path / "b", make_settings(data, training=training, gradient_records=3), compute)
    rows = [row.split(",") for row in (tmp_path / "b" / "gradients.csv").read_text().splitlines()]
    kind, step, count = (rows[0].index(name) for name in ("kind", "step", "count"))
    assert sorted({int(row[step]) for row in rows[1:]}) == [4, 8, 12]
    counted = {k: sum(int(r[count]) for r in rows[1:] if r[kind] == k) for k in ("layer", "bin")}
    assert counted["layer"] == counted["bin"] > 0, "every gradient is in a bin"
    states = [load_generator(tmp_path / n / "generator.safetensors", torch.device("cpu")).network for n in "ab"]
    assert all(torch.equal(a, b) for a, b in zip(states[0].parameters(), states[1].parameters(), strict=True))
    assert plain


def command(folder: Path, *extra: str) -> list[str]:
    run = str(folder / "run.json")
    return [sys.executable, "-m", "msgunet", "train", "--run", run, "--out", str(folder), *extra]


def start_long(tmp_path: Path, name: str, compute: ComputeSettings) -> tuple[Path, subprocess.Popen]:
    """A training of some seconds in a process group of its own, after its first step."""
    data = make_data(tmp_path / "long", train=8)
    folder = tmp_path / name
    settings = make_settings(data, training=TrainingSettings(epochs=20, decay_epochs=0, batch_size=2))
    write_run(folder, settings)
    machine = tmp_path / "compute.json"
    machine.write_text(compute.model_dump_json())
    process = subprocess.Popen(
        command(folder, "--compute", str(machine)), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not checkpoints(checkpoint_folder(folder, settings)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return folder, process


def finish(folder: Path, compute_file: Path) -> str:
    done = subprocess.run(command(folder, "--compute", str(compute_file)), capture_output=True, text=True, check=True)
    assert "going on from step" in done.stderr
    return sha256_file(folder / "generator.safetensors")


def test_kill_and_terminate_change_nothing(tmp_path, compute):
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9, "workers": 2, "sample_epochs": 1000})
    killed, process = start_long(tmp_path, "killed", often)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "generator.safetensors").exists()
    rare = often.model_copy(update={"checkpoint_minutes": 1e-9})
    terminated, process = start_long(tmp_path, "terminated", rare)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "stopped by SIGTERM" in stderr
    assert not (terminated / "generator.safetensors").exists()
    hashes = {finish(folder, tmp_path / "compute.json") for folder in (killed, terminated)}
    run = (killed / "run.json").read_text()
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "run.json").write_text(run)
    subprocess.run(command(tmp_path / "whole"), capture_output=True, check=True)
    hashes.add(sha256_file(tmp_path / "whole" / "generator.safetensors"))
    assert len(hashes) == 1


def test_a_second_trainer_leaves(tmp_path, compute):
    folder, process = start_long(tmp_path, "busy", compute.model_copy(update={"checkpoint_minutes": 1e-9}))
    second = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert second.returncode == 2
    assert f"another process is training in {folder}" in second.stderr


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
    assert train(folder, make_settings(data), compute) == first, "the first settings have their checkpoint still"


def test_a_checkpoint_of_other_settings_is_refused_by_key(tmp_path, data, compute, capsys):
    folder, other = tmp_path / "run", make_settings(data, training=OTHER)
    train(folder, make_settings(data), compute)
    checkpoint_folder(folder, make_settings(data)).rename(checkpoint_folder(folder, other))
    write_run(folder, other)
    assert main(["train", "--run", str(folder / "run.json"), "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "training.learning_rate: 0.0002 in the checkpoint, 0.001 now" in error
    assert str(folder / "checkpoints") in error


def test_settings_that_change_while_training_publish_nothing(tmp_path, data, compute, monkeypatch):
    folder = tmp_path / "run"
    publish = loop._publish

    def change_first(*arguments):
        publish(*arguments)
        write_run(folder, make_settings(data, training=OTHER))

    monkeypatch.setattr(loop, "_publish", change_first)
    with pytest.raises(UserError, match="was changed while it was trained"):
        train(folder, make_settings(data), compute)
    assert not (folder / "generator.safetensors").exists()


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_missing_or_wrong_run_file_is_named(tmp_path, content, capsys):
    run = tmp_path / "run.json"
    if content is not None:
        run.write_text(content)
    assert main(["train", "--run", str(run), "--out", str(tmp_path / "out")]) == 2
    assert f"error: {run}" in capsys.readouterr().err


def test_a_missing_item_is_an_error(tmp_path, data, compute):
    settings = make_settings(data)
    folder = tmp_path / "run"
    train(folder, settings, compute)
    state = load_checkpoint(checkpoint_folder(folder, settings))
    for item in state:
        method = loop.build_method(settings)
        less = {key: value for key, value in state.items() if key != item}
        if item == "average":  # not used without ema
            continue
        with pytest.raises(KeyError, match=item):
            TrainingState(method, settings, torch.device("cpu")).load(less, settings, folder)


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path, data, compute, monkeypatch):
    settings = make_settings(data, "pix2pix")
    original = loop.build_method

    def poisoned(run):
        method = original(run)
        losses = method.generator_losses
        method.generator_losses = lambda *a: losses(*a) | {"l1": torch.tensor(float("nan"), requires_grad=True)}
        return method

    monkeypatch.setattr(loop, "build_method", poisoned)
    with pytest.raises(UserError, match=r"step 1: a loss is not finite \(gan = .*l1 = nan"):
        train(tmp_path / "run", settings, compute)
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_the_mean_row_is_the_mean(tmp_path, data, compute):
    train(tmp_path / "run", make_settings(data, "mean"), compute)
    model = load_generator(tmp_path / "run" / "generator.safetensors", torch.device("cpu"))
    pairs = PairDataset(data, "train", (64, 64), ("photo", "photo"))
    expected = torch.stack([pairs[i].target.double() / 127.5 - 1 for i in range(len(pairs))]).mean(0)
    assert torch.allclose(model([torch.zeros(1, 3, 64, 64)], "x")[0][0].double(), expected, atol=1e-6)


def test_a_damaged_or_foreign_generator_is_named(tmp_path):
    for content in (b"", b"<html>"):
        (tmp_path / "generator.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"generator\.safetensors: not a readable generator"):
            load_generator(tmp_path / "generator.safetensors", torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", TRAINABLE)
def test_training_on_a_gpu(tmp_path, data, compute, name):
    train(tmp_path / "run", make_settings(data, name), compute.model_copy(update={"device": "cuda"}))
    assert load_generator(tmp_path / "run" / "generator.safetensors", torch.device("cuda"))


def test_the_schedule_is_constant_then_linear_in_each_phase():
    schedule = Schedule([Phase("a", 2, 1), Phase("b", 0, 3)], 1.0)
    found = [schedule.at(epoch) for epoch in range(schedule.length)]
    assert [(phase.name, epoch) for phase, epoch, _ in found] == [("a", i) for i in range(3)] + [
        ("b", i) for i in range(3)
    ]
    assert [rate for *_, rate in found] == pytest.approx([1, 1, 0.5, 0.75, 0.5, 0.25])


LOCAL = {"generator": "local", "coarse_epochs": 1, "coarse_decay_epochs": 1, "freeze_epochs": 1}


def test_pix2pixhd_trains_coarse_to_fine(tmp_path, data, compute, monkeypatch):
    """First the global part alone at half the size, then the enhancer alone, then both; the head is not published."""
    settings = make_settings(data, "pix2pixhd", options=LOCAL, training=TrainingSettings(epochs=2, decay_epochs=0))
    seen, original = [], loop._step

    def watch(method, state, sources, targets, *rest):
        def parts():
            weights = dict(state.generator.named_parameters())
            names = ("coarse.1.weight", "coarse_head.1.weight", "entry.1.weight")
            return [weights[name].detach().clone() for name in names]

        before = parts()
        losses = original(method, state, sources, targets, *rest)
        moved = [not torch.equal(a, b) for a, b in zip(before, parts(), strict=True)]
        seen.append((sources[0].shape[-1], len(state.discriminator(sources, targets)), *moved))
        return losses

    monkeypatch.setattr(loop, "_step", watch)
    train(tmp_path / "run", settings, compute)
    coarse, frozen, fine = (32, 1, True, True, False), (64, 2, False, False, True), (64, 2, True, False, True)
    assert seen == [coarse] * 12 + [frozen] * 6 + [fine] * 6
    model = load_generator(tmp_path / "run" / "generator.safetensors", torch.device("cpu"))
    assert not [name for name in model.network.state_dict() if "head" in name]


@pytest.mark.parametrize("cut", [3, 12, 15])
def test_coarse_to_fine_resumes_exactly(tmp_path, data, compute, monkeypatch, cut):
    training = TrainingSettings(epochs=2, decay_epochs=0, ema=0.9)
    settings = make_settings(data, "pix2pixhd", options=LOCAL, training=training)
    whole = train(tmp_path / "whole", settings, compute)
    often = compute.model_copy(update={"checkpoint_minutes": 1e-9})
    original, calls = loop._step, []

    def stop(*arguments):
        calls.append(None)
        if len(calls) == cut + 1:
            raise _KillError
        return original(*arguments)

    monkeypatch.setattr(loop, "_step", stop)
    with pytest.raises(_KillError):
        train(tmp_path / "cut", settings, often)
    assert train(tmp_path / "cut", settings, often) == whole
