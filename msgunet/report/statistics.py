"""Confidence intervals and tests over test images and trainings."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from msgunet.core.metrics import FEWEST_IMAGES

LEVEL = 0.05


def interval(
    values: np.ndarray, resamples: int, limits: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float, float]:
    """Return the mean of `values` (trainings, images) and the ends of its 95 % interval.

    Images are resampled with replacement (percentile bootstrap). Each training with another seed is one draw of the
    training noise. Two or three of them cannot be resampled: that would halve the noise or worse (Bouthillier et al.
    2021 and Agarwal et al. 2021 resample many trainings). Instead, their mean is drawn from Student's distribution
    around the observed one. A single training says nothing about this noise, and the interval then ignores it.

    The ends are cut at `limits`, the least and the largest value that is possible. The truth lies between these, so the
    interval covers it as often.

    The random generator has a fixed seed, so the same values always have the same interval. With fewer than
    `FEWEST_IMAGES` images, the ends are NaN.
    """
    mean, *ends = _interval(float(values.mean()), _resampled([values], resamples)[0])
    low, high = np.clip(ends, *limits)
    return mean, float(low), float(high)


def compare(
    values: Mapping[str, pd.DataFrame],
    resamples: int,
    group: Mapping[str, object] | None = None,
    higher_is_better: bool = True,
    reference: str | None = None,
) -> pd.DataFrame:
    """Compare every pair of methods, or every method with one of them, on the same images.

    Args:
        values: for each method, one row for each image and one column for each training.
        resamples: the number of resamples of an interval.
        group: for each method, what must be equal for a comparison, such as the size; None: all are compared.
        higher_is_better: whether a larger value is a better one; only `wins` depends on it.
        reference: compare only with this method, which then is the second of each pair. Differences and intervals are
            those of the same pairs without it, but Holm's correction has fewer tests to make up for. There is no row if
            it is not in `values`.

    Returns:
        One row for each pair, with the columns

        - `first`, `second`, `trainings_first`, `trainings_second`;
        - `images`: those with a value in both, on which the comparison is based;
        - `difference`: mean of first - second, with the 95 % interval `low` to `high`, which resamples the images for
          both methods together and draws the training noise of each method separately (see `interval`);
        - `wins`: share of the pairs of one training of each method in which the first has the better mean, ties count
          half (the probability that a training of the first beats one of the second); missing unless both have at
          least two trainings;
        - `p`: Wilcoxon's signed-rank test (two-sided) with trainings averaged, and `p_holm`, corrected by Holm's
          procedure over all rows;
        - `significant`: `p_holm` is below 5 %, the interval leaves out zero, and each pair of trainings has the sign
          of `difference`.

    """
    rows = []
    for first, second in itertools.combinations(values, 2):
        if (group is not None and group[first] != group[second]) or reference not in (None, first, second):
            continue
        a, b = values[first].align(values[second], join="inner", axis=0)
        common = a.notna().all(axis=1) & b.notna().all(axis=1)
        row = {"first": first, "second": second, **_compare(*(x[common].to_numpy().T for x in (a, b)), resamples)}
        rows.append(_turned(row) if first == reference else row)
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    tested = frame["p"].notna()
    frame["wins"] = frame["wins"] if higher_is_better else 1 - frame["wins"].astype(float)
    corrected = pd.Series(holm(frame["p"][tested].to_numpy(float)), frame.index[tested], float)
    frame["p_holm"] = corrected.reindex(frame.index)
    outside = (frame["low"] > 0) | (frame["high"] < 0)
    frame["significant"] = (frame["p_holm"] < LEVEL) & outside & frame.pop("agree").eq(True)
    return frame


_COLUMNS = ["first", "second", "trainings_first", "trainings_second", "images"]
_COLUMNS += ["difference", "low", "high", "wins", "p", "agree"]


def _compare(a: np.ndarray, b: np.ndarray, resamples: int) -> dict[str, object]:
    """Compare two methods, each with values (trainings, images) on the same images."""
    row: dict[str, object] = {"trainings_first": len(a), "trainings_second": len(b), "images": a.shape[1]}
    if not a.shape[1]:
        return row
    by_image = a.mean(0) - b.mean(0)
    first, second = _resampled([a, b], resamples)
    # NaN where there are too few images.
    row["difference"], row["low"], row["high"] = _interval(float(by_image.mean()), first - second)
    pairs = np.subtract.outer(a.mean(1), b.mean(1))
    if min(len(a), len(b)) > 1:
        row["wins"] = float((np.sign(pairs) + 1).mean() / 2)
    row["p"] = float(stats.wilcoxon(by_image).pvalue) if np.any(by_image) else 1.0
    row["agree"] = bool((np.sign(pairs) == np.sign(by_image.mean())).all())
    return row


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `compare` with the second method first.

    The draws of an interval depend on the order. So both orders have the same interval, with the other sign.
    """
    turned = dict(row)
    for of_first, of_second in (("first", "second"), ("trainings_first", "trainings_second")):
        turned[of_first], turned[of_second] = row[of_second], row[of_first]
    if "difference" in row:
        turned |= {"difference": 0 - row["difference"], "low": 0 - row["high"], "high": 0 - row["low"]}
    return turned | ({"wins": 1 - row["wins"]} if "wins" in row else {})


