"""Overlapping tiles: their positions, their weights, and how their outputs are blended."""

from collections.abc import Callable, Iterator

import numpy as np

# The overlap of neighbouring tiles, as a fraction of their side.
OVERLAP = 0.25


def starts(length: int, tile: int, grid: int) -> list[int]:
    """Return where tiles start along one side of an image, as multiples of `grid`.

    Each tile overlaps the next by a quarter (rounded to the grid) or more. `length` and `tile` are multiples of
    `grid`, and `tile` is at most `length`.
    """
    overlap = max(grid, round(OVERLAP * tile / grid) * grid)
    step = max(grid, tile - overlap)
    return [*range(0, length - tile, step), length - tile]


def ramp(length: int, before: bool, after: bool) -> np.ndarray:
    """Return weights along a tile's side, (length,). They fall smoothly to zero over the overlap with a neighbour.

    Args:
        length: the side of the tile.
        before: the tile has a neighbour before it.
        after: the tile has a neighbour after it.

    """
    position = np.arange(length, dtype=np.float32) + 0.5
    weights = np.ones(length, np.float32)
    for has_neighbour, distance in ((before, position), (after, length - position)):
        if has_neighbour:
            fraction = np.minimum(1, distance / (OVERLAP * length))
            weights = weights * fraction**2 * (3 - 2 * fraction)
    return weights


def blend(
    size: tuple[int, int],
    tile: int,
    grid: int,
    shrink: int,
    channels: int,
    run: Callable[[int, int, int, int, int], np.ndarray],
) -> Iterator[np.ndarray]:
    """Yield the blended output from top to bottom, in bands (h, width / shrink, channels).

    Only one row of tiles is in memory at a time.

    Args:
        size: width and height of the source, multiples of `grid`.
        tile: side of the tiles, a multiple of `grid`. Where the source is shorter, so are the tiles.
        grid: tiles start at multiples of this number.
        shrink: the factor by which the output is smaller than the source.
        channels: the number of channels of the output.
        run: a function that accepts left, top, width, height and number of a tile and returns the output of the tile,
            (height / shrink, width / shrink, channels).

    """
    width, height = size
    tile_width, tile_height = min(tile, width), min(tile, height)
    lefts, tops = starts(width, tile_width, grid), starts(height, tile_height, grid)
    sums = np.zeros((tile_height // shrink, width // shrink, channels), np.float32)
    weights = np.zeros((tile_height // shrink, width // shrink, 1), np.float32)
    for i, top in enumerate(tops):
        rows = ramp(tile_height // shrink, i > 0, i + 1 < len(tops))[:, None, None]
        for j, left in enumerate(lefts):
            weight = rows * ramp(tile_width // shrink, j > 0, j + 1 < len(lefts))[None, :, None]
            region = np.s_[:, left // shrink : (left + tile_width) // shrink]
            sums[region] += weight * run(left, top, tile_width, tile_height, i * len(lefts) + j)
            weights[region] += weight
        done = ((tops[i + 1] if i + 1 < len(tops) else top + tile_height) - top) // shrink
        yield sums[:done] / weights[:done]
        kept = len(sums) - done
        for buffer in (sums, weights):
            buffer[:kept] = buffer[done:].copy()
            buffer[kept:] = 0
