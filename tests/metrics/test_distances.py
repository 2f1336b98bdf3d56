import pytest
import torch
from sklearn.metrics import pairwise_distances
from torchmetrics.functional.image import peak_signal_noise_ratio

from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import METRICS, nearest


def two(n=12, shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, *shape, generator=generator).clamp(-1, 1)
    return a, (a + 0.3 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1)


def values(name, a, b):
    distance = METRICS.build(name)
    u, v = distance.embed(a), distance.embed(b)
    return distance.between(u, v), distance.null(u, v)


def test_distances_equal_scikit_learns():
    a, b = two()
    flat = a.double().flatten(1).numpy(), b.double().flatten(1).numpy()
    assert torch.allclose(
        values("mse", a, b)[0], torch.from_numpy(pairwise_distances(*flat, "sqeuclidean").diagonal() / 16)
    )
    assert torch.allclose(
        values("cosine", a, b)[0], torch.from_numpy(pairwise_distances(*flat, "cosine").diagonal().copy())
    )


def test_psnr_equals_torchmetrics():
    a, b = two()
    expected = torch.stack([peak_signal_noise_ratio(x, y, data_range=2.0) for x, y in zip(a, b, strict=True)])
    assert torch.allclose(values("psnr", a, b)[0].float(), expected, atol=1e-4)


@pytest.mark.parametrize("name", METRICS.names())
def test_the_null_is_the_mean_over_other_noise(name):
    a, b = two(n=10)
    distance = METRICS.build(name)
    u, v = distance.embed(a), distance.embed(b)
    n = len(a)
    table = torch.stack([distance.between(u[i : i + 1].expand_as(u), v) for i in range(n)])
    expected = torch.stack([(table[i].sum() + table[:, i].sum() - 2 * table[i, i]) / (2 * (n - 1)) for i in range(n)])
    assert torch.allclose(distance.null(u, v), expected, atol=1e-10)


@pytest.mark.parametrize("name", METRICS.names())
def test_distances_are_symmetric_and_know_equality(name):
    a, b = two()
    forth, null = values(name, a, b)
    back, null_back = values(name, b, a)
    assert torch.allclose(forth, back)
    assert torch.allclose(null, null_back)
    same = values(name, a, a)[0]
    assert (same == (torch.inf if name == "psnr" else 0.0)).all()


def test_the_null_keeps_its_digits_far_from_the_origin():
    a, b = two()
    near, far = values("mse", a, b)[1], values("mse", a.double() + 1e6, b.double() + 1e6)[1]
    assert torch.allclose(near, far, rtol=1e-6)


def test_one_sample_has_no_null():
    a, b = two(n=1)
    for name in METRICS.names():
        with pytest.raises(UserError, match="at least 2 samples"):
            values(name, a, b)


def test_nearest_equals_brute_force_in_any_chunks():
    a, b = two(n=30)
    table = (a[:, None].double() - b[None].double()).pow(2).flatten(2).mean(2)
    for chunk in (4, 7, 1000):
        distance, index = nearest(a, b, chunk)
        assert torch.equal(index, table.argmin(1))
        assert torch.allclose(distance, table.amin(1), atol=1e-14)
    assert nearest(b, b)[0].max() == 0