def _resampled(methods: list[np.ndarray], resamples: int) -> list[np.ndarray]:
    """Return resampled means of each method's values (trainings, images); the same images are drawn for all."""
    draw = np.random.default_rng(0)
    images = methods[0].shape[1]
    if images < FEWEST_IMAGES:
        return [np.full(resamples, np.nan) for _ in methods]
    drawn = draw.integers(0, images, (resamples, images))
    return [values.mean(0)[drawn].mean(1) + _training_noise(values, draw, resamples) for values in methods]


def _training_noise(values: np.ndarray, draw: np.random.Generator, resamples: int) -> np.ndarray:
    """Draw deviations of the mean of some trainings from that of infinitely many."""
    count = len(values)
    if count == 1:
        return np.zeros(resamples)
    error = values.mean(1).std(ddof=1) / np.sqrt(count)
    # Evenly over the distribution and in random order, since its long tails would make the ends of intervals noisy.
    evenly = stats.t.ppf((np.arange(resamples) + 0.5) / resamples, count - 1)
    return error * draw.permutation(evenly)


def _interval(mean: float, resampled: np.ndarray) -> tuple[float, float, float]:
    low, high = np.quantile(resampled, (LEVEL / 2, 1 - LEVEL / 2))
    return mean, float(low), float(high)


def holm(p: np.ndarray) -> np.ndarray:
    """Correct n p-values for multiple testing (Holm 1979).

    The k-th smallest is multiplied by n - k + 1. Corrected values never decrease with k and are at most 1.
    """
    order = np.argsort(p)
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result


def least_p(images: int, comparisons: int) -> float:
    """Return the least p, after Holm's correction, that so many pairs of methods can reach on so many images.

    Without a difference, each image's difference has either sign with equal probability. The most extreme two of the
    2^images combinations are those where all signs agree. Holm's procedure multiplies the smallest p by the number of
    pairs.
    """
    return min(1.0, comparisons * 2.0 ** (1 - images))


def fewest_images(comparisons: int) -> int:
    """Return the least number of images on which any of so many pairs of methods can differ significantly."""
    return next(images for images in itertools.count(1) if least_p(images, comparisons) < LEVEL)


def undecidable(tests: pd.DataFrame) -> str:
    """Return why no difference in `compare` can be significant, whatever the values; empty if one can be."""
    tested = tests[tests["difference"].notna()]
    images, count = tested["images"].max(), len(tested)
    if not count:
        return "there are no two finished trained methods to compare"
    if (least := least_p(images, count)) < LEVEL:
        return ""
    pairs = f"{count} pairs" if count > 1 else "one pair"
    return (
        f"with {images} test image{'s' if images > 1 else ''} and {pairs} of methods, p after Holm's correction is at "
        f"least {least:.2g}; p below {LEVEL:g} needs at least {fewest_images(count)} images"
    )


def best(values: pd.Series, higher_is_better: bool) -> str:
    """Return the method with the best of some values, by method; the first of several with the same."""
    return str(values.idxmax() if higher_is_better else values.idxmin())


def tied(comparisons: pd.DataFrame, best: str) -> set[str]:
    """Return `best` and the methods whose difference from it is not significant in `compare`."""
    rows = comparisons[~comparisons["significant"].astype(bool)]
    return {best, *rows.loc[rows["first"] == best, "second"], *rows.loc[rows["second"] == best, "first"]}
