"""`msgunet verify` finds each file that was changed, and so does the report."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkout import finished_tiny
from PIL import Image

from msgunet.cli.main import main
from msgunet.suite.plan import load_plan

SUITE = "config/tiny.yaml"
RUN = "results/tiny/runs/bluemarble/pix2pix/seed0"


@pytest.fixture
def copied(tmp_path_factory, tmp_path, monkeypatch) -> Path:
    folder = shutil.copytree(finished_tiny(tmp_path_factory), tmp_path / "copied", symlinks=True)
    monkeypatch.chdir(folder)
    load_plan.cache_clear()
    yield folder
    load_plan.cache_clear()


@pytest.fixture
def msgunet(capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return run


def invert(path: Path) -> None:
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def edit_metric(folder: Path) -> str:
    path = folder / RUN / "metrics.csv"
    frame = pd.read_csv(path, dtype=str)
    frame.loc[0, "psnr"] = "99.9"
    frame.to_csv(path, index=False)
    return rf"metrics.csv was changed[^~]*{frame['id'][0]}, native protocol: PSNR is 99.9 in metrics.csv, but \d"


def invert_prediction(folder: Path) -> str:
    path = next((folder / RUN / "predictions").iterdir())
    invert(path)
    return rf"{path.stem}: the prediction \S+ was changed after the evaluation[^~]*PSNR is"


def invert_target(folder: Path) -> str:
    path = next((folder / "data").glob("*/test/*.target.png"))
    invert(path)
    return rf"{path.name}: its pixels differ from the manifest[^~]*protocol: PSNR is"


def swap_generator(folder: Path) -> str:
    shutil.copy(folder / "results/tiny/runs/bluemarble/pan/seed0/generator.safetensors", folder / RUN)
    return "generator.safetensors is not the one that was evaluated"


def edit_manifest(folder: Path) -> str:
    path = next((folder / "data").glob("*/manifest.csv"))
    path.write_text(path.read_text() + "\n")
    return "manifest is not the one of the evaluation"


def test_everything_agrees_and_outputs_are_equal_to_the_bit(copied, msgunet):
    status, output, error = msgunet("verify", SUITE, "--images", "2")
    assert status == 0, error
    lines = output.splitlines()
    assert len(lines) == 6
    for line in lines:
        found = re.search(r": (\d+) of (\d+) rows agree; 2 of 2 outputs are equal to the bit$", line)
        agree, rows = map(int, found.groups())
        assert agree == rows > 0


@pytest.mark.parametrize("change", [edit_metric, invert_prediction, invert_target, swap_generator, edit_manifest])
def test_each_change_is_found(copied, msgunet, change):
    expected = change(copied)
    status, _, error = msgunet("verify", SUITE)
    assert status == 2
    assert re.search(expected, error), error


def test_the_report_says_what_was_changed(copied, msgunet):
    edit_metric(copied)
    invert_prediction(copied)
    assert msgunet("report", SUITE)[0] == 0
    for name in ("table1_bluemarble_full", "comparisons_bluemarble_full", "claims"):
        text = (copied / "results/tiny/tables" / f"{name}.md").read_text()
        assert re.search(r"Pix2Pix: metrics\.csv, \S+ changed after the evaluation, so these numbers prove", text), name
    assert "prove nothing" in (copied / "results/tiny/report/index.html").read_text()


def test_results_of_before_checksums_are_measured_again(copied, msgunet):
    path = copied / RUN / "evaluation.json"
    facts = json.loads(path.read_text())
    earlier = {k: v for k, v in facts.items() if not k.endswith("sha256") and k != "metrics_version"}
    path.write_text(json.dumps(earlier))
    _, output, error = msgunet("verify", SUITE)
    assert "evaluated before checksums were recorded" in error
    assert re.search(r"Pix2Pix on bluemarble: (\d+) of \1 rows agree", output)


def test_a_number_is_explained(copied, msgunet):
    frame = pd.read_csv(copied / RUN / "metrics.csv", dtype={"id": str}).set_index(["id", "protocol"])
    name = frame.index[0][0]
    status, output, error = msgunet("explain", SUITE, "pix2pix", "psnr", name)
    assert status == 0, error
    assert "10 log10(range² / mean squared difference" in output
    assert f"prediction: {RUN}/predictions/{name}.png, 32×32" in output
    for protocol in ("native", "full"):
        again, recorded = re.search(rf"{protocol} protocol, .*: (\S+) \(metrics\.csv: (\S+)\)", output).groups()
        assert float(again) == pytest.approx(frame.loc[(name, protocol), "psnr"], rel=1e-9)
        assert float(recorded) == pytest.approx(frame.loc[(name, protocol), "psnr"])
    whole = msgunet("explain", SUITE, "pix2pix", "psnr")[1]
    mean = frame.xs("full", level="protocol")["psnr"].mean()
    assert float(re.search(r"full protocol: sum \S+ / \d+ images = (\S+)", whole)[1]) == pytest.approx(mean)
    for arguments, expected in (
        (("pixpix", "psnr"), "no entry 'pixpix'; did you mean 'pix2pix'?"),
        (("pix2pix", "psnnr"), "no metric 'psnnr' in this suite; did you mean 'psnr'?"),
        (("pix2pix", "psnr", "x"), "there is no test image 'x'"),
    ):
        status, _, error = msgunet("explain", SUITE, *arguments)
        assert status == 2
        assert expected in error


def test_nothing_to_verify_is_an_error(copied, msgunet):
    for path in copied.glob("results/tiny/runs/*/*/*/evaluation.json"):
        path.unlink()
    status, _, error = msgunet("verify", SUITE)
    assert status == 2
    assert "error: suite 'tiny' has no evaluated run yet" in error
