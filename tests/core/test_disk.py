"""A disk that is full, for good or for a while: real file systems."""

import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from msgunet.core.disk import PAUSES, Spare, StillFailingError, describe, disk_error, patiently
from msgunet.core.errors import UserError
from msgunet.core.files import atomic, write_text

WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": lambda path: torch.save(torch.rand(100_000), path),
    "safetensors": lambda path: save_file({"x": torch.rand(100_000)}, path),
    "image": lambda path: Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)).save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_whatever_writes_the_error_names_the_file_and_the_reason(disk, name):
    path = disk.folder / "folder" / "file.png"
    path.parent.mkdir()
    disk.fill()
    with pytest.raises(OSError, match="No space left") as caught, atomic(path) as temporary:
        WRITERS[name](temporary)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert describe(caught.value) == f"{path}: No space left on device; free disk space"
    assert list(path.parent.iterdir()) == []


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(KeyError), atomic(tmp_path / "file"):
        raise KeyError("x")
    with pytest.raises(FileNotFoundError) as caught, atomic(tmp_path / "file"):
        (tmp_path / "absent").read_bytes()
    assert caught.value.filename == str(tmp_path / "absent")
    with pytest.raises(RuntimeError, match="of a library"), atomic(tmp_path / "file"):
        raise RuntimeError("of a library")


def test_it_is_tried_again_until_there_is_space(disk, monkeypatch, capsys):
    monkeypatch.setenv(PAUSES, "0.2 " * 30)
    disk.fill()
    timer = disk.free_in(1)
    patiently(lambda: write_text(disk.folder / "file", "text"))
    timer.join()
    assert (disk.folder / "file").read_text() == "text"
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{disk.folder / 'file'}: No space left on device; free disk space; trying again in 0.2 s"
    assert 2 < len(lines) < 10


def test_a_disk_that_stays_full_is_an_error_that_is_not_waited_for_twice(disk, monkeypatch, capsys):
    monkeypatch.setenv(PAUSES, "0 0.1")
    disk.fill()
    with pytest.raises(StillFailingError, match=r"file: No space left on device; free disk space and start again"):
        patiently(lambda: patiently(lambda: write_text(disk.folder / "file", "text")))
    assert capsys.readouterr().err.count("trying again") == 2


def test_an_error_that_a_wait_cannot_mend_is_raised_at_once(monkeypatch):
    monkeypatch.setenv(PAUSES, "1000")
    for error in (PermissionError(errno.EACCES, "no"), ValueError("no"), UserError("no")):

        def fail(error=error):
            raise error

        with pytest.raises(type(error)):
            patiently(fail)


def test_the_disk_as_the_cause_of_another_error():
    of_disk = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    error = UserError("could not be written")
    error.__cause__ = of_disk
    assert disk_error(error) is of_disk
    assert disk_error(UserError("other")) is None
    assert disk_error(FileNotFoundError(errno.ENOENT, "absent")) is None


def test_what_no_result_needs_is_reported_once_and_again_when_it_works(disk, capsys):
    spare, path = Spare("notes"), disk.folder / "note"
    disk.fill()
    for _ in range(3):
        assert not spare.write(path, lambda: write_text(path, "text"))
    disk.free()
    assert spare.write(path, lambda: write_text(path, "text"))
    assert spare.write(path, lambda: write_text(path, "text"))
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: No space left on device; the training goes on without notes until this works",
        f"{path}: notes are written again",
    ]
