"""The memory of translating: what fits on the device in one piece, and what may be in flight besides it."""

from math import isqrt

import torch

from msgunet.core.errors import OutOfMemory
from msgunet.data.limits import check_limit
from msgunet.data.pairs import blank_pyramid
from msgunet.device.measuring import memory_mib
from msgunet.device.meter import Meter
from msgunet.methods.generator import LoadedGenerator
from msgunet.training.memory import free_memory

# Only this share of the free memory is used, so that other processes keep some.
_SHARE = 0.8
# The memory of libraries in addition to the counted tensors: a factor, and a constant in bytes. The tests in
# tests/training/test_memory.py allow the same.
_OVERHEAD_FACTOR, _OVERHEAD_BYTES = 1.3, 100 * 2**20
# In pixels. Smaller tiles would have too little context.
_SMALLEST_TILE = 256
# With 64 channels, more pixels than this have too many elements for libraries that count in 32 bits.
_MAX_PIXELS = 2**24

# The images in flight, which are read and written beside the one in the network, take at most this share of the
# memory that is available at the start.
IN_FLIGHT_SHARE = 1 / 8
# The bytes of an image in flight, for each value of its file and its output. Decoders and encoders hold copies.
_BYTES_IN_FLIGHT = 4


class Memory:
    """The memory that a generator needs for images of any size, and the memory that there is.

    Attributes:
        smallest: the side of the smallest tile, in pixels.
        sizes: width and height of each output for a source of the smallest tile.

    """

    def __init__(self, generator: LoadedGenerator, stride: int, limit: float | None) -> None:
        """Initialise.

        Args:
            generator: the generator.
            stride: sides of tiles are multiples of it.
            limit: the memory limit in bytes; on a CPU it applies to the whole process. By default most of the free
                memory is used.

        """
        self._generator, self._stride, self._limit = generator, stride, limit
        self._peaks: dict[tuple[int, int], int] = {}
        # Norms and reflection padding need two pixels at the lowest level.
        self.smallest = -(-max(2 * stride, _SMALLEST_TILE) // stride) * stride
        self.sizes = self._count(self.smallest, self.smallest)

    def round_side(self, side: int) -> int:
        """Round the side of a tile down to one that the network accepts, at least two strides."""
        return max(2, side // self._stride) * self._stride

    def tile_side(self, width: int, height: int, nbytes: int) -> int:
        """Return the largest tile side that fits into memory: the longer side if the whole image (`nbytes`) fits."""
        available, row_bytes = self.available(), 0
        if self._on_cpu:
            # The padded image and the output; then the sums, the weights and their quotient for each row of a band.
            available -= 2 * nbytes
            row_bytes = self._row_bytes(width)
        if width * height <= _MAX_PIXELS and self._bytes(width, height) + row_bytes * height <= available:
            return max(width, height)
        smallest = self._bytes(self.smallest, self.smallest) + row_bytes * self.smallest
        if smallest > available:
            self._check_limit()
            raise OutOfMemory(
                f"a tile of {self.smallest}x{self.smallest} of this image needs {smallest / 2**20:,.0f} MiB, but only "
                f"{max(0, available) / 2**20:,.0f} MiB are available; free some, or allow more (--memory)"
            )
        # The memory of a tile grows at most in proportion to its pixels.
        pixel_bytes = self._bytes(self.smallest, self.smallest) / self.smallest**2
        sides = range(self.round_side(isqrt(_MAX_PIXELS)), self.smallest, -self._stride)
        return next((side for side in sides if pixel_bytes * side**2 + row_bytes * side <= available), self.smallest)

    def available(self) -> float:
        """Return how many bytes can still be allocated on the device."""
        device = self._generator.device
        free = free_memory(device)
        available = float("inf") if free is None else _SHARE * free
        return available if self._limit is None else min(available, self._limit - self._used())

    def for_sources(self) -> float:
        """Return how many bytes of the machine's memory can still be allocated to read a source."""
        if self._on_cpu:
            self._check_limit()
            return self.available()
        free = free_memory(torch.device("cpu"))
        return float("inf") if free is None else _SHARE * free

    def in_flight(self) -> float:
        """Return how many bytes all images in flight may take together."""
        return max(0.0, IN_FLIGHT_SHARE * self.for_sources())

    def weight(self, size: tuple[int, int] | None, tiled: bool) -> float:
        """Return the bytes of an image in flight; infinity if nothing else may be in flight.

        On a CPU that holds for an image that may not fit into the memory in one piece beside the others, unless the
        user has chosen the size of its tiles.

        Args:
            size: its width and height, or None if they are unknown.
            tiled: the user has chosen the size of the tiles.

        """
        if size is None:
            return float("inf")
        pixels = size[0] * size[1]
        formats = self._generator.settings.formats
        weight = pixels * _BYTES_IN_FLIGHT * sum(given.channels * given.bits // 8 for given in formats)
        # On a GPU, what is in flight takes no memory from the network.
        if tiled or not self._on_cpu:
            return weight
        # An upper bound, without counting each size: memory grows at most in proportion to the pixels.
        padded = (size[0] + 2 * self._stride) * (size[1] + 2 * self._stride)
        needed = self._bytes(self.smallest, self.smallest) * max(1, padded / self.smallest**2)
        needed += 2 * weight + self._row_bytes(size[0] + 2 * self._stride) * (size[1] + 2 * self._stride)
        available = (1 - IN_FLIGHT_SHARE) * self.available()
        return weight if padded <= _MAX_PIXELS and needed <= available else float("inf")

    def _used(self) -> float:
        device = self._generator.device
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else 2**20 * memory_mib("VmRSS")

    def _check_limit(self) -> None:
        """Refuse a limit that leaves nothing for any image."""
        if self._limit is not None:
            check_limit(self._limit, self._used(), self._bytes(self.smallest, self.smallest))

    @property
    def _on_cpu(self) -> bool:
        return self._generator.device.type == "cpu"

    def _row_bytes(self, width: int) -> int:
        return 3 * 4 * (self._generator.settings.channels[1] + 1) * width

    def _bytes(self, width: int, height: int) -> float:
        """Return the memory of a tile in bytes, without the weights."""
        if (width, height) not in self._peaks:
            self._count(width, height)
        return _OVERHEAD_FACTOR * self._peaks[width, height] + _OVERHEAD_BYTES

    def _count(self, width: int, height: int) -> list[tuple[int, int]]:
        """Count the memory of a tile from shapes alone, and return the width and height of each output."""
        generator = self._generator
        shadow, channels = generator.on_shapes(), generator.settings.channels[0]
        with torch.device("meta"), Meter() as meter:
            outputs = shadow(blank_pyramid(generator.source_scales, (width, height), channels=channels), "")
        self._peaks[width, height] = meter.peak
        return [(output.shape[-1], output.shape[-2]) for output in outputs]
