"""`msgunet explain` ends with the number that Table 1 prints: the mean over all trainings."""

import re

import pandas as pd
import pytest
from made import fill, make_plan

from msgunet.cli.main import main

NARROW = {"width": 0.0625, "discriminator_width": 0.0625}


@pytest.fixture
def plan(working_folder):
    return make_plan(working_folder, methods={"pix2pix": {"options": NARROW}, "mean": {}}, seeds=[0, 1], ablation={})


def test_the_mean_over_trainings_is_that_of_table_1(plan, capsys):
    fill(plan, images=6)
    assert main(["tables", "--settings", f"{plan.results}/settings/report.json", "--results", str(plan.results)]) == 0
    capsys.readouterr()
    assert main(["explain", "made.yaml", "pix2pix", "psnr"]) == 0
    output = capsys.readouterr().out
    table = pd.read_csv(plan.results / "tables" / "table1.csv").set_index(["entry", "protocol"])["psnr"]
    of_trainings = re.findall(r"full protocol: sum \S+ / 6 images = (\S+)", output)
    found = re.search(r"full protocol: \((\S+) \+ (\S+)\) / 2 trainings = (\S+), printed as (\S+)\n", output)
    assert list(found.groups()[:2]) == of_trainings
    assert float(found[3]) == pytest.approx(table["pix2pix", "full"], rel=1e-6)
    text = (plan.results / "tables" / "table1_bluemarble_full.md").read_text()
    assert re.search(rf"\| *Pix2Pix +\|.*\| *\**{re.escape(found[4])} \[", text), "as printed"


def test_one_training_and_unfinished_ones(plan, capsys):
    fill(plan, images=6, without=("pix2pix/1",))
    assert main(["explain", "made.yaml", "mean", "psnr"]) == 0
    assert re.search(r"Table 1, bluemarble\n  native protocol: [\d.]+, printed as", capsys.readouterr().out)
    assert main(["explain", "made.yaml", "pix2pix", "psnr"]) == 0
    assert "no number yet: 1 of 2 trainings are evaluated" in capsys.readouterr().out
