"""Intervals and tests, compared with scipy's and with worked examples."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from msgunet.report.statistics import bootstrap, compare, holm, tied


def test_the_interval_is_scipys():
    values = np.random.default_rng(3).gamma(2, size=60)
    mean, low, high = bootstrap(values[None], 20000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert mean == pytest.approx(values.mean())
    # Two sets of 20000 resamples differ by about a hundredth of the interval.
    assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=0.03 * (high - low))


def test_the_interval_is_repeatable_and_covers_the_mean():
    draw = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        mean, low, high = bootstrap(draw.normal(5, 1, (1, 40)), 400)
        inside += low <= 5 <= high
        assert low <= mean <= high
    assert 0.88 < inside / 200 < 0.99
    values = draw.normal(size=(3, 20))
    assert bootstrap(values, 200) == bootstrap(values, 200)
    spread = [np.diff(bootstrap(v, 400)[1:])[0] for v in (values[:1], values + np.array([[-3], [0], [3]]))]
    assert spread[1] > spread[0], "differences between seeds widen the interval"


# Hollander and Wolfe (1973), Nonparametric Statistical Methods, p. 29: depression scale factor of nine patients at two
# visits; V = 40 and p = 0.0195 one-sided, also in the manual page of R's wilcox.test.
FIRST = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
SECOND = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def test_wilcoxon_is_the_textbooks():
    found = compare(pd.DataFrame({"first": FIRST, "second": SECOND})).iloc[0]
    assert found["p"] == pytest.approx(2 * 10 / 512)
    assert found["p_holm"] == found["p"]
    assert (found["first"], found["second"], found["images"]) == ("first", "second", 9)
    assert found["difference"] == pytest.approx(np.mean(FIRST) - np.mean(SECOND))


def test_holms_correction_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last must not be below the one before it.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.4, 0.6])).tolist() == pytest.approx([0.8, 0.8])
    assert holm(np.array([])).tolist() == []


def test_comparisons_skip_undefined_values_and_give_equal_values_p_1():
    frame = pd.DataFrame({"a": [1.0, 2, np.nan, 4], "b": [1.0, 2, 3, 4]})
    found = compare(frame).iloc[0]
    assert (found["images"], found["p"], found["difference"]) == (3, 1.0, 0.0)


def test_methods_not_significantly_worse_than_the_best_are_tied():
    draw = np.random.default_rng(0)
    base = draw.normal(size=40)
    frame = pd.DataFrame({"a": base, "b": base + draw.normal(0, 1, 40), "c": base - 2 + draw.normal(0, 0.1, 40)})
    assert tied(compare(frame), "a") == {"a", "b"}
    assert tied(compare(frame[["a"]]), "a") == {"a"}
