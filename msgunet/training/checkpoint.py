"""Checkpoints: written atomically, named after the hash of their content, and loaded without running pickled code.

The name of a checkpoint (`step-00001200.1f3a….pt`) contains the first sixteen hexadecimal digits of its SHA-256, so
that the file and its checksum appear together.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from msgunet.core.errors import UserError
from msgunet.core.files import atomic, remove_leftovers, sha256_file, sync_folder

KEEP = 3
_NAME = re.compile(r"step-(\d{8})\.([0-9a-f]{16})\.pt")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = KEEP) -> Path:
    """Write `state` as the checkpoint of `step`, then delete all checkpoints except the newest `keep`.

    Raises:
        UserError: it could not be written; its cause is the OSError.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with atomic(folder / "next.pt") as temporary:
            torch.save(state, temporary)
            digest = sha256_file(temporary)
        # `next.pt` is complete, but it counts as a checkpoint only under its final name.
        path = (folder / "next.pt").replace(folder / f"step-{step:08d}.{digest[:16]}.pt")
        sync_folder(folder)
    except PermissionError:
        raise
    except OSError as error:
        intact = "the previous checkpoint is intact; " if checkpoints(folder) else ""
        raise UserError(
            f"{folder}: could not write the checkpoint of step {step}: it needs {_bytes(state):,} bytes, and "
            f"{_free(folder):,} are free ({error.strerror or error}); {intact}free disk space and start again"
        ) from error
    for old, _ in checkpoints(folder)[keep:]:
        old.unlink()
    return path


def _free(folder: Path) -> int:
    """Return the free bytes of the disk that has, or would have, this folder."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def _bytes(state: Any) -> int:
    """Return the total size of the tensors in a nested state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(_bytes, inner))


def checkpoints(folder: Path) -> list[tuple[Path, int]]:
    """Return the checkpoints and their steps, newest first."""
    found = [(path, int(match[1])) for path in folder.glob("step-*.pt") if (match := _NAME.fullmatch(path.name))]
    return sorted(found, key=lambda item: item[1], reverse=True)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the newest intact checkpoint, or None if there are no checkpoints. Skip damaged ones with a message.

    Raises:
        UserError: all existing checkpoints are damaged.

    """
    found = checkpoints(folder)
    for path, _ in found:
        if sha256_file(path).startswith(_NAME.fullmatch(path.name)[2]):
            return torch.load(path, map_location="cpu", weights_only=True)
        print(f"{path}: damaged (its checksum differs); trying the previous checkpoint", file=sys.stderr, flush=True)
    if found:
        raise UserError(f"all {len(found)} checkpoints in {folder} are damaged; remove this folder to start over")
    return None
