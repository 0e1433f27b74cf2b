"""`msgunet data`: where each data set is, what state it is in, and what to do if something is missing."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.core.registry import nearest
from msgunet.core.settings import DataSettings
from msgunet.data.base import DataSet, Remote
from msgunet.data.fetch import check_file
from msgunet.data.manifest import read_manifest
from msgunet.data.prepare import check_prepared
from msgunet.data.registry import build_dataset, datasets, get_dataset

PREPARED = Path("data")


def published(
    name: str, settings: DataSettings, others: Mapping[str, tuple[Remote, ...]] | None = None
) -> list[Remote]:
    """The files of the data set `name`, or the one file of that name, the suite's own addresses first.

    others: published files that belong to no data set, by a name.

    Raises:
        UserError: there is no such data set or file.

    """
    of_sets = {key: cls.remotes(cls.Options.model_construct()) for key, cls in datasets().items()}
    known = {key: remotes for key, remotes in of_sets.items() if remotes} | dict(others or {})
    known |= {remote.name: (remote,) for remotes in known.values() for remote in remotes}
    if name not in known:
        raise UserError(f"nothing called '{name}' can be downloaded; {nearest(name, known)}")
    return [replace(remote, urls=(*settings.urls.get(remote.name, ()), *remote.urls)) for remote in known[name]]


def overview(settings: DataSettings) -> Iterator[str]:
    """Every data set in a few lines."""
    for name, cls in datasets().items():
        yield f"{name}: {cls.title}"
        yield f"  licence   {cls.licence}" + ("" if cls.shareable else "; keep reports with its images to yourself")
        yield from (f"  {line}" for line in _archives(cls, settings))
        yield from (f"  {line}" for line in _prepared(name))
        yield ""


def _archives(cls: type[DataSet], settings: DataSettings) -> Iterator[str]:
    folder, downloads = settings.archives(cls.name)
    remotes = cls.remotes(cls.Options.model_construct())
    for remote in remotes:
        path = folder / remote.name
        if not path.is_file():
            advice = f"; 'msgunet fetch {cls.name}' downloads it" if downloads and remote.urls else "; put it there"
            yield f"missing   {path} ({remote.about}){advice}"
            continue
        size = path.stat().st_size
        other = "" if remote.size in (None, size) else f", not the published file of {remote.size:,} bytes"
        yield f"archive   {path}, {size:,} bytes{other}"
    if not remotes:
        yield f"archive   none: {cls.source_url}"
    # What no download brings: accounts, packages, files to be put somewhere.
    with contextlib.suppress(UserError):
        dataset = build_dataset(cls.usual_settings(), folder)
        yield from (f"needs     {problem}" for problem in dataset.missing(downloads=True))


def _prepared(name: str) -> Iterator[str]:
    folders = _folders(name)
    for folder in folders:
        if (folder / "manifest.csv").is_file():
            pairs = read_manifest(folder / "manifest.csv")
            train, size = sum(pair.split == "train" for pair in pairs), f"{pairs[0].width}x{pairs[0].height}"
            yield f"prepared  {folder}: {train} training and {len(pairs) - train} test pairs of {size}"
        else:
            yield f"begun     {folder}: the next run prepares it"
    if not folders:
        yield "prepared  not yet; a suite that uses it does it by itself"


def _folders(name: str) -> list[Path]:
    """The folders of a data set's preparations, by the settings that lie in them."""
    found = []
    for file in sorted(PREPARED.glob("*/dataset.json")):
        if json.loads(file.read_text(encoding="utf-8")).get("kind") == name:
            found.append(file.parent)
    return found


def check_data(name: str, settings: DataSettings) -> Iterator[str]:
    """Verify a data set's archives by size and checksum, and its prepared images by their pixels' hashes.

    Yields a line for each that is right.

    Raises:
        UserError: naming everything that is not, or there is nothing to check.

    """
    cls = get_dataset(name)
    folder, _ = settings.archives(name)
    problems, checked = [], 0
    for remote in cls.remotes(cls.Options.model_construct()):
        if (folder / remote.name).is_file():
            checked += 1
            problem = check_file(folder / remote.name, remote)
            problems += [f"{folder / remote.name}: {problem}"] if problem else []
            if not problem:
                yield f"{folder / remote.name}: as published"
    for prepared in _folders(name):
        if (prepared / "manifest.csv").is_file():
            checked += 1
            found = check_prepared(prepared)
            problems += found
            if not found:
                yield f"{prepared}: all images as in the manifest"
    if problems:
        raise UserError(*problems, "delete the damaged archive, or the whole prepared folder, and run the suite again")
    if not checked:
        raise UserError(f"there is nothing of {name} to check, neither archives in {folder} nor prepared images")
