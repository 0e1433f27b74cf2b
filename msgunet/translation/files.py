"""`msgunet translate`: translate image files and folders with a published generator."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from msgunet.core.bugs import MethodBug, bug_in
from msgunet.core.errors import UserError
from msgunet.core.files import atomic
from msgunet.core.pipeline import in_order, usable_cores
from msgunet.core.settings import ImageFormat
from msgunet.core.text import first_line, printable
from msgunet.data.decode import claimed_size
from msgunet.data.decoder_notes import collected_notes
from msgunet.data.find import JPEG, SUFFIXES, TIFF, find, unread
from msgunet.data.images import save
from msgunet.translation.translate import Model

# Suffixes that can be kept in addition to PNG and TIFF. Their formats only hold 8-bit colours.
_EIGHT_BIT = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp")


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path


@collected_notes()
def translate_files(
    model: Model,
    paths: Sequence[Path],
    out: Path,
    scale: int = 0,
    tile: int | None = None,
    keep_format: bool = False,
    resume: bool = False,
    jobs: int | None = None,
) -> int:
    """Translate images, and all images in folders and their subfolders, to files of the same names in `out`.

    Subfolders are kept.

    Args:
        model: the model that translates.
        paths: image files and folders.
        out: the folder to write to.
        scale: the scale of the outputs.
        tile: the side of the tiles in pixels; by default it is chosen to fit into memory.
        keep_format: write the file format of the source instead of PNG (or TIFF, if PNG does not support the channels).
        resume: skip images whose output already exists in `out`.
        jobs: number of threads that read and write images beside the network; by default one for each core that this
            process may use.

    Returns:
        The number of translated images.

    Raises:
        UserError: the scale does not exist, files are missing, files would be overwritten, or some images could not be
            translated. In the last case all other images were translated.

    """
    model.check_scale(scale)
    pending = _jobs(paths, out, model.settings.target_format, keep_format)
    for note in unread(path for path in paths if path.is_dir()):
        print(printable(note), file=sys.stderr)
    todo = [job for job in pending if not (resume and job.target.is_file())]
    problems: list[str] = []
    done, tiles = 0, _Tiles(model)

    def translated(job: _Job, pixels: np.ndarray) -> np.ndarray:
        # Names of files need not be UTF-8.
        name = os.fsencode(job.source.stem).decode(errors="backslashreplace")
        return model.translate(pixels, scale, name=name, tile=tile, progress=functools.partial(tiles.show, bar))

    def weight(job: _Job) -> float:
        return model.memory.weight(claimed_size(job.source), tile is not None)

    results = in_order(
        todo,
        lambda job: model.read_source(job.source),
        translated,
        _write,
        jobs or usable_cores(),
        weight,
        model.memory.in_flight(),
    )
    seconds = 0.5 if sys.stderr.isatty() else 30
    with (
        _searched(model, todo),
        closing(results),
        tqdm(total=len(todo), desc="translate", unit="image", mininterval=seconds) as bar,
    ):
        for job, result in results:
            problem = _problem(job, result.exception())
            del result
            done += not problem
            problems += problem
            bar.update()
    tiles.report(len(todo))
    if problems:
        raise UserError(*problems, f"{done} of {len(todo)} images were translated; the others are listed above")
    return len(todo)


def _problem(job: _Job, error: BaseException | None) -> list[str]:
    """Return in words why an image could not be translated, or nothing if it was.

    Raises:
        BaseException: the error concerns other images, too. A full disk, for example, would stop every one of them, and
            so would an error in the method's code.

    """
    if error is None:
        return []
    if isinstance(error, UserError) and not isinstance(error, MethodBug):
        return [p if p.startswith(str(job.source)) else f"{job.source}: {p}" for p in error.problems]
    # Too little device memory, or an image that the file format cannot hold.
    if isinstance(error, RuntimeError | MemoryError | ValueError) and bug_in(error) is None:
        return [f"{job.source}: {first_line(error)}"]
    raise error


@contextlib.contextmanager
def _searched(model: Model, jobs: Sequence[_Job]) -> Iterator[None]:
    """In this context, cuDNN searches for its fastest algorithms if all images have one size: a search takes long."""
    sizes: set[object] = set()
    if model.device.type == "cuda":
        for job in jobs:
            sizes.add(claimed_size(job.source))
            if len(sizes) > 1:
                break
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = len(sizes) == 1
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class _Tiles:
    """What the user learns about images that are cut into tiles."""

    def __init__(self, model: Model) -> None:
        self._layers = model.whole_image_layers
        self._counts: list[int] = []

    def show(self, bar: tqdm, done: int, total: int) -> None:
        """Show the progress after a tile; before the first one of all, warn of layers that need the whole image."""
        if total == 1:
            return
        if done == 1:
            self._counts.append(total)
            if self._layers and len(self._counts) == 1:
                text = (
                    "warning: images are cut into tiles, but layers of this generator need the whole image, so that "
                    f"colours and contrast differ from tile to tile: {', '.join(self._layers)}"
                )
                bar.write(printable(text), file=sys.stderr)
        bar.set_postfix_str(f"tile {done} of {total}", refresh=False)
        bar.update(0)

    def report(self, images: int) -> None:
        """Say how many of the images were cut."""
        if self._counts:
            low, high = min(self._counts), max(self._counts)
            cut = f"{len(self._counts)} of {images} images {'was' if len(self._counts) == 1 else 'were'} cut into"
            tiles = f"{low}" if low == high else f"{low} to {high}"
            print(f"{cut} {tiles} tiles; seams can be visible (docs/own-data.md)", file=sys.stderr)


def _write(job: _Job, pixels: np.ndarray) -> None:
    suffix = job.target.suffix.lower()
    with atomic(job.target) as temporary:
        if suffix in _EIGHT_BIT:
            flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
            quality = {"quality": 95} if suffix in (*JPEG, ".webp") else {}
            Image.fromarray(np.ascontiguousarray(flat)).save(temporary, **quality)
        else:
            save(temporary, pixels, tiff=suffix in TIFF)


def _jobs(paths: Sequence[Path], out: Path, target: ImageFormat, keep_format: bool) -> list[_Job]:
    """Choose the output file of each source; no output may overwrite another output or a source."""
    problems, jobs = [], []
    for path in paths:
        if path.is_dir():
            # Outputs of an earlier call are not sources.
            files = [file for file in find(path).images if not _is_below(file, out) or _is_below(path, out)]
            if not files:
                problems.append(f"{path}: no images in or below this folder ({', '.join(sorted(SUFFIXES))})")
                problems += unread([path])
            jobs += [(file, file.relative_to(path)) for file in files]
        elif path.is_file():
            jobs.append((path, Path(path.name)))
        else:
            problems.append(f"{path}: no such file or folder")
    named = [_Job(file, out / name.with_suffix(_suffix(name.suffix, target, keep_format))) for file, name in jobs]
    first: dict[str, Path] = {}
    sources = {os.path.realpath(job.source) for job in named}
    for job in named:
        # Some file systems do not distinguish A from a.
        key = str(job.target).casefold()
        if key in first:
            problems.append(f"{job.source} and {first[key]} would both become {job.target}; translate them separately")
        first.setdefault(key, job.source)
        if os.path.realpath(job.target) in sources:
            problems.append(f"{job.target} would overwrite a source image; choose another --out")
    if problems:
        raise UserError(*problems)
    return named


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _suffix(source_suffix: str, target: ImageFormat, keep_format: bool) -> str:
    if not keep_format:
        return target.suffix
    kind = source_suffix.lower()
    if kind in TIFF or (kind == ".png" and target.suffix == ".png"):
        return source_suffix
    if kind in _EIGHT_BIT and target.bits == 8 and target.suffix == ".png":
        return source_suffix
    return target.suffix
