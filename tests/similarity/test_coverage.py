"""Do 95 % intervals of scores cover? Families of models and noises are drawn whose true score is known.

A few cases run always; the sweep over all numbers of models and samples is marked slow.
"""

import numpy as np
import pytest
import torch

from consistency_lab.intervals import jackknife, mean_interval
from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity.statistics import cross_score, family_score, pair_score, pairs_of, score, within_score
from consistency_lab.similarity.typical import linear_trimmed_score

NULL = 4.0
MODELS, SAMPLES = (3, 4, 6, 8), (32, 256)
TIMES = 85 / np.log(100 / 15)  # mean of what an exploded image adds: log-uniform from 15 to 100 times the mean distance
CASES = {
    "models": {"models": 0.2, "pair": 0.05, "each": 0.05},
    "noise": {"hard": 0.7, "each": 0.3},
    "both": {"models": 0.1, "pair": 0.03, "hard": 0.7, "each": 0.3},
    "spread": {"quality": 0.5, "hard": 0.3, "each": 0.3},
    "strong spread": {"quality": 0.8, "hard": 0.3, "each": 0.3},
    "exploding": {"models": 0.1, "hard": 0.3, "each": 0.3, "explode": 1 / 256},
}


def lognormal(rng, sigma, size):
    return np.exp(sigma * rng.standard_normal(size) - sigma**2 / 2)


def drawn(rng, ends, samples, trials, models=0.0, quality=0.0, pair=0.0, hard=0.0, each=0.0, explode=0.0):
    """Distances and nulls ``(pairs, N, trials)`` with mean 1 and `NULL`, and the true score.

    A distance is the mean of its two models' (1 + normal, log-normal), plus what the pair has of its own, times how hard the sample is
    for all (log-normal), times noise of pair and sample; images explode on their own.
    """
    first, second = np.transpose(ends)
    count = 1 + max(second)
    own = lognormal(rng, quality, (count, 1, trials)) + models * rng.standard_normal((count, 1, trials))
    distance = (own[first] + own[second]) / 2 + pair * rng.standard_normal((len(ends), 1, trials))
    distance = (
        distance * lognormal(rng, hard, (1, samples, trials)) * lognormal(rng, each, (len(ends), samples, trials))
    )
    null, extra = np.full_like(distance, NULL), 2 * explode * TIMES
    if explode:
        size = (count, samples, trials)
        burst = (rng.random(size) < explode) * np.exp(rng.uniform(np.log(15), np.log(100), size))
        burst = burst[first] + burst[second]
        # An exploded image is far from all others: from j in row i, from i in every other row.
        distance, null = distance + burst, null + burst / 2 + (burst.sum(1, keepdims=True) - burst) / (2 * samples - 2)
    return distance, null, 1 - (1 + extra) / (NULL + extra)


def images(rng, models, samples, trials, size=16, error=0.45, by_model=0.25, by_sample=0.5, explode=0.0):
    """The same of vectors: model k answers noise z with sin(2 z) + its bias + an error whose scale is the model's and the sample's."""
    metric, found = METRICS.build("mse"), []
    spread = (1 - np.exp(-8)) / 2  # the variance of sin(2 z)
    own = error**2 * np.exp(2 * by_model**2 + 2 * by_sample**2) + (0.3 * error) ** 2  # E of the squared error
    more, more_squared = (
        1 + explode * 4.5,
        1 + explode * (97 / 3 - 1),
    )  # E of a factor and its square, uniform from 3 to 8
    truth = spread * more**2 / ((spread + own) * more_squared)
    for _ in range(trials):
        clean = np.sin(2 * rng.standard_normal((samples, size)))
        scale = error * np.exp(
            by_model * rng.standard_normal((models, 1, 1)) + by_sample * rng.standard_normal((samples, 1))
        )
        made = (
            clean
            + scale * rng.standard_normal((models, samples, size))
            + 0.3 * error * rng.standard_normal((models, 1, size))
        )
        burst = rng.random((models, samples, 1)) < explode
        made = torch.from_numpy(np.where(burst, made * rng.uniform(3, 8, burst.shape), made))
        kept = [metric.embed(each[:, None, None]) for each in made]
        rows = [(metric.between(kept[i], kept[j]), metric.null(kept[i], kept[j])) for i, j in pairs_of(models)]
        found.append([torch.stack(part).numpy() for part in zip(*rows, strict=True)])
    distance, null = (np.stack(part, -1) for part in zip(*found, strict=True))
    return distance, null, truth


def covered(interval, truth):
    return float(((interval.low <= truth) & (truth <= interval.high)).mean())


