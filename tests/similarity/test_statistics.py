import numpy as np
import pytest
import torch
from scipy import stats

from consistency_lab.intervals import crossed_jackknife
from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity.statistics import (
    cross_score,
    explained_share,
    family_score,
    pair_score,
    pairs_of,
    score,
    within_score,
)


def images(rho, n=50, size=6, seed=0, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, 1, 1, size))
    b = shift + scale * (rho * a + np.sqrt(1 - rho**2) * rng.normal(size=a.shape))
    return torch.from_numpy(a), torch.from_numpy(b)


def mse_score(a, b):
    metric = METRICS.build("mse")
    u, v = metric.embed(a), metric.embed(b)
    return pair_score(metric.between(u, v).numpy(), metric.null(u, v).numpy())


@pytest.mark.parametrize(("rho", "scale", "shift"), [(0.9, 1.0, 0.0), (0.5, 1.4, 0.3), (-0.4, 0.5, -1.0)])
def test_the_mse_score_is_lins_concordance_coefficient(rho, scale, shift):
    a, b = images(rho, scale=scale, shift=shift)
    x, y = a.flatten(1).numpy(), b.flatten(1).numpy()
    n = len(x)
    covariance = ((x - x.mean(0)) * (y - y.mean(0))).sum() / (n - 1)
    variance = x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum()
    offset = ((x.mean(0) - y.mean(0)) ** 2).sum()
    # With i != j exactly: population variances, and what the diagonal's absence adds.
    exact = 2 * covariance / (variance * (n - 1) / n + offset + 2 * covariance / n)
    assert mse_score(a, b).estimate == pytest.approx(exact, rel=1e-12)
    assert mse_score(a, b).estimate == pytest.approx(2 * covariance / (variance + offset), abs=0.03)


def test_scores_of_equal_opposite_and_unrelated_images():
    a, _ = images(0.0)
    assert mse_score(a, a).estimate == 1.0
    assert mse_score(a, -a).estimate < -0.9
    assert abs(mse_score(*images(0.0, n=400, size=50)).estimate) < 0.02


def test_collapsed_models_have_no_score():
    assert np.isnan(score(np.array([0.0, 1.0]), np.array([0.0, 2.0]))).tolist() == [True, False]


def test_leaving_out_a_sample_equals_computing_again():
    a, b = images(0.8, n=9)
    metric = METRICS.build("mse")

    def estimate(keep):
        u, v = metric.embed(a[keep]), metric.embed(b[keep])
        return 1 - metric.between(u, v).mean() / metric.null(u, v).mean()

    replicates = np.array([float(estimate([j for j in range(9) if j != i])) for i in range(9)])
    error = np.sqrt(8 / 9 * ((replicates - replicates.mean()) ** 2).sum())
    interval = mse_score(a, b)
    ratio = 1 - interval.estimate
    assert np.log((1 - interval.low) / ratio) == pytest.approx(2.306004 * error / ratio, rel=1e-6)
    assert np.log((1 - interval.high) / ratio) == pytest.approx(-2.306004 * error / ratio, rel=1e-6)


def test_the_noise_interval_covers_the_truth():
    truth, hits, trials = 0.8, 0, 400
    for seed in range(trials):
        interval = mse_score(*images(0.8, n=40, size=4, seed=seed))
        hits += bool(interval.low <= truth <= interval.high)
    assert 0.92 <= hits / trials <= 0.98


def alike(d, axis=1):
    """Distances of pairs as those of three samples that are all alike, with their nulls: what varies are the models."""
    return tuple(np.repeat(np.expand_dims(x, axis), 3, axis) for x in (d, np.full_like(d, 4.0)))


def model_bootstrap(d, models, rng, draws=400):
    """The percentile interval of the mean over pairs when models are drawn again, pairs of a model with itself left out."""
    first, second = np.transpose(pairs_of(models))
    times = np.stack([np.bincount(chosen, minlength=models) for chosen in rng.integers(models, size=(draws, models))])
    weights = times[:, first] * times[:, second]
    weights = weights[weights.sum(1) > 0]
    return np.quantile(weights @ d / weights.sum(1), [0.025, 0.975])


@pytest.mark.parametrize("models", [4, 6, 8])
def test_the_family_interval_covers_where_pairs_as_if_independent_do_not(models):
    # d_ij = mu + a_i + a_j + e: pairs share models.
    rng = np.random.default_rng(models)
    (first, second), trials, mu = np.transpose(pairs_of(models)), 1500, 1.0
    own = rng.normal(scale=0.1, size=(models, trials))
    d = mu + own[first] + own[second] + 0.05 * rng.normal(size=(len(first), trials))
    interval = family_score(*alike(d), models)
    half = 1.96 * d.std(0, ddof=1) / len(d) ** 0.5
    bootstrap = np.array([model_bootstrap(each, models, rng) for each in d.T[:300]])
    assert 0.92 <= np.mean((interval.low <= 1 - mu / 4) & (1 - mu / 4 <= interval.high)) <= 0.98
    assert np.mean(np.abs(d.mean(0) - mu) <= half) < 0.9
    assert np.mean((bootstrap[:, 0] <= mu) & (mu <= bootstrap[:, 1])) < 0.91


