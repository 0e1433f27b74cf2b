"""`msgunet data`: the location and state of each data set, and how to get missing files."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from msgunet.core.errors import UserError
from msgunet.core.registry import suggest
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
    """Return the files of the data set `name`, or the one file called `name`, with the addresses of the suite first.

    Args:
        name: of a data set, of an entry of `others`, or of a published file.
        settings: the suite's settings for data.
        others: published files that belong to no data set, by name.

    Raises:
        UserError: the data set or file does not exist.

    """
    of_sets = {key: cls.remotes(cls.Options.model_construct()) for key, cls in datasets().items()}
    known = {key: remotes for key, remotes in of_sets.items() if remotes} | dict(others or {})
    known |= {remote.name: (remote,) for remotes in known.values() for remote in remotes}
    if name not in known:
        raise UserError(f"no data set or file called '{name}' can be downloaded; {suggest(name, known)}")
    return [replace(remote, urls=(*settings.urls.get(remote.name, ()), *remote.urls)) for remote in known[name]]


def overview(settings: DataSettings) -> Iterator[str]:
    """Yield a few lines about every data set."""
    for name, cls in datasets().items():
        yield f"{name}: {cls.title}"
        advice = "" if cls.redistributable else "; do not redistribute reports with its images"
        yield f"  licence   {cls.licence}{advice}"
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
        note = "" if remote.size in (None, size) else f", not the published file of {remote.size:,} bytes"
        yield f"archive   {path}, {size:,} bytes{note}"
    if not remotes:
        yield f"archive   none: {cls.source_url}"
    # Requirements that no download meets: accounts, packages, files that the user must provide.
    with contextlib.suppress(UserError):
        dataset = build_dataset(cls.default_settings(), folder)
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
        yield "prepared  not yet; a suite that uses it prepares it automatically"


def _folders(name: str) -> list[Path]:
    """Return the prepared folders of a data set, identified by the settings in them."""
    found = []
    for file in sorted(PREPARED.glob("*/dataset.json")):
        if json.loads(file.read_text(encoding="utf-8")).get("kind") == name:
            found.append(file.parent)
    return found


def check_data(name: str, settings: DataSettings) -> Iterator[str]:
    """Verify the archives of a data set by size and checksum, and its prepared images by the hashes of their pixels.

    Yields:
        A line for each archive or folder that is correct.

    Raises:
        UserError: archives or images are not correct (all are listed), or there is nothing to check.

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
        raise UserError(f"{name}: nothing to check, there are neither archives in {folder} nor prepared images")
