import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.kid import poly_mmd

from consistency_lab.errors import UserError
from consistency_lab.metrics import quality
from consistency_lab.metrics.inception import INCEPTION
from consistency_lab.metrics.quality import (
    Moments,
    Reference,
    frechet_distance,
    kernel_distance,
    measure,
    moments,
)


def normal(n, f=6, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, f, generator=generator, dtype=torch.float64)


def covariance(f, seed, rank=None):
    factor = normal(f, rank or f, seed)
    return factor @ factor.T


def gaussian(mean, variance, f=5):
    return Moments(torch.full((f,), mean, dtype=torch.float64), variance * torch.eye(f, dtype=torch.float64))


def test_frechet_of_isotropic_gaussians():
    # |m1 - m2|^2 + F (s1 - s2)^2
    assert frechet_distance(gaussian(1.0, 4.0), gaussian(-1.0, 9.0)) == pytest.approx(5 * 4 + 5 * 1, abs=1e-12)
    assert frechet_distance(gaussian(0.3, 4.0), gaussian(0.3, 4.0)) == pytest.approx(0.0, abs=1e-12)


def test_frechet_of_covariances_that_commute():
    rotation = torch.linalg.qr(normal(6, 6, seed=3))[0]
    a, b = torch.arange(1.0, 7).double(), torch.tensor([2.0, 0, 5, 1, 0, 3]).double()
    mean = torch.zeros(6, dtype=torch.float64)
    found = frechet_distance(Moments(mean, (rotation * a) @ rotation.T), Moments(mean, (rotation * b) @ rotation.T))
    assert found == pytest.approx(float((a.sqrt() - b.sqrt()).pow(2).sum()), abs=1e-6)


def test_frechet_of_any_gaussians_equals_the_matrix_root():
    a, b = covariance(8, 1), covariance(8, 2)
    mean_a, mean_b = normal(1, 8, 3)[0], normal(1, 8, 4)[0]
    expected = float((mean_a - mean_b).pow(2).sum() + (a + b).trace()) - 2 * np.trace(sqrtm((a @ b).numpy())).real
    found = frechet_distance(Moments(mean_a, a), Moments(mean_b, b))
    assert found == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(Moments(mean_b, b), Moments(mean_a, a)) == pytest.approx(found, rel=1e-9)


def test_frechet_of_singular_covariances():
    mean = torch.zeros(12, dtype=torch.float64)
    flat = Moments(mean, covariance(12, 1, rank=3))
    assert frechet_distance(flat, flat) == pytest.approx(0.0, abs=1e-5)
    point = Moments(mean, torch.zeros(12, 12, dtype=torch.float64))
    assert frechet_distance(flat, point) == pytest.approx(float(flat.covariance.trace()))
    assert frechet_distance(point, point) == 0.0


def test_frechet_of_samples_approaches_that_of_their_gaussians():
    a, b = moments(normal(20_000, 3, 0)), moments(normal(20_000, 3, 1, shift=1.0, scale=2.0))
    assert frechet_distance(a, b) == pytest.approx(3 * 1 + 3 * 1, rel=0.05)


def test_moments_are_numpys():
    features = normal(30)
    mean, cov = moments(features.float())
    assert np.allclose(cov, np.cov(features.numpy().T), atol=1e-6)
    assert np.allclose(mean, features.numpy().mean(0), atol=1e-6)
    assert moments(normal(5, 1)).covariance.shape == (1, 1)


def test_the_kernel_distance_equals_torchmetrics(monkeypatch):
    real, samples = normal(50), normal(50, seed=1, shift=0.3)
    expected = float(poly_mmd(real, samples))
    for rows in (2048, 7):
        monkeypatch.setattr(quality, "_ROWS", rows)
        assert kernel_distance(Reference(real, "x"), samples) == pytest.approx(expected, rel=1e-9)


def test_the_kernel_distance_is_unbiased():
    rounds = [kernel_distance(Reference(normal(20, seed=s), "x"), normal(35, seed=1000 + s)) for s in range(300)]
    assert abs(np.mean(rounds)) < 4 * np.std(rounds) / math.sqrt(len(rounds))
    assert min(rounds) < 0


