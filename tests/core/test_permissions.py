"""Another user's files: an error names the owner and the remedy, and is never taken for damage or a full disk."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, make_image
from users import as_user, open_folder

from msgunet.core.files import atomic, remove_leftovers

OWNER, OTHER, GROUP = 51235, 51236, 51237

# Each prints one error. `closed` is a folder of files that only their owner can read; the owner alone can write to it.
CASES = {
    "settings": "read_settings(closed / 'compute.json', ComputeSettings)",
    "lock": "KernelLock(closed / '.lock').acquire(timeout=0)",
    "weights": "load_generator(closed / 'generator.safetensors', 'cpu')",
    "png": "open_image(closed / 'a.png', 'a.png').__enter__()",
    "tiff": "read_raw(closed / 'a.tif', 'a.tif')",
    "archive": "open_zip(closed / 'a.zip')",
    "speed": "_training_steps(closed / 'speed.csv')",
    "method": "code_of(closed / 'mine.py')",
    "checkpoint": "save_checkpoint(closed, 3, {})",
    "nyu": "get_dataset('nyu').pairs(SimpleNamespace(archives=closed, options=None, remotes=lambda options: []), None)",
    "leftover": "work_folder(closed, lock=Path('.lock')).__enter__()",
}
FILES = ("compute.json", ".lock", "generator.safetensors", "a.tif", "a.zip", "speed.csv", "mine.py")
NYU = ("nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat")
SCRIPT = f"""
from pathlib import Path
from types import SimpleNamespace
from msgunet.core.errors import UserError
from msgunet.core.files import KernelLock, read_settings, work_folder
from msgunet.core.permissions import explain
from msgunet.core.settings import ComputeSettings
from msgunet.data.decode import open_image
from msgunet.data.images import read_raw
from msgunet.data.registry import get_dataset
from msgunet.data.unpack import open_zip
from msgunet.methods.generator import load_generator
from msgunet.methods.method_file import code_of
from msgunet.suite.forecast import _training_steps
from msgunet.training.checkpoint import save_checkpoint
closed = Path("closed").absolute()
for name, call in {CASES!r}.items():
    try:
        eval(call)
        print(name, "no error")
    except UserError as error:
        print(name, error)
    except OSError as error:  # what the command prints
        print(name, explain(error))
"""


@pytest.fixture
def folder():
    with open_folder() as folder:
        yield folder


def by(uid: int, folder: Path, code: str, umask: int = 0o022) -> str:
    options = {"gid": GROUP, "umask": umask, "cwd": folder, "env": {"PYTHONPATH": str(ROOT)}}
    run = as_user(uid, sys.executable, "-c", code, **options)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def errors() -> Iterator[dict[str, str]]:
    with open_folder() as folder:
        yield errors_in(folder)


def errors_in(folder: Path) -> dict[str, str]:
    closed = folder / "closed"
    closed.mkdir()
    make_image(1, 8, 8).save(closed / "a.png")
    for name in (*FILES, *NYU):
        (closed / name).write_text("text")
    for path in (closed, *closed.iterdir()):
        os.chown(path, OWNER, GROUP)
        path.chmod(0o755 if path.is_dir() else 0o600)
    return dict(line.split(" ", 1) for line in by(OTHER, folder, SCRIPT).splitlines())


def test_every_error_names_the_owner_and_the_remedy(errors):
    assert sorted(errors) == sorted(CASES)
    wrong = {
        name: text
        for name, text in errors.items()
        if f"belongs to user id {OWNER} (" not in text or "umask 002" not in text or "g+rwX" not in text
    }
    assert wrong == {}


def test_no_error_speaks_of_damage_or_a_full_disk(errors):
    assert not [text for text in errors.values() if any(word in text for word in ("damage", "disk", "not a ", "NFS"))]


def test_a_file_of_ones_own_is_opened_by_oneself(folder):
    code = (
        "from pathlib import Path; from msgunet.core.permissions import explain\n"
        "path = Path('mine'); path.touch(0o444)\n"
        "try: path.write_text('')\n"
        "except OSError as error: print(explain(error))"
    )
    assert "your file mine is closed even to you (-r--r--r--); chmod -R u+rwX mine" in by(OWNER, folder, code)


def test_what_a_killed_process_of_the_group_left_is_removed(folder):
    (folder / "out").mkdir()
    os.chown(folder / "out", OWNER, GROUP)
    (folder / "out").chmod(0o2775)
    code = "import os; from msgunet.core.files import atomic as f; a = f('out/a.bin'); a.__enter__(); os._exit(0)"
    by(OWNER, folder, code, umask=0o002)
    [leftover] = (folder / "out").iterdir()
    assert leftover.stat().st_uid == OWNER
    by(OTHER, folder, "from pathlib import Path; from msgunet.core import files; files.remove_leftovers(Path('out'))")
    assert list((folder / "out").iterdir()) == []


def test_a_temporary_file_in_use_is_not_removed(tmp_path):
    with atomic(tmp_path / "a.bin") as temporary:
        remove_leftovers(tmp_path)
        assert temporary.exists()
