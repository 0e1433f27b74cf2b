"""Custom methods, in a file that a suite names; see also test_contract.py and test_spade.py."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, make_settings, train
from own_code import EXAMPLE, SMALL, SUITE
from safetensors import safe_open
from suites import changed_files, plan_of, problems_of

import msgunet
from msgunet.cli.main import main
from msgunet.core.errors import UserError
from msgunet.methods import method_file
from msgunet.methods.generator import load_generator
from msgunet.methods.registry import custom_methods
from msgunet.suite.preflight import rehearse


@pytest.fixture
def folder(method_folder):
    return method_folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "my_method.py does not exist in "),
        ("x = 1\ndef f(:\n", "mine (my_method.py:2): SyntaxError: invalid syntax"),
        (
            "x = 1\nimport no_such_thing\n",
            "mine (my_method.py:2): ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("x = 1\n", "my_method.py registers no method; decorate a subclass of Method with @register_method"),
        (SMALL.replace('"mine"', '"yours"'), "my_method.py registers no method 'mine', only 'yours'"),
        (SMALL + SMALL.replace('"mine"', '"pan"'), "registers 'pan', already the name of a built-in method"),
        (SMALL.replace("class Mine(Method)", "class Mine"), "registered as 'mine' is not a subclass of"),
        (SMALL.replace("    title", "    name_of_it"), "method 'mine' has no title"),
        (SMALL.replace('"Mine"', '"a\\tb"'), "my_method.py: mine, title: a text is one line"),
        (
            SMALL + '\n\nclass Again(Mine):\n    title = "Again"\n\n\nregister_method("mine")(Again)\n',
            "mine (my_method.py:15): ValueError: 'mine' is registered twice",
        ),
        (
            SMALL.replace("import Method", "import Method, MethodOptions")
            + "\n    class Options(MethodOptions):\n        depth: int\n",
            "all options of method 'mine' need valid defaults; check depth",
        ),
    ],
)
def test_problems_of_a_file_are_reported_with_all_others(folder, text, expected):
    path = folder / "my_method.py"
    path.unlink() if text is None else path.write_text(text)
    problems = problems_of(folder, {**SUITE, "trainings": {}})
    assert len(problems) == 2, "all reported together"
    # An error in the code comes first, under the method's name.
    place = int(not expected.startswith("mine ("))
    assert "trainings: unknown key" in problems[1 - place]
    assert problems[place].startswith(expected if place == 0 else f"{folder / 'mine.yaml'}: methods.mine.file: ")
    assert expected in problems[place]


def test_options_and_recipes_of_a_file_are_checked(folder):
    (folder / "my_method.py").write_text(EXAMPLE)
    wrong = {**SUITE, "methods": {"mine": {"file": "my_method.py", "options": {"filter": 3}}}}
    assert "methods.mine.options.filter: unknown key; did you mean 'filters'?" in problems_of(folder, wrong)[0]
    wrong["methods"] = {"mine": {"file": "my_method.py", "size": [62, 64]}}
    assert "methods.mine on bluemarble: size 62x64 is not divisible by 4; 64x64 works" in problems_of(folder, wrong)[0]
    (folder / "my_method.py").write_text(EXAMPLE.replace('"learning_rate"', '"learning"'))
    (problem,) = problems_of(folder, SUITE)
    assert re.fullmatch(
        r"mine \(my_method\.py:\d+\): in the recipe, learning: unknown key; did you mean 'learning_rate'\?", problem
    )
    (folder / "my_method.py").write_text(SMALL + "\n    recipe = classmethod(lambda *_: None)\n")
    assert "): recipe returned a value of type NoneType; expected a dictionary of" in problems_of(folder, SUITE)[0]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda text: "# mine\n" + text.replace('title = "Mine"', 'title = (\n        "Mine"  # so\n    )'), True),
        (lambda text: '"""About it."""\n' + text.replace("(Method):\n", '(Method):\n    """Mine."""\n\n'), True),
        (lambda text: text.replace('title = "Mine"', "title = 'Mine'"), True),
        (lambda text: text.replace('title = "Mine"', 'title = "Other"'), False),
        (lambda text: text + "    version = 2\n", False),
    ],
)
def test_the_code_hash_ignores_comments_docstrings_and_layout(folder, change, same):
    before = custom_methods("my_method.py").code
    (folder / "my_method.py").write_text(change(SMALL))
    assert custom_methods("my_method.py").code == before, "the file is loaded only once"
    assert (custom_methods("my_method.py", reload=True).code == before) == same


def test_the_hash_is_the_same_in_all_versions_of_python(folder):
    """The hash is from Python 3.11; other versions have more fields in a syntax tree."""
    assert custom_methods("my_method.py").code == "5efb1482"


@pytest.mark.parametrize("line", ["from msgunet.losses import l1_sum", "losses = lazy_import('msgunet.losses')"])
def test_imports_of_modules_that_have_moved_are_explained(folder, line):
    (folder / "my_method.py").write_text(f"from msgunet import lazy_import\n{line}\n{SMALL}")
    with pytest.raises(UserError, match=r"my_method\.py:2: ModuleNotFoundError.*import the project's public names"):
        custom_methods("my_method.py", reload=True)


def test_changed_code_changes_only_the_runs_of_that_method(folder):
    def edited():
        (folder / "my_method.py").write_text(SMALL + "    version = 2\n")
        return SUITE

    old = plan_of(folder, SUITE).files
    new = plan_of(folder, edited()).files
    changed = {str(path) for path in {*old, *new} if old.get(path) != new.get(path)}
    assert changed == {"results/mine/runs/bluemarble/mine/seed0/run.json", "results/mine/settings/cost.json"}
    assert not changed_files(folder, SUITE, SUITE)


def test_settings_of_built_in_methods_name_no_file(folder):
    """These settings are the same as before custom methods existed, so nothing trains again."""
    texts = plan_of(folder, SUITE).files
    for name, expected in (("mine", True), ("msgunet", False)):
        settings = json.loads(texts[Path(f"results/mine/runs/bluemarble/{name}/seed0/run.json")])
        assert ("file" in settings, "code" in settings) == (expected, expected)
    counted = json.loads(texts[Path("results/mine/settings/cost.json")])["networks"]
    assert {network["entry"] for network in counted if "code" in network} == {"mine"}


def test_sibling_modules_are_part_of_a_files_code(folder):
    (folder / "my_networks.py").write_text("import my_sizes\nWIDTH = my_sizes.WIDTH\n")
    (folder / "my_sizes.py").write_text("WIDTH = 3\n")
    lazy = 'from msgunet import lazy_import\nnetworks = lazy_import("my_networks")\n'
    (folder / "my_method.py").write_text(lazy + SMALL + "    width = property(lambda self: networks.WIDTH)\n")
    first = custom_methods("my_method.py")
    assert first.methods["mine"].width.fget(None) == 3
    (folder / "my_sizes.py").write_text("WIDTH = 1234\n")
    second = custom_methods("my_method.py", reload=True)
    assert second.code != first.code
    assert second.methods["mine"].width.fget(None) == 1234


def test_sibling_modules_with_the_same_name_are_not_mixed_up(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "my_parts.py").write_text("")
        (folder / name / "my_method.py").write_text("import my_parts\n" + SMALL)
        method_file.trust(f"{name}/my_method.py")
    assert custom_methods("one/my_method.py").methods
    with pytest.raises(
        UserError, match=r"two/.* imports 'my_parts', but another module already has this name; rename my_parts.py"
    ):
        custom_methods("two/my_method.py")


def test_planning_with_spade_imports_no_torch():
    code = "import sys, msgunet.suite.plan as s; s.load_plan('examples/spade.yaml'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


def test_check_rehearses_a_training_step_on_shapes(folder):
    (folder / "my_method.py").write_text(EXAMPLE)
    [report] = rehearse(plan_of(folder, SUITE))
    assert re.fullmatch(r"mine \(my_method.py\) at 64x64: a training step works and needs about \d+ MiB", report)
    (folder / "my_method.py").write_text(EXAMPLE.replace("ConvTranspose2d(filters, target", "Conv2d(filters, target"))
    with pytest.raises(
        UserError, match=r"mine \(my_method.py:35\): the output at scale 0 has shape .*, the target \(1, 3, 64, 64\)"
    ):
        rehearse(plan_of(folder, SUITE))
    (folder / "my_method.py").write_text(EXAMPLE.replace("[0][-1]", "[1][-1]"))
    with pytest.raises(UserError, match=r"mine \(my_method.py:\d+\): IndexError: list index out of range"):
        rehearse(plan_of(folder, SUITE))


@pytest.fixture
def trained(trained_method):
    return trained_method


def test_jobs_reject_code_that_has_changed(trained, monkeypatch, capsys):
    (trained / "my_method.py").write_text(EXAMPLE.replace("stride=4", "stride=2"))
    monkeypatch.setattr(method_file, "_loaded", {})
    assert main(["train", "--run", "run/run.json", "--out", "run"]) == 2
    message = "my_method.py has changed since the suite was planned; start snakemake again"
    assert message in capsys.readouterr().err
    (trained / "my_method.py").unlink()
    assert main(["evaluate", "--run", "run/run.json", "--generator", "run/generator.safetensors", "--out", "run"]) == 2
    assert "my_method.py does not exist in " in capsys.readouterr().err


def test_a_generator_accepts_the_file_that_the_user_names(trained, monkeypatch, capsys):
    generator = "run/generator.safetensors"
    with safe_open(generator, "pt") as file:
        stored = json.loads(next(iter(file.metadata().values())))
    assert (stored["file"], stored["code"]) == ("my_method.py", custom_methods("my_method.py").code)
    assert EXAMPLE.splitlines()[-1].strip() not in Path(generator).read_bytes().decode(errors="replace")
    image = next((trained / "data" / "test").glob("*source.png"))
    translate = ["translate", generator, str(image), "--out", "out", "--device", "cpu"]
    assert main(translate) == 0, "the user has named the file already"
    (trained / "elsewhere").mkdir()
    moved = (trained / "my_method.py").rename(trained / "elsewhere" / "renamed.py")
    monkeypatch.setattr(method_file, "_loaded", {})
    assert main(translate) == 2
    error = capsys.readouterr().err
    assert "my_method.py does not exist" in error
    assert "pass its Python file: --method FILE, or in Python msgunet.load(..., method=FILE)" in error
    assert main([*translate, "--method", str(moved)]) == 0
    assert main(["export", generator, "--onnx", "out/own.onnx", "--method", str(moved)]) == 0
    assert "pass its Python file" not in capsys.readouterr().err
    assert Path("out/own.md").is_file(), "with its card"
    assert msgunet.load(generator, device="cpu", method=moved).settings.file == "my_method.py"
    moved.write_text(EXAMPLE.replace("nn.ReLU()", "nn.ELU()"))
    with pytest.raises(UserError, match=r"renamed.py has changed since run/generator.safetensors was trained"):
        msgunet.load(generator, device="cpu", method=moved)


def test_a_generator_of_a_built_in_method_accepts_no_file(folder, data, compute):
    train(folder / "run", make_settings(data, "mean"), compute)
    with pytest.raises(UserError, match="'mean' is a built-in method and needs no file"):
        load_generator(folder / "run" / "generator.safetensors", torch.device("cpu"), method_file=Path("my_method.py"))


def test_the_contract_tests_run_on_a_suites_file(folder):
    (folder / "my_method.py").write_text(EXAMPLE)
    suite = {**SUITE, "methods": {"own": {"file": "my_method.py", "method": "mine", "options": {"filters": 4}}}}
    (folder / "small.yaml").write_text(yaml.safe_dump(suite))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(ROOT / "tests" / "methods" / "test_contract.py"),
    ]
    environment = {**os.environ, "MSGUNET_SUITE": "small.yaml"}
    done = subprocess.run([*command, "-k", "own"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 10


def test_the_documented_example_runs_from_file_to_page(folder):
    """The example runs in an otherwise empty folder, with the workflow of the checkout."""
    assert sum(bool(line.strip()) for line in EXAMPLE.splitlines()) < 60
    (folder / "my_method.py").write_text(EXAMPLE)
    suite = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
    entry = {"file": "my_method.py", "options": {"filters": 4, "blocks": 1}}
    suite["methods"] = {"mine": entry, "msgunet": suite["methods"]["msgunet"]}
    del suite["ablation"], suite["gradients"]
    suite["evaluation"] = {"protocols": ["native"]}
    (folder / "small.yaml").write_text(yaml.safe_dump(suite))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--config", "suite=small.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv("results/small/tables/table1.csv")
    assert set(table[table["status"] == "done"]["title"]) == {"My method", "MSG U-Net"}
    cost = pd.read_csv("results/small/tables/cost.csv")
    assert "mine" in set(cost["entry"])
    page = Path("results/small/report/index.html").read_text(encoding="utf-8")
    assert "<th scope='row'>My method</th>" in page
    assert "My method: 1 + 0 epochs" in page
    (folder / "my_method.py").write_text("# A comment.\n" + EXAMPLE)
    again = subprocess.run([*command, "-n"], capture_output=True, text=True, check=False)
    assert "Nothing to be done" in again.stdout + again.stderr
