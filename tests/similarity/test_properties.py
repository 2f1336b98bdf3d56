import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency_lab.intervals import crossed_jackknife, jackknife
from consistency_lab.similarity.statistics import family_score, in_logarithms, pair_score, pairs_of, score

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-3, 1e3)


def distances(models, samples, seed):
    """Distances of every image of every model from every other, ``(models, models, samples, samples)``."""
    rng = np.random.default_rng(seed)
    common, spread = rng.normal(size=(samples, 3)), rng.uniform(0.2, 1.5, models)
    images = common + spread[:, None, None] * rng.normal(size=(models, samples, 3))
    difference = images[:, None, :, None] - images[None, :, None, :]
    return (difference**2).sum(-1)


def per_sample(every, pairs):
    """Distance and null of each pair and sample, as `family_score` takes them: the null over j != i, of both directions."""
    n = every.shape[-1]
    own = np.stack([every[a, b].diagonal() for a, b in pairs])
    nulls = np.stack([(every[a, b].sum(0) + every[a, b].sum(1)) / 2 - every[a, b].diagonal() for a, b in pairs])
    return own, nulls / (n - 1)


def brute(every, pairs, samples):
    """The score of those pairs and samples from all distances."""
    off = ~np.eye(len(samples), dtype=bool)
    parts = [every[a, b][np.ix_(samples, samples)] for a, b in pairs]
    return score(np.mean([x.diagonal().mean() for x in parts]), np.mean([x[off].mean() for x in parts]))


def close(one, other):
    return all(np.allclose(a, b, rtol=1e-8, atol=1e-10) for a, b in zip(one, other, strict=True))


@given(st.integers(3, 12), seeds, scales)
def test_the_score_of_a_pair_keeps_under_permutations_of_samples_and_scaling(samples, seed, scale):
    own, null = (x[0] for x in per_sample(distances(2, samples, seed), [(0, 1)]))
    found, order = pair_score(own, null), np.random.default_rng(seed).permutation(samples)
    assert found.low <= found.estimate <= found.high <= 1
    assert close(pair_score(own[order], null[order]), found)
    assert close(pair_score(scale * own, scale * null), found)
    assert close(pair_score(np.stack([own, own[order]]), np.stack([null, null[order]])), np.stack([found, found], 1))


@given(st.integers(3, 5), st.integers(3, 9), seeds, scales)
def test_the_score_of_a_family_keeps_under_permutations_of_models_and_samples_and_scaling(models, samples, seed, scale):
    every, pairs, rng = distances(models, samples, seed), pairs_of(models), np.random.default_rng(seed)
    found = family_score(*per_sample(every, pairs), models)
    assert found.low <= found.estimate <= found.high <= 1
    order, places = rng.permutation(models), rng.permutation(samples)
    shuffled = every[np.ix_(order, order, places, places)]
    assert close(family_score(*per_sample(shuffled, pairs), models), found)
    assert close(family_score(*per_sample(scale * every, pairs), models), found)


@given(st.integers(3, 9), seeds)
def test_the_interval_of_a_pair_is_the_jackknife_of_scores_computed_again_without_each_sample(samples, seed):
    every = distances(2, samples, seed)
    left = np.array([brute(every, [(0, 1)], [j for j in range(samples) if j != i]) for i in range(samples)])
    own, null = (x[0] for x in per_sample(every, [(0, 1)]))
    expected = in_logarithms(jackknife(brute(every, [(0, 1)], range(samples)), left))
    assert close(pair_score(own, null), expected)


@given(st.integers(3, 4), st.integers(3, 6), seeds)
def test_the_interval_of_a_family_is_that_of_scores_computed_again_without_each_model_and_sample(models, samples, seed):
    every, pairs = distances(models, samples, seed), pairs_of(models)
    left = np.array(
        [
            [
                brute(every, [p for p in pairs if k not in p], [j for j in range(samples) if j != i])
                for i in range(samples)
            ]
            for k in range(models)
        ]
    )
    expected = in_logarithms(crossed_jackknife(brute(every, pairs, range(samples)), [left]))
    assert close(family_score(*per_sample(every, pairs), models), expected)


@given(st.integers(2, 4), seeds)
def test_equal_images_score_one_whatever_they_are(models, seed):
    every = distances(1, 6, seed)[[0] * models][:, [0] * models]
    own, null = per_sample(every, pairs_of(models))
    assert pair_score(own[0], null[0]).estimate == pytest.approx(1.0)
    if models > 2:
        assert tuple(family_score(own, null, models)) == pytest.approx((1.0, 1.0, 1.0))
