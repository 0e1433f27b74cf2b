"""`msgunet translate`: image files and folders through a published generator."""

import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from msgunet.core.errors import UserError
from msgunet.core.files import atomic
from msgunet.core.settings import ImageFormat
from msgunet.data.images import read, save
from msgunet.data.sets.folder import SUFFIXES, images
from msgunet.translation.translate import Model

_TIFF = (".tif", ".tiff")
# Formats that may keep their kind of file, beside PNG and TIFF: they hold 8-bit colours only.
_COLOURS = (".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path


def translate_files(
    model: Model,
    given: Sequence[Path],
    out: Path,
    scale: int = 0,
    tile: int | None = None,
    keep_format: bool = False,
    resume: bool = False,
) -> int:
    """Translate images, and all images below folders, to files of the same names (and folders) in `out`.

    Args:
        model: that translates.
        given: files and folders.
        out: folder to write to.
        scale: of the outputs.
        tile: side of tiles in pixels, instead of one chosen by memory.
        keep_format: write the source's kind of file instead of PNG (TIFF where PNG has no such channels).
        resume: leave what is in `out` already.

    Returns:
        How many were translated.

    Raises:
        UserError: files are missing, would be written over, or could not be translated; all others are.

    """
    wanted = model.settings.target_format
    jobs = _jobs(given, out, wanted, keep_format)
    todo = [job for job in jobs if not (resume and job.target.is_file())]
    problems: list[str] = []
    done = 0
    bar = tqdm(todo, desc="translate", unit="image", mininterval=0.5 if sys.stderr.isatty() else 30)
    for job in bar:
        try:
            pixels = read(job.source, str(job.source), model.settings.source_format)
            tiles = functools.partial(_show_tiles, bar)
            found = model.translate(pixels, scale, name=job.source.stem, tile=tile, progress=tiles)
            with atomic(job.target) as temporary:
                _write(temporary, found, job.target.suffix.lower())
            done += 1
        except UserError as error:
            named = (p if p.startswith(str(job.source)) else f"{job.source}: {p}" for p in error.problems)
            problems += named
        except (RuntimeError, MemoryError, ValueError) as error:
            # The device's memory, or what a format cannot hold; OSErrors, as of a full disk, would come again.
            problems.append(f"{job.source}: {str(error).splitlines()[0]}")
    if problems:
        raise UserError(*problems, f"{done} of {len(todo)} images were translated, the others are named above")
    return len(todo)


def _show_tiles(bar: tqdm, done: int, total: int) -> None:
    if total > 1:
        bar.set_postfix_str(f"tile {done} of {total}", refresh=False)
        bar.update(0)


def _write(path: Path, pixels: np.ndarray, suffix: str) -> None:
    if suffix in _COLOURS:
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        quality = {"quality": 95} if suffix in (".jpg", ".jpeg", ".webp") else {}
        Image.fromarray(np.ascontiguousarray(flat)).save(path, **quality)
    else:
        save(path, pixels, tiff=suffix in _TIFF)


def _jobs(given: Sequence[Path], out: Path, wanted: ImageFormat, keep_format: bool) -> list[_Job]:
    """Which file becomes which; nothing may be written over another, or over a source."""
    problems, jobs = [], []
    for path in given:
        if path.is_dir():
            # Results of an earlier time are no sources.
            found = [file for file in images(path) if not _is_below(file, out) or _is_below(path, out)]
            problems += [] if found else [f"{path}: no images below this folder ({', '.join(sorted(SUFFIXES))})"]
            jobs += [(file, file.relative_to(path)) for file in found]
        elif path.is_file():
            jobs.append((path, Path(path.name)))
        else:
            problems.append(f"{path}: there is no such file or folder")
    named = [_Job(file, out / name.with_suffix(_suffix(name.suffix, wanted, keep_format))) for file, name in jobs]
    first: dict[str, Path] = {}
    sources = {os.path.realpath(job.source) for job in named}
    for job in named:
        # Some file systems do not tell A from a.
        key = str(job.target).casefold()
        if key in first:
            problems.append(f"{job.source} and {first[key]} would both become {job.target}: translate them one by one")
        first.setdefault(key, job.source)
        if os.path.realpath(job.target) in sources:
            problems.append(f"{job.target} would be written over a source: give another --out")
    if problems:
        raise UserError(*problems)
    return named


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _suffix(of_source: str, wanted: ImageFormat, keep_format: bool) -> str:
    if not keep_format:
        return wanted.suffix
    kind = of_source.lower()
    if kind in _TIFF or (kind == ".png" and wanted.suffix == ".png"):
        return of_source
    if kind in _COLOURS and wanted.bits == 8 and wanted.suffix == ".png":
        return of_source
    return wanted.suffix
