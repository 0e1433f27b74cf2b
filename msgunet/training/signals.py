"""SIGTERM and SIGINT during a training: the step is finished first."""

import contextlib
import signal
from typing import Any


def ignore_signals(_: int) -> None:
    """Make a worker ignore signals; the main process handles them after it has finished the step."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class Signals(contextlib.AbstractContextManager):
    """Records SIGTERM and SIGINT instead of exiting. A second SIGINT interrupts immediately."""

    received: int | None = None

    def __enter__(self) -> "Signals":
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._old = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def _record(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
