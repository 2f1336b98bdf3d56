"""Images drawn from distributions that are known exactly, so that the best denoiser and the true score are known too.

Draws must lie in [-1, 1], and a law that is clipped is another law: one draw that leaves the range makes the whole set
be refused, with the advice to lower ``std``. All three laws have the same standard deviation in every pixel, so that
``|mean| + 6 std <= 1`` is safe: among a million values, 6 sigma is passed with probability 0.002.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from consistency_lab.choices import require_positive, whole
from consistency_lab.data.imageset import ImageSet
from consistency_lab.errors import UserError


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """The law sum_k weight_k N(mean_k, F_k F_k^T) over images; with one component a Gaussian, with R < D of low rank.

    Args:
        means: (K, C, H, W) float64.
        factors: (K, D, R) float64, D = C H W.
        weights: (K,) float64, positive, summing to 1.
    """

    means: torch.Tensor
    factors: torch.Tensor
    weights: torch.Tensor

    @property
    def covariances(self) -> torch.Tensor:
        """(K, D, D): the covariance of each component."""
        return self.factors @ self.factors.mT

    @property
    def mean(self) -> torch.Tensor:
        """(C, H, W): the mean of the whole law."""
        return torch.einsum("k,kchw->chw", self.weights, self.means)

    @property
    def covariance(self) -> torch.Tensor:
        """(D, D): the covariance of the whole law, within the components and between their means."""
        apart = (self.means - self.mean).flatten(1)
        return torch.einsum("k,kij->ij", self.weights, self.covariances) + (apart.T * self.weights) @ apart

    def draw(self, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``count`` images (N, C, H, W) in float64, unbounded, and the component (N,) of each."""
        require_positive(count=count)
        generator = np.random.default_rng(whole("the seed of a draw", seed))
        components = torch.from_numpy(generator.choice(len(self.weights), size=count, p=self.weights.numpy()))
        normal = torch.from_numpy(generator.standard_normal((count, self.factors.shape[2])))
        images = torch.empty(count, *self.means.shape[1:], dtype=torch.float64, device="cpu")
        for k, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            mine = components == k
            images[mine] = mean + (normal[mine] @ factor.T).view(-1, *mean.shape)
        return images, components


@dataclass(frozen=True, eq=False, repr=False)
class SyntheticSet(ImageSet):
    """Images and the exact law from which they were drawn; with several components, the labels say which one."""

    law: GaussianMixture = field(kw_only=True)


def draw_images(law: GaussianMixture, count: int, seed: int, name: str) -> SyntheticSet:
    """A set drawn from a law. Raises `UserError` if a draw leaves [-1, 1]: nothing is ever clipped."""
    images, components = law.draw(count, seed)
    largest = float(images.abs().max())
    if largest > 1:
        raise UserError(
            f"a draw of {name!r} reaches {largest:.3g}, outside [-1, 1], and clipping would change the law; "
            "make std smaller."
        )
    if len(law.weights) == 1:
        return SyntheticSet(name, images.float(), law=law)
    # Named, so that label k is component k where a small draw misses one.
    return SyntheticSet(name, images.float(), components, tuple(str(k) for k in range(len(law.weights))), law=law)


