import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.metrics.distances import METRICS
from consistency_lab.similarity.controls import (
    add_ceiling,
    add_references,
    ceiling_measured,
    references_measured,
    walked_twice,
)
from consistency_lab.similarity.statistics import pairs_of
from consistency_lab.similarity.trajectories import ModelWalks, Trajectories

N = 12


def walk(name, images):
    """A trajectory of two times, ``(N, D)`` each."""
    images = torch.as_tensor(images, dtype=torch.float32)
    return Trajectories(name, torch.stack([0.5 * images, images])[:, :, None, None])


def family(rng, rhos, reference):
    """Models whose images are correlated by rho with a reference's, and with each other's by what is left."""
    shared = rng.normal(size=reference.shape)
    return [
        walk(f"m{k}", rho * reference + np.sqrt(1 - rho**2) * (0.8 * shared + 0.6 * rng.normal(size=reference.shape)))
        for k, rho in enumerate(rhos)
    ]


def referred(walked, references, *metrics, labels=None):
    """What the references say of models of one schedule, which share them."""
    count, nothing = len(walked), torch.zeros(len(pairs_of(len(walked))), 2)
    walks = ModelWalks(
        walked, list(range(count)), [torch.empty(0)] * count, pairs_of(count), nothing, nothing, [references] * count
    )
    result = xr.Dataset(coords={"metric": list(metrics)})
    distances = [METRICS.build(m) for m in metrics]
    add_references(result, references_measured(walks, distances, labels), distances)
    return result


@pytest.mark.parametrize("labels", [None, np.arange(N) % 3])
@pytest.mark.parametrize("metric", ["mse", "cosine", "ssim"])
def test_the_data_mean_is_no_more_alike_than_under_other_noise_to_rounding(metric, labels):
    rng = np.random.default_rng(0)
    pictures = torch.as_tensor(rng.uniform(-1, 1, size=(2, 2, N, 1, 16, 16)), dtype=torch.float32)
    mean = Trajectories(
        "mean",
        torch.as_tensor(rng.uniform(-1, 1, size=(1, 1, 1, 16, 16)), dtype=torch.float32).expand(2, N, -1, -1, -1),
    )
    result = referred([Trajectories("a", pictures[0]), Trajectories("b", pictures[1])], [mean], metric, labels=labels)
    for name in ("reference_score", "reference_mean_score"):
        low, score, high = (result[f"{name}{end}"].values for end in ("_low", "", "_high"))
        assert (np.abs(score) <= 1e-9).all()
        assert (low <= 1e-12).all()
        assert (high >= -1e-12).all()
        if labels is None:  # within labels the interval still counts how labels differ, and is a little too wide
            assert (high - low <= 1e-6).all()


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_intervals_of_references_are_those_of_leaving_out_a_sample_and_computing_again(metric):
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(N, 6))
    walked, other = family(rng, (0.9, 0.5, 0.7), reference), walk("gaussian", reference)

    def estimate(keep):
        tables = []
        for model in walked:
            a, b = model.estimates[-1][keep].flatten(1).double(), other.estimates[-1][keep].flatten(1).double()
            if metric == "cosine":
                a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
                tables.append(1 - a @ b.T)
            else:
                tables.append((a[:, None] - b[None]).pow(2).mean(2))
        table = torch.stack(tables).mean(0)
        return float(1 - table.diagonal().mean() / table[~torch.eye(len(keep), dtype=torch.bool)].mean())

    everyone = list(range(N))
    replicates = np.array([estimate([j for j in everyone if j != i]) for i in everyone])
    half = 2.200985 * np.sqrt((N - 1) / N * ((replicates - replicates.mean()) ** 2).sum())
    result = referred(walked, [other], metric).isel(reference=0, t=-1, metric=0)
    assert float(result["reference_mean_score"]) == pytest.approx(estimate(everyone), abs=1e-6)
    ratio = 1 - estimate(everyone)
    for end, sign in (("low", 1), ("high", -1)):
        bound = 1 - ratio * np.exp(sign * half / ratio)
        assert float(result[f"reference_mean_score_{end}"]) == pytest.approx(bound, rel=1e-4)


