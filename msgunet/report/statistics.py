"""Confidence intervals and significance tests over test images."""

import itertools

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05


def bootstrap(values: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """Return the mean of `values` (seeds, images) and the ends of its 95 % bootstrap percentile interval.

    Images are resampled with replacement and, if there are several, seeds too. The random generator has a fixed seed,
    so the same values always have the same interval.
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
    """Apply Wilcoxon's signed-rank test (two-sided) to every pair of columns of `values`, whose rows are images.

    A test leaves out images without a value in one of its two columns. `p_holm` is corrected by Holm's procedure over
    all tests of the frame. Without any common image there is no test: `difference`, `p` and `p_holm` are missing.
    Columns of the result: `first`, `second`, `images`, `difference` (mean of first - second), `p`, `p_holm`.
    """
    rows = []
    for first, second in itertools.combinations(values.columns, 2):
        difference = (values[first] - values[second]).dropna().to_numpy()
        mean, p = np.nan, np.nan
        if len(difference):
            mean, p = difference.mean(), stats.wilcoxon(difference).pvalue if np.any(difference) else 1.0
        rows.append({"first": first, "second": second, "images": len(difference), "difference": mean, "p": float(p)})
    frame = pd.DataFrame(rows, columns=["first", "second", "images", "difference", "p"])
    tested = frame["p"].notna()
    corrected = pd.Series(holm(frame["p"][tested].to_numpy(float)), frame.index[tested], float)
    return frame.assign(p_holm=corrected.reindex(frame.index))


def holm(p: np.ndarray) -> np.ndarray:
    """Correct n p-values for multiple testing (Holm 1979).

    The k-th smallest is multiplied by n - k + 1. Corrected values never decrease with k and are at most 1.
    """
    order = np.argsort(p)
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result


def tied(comparisons: pd.DataFrame, best: str) -> set[str]:
    """Return `best` and the columns whose difference from it is not significant at the 5 % level in `compare`."""
    insignificant = comparisons[comparisons["p_holm"] >= LEVEL]
    return {
        best,
        *insignificant.loc[insignificant["first"] == best, "second"],
        *insignificant.loc[insignificant["second"] == best, "first"],
    }
