"""The package: what it declares is what is locked, and its public names are what users and authors are shown."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

import msgunet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STUB = ast.parse((ROOT / "msgunet" / "__init__.pyi").read_text())


def declared() -> list[Requirement]:
    """The dependencies of the core and of all extras."""
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    found = [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]
    return [requirement for requirement in found if requirement.name != "msgunet"]


def locked(file: str) -> dict[str, list[Version]]:
    """Names and versions in a file of pip's; some packages have one for each platform."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", (ROOT / file).read_text(), re.M):
        found.setdefault(name, []).append(Version(version))
    return found


def test_what_is_declared_is_locked():
    lock = locked("requirements.txt")
    assert len(declared()) > 30
    for requirement in declared():
        versions = lock.get(requirement.name, [])
        assert versions, f"{requirement.name} is in pyproject.toml and not in requirements.txt: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}, locked {versions}"


def test_what_is_pinned_is_locked():
    lock = locked("requirements.txt")
    pins = locked("constraints.txt")
    assert "torch" in pins
    assert all(lock[name] == versions for name, versions in pins.items())


def imported_packages(folder: str) -> set[str]:
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"msgunet", "baselines"}


def test_what_is_imported_is_declared():
    """Also what is imported where it is needed only."""
    packages = {"PIL": "pillow", "yaml": "pyyaml", "urllib3": "requests"}
    packages |= {"cudnn": "nvidia-cudnn-frontend", "triton": "torch"}
    names = {packages.get(name, name).replace("_", "-") for name in imported_packages("msgunet")}
    assert {"torch", "pillow", "pandas", "onnx"} <= names
    assert names <= {requirement.name for requirement in declared()}


def test_every_public_name_is_there_and_typed():
    names = {alias.name for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(msgunet.__all__) <= set(dir(msgunet))
    for node in STUB.body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(f"msgunet.{node.module}")
            assert all(getattr(msgunet, alias.name) is getattr(module, alias.name) for alias in node.names)
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = msgunet.nothing_of_ours


def test_public_names_that_need_no_torch_load_none():
    names = "Method, MethodOptions, register_method, DataSet, register_dataset, lazy_import, UserError"
    code = f"import sys; from msgunet import {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_docs_and_examples_import_public_names_alone():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    blocks = [block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    blocks += [path.read_text() for path in (ROOT / "examples").glob("*.py")]
    modules, names = set(), set()
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("msgunet", "baselines"):
            modules.add(node.module)
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name.split(".")[0] in ("msgunet", "baselines")}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "msgunet":
            names.add(node.attr)
    assert modules == {"msgunet"}
    assert {"load", "Method", "register_method", "PatchGAN"} <= names <= set(msgunet.__all__)


def test_few_files_stand_at_the_top_and_none_is_long_without_a_reason():
    assert {path.name for path in (ROOT / "msgunet").glob("*.py")} == {"__init__.py", "__main__.py"}
    for folder in ("msgunet", "baselines", "examples", "tests", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if text.count("\n") > 300:
                docstring = ast.get_docstring(ast.parse(text)) or ""
                assert "one file because" in docstring.lower(), f"{path} has {text.count(chr(10))} lines: divide it"