def test_pairs_come_in_order():
    assert pairs_of(3) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(("first", "second"), [(4, 4), (4, 6), (8, 8)])
def test_the_cross_family_interval_covers(first, second):
    rng = np.random.default_rng(first + 10 * second)
    trials, mu = 1500, 1.0
    a, b = rng.normal(scale=0.1, size=(first, 1, trials)), rng.normal(scale=0.1, size=(second, trials))
    interval = cross_score(*alike(mu + a + b + 0.05 * rng.normal(size=(first, second, trials)), 2), first, second)
    assert 0.92 <= np.mean((interval.low <= 1 - mu / 4) & (1 - mu / 4 <= interval.high)) <= 0.98


def test_the_score_within_pooled_families_covers():
    rng, trials, mu, n = np.random.default_rng(5), 800, 1.0, 4
    own = rng.normal(scale=0.1, size=(2 * n, trials))
    d = mu + own[:, None] + own + 0.05 * rng.normal(size=(2 * n, 2 * n, trials))
    d = np.where(np.tri(2 * n, dtype=bool)[..., None], d.swapaxes(0, 1), d)
    interval = within_score(*alike(d, 2), (n, n))
    assert 0.92 <= np.mean((interval.low <= 1 - mu / 4) & (1 - mu / 4 <= interval.high)) <= 0.98


def test_one_family_within_is_the_family_score():
    rng = np.random.default_rng(0)
    d, null = rng.random((4, 4, 7)), 5 + rng.random((4, 4, 7))
    d, null = d + d.swapaxes(0, 1), null + null.swapaxes(0, 1)
    pairs = pairs_of(4)
    one = family_score(*(np.array([x[i, j] for i, j in pairs]) for x in (d, null)), 4)
    assert np.allclose(within_score(d, null, (4,)), one)


def squares(vectors):
    """Distance and null of each of some models with each, per sample: ``(models, models, N)``."""
    metric = METRICS.build("mse")
    kept = [metric.embed(torch.from_numpy(x)[:, None, None]) for x in vectors]
    return tuple(
        np.stack([np.stack([f(u, v).numpy() for v in kept]) for u in kept]) for f in (metric.between, metric.null)
    )


def over(vectors, pairs_of_groups):
    """The score over groups of pairs, of which each counts as much as it has pairs when no model is left out."""
    distance, null = squares(vectors)
    total = sum(weight for weight, _ in pairs_of_groups)
    d, u = (
        sum(w * np.mean([x[i, j].mean() for i, j in pairs]) for w, pairs in pairs_of_groups) / total
        for x in (distance, null)
    )
    return 1 - d / u


def two_way(vectors, families, groups_of_pairs):
    """The interval with every (model, sample) left out by computing again, and the variances written out."""
    n, whole = len(vectors[0]), groups_of_pairs(())
    estimate = over(vectors, whole)
    squared, freedom, crossed, columns = 0.0, 0.0, 0.0, []
    for family in families:
        table = np.array(
            [
                [over([np.delete(x, i, 0) for x in vectors], groups_of_pairs((model,))) for i in range(n)]
                for model in family
            ]
        )
        k = len(family)
        part = (k - 1) ** 2 / k * table.mean(1).var(ddof=1)
        both = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
        crossed += (k - 1) / k * (n - 1) / n * (both**2).sum()
        squared, freedom = squared + part, freedom + part**2 / (k - 1)
        columns.append(table.mean(0))
    noise = max((n - 1) ** 2 / n * np.mean(columns, 0).var(ddof=1) - crossed, 0.0)
    half = np.sqrt(stats.t.ppf(0.975, squared**2 / freedom) ** 2 * squared + stats.t.ppf(0.975, n - 1) ** 2 * noise)
    ratio = 1 - estimate
    return estimate, 1 - ratio * np.exp(half / ratio), 1 - ratio * np.exp(-half / ratio)


def some_models(count, samples=5, seed=0):
    rng = np.random.default_rng(seed)
    common = np.exp(0.5 * rng.normal(size=(samples, 1))) * rng.normal(size=(samples, 5))
    return [common + e * rng.normal(size=common.shape) for e in rng.uniform(0.3, 0.7, count)]


