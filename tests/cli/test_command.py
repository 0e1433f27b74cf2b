"""The command itself: help without arguments, a fast start, and an installation that has the core alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from msgunet.cli import extras
from msgunet.cli.extras import advice
from msgunet.cli.main import main
from msgunet.cli.parser import parser

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"


def test_without_arguments_it_prints_its_help(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == parser().format_help()


@pytest.mark.parametrize(("arguments", "limit"), [(["-c", "import msgunet"], 0.1), (["-m", "msgunet", "--help"], 0.3)])
def test_it_starts_at_once(arguments, limit):
    """Processor time, the best of five: the machine may have other work."""

    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < limit


def test_help_loads_no_heavy_package():
    code = "import sys; from msgunet.cli.main import main; main([]); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stderr
    assert not {"torch", "numpy", "pandas", "matplotlib", "PIL"} & set(loaded.split())


def core_packages() -> set[str]:
    """The packages that the core needs, and those that they need."""
    found: set[str] = set()
    left = [Requirement(line) for line in PROJECT["dependencies"]]
    while left:
        requirement = left.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            left += [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
    return found


# Any package that the core does not bring cannot be found, as in an environment with the core alone.
_CORE_ALONE = """
import sys

class CoreAlone:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {missing!r} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [CoreAlone(finder) for finder in sys.meta_path]
from msgunet.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def core_alone(tmp_path_factory):
    """Runs the command with the core's packages alone."""
    core = core_packages()
    names = packages_distributions()
    normal = {module: {re.sub(r"[-_.]+", "-", name).lower() for name in dists} for module, dists in names.items()}
    missing = {module for module, dists in normal.items() if not dists & core} - {"msgunet", "baselines"}
    assert {"pandas", "snakemake", "yaml", "onnx"} <= missing
    assert not {"torch", "numpy", "PIL", "pydantic"} & missing
    code = _CORE_ALONE.format(missing=missing)

    def run(*arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        folder = tmp_path_factory.mktemp("elsewhere")
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)

    return run


def test_the_core_alone_translates(core_alone, tmp_path):
    from PIL import Image

    Image.new("RGB", (80, 60), "teal").save(tmp_path / "source.png")
    done = core_alone("translate", GENERATOR, tmp_path / "source.png", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out" / "source.png").size == (80, 60)


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (("check", "demo"), "pyyaml", "suite"),
        (("plan",), "pandas", "suite"),
        (("tables", "--settings", "s.json", "--results", "."), "pandas", "suite"),
        (("export", GENERATOR), "pandas", "onnx"),
    ],
)
def test_a_verb_names_the_extra_that_it_lacks(core_alone, arguments, package, extra):
    done = core_alone(*arguments)
    assert done.returncode == 2
    assert f"'msgunet {arguments[0]}' needs the package {package}" in done.stderr
    assert re.search(rf"pip install .*\[{extra}\]", done.stderr)
    assert "Traceback" not in done.stderr


def test_only_packages_of_extras_are_explained():
    assert "extra 'tiff'" in advice("translate", "imagecodecs")
    assert advice("translate", "torch.nowhere") is None
    assert advice("train", "a_users_own_module") is None


@pytest.mark.parametrize(
    ("direct_url", "requirement"),
    [
        (None, "'msgunet[suite]'"),
        ({"url": "file:///a/b", "dir_info": {}}, "'msgunet[suite] @ file:///a/b'"),
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, "-e '/a b[suite]'"),
        (
            {"url": "https://x.org/y.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "'msgunet[suite] @ git+https://x.org/y.git@abc'",
        ),
    ],
)
def test_an_extra_comes_from_the_source_of_the_installation(direct_url, requirement):
    assert extras._requirement("suite", direct_url and json.dumps(direct_url)) == requirement


def test_every_extra_that_is_named_is_declared():
    assert set(PROJECT["optional-dependencies"]) == {"tiff", "suite", "onnx", "cuda", "slurm", "docs", "dev"}


def test_outside_a_checkout_a_suite_by_name_is_explained(tmp_path):
    for package in ("msgunet", "baselines"):
        shutil.copytree(ROOT / package, tmp_path / "site" / package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "msgunet", "check", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "config is part of the project's repository" in done.stderr
