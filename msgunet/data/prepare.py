"""Convert a data set to PNG pairs of one size with a manifest."""

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from msgunet.core.errors import UserError
from msgunet.core.files import KernelLock, atomic, canonical_json, json_hash, write_text
from msgunet.core.permissions import explain
from msgunet.core.settings import DataSetSettings
from msgunet.core.text import printable
from msgunet.data.base import DataSet, RawPair
from msgunet.data.decoder_notes import collected_notes
from msgunet.data.images import as_pixels, can_be_outside, read_raw, resize, save
from msgunet.data.manifest import Pair, image_path, read_manifest, write_manifest
from msgunet.data.outside import Outside, cut, report
from msgunet.data.registry import build_dataset

_ROLES = ("source", "target")
_MAX_LISTED = 10  # problems or names in one error
# Upper estimates of the PNG bytes per byte of pixels. Photos reached 0.6 and label images 0.02.
_PNG = {"photo": 0.7, "labels": 0.1}


@collected_notes()
def prepare(settings: DataSetSettings, out: Path, archives: Path, threads: int = 1) -> Path:
    """Prepare a data set in the folder `out`, from the published files in the folder `archives`.

    The manifest is written last, so that a data set with a manifest is complete. An interrupted preparation resumes.

    Raises:
        UserError: archives are missing, images are damaged or in both splits, too many values are outside the range,
            the disk is too small, or `out` contains anything except an earlier preparation with the same settings.

    """
    dataset = build_dataset(settings, archives)
    if missing := dataset.missing():
        raise UserError(*missing)
    _claim(out, settings)
    manifest = out / "manifest.csv"
    with KernelLock(out / ".lock"):
        manifest.unlink(missing_ok=True)
        for leftover in out.glob(".unpack-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=out, prefix=".unpack-") as work:
            raw = _subset(dataset.pairs(Path(work)), settings.pairs)
            _check_ids(raw)
            if settings.train_size is not None:
                raw = [pair for pair in raw if pair.split == "train"]
            journal = _Journal(out, _fingerprint(settings, dataset))
            todo = [pair for pair in raw if pair.id not in journal.pairs]
            _check_disk(out, len(todo), dataset)
            _prepare_pairs(todo, dataset, out, journal, threads)
        pairs = [journal.pairs[pair.id] for pair in raw]
        notes = report([one for pair in pairs for one in journal.outside[pair.id]], dataset)
        _check_splits(pairs, dataset)
        write_manifest(manifest, pairs)
        journal.remove()
        _remove_unlisted(out, pairs)
    counts = {split: sum(pair.split == split for pair in pairs) for split in ("train", "test")}
    size = "{}x{}".format(*(settings.train_size or settings.size))
    for note in notes:
        print(printable(note))
    print(f"{dataset.title}: {counts['train']} train and {counts['test']} test pairs of {size} in {out}")
    return manifest


def _claim(out: Path, settings: DataSetSettings) -> None:
    """Claim a folder that is new, empty or has the same settings. Files of any other origin are never touched."""
    file, text = out / "dataset.json", canonical_json(settings.model_dump(mode="json"))
    if file.is_file():
        if file.read_text(encoding="utf-8") != text:
            raise UserError(f"{out} contains a data set with other settings ({file}); choose another folder")
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and is not a prepared data set; choose another folder")
    else:
        write_text(file, text)


class _Journal:
    """The pairs prepared so far, one JSON line each, so that an interrupted preparation can resume.

    The first line is a fingerprint of the settings and input files. A journal with another fingerprint is discarded.
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        self._out, self._path = out, out / ".journal"
        self.pairs: dict[str, Pair] = {}
        self.outside: dict[str, list[Outside]] = {}
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        kept = [fingerprint]
        for line in lines[1:] if lines[:1] == [fingerprint] else []:
            # The last line can be incomplete.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if all(self._size(path) == size for path, size in entry["files"].items()):
                    self.outside[entry["pair"]["id"]] = [Outside(**one) for one in entry["outside"]]
                    self.pairs[entry["pair"]["id"]] = Pair(**entry["pair"])
                    kept.append(line)
        write_text(self._path, "\n".join(kept) + "\n")

    def _size(self, path: str) -> int | None:
        file = self._out / path
        return file.stat().st_size if file.is_file() else None

    def add(self, pair: Pair, outside: list[Outside]) -> None:
        self.pairs[pair.id], self.outside[pair.id] = pair, outside
        files = {path: self._size(path) for path in pair.files()}
        line = json.dumps({"pair": asdict(pair), "files": files, "outside": [asdict(one) for one in outside]})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def remove(self) -> None:
        self._path.unlink()


def _fingerprint(settings: DataSetSettings, dataset: DataSet) -> str:
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in dataset.inputs()]
    return json_hash([settings.model_dump(mode="json"), files])


def _prepare_pairs(raw: Sequence[RawPair], dataset: DataSet, out: Path, journal: _Journal, threads: int) -> None:
    """Decode, resize and save in threads (Pillow releases the GIL in all three)."""
    problems: list[str] = []
    progress = tqdm(
        total=len(raw), desc="prepare", unit="pair", disable=not raw, mininterval=0.5 if sys.stderr.isatty() else 30
    )
    pool = ThreadPoolExecutor(threads)
    try:
        for future in as_completed([pool.submit(_prepare_pair, pair, dataset, out) for pair in raw]):
            try:
                journal.add(*future.result())
            except UserError as error:
                problems += error.problems
                if len(problems) >= _MAX_LISTED:
                    problems.append(f"only the first {_MAX_LISTED} problems are listed; there may be more")
                    break
            except PermissionError as error:
                problems.append(explain(error))
                break
            except OSError as error:
                problems.append(f"{out}: {error.strerror or error}; free disk space or fix the cause, and start again")
                break
            progress.update()
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    if problems:
        raise UserError(*problems)


def _prepare_pair(raw: RawPair, dataset: DataSet, out: Path) -> tuple[Pair, list[Outside]]:
    size = dataset.train_size or dataset.size
    loaded = raw.load_at(size) if dataset.train_size and raw.load_at else raw.load()
    images = {role: as_pixels(loaded[role]) for role in (_ROLES if dataset.train_size else loaded)}
    sizes = {role: (image.shape[1], image.shape[0]) for role, image in images.items()}
    if sizes["target"] != sizes["source"]:
        source, target = ("{}x{}".format(*sizes[role]) for role in ("source", "target"))
        raise UserError(f"{raw.name}: the source is {source}, but the target is {target}; they must have the same size")
    kinds = dict(zip(_ROLES, dataset.kinds(dataset.options), strict=True))
    formats = dataset.formats(dataset.options)
    suffixes = {role: given.suffix for role, given in zip(_ROLES, formats, strict=True)}
    outside = []
    for role, given, file in zip(_ROLES, formats, raw.files or (raw.name, raw.name), strict=True):
        if can_be_outside(given):
            images[role], found = cut(images[role], given, role, file)
            outside += [found] if found else []
    paths, hashes = {}, {}
    for role, image in images.items():
        # Images other than source and target are ids.
        resized = resize(image, size, kinds.get(role, "labels"), dataset.resampling)
        paths[role] = image_path(raw.split, raw.id, role, suffixes.get(role, ".png"))
        with atomic(out / paths[role]) as temporary:
            # Measured on maps: level 2 is a third faster than level 4, and the files are no larger.
            save(temporary, resized, level=2)
        hashes[role] = hashlib.sha256(resized.tobytes()).hexdigest()
    extras = " ".join(f"{role}={hashes[role]}" for role in sorted(hashes.keys() - set(_ROLES)))
    both = [paths[role] for role in _ROLES], [hashes[role] for role in _ROLES]
    return Pair(raw.id, raw.split, *both[0], *size, *sizes["source"], *both[1], extras), outside


def _subset(raw: list[RawPair], counts: tuple[int, int] | None) -> list[RawPair]:
    """Return `counts` pairs of the train and test split, spread evenly over each; None selects all."""
    if counts is None:
        return raw
    found = []
    for split, count in zip(("train", "test"), counts, strict=True):
        pairs = [pair for pair in raw if pair.split == split]
        found += pairs if count >= len(pairs) else [pairs[i * len(pairs) // count] for i in range(count)]
    return found


def _check_ids(pairs: Sequence[RawPair]) -> None:
    if not pairs:
        raise UserError("the data set has no pairs; check its options and archives")
    first: dict[str, str] = {}
    duplicates = []
    for pair in pairs:
        # Some file systems do not distinguish A from a.
        key = pair.id.casefold()
        if key in first:
            duplicates.append(f"  {pair.name}: {pair.id}, as {first[key]}")
        first.setdefault(key, pair.name)
    if duplicates:
        listed = duplicates[:_MAX_LISTED]
        raise UserError(f"{len(duplicates)} pairs have the same id as another pair; rename their files:", *listed)
    for split in ("train", "test"):
        if not any(pair.split == split for pair in pairs):
            raise UserError(f"the data set has no {split} pairs; check its options")


def _check_disk(out: Path, count: int, dataset: DataSet) -> None:
    size, options = dataset.train_size or dataset.size, dataset.options
    values = zip(dataset.formats(options), dataset.kinds(options), strict=True)
    needed = count * size[0] * size[1] * sum(f.channels * f.bits / 8 * _PNG[kind] for f, kind in values)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"{out}: {count} pairs of {size[0]}x{size[1]} need about {needed / 1e9:.1f} GB, but only "
            f"{free / 1e9:.1f} GB are free; free disk space"
        )
    print(f"{count} pairs to prepare, about {needed / 1e9:.2f} GB of {free / 1e9:.0f} GB free", file=sys.stderr)


def _check_splits(pairs: Sequence[Pair], dataset: DataSet) -> None:
    """Check that no image is in both splits. If there are photos, compare only them: label images can be equal."""
    kinds = dataset.kinds(dataset.options)
    compare_sources = "photo" not in kinds or kinds[0] == "photo"

    def key(pair: Pair) -> str:
        return pair.source_sha256 if compare_sources else pair.target_sha256

    train = {key(pair): pair.id for pair in pairs if pair.split == "train"}
    both = [f"{pair.id} = {train[key(pair)]}" for pair in pairs if pair.split == "test" and key(pair) in train]
    if both:
        raise UserError(f"{len(both)} test images are also training images: {', '.join(both[:_MAX_LISTED])}")


def _remove_unlisted(out: Path, pairs: Sequence[Pair]) -> None:
    """Remove images that the manifest does not list."""
    known = {out / path for pair in pairs for path in pair.files()}
    for split in ("train", "test"):
        for path in (out / split).glob("*"):
            if path not in known:
                path.unlink()


def check_prepared(folder: Path, split: str | None = None) -> list[str]:
    """Return the problems of a prepared data set: missing images, and images whose pixels differ from the manifest.

    `split` limits the check to `train` or `test`.
    """
    problems = []
    pairs = read_manifest(folder / "manifest.csv", split)
    for pair in tqdm(pairs, desc=f"check {folder.name}", unit="pair", disable=None):
        for path, expected in pair.files().items():
            try:
                found = hashlib.sha256(read_raw(folder / path, str(folder / path)).tobytes()).hexdigest()
            except UserError as error:
                problems += error.problems
                continue
            if found != expected:
                problems.append(f"{folder / path}: its pixels differ from the manifest")
    return problems
