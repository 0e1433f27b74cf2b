"""The training time: what `training.minutes` limits, and what the history and the conditions state."""

import contextlib
import time
from collections.abc import Iterator

import torch

from msgunet.device.measuring import wait_for


class Clock:
    """Measures the seconds of training steps and of reading their images.

    It does not run before `start`, nor while it is `paused`.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._kept = 0.0

    def start(self, device: torch.device) -> None:
        """Start the clock, if it does not run yet, once the device has finished its work."""
        if self._since is None:
            wait_for(device)
            self._since = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since the last call, without the pauses."""
        if self._since is None:
            return 0.0
        now = time.monotonic()
        seconds, self._since, self._kept = self._kept + now - self._since, now, 0.0
        return seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time in this context. The device must have finished the work before it."""
        if self._since is None:
            yield
            return
        self._kept += time.monotonic() - self._since
        try:
            yield
        finally:
            self._since = time.monotonic()
