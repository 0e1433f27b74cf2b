"""Tables of results: names and hashes that look like numbers stay texts."""

import pandas as pd
import pytest
from conftest import ROOT
from made import fill, make_plan

from msgunet.core.frames import read_frame
from msgunet.cost.bench import _existing_rows
from msgunet.device.limits import read_limits
from msgunet.report.collect import Collection
from msgunet.report.costs import cost_table

HASHES = ["1234567", "1e10", "0012", "12345678901234567890"]


@pytest.mark.parametrize("text", [*HASHES, "nan", "null"])
def test_hashes_and_names_are_texts(tmp_path, text):
    columns = ("id", "dataset", "entry", "commit", "settings")
    pd.DataFrame([{**dict.fromkeys(columns, text), "psnr": 20.5, "ssim": None}]).to_csv(tmp_path / "a.csv", index=False)
    row = read_frame(tmp_path / "a.csv").iloc[0]
    assert [row[column] for column in columns] == [text] * len(columns)
    assert row["psnr"] == 20.5
    assert pd.isna(row["ssim"])


@pytest.mark.parametrize("commit", HASHES)
def test_a_commit_of_digits_alone_is_the_same_commit(tmp_path, commit):
    """A second `msgunet bench` continues the file of the first."""
    environment = {"commit": commit, "device": "a processor", "threads": 2}
    pd.DataFrame([environment]).to_csv(tmp_path / "speed.csv", index=False)
    assert list(_existing_rows(tmp_path / "speed.csv", environment)["commit"]) == [commit]


def test_tables_print_a_commit_of_digits_as_it_is(working_folder):
    plan = make_plan(working_folder)
    fill(plan, images=1)
    cost = pd.read_csv(ROOT / "results" / "measured" / "cpu_cost.csv").assign(commit="1e10")
    cost["settings"] = plan.networks.networks[0].identity
    cost.to_csv(plan.results / "cost.csv", index=False)
    frame = Collection(plan.results / "settings" / "report.json", plan.results).cost()
    assert "commit 1e10" in cost_table(frame, {}, "msgunet cost").notes


def test_limits_name_a_commit_of_digits_as_it_is(tmp_path):
    (speed,) = sorted(ROOT.joinpath("results", "gpu", "h100").glob("speed/speed.csv"))
    pd.read_csv(speed).assign(commit="0012").to_csv(tmp_path / "speed.csv", index=False)
    assert "at commit 0012" in read_limits(str(tmp_path / "speed.csv")).origin
