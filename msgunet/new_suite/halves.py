"""Whether the halves of images can be told to be pairs. Does not import torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from msgunet.new_suite.look import decoded

# Images that are compared, and for each of them the other images whose halves it is compared with.
_SAMPLED, _OTHERS = 24, 8
# Cells of the grid that a half is reduced to, along each side; a cell is the mean of 4 x 4 smaller ones.
_GRID = 32
# The halves of a single image have much in common, such as sky above ground, but nothing at the same place.
_SHIFTS = ((0, 8), (0, 16), (0, 24), (8, 0), (16, 0), (24, 0))


def pairs_among(files: Sequence[Path]) -> tuple[int, int]:
    """Return how many of a sample of images hold a pair side by side, and the size of the sample.

    The halves of a pair explain each other better in place than shifted or mirrored, and better than halves of other
    images do. Each half is reduced to a coarse grid of its colours and edges, and `_likeness` compares two halves.

    Raises:
        UserError: an image is damaged.

    """
    sample = [files[i] for i in dict.fromkeys(np.linspace(0, len(files) - 1, _SAMPLED).round().astype(int))]
    grids = [_halves(file) for file in sample]
    found = 0
    for number, (left, right) in enumerate(grids):
        others = [grids[(number + k) % len(grids)][1] for k in range(1, min(_OTHERS + 1, len(grids)))]
        others += [right[:, ::-1], *(np.roll(right, shift, (0, 1)) for shift in _SHIFTS)]
        found += _likeness(left, right) > max(_likeness(left, other) for other in others)
    return found, len(sample)


def _halves(file: Path) -> tuple[np.ndarray, np.ndarray]:
    _, pixels = decoded(file)
    half = pixels.shape[1] // 2
    return _features(pixels[:, :half]), _features(pixels[:, -half:])


def _features(pixels: np.ndarray) -> np.ndarray:
    """Return the colours and edges of an image, (grid, grid, features), without the means of rows and columns."""
    planes = [_reduced(plane, 4 * _GRID) for plane in np.moveaxis(pixels[..., :3], -1, 0)]
    edges = np.sqrt(np.hypot(*np.gradient(np.mean(planes, axis=0))))
    features = np.stack([_reduced(plane, _GRID) for plane in (*planes, edges)], -1)
    return features - features.mean(0) - features.mean(1, keepdims=True) + features.mean((0, 1))


def _reduced(plane: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((side, side), Image.Resampling.BOX))


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the sum of the squared canonical correlations: how well linear functions of one explain the other."""
    return float(((_independent(one).T @ _independent(other)) ** 2).sum())


def _independent(features: np.ndarray) -> np.ndarray:
    """Return orthonormal combinations of features over the grid; constant and repeated features are left out."""
    vectors, values, _ = np.linalg.svd(features.reshape(-1, features.shape[2]), full_matrices=False)
    return vectors[:, values > max(1e-3, 1e-3 * values[0])]
