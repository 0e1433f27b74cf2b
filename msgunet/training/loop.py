"""The training loop of all methods."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from torch import Tensor, nn
from torch.utils.data import DataLoader

from msgunet.core.attempts import LOCK, attempt
from msgunet.core.disk import patiently
from msgunet.core.errors import InterruptedTraining, OutOfMemory, UserError, is_out_of_memory
from msgunet.core.files import KernelLock, read_settings, write_csv, write_json
from msgunet.core.settings import ComputeSettings, RunSettings, batch_problem
from msgunet.data.manifest import steps_per_epoch
from msgunet.data.pairs import PairDataset, PairTensors, keyed_seed, training_order
from msgunet.device.facts import device_name, facts
from msgunet.device.measuring import reset_peak_memory
from msgunet.device.pick import pick_device, require_gpu, seed_random_numbers
from msgunet.device.precision import has_bf16, set_precision
from msgunet.methods.generator import retraining_note, save_generator
from msgunet.methods.method import Method, Phase
from msgunet.methods.registry import build_method
from msgunet.methods.vgg19 import load_perceptual
from msgunet.training import memory
from msgunet.training.checkpoint import checkpoints, load_checkpoint
from msgunet.training.clock import Clock
from msgunet.training.gradients import GradientRecorder
from msgunet.training.graphs import Steps, graph_for
from msgunet.training.keeper import Keeper, pyramids
from msgunet.training.processes import Processes, processes
from msgunet.training.schedule import Schedule
from msgunet.training.signals import Signals, ignore_signals
from msgunet.training.state import TrainingState, checkpoint_folder
from msgunet.training.step import step

# cuDNN has chosen its algorithms after this many steps of a phase.
_WARM_UP = 2


def saved_so_far(run_file: Path, out: Path) -> str:
    """Return what is saved of a training that did not finish its step, and what the same command does."""
    folder = checkpoint_folder(out, read_settings(run_file, RunSettings))
    if found := checkpoints(folder):
        return f"the state of step {found[0][1]} is saved in {folder}; the same command resumes from it"
    return "no state was saved; the same command begins at step 0"


def train(
    run_file: Path, out: Path, compute: ComputeSettings, vgg19: Path, data: Path | None = None, wait: bool = False
) -> None:
    """Train the run that `run_file` describes, resuming from the newest checkpoint in `out` if one exists.

    Write `generator.safetensors`, `history.csv` and `training.json` to `out`, and during the training also checkpoints,
    sample grids and TensorBoard files. Under torchrun, several processes train the run together. If another process is
    already training this run, `wait` waits for it to end instead of raising an error.

    Raises:
        UserError: the run cannot be trained with these settings, or another process is training it.
        InterruptedTraining: SIGTERM or SIGINT was received; the state is saved.

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
            settings.resampling,
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
            raise UserError(f"{run_file} was changed during the training; start again to train with the new settings")


