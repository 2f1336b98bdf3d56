import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

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


def terms(x, y, sigma):
    """Luminance and contrast-structure terms of two grey images in [0, 1], one window at a time: equations 6 to 13 of Wang et al. 2004."""
    radius = int(3.5 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    window /= window.sum()
    rows, columns = (side - 2 * radius for side in x.shape)
    luminance, contrast = np.empty((rows, columns)), np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            u, v = (z[i : i + 2 * radius + 1, j : j + 2 * radius + 1] for z in (x, y))
            m, n = (window * u).sum(), (window * v).sum()
            variances = (window * (u - m) ** 2).sum() + (window * (v - n) ** 2).sum()
            luminance[i, j] = (2 * m * n + 0.01**2) / (m**2 + n**2 + 0.01**2)
            contrast[i, j] = (2 * (window * (u - m) * (v - n)).sum() + 0.03**2) / (variances + 0.03**2)
    return luminance, contrast


def halved(x):
    """imfilter(x, ones(2) / 4, 'symmetric', 'same') at every second pixel, as msssim.m does."""
    x = np.pad(x, ((0, 1), (0, 1)), mode="symmetric")
    return ((x[:-1, :-1] + x[1:, :-1] + x[:-1, 1:] + x[1:, 1:]) / 4)[::2, ::2]


def grey(images):
    """The planes in [0, 1], image by image and channel by channel."""
    return [[plane.double().numpy() / 2 + 0.5 for plane in image] for image in images]


@pytest.mark.parametrize(
    ("sigma", "shape"), [(0.5, (1, 5, 7)), (0.8, (2, 8, 8)), (1.5, (1, 11, 11)), (1.5, (3, 13, 16))]
)
def test_ssim_is_the_published_mean_over_windows_inside_the_image(sigma, shape):
    a, b = two(n=2, shape=shape)
    expected = []
    for pair in zip(grey(a), grey(b), strict=True):
        expected.append(1 - np.mean([np.multiply(*terms(x, y, sigma)).mean() for x, y in zip(*pair, strict=True)]))
    assert value(StructuralDistance(sigma=sigma), a, b).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 11, 11), (3, 32, 32), (3, 20, 28)])
@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.5])
def test_ssim_equals_scikit_image(sigma, shape):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = two(shape=shape)
    expected = [
        1
        - metrics.structural_similarity(
            np.stack(x),
            np.stack(y),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=sigma,
            use_sample_covariance=False,
        )
        for x, y in zip(grey(a), grey(b), strict=True)
    ]
    assert value(StructuralDistance(sigma=sigma), a, b).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.5])
def test_ssim_equals_torchmetrics_without_its_rim(sigma):
    a, b = two()
    options = {"sigma": sigma, "data_range": 1.0, "reduction": "none", "return_full_image": True}
    whole, everywhere = structural_similarity_index_measure((a.double() + 1) / 2, (b.double() + 1) / 2, **options)
    rim = StructuralDistance(sigma=sigma).window // 2
    inside = everywhere[..., rim:-rim, rim:-rim].flatten(1).mean(1)
    found = value(StructuralDistance(sigma=sigma), a, b)
    assert torch.allclose(found, 1 - inside, rtol=0, atol=1e-12)
    assert whole.shape == found.shape


def test_small_distances_keep_their_digits():
    a = (two(n=2, shape=(1, 16, 16))[0] + 3).clamp(
        -1, 1
    )  # bright and mostly flat, where differences of squares are at their worst
    b = (a + 1e-4 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    planes = [(x[0], y[0]) for x, y in zip(grey(a), grey(b), strict=True)]
    expected = torch.tensor([1 - np.multiply(*terms(x, y, 1.5)).mean() for x, y in planes])
    assert 0 < expected.max() < 1e-4
    assert torch.allclose(value(StructuralDistance(), a, b), expected, rtol=1e-6, atol=1e-12)
    assert torch.equal(value(StructuralDistance(), a, a), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize(("sigma", "scales", "shape"), [(0.5, 5, (81, 87)), (0.8, 3, (29, 30)), (1.5, 2, (22, 23))])
def test_ms_ssim_is_that_of_its_authors(sigma, scales, shape):
    betas = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    betas = betas if scales == 5 else betas / betas.sum()
    noise = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(2))
    a = torch.linspace(-0.8, 0.8, shape[1]).expand(1, 1, *shape)
    for b in (a + 0.2 * noise[:1]).clamp(-1, 1), (0.4 * a + 0.3 * noise[1:]).clamp(-1, 1):
        (((x,),), ((y,),)) = grey(a), grey(b)
        expected = 1.0
        for i, beta in enumerate(betas):
            if i:
                x, y = halved(x), halved(y)
            luminance, contrast = terms(x, y, sigma)
            expected *= max(0.0, (contrast if i < scales - 1 else luminance * contrast).mean()) ** beta
        found = value(MultiScaleStructuralDistance(sigma=sigma, scales=scales), a, b).item()
        assert found == pytest.approx(1 - expected, abs=1e-12)
        assert 0.01 < found < 0.99


def test_ms_ssim_of_opposites_is_0():
    board = (torch.arange(24)[:, None] + torch.arange(24)) // 2 % 2 * 2.0 - 1
    assert value(MultiScaleStructuralDistance(scales=2), board[None, None], -board[None, None]).item() == 1.0


def test_ssim_of_flat_images_is_the_luminance_term():
    # (2 m n + c) / (m^2 + n^2 + c) of intensities m, n in [0, 2], with c = (0.01 * 2)^2.
    a, b = torch.full((1, 1, 16, 16), -0.5), torch.full((1, 1, 16, 16), 0.25)
    expected = 1 - (2 * 0.5 * 1.25 + 0.0004) / (0.5**2 + 1.25**2 + 0.0004)
    assert value(StructuralDistance(), a, b).item() == pytest.approx(expected, abs=1e-12)


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
    assert torch.allclose(value(StructuralDistance(), a, b), whole, rtol=0, atol=1e-12)


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
    [
        ({"scales": 1}, 11),
        ({"scales": 2}, 22),
        ({"scales": 3, "sigma": 0.8}, 28),
        ({"scales": 3}, 44),
        ({"scales": 4}, 88),
        ({}, 176),
    ],
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


@pytest.mark.parametrize("shape", [(3, 150, 40), (1, 131, 203)])
def test_the_window_goes_over_large_images_in_tiles(shape, monkeypatch):
    for distance in (StructuralDistance(), MultiScaleStructuralDistance(scales=2)):
        tiled = value(distance, *two(2, shape))
        monkeypatch.setattr(structural, "_LARGE", 10**6)
        assert torch.allclose(tiled, value(distance, *two(2, shape)), rtol=1e-12)
        monkeypatch.setattr(structural, "_LARGE", 128)