def test_every_measure_has_a_name_and_an_interval():
    found = measure(Reference(normal(200), "digits classifier features"), normal(150, seed=1, shift=0.5))
    assert [m.name for m in found] == [
        f"{name} (digits classifier features)"
        for name in ("Frechet distance", "kernel distance", "precision", "recall", "density", "coverage")
    ]
    assert all(m.low < m.value < m.high for m in found)
    assert all(m.samples == 150 for m in found)
    assert [m.better for m in found] == ["lower"] * 2 + ["higher"] * 4


def test_only_inceptions_features_make_a_fid():
    names = [m.name for m in measure(Reference(normal(30), INCEPTION), normal(30, seed=1))]
    assert names[:3] == ["FID", "KID", f"precision ({INCEPTION})"]


def test_order_changes_no_value():
    reference, samples = Reference(normal(60), "x"), normal(50, seed=1)
    there = measure(reference, samples)
    back = measure(Reference(normal(60).flip(0), "x"), samples.flip(0))
    assert [m.value for m in back] == pytest.approx([m.value for m in there], rel=1e-9)


def test_features_far_from_the_origin_keep_their_digits():
    near = measure(Reference(normal(60), "x"), normal(50, seed=1))
    far = measure(Reference(normal(60) + 1e4, "x"), normal(50, seed=1) + 1e4)
    for place in (0, 2, 3, 4, 5):  # the polynomial kernel does depend on the origin
        assert far[place].value == pytest.approx(near[place].value, rel=1e-6)


def test_intervals_cover_the_truth():
    # Samples of N(1, 1) in one dimension beside a reference of which mean and variance are as good as known.
    reference = Reference(normal(4000, 1), "x")
    truth = float((1 - reference.moments.mean).pow(2) + (1 - reference.moments.covariance.sqrt()).pow(2))
    rounds = 60
    hits = 0
    for seed in range(rounds):
        estimate, low, high, _ = quality._with_interval(
            lambda part: torch.tensor([frechet_distance(reference.moments, moments(part))]),
            normal(100, 1, seed=10 + seed, shift=1.0),
            20,
            2,
        )
        assert low < estimate < high
        hits += bool(low[0] <= truth <= high[0])
    assert hits >= 0.87 * rounds  # 95 % of 60 is 57, three deviations below are 52


def test_a_perfect_share_stays_within_one():
    found = {m.name.split(" (")[0]: m for m in measure(Reference(normal(100), "x"), normal(100))}
    assert found["precision"].value == found["precision"].high == 1.0
    assert found["Frechet distance"].value == pytest.approx(0.0, abs=1e-6)
    assert found["Frechet distance"].low >= 0
    assert found["coverage"].high <= 1.0


def test_too_few_samples_have_no_interval():
    found = measure(Reference(normal(30), "x"), normal(6, seed=1))
    assert all(math.isfinite(m.value) and math.isnan(m.low) and math.isnan(m.high) for m in found)


def test_constant_features_are_no_error():
    constant = torch.ones(20, 3)
    found = measure(Reference(normal(30, 3), "x"), constant)
    assert all(math.isfinite(m.value) for m in found)
    same = {m.name: m.value for m in measure(Reference(constant, "x"), constant)}
    assert same["Frechet distance (x)"] == 0.0
    assert same["precision (x)"] == same["coverage (x)"] == 1.0


def test_bad_features():
    broken = normal(20)
    broken[3, 1] = torch.nan
    reference = Reference(normal(20), "x")
    for bad, words in (
        (normal(1), "at least 2"),
        (torch.zeros(5), "at least 2"),
        (broken, r"not finite, first in row 3"),
    ):
        with pytest.raises(UserError, match=words):
            Reference(bad, "x")
        with pytest.raises(UserError, match=words):
            measure(reference, bad)
        with pytest.raises(UserError, match=words):
            moments(bad)
    with pytest.raises(UserError, match="samples have 5 features and the real images 6"):
        measure(reference, normal(20, 5))
    with pytest.raises(UserError, match="k=5 needs more than k images"):
        measure(reference, normal(5))