@contextlib.contextmanager
def _run_lock(out: Path, team: Processes, wait: bool) -> Iterator[None]:
    """Hold the lock of a run's folder. The first process holds it for all processes."""
    lock = KernelLock(out / LOCK)
    # `msgunet status` holds the lock briefly to check whether a training is running.
    if not _acquire(lock, team, timeout=0.3):
        if not wait:
            raise UserError(f"another process is training in {out}; wait for it to end or stop it")
        _report(team, f"another process is training in {out}; waiting for it to end")
        # Keep each attempt short: the other processes wait for this one.
        while not _acquire(lock, team, timeout=60):
            pass
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: KernelLock, team: Processes, timeout: float) -> bool:
    """Let the first process try to acquire the lock; return in all processes whether it holds the lock now."""
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
        _report(team, f"{device_name(device)} has no bf16 instructions; fp32 may be faster")
    if training.precision == "tf32" and device.type == "cpu":
        raise UserError("training.precision: tf32 is for CUDA GPUs; on a CPU, use fp32 or bf16")
    if team.first or device.type == "cuda":
        _report(team, memory.check(method, settings, compute, device, team.size))
    team.wait()
    state = TrainingState(method, settings, device, compute, team)
    folder = checkpoint_folder(out, settings)
    saved = load_checkpoint(folder)
    if saved is not None:
        state.load(saved, settings, folder)
        _report(team, f"resuming from step {state.step} ({folder})")
    elif note := retraining_note(out / "generator.safetensors", settings):
        _report(team, note)
    perceptual = None
    if settings.perceptual is not None:
        perceptual = load_perceptual(settings.perceptual, vgg19).keep_weights_in(settings.training.precision)
        perceptual.to(device, memory_format=state.layout)
        if compute.compile:
            perceptual.compile()
    per_epoch = steps_per_epoch(len(pairs), training.batch_size)
    schedule = Schedule(method.phases(training), training, per_epoch)
    steps_of_all = None if training.minutes is not None else schedule.epochs * per_epoch
    recorder = GradientRecorder(settings.gradient_records, steps_of_all, state.gradients)
    epochs = 0 if schedule.done(state.step, state.seconds) == 1 else schedule.epochs
    order = training_order(len(pairs), training.batch_size, settings.seed, epochs, state.step)
    loader = DataLoader(
        pairs,
        batch_sampler=(team.share(batch, training.accumulate) for batch in order),
        num_workers=compute.workers,
        worker_init_fn=ignore_signals,
        pin_memory=device.type == "cuda",
    )
    if state.phase is None and state.step:
        state.phase, _, _ = schedule.at(state.step - 1, state.seconds)
    clock = Clock()
    keeper = Keeper(method, settings, pairs, out, compute, state, clock) if team.first else None
    steps = Steps(
        device,
        graph_for(compute, device, team.size),
        filter(None, (method, state.generator, state.discriminator, perceptual)),
        state.optimizers.values,
        copies=2 if settings.gradient_records else 1,
    )
    first_step = state.step
    with Signals() as signals:
        for batch in loader:
            index, phase, rate = schedule.at(state.step, state.seconds)
            if index != state.phase or state.step == first_step:
                if state.step > first_step:
                    state.record_peak()
                state.begin_phase(method, phase, resumed=index == state.phase)
                steps.begin_phase()
                state.phase, phase_start = index, state.step
            # Dropout is also seeded by the step, so that checkpoints need no random state.
            seed_random_numbers(device, keyed_seed(settings.seed, "step", state.step))
            # A captured step reads the rate, but does not set it.
            state.set_rate(rate)
            recording = recorder.is_due(state.step, schedule.done(state.step, state.seconds))

            def one(images: Sequence[Tensor], phase: Phase = phase, rate: float = rate, recording: bool = recording):
                views = pyramids(PairTensors(*images), method, phase, settings, device, state.layout)
                return step(method, state, *views, perceptual, rate, recorder if recording else None)

            losses = steps(one, batch, alone=recording)
            state.step += 1
            if state.step == phase_start + _WARM_UP:
                reset_peak_memory(device)
            state.update_average(training.ema)
            if steps.warm:
                clock.start(device)
            state.seconds += clock.elapsed()
            if training.minutes is not None:
                # All processes must use the same learning rate and end after the same step.
                state.seconds = team.broadcast(state.seconds)
            done = schedule.done(state.step, state.seconds)
            # All processes stop after the same step, whichever of them received the signal first.
            interrupted = team.any(signals.received is not None)
            if keeper is not None:
                keeper.after_step(losses, phase, rate, per_epoch, device, done, save=interrupted)
            if interrupted:
                number = signals.received or signal.SIGTERM
                # torchrun ends the other processes once one has ended, so wait until the state is saved.
                team.wait()
                total = f" of {round(state.step / done)}" if done else ""
                raise InterruptedTraining(
                    f"stopped by {signal.Signals(number).name} after step {state.step}{total}; the state is saved in "
                    f"{folder}; the same command resumes from it",
                    number,
                )
            if done == 1:
                break
    if keeper is not None:
        # The result must be written: there is no later step that could try again.
        patiently(lambda: recorder.write(out / "gradients.csv"))
        # Keep the last state, so that a finished training that is started again only publishes its results.
        patiently(lambda: state.save(folder, settings, keep=1))
        environment = {**facts(device, compute.threads), "processes": team.size}
        environment["peak_memory_mib"] = round(state.peak_mib)
        rows = state.history["rows"]
        _publish(method, state.published(), settings, out, rows, state.seconds, state.step, environment)
        keeper.close()


def _report(team: Processes, text: str) -> None:
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
    done = {"settings": settings.identity, "steps": steps, "seconds": round(seconds, 2)}

    def write() -> None:
        write_csv(out / "history.csv", rows)
        # The record last: until then, the one of an earlier training says that this one has not ended.
        save_generator(out / "generator.safetensors", method.published_state(generator.state_dict()), settings)
        write_json(out / "training.json", {**done, **environment})

    patiently(write)


@contextlib.contextmanager
def _explain_memory_errors(settings: RunSettings, compute: ComputeSettings) -> Iterator[None]:
    """Turn an out-of-memory error into a user error. Nothing is reduced silently to make the training fit."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{settings.entry} on {settings.dataset}: out of memory at {settings.size[0]}x{settings.size[1]}, batch "
            f"{settings.training.batch_size}; {memory.advice(settings, compute)}",
            f"  {str(error).splitlines()[0]}",
        ) from error
