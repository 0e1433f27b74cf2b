"""`msgunet share`: the redistributable results of a suite, and nothing else."""

import json
import re
import shutil

import pandas as pd
import pytest
from conftest import ROOT
from made import fill, make_plan

from msgunet.cli.main import main
from msgunet.report.figures import write_figures
from msgunet.report.tables import write_tables
from msgunet.suite.plan import load_plan

EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8"), re.S)[1]
EXAMPLE_NAME = re.search(r'@register_method\("(.+)"\)', EXAMPLE)[1]
COST = {"device": "NVIDIA H100 80GB HBM3", "device_type": "cuda", "commit": "0" * 12, "threads": 4}


@pytest.fixture
def done(working_folder):
    """Make a finished suite with one data set of the given kind, recorded as trained on a GPU."""

    def make(kind: str):
        changes = {"datasets": {"mine": {"kind": kind, "size": [128, 64]}}}
        plan = make_plan(working_folder, gradients={"dataset": "mine", "records": 2}, **changes)
        fill(plan)
        for run in plan.runs:
            path = run.folder / "training.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **COST}))
        settings = plan.results / "settings" / "report.json"
        write_tables(settings, plan.results)
        write_figures(settings, plan.results)
        return plan

    yield make
    load_plan.cache_clear()


@pytest.mark.parametrize(("kind", "free"), [("bluemarble", True), ("maps", False)])
def test_images_are_shared_where_the_licence_allows_it(done, working_folder, kind, free):
    plan = done(kind)
    # As an earlier version called them.
    (plan.results / "figures" / "pictures_mine.png").write_bytes(b"secret")
    assert main(["share", "made.yaml"]) == 0
    out = working_folder / "results" / "gpu" / "nvidia-h100-80gb-hbm3" / "made"
    images = sorted(path.name for path in out.rglob("*images*"))
    assert not list(out.rglob("*pictures*"))
    assert images == (["images_mine.pdf", "images_mine.png"] if free else [])
    names = {"README.md", "made.yaml", "metrics.csv", "runs.json", "tables", "figures", "manifests"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "manifests" / "mine.csv").read_text() == (plan.data[0].folder / "manifest.csv").read_text()
    readme = (out / "README.md").read_text()
    assert ("- no images of mine\n" in readme) != free
    assert "- written by `msgunet share made.yaml`" in readme
    assert "(tables/claims.md)" in readme
    assert "(figures/distributions_mine.png)" in readme
    metrics = pd.read_csv(out / "metrics.csv", converters={"id": str})
    assert len(metrics) == 8 * 2 * 3
    assert metrics["id"].iloc[0] == "0004"
    assert (out / "made.yaml").read_text() == (working_folder / "made.yaml").read_text()
    assert sorted(p.name for p in (plan.results / "figures").glob("images*")) == [
        "images_mine.pdf",
        "images_mine.png",
    ]


def test_sharing_again_replaces_the_earlier_files(done, working_folder, capsys):
    done("bluemarble")
    assert main(["share", "made.yaml", "--out", "here"]) == 0
    (working_folder / "here" / "tables" / "table1_gone_native.md").touch()
    assert main(["share", "made.yaml", "--out", "here"]) == 0
    assert not (working_folder / "here" / "tables" / "table1_gone_native.md").exists()
    for name in ("notes.md", "tables.txt"):
        (working_folder / "here" / name).write_text("my own")
        assert main(["share", "made.yaml", "--out", "here"]) == 2
        assert f"here contains {name}, which 'msgunet share' did not write" in capsys.readouterr().err
        (working_folder / "here" / name).unlink()
    (working_folder / "link").symlink_to("here")
    assert main(["share", "made.yaml", "--out", "link"]) == 0
    assert (working_folder / "here" / "README.md").is_file()
    for out in ("results/made/shared", "results", "made.yaml"):
        assert main(["share", "made.yaml", "--out", out]) == 2
    assert not (working_folder / "results" / "made" / "shared").exists()
    assert not list(working_folder.glob(".*-*")), "no temporary folder remains"


def test_bench_results_alone_can_be_shared(working_folder, capsys):
    plan = make_plan(working_folder)
    shutil.rmtree(plan.results)
    assert main(["share", "made.yaml"]) == 2
    assert not plan.results.exists(), "a refusal writes nothing"
    plan.results.mkdir()
    speed = pd.read_csv(ROOT / "results" / "measured" / "cpu_speed.csv")
    speed.to_csv(plan.results / "speed.csv", index=False)
    assert main(["share", "made.yaml"]) == 0
    (out,) = (working_folder / "results" / "cpu").glob("*/made")
    assert {path.name for path in out.iterdir()} == {"README.md", "made.yaml", "speed.csv"}
    readme = (out / "README.md").read_text()
    assert f"timed on {speed['device'].iloc[0]}, {speed['threads'].iloc[0]} CPU threads" in readme
    assert "not yet" not in readme
    assert "tables/*.csv" not in readme
    # A report includes rows of an earlier version too, which have no parameters.
    write_tables(plan.results / "settings" / "report.json", plan.results)
    assert (plan.results / "tables" / "speed.md").is_file()


def test_results_that_cannot_be_shared_are_refused(done, working_folder, capsys):
    make_plan(working_folder)
    assert main(["share", "made.yaml"]) == 2
    assert "there are no results in results/made yet; run snakemake" in capsys.readouterr().err
    plan = done("bluemarble")
    (plan.runs[0].folder / "training.json").write_text(
        json.dumps({**json.loads((plan.runs[0].folder / "training.json").read_text()), "device": "another"})
    )
    assert main(["share", "made.yaml"]) == 2
    error = "not measured on exactly one device (NVIDIA H100 80GB HBM3, another); choose the folder with --out"
    assert error in capsys.readouterr().err
    suite = (working_folder / "made.yaml").read_text()
    (working_folder / "made.yaml").write_text(suite.replace("decay_epochs: 1", "decay_epochs: 2"))
    load_plan.cache_clear()
    assert main(["share", "made.yaml"]) == 2
    assert "the suite has changed since it was run" in capsys.readouterr().err


def test_an_own_method_goes_along_and_another_file_is_found(working_folder, capsys):
    for name, text in {"my_method.py": f"import helper\n{EXAMPLE}", "helper.py": "X = 1\n"}.items():
        (working_folder / name).write_text(text)
    entry = {"method": EXAMPLE_NAME, "file": "my_method.py"}
    plan = make_plan(working_folder, methods={"mine": entry}, ablation={"methods": []})
    fill(plan)
    (plan.results / "tables").mkdir()
    assert main(["share", "made.yaml", "--out", "shared"]) == 0
    for name in ("my_method.py", "helper.py"):
        assert (working_folder / "shared" / "methods" / name).read_bytes() == (working_folder / name).read_bytes()
    assert "`cp FOLDER/methods/my_method.py my_method.py`" in (working_folder / "shared" / "README.md").read_text()
    (working_folder / "helper.py").write_text("X = 2\n")
    load_plan.cache_clear()
    assert main(["verify", "shared"]) == 2
    error = capsys.readouterr().err
    assert "mine on bluemarble, seed 0: other settings (another method file: the code of my_method.py has" in error
    (working_folder / "my_method.py").unlink()
    load_plan.cache_clear()
    assert main(["verify", "shared"]) == 2
    error = capsys.readouterr().err
    assert "my_method.py does not exist" in error
    assert "the shared method: cp shared/methods/my_method.py my_method.py" in error
    load_plan.cache_clear()
