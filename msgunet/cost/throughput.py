"""Image files to translate, for `msgunet bench`: the whole way from file to file, and the network's share of it."""

import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from msgunet.core.pipeline import in_order, usable_cores
from msgunet.core.settings import ImageFormat, RunSettings
from msgunet.cost.variants import Variant
from msgunet.data.images import resample, save
from msgunet.device.measuring import timed
from msgunet.methods.generator import LoadedGenerator
from msgunet.methods.inference import prepare
from msgunet.methods.registry import build_method
from msgunet.translation.sources import read_source

# Images of a pass; in the pipeline of a GPU for each thread, so that filling and emptying it takes little of the time.
_IMAGES = 4


class FileTranslation:
    """A callable that translates image files of the run's size to files; the network is always the engine's.

    The way `plain` reads, translates and writes one image after the other. `engine` does it in a pipeline, with a
    thread for each core that this process may use.

    Attributes:
        images: the number of images.

    """

    def __init__(self, settings: RunSettings, variant: Variant, device: torch.device) -> None:
        torch.manual_seed(0)
        method = build_method(settings)
        network = prepare(method, method.build_generator(), device, variant.precision)
        self._generator = LoadedGenerator(settings, method, network, device, variant.precision)
        self._variant, self._jobs = variant, usable_cores()
        self._folder = tempfile.TemporaryDirectory()
        self.images = _IMAGES * (self._jobs if variant.way == "engine" and device.type == "cuda" else 1)
        for i in range(self.images):
            save(self._path(i), _made(i, settings.size, settings.source_format))

    def __call__(self) -> None:
        stages = self._read, self._translate, self._write
        if self._variant.way == "plain":
            read, work, write = stages
            for i in range(self.images):
                write(i, work(i, read(i)))
            return
        with closing(in_order(range(self.images), *stages, self._jobs)) as results:
            for _, result in results:
                result.result()

    def network_seconds(self, repeats: int) -> float:
        """Return the median time of the network for one image, from values on its device to values there."""
        generator = self._generator
        sources = generator.sources(self._read(0))
        return float(np.median([timed(lambda: generator(sources, ""), generator.device) for _ in range(repeats)]))

    def _read(self, i: int) -> np.ndarray:
        return read_source(self._path(i), self._generator.settings.source_format)

    def _translate(self, i: int, pixels: np.ndarray) -> np.ndarray:
        return self._generator.translated(pixels, i)

    def _write(self, i: int, pixels: np.ndarray) -> None:
        save(self._path(i, "output"), pixels)

    def _path(self, i: int, name: str = "source") -> Path:
        given = self._generator.settings.formats[name == "output"]
        return Path(self._folder.name) / f"{name}{i}{given.suffix}"


def _made(seed: int, size: tuple[int, int], given: ImageFormat) -> np.ndarray:
    """Return an image that is compressed like a photograph: smooth, with some noise."""
    random, (low, high) = np.random.default_rng(seed), given.range
    smooth = random.integers(low, high, (size[1] // 8 + 1, size[0] // 8 + 1, given.channels), endpoint=True)
    enlarged = resample(smooth.astype(given.dtype), size, 2).astype(np.float32)
    noise = random.normal(0, (high - low) / 100, enlarged.shape)
    return (enlarged + noise).round().clip(low, high).astype(given.dtype)
