"""What the registries of methods and data sets share."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from msgunet.core.errors import UserError
from msgunet.core.registry import Registry, lazy_import, suggest


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A package with one class, and with a module of networks that must not be imported."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text(
        "from plugins_registry import registry\n\n@registry.register('one')\nclass One: ...\n"
    )
    (folder / "my_networks.py").write_text("raise RuntimeError('it was imported')\n")
    (tmp_path / "plugins_registry.py").write_text(
        "from msgunet.core.registry import Registry\n\nregistry = Registry('thing', 'plugins')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("plugins", "plugins_registry")]:
        del sys.modules[name]


def test_classes_are_found_by_name_without_their_networks(plugins):
    from plugins_registry import registry

    assert list(registry.all()) == ["one"]
    assert registry.get("one").name == "one"
    with pytest.raises(UserError, match="unknown thing 'onne': did you mean 'one'"):
        registry.get("onne")
    with pytest.raises(RuntimeError, match="it was imported"):
        lazy_import("plugins.my_networks").anything  # noqa: B018 (the first use imports it)


def test_a_name_has_one_class():
    registry = Registry("thing")
    registry.register("a")(type("First", (), {"__module__": "here"}))
    with pytest.raises(ValueError, match="'a' is registered twice: in here and in there"):
        registry.register("a")(type("Second", (), {"__module__": "there"}))


def test_a_class_whose_texts_hold_control_characters_is_refused():
    registry = Registry("thing")
    texts = {"title": "a\nb", "reference": "\x1b[2J", "licence": "free\u202e", "source_url": "x"}
    with pytest.raises(UserError) as caught:
        registry.register("a")(type("First", (), texts))
    assert [problem.split(": ")[0] for problem in caught.value.problems] == ["a, title", "a, reference", "a, licence"]
    assert "'a\\nb' holds U+000A (line break)" in caught.value.problems[0]


def test_hints():
    assert suggest("msgnet", ["msgunet", "pan"]) == "did you mean 'msgunet'?"
    assert suggest("xyz", ["b", "a"]) == "the known names are b, a"
    assert suggest("xyz", []) == "there are none"


def test_lazy_import_of_what_is_not_there():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        lazy_import("no_such_module")


def test_lazy_imports_can_be_nested(tmp_path, monkeypatch):
    """A package whose own module is imported lazily while the package itself imports lazily."""
    folder = tmp_path / "nested"
    folder.mkdir()
    (folder / "__init__.py").write_text("from msgunet import lazy_import\nother = lazy_import('nested_other')\n")
    (folder / "nets.py").write_text("WIDTH = 3\n")
    (tmp_path / "nested_other.py").write_text("DEPTH = 4\n")
    code = "from msgunet import lazy_import; nets = lazy_import('nested.nets')"
    code += "; import nested; print(nets.WIDTH, nested.other.DEPTH)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["3", "4"], done.stderr