def test_the_two_way_interval_of_a_family_is_that_of_computing_again():
    vectors = some_models(4)
    distance, null = (x[tuple(zip(*pairs_of(4), strict=True))] for x in squares(vectors))
    expected = two_way(
        vectors, [range(4)], lambda out: [(6, [pair for pair in pairs_of(4) if not set(out) & set(pair)])]
    )
    assert np.allclose(family_score(distance, null, 4), expected, rtol=1e-9)


def test_the_two_way_interval_between_families_is_that_of_computing_again():
    vectors, families = some_models(5), [range(2), range(2, 5)]
    distance, null = (x[:2, 2:] for x in squares(vectors))
    pairs = [(i, j) for i in families[0] for j in families[1]]
    expected = two_way(vectors, families, lambda out: [(6, [pair for pair in pairs if not set(out) & set(pair)])])
    assert np.allclose(cross_score(distance, null, 2, 3), expected, rtol=1e-9)


def test_the_two_way_interval_within_families_keeps_the_weight_of_a_family_that_loses_a_model():
    vectors, families = some_models(7), [range(3), range(3, 7)]

    def pairs(out):
        inside = [[(i, j) for i in family for j in family if i < j] for family in families]
        return [(len(every), [pair for pair in every if not set(out) & set(pair)]) for every in inside]

    assert np.allclose(within_score(*squares(vectors), (3, 4)), two_way(vectors, families, pairs), rtol=1e-9)


def test_two_samples_have_a_score_and_no_interval():
    distance, null = np.ones((3, 2)), np.full((3, 2), 4.0)
    interval = family_score(distance, null, 3)
    assert interval.estimate == 0.75
    assert np.isnan([interval.low, interval.high]).all()


def test_models_that_are_equal_have_the_interval_one():
    for interval in (family_score(np.zeros((3, 5)), np.ones((3, 5)), 3), pair_score(np.zeros(5), np.ones(5))):
        assert np.array_equal(np.stack(interval), [1.0, 1.0, 1.0])


def test_two_equal_models_among_three_leave_a_finite_interval():
    distance = np.array([0.0, 1.0, 1.1])[:, None] * np.ones((3, 6))
    interval = family_score(distance, np.full((3, 6), 4.0), 3)
    assert np.isfinite(interval.low)
    assert interval.low < interval.estimate < interval.high <= 1


def measured_across(first, second):
    """Squared distances and nulls of every model of one family ``(K, N, 1, 1, F)`` with every one of another."""
    metric = METRICS.build("mse")
    pairs = [(metric.embed(torch.from_numpy(a)), metric.embed(torch.from_numpy(b))) for a in first for b in second]
    shape = (len(first), len(second), -1)
    return [np.reshape([of(a, b).numpy() for a, b in pairs], shape) for of in (metric.between, metric.null)]


def shared_and_own(models=3, n=40, features=6, seed=0):
    """Two families that share a strong part and a weak one, and the strong part: images ``(K, N, 1, 1, F)``."""
    rng = np.random.default_rng(seed)
    strong, weak = (scale * rng.normal(size=(n, 1, 1, features)) for scale in (2.0, 1.0))
    own = 0.5 * rng.normal(size=(2, models, n, 1, 1, features))
    return strong + weak + own[0], strong + weak + own[1], strong


def test_the_explained_share_is_a_share_of_covariance():
    a, b, strong = shared_and_own(n=4000)
    share = explained_share(measured_across(a, b), measured_across(a - strong, b - strong), 3, 3)
    assert share.estimate == pytest.approx(4 / 5, abs=0.01)  # of variances 4 and 1
    assert share.low < 4 / 5 < share.high
    nothing = explained_share(measured_across(a, b), measured_across(a, b), 3, 3)
    assert nothing.estimate == pytest.approx(0, abs=1e-9)
    hidden = explained_share(measured_across(a - 2 * strong, b), measured_across(a, b), 3, 3)
    assert np.isnan(hidden.estimate)  # they agree on nothing that could be shared out


def test_its_interval_leaves_out_each_model_and_each_sample_computed_again():
    a, b, strong = shared_and_own(n=9)
    whole, left = measured_across(a, b), measured_across(a - strong, b - strong)

    def again(rows, columns, samples):
        def part(x, y):
            return measured_across(x[rows][:, samples], y[columns][:, samples])

        (d, u), (e, v) = part(a, b), part(a - strong, b - strong)
        return 1 - (v.mean() - e.mean()) / (u.mean() - d.mean())

    every, of_models = np.arange(3), []
    for side in range(2):
        of_models.append(
            np.array(
                [
                    [
                        again(*((kept, every) if side == 0 else (every, kept)), np.delete(np.arange(9), i))
                        for i in range(9)
                    ]
                    for kept in (np.delete(every, k) for k in range(3))
                ]
            )
        )
    expected = crossed_jackknife(np.array(again(every, every, np.arange(9))), of_models)
    np.testing.assert_allclose(explained_share(whole, left, 3, 3), expected, rtol=1e-6)
