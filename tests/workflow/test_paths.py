"""Paths that Snakemake would read as templates."""

import shutil

import yaml
from checkout import copy_checkout, jobs, snakemake
from conftest import NARROW, ROOT


def test_a_checkout_whose_path_has_braces_is_refused_by_name(tmp_path):
    folder = copy_checkout(tmp_path / "a{b} c" / "msgunet")
    run = snakemake(folder, "-n", "--cores", "1", "--config", "suite=nonsense")
    assert run.returncode == 1
    output = run.stdout + run.stderr
    assert f"the project's path has braces, which Snakemake cannot handle: {folder}; rename it" in output
    assert "nonsense" not in output, "nothing else comes first"
    assert not list(folder.glob("results/*/settings"))


def test_a_custom_method_in_a_folder_with_braces(tmp_path):
    folder, own = copy_checkout(tmp_path / "msgunet"), tmp_path / "x{y} z"
    own.mkdir()
    for name in ("spade.py", "spade_networks.py"):
        shutil.copy(ROOT / "examples" / name, own)
    suite = yaml.safe_load((folder / "config" / "tiny.yaml").read_text())
    suite["methods"] = {"spade": {"file": str(own / "spade.py"), "options": NARROW["spade"]}}
    suite["ablation"] = {"methods": []}
    suite.pop("gradients", None)
    (own / "mine.yaml").write_text(yaml.safe_dump(suite))
    run = snakemake(folder, "-n", "-p", "--cores", "1", "--config", f"suite={own / 'mine.yaml'}")
    assert run.returncode == 0, run.stdout + run.stderr
    assert jobs(run.stdout + run.stderr)["train"] == 1
    assert f"--method '{own}/spade.py'" in run.stdout + run.stderr
