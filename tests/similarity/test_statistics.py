import numpy as np
import pytest

from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity.statistics import cross_score, family_score, pair_score, pairs_of, score, within_score


def images(rho, n=50, size=6, seed=0, scale=1.0, shift=0.0):
    import torch

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
    assert (interval.high - interval.estimate) == pytest.approx(2.306004 * error, rel=1e-6)


def test_the_noise_interval_covers_the_truth():
    truth, hits, trials = 0.8, 0, 400
    for seed in range(trials):
        interval = mse_score(*images(0.8, n=40, size=4, seed=seed))
        hits += bool(interval.low <= truth <= interval.high)
    assert 0.92 <= hits / trials <= 0.98


def model_bootstrap(d, models, rng, draws=400):
    """The percentile interval of the mean over pairs when models are drawn again, pairs of a model with itself left out."""
    square = np.full((models, models), np.nan)
    for value, (i, j) in zip(d, pairs_of(models), strict=True):
        square[i, j] = square[j, i] = value
    chosen = rng.integers(models, size=(draws, models))
    means = [np.nanmean(square[np.ix_(c, c)]) for c in chosen if len(set(c.tolist())) > 1]
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("models", [4, 6, 8])
def test_the_family_interval_covers_where_pairs_as_if_independent_do_not(models):
    # d_ij = mu + a_i + a_j + e: pairs share models.
    rng = np.random.default_rng(models)
    pairs, trials, mu = pairs_of(models), 1500, 1.0
    hits, naive, bootstrap = 0, 0, 0
    for trial in range(trials):
        own = rng.normal(scale=0.1, size=models)
        d = np.array([mu + own[i] + own[j] + 0.05 * rng.normal() for i, j in pairs])
        interval = family_score(d, np.full(len(d), 4.0), models)
        hits += bool(interval.low <= 1 - mu / 4 <= interval.high)
        half = 1.96 * d.std(ddof=1) / len(d) ** 0.5
        naive += bool(abs(d.mean() - mu) <= half)
        if trial < 300:
            low, high = model_bootstrap(d, models, rng)
            bootstrap += bool(low <= mu <= high)
    assert 0.92 <= hits / trials <= 0.98
    assert naive / trials < 0.9
    assert bootstrap / 300 < 0.91


def test_pairs_come_in_order():
    assert pairs_of(3) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(("first", "second"), [(4, 4), (4, 6), (8, 8)])
def test_the_cross_family_interval_covers(first, second):
    rng = np.random.default_rng(first + 10 * second)
    hits, trials, mu = 0, 1500, 1.0
    for _ in range(trials):
        a, b = rng.normal(scale=0.1, size=first), rng.normal(scale=0.1, size=second)
        d = mu + a[:, None] + b + 0.05 * rng.normal(size=(first, second))
        interval = cross_score(d, np.full_like(d, 4.0), first, second)
        hits += bool(interval.low <= 1 - mu / 4 <= interval.high)
    assert 0.92 <= hits / trials <= 0.99  # t with the smaller family's degrees of freedom is careful


def test_the_score_within_pooled_families_covers():
    rng, hits, trials, mu, n = np.random.default_rng(5), 0, 800, 1.0, 4
    for _ in range(trials):
        own = rng.normal(scale=0.1, size=2 * n)
        d = mu + own[:, None] + own + 0.05 * rng.normal(size=(2 * n, 2 * n))
        d = np.triu(d, 1) + np.triu(d, 1).T
        interval = within_score(d, np.full_like(d, 4.0), (n, n))
        hits += bool(interval.low <= 1 - mu / 4 <= interval.high)
    assert 0.92 <= hits / trials <= 0.99


def test_one_family_within_is_the_family_score():
    rng = np.random.default_rng(0)
    d = rng.random((4, 4))
    d = d + d.T
    pairs = pairs_of(4)
    one = family_score(np.array([d[i, j] for i, j in pairs]), np.full(6, 5.0), 4)
    assert np.allclose(within_score(d, np.full((4, 4), 5.0), (4,)), one)
