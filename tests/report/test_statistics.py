"""Intervals and tests, compared with scipy's and with worked examples."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from msgunet.report.statistics import compare, fewest_images, holm, interval, least_p, tied, undecidable


def test_the_interval_is_scipys():
    values = np.random.default_rng(3).gamma(2, size=60)
    mean, low, high = interval(values[None], 20000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert mean == pytest.approx(values.mean())
    # Two sets of 20000 resamples differ by about a hundredth of the interval.
    assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=0.03 * (high - low))


def test_the_interval_is_repeatable_and_widens_with_differences_between_trainings():
    values = np.random.default_rng(1).normal(size=(3, 20))
    assert interval(values, 200) == interval(values, 200)
    spread = [np.diff(interval(v, 400)[1:])[0] for v in (values[:1], values, values + np.array([[-3], [0], [3]]))]
    assert spread[0] < spread[1] < spread[2] / 5
    mean, low, high = interval(values[:, :4], 200)
    assert mean == pytest.approx(values[:, :4].mean())
    assert np.isnan([low, high]).all()
    assert np.isfinite(interval(values[:, :5], 200)).all()


def test_the_interval_of_shares_is_the_binomials():
    """The resampled mean of zeros and ones is a binomial share."""
    _, low, high = interval((np.arange(1000) < 300)[None].astype(float), 20000)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.3) / 1000
    assert [low, high] == pytest.approx(expected, abs=0.0011), "to one step"


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_the_interval_of_trainings_without_image_noise_is_students(trainings):
    means = np.random.default_rng(trainings).normal(5, 2, trainings)
    mean, low, high = interval(np.repeat(means[:, None], 10, axis=1), 20000)
    assert mean == pytest.approx(means.mean())
    expected = stats.t.interval(0.95, trainings - 1, means.mean(), stats.sem(means))
    assert [low, high] == pytest.approx(expected, abs=2e-3 * (high - low))
    # A difference has the noise of both, drawn separately: here of one, since the other's trainings are alike.
    values = {"a": pd.DataFrame(np.repeat(means[None], 10, axis=0)), "b": pd.DataFrame(np.zeros((10, trainings)))}
    found = compare(values, 20000).iloc[0]
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=2e-3 * (high - low))


def simulate(trainings, images, noise, effect, count=300):
    """Return how often intervals cover the true difference, and how often there is a star, on simulated methods.

    Images differ in difficulty, methods by image, trainings by `noise`, and all values by a little noise.
    """
    draw = np.random.default_rng(0)

    def method(number, level, difficulty):
        values = level + difficulty + draw.normal(0, 0.5, images)
        values = values + draw.normal(0, noise, (number, 1)) + draw.normal(0, 0.2, (number, images))
        return pd.DataFrame(values.T)

    covered = stars = 0
    for _ in range(count):
        difficulty = draw.normal(0, 2, images)
        values = {name: method(n, mu, difficulty) for name, n, mu in zip("ab", trainings, (effect, 0), strict=True)}
        found = compare(values, 400).iloc[0]
        covered += found["low"] <= effect <= found["high"]
        stars += found["significant"]
    return covered / count, stars / count


@pytest.mark.parametrize(
    ("trainings", "images", "noise"),
    [((1, 1), 40, 0), ((2, 2), 40, 0.5), ((3, 3), 40, 0.5), ((3, 3), 12, 0.5), ((2, 5), 40, 0.5), ((5, 5), 40, 0.1)],
)
def test_intervals_cover_the_true_difference_and_stars_are_rare_without_one(trainings, images, noise):
    covered, stars = simulate(trainings, images, noise, effect=0)
    assert covered >= 0.92, "about 95 %, and more with two or three trainings"
    assert stars <= 0.06


def test_a_true_difference_gets_its_star_and_a_single_training_cannot_tell():
    covered, stars = simulate((3, 3), 40, 0.5, effect=3)
    assert covered >= 0.92
    assert stars > 0.8
    covered, stars = simulate((1, 1), 40, 0.5, effect=0)
    assert covered < 0.5, "the notes below the tables say that nothing is known of training noise"
    assert stars > 0.5


def test_trainings_that_contradict_each_other_get_no_star():
    """Two trainings of one method, one far below and one far above those of the other."""
    images = np.random.default_rng(0).normal(20, 2, 60)
    first = pd.DataFrame({0: images - 4, 1: images + 4.2})
    second = pd.DataFrame({0: images, 1: images + 0.01})
    found = compare({"a": first, "b": second}, 400).iloc[0]
    assert found["difference"] == pytest.approx(0.095)
    assert (found["trainings_first"], found["trainings_second"]) == (2, 2)
    assert found["p"] < 1e-6, "with trainings averaged, each image differs by the same sign"
    assert found["low"] < 0 < found["high"]
    assert not found["significant"]
    assert found["wins"] == 0.5
    clear = compare({"a": first.assign(**{"0": images + 4.1})[["0", 1]], "b": second}, 400).iloc[0]
    assert clear["significant"]
    assert clear["wins"] == 1


def test_only_methods_of_one_group_are_compared():
    draw = np.random.default_rng(0)
    values = {name: pd.DataFrame(draw.normal(size=(20, 1))) for name in "abc"}
    found = compare(values, 100, {"a": (64, 64), "b": (128, 128), "c": (64, 64)})
    assert found[["first", "second"]].to_numpy().tolist() == [["a", "c"]]
    assert found["p_holm"].iloc[0] == found["p"].iloc[0], "corrected only for the tests that were made"


def test_comparisons_with_one_method_are_the_same_pairs_with_a_correction_for_fewer_tests():
    """Where the method comes second or first, before or after the others, with noise of several trainings."""
    draw = np.random.default_rng(4)
    base = draw.normal(size=(20, 1))
    values = {name: pd.DataFrame(base + n / 4 + draw.normal(0, 0.5, (20, 3))) for n, name in enumerate("abcd")}
    every = compare(values, 300)
    found = compare(values, 300, reference="b")
    assert found[["first", "second"]].to_numpy().tolist() == [["a", "b"], ["c", "b"], ["d", "b"]]
    before = every.set_index(["first", "second"])
    for row, sign in zip(found.to_dict("records"), (1, -1, -1), strict=True):
        pair = before.loc[("a", "b") if sign == 1 else ("b", row["first"])]
        ends = ("low", "high") if sign == 1 else ("high", "low")
        assert [row["low"], row["high"]] == [sign * pair[end] for end in ends]
        assert row["difference"] == sign * pair["difference"]
        assert row["wins"] == pytest.approx(pair["wins"] if sign == 1 else 1 - pair["wins"])
        assert row["p"] == pair["p"]
        assert row["p_holm"] <= pair["p_holm"]
    assert found["p_holm"].to_list() == pytest.approx(holm(found["p"].to_numpy()).tolist())
    assert found["p_holm"].min() == pytest.approx(3 * found["p"].min()), "three tests instead of six"
    assert not len(compare(values, 300, reference="e")), "not finished yet"
    equal = compare({"b": values["b"], "a": values["b"]}, 300, reference="b").iloc[0]
    assert f"{equal['difference']:+.2f}" == "+0.00"


# Hollander and Wolfe (1973), Nonparametric Statistical Methods, p. 29: depression scale factor of nine patients at two
# visits; V = 40 and p = 0.0195 one-sided, also in the manual page of R's wilcox.test.
FIRST = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
SECOND = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def test_wilcoxon_is_the_textbooks():
    found = compare({"first": pd.DataFrame(FIRST), "second": pd.DataFrame(SECOND)}, 100).iloc[0]
    assert found["p"] == pytest.approx(2 * 10 / 512)
    assert found["p_holm"] == found["p"]
    assert (found["first"], found["second"], found["images"]) == ("first", "second", 9)
    assert found["difference"] == pytest.approx(np.mean(FIRST) - np.mean(SECOND))
    assert np.isnan(found["wins"]), "one training cannot win more or less often"


def test_holms_correction_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last must not be below the one before it.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.4, 0.6])).tolist() == pytest.approx([0.8, 0.8])
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1], "a probability"
    assert holm(np.array([])).tolist() == []


def test_comparisons_skip_undefined_values_and_give_equal_values_p_1():
    found = compare({"a": pd.DataFrame([1.0, 2, np.nan, 4]), "b": pd.DataFrame([1.0, 2, 3, 4])}, 100).iloc[0]
    assert (found["images"], found["p"], found["difference"]) == (3, 1.0, 0.0)
    assert np.isnan(found["low"]), "three images have no interval"


def test_methods_not_significantly_worse_than_the_best_are_tied():
    draw = np.random.default_rng(0)
    base = draw.normal(size=40)
    series = {"a": base, "b": base + draw.normal(0, 1, 40), "c": base - 2 + draw.normal(0, 0.1, 40)}
    values = {name: pd.DataFrame(one) for name, one in series.items()}
    assert tied(compare(values, 400), "a") == {"a", "b"}
    assert tied(compare({"a": values["a"]}, 400), "a") == {"a"}


@pytest.mark.parametrize(("methods", "needed"), [(2, 6), (3, 7), (4, 8), (6, 10)])
def test_significance_needs_more_images_for_more_methods(methods, needed):
    """Methods whose differences all have one sign: nothing could be clearer."""
    draw = np.random.default_rng(0)
    pairs = methods * (methods - 1) // 2
    assert fewest_images(pairs) == needed
    for images in range(needed - 2, needed + 1):
        values = {str(n): pd.DataFrame(100 * n + draw.uniform(size=images)) for n in range(methods)}
        found = compare(values, 100)
        assert found["p_holm"].min() == pytest.approx(least_p(images, pairs))
        assert found["significant"].any() == (images >= needed)
        assert (undecidable(found) == "") == (images >= needed)
    assert least_p(1, 15) == 1


def test_equal_differences_reach_no_smaller_p():
    """Ties change how p is computed."""
    for images in range(1, 12):
        found = compare({"a": pd.DataFrame(np.ones(images)), "b": pd.DataFrame(np.zeros(images))}, 100).iloc[0]
        assert found["p"] >= 0.999 * least_p(images, 1)


def test_why_nothing_can_be_significant():
    values = {name: pd.DataFrame(np.arange(5.0) + n) for n, name in enumerate("abcd")}
    assert undecidable(compare(values, 100)) == (
        "with 5 test images and 6 pairs of methods, p after Holm's correction is at least 0.38; p below 0.05 needs at "
        "least 8 images"
    )
    pair = {name: values[name] for name in "ab"}
    assert undecidable(compare(pair, 100)).startswith("with 5 test images and one pair of methods")
    assert "no two finished trained methods" in undecidable(compare({"a": values["a"]}, 100))
    undefined = {"a": values["a"], "b": values["b"] * np.nan}
    assert "no two finished trained methods" in undecidable(compare(undefined, 100))


@pytest.mark.parametrize("trainings", [1, 2, 3])
def test_an_interval_stays_within_what_is_possible_and_covers_the_truth_as_often(trainings):
    """SSIM near its largest value, where the noise of trainings would lead beyond it."""
    draw = np.random.default_rng(trainings)
    covered = {True: 0, False: 0}
    beyond = 0
    for _ in range(200):
        level = 0.9 + draw.uniform(-0.08, 0.08, (trainings, 1))
        values = level + draw.uniform(-0.02, 0.02, (1, 8))
        for cut in (True, False):
            mean, low, high = interval(values, 200, (-1, 1)) if cut else interval(values, 200)
            covered[cut] += low <= 0.9 <= high
            beyond += high > 1 and not cut
            assert low <= mean <= high
            assert not cut or -1 <= low <= high <= 1
    assert covered[True] == covered[False]
    assert (beyond > 0) == (trainings > 1)
    assert np.isnan(interval(values[:, :4], 200, (-1, 1))[1:]).all(), "four images have no interval"
