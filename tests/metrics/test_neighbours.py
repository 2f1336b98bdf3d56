import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from consistency_lab.errors import UserError
from consistency_lab.metrics import neighbours
from consistency_lab.metrics.neighbours import neighbourhoods, radii


def two(n=40, m=30, f=4):
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(n, f, generator=generator, dtype=torch.float64)
    return real, 0.8 * torch.randn(m, f, generator=generator, dtype=torch.float64) + 0.4


def brute_force(real, samples, k):
    """Word by word as the papers define them."""
    table = torch.cdist(samples, real)
    ball = torch.cdist(real, real).sort(1).values[:, k]
    own = torch.cdist(samples, samples).sort(1).values[:, k]
    n, m = len(real), len(samples)
    return (
        sum(any(table[j, i] <= ball[i] for i in range(n)) for j in range(m)) / m,
        sum(any(table[j, i] <= own[j] for j in range(m)) for i in range(n)) / n,
        sum(sum(bool(table[j, i] <= ball[i]) for i in range(n)) for j in range(m)) / (k * m),
        sum(any(table[j, i] <= ball[i] for j in range(m)) for i in range(n)) / n,
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_equal_brute_force_in_any_chunks(k, monkeypatch):
    real, samples = two()
    expected = pytest.approx(brute_force(real, samples, k), abs=1e-12)
    assert 0 < expected.expected[0] < 1
    for elements in (1, 100, 10**6):
        monkeypatch.setattr(neighbours, "_ELEMENTS", elements)
        assert tuple(neighbourhoods(real, radii(real, k), samples, k)) == expected


def test_order_changes_nothing():
    real, samples = two()
    moved = neighbourhoods(real.flip(0), radii(real.flip(0), 3), samples.roll(7, 0), 3)
    assert moved == pytest.approx(neighbourhoods(real, radii(real, 3), samples, 3))


def test_radii_equal_scikit_learns():
    real, _ = two()
    expected = NearestNeighbors(n_neighbors=4).fit(real.numpy()).kneighbors()[0][:, -1]
    assert torch.allclose(radii(real, 4).sqrt(), torch.from_numpy(expected))


def test_a_memoriser_is_precise_and_covers():
    real, _ = two()
    found = neighbourhoods(real, radii(real, 3), real.clone(), 3)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)


def test_a_collapsed_model_has_no_recall():
    real, _ = two()
    found = neighbourhoods(real, radii(real, 3), real[:1].expand(20, -1), 3)
    assert found.precision == 1.0
    assert found.recall <= 1 / len(real)
    assert found.coverage < 0.5


def test_samples_elsewhere_have_nothing():
    real, samples = two()
    assert tuple(neighbourhoods(real, radii(real, 3), samples + 100, 3)) == (0.0, 0.0, 0.0, 0.0)


def test_equal_distributions_have_density_one():
    generator = torch.Generator().manual_seed(1)
    real, samples = torch.randn(2, 2000, 2, generator=generator, dtype=torch.float64)
    found = neighbourhoods(real, radii(real, 5), samples, 5)
    assert found.density == pytest.approx(1.0, abs=0.05)
    assert found.coverage == pytest.approx(1 - 0.5**5, abs=0.02)  # the k nearest of both sets together are real: 2^-k


def test_equal_points_are_told_apart_by_index():
    assert (radii(torch.ones(6, 3), 2) == 0).all()


@pytest.mark.parametrize("k", [0, 10, 11])
def test_too_few_images(k):
    with pytest.raises(UserError, match=f"k={k}"):
        radii(torch.randn(10, 2), k)
