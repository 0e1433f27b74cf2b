"""Images in overlapping tiles that are blended: where tiles lie, and how much of each counts where."""

from collections.abc import Callable, Iterator

import numpy as np

# Tiles overlap by this share of their side.
OVERLAP = 0.25


def starts(length: int, tile: int, grid: int) -> list[int]:
    """Where tiles begin along a side, in multiples of `grid`: each overlaps the next by a quarter or more.

    All three are multiples of the grid, and a tile is no longer than the side.
    """
    overlap = max(grid, round(OVERLAP * tile / grid) * grid)
    step = max(grid, tile - overlap)
    return [*range(0, length - tile, step), length - tile]


def ramp(length: int, before: bool, after: bool) -> np.ndarray:
    """Weights along a tile's side, (length,): towards a neighbour they fall smoothly to zero over the overlap."""
    position = np.arange(length, dtype=np.float32) + 0.5
    weights = np.ones(length, np.float32)
    for wanted, distance in ((before, position), (after, length - position)):
        if wanted:
            share = np.minimum(1, distance / (OVERLAP * length))
            weights = weights * share**2 * (3 - 2 * share)
    return weights


def blend(
    size: tuple[int, int],
    tile: int,
    grid: int,
    shrink: int,
    channels: int,
    run: Callable[[int, int, int, int, int], np.ndarray],
) -> Iterator[np.ndarray]:
    """Bands of the blended output from top to bottom, (h, width / shrink, channels); a row of tiles is held at a time.

    Args:
        size: width and height of the source, multiples of the grid.
        tile: side of the tiles, a multiple of the grid; along a shorter side of the source that side.
        grid: tiles begin at multiples of it.
        shrink: how many times smaller the output is.
        channels: of the output.
        run: left, top, width, height and number of a tile to its output, (height / shrink, width / shrink, channels).

    """
    width, height = size
    wide, tall = min(tile, width), min(tile, height)
    lefts, tops = starts(width, wide, grid), starts(height, tall, grid)
    sums = np.zeros((tall // shrink, width // shrink, channels), np.float32)
    weights = np.zeros((tall // shrink, width // shrink, 1), np.float32)
    for i, top in enumerate(tops):
        rows = ramp(tall // shrink, i > 0, i + 1 < len(tops))[:, None, None]
        for j, left in enumerate(lefts):
            weight = rows * ramp(wide // shrink, j > 0, j + 1 < len(lefts))[None, :, None]
            place = np.s_[:, left // shrink : (left + wide) // shrink]
            sums[place] += weight * run(left, top, wide, tall, i * len(lefts) + j)
            weights[place] += weight
        done = ((tops[i + 1] if i + 1 < len(tops) else top + tall) - top) // shrink
        yield sums[:done] / weights[:done]
        kept = len(sums) - done
        for held in (sums, weights):
            held[:kept] = held[done:].copy()
            held[kept:] = 0
