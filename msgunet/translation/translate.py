"""Translate images of any size and shape with a published generator: the Python side of `msgunet translate`."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from PIL import Image

from msgunet.core.errors import UserError
from msgunet.core.settings import ComputeSettings
from msgunet.core.user import ensure_user
from msgunet.data.images import resize
from msgunet.data.limits import limited_by_memory
from msgunet.data.pairs import to_pixels
from msgunet.device.pick import pick_device
from msgunet.methods.generator import LoadedGenerator, load_generator
from msgunet.methods.norms import whole_image_layers
from msgunet.translation.memory import Memory
from msgunet.translation.sources import as_source, read_source, to_pillow
from msgunet.translation.tiling import blend, starts

_GRID = 32

# An output has the type of its source.
_Image = TypeVar("_Image", Image.Image, np.ndarray)


class Model:
    """A published generator, ready to translate images.

    Attributes:
        settings: the settings of the run that trained it: method, size, formats of source and target, training.
        scales: the number of outputs. The output of scale 0 has the size of the source; each further scale halves it.
        whole_image_layers: the layers whose result depends on the whole image, so that tiles are translated wrongly.
        memory: what fits into the memory.

    """

    def __init__(self, generator: LoadedGenerator, memory: float | None = None) -> None:
        """Prepare a generator for sources of any size.

        Args:
            generator: the loaded generator.
            memory: the memory limit in bytes; on a CPU it applies to the whole process. By default most of the free
                memory is used.

        Raises:
            UserError: the generator's outputs have the same size for every source (`mean`).

        """
        self._generator = generator
        method, self.settings = generator.method, generator.settings
        self._stride = method.stride(method.options, self.settings.size)
        # Tiles start at multiples of this, so that the shallow layers, which draw the details, align across tiles.
        self._grid = min(self._stride, max(_GRID, 2 ** (generator.source_scales - 1)))
        self.memory = Memory(generator, self._stride, memory)
        if self.memory.sizes[0] != (self.memory.smallest, self.memory.smallest):
            raise UserError(f"{method.title} outputs the same image for every source; it cannot translate images")
        self.scales = len(self.memory.sizes)
        self.whole_image_layers = whole_image_layers(generator.network)

    @property
    def device(self) -> torch.device:
        """The device that it runs on."""
        return self._generator.device

    def __repr__(self) -> str:
        run = self.settings
        formats = f"source='{run.source_format}', target='{run.target_format}'"
        return (
            f"Model(method={run.method!r}, dataset={run.dataset!r}, size={run.size}, scales={self.scales}, {formats})"
        )

    @overload
    def translate(self, image: _Image, scale: int = 0, **options: Any) -> _Image: ...

    @overload
    def translate(self, image: Path | str, scale: int = 0, **options: Any) -> Image.Image | np.ndarray: ...

    def translate(
        self,
        image: Image.Image | np.ndarray | Path | str,
        scale: int = 0,
        *,
        name: str = "",
        tile: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Image.Image | np.ndarray:
        """Return the generator's output for a source image, in the size of the source halved `scale` times.

        Halved sizes are rounded up. An image that does not fit into memory is translated in overlapping tiles, which
        are blended.

        Args:
            image: the path of an image; a Pillow image; or an array (H, W, C) or (H, W), with the channels and values
                that the generator was trained on (`settings.source_format`). If that is 8-bit RGB or grey, any 8-bit
                Pillow image is accepted. The output has the same type, with the values of `settings.target_format`. For
                a path it is a Pillow image, or an array if Pillow does not support the format.
            scale: the scale of the output.
            name: the seed of dropout, for methods that keep dropout at test time; by default the name of a file
                without suffix. If it is the id of a test image, the output is the one that was evaluated.
            tile: the side of the tiles in pixels; by default it is chosen to fit into memory.
            progress: called after each tile with the number of finished tiles and the total.

        Raises:
            UserError: the scale does not exist, or the image is missing, damaged or has other channels or values.
            OutOfMemory: not even the smallest tile fits into memory.

        """
        self.check_scale(scale)
        target = self.settings.target_format
        in_pillow = target.channels == 1 or (target.channels == 3 and target.bits == 8)
        if isinstance(image, Path | str):
            path = Path(image)
            # Names of files need not be UTF-8.
            name = name or os.fsencode(path.stem).decode(errors="backslashreplace")
            output = self.translate(self.read_source(path), scale, name=name, tile=tile, progress=progress)
            return to_pillow(output) if in_pillow else output
        pixels = as_source(image, self.settings.source_format)
        if isinstance(image, Image.Image) and not in_pillow:
            raise UserError(f"targets are {target}, which Pillow does not support; pass an array to get an array")
        padded = self._pad(pixels)
        height, width = padded.shape[:2]
        memory = self.memory
        side = memory.tile_side(width, height, padded.nbytes) if tile is None else memory.round_side(tile)
        sides = [(length, min(side, length), self._grid) for length in (width, height)]
        total = len(starts(*sides[0])) * len(starts(*sides[1]))

        def run(left: int, top: int, tile_width: int, tile_height: int, number: int) -> torch.Tensor:
            sources = self._generator.sources(padded[top : top + tile_height, left : left + tile_width])
            output = self._generator(sources, f"{name}/{number}" if number else name)[scale][0]
            if progress is not None:
                progress(number + 1, total)
            return output

        if total == 1:
            out = to_pixels(run(0, 0, width, height, 0), target)
        else:
            with self._whole_image_statistics(padded, side, name):
                out = self._blended(run, (width, height), side, scale)
        shrink = 2**scale
        out = out[: -(-pixels.shape[0] // shrink), : -(-pixels.shape[1] // shrink)]
        return to_pillow(out) if isinstance(image, Image.Image) else out

    def _blended(self, run: Callable[..., torch.Tensor], size: tuple[int, int], side: int, scale: int) -> np.ndarray:
        """Return the output of a source of a width and height, blended from tiles, as pixels (H, W, C)."""
        shrink, target = 2**scale, self.settings.target_format
        low, high = target.range
        out = np.empty((size[1] // shrink, size[0] // shrink, target.channels), target.dtype)
        done = 0

        def values(*place: int) -> np.ndarray:
            return run(*place).permute(1, 2, 0).cpu().numpy()

        for band in blend(size, side, self._grid, shrink, target.channels, values):
            out[done : done + len(band)] = ((band + 1) * ((high - low) / 2)).round().clip(0, high - low) + low
            done += len(band)
        return out

    def check_scale(self, scale: int) -> None:
        """Refuse a scale that the outputs do not have.

        Raises:
            UserError: there is no such scale.

        """
        if not 0 <= scale < self.scales:
            raise UserError(f"scale {scale}: {self.settings.entry} has outputs at scales 0 to {self.scales - 1}")

    def read_source(self, path: Path) -> np.ndarray:
        """Read an image of any size that fits into memory, in the format that the generator takes.

        Raises:
            UserError: the image is missing, damaged, too large, or has another format.

        """
        with limited_by_memory(self.memory.for_sources()):
            return read_source(path, self.settings.source_format)

    def _whole_image_statistics(
        self, pixels: np.ndarray, side: int, name: str
    ) -> contextlib.AbstractContextManager[None]:
        """Normalise every tile by the statistics of the whole image, measured on a thumbnail of a tile's area."""
        factor = side / (pixels.shape[0] * pixels.shape[1]) ** 0.5
        fitting = self.memory.round_side
        sides = [fitting(int(factor * length)) for length in (pixels.shape[1], pixels.shape[0])]
        # Where one side is at its minimum, the other must be shorter.
        size = tuple(min(length, fitting(side**2 // other)) for length, other in zip(sides, sides[::-1], strict=True))
        thumbnail = resize(pixels, size, self.settings.source_kind)
        return self._generator.with_statistics_of(self._generator.sources(thumbnail), name)

    def _pad(self, pixels: np.ndarray) -> np.ndarray:
        """Extend an image by its mirror image, to the right and below, to a size that the network accepts."""
        sides = zip(pixels.shape, least_sides(self._stride, self.settings.size), strict=False)
        ends = [max(least, -(-side // self._stride) * self._stride) - side for side, least in sides]
        return np.pad(pixels, ((0, ends[0]), (0, ends[1]), (0, 0)), mode="symmetric") if any(ends) else pixels


def least_sides(stride: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width that a network needs at least; every network works at the size it was trained at."""
    return tuple(min(2 * stride, side) for side in size[::-1]) if stride > 1 else (1, 1)


def load(
    path: Path | str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    memory: float | None = None,
    threads: int | None = None,
    method: Path | str | None = None,
    cuda_graphs: Literal["auto", "off"] = "auto",
) -> Model:
    """Load a published `generator.safetensors` as a model.

    Args:
        path: the file. It holds everything that is needed except the code of a custom method.
        device: the device to run on; auto selects a free CUDA GPU if there is one.
        precision: tf32 is for GPUs; bf16 is for GPUs and for CPUs with bf16 instructions.
        memory: the memory limit in bytes; on a CPU it applies to the whole process. By default most of the free memory
            is used.
        threads: the number of CPU threads; by default PyTorch's current setting.
        method: the file of a custom method, if it is no longer at the path that the suite named.
        cuda_graphs: on a GPU, auto replays the pass of a size that repeats as a CUDA graph; off does not.

    Raises:
        UserError: a file is missing, damaged, or not a generator; the method's code differs from the code that it was
            trained with; the device does not exist.

    """
    ensure_user()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: torch finds no CUDA GPU; choose the device auto or cpu")
    compute = ComputeSettings(device=device, threads=threads or torch.get_num_threads())
    file = None if method is None else Path(method)
    chosen = pick_device(compute)
    # Images can have any size, and cuDNN would search for its fastest algorithms at each one.
    torch.backends.cudnn.benchmark = False
    return Model(load_generator(Path(path), chosen, precision, file, cuda_graphs), memory)
