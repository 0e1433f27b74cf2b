"""Write folders of pairs as people have them, and prepare them."""

import zlib
from pathlib import Path

from conftest import dataset_settings, make_image

from msgunet.data.manifest import Pair, read_manifest
from msgunet.data.prepare import prepare
from msgunet.data.sets.folder import FolderOptions
from msgunet.new_suite.discover import discover


def put(folder: Path, *names: str, size=(60, 40), **save) -> Path:
    """Write different images with these names, and return the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make_image(zlib.crc32(f"{folder.name}/{name}".encode(errors="replace")), *size).save(folder / name, **save)
    return folder


def put_pairs(folder: Path, *names: str, roles=("a", "b")) -> Path:
    for role in roles:
        put(folder / role, *names)
    return folder


def prepared(folder: Path, size=(32, 16), **options) -> list[Pair]:
    """Prepare a folder as `new-suite` finds it; return the pairs of its manifest."""
    options = FolderOptions(**(discover(folder).options | options)).model_dump(mode="json")
    return read_manifest(prepare(dataset_settings("folder", size, **options), folder.parent / "out", folder))
