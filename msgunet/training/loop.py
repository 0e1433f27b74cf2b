"""The training loop of all methods."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from torch import nn
from torch.utils.data import DataLoader

from msgunet.core.attempts import LOCK, attempt
from msgunet.core.errors import InterruptedTraining, OutOfMemory, UserError, is_out_of_memory
from msgunet.core.files import KernelLock, read_settings, write_csv, write_json
from msgunet.core.settings import ComputeSettings, RunSettings, batch_problem
from msgunet.data.manifest import steps_per_epoch
from msgunet.data.pairs import PairDataset, keyed_seed, training_order
from msgunet.device.facts import device_name, facts
from msgunet.device.measuring import reset_peak_memory
from msgunet.device.pick import pick_device, require_gpu
from msgunet.device.precision import has_bf16, set_precision
from msgunet.methods.generator import save_generator
from msgunet.methods.method import Method
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training import memory
from msgunet.training.checkpoint import load_checkpoint
from msgunet.training.gradients import GradientRecorder
from msgunet.training.keeper import Keeper, pyramids
from msgunet.training.processes import Processes, processes
from msgunet.training.schedule import Schedule
from msgunet.training.state import TrainingState, checkpoint_folder
from msgunet.training.step import step

# Steps of a phase after which cuDNN has chosen its algorithms.
_WARM_UP = 2


def train(
    run_file: Path, out: Path, compute: ComputeSettings, vgg19: Path, data: Path | None = None, wait: bool = False
) -> None:
    """Train the run that `run_file` describes, going on from the newest checkpoint in `out` if there is one.

    Writes `generator.safetensors`, `history.csv` and `training.json`; while running also checkpoints, sample grids and
    TensorBoard files in `out`. Under torchrun several processes train it together. `wait`: until another process that
    trains this run has ended, instead of raising an error.

    Raises:
        UserError: the run cannot be trained as it is asked for, or another process trains it now.
        InterruptedTraining: SIGTERM or SIGINT arrived; the state is saved.

    """
    settings = read_settings(run_file, RunSettings)
    out.mkdir(parents=True, exist_ok=True)
    device = pick_device(compute)
    set_precision(settings.training.precision)
    with processes() as team, _run_lock(out, team, wait), attempt(out, "train", settings):
        method = build_method(settings)
        pairs = PairDataset(
            data or Path(settings.data),
            "train",
            settings.size,
            settings.kinds,
            settings.formats,
            settings.training,
            settings.seed,
        )
        if method.trainable:
            require_gpu(compute, device)
            with _explain_memory_errors(settings, compute):
                _train(method, settings, pairs, out, compute, vgg19, device, team)
        elif team.first:
            start = time.monotonic()
            generator = method.build_generator()
            method.fit(generator, pairs)
            seconds = time.monotonic() - start
            row = {"step": 0, "epoch": 0, "learning_rate": 0, "seconds": round(seconds, 2)}
            _publish(method, generator, settings, out, [row], seconds, 0, facts(device, compute.threads))
        if team.first and read_settings(run_file, RunSettings) != settings:
            (out / "generator.safetensors").unlink()
            raise UserError(f"{run_file} was changed while it was trained; start again to train the new settings")


@contextlib.contextmanager
def _run_lock(out: Path, team: Processes, wait: bool) -> Iterator[None]:
    """Hold the lock of a run's folder; the first process holds it for all."""
    lock = KernelLock(out / LOCK)
    # `msgunet status` holds it for a moment, to see whether there is a trainer.
    if not _taken(lock, team, timeout=0.3):
        if not wait:
            raise UserError(f"another process is training in {out}; wait for it or stop it")
        _say(team, f"another process is training in {out}; going on when it has ended")
        # Not too long at a time: the others wait for this one.
        while not _taken(lock, team, timeout=60):
            pass
    try:
        yield
    finally:
        lock.release()


def _taken(lock: KernelLock, team: Processes, timeout: float) -> bool:
    """Whether the first process has the lock now, as all are told."""
    held = True
    if team.first:
        try:
            lock.acquire(timeout=timeout, poll_interval=min(1, timeout / 3))
        except Timeout:
            held = False
    return not team.any(not held)


