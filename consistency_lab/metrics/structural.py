"""Structural similarity as a distance: 1 - SSIM (Wang et al. 2004) and 1 - MS-SSIM (Wang et al. 2003), as published.

The window never leaves the image: the mean is over the positions where it lies inside. Libraries differ in that (torchmetrics counted
those positions up to 1.4.1 and counts the mirrored rim since), so the two formulas stand here and depend on no library's version. The
window is separable, and cutting it off at the rim makes each direction a product with a banded matrix: in float64 that is several
times faster than a padded convolution in float32.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from consistency_lab.devices import at_a_time
from consistency_lab.errors import UserError
from consistency_lab.metrics.base import RANGE, Distance, displayed

_SIGMA = 1.5  # the papers' Gaussian window, 11 pixels wide
_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales, finest first (Wang et al. 2003)
_C1, _C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2  # (K1 L)^2 and (K2 L)^2 of equation 13 of Wang et al. 2004
_LARGE, _TILE = 128, 64  # pixels of a side from which on the window is applied in tiles, and of a tile
_PIXELS = 2**17  # of one model that are compared at a time: they stay in the processor's cache
_EQUAL = 1e-9  # a distance below that may be rounding alone


class Moments(NamedTuple):
    """Intensities times the root of 2 ``(H, N, C, W)``, their means over the Gaussian window ``(H', N, C, W')``, and their shares of both
    denominators. Lines come first: windows are then products of two matrices in either direction."""

    image: Tensor
    mean: Tensor
    luminance: Tensor
    contrast: Tensor


class _Structural(Distance):
    """Images are kept as intensities in [0, 2]: SSIM's luminance term is a ratio of means and has no meaning for negative ones.

    So the values are those of images in [0, 1] with a data range of 1. The distance of equal images is exactly 0.
    """

    shifts = 2  # ten products an evaluation: 8 other samples for each sample are enough, since the null is a mean over samples too

    def __init__(self, sigma: float):
        if not sigma > 0:
            raise UserError(f"sigma, the width of the window, must be positive, not {sigma:g}.")
        self.sigma = float(sigma)
        # The papers' 11 pixels at 1.5, and where scikit-image and torchmetrics cut the Gaussian off.
        self.window = 2 * int(3.5 * sigma + 0.5) + 1

    def embed(self, images: Tensor) -> Tensor:
        kept = displayed(images).double() + 1.0
        self._check(min(kept.shape[-2:]))
        return kept

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return self.shifted([a, b], [(0, 1)], 0)[0]

    def shifted(self, embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], shift: int) -> Tensor:
        """See `Distance.shifted`. The windows' moments are taken once for each model, and products alone for each pair, of a few samples
        at a time that stay in the processor's cache. Other samples are nowhere near, where float32 would lose the distance: theirs is
        taken in it.
        """
        if shift:
            embedded = [each.float() for each in embedded]
        rows = max(1, at_a_time(_PIXELS, embedded[0].device) // embedded[0][0].numel())
        found = torch.empty(len(pairs), len(embedded[0]), dtype=torch.float64, device=embedded[0].device)
        for here in torch.arange(len(embedded[0]), device=embedded[0].device).split(rows):
            own = [self._prepared(each[here]) for each in embedded]
            others = [self._prepared(each[here - shift]) for each in embedded] if shift else own
            for p, (a, b) in enumerate(pairs):
                found[p, here] = 1.0 - self._similarity(own[a], others[b]).double()
        found.clamp_min_(0.0)
        near = found < _EQUAL
        for p in (p for p, any_near in enumerate(near.any(1).tolist()) if any_near):
            a, b = pairs[p]
            equal = (embedded[a] == embedded[b].roll(shift, 0)).flatten(1).all(1)
            found[p].masked_fill_(near[p] & equal, 0.0)  # of equal images it is exactly 0
        return found

    def _prepared(self, images: Tensor) -> list[Moments]:
        """Of each scale, finest first."""
        return [self._moments(images)]

    def _moments(self, images: Tensor) -> Moments:
        lines = images.permute(2, 0, 1, 3).contiguous() * 2**0.5  # equation 13 has the doubles of products
        mean, square = self._windowed(lines), self._windowed(lines * lines)
        squared = mean * mean
        return Moments(lines, mean, (squared + _C1).div_(2), square.sub_(squared).add_(_C2).div_(2))

    def _windowed(self, lines: Tensor) -> Tensor:
        """Means over the Gaussian window ``(H', ..., W')`` of ``(H, ..., W)``, where the whole window lies in the image."""
        height, width = len(lines), lines.shape[-1]
        rows, columns = (_windows(side, self.window, self.sigma, lines.dtype, lines.device) for side in (height, width))
        if max(height, width) > _LARGE:  # most of a banded matrix is zero
            part = _banded(rows, lines.flatten(1)).view(-1, width)
            found = _banded(columns, part.T).T
        else:
            found = (rows @ lines.flatten(1)).view(-1, width) @ columns.T
        return found.reshape(len(rows), *lines.shape[1:-1], -1)

    def _terms(self, a: Moments, b: Moments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numerators of luminance and of contrast and structure, then both denominators, ``(H', N, C, W')``."""
        product = a.mean * b.mean
        contrast = self._windowed(a.image * b.image).sub_(product).add_(_C2)
        return product.add_(_C1), contrast, a.luminance + b.luminance, a.contrast + b.contrast

    @abstractmethod
    def _similarity(self, a: list[Moments], b: list[Moments]) -> Tensor:
        """``(N,)``."""

    @abstractmethod
    def _check(self, side: int) -> None:
        """Raise `UserError` for images whose shorter side is too small, naming the least size."""


