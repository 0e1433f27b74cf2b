"""Several processes that train one run: they equal one process, stop together and fail together."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, TRAINABLE, make_data, make_settings, through_phases, train, write_run
from filelock import FileLock

from msgunet.cli.main import main
from msgunet.core.settings import ComputeSettings, TrainingSettings, batch_problem
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training.checkpoint import checkpoints
from msgunet.training.processes import Processes, processes
from msgunet.training.state import TrainingState, checkpoint_folder
from msgunet.training.step import step


@pytest.fixture(scope="module")
def forkserver():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["msgunet.training.loop"])
    return context


def in_team(rank: int, size: int, port: int, function, arguments: tuple) -> None:
    """Set the environment that torchrun sets for a process, then run the function."""
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({key: str(value) for key, value in environment.items()})
    torch.set_num_threads(1)
    raise SystemExit(function(*arguments))


def start_team(context, function, *arguments) -> list:
    """Start two processes that run `function`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    team = [context.Process(target=in_team, args=(rank, 2, port, function, arguments)) for rank in range(2)]
    for process in team:
        process.start()
    return team


def codes(team: list) -> list[int]:
    for process in team:
        process.join(120)
    return [process.exitcode for process in team]


def steps_in_double(name: str, out: Path) -> None:
    """Run three steps on four images, in micro-batches and in 64 bits, and save the weights."""
    training = TrainingSettings(batch_size=4, accumulate=2)
    # A margin that some of the images exceed.
    settings = make_settings("unused", name, training=training, options={"margin": 6.0} if name == "pan" else {})
    method = build_method(settings)
    perceptual = load_perceptual(settings.perceptual, None).double() if settings.perceptual else None
    scales = method.scales(method.options, settings.size)
    with processes() as team:
        state = TrainingState(method, settings, torch.device("cpu"), processes=team)
        state.generator.double()
        state.discriminator.double()
        for i, phase in enumerate(through_phases(method, state, training, 3)):
            torch.manual_seed(i)
            whole = [[torch.rand(4, 3, 64 >> k, 64 >> k).double() * 2 - 1 for k in range(scales)] for _ in "st"]
            shares = ([torch.stack(team.share(level, 2)) for level in images] for images in whole)
            torch.manual_seed(i)
            step(method, state, *(method.view(phase, images, "photo") for images in shares), perceptual, 1e-3, None)
        if team.first:
            torch.save([state.generator.state_dict(), state.discriminator.state_dict()], out)


@pytest.mark.parametrize("name", TRAINABLE)
def test_two_processes_equal_one(tmp_path, forkserver, name):
    steps_in_double(name, tmp_path / "one.pt")
    assert codes(start_team(forkserver, steps_in_double, name, tmp_path / "two.pt")) == [0, 0]
    one, two = (torch.load(tmp_path / f"{count}.pt") for count in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        # The gradients of biases before a norm are rounding errors, which Adam amplifies.
        compared = [key for key in a if a[key].ndim == 4 or "running" in key or "num_batches" in key]
        worst = {key: (a[key].double() - b[key].double()).abs().max().item() for key in compared}
        # A method without a discriminator has no weights of one.
        assert compared or not a
        assert max(worst.values(), default=0) < 1e-6, worst


def arguments_of(folder: Path, settings, compute: ComputeSettings) -> list[str]:
    run = write_run(folder, settings)
    compute_file = folder / "compute.json"
    compute_file.write_text(compute.model_dump_json())
    return ["train", "--run", str(run), "--out", str(folder), "--compute", str(compute_file)]


def losses_of(folder: Path) -> torch.Tensor:
    rows = pd.read_csv(folder / "history.csv")
    return torch.tensor(rows[[c for c in rows if c not in ("seconds", "gradient_generator")]].to_numpy())


def test_torchrun_trains_as_one_process_does(tmp_path, compute):
    """Start it as a user would. In 32 bits, the losses agree to within one part in a thousand."""
    data = make_data(tmp_path / "data", train=8)
    training = TrainingSettings(epochs=1, decay_epochs=1, batch_size=4, flip=True, ema=0.9)
    settings = make_settings(data, "msgunet", training=training)
    train(tmp_path / "one", settings, compute)
    arguments = arguments_of(tmp_path / "two", settings, compute)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "--", "msgunet", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(losses_of(tmp_path / "one"), losses_of(tmp_path / "two"), rtol=1e-3, atol=1e-4)
    assert json.loads((tmp_path / "two" / "training.json").read_text())["processes"] == 2
    assert sorted(p.name for p in (tmp_path / "one").rglob("epoch-*")) == ["epoch-0001.png", "epoch-0002.png"]
    assert done.stderr.count("needs about") == 1


def verb(arguments: list[str]) -> int:
    return main(arguments)


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_they_resume(tmp_path, compute, forkserver):
    data = make_data(tmp_path / "data", train=8)
    settings = make_settings(data, "pix2pix", training=TrainingSettings(epochs=200, decay_epochs=0, batch_size=4))
    folder = tmp_path / "run"
    arguments = arguments_of(folder, settings, compute.model_copy(update={"log_steps": 1, "sample_epochs": 1000}))
    team = start_in_loop(forkserver, arguments, folder)
    os.kill(team[1].pid, signal.SIGTERM)
    assert codes(team) == [143, 143]
    (path,) = checkpoint_folder(folder, settings).glob("step-*.pt")
    reached = torch.load(path, weights_only=True)["step"]
    team = start_in_loop(forkserver, arguments, folder)
    os.kill(team[0].pid, signal.SIGINT)
    assert codes(team) == [130, 143]
    assert max(step for _, step in checkpoints(checkpoint_folder(folder, settings))) > reached > 0


def start_in_loop(context, arguments: list[str], folder: Path) -> list:
    """Start a team, and wait until it has finished its first step."""
    (folder / "progress.json").unlink(missing_ok=True)
    team = start_team(context, verb, arguments)
    deadline = time.monotonic() + 60
    while not (folder / "progress.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return team


def test_all_processes_of_a_time_limited_training_end_after_the_same_step(tmp_path, compute, forkserver):
    data = make_data(tmp_path / "data", train=8)
    training = TrainingSettings(epochs=1, decay_epochs=1, batch_size=4, minutes=4 / 60)
    arguments = arguments_of(tmp_path / "run", make_settings(data, "pix2pix", training=training), compute)
    assert codes(start_team(forkserver, verb, arguments)) == [0, 0]
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert facts["processes"] == 2
    assert facts["seconds"] >= 4
    assert facts["steps"] > 2


def test_where_another_trainer_is_at_work_all_leave(tmp_path, compute, forkserver):
    settings = make_settings(make_data(tmp_path / "data"), "pix2pix")
    arguments = arguments_of(tmp_path / "run", settings, compute)
    with FileLock(tmp_path / "run" / ".lock"):
        assert codes(start_team(forkserver, verb, arguments)) == [2, 2]


def test_a_batch_that_cannot_be_shared_is_refused():
    assert batch_problem(8, 2, 2) is None
    assert "use a multiple of 4" in batch_problem(6, 2, 2)


def test_a_share_of_a_batch_is_of_every_part():
    shares = [Processes(rank, 2).share("abcdefgh", 2) for rank in range(2)]
    assert shares == [["a", "b", "e", "f"], ["c", "d", "g", "h"]]
    assert Processes().share("abcd", 2) == ["a", "b", "c", "d"]
