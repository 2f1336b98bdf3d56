"""Synthetic images agree with the laws that they carry."""

import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.data.synthetic import SyntheticSet, draw_images, gaussian_law, power_spectrum
from consistency_lab.errors import UserError

COUNT = 20_000
CHOICES = ["gaussian(size=4)", "low-rank(size=4, rank=3)", "mixture(size=4, components=3, weights=(1, 2, 5))"]


@pytest.fixture(params=CHOICES)
def drawn(request: pytest.FixtureRequest) -> SyntheticSet:
    images = load_images(request.param, count=COUNT, seed=5)
    assert isinstance(images, SyntheticSet)
    return images


def test_draws_have_the_mean_and_covariance_of_the_law(drawn: SyntheticSet) -> None:
    flat = drawn.all().double().flatten(1)
    variances = drawn.law.covariance.diagonal()
    assert ((flat.mean(0) - drawn.law.mean.flatten()).abs() < 5 * (variances / COUNT).sqrt()).all()
    centred = flat - drawn.law.mean.flatten()
    products = centred[:, :, None] * centred[:, None, :]
    error = (products.mean(0) - drawn.law.covariance).abs()
    assert (error < 5.5 * (products.std(0) / COUNT**0.5) + 1e-9).all()
    assert drawn.all().abs().max() <= 1


def test_the_score_of_the_law_has_the_moments_of_a_score() -> None:
    """E score = 0 and E score x^T = -I, whatever the law: checked for a mixture by automatic differentiation."""
    images = load_images("mixture(size=2, components=3, std=0.1)", count=COUNT)
    law = images.law
    flat = images.all().double().flatten(1).requires_grad_()
    components = torch.distributions.MultivariateNormal(law.means.flatten(1), law.covariances)
    density = torch.logsumexp(components.log_prob(flat[:, None]) + law.weights.log(), dim=1)
    (score,) = torch.autograd.grad(density.sum(), flat)
    products = score[:, :, None] * flat.detach()[:, None, :]
    for values, expected in ((score, torch.zeros(4)), (products, -torch.eye(4))):
        assert ((values.mean(0) - expected).abs() < 5 * values.std(0) / COUNT**0.5).all()


def test_a_mixture_is_labelled_by_component() -> None:
    images = load_images("mixture(size=4, components=3, weights=(1, 2, 5))", count=COUNT)
    assert images.classes == 3
    assert images.labels is not None
    shares = torch.bincount(images.labels).double() / COUNT
    assert torch.allclose(shares, torch.tensor([1, 2, 5]).double() / 8, atol=0.02)
    for k in range(3):
        mine = images.all()[images.labels == k].double()
        assert torch.allclose(mine.mean(0), images.law.means[k], atol=5 * 0.08 / len(mine) ** 0.5)
    assert load_images("gaussian").labels is None


def test_the_spectrum_is_the_spectrum() -> None:
    spectrum = power_spectrum(8, 2.0, 0.15)
    law = gaussian_law(spectrum)
    eigenvalues = torch.linalg.eigvalsh(law.covariance).numpy()
    assert np.allclose(np.sort(spectrum.ravel()), eigenvalues, rtol=1e-9, atol=1e-12)
    assert torch.allclose(law.covariance.diagonal(), torch.full((64,), 0.15**2, dtype=torch.float64))
    # Stationary: the covariance of two pixels depends on their distance alone, around the edges too.
    covariance = law.covariance.view(8, 8, 8, 8)
    assert torch.allclose(covariance[0, 0, 1, 2], covariance[5, 6, 6, 0])
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(8) * 8, np.fft.fftfreq(8) * 8, indexing="ij"))
    assert np.allclose(np.log(spectrum / spectrum[0, 0]), -2 * np.log1p(k))


def test_channels_are_independent() -> None:
    law = gaussian_law(power_spectrum(3, 1.0, 0.1), channels=2, mean=0.2)
    assert law.means.shape == (1, 2, 3, 3)
    assert (law.mean == 0.2).all()
    assert (law.covariance[:9, 9:] == 0).all()
    assert torch.allclose(law.covariance[:9, :9], law.covariance[9:, 9:])


def test_low_rank_is_of_low_rank() -> None:
    images = load_images("low-rank(size=6, rank=4, channels=3)", count=200)
    assert images.shape == (3, 6, 6)
    assert torch.linalg.matrix_rank(images.law.covariance) == 4
    assert torch.linalg.matrix_rank(images.all().double().flatten(1), rtol=1e-5) == 4
    assert torch.allclose(images.law.covariance.diagonal(), torch.full((108,), 0.15**2, dtype=torch.float64))


def test_the_seed_changes_the_draws_and_not_the_law() -> None:
    for name in ("gaussian", "low-rank", "mixture"):
        first, again, other = (load_images(f"{name}(count=64)", seed=seed) for seed in (0, 0, 1))
        assert first.fingerprint == again.fingerprint != other.fingerprint
        assert torch.equal(first.law.means, other.law.means)
        assert torch.equal(first.law.factors, other.law.factors)


def test_the_law_survives_a_move_and_parts_are_plain_sets() -> None:
    images = load_images("gaussian(count=64)")
    assert images.to("cpu").law is images.law
    assert len(images.split(32, 32)[1]) == 32


def test_draws_outside_the_range_are_refused_and_never_clipped() -> None:
    with pytest.raises(UserError, match=r"'gaussian' reaches .* outside \[-1, 1\].*make std smaller"):
        load_images("gaussian(std=0.4)")


@pytest.mark.parametrize(
    "choice",
    [
        "gaussian(size=0)",
        "gaussian(channels=0)",
        "gaussian(std=0)",
        "gaussian(count=0)",
        "gaussian(seed=-1)",
        "low-rank(rank=65)",
        "low-rank(rank=0)",
        "mixture(components=0)",
        "mixture(components=2, weights=(1, 2, 3))",
        "mixture(components=2, weights=(1, 0))",
        "mixture(spread=-1)",
        "gaussian(power='steep')",
        "low-rank(std='small')",
    ],
)
def test_options_that_make_no_law_are_refused(choice: str) -> None:
    with pytest.raises(
        UserError, match=r"must be a (positive whole )?number|positive weights|at most|[01] or more|give a number"
    ):
        load_images(choice)


def test_spectra_that_are_none_are_refused() -> None:
    lopsided = np.ones((4, 4))
    lopsided[0, 1] = 2
    for spectrum in (-np.ones((4, 4)), np.full((4, 4), np.nan), np.ones(4), lopsided):
        with pytest.raises(UserError, match="spectrum"):
            gaussian_law(spectrum)
    even = draw_images(gaussian_law(np.full((4, 6), 0.01)), 8, 0, "white")
    assert even.shape == (1, 4, 6)
