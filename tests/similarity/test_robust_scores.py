"""Scores that a few exploded samples do not decide, against brute force."""

import numpy as np
import pytest
import torch

from consistency_lab.intervals import jackknife
from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity.statistics import pairs_of, score
from consistency_lab.similarity.typical import leave_one_out, linear_trimmed_score, pseudo_values, worst_share


def embedded(models, samples, size=12, error=0.4, seed=0, shared=1.0):
    rng = np.random.default_rng(seed)
    common = shared * rng.normal(size=(samples, size))
    return [common + error * rng.normal(size=(samples, size)) for _ in range(models)]


def pairwise_distances(vectors):
    """Distances and nulls of all pairs, each ``(pairs, N)``."""
    metric, values = METRICS.build("mse"), []
    images = [metric.embed(torch.from_numpy(x)[:, None, None]) for x in vectors]
    for i, j in pairs_of(len(vectors)):
        values.append((metric.between(images[i], images[j]).numpy(), metric.null(images[i], images[j]).numpy()))
    distance, null = zip(*values, strict=True)
    return np.stack(distance), np.stack(null)


def plain(vectors):
    distance, null = pairwise_distances(vectors)
    return float(score(distance.mean(), null.mean()))


def exploded(vectors, model=1, sample=3, factor=12.0):
    changed = [x.copy() for x in vectors]
    changed[model][sample] *= factor
    return changed


def without(vectors, sample):
    return [np.delete(x, sample, axis=0) for x in vectors]


def test_pseudo_values_leave_out_a_sample_exactly():
    vectors = embedded(2, 9)
    parts = pseudo_values(pairwise_distances(vectors)[1][0])
    assert parts.mean() == pytest.approx(pairwise_distances(vectors)[1].mean(), rel=1e-12)
    for sample in range(9):
        null = pairwise_distances(without(vectors, sample))[1].mean()
        assert np.delete(parts, sample).mean() == pytest.approx(null, rel=1e-12)


@pytest.mark.parametrize("samples", [20, 30])
def test_the_trimmed_score_is_that_of_the_samples_between_the_tenths(samples):
    distance, null = pairwise_distances(embedded(3, samples))
    tenth = samples // 10
    kept = np.sort(np.argsort(distance.mean(0))[tenth : samples - tenth])
    expected = 1 - distance[:, kept].mean() / pseudo_values(null.mean(0))[kept].mean()
    assert float(linear_trimmed_score(distance, null, 3).estimate) == pytest.approx(expected, rel=1e-12)


def test_the_null_of_the_trimmed_score_is_nearly_that_of_the_kept_samples_among_themselves():
    vectors = embedded(2, 40, seed=4)
    distance, null = pairwise_distances(vectors)
    kept = np.sort(np.argsort(distance.mean(0))[4:36])
    assert float(linear_trimmed_score(distance, null, 2).estimate) == pytest.approx(
        plain([x[kept] for x in vectors]), abs=0.005
    )


def test_a_tenth_that_is_not_whole_leaves_samples_in_part():
    distance, null = np.arange(1.0, 13)[None], np.full((1, 12), 20.0)  # 1.2 of 12 at either end
    mean = (0.8 * 2 + sum(range(3, 11)) + 0.8 * 11) / 9.6
    assert float(linear_trimmed_score(distance, null, 2).estimate) == pytest.approx(1 - mean / 20, rel=1e-12)


def test_the_interval_of_a_trimmed_pair_is_the_jackknife_of_its_samples():
    distance, null = pairwise_distances(embedded(2, 23, seed=2))
    parts = pseudo_values(null[0])

    def estimate(d, v):
        order, n = np.argsort(d), len(d)
        fine = np.linspace(0, 1, 1000 * n + 1)[:-1] + 0.5 / (1000 * n)  # every sample as a thousand equal parts
        chosen = order[(fine[(fine > 0.1) & (fine < 0.9)] * n).astype(int)]
        return 1 - d[chosen].mean() / v[chosen].mean()

    left = np.array([estimate(np.delete(distance[0], i), np.delete(parts, i)) for i in range(23)])
    whole, _, high = jackknife(np.array(estimate(distance[0], parts)), left)
    ratio, half = 1 - whole, high - whole
    expected = (whole, 1 - ratio * np.exp(half / ratio), 1 - ratio * np.exp(-half / ratio))
    assert np.allclose(linear_trimmed_score(distance, null, 2), expected, rtol=0, atol=1e-9)


def test_robust_scores_are_the_plain_one_where_no_tail_is_heavy():
    vectors = embedded(4, 400, size=60)
    distance, null = pairwise_distances(vectors)
    assert float(linear_trimmed_score(distance, null, 4).estimate) == pytest.approx(plain(vectors), abs=0.004)


