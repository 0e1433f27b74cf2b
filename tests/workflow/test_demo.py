"""The results of `make demo`: the trained methods score above the trivial baselines."""

import pandas as pd
import pytest
from conftest import ROOT

TABLE = ROOT / "results" / "demo" / "tables" / "table1.csv"


@pytest.mark.skipif(not TABLE.is_file(), reason="'make demo' has not run here")
@pytest.mark.parametrize("protocol", ["native", "full"])
def test_the_demos_methods_score_above_the_trivial_baselines(protocol):
    table = pd.read_csv(TABLE)
    table = table[table["protocol"] == protocol].set_index("entry")
    assert (table["status"] == "done").all()
    trained = table.drop(["mean", "copy"])
    assert sorted(trained.index) == ["msgunet", "pan", "pix2pix", "pix2pixhd"]
    for metric, trivial in (("psnr", "mean"), ("psnr", "copy"), ("ssim", "copy"), ("vif", "mean"), ("vif", "copy")):
        assert (trained[metric] > table.loc[trivial, metric]).all(), f"{metric} of {trivial}"
    if protocol == "native":
        assert table.loc["msgunet", "psnr"] > table.loc["mean", "psnr"] + 3
