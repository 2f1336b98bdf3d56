from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from sklearn.decomposition import PCA

from consistency_lab.errors import UserError
from consistency_lab.metrics.bands import BandError, principal_components
from consistency_lab.metrics.pixels import MeanSquaredError


def two(n=10, shape=(2, 8, 12)):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, *shape, generator=generator)
    return a, a + 0.3 * torch.randn(n, *shape, generator=generator)


def both(distance, a, b):
    u, v = distance.embed(a), distance.embed(b)
    return torch.stack([distance.between(u, v), distance.null(u, v)])


@pytest.mark.parametrize("edges", [(0, 1), (0, 0.25, 0.5, 1), (0, 0.01, 0.3, 0.31, 0.7, 1)])
def test_bands_partition_the_mean_squared_error(edges):
    a, b = two()
    parts = [both(BandError(low=low, high=high), a, b) for low, high in pairwise(edges)]
    assert torch.allclose(sum(parts), both(MeanSquaredError(), a, b), rtol=1e-12)


def test_a_band_equals_scipys_transform():
    a, b = two()
    spectrum = dctn((a - b).double().numpy(), axes=(2, 3), norm="ortho")
    radius = np.sqrt(((np.arange(8)[:, None] / 8) ** 2 + (np.arange(12) / 12) ** 2) / 2)
    inside = (radius >= 0.2) & (radius < 0.6)
    expected = (spectrum[..., inside] ** 2).sum((1, 2)) / (2 * 8 * 12)
    assert np.allclose(both(BandError(low=0.2, high=0.6), a, b)[0], expected, rtol=1e-12)


def test_a_wave_lies_in_the_band_of_its_frequency():
    wave = (
        torch.cos(torch.pi * 6 * (torch.arange(8) + 0.5) / 8).expand(8, 8)[None, None].double()
    )  # radius 6/8 / sqrt(2) = 0.53
    zero = torch.zeros(1, 1, 8, 8)
    for (low, high), share in {(0.0, 0.5): 0.0, (0.5, 0.55): 1.0, (0.55, 1.0): 0.0}.items():
        band = BandError(low=low, high=high)
        error = band.between(band.embed(wave), band.embed(zero)).item()
        assert error == pytest.approx(share * wave.pow(2).mean().item(), abs=1e-12)


def test_a_shift_of_the_mean_lies_in_the_lowest_band():
    a, _ = two()
    lowest = BandError(low=0.0, high=0.01)
    assert torch.allclose(
        lowest.between(lowest.embed(a), lowest.embed(a + 0.5)), torch.tensor(0.25).double(), atol=1e-6
    )


def test_bad_bands():
    for low, high in ((0.5, 0.5), (0.6, 0.2), (-0.1, 0.2), (0.5, 1.1)):
        with pytest.raises(UserError, match="0 <= low < high <= 1"):
            BandError(low=low, high=high)
    with pytest.raises(UserError, match="no frequency of 8x8 images"):
        BandError(low=0.01, high=0.02).embed(torch.zeros(1, 1, 8, 8))


def test_components_partition_the_mean_squared_error():
    a, b = two(shape=(1, 4, 5))
    groups = principal_components(two(n=60, shape=(1, 4, 5))[0], (2, 7, 19))
    assert [g.name for g in groups] == ["pc-1-2", "pc-3-7", "pc-8-19", "pc-20-20"]
    assert torch.allclose(sum(both(g, a, b) for g in groups), both(MeanSquaredError(), a, b), rtol=1e-10)


def test_fewer_images_than_pixels_still_partition():
    a, b = two()
    groups = principal_components(two(n=5)[0], (3,))
    assert torch.allclose(sum(both(g, a, b) for g in groups), both(MeanSquaredError(), a, b), rtol=1e-10)


def test_components_equal_scikit_learns():
    training = two(n=80, shape=(1, 4, 4))[0] * torch.linspace(3, 0.5, 16).view(1, 1, 4, 4)
    a, b = two(shape=(1, 4, 4))
    first = principal_components(training, (4,), data="digits")[0]
    oracle = PCA(4).fit(training.double().flatten(1).numpy())
    projected = (a - b).double().flatten(1).numpy() @ oracle.components_.T
    assert np.allclose(both(first, a, b)[0], (projected**2).sum(1) / 16, rtol=1e-9)
    assert f"{100 * oracle.explained_variance_ratio_.sum():.3g} % of its variance" in first.note
    assert "1 to 4 of digits" in first.note


def test_bad_components():
    images, _ = two(shape=(1, 4, 4))
    for edges in ((0,), (4, 4), (16,), (9, 3)):
        with pytest.raises(UserError, match=r"increase within 1\.\.15"):
            principal_components(images, edges)
    with pytest.raises(UserError, match="all equal"):
        principal_components(torch.ones(5, 1, 4, 4), (3,))
    with pytest.raises(UserError, match="2 images or more of at most 4096"):
        principal_components(images[:1], (3,))
    with pytest.raises(UserError, match="2 images or more of at most 4096"):
        principal_components(torch.randn(3, 1, 80, 80), (3,))
    with pytest.raises(UserError, match="of 16 values, not 20"):
        principal_components(images, (3,))[0].embed(torch.zeros(1, 1, 4, 5))
