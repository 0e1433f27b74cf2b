"""`msgunet verify FOLDER`: one's own run of a suite is compared with shared results, row by row."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkout import finished_tiny

from msgunet.cli.main import main
from msgunet.core.files import sha256_file
from msgunet.suite.plan import load_plan

RUN = Path("results/tiny/runs/bluemarble/pix2pix/seed0")


@pytest.fixture
def shared(tmp_path_factory, tmp_path, monkeypatch) -> Path:
    """Share the finished suite with its generators, and go to a second checkout that has run it, too."""
    folder = shutil.copytree(finished_tiny(tmp_path_factory), tmp_path / "copied", symlinks=True)
    monkeypatch.chdir(folder)
    load_plan.cache_clear()
    out = tmp_path / "shared"
    assert main(["share", "config/tiny.yaml", "--out", str(out), "--weights"]) == 0
    yield out
    load_plan.cache_clear()


@pytest.fixture
def verify(shared, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        load_plan.cache_clear()
        capsys.readouterr()
        status = main(["verify", str(shared), *arguments])
        return status, *capsys.readouterr()

    return run


def rewrite(run: Path, change) -> None:
    """Change a run's metrics as if another evaluation had written them."""
    path = run / "metrics.csv"
    frame = pd.read_csv(path, converters={"id": str})
    change(frame)
    frame.to_csv(path, index=False)
    edit_facts(run, metrics_sha256=sha256_file(path))


def edit_facts(run: Path, name: str = "evaluation.json", **facts) -> None:
    path = run / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def retrained() -> None:
    """Change the generator as another training would."""
    generator = RUN / "generator.safetensors"
    content = bytearray(generator.read_bytes())
    content[-2] ^= 1
    generator.write_bytes(content)
    edit_facts(RUN, generator_sha256=sha256_file(generator))


def test_the_same_results_are_equal_to_the_last_bit(shared, verify, tmp_path):
    status, output, error = verify("--out", str(tmp_path / "rows.csv"))
    assert status == 0, error
    lines = output.splitlines()
    assert len(lines) == 6
    assert all(re.search(r"seed 0: equal, (\d+) of \1 rows \(the same generator\)$", line) for line in lines)
    rows = pd.read_csv(tmp_path / "rows.csv", converters={"id": str})
    assert set(rows["verdict"]) == {"equal"}
    assert (rows["psnr_shared"] == rows["psnr_own"]).all()
    own = pd.read_csv(RUN / "metrics.csv", converters={"id": str})
    there = pd.read_csv(shared / "metrics.csv", converters={"id": str})
    there = there[there["entry"] == "pix2pix"].reset_index(drop=True)
    assert (there["psnr"] == own["psnr"]).all(), "in full precision"


def test_the_shared_generators_make_the_shared_numbers_again(shared, verify):
    for path in Path("results/tiny/runs").rglob("evaluation.json"):
        path.unlink()
    status, output, error = verify()
    assert status == 2
    assert "nothing to compare yet; run 'snakemake" in error
    assert output.count("not evaluated here yet") == 6
    status, output, error = verify("--images", "2")
    assert status == 0, error
    assert len(re.findall(r"equal, 4 of 4 rows \(the shared generator\)", output)) == 6


def test_rounding_of_one_generator_is_within_tolerance_but_more_is_not(verify):
    rewrite(RUN, lambda frame: frame.update(frame["psnr"] + 0.01))
    edit_facts(RUN, device="NVIDIA H100")
    status, output, _ = verify()
    assert status == 0
    line = re.search(r"pix2pix on bluemarble, seed 0: within tolerance, (\d+) of \1 rows \((.*)\)\n", output)
    assert re.fullmatch(r"the same generator; device .* → NVIDIA H100", line[2])
    rewrite(RUN, lambda frame: frame.update(frame["psnr"] + 0.2))
    status, output, error = verify()
    assert status == 2
    assert "pix2pix on bluemarble, seed 0: different" in error
    before, after = map(float, re.search(r"mean, full protocol: PSNR (\S+) → ([\d.]+),", output).groups())
    assert after - before == pytest.approx(0.21, abs=1e-3)


def test_another_training_says_which_conditions_differ(verify):
    rewrite(RUN, lambda frame: frame.update(frame["psnr"] + 0.01))
    retrained()
    _, output, _ = verify()
    assert re.search(r"pix2pix on .*: different, .*\(another training, although its conditions are the same\)", output)
    edit_facts(RUN, "training.json", threads=7)
    status, output, _ = verify()
    assert status == 2
    assert re.search(r"pix2pix on .*: different, .*\(another training; threads \d → 7\)", output)


