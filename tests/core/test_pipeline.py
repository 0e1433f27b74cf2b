"""Items in a pipeline: their order, their errors, how many are in memory, and what ends when it is stopped."""

import gc
import threading
import time
import weakref
from contextlib import closing

import pytest

from msgunet.core.pipeline import in_order, most_in_flight, usable_cores


def negative(item: int, source: int) -> int:
    return -source


def values(results) -> list:
    return [(item, result.exception() or result.result()) for item, result in results]


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_results_are_in_the_order_of_the_items_whichever_is_ready_first(jobs):
    def read(item: int) -> int:
        time.sleep(0.02 * (item % 3 == 0))
        return 10 * item

    def write(item: int, output: int) -> str:
        time.sleep(0.02 * (item % 4 == 1))
        return f"{item}: {output}"

    found = values(in_order(range(12), read, negative, write, jobs))
    assert found == [(item, f"{item}: {-10 * item}") for item in range(12)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_items_are_in_flight_than_said_and_files_are_handled_beside_the_work(jobs):
    lock, now, most, beside = threading.Lock(), 0, 0, set()
    caller = threading.current_thread()

    def read(item: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        beside.add(threading.current_thread())
        return item

    def work(item: int, source: int) -> int:
        assert threading.current_thread() is caller
        time.sleep(0.001)
        return source

    for _, result in in_order(range(60), read, work, lambda item, output: output, jobs):
        result.result()
        with lock:
            now -= 1
    assert jobs < most <= most_in_flight(jobs)
    assert caller not in beside
    assert len(beside) <= jobs


def test_the_memory_in_flight_is_bounded_and_a_heavy_item_is_alone():
    lock, held, most, alone = threading.Lock(), {}, 0.0, []
    weights = dict(enumerate([4, 4, 4, 4, 100, 4, float("inf"), 4, 4, 4]))

    def read(item: int) -> int:
        nonlocal most
        with lock:
            held[item] = weights[item]
            if weights[item] > 10:
                alone.append(len(held))
            else:
                most = max(most, sum(held.values()))
        return item

    def write(item: int, output: int) -> int:
        time.sleep(0.005)
        return output

    for item, _ in in_order(weights, read, negative, write, 8, weights.__getitem__, 10):
        del held[item]
    assert most == 8
    assert alone == [1, 1]


def test_an_error_concerns_its_item_and_is_yielded_in_order():
    def fail(item: int, *_: int) -> int:
        if item in (2, 5):
            raise ValueError(f"item {item}")
        return item

    for stage in range(3):
        stages = [lambda item: item, negative, lambda item, _: item]
        stages[stage] = fail
        found = values(in_order(range(8), *stages, 3))
        assert [item for item, _ in found] == [*range(8)]
        assert [str(value) for _, value in found if isinstance(value, ValueError)] == ["item 2", "item 5"]


@pytest.mark.parametrize("stage", ["read", "work"])
def test_an_error_keeps_nothing_of_its_pass_in_memory(stage):
    """The activations of a pass that ran out of memory would be missing in the next one."""

    class Activations:
        pass

    alive: weakref.WeakSet[Activations] = weakref.WeakSet()

    def fail(item: int, *_: int) -> int:
        held = Activations()
        before = len(alive)
        alive.add(held)
        raise MemoryError(before)

    stages = [lambda item: item, negative]
    stages[["read", "work"].index(stage)] = fail
    gc.disable()
    try:
        found = []
        for _, result in in_order(range(6), *stages, lambda item, _: item, 1):
            found.append(result.exception().args[0])
            del result
    finally:
        gc.enable()
    # Items that wait to be yielded hold theirs.
    assert max(found) <= {"read": most_in_flight(1), "work": 0}[stage]
    assert not alive


def test_after_an_error_of_the_work_the_caller_can_stop_before_the_next_item():
    worked = []

    def work(item: int, source: int) -> int:
        worked.append(item)
        if item == 3:
            raise ValueError
        return source

    def write(item: int, output: int) -> int:
        time.sleep(0.02)
        return output

    with closing(in_order(range(20), lambda item: item, work, write, 2)) as results:
        yielded = []
        for item, result in results:
            yielded.append(item)
            if result.exception():
                break
    assert yielded == [0, 1, 2, 3]
    assert worked == [0, 1, 2, 3]


def test_a_closed_pipeline_waits_for_the_files_in_progress_and_starts_no_more():
    written, read_items = [], []

    def write(item: int, output: int) -> None:
        time.sleep(0.05)
        written.append(item)

    with closing(in_order(range(50), read_items.append, lambda item, _: item, write, 2)) as results:
        next(results)
    count = len(written), len(read_items)
    time.sleep(0.1)
    assert (len(written), len(read_items)) == count
    assert len(read_items) <= most_in_flight(2) + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipeline")]


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert usable_cores() == 3
