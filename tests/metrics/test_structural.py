import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from consistency_lab.errors import UserError
from consistency_lab.metrics import structural
from consistency_lab.metrics.distances import METRICS
from consistency_lab.metrics.structural import MultiScaleStructuralDistance, StructuralDistance


def two(n=6, shape=(3, 32, 32)):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, *shape, generator=generator).clamp(-1, 1)
    return a, (a + 0.5 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1)


def value(distance, a, b):
    return distance.between(distance.embed(a), distance.embed(b))


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.5])
def test_ssim_equals_torchmetrics_on_images_in_0_1(sigma):
    a, b = two()
    expected = 1 - structural_similarity_index_measure(
        (a.double() + 1) / 2, (b.double() + 1) / 2, sigma=sigma, data_range=1.0, reduction="none"
    )
    assert torch.allclose(value(StructuralDistance(sigma=sigma), a, b), expected, atol=1e-4)


def test_small_distances_keep_their_digits():
    a = (two(shape=(1, 32, 32))[0] + 3).clamp(-1, 1)  # bright and mostly flat, where float32 is at its worst
    b = (a + 1e-4 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    expected = 1 - structural_similarity_index_measure(
        (a.double() + 1) / 2, (b.double() + 1) / 2, data_range=1.0, reduction="none"
    )
    assert 0 < expected.max() < 1e-4
    assert torch.allclose(value(StructuralDistance(), a, b), expected, rtol=1e-6, atol=1e-12)


def test_ms_ssim_equals_torchmetrics_on_images_in_0_1():
    a, b = two(n=2, shape=(1, 180, 180))
    expected = 1 - multiscale_structural_similarity_index_measure(
        (a.double() + 1) / 2, (b.double() + 1) / 2, data_range=1.0, reduction="none"
    )
    assert torch.allclose(value(MultiScaleStructuralDistance(), a, b), expected, atol=1e-4)


def test_ssim_of_flat_images_is_the_luminance_term():
    # (2 m n + c) / (m^2 + n^2 + c) of intensities m, n in [0, 2], with c = (0.01 * 2)^2.
    a, b = torch.full((1, 1, 16, 16), -0.5), torch.full((1, 1, 16, 16), 0.25)
    expected = 1 - (2 * 0.5 * 1.25 + 0.0004) / (0.5**2 + 1.25**2 + 0.0004)
    assert value(StructuralDistance(), a, b).item() == pytest.approx(
        expected, abs=5e-4
    )  # flat images are the worst case of float32


def test_black_and_white_are_as_far_as_can_be():
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    assert value(StructuralDistance(), board[None, None], -board[None, None]).item() > 1.9


def test_estimates_are_clamped():
    a, b = two()
    assert torch.equal(value(StructuralDistance(), 4 * a, b), value(StructuralDistance(), (4 * a).clamp(-1, 1), b))


def test_more_noise_is_farther():
    a, _ = two()
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(3))
    for distance in (StructuralDistance(), MultiScaleStructuralDistance(scales=2)):
        means = [value(distance, a, a + s * noise).mean().item() for s in (0.01, 0.1, 1.0)]
        assert means == sorted(means)
        assert means[0] < 0.02


def test_chunks_change_nothing(monkeypatch):
    a, b = two()
    whole = value(StructuralDistance(), a, b)
    monkeypatch.setattr(structural, "_PIXELS", 2 * a[0].numel())
    assert torch.allclose(value(StructuralDistance(), a, b), whole, atol=1e-5)


def test_small_images_are_refused_with_the_least_size():
    small = torch.zeros(2, 1, 8, 8)
    with pytest.raises(UserError, match=r"at least 11x11, not 8; write ssim\(sigma=0.8\)"):
        StructuralDistance().embed(small)
    with pytest.raises(UserError, match="at least 176x176, not 32"):
        MultiScaleStructuralDistance().embed(torch.zeros(2, 1, 32, 32))
    for text in ("ssim(sigma=0.8)", "ssim(sigma=0.5)"):
        assert METRICS.build(text).embed(small).shape == small.shape


@pytest.mark.parametrize(
    ("options", "least"),
    [({"scales": 1}, 11), ({"scales": 2}, 22), ({"scales": 3, "sigma": 0.8}, 28), ({"scales": 3}, 44), ({}, 176)],
)
def test_ms_ssim_works_from_its_least_size_on(options, least):
    distance = MultiScaleStructuralDistance(**options)
    assert distance.least == least
    a, b = two(n=2, shape=(1, least, least))
    found = value(distance, a, b)
    assert ((found > 0) & (found <= 1)).all()
    with pytest.raises(UserError, match=f"{least}x{least}"):
        distance.embed(a[..., 1:])


def test_options_are_in_the_name():
    assert StructuralDistance().name == "ssim"
    assert StructuralDistance(sigma=0.8).name == "ssim-sigma0.8"
    assert METRICS.build("ms-ssim(scales=3, sigma=0.8)").name == "ms-ssim-scales3-sigma0.8"
    assert "7 pixels" in StructuralDistance(sigma=0.8).note


def test_bad_options():
    with pytest.raises(UserError, match="sigma"):
        StructuralDistance(sigma=0.0)
    with pytest.raises(UserError, match="1 to 5 scales, not 6"):
        MultiScaleStructuralDistance(scales=6)