@lru_cache(maxsize=32)
def _windows(side: int, window: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(side - window + 1, side)``: row i weighs the pixels i .. i + window - 1 of a line by the Gaussian, whose sum is 1."""
    offsets = torch.arange(window, dtype=dtype, device=device) - window // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    line = F.pad(weights / weights.sum(), (0, side - window + 1))
    # Each row of side + 1 entries begins one entry later than the row before when it is cut at every ``side`` entries.
    return line.repeat(side - window + 1)[: (side - window + 1) * side].view(-1, side)


def _banded(band: Tensor, images: Tensor) -> Tensor:
    """``band @ images`` tile by tile, for a band of that many rows whose row i begins at column i."""
    height, reach = len(band), band.shape[1] - len(band)
    found = images.new_empty(*images.shape[:-2], height, images.shape[-1])
    for first in range(0, height, _TILE):
        last = min(first + _TILE, height)
        part = images[..., first : last + reach, :]
        torch.matmul(band[first:last, first : last + reach], part, out=found[..., first:last, :])
    return found


class StructuralDistance(_Structural):
    """1 - SSIM over a Gaussian window, mean over channels and over the positions of the window inside the image, from 0 to 2.

    Equal to scikit-image's ``structural_similarity(gaussian_weights=True, sigma=sigma, use_sample_covariance=False)``. Estimates are
    clamped to [-1, 1].

    Args:
        sigma: standard deviation of the window in pixels. 1.5 makes it 11 wide, too wide for 8x8 images: 0.8 makes it 7 wide, which
            has four positions there.

    Raises:
        UserError: a window wider than the images.
    """

    unit = "1 - SSIM, from 0 to 2"

    def __init__(self, *, sigma: float = _SIGMA):
        super().__init__(sigma)
        self.name = "ssim" if self.sigma == _SIGMA else f"ssim-sigma{self.sigma:g}"
        self.note = (
            f"Gaussian window of {self.window} pixels, sigma {self.sigma:g}; mean over the positions inside the image "
            f"(side - {self.window - 1} in each direction); values are clamped to [-1, 1]"
        )

    def _similarity(self, a: list[Moments], b: list[Moments]) -> Tensor:
        luminance, contrast, first, second = self._terms(a[0], b[0])
        return contrast.mul_(luminance).div_(first.mul_(second)).mean((0, 2, 3))

    def _check(self, side: int) -> None:
        if side < self.window:
            raise UserError(
                f"SSIM with a window of {self.window} pixels (sigma {self.sigma:g}) needs images of at least {self.window}x{self.window}, "
                f"not {side}; write ssim(sigma=0.8), whose window is 7 pixels, or ssim(sigma=0.5), whose window is 5."
            )


class MultiScaleStructuralDistance(_Structural):
    """1 - MS-SSIM, from 0 to 1, as its authors' msssim.m computes it. Estimates are clamped to [-1, 1].

    Each scale gives the mean of the contrast-structure term over the positions of the window inside the image, the coarsest that of
    SSIM; between scales 2x2 pixels are averaged, an odd last row or column with itself. Means below 0, which no power is defined for,
    count as 0.

    Args:
        sigma: standard deviation of the window in pixels.
        scales: how many halvings plus one, 1 to 5; with fewer than 5 the first exponents are kept and scaled to sum 1.

    Raises:
        UserError: images too small for the window at the coarsest scale. Five scales want 176x176, ``ms-ssim(scales=2)`` 22x22,
            ``ms-ssim(scales=3, sigma=0.8)`` 28x28.
    """

    unit = "1 - MS-SSIM, from 0 to 1"

    def __init__(self, *, sigma: float = _SIGMA, scales: int = len(_BETAS)):
        super().__init__(sigma)
        if not 1 <= scales <= len(_BETAS):
            raise UserError(f"MS-SSIM has 1 to {len(_BETAS)} scales, not {scales}.")
        self.scales = scales
        options = (f"-scales{scales}" if scales < len(_BETAS) else "") + (f"-sigma{sigma:g}" if sigma != _SIGMA else "")
        self.name = "ms-ssim" + options
        self.note = (
            f"{scales} scales, Gaussian window of {self.window} pixels; means over the positions inside the image; "
            "values are clamped to [-1, 1]"
        )
        self.least = self.window * 2 ** (scales - 1)

    def _prepared(self, images: Tensor) -> list[Moments]:
        scales = [self._moments(images)]
        for _ in range(1, self.scales):
            images = F.avg_pool2d(images, 2, ceil_mode=True)
            scales.append(self._moments(images))
        return scales

    def _similarity(self, a: list[Moments], b: list[Moments]) -> Tensor:
        kept = _BETAS[: self.scales]
        # The published five sum to 1.0001 and are kept as they are.
        betas = kept if self.scales == len(_BETAS) else tuple(beta / sum(kept) for beta in kept)
        product = a[0].image.new_ones(a[0].image.shape[1])
        for i, (beta, u, v) in enumerate(zip(betas, a, b, strict=True)):
            luminance, contrast, first, second = self._terms(u, v)
            terms = contrast.div_(second)
            if i == len(betas) - 1:
                terms = terms.mul_(luminance).div_(first)
            product = product * terms.mean((0, 2, 3)).clamp_min(0.0) ** beta
        return product

    def _check(self, side: int) -> None:
        if side < self.least:
            raise UserError(
                f"MS-SSIM with {self.scales} scales and a window of {self.window} pixels needs at least {self.least}x{self.least}, "
                f"not {side}; write ms-ssim(scales=2) for 22 pixels or more, or take ssim."
            )
