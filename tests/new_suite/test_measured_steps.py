"""`msgunet plan` forecasts a new suite with the speeds that `new-suite` measured."""

import re

import pandas as pd
import pytest
from own import put

from msgunet.cli.main import main
from msgunet.core.provenance import cpu_name
from msgunet.new_suite import choose
from msgunet.suite.plan import load_plan


def test_plan_and_new_suite_agree(working_folder, monkeypatch, capsys):
    for role in ("source", "target"):
        put(working_folder / "p" / role, *(f"{i}.png" for i in range(10)), size=(128, 128))
    real, seconds = choose._times, {}

    def ten_times_slower(*given):
        """As on a machine that nobody measured before."""
        steps = {name: choose.Step(10 * step.seconds, step.flop) for name, step in real(*given).items()}
        seconds.update({name: step.seconds for name, step in steps.items()})
        return steps

    monkeypatch.setattr(choose, "_times", ten_times_slower)
    assert main(["new-suite", "mine.yaml", "--data", "p", "--hours", "9", "--device", "cpu"]) == 0
    measured = pd.read_csv("results/mine/new_suite_speed.csv")
    assert set(measured["device"]) == {cpu_name()}
    capsys.readouterr()
    load_plan.cache_clear()
    assert main(["plan", "mine.yaml"]) == 0
    output = capsys.readouterr().out
    assert f"measured on {cpu_name()}, 1 CPU thread at commit" in output
    assert "this machine is not" not in output
    assert "not measured for this network" not in output
    rows = [[cell.strip() for cell in line.split("|")] for line in output.splitlines() if line.startswith("| ")]
    steps, rate, tflop = ({row[1]: row[n] for row in rows[1:]} for n in (6, 8, 7))
    for title, name in (("Pix2Pix", "pix2pix"), ("MSG U-Net", "msgunet")):
        assert int(steps[title].replace(",", "")) > 0
        assert float(tflop[title]) / float(rate[title]) == pytest.approx(seconds[name], rel=0.02)
    assert re.search(r"all trainings: \S+ \S+ of CPU time", output)
