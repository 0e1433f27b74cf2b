"""What a user who names no generator may have meant: the generators nearest to a path."""

import difflib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

# Files that a message names, and folders and files that are looked at, so that a whole disk is not searched.
_NAMED, _LOOKED_AT = 3, 20_000


def instead_of(path: Path) -> str:
    """Return a sentence that says why `path` is no file, and names the nearest generators in or below its folder."""
    if path.is_dir():
        what, place = f"{path} is a folder; name the generator.safetensors of a run", path
    else:
        place = next((folder for folder in path.parents if folder.is_dir()), Path())
        what = f"{path}: no such file"
    found = list(_below(place))
    if not found:
        return f"{what}; there is no generator in or below {place}: a training writes it when it ends"
    if place != path:
        likeness = {one: difflib.SequenceMatcher(None, str(one), str(path)).ratio() for one in found}
        found.sort(key=lambda one: -likeness[one])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{what}; found in or below {place}: {', '.join(map(str, found[:_NAMED]))}{more}"


def _below(folder: Path) -> Iterator[Path]:
    """Yield the generators in and below a folder, the nearest first. Links and hidden folders are passed over."""
    folders, seen = deque([folder]), 0
    while folders and seen < _LOOKED_AT:
        try:
            entries = sorted(os.scandir(folders.popleft()), key=lambda entry: entry.name)
        except OSError:
            continue
        seen += len(entries)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                folders.append(Path(entry.path))
            elif entry.name.endswith(".safetensors") and not entry.name.startswith("."):
                yield Path(entry.path)