def test_one_exploded_sample_decides_the_mean_and_not_the_robust_scores():
    vectors = embedded(4, 60)
    broken = exploded(vectors)
    (d, u), (d2, u2) = pairwise_distances(vectors), pairwise_distances(broken)
    assert plain(vectors) - plain(broken) > 0.2
    assert float(linear_trimmed_score(d2, u2, 4).estimate) == pytest.approx(
        float(linear_trimmed_score(d, u, 4).estimate), abs=0.01
    )
    interval = linear_trimmed_score(d2, u2, 4)
    assert interval.high - interval.low < 0.1


@pytest.mark.parametrize("factor", [4.0, 10.0, 30.0])  # distances 15 to 900 times as large
def test_however_much_a_sample_explodes_the_robust_null_is_rid_of_it(factor):
    distance, null = pairwise_distances(embedded(2, 50))
    broken, its_null = pairwise_distances(exploded(embedded(2, 50), factor=factor))
    calm, rid = (float(linear_trimmed_score(*each, 2).estimate) for each in ((distance, null), (broken, its_null)))
    assert rid == pytest.approx(calm, abs=0.012)


def test_unrelated_models_score_nothing_even_when_some_samples_are_hard_for_all():
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        hard = np.exp(0.7 * rng.normal(size=(200, 1)))
        distance, null = pairwise_distances([hard * rng.normal(size=(200, 30)) for _ in range(3)])
        found.append(float(linear_trimmed_score(distance, null, 3).estimate))
    assert abs(np.mean(found)) < 0.01


def test_robust_scores_go_through_times_and_metrics_alike():
    parts = [pairwise_distances(embedded(3, 15, seed=seed)) for seed in range(4)]
    distance, null = (np.stack(x, -1).reshape(3, 15, 2, 2) for x in zip(*parts, strict=True))
    whole, rest = linear_trimmed_score(distance, null, 3), leave_one_out(distance, null, 3)
    share = worst_share(distance.mean(0))
    for k, (d, u) in enumerate(parts):
        at = (k // 2, k % 2)
        assert np.allclose([part[at] for part in whole], linear_trimmed_score(d, u, 3))
        alone = leave_one_out(d, u, 3)
        assert rest.odd[at] == alone.odd
        assert np.allclose([part[at] for part in rest.rise], alone.rise)
        assert (share.share[at], share.sample[at]) == worst_share(d.mean(0))


def test_what_is_not_scored_has_no_robust_score():
    distance, null = np.full((3, 8, 2), np.nan), np.full((3, 8, 2), np.nan)
    distance[..., 0], null[..., 0] = pairwise_distances(embedded(3, 8))
    left = leave_one_out(distance, null, 3)
    assert np.isnan(linear_trimmed_score(distance, null, 3).low).tolist() == [False, True]
    assert left.odd[1] == -1
    assert np.isnan(left.rise.estimate).tolist() == [False, True]


def test_the_worst_sample_and_its_share():
    distance = np.array([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
    found = worst_share(distance, axis=1)
    assert found.sample.tolist() == [2, -1, -1]
    assert found.share[0] == 5 / 8
    assert np.isnan(found.share[1:]).all()
    assert (worst_share(distance.T).sample == found.sample).all()


def test_leaving_out_a_model_is_comparing_the_others():
    vectors = embedded(4, 12)
    vectors[2] = vectors[2] + np.random.default_rng(9).normal(size=vectors[2].shape)
    distance, null = pairwise_distances(vectors)
    found = leave_one_out(distance, null, 4)
    rest = [plain([x for k, x in enumerate(vectors) if k != out]) for out in range(4)]
    assert np.allclose(found.score, rest, rtol=1e-12)
    assert found.odd == 2
    assert float(found.rise.estimate) == pytest.approx(rest[2] - plain(vectors), rel=1e-9)
    left = [
        [plain([x for k, x in enumerate(without(vectors, i)) if k != 2]), plain(without(vectors, i))] for i in range(12)
    ]
    expected = jackknife(found.rise.estimate, np.subtract(*np.transpose(left)), level=1 - 0.05 / 4)
    assert np.allclose(found.rise, expected)


def test_the_rise_of_the_odd_one_covers_what_many_noises_say():
    # Models of known error, the rise from their closed form: 1 - E d / E null over all pairs, with and without the odd one.
    error = np.array([0.3, 0.35, 0.4, 0.6])

    def truth(chosen):
        shared, own = 1.0, np.mean([error[i] ** 2 + error[j] ** 2 for i, j in pairs_of(4) if {i, j} <= set(chosen)])
        return 1 - own / (2 * shared + own)

    hits, trials = 0, 300
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(60, 8))
        found = leave_one_out(*pairwise_distances([common + e * rng.normal(size=common.shape) for e in error]), 4)
        true = truth(set(range(4)) - {int(found.odd)}) - truth(range(4))
        hits += bool(found.rise.low <= true <= found.rise.high)
    assert hits / trials > 0.95
