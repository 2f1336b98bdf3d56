import torch
from sklearn.metrics import pairwise_distances
from torchmetrics.functional.image import peak_signal_noise_ratio

from consistency_lab.metrics.pixels import CosineDistance, MeanSquaredError, PeakSignalToNoise, nearest


def two(n=12, shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, *shape, generator=generator).clamp(-1, 1)
    return a, (a + 0.3 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1)


def values(distance, a, b):
    u, v = distance.embed(a), distance.embed(b)
    return distance.between(u, v), distance.null(u, v)


def test_distances_equal_scikit_learns():
    a, b = two()
    flat = a.double().flatten(1).numpy(), b.double().flatten(1).numpy()
    squares = pairwise_distances(*flat, "sqeuclidean").diagonal() / 16
    cosines = pairwise_distances(*flat, "cosine").diagonal().copy()
    assert torch.allclose(values(MeanSquaredError(), a, b)[0], torch.from_numpy(squares))
    assert torch.allclose(values(CosineDistance(), a, b)[0], torch.from_numpy(cosines))


def test_psnr_equals_torchmetrics():
    a, b = two()
    expected = torch.stack([peak_signal_noise_ratio(x, y, data_range=2.0) for x, y in zip(a, b, strict=True)])
    assert torch.allclose(values(PeakSignalToNoise(), a, b)[0].float(), expected, atol=1e-4)


def test_mse_sees_estimates_as_they_are():
    a, b = two()
    assert torch.allclose(values(MeanSquaredError(), 5 * a, 5 * b)[0], 25 * values(MeanSquaredError(), a, b)[0])


def test_the_null_keeps_its_digits_far_from_the_origin():
    a, b = two()
    near = values(MeanSquaredError(), a, b)[1]
    far = values(MeanSquaredError(), a.double() + 1e6, b.double() + 1e6)[1]
    assert torch.allclose(near, far, rtol=1e-6)


def test_nearest_equals_brute_force_in_any_chunks(monkeypatch):
    a, b = two(n=30)
    table = (a[:, None].double() - b[None].double()).pow(2).flatten(2).mean(2)
    for rows in (4, 7, 1000):
        monkeypatch.setattr("consistency_lab.metrics.pixels._ELEMENTS", rows * 16)
        distance, index = nearest(a, b)
        assert torch.equal(index, table.argmin(1))
        assert torch.allclose(distance, table.amin(1), atol=1e-14)
    assert nearest(b, b)[0].max() == 0
