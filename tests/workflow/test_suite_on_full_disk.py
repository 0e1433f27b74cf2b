"""The tiny suite, from data to table, on a real disk that is full for twenty seconds in the middle."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from checkout import copy_checkout
from disks import mounted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("moment", ["localrule train:", "localrule evaluate:", "localrule tables:"])
def test_the_suite_outlasts_a_full_disk(tmp_path, moment):
    with mounted(tmp_path / "disk", 100) as disk:
        folder = copy_checkout(disk.folder / "checkout")
        log = tmp_path / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "suite=tiny"],
                cwd=folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Python's own cache would only take space.
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        while moment not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        for _ in range(20):
            # The jobs may delete files of their own.
            disk.fill()
            time.sleep(1)
        disk.free()
        assert process.wait(600) == 0, log.read_text()
        # The logs of other jobs are files on the full disk.
        assert "No space left" in log.read_text() or "train" not in moment
        table = pd.read_csv(folder / "results" / "tiny" / "tables" / "table1.csv")
        assert set(table["status"]) == {"done"}
        assert len(table) == 6 * 2