def _train(
    method: Method,
    settings: RunSettings,
    pairs: PairDataset,
    out: Path,
    compute: ComputeSettings,
    vgg19: Path,
    device: torch.device,
    team: Processes,
) -> None:
    training = settings.training
    if problem := batch_problem(min(training.batch_size, len(pairs)), training.accumulate, team.size):
        raise UserError(problem)
    if training.precision == "bf16" and not has_bf16(device):
        _say(team, f"{device_name(device)} has no instructions for bf16, fp32 may be faster")
    if training.precision == "tf32" and device.type == "cpu":
        raise UserError("training.precision: tf32 is for CUDA GPUs; on a CPU there are fp32 and bf16")
    if team.first or device.type == "cuda":
        _say(team, memory.check(method, settings, compute, device, team.size))
    team.wait()
    state = TrainingState(method, settings, device, compute, team)
    folder = checkpoint_folder(out, settings)
    saved = load_checkpoint(folder)
    if saved is not None:
        state.load(saved, settings, folder)
        _say(team, f"going on from step {state.step} ({folder})")
    perceptual = None
    if settings.perceptual is not None:
        perceptual = load_perceptual(settings.perceptual, vgg19).to(device, memory_format=state.layout)
        if compute.compile:
            perceptual.compile()
    per_epoch = steps_per_epoch(len(pairs), training.batch_size)
    schedule = Schedule(method.phases(training), training, per_epoch)
    recorder = GradientRecorder(settings.gradient_records, schedule.epochs * per_epoch, state.gradients)
    epochs = 0 if schedule.done(state.step, state.seconds) == 1 else schedule.epochs
    order = training_order(len(pairs), training.batch_size, settings.seed, epochs, state.step)
    loader = DataLoader(
        pairs,
        batch_sampler=(team.share(batch, training.accumulate) for batch in order),
        num_workers=compute.workers,
        worker_init_fn=_ignore_signals,
        pin_memory=device.type == "cuda",
    )
    if state.phase is None and state.step:
        state.phase, _, _ = schedule.at(state.step - 1, state.seconds)
    keeper = Keeper(method, settings, pairs, out, compute, state) if team.first else None
    first_step = state.step
    clock = time.monotonic()
    with _Signals() as signals:
        for batch in loader:
            index, phase, rate = schedule.at(state.step, state.seconds)
            if index != state.phase or state.step == first_step:
                if state.step > first_step:
                    state.note_peak()
                state.begin_phase(method, phase, resumed=index == state.phase)
                state.phase, begun = index, state.step
            sources, targets = pyramids(batch, method, phase, settings, device, state.layout)
            # Dropout too is keyed by the step, so that there is no state of random numbers to carry over.
            torch.manual_seed(keyed_seed(settings.seed, "step", state.step))
            recording = recorder.wants(state.step)
            losses = step(method, state, sources, targets, perceptual, rate, recorder if recording else None)
            state.step += 1
            if state.step == begun + _WARM_UP:
                reset_peak_memory(device)
            state.update_average(training.ema)
            now = time.monotonic()
            state.seconds, clock = state.seconds + now - clock, now
            if training.minutes is not None:
                # All take the same rate, and end after the same step.
                state.seconds = team.broadcast(state.seconds)
            done = schedule.done(state.step, state.seconds)
            # All stop after the same step, whoever of them was told first.
            arrived = team.any(signals.arrived is not None)
            if keeper is not None:
                keeper.after_step(losses, phase, rate, per_epoch, device, done, save=arrived)
            if arrived:
                number = signals.arrived or signal.SIGTERM
                # torchrun ends the others when one has ended: not before the state is saved.
                team.wait()
                raise InterruptedTraining(
                    f"stopped by {signal.Signals(number).name} after step {state.step} of "
                    f"{round(state.step / done)}; the state is saved in {folder}",
                    number,
                )
            if done == 1:
                break
    if keeper is not None:
        keeper.close()
        recorder.write(out / "gradients.csv")
        # The last state stays, so that a training that is asked for again has nothing to do but to publish.
        state.save(folder, settings, keep=1)
        environment = {**facts(device, compute.threads), "processes": team.size}
        environment["peak_memory_mib"] = round(state.peak_mib)
        rows = state.history["rows"]
        _publish(method, state.published(), settings, out, rows, state.seconds, state.step, environment)


def _say(team: Processes, text: str) -> None:
    if team.first:
        print(text, file=sys.stderr, flush=True)


def _publish(
    method: Method,
    generator: nn.Module,
    settings: RunSettings,
    out: Path,
    rows: list[dict[str, float]],
    seconds: float,
    steps: int,
    environment: dict[str, Any],
) -> None:
    write_csv(out / "history.csv", rows)
    done = {"settings": settings.identity, "steps": steps, "seconds": round(seconds, 2)}
    write_json(out / "training.json", {**done, **environment})
    save_generator(out / "generator.safetensors", method.published_state(generator.state_dict()), settings)


@contextlib.contextmanager
def _explain_memory_errors(settings: RunSettings, compute: ComputeSettings) -> Iterator[None]:
    """Too little memory as a user's error; nothing is made smaller behind anybody's back."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{settings.entry} on {settings.dataset}: out of memory at {settings.size[0]}x{settings.size[1]}, batch "
            f"{settings.training.batch_size}; {memory.less(settings, compute)}",
            f"  {str(error).splitlines()[0]}",
        ) from error


def _ignore_signals(_: int) -> None:
    """Workers leave signals to the main process, which finishes the step first."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Signals(contextlib.AbstractContextManager):
    """Notes SIGTERM and SIGINT instead of ending by them; a second SIGINT does not wait."""

    arrived: int | None = None

    def __enter__(self) -> "_Signals":
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._old = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.arrived == signal.SIGINT:
            raise KeyboardInterrupt
        self.arrived = number

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
