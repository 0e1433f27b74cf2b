"""Several items at once: their files are read and written in threads, beside the network in the caller's thread."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Source = TypeVar("Source")
Output = TypeVar("Output")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    # Batch systems grant a process some of the machine's cores. macOS cannot.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_in_flight(jobs: int) -> int:
    """Return how many items are in memory at most: one for each thread, one in the network, one waiting for it."""
    return jobs + 2


def in_order(
    items: Iterable[Item],
    read: Callable[[Item], Source],
    work: Callable[[Item, Source], Output],
    write: Callable[[Item, Output], Result],
    jobs: int,
    weigh: Callable[[Item], float] = lambda _: 0,
    budget: float = math.inf,
) -> Iterator[tuple[Item, "Future[Result]"]]:
    """Yield each item with its result or error, in the order of the items.

    `read` and `write` run in threads, `work` in the thread that iterates, on one item after the other. The items in
    flight are those that are being read, worked on or written, or wait for that. There are at most `most_in_flight`.

    An error in `read` or `write` concerns its item alone. After one in `work`, the next item must wait until this one
    has been yielded, because the caller may want to stop. When the iterator is closed (`contextlib.closing`), or
    interrupted by Ctrl-C, no further step starts, and those in progress end first: no file is left half written.

    Args:
        items: what is worked on.
        read: prepares an item for `work`.
        work: makes the output of an item.
        write: takes an item and its output; its result is the item's.
        jobs: the number of threads.
        weigh: the memory of an item in flight.
        budget: the memory of all items in flight together. One that weighs more is in flight alone.

    """
    upcoming = ((item, weigh(item)) for item in items)
    following = next(upcoming, None)
    reading: deque[tuple[Item, float, Future[Source]]] = deque()
    writing: deque[tuple[Item, float, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(jobs, "pipeline")
    try:
        while reading or writing or following is not None:
            while following is not None and len(reading) + len(writing) < most_in_flight(jobs):
                item, weight = following
                held = [of_other for _, of_other, _ in (*reading, *writing)]
                if held and sum(held) + weight > budget:
                    break
                reading.append((item, weight, pool.submit(read, item)))
                following = next(upcoming, None)
            failed = False
            if reading:
                item, weight, source = reading.popleft()
                result, failed = _worked(pool, item, source, work, write)
                del source
                writing.append((item, weight, result))
            wait = not reading
            while writing and (failed or wait or writing[0][2].done()):
                item, _, result = writing.popleft()
                result.exception()
                wait = False
                yield item, result
                # An error holds the memory of the pass that it ended.
                del result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _worked(
    pool: ThreadPoolExecutor,
    item: Item,
    source: "Future[Source]",
    work: Callable[[Item, Source], Output],
    write: Callable[[Item, Output], Result],
) -> tuple["Future[Result]", bool]:
    """Wait for the source, work on it, and start to write its output; return the result, and whether `work` failed."""
    if (error := source.exception()) is not None:
        return _failed(error), False
    try:
        return pool.submit(write, item, work(item, source.result())), False
    except Exception as error:
        return _failed(error), True


def _failed(error: BaseException) -> "Future[Any]":
    # Not in `_worked`: its frame is in the error's traceback, and a variable there would close a cycle.
    result: Future[Any] = Future()
    result.set_exception(error)
    return result
