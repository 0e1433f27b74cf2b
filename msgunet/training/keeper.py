"""The outputs of a training while it runs, and the pyramids that it works on."""

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from msgunet.core.attempts import PROGRESS
from msgunet.core.disk import Spare, disk_error, patiently, pauses, say
from msgunet.core.errors import UserError
from msgunet.core.files import write_json
from msgunet.core.settings import ComputeSettings, ImageFormat, RunSettings
from msgunet.data.pairs import PairDataset, PairTensors, normalise, pyramid
from msgunet.device.measuring import reset_peak_memory
from msgunet.device.pick import own_random_state
from msgunet.device.precision import autocast
from msgunet.methods.method import Method, Phase
from msgunet.training.clock import Clock
from msgunet.training.progress import History, Progress, save_grid
from msgunet.training.state import TrainingState, checkpoint_folder

# Seconds between two updates of the progress file.
_PROGRESS_SECONDS = 15.0
# Seconds between the tries of a training that was told to stop: Slurm usually allows 30 seconds.
_URGENT_PAUSES = (5.0, 10.0)


class Keeper:
    """Writes the outputs of a training while it runs: history, progress, samples and checkpoints."""

    def __init__(
        self,
        method: Method,
        settings: RunSettings,
        pairs: PairDataset,
        out: Path,
        compute: ComputeSettings,
        state: TrainingState,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._method, self._settings, self._compute, self._state = method, settings, compute, state
        self._folder = checkpoint_folder(out, settings)
        self._progress_file = out / PROGRESS
        self._history = History(out, state.history, state.step)
        self._progress = Progress(f"{settings.entry} on {settings.dataset}", state.step)
        self._sample = _Sample(settings, pairs, out / "samples")
        self._start = self._last_save = time.monotonic()
        self._first, self._last_progress = state.step, 0.0
        self._grids, self._progress_files, self._histories = map(
            Spare, ("sample grids", "progress files", "copies of the history")
        )
        self._waits: Iterator[float] | None = None
        self._next_try = math.inf

    def after_step(
        self,
        losses: dict[str, Tensor],
        phase: Phase,
        rate: float,
        per_epoch: int,
        device: torch.device,
        done: float,
        save: bool,
    ) -> None:
        """Record a step and write all outputs that are due.

        `done` is the share of the training that is complete after this step, from 0 to 1. `save` forces a checkpoint.
        """
        state, compute = self._state, self._compute
        self._history.add(losses)
        # Unknown until the clock of a time-limited training runs.
        total = round(state.step / done) if done else None
        self._progress.step(losses, total)
        last = done == 1
        now = time.monotonic()
        if total is not None and (save or last or now - self._last_progress > _PROGRESS_SECONDS):
            self._write_progress(now, total)
        if state.step % compute.log_steps == 0 or last:
            self._history.row(state.step, state.step / per_epoch, rate, state.seconds)
        epoch, rest = divmod(state.step, per_epoch)
        if last or (rest == 0 and epoch % compute.sample_epochs == 0):
            self._history.settle()
            with self._clock.paused():
                # Its size can be new to cuDNN, whose search for algorithms takes memory that no step needs.
                state.record_peak()
                path, columns = self._sample.grid(self._method, phase, state.published(), epoch, device)
                self._grids.write(path, lambda: save_grid(path, columns))
                reset_peak_memory(device)
        due = self._waits is None and now - self._last_save > 60 * compute.checkpoint_minutes
        if save or due or now > self._next_try:
            self._history.settle()
            with self._clock.paused():
                self._save(urgent=save)

    def _save(self, urgent: bool) -> None:
        """Write a checkpoint. If the disk is full, the training goes on, and later steps try again a few times."""
        state = self._state
        if urgent:
            patiently(lambda: state.save(self._folder, self._settings), iter(_URGENT_PAUSES))
        else:
            try:
                state.save(self._folder, self._settings)
            except UserError as error:
                self._waits = self._waits or pauses()
                wait = next(self._waits, None)
                if disk_error(error) is None or wait is None:
                    raise
                say(f"{error}\nthe training goes on, and tries again in {wait:g} s")
                self._next_try = time.monotonic() + wait
                return
        if self._waits is not None:
            say(f"{self._folder}: the checkpoint of step {state.step} is written")
        self._waits, self._next_try, self._last_save = None, math.inf, time.monotonic()
        self._histories.write(self._history.path, self._history.write)

    def _write_progress(self, now: float, total: int) -> None:
        """Write the progress file for `msgunet status`; its `rate` is in steps per second since the last start."""
        state = self._state
        rate = (state.step - self._first) / max(now - self._start, 1e-9)
        progress = {"step": state.step, "total": total, "seconds": round(state.seconds, 2), "rate": rate}
        record = {**progress, "settings": self._settings.identity}
        self._progress_files.write(self._progress_file, lambda: write_json(self._progress_file, record))
        self._last_progress = now

    def close(self) -> None:
        """Close the progress bar and TensorBoard's file at the end of the training."""
        self._progress.close()
        self._history.close()


class _Sample:
    """A grid of source, output and target for the same four training pairs, to inspect during training."""

    def __init__(self, settings: RunSettings, pairs: PairDataset, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._batch = torch.utils.data.default_collate([pairs[i] for i in range(min(4, len(pairs)))])

    @torch.inference_mode()
    def grid(
        self, method: Method, phase: Phase, generator: nn.Module, epoch: int, device: torch.device
    ) -> tuple[Path, list[tuple[Tensor, ImageFormat]]]:
        """Return the file and the columns of an epoch's grid.

        Neither the training's random state nor batch statistics change.
        """
        network = copy.deepcopy(generator)
        method.prepare_inference(network)
        # In the training's precision, for which cuDNN has chosen its algorithms.
        with own_random_state(device), autocast(device, self._settings.training.precision):
            sources, targets = pyramids(PairTensors(*self._batch), method, phase, self._settings, device)
            outputs = [network([s[i : i + 1] for s in sources])[0].float() for i in range(len(sources[0]))]
        source_format, target_format = self._settings.formats
        columns = [(sources[0], source_format), (torch.cat(outputs), target_format), (targets[0], target_format)]
        return self._folder / f"epoch-{epoch:04d}.png", columns


def pyramids(
    batch: PairTensors,
    method: Method,
    phase: Phase,
    settings: RunSettings,
    device: torch.device,
    layout: torch.memory_format = torch.channels_last,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the source and target pyramids of a batch as a phase of the method uses them."""
    scales = method.scales(method.options, settings.size)

    def prepared(images: Tensor, kind: str, image_format: ImageFormat) -> list[Tensor]:
        images = normalise(images.to(device, non_blocking=True), image_format.range).contiguous(memory_format=layout)
        return method.view(phase, pyramid(images, scales, kind), kind)

    arguments = zip(batch, settings.kinds, settings.formats, strict=True)
    sources, targets = (prepared(*each) for each in arguments)
    return sources, targets