@pytest.mark.parametrize(("shift", "status", "word"), [(0.5, 0, "within"), (50, 2, "beyond")])
def test_shared_seeds_say_how_much_trainings_differ(shared, verify, shift, status, word):
    metrics = pd.read_csv(shared / "metrics.csv", converters={"id": str})
    mine = metrics[metrics["entry"] == "pix2pix"]
    other = mine.assign(seed=1, psnr=mine["psnr"] + 1, ssim=mine["ssim"] + 0.1, vif=mine["vif"] + 0.1)
    pd.concat([metrics, other]).to_csv(shared / "metrics.csv", index=False)
    record = json.loads((shared / "runs.json").read_text())
    record["files"]["metrics.csv"] = sha256_file(shared / "metrics.csv")
    (shared / "runs.json").write_text(json.dumps(record))
    rewrite(RUN, lambda frame: frame.update(frame["psnr"] + shift))
    status_of_same, output, _ = verify()
    assert status_of_same == 2, "the generator is the same, so training noise explains nothing"
    assert "training noise" not in output
    retrained()
    found, output, _ = verify()
    assert found == status
    # Student's t with one degree of freedom; two trainings 1 dB apart there and one here.
    reach = 12.706 * np.sqrt(0.5) * np.sqrt(1 / 2 + 1)
    line = next(line for line in output.splitlines() if "training noise" in line)
    first = re.match(rf"  {word} the training noise of the shared seeds: native PSNR (\S+) \(±([\d.]+)\)", line)
    assert [float(number) for number in first.groups()] == pytest.approx([shift - 0.5, reach], abs=1e-3)


def test_what_cannot_be_compared_is_told_apart(shared, verify, tmp_path):
    suite = shared / "tiny.yaml"
    original = suite.read_text()
    suite.write_text(original.replace("epochs: 1", "epochs: 2"))
    status, _, error = verify()
    assert status == 2
    assert f"{suite} was changed after it was shared" in error
    assert re.search(r"on bluemarble, seed 0 and \d more runs: other settings \(training\.epochs 1 → 2\), so", error)
    assert error.count("training.epochs") == 1, "once for all runs"
    suite.write_text(original)
    edit_facts(RUN, manifest_sha256="0" * 64)
    assert "pix2pix on bluemarble, seed 0: it was evaluated here on other images" in verify()[2]
    (RUN / "metrics.csv").write_text((RUN / "metrics.csv").read_text().replace("1", "2"))
    assert f"{RUN}/metrics.csv was changed after the evaluation" in verify()[2]


def test_own_files_that_changed_are_named(verify):
    prediction = next((RUN / "predictions").iterdir())
    content = prediction.read_bytes()
    prediction.write_bytes(content[:-1])
    assert f"{prediction} changed after the evaluation" in verify()[2]
    prediction.write_bytes(content)
    generator = RUN / "generator.safetensors"
    generator.write_bytes(generator.read_bytes() + b" ")
    assert f"{generator} is not the one that was evaluated" in verify()[2]


def test_a_run_that_was_trained_here_with_other_settings_is_named(verify):
    pan = RUN.parent.parent / "pan" / "seed0"
    shutil.copy(pan / "generator.safetensors", RUN)
    (RUN / "evaluation.json").unlink()
    status, _, error = verify()
    assert status == 2
    assert "pix2pix on bluemarble, seed 0: trained here with other settings (" in error
    assert "method pix2pix → pan" in error


def test_a_changed_generator_among_the_shared_ones_is_found(shared, verify):
    weights = shared / "weights"
    shutil.copy(weights / "bluemarble.pan.seed0.safetensors", weights / "bluemarble.pix2pix.seed0.safetensors")
    status, _, error = verify()
    assert status == 2
    assert "bluemarble.pix2pix.seed0.safetensors was changed after it was shared" in error
    assert "bluemarble.pix2pix.seed0.safetensors is not the generator that was evaluated" in verify("--images", "1")[2]


def test_another_folder_is_named(verify, shared):
    (shared / "runs.json").write_text("{")
    assert "runs.json is not a readable record of shared results" in verify()[2]
    (shared / "runs.json").unlink()
    assert "there is no" in verify()[2]
    shutil.rmtree(shared)
    assert f"there is no {shared}/runs.json; give the name of a suite, or a folder that" in verify()[2]
