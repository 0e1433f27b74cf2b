"""Measurements in a new process: it does not outlive the one that started it."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

CODE = """
import time
from msgunet.device.measuring import in_new_process

if __name__ == "__main__":
    print(in_new_process("a label", time.strftime, "ready"), flush=True)
    in_new_process("a label", time.sleep, 600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path, number):
    (tmp_path / "measure.py").write_text(CODE)
    with subprocess.Popen([sys.executable, str(tmp_path / "measure.py")], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout.readline() == "ready\n"
        # The fork server, the tracker of resources, and the process that sleeps.
        while not (children := [p for child in psutil.Process(main.pid).children() for p in child.children()]):
            time.sleep(0.05)
        started = [*psutil.Process(main.pid).children(), *children]
        main.send_signal(number)
        assert main.wait(30) == -number
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
