"""What a running Snakemake does when it is stopped, and when the disk is full."""

import contextlib
import signal
import threading
import time
from typing import Any

import psutil

from msgunet.core.disk import StillFailingError, patiently


def pass_on_sigterm() -> threading.Event:
    """From now on, pass SIGTERM on to the processes that this one has started; return the event that it sets.

    Snakemake's own reaction, which is also kept, is to start no further job and to wait for the running ones, however
    long they take.
    """
    react = signal.getsignal(signal.SIGTERM)
    stopping = threading.Event()

    def relay() -> None:
        stopping.wait()
        # In a thread, since Snakemake's handler waits for a lock that the interrupted main thread may hold.
        first = threading.Thread(target=react, args=(signal.SIGTERM, None), daemon=True)
        first.start()
        first.join(1)
        told: set[psutil.Process] = set()
        # Repeated, since a job that has just been started may not have a process yet. Each is told once: a training
        # that has saved its state no longer expects a signal.
        while True:
            for child in psutil.Process().children():
                if child not in told:
                    told.add(child)
                    with contextlib.suppress(psutil.Error):
                        child.terminate()
            time.sleep(0.2)

    threading.Thread(target=relay, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    return stopping


def wait_for_disk(persistence: Any) -> None:
    """Let Snakemake wait for its disk when it records a job; a full one would end it and leave the suite unfinished."""
    # Absent if the records are in a database.
    write = getattr(persistence, "_io_write", None)
    if write is None:
        return

    def patient(*arguments: Any, **options: Any) -> None:
        try:
            patiently(lambda: write(*arguments, **options))
        except StillFailingError as error:
            # Snakemake knows what to do with this one.
            raise error.__cause__ from None

    persistence._io_write = patient
