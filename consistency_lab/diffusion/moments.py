"""A network together with the mean and the covariance of the images it is trained on."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from consistency_lab.data.imageset import ImageSet
from consistency_lab.errors import UserError


class Gaussian(NamedTuple):
    """What the best denoiser of Gaussian data says of noisy states.

    Attributes:
        eps: the noise, ``(B, C, H, W)``.
        x0: the clean image less the mean, ``(B, C, H, W)``.
        error: root mean square error of ``eps`` on Gaussian data, ``(B, 1, 1, 1)``.
    """

    eps: Tensor
    x0: Tensor
    error: Tensor


class PrincipalAxes(NamedTuple):
    """The moments of a set, its covariance by its axes, float64.

    Attributes:
        mean: ``(D,)``.
        variances: along the axes, rising and none below 0, ``(D,)``.
        axes: orthonormal columns ``(D, D)``.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor


class WithMoments(nn.Module):
    """Answers as the network that it holds, and knows the mean and covariance of a set of images; its weights file holds them too.

    Args:
        network: any.
        shape: of the images, ``(C, H, W)``; D = C H W.
        components: axes of the covariance that are kept, the leading ones, at most D.

    Attributes:
        mean: ``(D,)``.
        axes: orthonormal columns ``(D, K)``.
        variances: along them, ``(K,)``.
        rest: the mean variance along all other directions, a scalar; 0 where there are none.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor

    def __init__(self, network: nn.Module, shape: tuple[int, int, int], components: int):
        super().__init__()
        self.network = network
        pixels = shape[0] * shape[1] * shape[2]
        kept = min(components, pixels)
        # Until they are known: white images of variance 1, so that nothing is divided by 0.
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("axes", torch.eye(pixels, kept))
        self.register_buffer("variances", torch.ones(kept))
        self.register_buffer("rest", torch.tensor(float(kept < pixels)))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        answer: Tensor = self.network(x, t, cond)
        return answer

    @property
    def variance(self) -> Tensor:
        """Of a pixel, on average over them: a scalar."""
        pixels, kept = self.axes.shape
        return (self.variances.sum() + (pixels - kept) * self.rest) / pixels

    @torch.no_grad()
    def measure(self, mean: Tensor, variances: Tensor, axes: Tensor) -> None:
        """Take the `PrincipalAxes` of a set. Raises `UserError` where all images are one."""
        if not variances[-1] > 0:
            raise UserError(
                "all images of the set are the same, so that there is nothing to correct; use predicts=eps."
            )
        kept = len(self.variances)
        self.mean.copy_(mean)
        self.axes.copy_(axes[:, -kept:])
        self.variances.copy_(variances[-kept:])
        others = variances[:-kept]
        self.rest.copy_(others.mean() if len(others) else torch.zeros(()))

    def gaussian(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Gaussian:
        """The closed form at states ``(B, C, H, W)``, with alpha and sigma ``(B, 1, 1, 1)``.

        (alpha^2 S + sigma^2 I)^-1 along the axes A, with p = alpha^2 variances + sigma^2, and along all others, with r = alpha^2 rest +
        sigma^2:

            eps = sigma (y / r + A ((1 / p - 1 / r) A'y)),    y = x_t - alpha m
        """
        a, s = alpha.flatten(1), sigma.flatten(1)
        y = x_t.flatten(1) - a * self.mean
        power, beyond = a**2 * self.variances + s**2, a**2 * self.rest + s**2
        along = y @ self.axes
        if (pixels := len(self.axes)) == (kept := len(self.variances)):
            eps = (along * (s / power)) @ self.axes.T
        else:
            eps = s * (y / beyond + (along * (1.0 / power - 1.0 / beyond)) @ self.axes.T)
        explained = (a**2 * self.variances / power).sum(1, keepdim=True) + (pixels - kept) * a**2 * self.rest / beyond
        x0 = (y - s * eps) / a
        return Gaussian(eps.view_as(x_t), x0.view_as(x_t), (explained / pixels).sqrt().view_as(alpha))


def moments_of(images: Tensor, chunks: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean ``(D,)`` and population covariance ``(D, D)`` of images ``(N, C, H, W)``, float64, where they are."""
    flat = images.flatten(1)
    mean = sum(part.double().sum(0) for part in flat.split(chunks)) / len(flat)
    assert isinstance(mean, Tensor)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for part in flat.split(chunks):
        centred = part.double() - mean
        covariance.addmm_(centred.T, centred)
    return mean, covariance / len(flat)


def axes_of(mean: Tensor, covariance: Tensor) -> PrincipalAxes:
    """The axes of a covariance."""
    variances, axes = torch.linalg.eigh(covariance)
    return PrincipalAxes(mean, variances.clamp_min(0.0), axes)  # rounding leaves tiny negative ones


# A recipe and the run that follows it ask for the same; kept for as long as the set is, two matrices of (D, D).
_KNOWN: WeakKeyDictionary[ImageSet, dict[bool, PrincipalAxes]] = WeakKeyDictionary()


def principal_axes(images: ImageSet, flip: bool = False) -> PrincipalAxes:
    """Of a set, where its pixels are; ``flip``: with its mirror images. Computed once for each set."""
    known = _KNOWN.setdefault(images, {})
    if flip not in known:
        known[flip] = axes_of(*moments_of((images.mirrored() if flip else images).all()))
    return known[flip]
