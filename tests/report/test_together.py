"""Two processes that make the report of one suite at the same time, and what a killed process leaves behind."""

import multiprocessing
import os
import signal
import time

import pandas as pd
import pytest
from made import fill, make_plan

from msgunet.core.files import atomic, remove_leftovers, write_text
from msgunet.report.figures import write_figures
from msgunet.report.page import write_page
from msgunet.report.share import share
from msgunet.report.tables import write_tables

_FORK = multiprocessing.get_context("fork")


def together(*functions):
    """Call every function in a process of its own, at the same time; return the exit statuses."""
    processes = [_FORK.Process(target=function) for function in functions]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def killed_while_writing(path):
    """Let a process be killed while it writes `path`; return its temporary file."""

    def write():
        with atomic(path) as temporary:
            temporary.write_text("half")
            time.sleep(60)

    process = _FORK.Process(target=write)
    process.start()
    deadline = time.monotonic() + 30
    while not (found := [p for p in path.parent.glob(".tmp-*") if p.stat().st_size]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return found[0]


@pytest.fixture
def plan(working_folder):
    plan = make_plan(working_folder)
    fill(plan, images=2)
    return plan


def test_two_reports_at_the_same_time_both_succeed(plan):
    settings = plan.results / "settings" / "report.json"

    def tables():
        for _ in range(4):
            write_tables(settings, plan.results)

    def figures():
        write_figures(settings, plan.results)

    def everything():
        tables()
        figures()

    assert together(everything, everything) == [0, 0]
    assert len(pd.read_csv(plan.results / "tables" / "table1.csv")) == 6
    assert list((plan.results / "figures").glob("*.png"))
    assert not list(plan.results.rglob(".tmp-*"))


def test_two_pages_and_two_shares_at_the_same_time_both_succeed(plan, tmp_path):
    settings = plan.results / "settings" / "report.json"
    write_tables(settings, plan.results)

    def pages():
        for _ in range(3):
            write_page(settings, plan.results)

    def shares():
        for _ in range(10):
            share(plan, str(tmp_path / "made.yaml"), tmp_path / "shared", "a command")

    assert together(pages, pages, shares, shares) == [0, 0, 0, 0]
    assert (plan.results / "report" / "index.html").is_file()
    assert (tmp_path / "shared" / "README.md").is_file()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_file_that_a_killed_process_left_is_removed_and_one_in_use_is_kept(plan):
    folder = plan.results / "tables"
    left = killed_while_writing(folder / "table1.csv")
    assert left.read_text() == "half"
    with atomic(folder / "mine.csv") as used:
        used.write_text("whole")
        assert together(lambda: write_tables(plan.results / "settings" / "report.json", plan.results)) == [0]
        assert not left.exists()
        assert used.exists()
    assert (folder / "mine.csv").read_text() == "whole"


def test_a_folder_that_a_killed_page_left_is_removed(plan):
    (plan.results / ".tmp-report").mkdir()
    write_text(plan.results / ".tmp-report" / "report" / "index.html", "half")
    page = write_page(plan.results / "settings" / "report.json", plan.results)
    assert "<html" in page.read_text()
    assert not (plan.results / ".tmp-report").exists()


def test_a_leftover_taken_before_its_lock_is_made_again(tmp_path, monkeypatch):
    """Between the creation of a file and its lock, another process can take it for a leftover."""
    import fcntl

    real, taken = fcntl.flock, []

    def flock(handle, kind):
        if not taken:
            taken.append(True)
            monkeypatch.setattr("msgunet.core.files.fcntl.flock", real)
            remove_leftovers(tmp_path)
        real(handle, kind)

    monkeypatch.setattr("msgunet.core.files.fcntl.flock", flock)
    with atomic(tmp_path / "x.txt") as temporary:
        temporary.write_text("x")
    assert taken
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
