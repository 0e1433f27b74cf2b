"""A user id without a name or a home, as in containers: every command works, without noise."""

import os
import sys
from pathlib import Path

import pytest
from conftest import ROOT, make_image
from users import as_user, open_folder

from msgunet.core.user import ensure_user

GENERATOR = ROOT / "tests" / "fixtures" / "25f1304" / "generator.safetensors"
NAMELESS = 51234
CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_HOME")


@pytest.fixture
def folder():
    with open_folder() as folder:
        yield folder


@pytest.fixture
def nameless(folder):
    """A function that runs Python as a user id without a name, with a home that it cannot write to."""
    env = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return lambda *command: as_user(NAMELESS, sys.executable, *command, cwd=folder, env=env)


def test_a_user_without_a_name_translates_and_exports(folder, nameless):
    make_image(1, 40, 30).save(folder / "a.png")
    assert nameless("-c", "import getpass; getpass.getuser()").returncode != 0, "this user has a name"
    translated = nameless("-m", "msgunet", "translate", str(GENERATOR), "a.png", "--out", "out")
    assert translated.returncode == 0, translated.stderr
    assert (folder / "out" / "a.png").is_file()
    exported = nameless("-m", "msgunet", "export", str(GENERATOR), "--onnx", "a.onnx")
    assert exported.returncode == 0, exported.stderr


LIBRARIES = (
    "from msgunet.core.user import ensure_user; ensure_user()\n"
    "import matplotlib.font_manager, subprocess, triton.knobs, pathlib\n"
    "pathlib.Path(triton.knobs.cache.dir).mkdir(parents=True)\n"
    "print(matplotlib.get_cachedir())"
)


def test_libraries_cache_in_a_temporary_folder_of_the_user(folder, nameless):
    pytest.importorskip("triton")
    run = nameless("-c", LIBRARIES)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    caches = folder / f"msgunet-{NAMELESS}"
    assert Path(run.stdout.strip()) == caches
    assert caches.stat().st_mode & 0o777 == 0o700
    assert list(caches.glob("fontlist*.json")), "the next process need not look for fonts again"


def test_a_folder_that_another_user_made_first_is_not_trusted(folder, nameless):
    (folder / f"msgunet-{NAMELESS}").mkdir(mode=0o777)
    (folder / f"msgunet-{NAMELESS}").chmod(0o777)
    run = nameless("-c", LIBRARIES.replace("triton.knobs, ", "").replace("pathlib.Path(triton", "# "))
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()).name.startswith("msgunet-")
    assert list((folder / f"msgunet-{NAMELESS}").iterdir()) == []


def test_without_home_the_place_of_the_cityscapes_account_is_known(nameless):
    code = "import os; del os.environ['HOME']; from msgunet.cli.main import main; main(['data'])"
    run = nameless("-c", code)
    assert run.returncode == 0, run.stderr
    assert "Cityscapes" in run.stdout


def test_a_home_that_can_be_written_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), "LOGNAME": "me"})
    ensure_user()
    assert set(os.environ) == {"HOME", "LOGNAME"}


def test_a_folder_that_the_user_chose_is_used(tmp_path, monkeypatch):
    chosen = dict.fromkeys(CACHES, str(tmp_path / "mine"))
    monkeypatch.setattr(os, "environ", {"HOME": "/proc/nowhere", "LOGNAME": "me", **chosen})
    monkeypatch.setattr(os, "access", lambda *_: False)
    ensure_user()
    assert {name: os.environ[name] for name in CACHES} == chosen
