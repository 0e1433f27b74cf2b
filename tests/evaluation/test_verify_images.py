"""`msgunet verify` and `explain` name the images and files that were changed, once, however many rows they affect."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from own import put_pairs
from PIL import Image

from msgunet.cli.main import main
from msgunet.core.files import sha256_file
from msgunet.suite.plan import load_plan

SUITE = {
    "datasets": {"mine": {"kind": "folder", "size": [48, 48], "options": {"source": "pairs/a", "target": "pairs/b"}}},
    "methods": {"copy": {}, "mean": {}},
    "evaluation": {"metrics": ["psnr", "ssim"]},
}


def run_suite(folder: Path) -> None:
    """Prepare, train and evaluate as the rules do, in this process."""
    load_plan.cache_clear()
    plan = load_plan(str(folder))
    plan.write()
    for data in plan.data:
        assert main(["prepare", "--settings", f"{data.folder}/dataset.json", "--out", str(data.folder)]) == 0
    for run in plan.runs:
        at = str(run.folder)
        assert main(["train", "--run", f"{at}/run.json", "--out", at]) == 0
        settings = ["--run", f"{at}/run.json", "--settings", f"{plan.results}/settings/evaluation.json"]
        assert main(["evaluate", *settings, "--generator", f"{at}/generator.safetensors", "--out", at]) == 0
    (plan.results / "tables").mkdir(exist_ok=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        put_pairs(folder / "pairs", *(f"img_{i:02d}.png" for i in range(12)))
        Path("mine.yaml").write_text(yaml.safe_dump(SUITE))
        run_suite(Path("mine.yaml"))
        assert main(["share", "mine.yaml", "--out", "recv", "--weights"]) == 0
    load_plan.cache_clear()
    return folder


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """A copy of the finished suite and its shared results, as the working folder."""
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "copied"))
    load_plan.cache_clear()
    yield tmp_path / "copied"
    load_plan.cache_clear()


@pytest.fixture
def msgunet(place, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        load_plan.cache_clear()
        capsys.readouterr()
        return main(list(arguments)), *capsys.readouterr()

    return run


def change_target() -> Path:
    path = sorted(Path("data").glob("*/test/*.target.png"))[1]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    return path


def rewritten(run: str, change) -> Path:
    """Change the metrics of a run."""
    path = Path(f"results/mine/runs/mine/{run}/seed0/metrics.csv")
    frame = pd.read_csv(path, converters={"id": str})
    change(frame)
    frame.to_csv(path, index=False)
    return path


def test_nothing_changed_is_equal(msgunet):
    assert msgunet("verify", "mine.yaml")[0] == 0
    for arguments in ((), ("--images", "1")):
        status, output, error = msgunet("verify", "recv", *arguments)
        assert status == 0, error
        assert output.count(": equal, ") == 2


@pytest.mark.parametrize("arguments", [(), ("--images", "1")])
def test_a_changed_target_is_found_beside_shared_results(msgunet, arguments):
    path = change_target()
    status, _, error = msgunet("verify", "recv", *arguments)
    assert status == 2
    assert f"{path}: its pixels differ from the manifest, so numbers of this image prove nothing" in error


def test_a_changed_target_is_one_line(msgunet):
    path = change_target()
    status, output, error = msgunet("verify", "mine.yaml")
    assert status == 2
    (line,) = error.splitlines()
    assert re.search(
        rf"{path}: its pixels differ from the manifest; because of it, 4 rows do not agree: copy \(source\) on mine 2, "
        r"mean \(training target\) on mine 2; for example, native protocol: PSNR is \S+ in metrics\.csv, but \S+ from "
        r"the images, SSIM is",
        line,
    ), line
    assert re.search(r"mean .* on mine: (\d+) of (\d+) rows agree", output)
    path.unlink()
    assert len(msgunet("verify", "mine.yaml")[2].splitlines()) == 1


def test_many_rows_that_do_not_agree_are_counted(msgunet):
    rewritten("mean", lambda frame: frame.update(frame["psnr"] + 1))
    rows = len(pd.read_csv("results/mine/runs/mine/mean/seed0/metrics.csv"))
    error = msgunet("verify", "mine.yaml")[2]
    assert rows <= 5 or f"and {rows - 5} more images and rows that do not agree" in error
    assert len(error.splitlines()) == 1 + min(rows, 5) + (rows > 5)


def test_a_manifest_that_was_changed_with_its_image_is_found(msgunet):
    path = change_target()
    manifest = path.parent.parent / "manifest.csv"
    manifest.write_text(manifest.read_text() + "\n")
    assert "the prepared images of mine are not the shared ones: " in msgunet("verify", "recv")[2]


def test_other_images_are_named_once_for_all_runs(msgunet):
    name = "img_00.png"
    Image.new("RGB", (60, 40), "red").save(Path("pairs/b") / name)
    Path("pairs/a/img_11.png").unlink()
    Path("pairs/b/img_11.png").unlink()
    status, _, error = msgunet("verify", "recv")
    assert status == 2
    (line,) = error.splitlines()
    assert line.startswith("error: copy on mine, seed 0 and mean on mine, seed 0: the prepared images of mine are not")
    assert "the files in your folder have other names or sizes; to learn which, run 'snakemake --cores all" in line
    load_plan.cache_clear()
    data = load_plan("recv/mine.yaml").data[0].folder
    shutil.rmtree("results/mine/runs")
    load_plan("recv/mine.yaml").write()
    assert main(["prepare", "--settings", f"{data}/dataset.json", "--out", str(data)]) == 0
    (line,) = msgunet("verify", "recv")[2].splitlines()
    assert re.search(r"1 with other pixels \(\S+/img_00\.target\.png\)", line), line
    assert re.search(r"missing here \(\S*img_11", line), line
    shutil.rmtree("recv/manifests")
    assert "the shared folder has no list of its images that would tell which differ" in msgunet("verify", "recv")[2]


def test_missing_generators_are_one_line(msgunet):
    assert main(["share", "mine.yaml", "--out", "recv"]) == 0
    (line,) = msgunet("verify", "recv", "--images", "1")[2].splitlines()
    assert "copy on mine, seed 0 and mean on mine, seed 0: its generator is not in recv/weights; 'msgunet share" in line


@pytest.mark.parametrize("arguments", [("show", "recv"), ("explain", "recv", "mean", "psnr"), ("plan", "./recv")])
def test_a_folder_of_shared_results_is_no_suite(msgunet, arguments):
    status, _, error = msgunet(*arguments)
    assert status == 2
    assert (
        f"{arguments[1]} is a folder of shared results; your own results of its suite are those of recv/mine.yaml, its "
        f"tables are in recv/tables, and 'msgunet verify {arguments[1]}' compares both"
    ) in error


@pytest.mark.parametrize("verb", ["show", "explain", "verify"])
def test_a_shared_method_that_is_not_there_yet_says_where_it_is(msgunet, verb):
    suite = yaml.safe_load(Path("recv/mine.yaml").read_text())
    suite["methods"]["own"] = {"file": "own/method.py"}
    Path("recv/mine.yaml").write_text(yaml.safe_dump(suite))
    record = json.loads(Path("recv/runs.json").read_text())
    record["methods"] = {"own/method.py": "methods/method.py"}
    record["files"]["mine.yaml"] = sha256_file(Path("recv/mine.yaml"))
    Path("recv/runs.json").write_text(json.dumps(record))
    arguments = {"explain": ["recv/mine.yaml", "mean", "psnr"], "show": ["recv/mine.yaml"], "verify": ["recv"]}[verb]
    status, _, error = msgunet(verb, *arguments)
    assert status == 2
    assert error.count("the shared method: cp recv/methods/method.py own/method.py") == 1
    intact = f"the {len(record['files'])} files in recv are as they were shared"
    assert (intact in error) == (verb == "verify")
    (Path("recv") / "README.md").write_text("changed")
    error = msgunet("verify", "recv")[2]
    assert "recv/README.md was changed after it was shared" in error
    assert intact not in error


def test_explain_says_that_a_value_is_not_the_recorded_one(msgunet):
    name = pd.read_csv("results/mine/runs/mine/mean/seed0/metrics.csv", dtype=str)["id"][0]
    assert msgunet("explain", "mine.yaml", "mean", "psnr", name)[0] == 0
    path = rewritten("mean", lambda frame: frame.update(frame["psnr"] + 1))
    status, output, error = msgunet("explain", "mine.yaml", "mean", "psnr", name)
    assert status == 2
    assert "native protocol, " in output
    assert f"{name}, native protocol: PSNR from the images is " in error
    assert " in metrics.csv: a file was changed after the evaluation" in error
    assert "'msgunet verify mine.yaml' checks every file and number" in error
    status, _, error = msgunet("explain", "mine.yaml", "mean", "psnr")
    assert status == 2
    assert f"{path} was changed after the evaluation, so its numbers prove nothing" in error


def test_a_changed_prediction_is_one_line(msgunet):
    path = sorted(Path("results/mine/runs/mine/copy/seed0/predictions").iterdir())[0]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    (line,) = msgunet("verify", "mine.yaml")[2].splitlines()
    assert re.search(
        rf"copy \(source\) on mine: {path.stem}: the prediction {path} was changed after the evaluation; 2 of its rows "
        r"do not agree, for example, native protocol: PSNR is \S+ in metrics\.csv, but \S+ from the images",
        line,
    ), line


def test_a_prediction_of_another_size_and_a_damaged_source_are_problems_of_their_own(msgunet, place):
    plan = load_plan("mine.yaml")
    run = next(run for run in plan.runs if run.settings.entry == "copy")
    prediction = sorted((run.folder / "predictions").iterdir())[0]
    Image.new("RGB", (32, 32)).save(prediction)
    source = next(Path(run.settings.data).glob("test/*.source.png"))
    source.write_bytes(source.read_bytes()[:60])
    status, _, error = msgunet("verify", "mine.yaml")
    assert status == 2
    assert f"{prediction} was changed after the evaluation; 2 of its rows do not agree" in error
    assert "the output has shape (32, 32, 3), the target (48, 48, 3)" in error
    # Metrics do not depend on sources.
    assert error.count("protocol:") == 1, error
    assert source.name in error
