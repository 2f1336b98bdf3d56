"""Structural similarity as a distance: 1 - SSIM (Wang et al. 2004) and 1 - MS-SSIM (Wang et al. 2003); torchmetrics computes both."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from consistency_lab.errors import UserError
from consistency_lab.metrics.base import RANGE, Distance, displayed

_SIGMA = 1.5  # the papers' Gaussian window, 11 pixels wide
_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales, finest first (Wang et al. 2003)
_SMALL = 0.01  # a distance below this is computed in float64
_PIXELS = 2**21  # of one set of images that are compared at a time: torchmetrics holds a dozen copies


class _Structural(Distance):
    """Images are kept as intensities in [0, 2]: SSIM's luminance term is a ratio of means and has no meaning for negative ones.

    So the values equal torchmetrics' on images in [0, 1] with ``data_range=1``. The distance of equal images is exactly 0.
    """

    shifts = 2  # five blurs an evaluation: 8 other samples for each sample are enough, since the null is a mean over samples too

    def __init__(self, sigma: float):
        if not sigma > 0:
            raise UserError(f"sigma, the width of the window, must be positive, not {sigma:g}.")
        self.sigma = float(sigma)
        self.window = 2 * int(3.5 * sigma + 0.5) + 1  # as torchmetrics cuts the Gaussian off

    def embed(self, images: Tensor) -> Tensor:
        kept = displayed(images).double() + 1.0
        self._check(min(kept.shape[-2:]))
        return kept

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        # Forty times sooner in float32 (depthwise convolutions), which errs by up to some 1e-4 where images are flat: what is small is
        # computed again in float64.
        values = self._distance(a.float(), b.float())
        small = (values < _SMALL).nonzero()[:, 0]
        if len(small):
            values[small] = self._distance(a[small], b[small])
        return values.masked_fill((a == b).flatten(1).all(1), 0.0)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        rows = max(1, _PIXELS // a[0].numel())
        parts = [self._similarity(u, v).double() for u, v in zip(a.split(rows), b.split(rows), strict=True)]
        return (1.0 - torch.cat(parts)).clamp_min(0.0)

    @abstractmethod
    def _similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """``(N,)`` from intensities in [0, 2]."""

    @abstractmethod
    def _check(self, side: int) -> None:
        """Raise `UserError` for images whose shorter side is too small, naming the least size."""


class StructuralDistance(_Structural):
    """1 - SSIM over a Gaussian window, mean over pixels and channels, from 0 to 2. Estimates are clamped to [-1, 1].

    Args:
        sigma: standard deviation of the window in pixels. 1.5 makes it 11 wide, too wide for 8x8 images: 0.8 makes it 7 wide.

    Raises:
        UserError: a window wider than the images.
    """

    unit = "1 - SSIM, from 0 to 2"

    def __init__(self, *, sigma: float = _SIGMA):
        super().__init__(sigma)
        self.name = "ssim" if self.sigma == _SIGMA else f"ssim-sigma{self.sigma:g}"
        self.note = f"Gaussian window of {self.window} pixels, sigma {self.sigma:g}; values are clamped to [-1, 1]"

    def _similarity(self, a: Tensor, b: Tensor) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure

        value = structural_similarity_index_measure(a, b, sigma=self.sigma, data_range=RANGE, reduction="none")
        assert isinstance(value, Tensor)
        return value

    def _check(self, side: int) -> None:
        if side < self.window:
            raise UserError(
                f"SSIM with a window of {self.window} pixels (sigma {self.sigma:g}) needs images of at least {self.window}x{self.window}, "
                f"not {side}; write ssim(sigma=0.8), whose window is 7 pixels, or ssim(sigma=0.5), whose window is 5."
            )


class MultiScaleStructuralDistance(_Structural):
    """1 - MS-SSIM, from 0 to 1; contrast terms below 0 count as 0, as torchmetrics does. Estimates are clamped to [-1, 1].

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
        self.note = f"{scales} scales, Gaussian window of {self.window} pixels; values are clamped to [-1, 1]"
        # The window fits into the coarsest image, and torchmetrics' own bounds hold.
        self.least = max(2**scales, self.window * 2 ** (scales - 1), self.window * max(1, scales - 1) ** 2)

    def _similarity(self, a: Tensor, b: Tensor) -> Tensor:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

        kept = _BETAS[: self.scales]
        # The published five sum to 1.0001 and are kept as they are.
        betas = kept if self.scales == len(_BETAS) else tuple(beta / sum(kept) for beta in kept)
        return multiscale_structural_similarity_index_measure(
            a,
            b,
            sigma=self.sigma,
            kernel_size=self.window,
            data_range=RANGE,
            betas=betas,
            normalize="relu",
            reduction="none",
        )

    def _check(self, side: int) -> None:
        if side < self.least:
            raise UserError(
                f"MS-SSIM with {self.scales} scales and a window of {self.window} pixels needs at least {self.least}x{self.least}, "
                f"not {side}; write ms-ssim(scales=2) for 22 pixels or more, or take ssim."
            )