def coverage(case, models, samples, trials, made=family_score):
    """The share of intervals that hold the truth, and of those over models alone, which take the noise for given."""
    rng, shares = np.random.default_rng([models, samples]), []
    pairs = pairs_of(models)
    chunk = max(20, min(trials, 400_000 // (len(pairs) * samples)))
    for _ in range(-(-trials // chunk)):
        distance, null, truth = drawn(rng, pairs, samples, chunk, **CASES[case])
        kept = [[p for p, pair in enumerate(pairs) if model not in pair] for model in range(models)]
        left = np.stack([score(distance[keep].mean((0, 1)), null[keep].mean((0, 1))) for keep in kept])
        alone = jackknife(score(distance.mean((0, 1)), null.mean((0, 1))), left)
        shares.append([covered(made(distance, null, models), truth), covered(alone, truth)])
    return np.mean(shares, 0)


def cross_coverage(case, first, second, samples, trials):
    ends = [(i, first + j) for i in range(first) for j in range(second)]
    *parts, truth = drawn(np.random.default_rng([first, second, samples]), ends, samples, trials, **CASES[case])
    distance, null = (x.reshape(first, second, samples, trials) for x in parts)
    return covered(cross_score(distance, null, first, second), truth)


def within_coverage(case, sizes, samples, trials):
    models = sum(sizes)
    *parts, truth = drawn(np.random.default_rng([*sizes, samples]), pairs_of(models), samples, trials, **CASES[case])
    full = []
    for part in parts:
        values = np.zeros((models, models, samples, trials))
        for value, (i, j) in zip(part, pairs_of(models), strict=True):
            values[i, j] = values[j, i] = value
        full.append(values)
    return covered(within_score(*full, sizes), truth)


# The cases in which the interval falls short of 92 to 98 %, as the documentation names them.
SHORT = {"strong spread": (0.89, 0.94), ("exploding", 32): (0.58, 0.82), ("exploding", 256): (0.91, 0.97)}


def band(case, samples):
    return SHORT.get(case) or SHORT.get((case, samples)) or (0.92, 0.98)


def check(case, models, samples, trials):
    share, _ = coverage(case, models, samples, trials)
    low, high = band(case, samples)
    assert low <= share <= high


@pytest.mark.parametrize(("models", "samples"), [(3, 32), (4, 256), (8, 32)])
@pytest.mark.parametrize("case", CASES)
def test_the_interval_of_a_family_covers(case, models, samples):
    check(case, models, samples, 1500 if samples * models < 256 else 800)


@pytest.mark.slow
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("case", CASES)
def test_the_interval_of_a_family_covers_whatever_its_size(case, models, samples):
    check(case, models, samples, 3000)


@pytest.mark.parametrize(("models", "most"), [(3, 0.9), (4, 0.7), (6, 0.45)])
def test_an_interval_over_models_alone_does_not_cover_other_noise(models, most):
    both, models_alone = coverage("noise", models, 32, 400)
    assert models_alone < most
    assert both > 0.92


@pytest.mark.parametrize(("first", "second"), [(3, 3), (4, 8)])
@pytest.mark.parametrize("case", ["models", "noise", "both", "spread"])
def test_the_interval_between_families_covers(case, first, second):
    assert 0.92 <= cross_coverage(case, first, second, 32, 600) <= 0.98


@pytest.mark.parametrize("sizes", [(3, 3), (3, 5)])
@pytest.mark.parametrize("case", ["models", "noise", "both", "spread"])
def test_the_interval_within_families_covers(case, sizes):
    assert 0.92 <= within_coverage(case, sizes, 32, 600) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("case", CASES)
def test_the_intervals_between_and_within_families_cover_whatever_their_sizes(case, samples):
    low, high = band(case, samples)
    # More pairs see more explosions; and two families of three are a little too wide where models and noise weigh alike.
    high = {("exploding", 32): 0.86, ("both", 256): 0.992, ("strong spread", 256): 0.96}.get((case, samples), high)
    for first, second in ((3, 3), (3, 6), (4, 4), (4, 8)):
        assert low <= cross_coverage(case, first, second, samples, 1000) <= high
    for sizes in ((3, 3), (4, 4), (3, 5), (3, 3, 3)):
        assert low <= within_coverage(case, sizes, samples, 1000) <= high


@pytest.mark.parametrize(("models", "samples", "trials"), [(3, 32, 300), (4, 32, 200)])
def test_the_interval_covers_the_score_of_vectors_under_the_mean_squared_error(models, samples, trials):
    distance, null, truth = images(np.random.default_rng(models), models, samples, trials)
    assert 0.92 <= covered(family_score(distance, null, models), truth) <= 0.98
    assert np.median(score(distance.mean((0, 1)), null.mean((0, 1)))) == pytest.approx(truth, abs=0.03)
    first = pair_score(distance[0], null[0], axis=0)
    assert covered(first, truth) < 0.9  # "this pair, not this family"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "low"), [({}, 0.92), ({"by_model": 0.4}, 0.89), ({"explode": 1 / 256}, 0.88)], ids=str
)
def test_the_interval_covers_the_score_of_vectors_whatever_the_family(options, low):
    for models in MODELS:
        for samples in SAMPLES:
            distance, null, truth = images(np.random.default_rng([models, samples]), models, samples, 400, **options)
            assert low <= covered(family_score(distance, null, models), truth) <= 0.98


def test_the_interval_of_the_trimmed_score_covers_where_images_explode():
    rng, pairs = np.random.default_rng(0), pairs_of(4)
    *many, _ = drawn(rng, pairs, 2048, 100, **CASES["exploding"])
    truth = linear_trimmed_score(*many, 4).estimate.mean()  # of 100 families under 2,048 noises each
    *few, _ = drawn(rng, pairs, 32, 800, **CASES["exploding"])
    assert 0.92 <= covered(linear_trimmed_score(*few, 4), truth) <= 0.98


@pytest.mark.parametrize(
    ("case", "samples", "low", "high"),
    [("noise", 32, 0.92, 0.98), ("noise", 256, 0.92, 0.98), ("exploding", 32, 0.3, 0.5), ("exploding", 256, 0.7, 0.8)],
)
def test_the_interval_of_a_pair_covers_other_noise(case, samples, low, high):
    options = {**CASES[case], "models": 0.0, "pair": 0.0}
    distance, null, truth = drawn(np.random.default_rng(samples), [(0, 1)], samples, 2000, **options)
    assert low <= covered(pair_score(distance, null, axis=1), truth) <= high
    mean = 1 + (2 * TIMES / 256 if case == "exploding" else 0)  # so does that of its mean distance, or does not
    assert low - 0.1 <= covered(mean_interval(distance, axis=1), mean) <= high
