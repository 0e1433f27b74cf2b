"""Images of any size and shape through a published generator: the Python side of `msgunet translate`."""

import contextlib
from collections.abc import Callable
from math import isqrt
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image

from msgunet.core.errors import OutOfMemory, UserError
from msgunet.core.settings import ComputeSettings
from msgunet.data.base import as_rgb
from msgunet.data.images import as_pixels, resize
from msgunet.data.pairs import blank_pyramid, normalise, pyramid, to_tensor
from msgunet.device.measuring import memory_mib
from msgunet.device.pick import pick_device
from msgunet.methods.generator import LoadedGenerator, load_generator, prepare
from msgunet.training.memory import Meter, free_memory
from msgunet.translation.tiling import blend, starts

# Of what is free, so that others keep some.
_SHARE = 0.8
# What libraries take beside the tensors that are counted (as tests/training/test_memory.py allows for).
_MORE, _BESIDE = 1.3, 100 * 2**20
# Pixels: smaller tiles would see too little around them.
_SMALLEST_TILE = 256
_GRID = 32
# 64 channels of more pixels have too many numbers for libraries that count in 32 bits.
_MOST_PIXELS = 2**24

# A result is of the type of what it was made from.
_Image = TypeVar("_Image", Image.Image, np.ndarray)


class Model:
    """A published generator, ready to translate images.

    Attributes:
        settings: of the run that trained it: method, size, formats of source and target, training.
        scales: how many outputs there are; that of scale 0 is as large as the source, each next one half.

    """

    def __init__(self, generator: LoadedGenerator, memory: float | None = None) -> None:
        """`memory`: bytes that may be taken, on a CPU by the whole process; by default most of what is free.

        Raises:
            UserError: the generator gives images of one size whatever the source's is (`mean`).

        """
        self._generator = generator
        self._memory = memory
        method, self.settings = generator.method, generator.settings
        self._stride = method.stride(method.options, self.settings.size)
        self._inputs = method.scales(method.options, self.settings.size)
        # Where tiles may begin: shallow layers, which draw the details, then work in step.
        self._grid = min(self._stride, max(_GRID, 2 ** (self._inputs - 1)))
        self._needs: dict[tuple[int, int], int] = {}
        # Norms and reflections need two pixels at the bottom.
        self._smallest = -(-max(2 * self._stride, _SMALLEST_TILE) // self._stride) * self._stride
        shapes = self._count(self._smallest, self._smallest)
        if shapes[0] != (self._smallest, self._smallest):
            raise UserError(f"{method.title} gives the same image whatever the source is: nothing to translate")
        self.scales = len(shapes)

    def translate(
        self,
        image: _Image,
        scale: int = 0,
        *,
        name: str = "",
        tile: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> _Image:
        """The target that the generator makes of a source, as large as it, halved `scale` times (rounded up).

        What does not fit into memory is translated in overlapping tiles, which are blended.

        Args:
            image: an image, or an array (H, W, C) or (H, W), with the channels and values that the generator was
                trained on (`settings.source_format`); for 8-bit RGB and grey any of Pillow's that has 8 bits. The
                result is of the same type, with the values of `settings.target_format`.
            scale: of the output.
            name: seeds dropout, where the method has it when it is used; results for test images are those that were
                measured if it is their id.
            tile: side of the tiles in pixels, instead of one chosen by memory.
            progress: is told after each tile how many are done, and of how many.

        Raises:
            UserError: there is no such scale, or the image has other channels or values.
            OutOfMemory: not even the smallest tile fits.

        """
        if not 0 <= scale < self.scales:
            raise UserError(f"scale {scale}: {self.settings.entry} has outputs at scales 0 to {self.scales - 1}")
        wanted = self.settings.target_format
        pixels = self._pixels(image)
        if isinstance(image, Image.Image) and not (wanted.channels == 1 or (wanted.channels == 3 and wanted.bits == 8)):
            raise UserError(f"targets are {wanted}, for which Pillow has no images: give an array, and get one")
        padded = self._pad(pixels)
        height, width = padded.shape[:2]
        side = self._tile(width, height, padded.nbytes) if tile is None else self._rounded(tile)
        sides = [(length, min(side, length), self._grid) for length in (width, height)]
        total = len(starts(*sides[0])) * len(starts(*sides[1]))

        def run(left: int, top: int, wide: int, tall: int, number: int) -> np.ndarray:
            sources = self._sources(padded[top : top + tall, left : left + wide])
            found = self._generator(sources, f"{name}/{number}" if number else name)[scale][0]
            if progress is not None:
                progress(number + 1, total)
            return found.permute(1, 2, 0).cpu().numpy()

        shrink, low, high = 2**scale, *wanted.range
        out = np.empty((height // shrink, width // shrink, wanted.channels), wanted.dtype)
        done = 0
        whole = contextlib.nullcontext() if total == 1 else self._whole(padded, side, name)
        with whole:
            for band in blend((width, height), side, self._grid, shrink, wanted.channels, run):
                out[done : done + len(band)] = ((band + 1) * ((high - low) / 2)).round().clip(0, high - low) + low
                done += len(band)
        out = out[: -(-pixels.shape[0] // shrink), : -(-pixels.shape[1] // shrink)]
        if isinstance(image, Image.Image):
            return Image.fromarray(np.ascontiguousarray(out[..., 0] if wanted.channels == 1 else out))
        return out

    def _sources(self, pixels: np.ndarray) -> list[torch.Tensor]:
        source = normalise(to_tensor(pixels)[None], self.settings.source_format.range)
        return pyramid(source, self._inputs, self.settings.source_kind)

    def _whole(self, pixels: np.ndarray, side: int, name: str) -> contextlib.AbstractContextManager[None]:
        """What tiles run under, so that the whole image, as a thumbnail of a tile's area, normalises each."""
        factor = side / (pixels.shape[0] * pixels.shape[1]) ** 0.5
        sides = [self._rounded(int(factor * length)) for length in (pixels.shape[1], pixels.shape[0])]
        # Where one side is at its least, the other must be shorter.
        size = tuple(
            min(length, self._rounded(side**2 // other)) for length, other in zip(sides, sides[::-1], strict=True)
        )
        thumbnail = resize(pixels, size, self.settings.source_kind)
        return self._generator.normalised_by(self._sources(thumbnail), name)

    def _pixels(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """A source as an array of the format that the generator was trained on."""
        given = self.settings.source_format
        if isinstance(image, Image.Image) and given.bits == 8 and given.channels in (1, 3):
            upright = as_rgb(image)
            if upright is None:
                raise UserError(f"an image of mode {image.mode}: {self.settings.entry} was trained on {given}")
            return as_pixels(upright.convert("L") if given.channels == 1 else upright)
        pixels = as_pixels(image)
        if 0 in pixels.shape:
            raise UserError(f"an array {pixels.shape} is no image")
        if pixels.ndim != 3 or pixels.shape[2] != given.channels or pixels.dtype != given.dtype:
            raise UserError(
                f"an array {pixels.shape} of {pixels.dtype}: {self.settings.entry} was trained on {given}, which is "
                f"(height, width, {given.channels}) of {given.dtype}"
            )
        return pixels

    def _pad(self, pixels: np.ndarray) -> np.ndarray:
        """Continue an image by its mirror image to the right and below, to a size that the network takes."""
        # At the size of the training every network works.
        least = [min(2 * self._stride, side) for side in self.settings.size[::-1]] if self._stride > 1 else (1, 1)
        given = zip(pixels.shape, least, strict=False)
        ends = [max(small, -(-side // self._stride) * self._stride) - side for side, small in given]
        return np.pad(pixels, ((0, ends[0]), (0, ends[1]), (0, 0)), mode="symmetric") if any(ends) else pixels

    def _rounded(self, side: int) -> int:
        """A side of tiles that the network takes."""
        return max(2, side // self._stride) * self._stride

    def _tile(self, width: int, height: int, nbytes: int) -> int:
        """The largest side of tiles that fit; the image's longer side, if it fits whole. `nbytes`: of it."""
        room, beside = self._room(), 0
        if self._generator.device.type == "cpu":
            # The padded image and the output; sums, weights and what becomes of them for each row of a band.
            room -= 2 * nbytes
            beside = 3 * 4 * (self.settings.channels[1] + 1) * width
        if width * height <= _MOST_PIXELS and self._bytes(width, height) + beside * height <= room:
            return max(width, height)
        smallest = self._bytes(self._smallest, self._smallest) + beside * self._smallest
        if smallest > room:
            raise OutOfMemory(
                f"{self.settings.entry} needs {smallest / 2**20:,.0f} MiB for a tile of {self._smallest}x"
                f"{self._smallest} of this image, and there are {max(0, room) / 2**20:,.0f} MiB for it"
            )
        # What a tile needs grows with its pixels at most.
        of_pixel = self._bytes(self._smallest, self._smallest) / self._smallest**2
        sides = range(self._rounded(isqrt(_MOST_PIXELS)), self._smallest, -self._stride)
        return next((side for side in sides if of_pixel * side**2 + beside * side <= room), self._smallest)

    def _room(self) -> float:
        """Bytes that may still be taken."""
        device = self._generator.device
        free = free_memory(device)
        there = float("inf") if free is None else _SHARE * free
        if self._memory is None:
            return there
        taken = torch.cuda.memory_allocated(device) if device.type == "cuda" else 2**20 * memory_mib("VmRSS")
        return min(there, self._memory - taken)

    def _bytes(self, width: int, height: int) -> float:
        """What a tile takes beside the weights."""
        if (width, height) not in self._needs:
            self._count(width, height)
        return _MORE * self._needs[width, height] + _BESIDE

    def _count(self, width: int, height: int) -> list[tuple[int, int]]:
        """Count what a tile takes, on shapes alone; width and height of each output."""
        generator, meta = self._generator, torch.device("meta")
        with meta:
            network = prepare(generator.method, generator.method.build_generator(), meta, generator.precision)
            shadow = LoadedGenerator(self.settings, generator.method, network, meta, generator.precision)
            with Meter() as meter:
                outputs = shadow(blank_pyramid(self._inputs, (width, height), channels=self.settings.channels[0]), "")
        self._needs[width, height] = meter.peak
        return [(output.shape[-1], output.shape[-2]) for output in outputs]


def load(
    path: Path | str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    memory: float | None = None,
    threads: int | None = None,
    method: Path | str | None = None,
) -> Model:
    """A published `generator.safetensors` as a model.

    Args:
        path: of the file, which holds all that is needed, but for the code of a user's own method.
        device: auto takes a free CUDA GPU where there is one.
        precision: tf32 is for GPUs, bf16 for GPUs, and CPUs with instructions for it.
        memory: bytes that may be taken, on a CPU by the whole process; by default most of what is free.
        threads: of the CPU; by default as torch is set.
        method: the file of a user's own method, where it is not at the path that the suite named.

    Raises:
        UserError: a file is missing, damaged, or not a generator; the method's code is another than it was trained
            with; there is no such device.

    """
    compute = ComputeSettings(device=device, threads=threads or torch.get_num_threads())
    file = None if method is None else Path(method)
    return Model(load_generator(Path(path), pick_device(compute), precision, file), memory)
