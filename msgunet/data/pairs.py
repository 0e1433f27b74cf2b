"""Prepared pairs as tensors: decoding, augmentation, pyramids, and the order of training batches."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from msgunet.core.errors import UserError
from msgunet.core.settings import RGB, ImageFormat, Resampling, TrainingSettings
from msgunet.data.base import Kind
from msgunet.data.images import read, resize
from msgunet.data.manifest import Pair, larger_folder, read_manifest, steps_per_epoch

_CACHE_BYTES = 1 << 30


class PairTensors(NamedTuple):
    """A source and a target as (C, H, W), or (N, C, H, W) in a batch: uint8, or int32 for 16 bits."""

    source: Tensor
    target: Tensor


def keyed_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends only on `parts`: randomness is keyed, never carried from step to step."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class PairDataset(Dataset):
    """The pairs of one split at a network's size.

    Items are indexed by number, or by (epoch, index) in training. There the augmentation is keyed by
    (seed, epoch, index), so that neither the number of workers nor an interruption changes the training data.

    Args:
        folder: prepared data set with its manifest.
        split: `train` or `test`.
        size: width and height that the pairs are resized to.
        kinds: of source and target; they determine how images are resized.
        formats: of source and target.
        resampling: filter that resizes photos.
        training: settings whose `flip` and `jitter` apply to items indexed by (epoch, index).
        seed: of the run.

    Raises:
        UserError: there is no manifest, or jitter needs larger training images that have not been prepared.

    """

    def __init__(
        self,
        folder: Path,
        split: str,
        size: tuple[int, int],
        kinds: tuple[Kind, Kind],
        formats: tuple[ImageFormat, ImageFormat] = (RGB, RGB),
        resampling: Resampling = "lanczos",
        training: TrainingSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.folder = folder
        self.pairs = read_manifest(folder / "manifest.csv", split)
        self.size = size
        self.kinds = kinds
        self.formats = formats
        self.resampling = resampling
        self.training = training
        self.seed = seed
        jitter = training.jitter if training is not None else 0
        self._jittered_size = (size[0] + jitter, size[1] + jitter)
        self._larger = self._find_larger() if jitter else (folder, self.pairs)
        values = sum(given.channels * given.bits // 8 for given in formats)
        fits = len(self.pairs) * values * math.prod(self._jittered_size) < _CACHE_BYTES
        self._cache: dict[tuple[int, tuple[int, int]], tuple[np.ndarray, np.ndarray]] | None = {} if fits else None

    def __len__(self) -> int:
        return len(self.pairs)

    def images(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return source and target at the network's size as (H, W, C), without augmentation."""
        return self._images(index, self.size, self.folder, self.pairs)

    def target(self, index: int) -> np.ndarray:
        """Return the target at the network's size as (H, W, C)."""
        return self._image(self.folder / self.pairs[index].target, self.size, 1)

    def _images(
        self, index: int, size: tuple[int, int], folder: Path, pairs: Sequence[Pair]
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._cache is not None and (index, size) in self._cache:
            return self._cache[index, size]
        pair = pairs[index]
        images = self._image(folder / pair.source, size, 0), self._image(folder / pair.target, size, 1)
        if self._cache is not None:
            self._cache[index, size] = images
        return images

    def _image(self, path: Path, size: tuple[int, int], side: int) -> np.ndarray:
        """Read a source (`side` 0) or a target (1), at a size."""
        return resize(read(path, str(path), self.formats[side]), size, self.kinds[side], self.resampling)

    def _find_larger(self) -> tuple[Path, Sequence[Pair]]:
        """Return the folder and pairs that jitter crops: enlarging the prepared images would soften them."""
        pair, (width, height) = self.pairs[0], self._jittered_size
        larger = larger_folder(self.folder, self._jittered_size)
        if width <= pair.width and height <= pair.height:
            return self.folder, self.pairs
        if (larger / "manifest.csv").is_file():
            pairs = read_manifest(larger / "manifest.csv", "train")
            if [pair.id for pair in pairs] == [pair.id for pair in self.pairs]:
                return larger, pairs
        elif all((pair.source_width, pair.source_height) == (pair.width, pair.height) for pair in self.pairs):
            return self.folder, self.pairs  # the originals have no more pixels
        raise UserError(
            f"jitter needs the {len(self.pairs)} training images of {self.folder} at {width}x{height}, which are not "
            f'in {larger}; copy {self.folder / "dataset.json"} into it, add "train_size": [{width}, {height}], then: '
            f"msgunet prepare --settings {larger / 'dataset.json'} --out {larger}"
        )

    def __getitem__(self, key: int | tuple[int, int]) -> PairTensors:
        if isinstance(key, int):
            return PairTensors(*map(to_tensor, self.images(key)))
        epoch, index = key
        images = self._images(index, self._jittered_size, *self._larger)
        if self.training is not None:
            images = self._augment(images, keyed_seed(self.seed, epoch, index))
        return PairTensors(*map(to_tensor, images))

    def _augment(self, images: tuple[np.ndarray, ...], seed: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(seed)
        width, height = self.size
        if jitter := self.training.jitter:
            x, y = (int(v) for v in rng.integers(0, jitter + 1, 2))
            images = tuple(image[y : y + height, x : x + width] for image in images)
        if self.training.flip and rng.random() < 0.5:
            images = tuple(image[:, ::-1] for image in images)
        return images


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Return an image (H, W, C) as (C, H, W): uint8, or int32 for 16 bits, because torch hardly supports uint16."""
    values = pixels.astype(np.uint8 if pixels.dtype == np.uint8 else np.int32, order="C")
    return torch.from_numpy(values).permute(2, 0, 1)


def bytes_on(device: torch.device, pixels: np.ndarray) -> Tensor:
    """Copy an image (H, W, C) of 8 or 16 bits to a device; return it there as `to_tensor` does, (1, C, H, W)."""
    if pixels.dtype == np.uint8:
        return to_tensor(pixels)[None].to(device)
    # torch hardly supports uint16, but it can copy the bytes.
    halves = torch.from_numpy(pixels.astype(np.uint16, order="C").view(np.int16)).to(device)
    return (halves.int() & 0xFFFF).permute(2, 0, 1)[None]


def to_pixels(tensor: Tensor, target: ImageFormat = RGB) -> np.ndarray:
    """Return a tensor (C, H, W) in [-1, 1] as an image (H, W, C) in the target format, rounded on its device."""
    low, high = target.range
    values = ((tensor.detach().float() + 1) * ((high - low) / 2)).round().clamp(0, high - low) + low
    # In 16 bits, the numbers above 32767 become negative; as uint16 they are themselves again.
    whole = values.to(torch.uint8) if target.bits == 8 else values.int().short()
    return whole.permute(1, 2, 0).contiguous().cpu().numpy().view(target.dtype)


def normalise(images: Tensor, values: tuple[int, int] = RGB.range) -> Tensor:
    """Scale images from the range `values` to float in [-1, 1]. Values outside the range are clipped."""
    low, high = values
    scaled = (images.float() - low if low else images.float()) / ((high - low) / 2) - 1
    return scaled if values == RGB.range else scaled.clamp(-1, 1)


def halve(images: Tensor, kind: Kind) -> Tensor:
    """Halve the resolution: photos by the mean of 2x2 pixels, labels by one of the four pixels."""
    return images[..., ::2, ::2] if kind == "labels" else F.avg_pool2d(images, 2)


def double(images: Tensor, kind: Kind) -> Tensor:
    """Double the resolution: photos bilinearly, labels with nearest neighbour."""
    if kind == "labels":
        return F.interpolate(images, scale_factor=2, mode="nearest")
    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


def pyramid(images: Tensor, scales: int, kind: Kind) -> list[Tensor]:
    """Return `images` at `scales` resolutions: full resolution first, then halved each time."""
    levels = [images]
    for _ in range(scales - 1):
        levels.append(halve(levels[-1], kind))
    return levels


def blank_pyramid(
    scales: int, size: tuple[int, int], batch: int = 1, device: torch.device | str | None = None, channels: int = 3
) -> list[Tensor]:
    """Return zeros at `scales` resolutions, full first, in channels-last memory, for measuring networks."""
    width, height = size
    shapes = [(batch, channels, height >> k, width >> k) for k in range(scales)]
    return [torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last) for shape in shapes]


def training_order(count: int, batch: int, seed: int, epochs: int, first_step: int) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of (epoch, index), starting at `first_step`.

    The permutation of each epoch is keyed by (seed, epoch). The incomplete last batch of an epoch is dropped, because
    batch norm would treat it differently.
    """
    steps = steps_per_epoch(count, batch)
    for epoch in range(first_step // steps, epochs):
        order: Sequence[int] = np.random.default_rng(keyed_seed(seed, epoch)).permutation(count).tolist()
        for step in range(first_step % steps if epoch == first_step // steps else 0, steps):
            yield [(epoch, index) for index in order[step * batch : (step + 1) * batch]]
