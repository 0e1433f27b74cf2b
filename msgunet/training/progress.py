"""The outputs of a training while it runs: progress, history, TensorBoard, sample grids."""

import math
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from tqdm import tqdm

from msgunet.core.attempts import duration
from msgunet.core.disk import Spare
from msgunet.core.errors import UserError
from msgunet.core.files import atomic, write_csv
from msgunet.core.settings import ImageFormat
from msgunet.core.text import one_line
from msgunet.data.images import to_display
from msgunet.data.pairs import to_pixels

_LINE_SECONDS = 15.0


class History:
    """The history of the losses, as CSV and in TensorBoard; each row holds the means since the previous row.

    `state` (the rows, and the sums and count since the last row) is part of the checkpoint, so that the history of a
    resumed training has no gaps or duplicates. Values stay on the device until a row or a checkpoint needs them
    (`settle`).
    """

    def __init__(self, folder: Path, state: dict[str, Any], first_step: int) -> None:
        self.path = folder / "history.csv"
        self._state = state
        self._settled = first_step
        self._pending: list[dict[str, Tensor]] = []
        self._board = _Board(folder / "tensorboard", first_step)

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the values of one step."""
        self._pending.append(losses)

    def settle(self) -> None:
        """Fetch the values of all steps since the last call.

        Raises:
            UserError: a loss or a gradient is not finite. It has changed no weight, and nothing is saved after it.

        """
        if not self._pending:
            return
        values = iter(torch.stack([v for losses in self._pending for v in losses.values()]).double().tolist())
        sums = self._state["sums"]
        for losses in self._pending:
            self._settled += 1
            step_values = {name: next(values) for name in losses}
            if not all(map(math.isfinite, step_values.values())):
                text = ", ".join(f"{name} = {value:g}" for name, value in step_values.items())
                raise UserError(
                    f"step {self._settled}: a loss or gradient is not finite ({text}); a lower training.learning_rate "
                    "may help"
                )
            for name, value in step_values.items():
                sums[name] = sums.get(name, 0.0) + value
        self._state["count"] += len(self._pending)
        self._pending = []

    def row(self, step: int, epoch: float, learning_rate: float, seconds: float) -> None:
        """Add a row with the means since the last row."""
        self.settle()
        means = {name: total / self._state["count"] for name, total in self._state["sums"].items()}
        self._state.update(sums={}, count=0)
        fixed = {"step": step, "epoch": round(epoch, 4), "learning_rate": learning_rate, "seconds": round(seconds, 2)}
        self._state["rows"].append({**fixed, **means})
        self._board.add(
            {name if name.startswith("gradient_") else f"loss/{name}": value for name, value in means.items()}, step
        )

    def write(self) -> None:
        """Write the CSV."""
        write_csv(self.path, self._state["rows"])

    def close(self) -> None:
        """Write the rest of TensorBoard's file."""
        self._board.close()


class _Board:
    """A TensorBoard file.

    Torch's writer works in a thread of its own, which a full disk ends for good, with half a record in the file. This
    one writes whole rows at once, and keeps what it could not write until it can.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._size = 0
        self._spare = Spare("TensorBoard's file")
        start = SessionLog(status=SessionLog.START)
        self._pending = [Event(file_version="brain.Event:2"), Event(step=first_step + 1, session_log=start)]
        for event in self._pending:
            event.wall_time = time.time()
        self._spare.write(self._path, self._write)

    def add(self, values: dict[str, float], step: int) -> None:
        """Write the values of a step."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=v) for name, v in values.items()])
        self._pending.append(Event(wall_time=time.time(), step=step, summary=summary))
        self._spare.write(self._path, self._write)

    def close(self) -> None:
        """Write what could not be written before."""
        if self._pending:
            self._spare.write(self._path, self._write)

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            # An earlier try may have left half a record.
            file.truncate(self._size)
            writer = RecordWriter(file)
            for event in self._pending:
                writer.write(event.SerializeToString())
        self._size, self._pending = self._path.stat().st_size, []


class Progress:
    """A progress bar on a terminal; elsewhere, a plain line every fifteen seconds with the rate and the time left."""

    def __init__(self, title: str, done: int) -> None:
        self._bar = tqdm(initial=done, desc=title, unit="step", disable=not sys.stderr.isatty())
        self._title, self._first, self._done = title, done, done
        self._start = self._last = time.monotonic()

    def step(self, losses: dict[str, Tensor], total: int | None) -> None:
        """Count one step out of `total`, as currently estimated, or None. Losses are read only when displayed."""
        self._done += 1
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.total = total
            self._bar.update()
            if now - self._last > 0.5:
                self._bar.set_postfix_str(_losses(losses), refresh=False)
                self._last = now
        elif total is not None and now - self._last > _LINE_SECONDS:
            rate = (self._done - self._first) / (now - self._start)
            left = (total - self._done) / rate
            counts = f"step {self._done}/{total}, {rate:.2f} steps/s, {duration(left)} left"
            print(f"{self._title}: {counts}; {_losses(losses)}", file=sys.stderr, flush=True)
            self._last = now

    def close(self) -> None:
        """Close the progress bar."""
        self._bar.close()


def _losses(losses: dict[str, Tensor]) -> str:
    terms = {name: value for name, value in losses.items() if not name.startswith("gradient_")}
    return " ".join(f"{one_line(name)}={value.item():.3g}" for name, value in terms.items())


def save_grid(path: Path, columns: Sequence[tuple[Tensor, ImageFormat]], rows: int = 4) -> None:
    """Save a grid with one row per pair. Each of `columns` is a batch (N, C, H, W) in [-1, 1] and its format."""
    count = min(rows, *(len(images) for images, _ in columns))
    strips = [
        np.concatenate([to_display(to_pixels(image, image_format), image_format) for image in images[:count]])
        for images, image_format in columns
    ]
    grid = Image.fromarray(np.concatenate(strips, 1))
    with atomic(path) as temporary:
        grid.save(temporary)