def test_the_interval_of_a_reference_covers_the_truth():
    # Unit variances: E d(A_i, R_i) = 2 (1 - rho) and E d(A_i, R_j) = 2 in every pixel, so the score is the mean of rho.
    hits, trials, rhos = 0, 300, (0.5, 0.8)
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        reference = rng.normal(size=(40, 4))
        result = referred(family(rng, rhos, reference), [walk("gaussian", reference)], "mse")
        one = result.isel(reference=0, t=-1, metric=0)
        hits += bool(one["reference_mean_score_low"] <= np.mean(rhos) <= one["reference_mean_score_high"])
    assert 0.92 <= hits / trials <= 0.98


def test_the_ceiling_of_some_samples_is_that_of_a_comparison_of_these_alone():
    rng = np.random.default_rng(5)
    walked = [walk(f"m{k}", rng.normal(size=(N, 6))) for k in range(2)]
    twice = [0, 2, 3, 7, 8]
    again = [walk(w.name, w.estimates[-1, twice].flatten(1).numpy() + 0.3 * rng.normal(size=(5, 6))) for w in walked]
    distances = [METRICS.build("mse")]
    some, alone = xr.Dataset(), xr.Dataset()
    add_ceiling(some, ceiling_measured(walked, again, distances, None, twice), distances)
    only = [walk(w.name, w.estimates[-1, twice].flatten(1).numpy()) for w in walked]
    add_ceiling(alone, ceiling_measured(only, again, distances), distances)
    np.testing.assert_array_equal(some["ceiling"].isel(sample=twice), alone["ceiling"])
    assert some["ceiling"].isel(sample=[k for k in range(N) if k not in twice]).isnull().all()
    for end in ("", "_low", "_high"):
        np.testing.assert_array_equal(some[f"ceiling_score{end}"], alone[f"ceiling_score{end}"])
    assert ceiling_measured(walked, [w._replace(estimates=w.estimates[:, :0]) for w in again], distances, None, [])[
        "ceiling"
    ][1].shape == (2, N, 1)


def test_a_quarter_of_the_samples_is_walked_twice_of_every_label():
    assert walked_twice(256).tolist() == list(range(64))
    assert walked_twice(20).tolist() == list(range(20))
    assert len(walked_twice(100)) == 32
    labels = np.arange(400) % 10
    found = walked_twice(400, labels)
    assert np.bincount(labels[found]).tolist() == [10] * 10
    rare = np.array([0] * 200 + [1] * 3 + [2] * 2)
    assert np.bincount(rare[walked_twice(205, rare)]).tolist() == [50, 3, 2]


def test_the_ceiling_has_its_own_null_and_never_exceeds_one():
    rng = np.random.default_rng(2)
    images = [rng.normal(size=(N, 6)) for _ in range(2)]
    walked = [walk(f"m{k}", x) for k, x in enumerate(images)]
    again = [
        walk(f"m{k}", x + 0.3 * rng.normal(size=x.shape) * (np.arange(N) == 3)[:, None]) for k, x in enumerate(images)
    ]
    result = xr.Dataset()
    distances = [METRICS.build("mse"), METRICS.build("psnr")]
    add_ceiling(result, ceiling_measured(walked, again, distances), distances)
    tables = [
        (a.estimates[-1].flatten(1)[:, None] - b.estimates[-1].flatten(1)[None]).pow(2).mean(2)
        for a, b in zip(walked, again, strict=True)
    ]
    table = torch.stack(tables).mean(0).double()
    expected = 1 - table.diagonal().mean() / table[~torch.eye(N, dtype=torch.bool)].mean()
    score, low, high = (result[f"ceiling_score{end}"].values for end in ("", "_low", "_high"))
    assert score[0] == pytest.approx(float(expected), rel=1e-5)
    assert low[0] < score[0] < high[0] < 1  # one sample alone differs: an interval symmetric in the score would pass 1
    assert np.isnan([score[1], low[1], high[1]]).all()  # PSNR is never scored
    assert result["ceiling_null"].sizes == {"model": 2, "sample": N, "metric": 2}
