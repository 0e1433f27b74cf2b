"""Intervals and tests over test images."""

import itertools

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05


def bootstrap(values: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """Mean of `values` (seeds, images) and its 95 % percentile interval.

    Images are drawn again with replacement and, where there are several, seeds too. The draws are seeded: the same
    values always give the same interval.
    """
    draw = np.random.default_rng(0)
    seeds, images = values.shape
    of_images = draw.integers(0, images, (resamples, images))
    of_seeds = draw.integers(0, seeds, (resamples, seeds))
    means = (
        values.mean(0)[of_images].mean(1)
        if seeds == 1
        else np.array([values[np.ix_(s, i)].mean() for s, i in zip(of_seeds, of_images, strict=True)])
    )
    low, high = np.quantile(means, (LEVEL / 2, 1 - LEVEL / 2))
    return float(values.mean()), float(low), float(high)


def compare(values: pd.DataFrame) -> pd.DataFrame:
    """Wilcoxon's signed-rank test (two-sided) between every two columns of `values`, whose rows are images.

    Images without a value in one of the two are left out of their test. `p_holm` is corrected by Holm's procedure for
    all tests of the frame. Columns: `first`, `second`, `images`, `difference` (mean of first - second), `p`, `p_holm`.
    """
    rows = []
    for first, second in itertools.combinations(values.columns, 2):
        difference = (values[first] - values[second]).dropna().to_numpy()
        p = stats.wilcoxon(difference).pvalue if np.any(difference) else 1.0
        mean = difference.mean() if len(difference) else None
        rows.append({"first": first, "second": second, "images": len(difference), "difference": mean, "p": float(p)})
    frame = pd.DataFrame(rows, columns=["first", "second", "images", "difference", "p"])
    return frame.assign(p_holm=holm(frame["p"].to_numpy(float)))


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for being n (Holm 1979): the k-th smallest times n - k + 1, never falling, at most 1."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result


def tied(comparisons: pd.DataFrame, best: str) -> set[str]:
    """Those that `compare` cannot tell from `best` at the 5 % level, with `best` itself."""
    unclear = comparisons[comparisons["p_holm"] >= LEVEL]
    return {best, *unclear.loc[unclear["first"] == best, "second"], *unclear.loc[unclear["second"] == best, "first"]}