def gaussian_law(spectrum: np.ndarray, channels: int = 1, mean: float = 0.0) -> GaussianMixture:
    """A stationary Gaussian with a given power spectrum, independent channels.

    Args:
        spectrum: (H, W), the variance of each Fourier mode in the order of ``numpy.fft.fftfreq``; the eigenvalues of
            the covariance, whose mean is the variance of a pixel. Not negative, and equal at k and -k.
        channels: each has this spectrum.
        mean: of every pixel.

    Raises `UserError` for a spectrum that is no covariance of real images.
    """
    require_positive(channels=channels)
    spectrum = np.asarray(spectrum, dtype=np.float64)
    if spectrum.ndim != 2 or not np.isfinite(spectrum).all() or (spectrum < 0).any():
        raise UserError("a spectrum is a table (H, W) of finite variances, none negative.")
    mirrored = np.roll(spectrum[::-1, ::-1], 1, axis=(0, 1))
    if not np.allclose(spectrum, mirrored, rtol=1e-12, atol=0):
        raise UserError("a spectrum of real images has the same variance at k and -k.")
    height, width = spectrum.shape
    # The symmetric root of a circulant matrix is the circulant matrix of the root of its spectrum.
    kernel = np.fft.ifft2(np.sqrt(spectrum)).real
    rows, columns = ((np.arange(n)[:, None] - np.arange(n)) % n for n in (height, width))
    root = kernel[rows[:, None, :, None], columns[None, :, None, :]].reshape(height * width, -1)
    factor = torch.from_numpy(np.kron(np.eye(channels), root))
    return GaussianMixture(
        torch.full((1, channels, height, width), mean, dtype=torch.float64, device="cpu"),
        factor[None],
        torch.ones(1, dtype=torch.float64, device="cpu"),
    )


def power_spectrum(size: int, power: float, std: float) -> np.ndarray:
    """(size, size) variances proportional to (1 + |k|)^-power, k in cycles per image; natural images have power near 2.

    Scaled so that a pixel's standard deviation is ``std``.
    """
    require_positive(size=size)
    _check_number(0, std=std)
    _check_number(-np.inf, power=power)
    k = np.fft.fftfreq(size) * size
    shape = (1 + np.hypot(k[:, None], k)) ** -power
    return shape * (std**2 / shape.mean())


def gaussian(
    *, size: int = 8, channels: int = 1, power: float = 2.0, std: float = 0.15, count: int = 4096, seed: int = 0
) -> SyntheticSet:
    """Gaussian images (channels, size, size) with a power-law spectrum and mean 0."""
    return draw_images(gaussian_law(power_spectrum(size, power, std), channels), count, seed, "gaussian")


def low_rank(
    *, size: int = 8, channels: int = 1, rank: int = 5, std: float = 0.15, count: int = 4096, seed: int = 0
) -> SyntheticSet:
    """Gaussian images on a random linear subspace of dimension ``rank`` (the same for every ``seed``), mean 0."""
    require_positive(size=size, channels=channels, rank=rank)
    pixels = channels * size**2
    _check_number(0, std=std)
    if rank > pixels:
        raise UserError(f"rank must be at most {pixels}, the number of pixels, not {rank}.")
    factor = np.random.default_rng([pixels, rank]).standard_normal((pixels, rank))
    factor *= std / np.linalg.norm(factor, axis=1, keepdims=True)  # the same deviation in every pixel
    law = GaussianMixture(
        torch.zeros(1, channels, size, size, dtype=torch.float64, device="cpu"),
        torch.from_numpy(factor)[None],
        torch.ones(1, dtype=torch.float64, device="cpu"),
    )
    return draw_images(law, count, seed, "low-rank")


def mixture(
    *,
    size: int = 8,
    components: int = 4,
    weights: Sequence[float] | None = None,
    spread: float = 0.5,
    power: float = 2.0,
    std: float = 0.08,
    count: int = 4096,
    seed: int = 0,
) -> SyntheticSet:
    """A mixture of Gaussians (1, size, size) with a common power-law covariance; the label is the component.

    The means are smooth random images, the same for every ``seed``; the largest pixel of each is ``spread``.
    """
    require_positive(components=components)
    _check_number(0, spread=spread)
    shares = np.ones(components) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (components,) or not (shares > 0).all():
        raise UserError(f"a mixture of {components} components needs as many positive weights, not {weights}.")
    part = gaussian_law(power_spectrum(size, power, std))
    means, _ = part.draw(components, seed=0)
    means *= spread / means.abs().amax(dim=(1, 2, 3), keepdim=True)
    law = GaussianMixture(means, part.factors.expand(components, -1, -1), torch.from_numpy(shares / shares.sum()))
    return draw_images(law, count, seed, "mixture")


def _check_number(least: float, **options: float) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < np.inf:
            raise UserError(f"{name} must be a number above {least:g}, not {value!r}.")
