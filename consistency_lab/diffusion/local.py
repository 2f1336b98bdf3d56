"""The optimal denoiser of an observer that sees only a window around each pixel.

A convolutional network of limited reach cannot memorise whole images. The best it can do at each pixel is to weigh the training
images by how well they fit the window there (Kamb & Ganguli 2412.20292, the local score machine, equation 7): between the
Gaussian's smoothness and the optimal denoiser's copying.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from consistency_lab.diffusion.denoiser import Denoiser, Prediction
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError

_CHUNK_BYTES = 2**27


class LocalDenoiser(Denoiser):
    """x0 at pixel p = sum_i softmax_i(-|window_p(x) - window_p(y_i)|^2 / 2 s^2) y_i(p), with x = x_t / alpha and s = sigma / alpha.

    Windows are cut off at the border, as a zero-padded network's are. A window as large as twice the image makes it the optimal
    denoiser.

    Args:
        images: the training set ``(N, C, H, W)`` in [-1, 1].
        schedule: the noise schedule.
        window: odd side of the window, one for all noise levels; or pairs (log-SNR from which on, side), from low to high log-SNR:
            at high noise networks look further than at low noise.
        most: use the first so many images only; the work grows with images times pixels.

    Raises:
        UserError: no images, or a side that is not odd and positive.
    """

    images: Tensor

    def __init__(
        self,
        images: Tensor,
        schedule: Schedule,
        *,
        window: int | Sequence[tuple[float, int]] = 5,
        most: int | None = None,
    ):
        super().__init__()
        steps = [(-torch.inf, window)] if isinstance(window, int) else sorted((float(a), int(b)) for a, b in window)
        if len(images) == 0:
            raise UserError("the local denoiser needs at least one image.")
        if not steps or any(side < 1 or side % 2 == 0 for _, side in steps):
            raise UserError(f"the window of a local denoiser has an odd side of at least 1, not {window!r}.")
        images = images[:most]
        self.schedule, self.shape = schedule, (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        self.steps = steps
        self.register_buffer("images", images.float())

    def side(self, log_snr: float) -> int:
        """Side of the window at a noise level; below the first given level the first side."""
        return [side for start, side in self.steps if start <= log_snr or start == self.steps[0][0]][-1]

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        state, level = x_t.double() / self.schedule.alpha(t).reshape(-1, 1, 1, 1), self.schedule.noise_to_signal(t)
        x0 = torch.empty_like(state)
        sides = [self.side(value) for value in self.schedule.log_snr(t).tolist()]
        for side in sorted(set(sides)):
            rows = torch.tensor([i for i, own in enumerate(sides) if own == side], device=state.device)
            x0[rows] = self._posterior_mean(state[rows], level[rows], side)
        return Prediction.of(x_t, x0.to(x_t.dtype), "x0", alpha, sigma)

    def _posterior_mean(self, state: Tensor, level: Tensor, side: int) -> Tensor:
        """``state`` (B, C, H, W) and ``level`` (B,), float64: a streaming softmax over the images, at every pixel."""
        pixels = state.shape[-1] * state.shape[-2]
        size = max(1, _CHUNK_BYTES // (16 * len(state) * pixels))
        highest = state.new_full((len(state), 1, *state.shape[2:]), -torch.inf)
        weight, mean = torch.zeros_like(highest), torch.zeros_like(state)
        for chunk in self.images.split(size):
            points = chunk.double()
            squares = (state[:, None] - points).pow(2).sum(2)  # (B, n, H, W)
            logits = -_window_sums(squares, side) / (2 * level.reshape(-1, 1, 1, 1) ** 2)
            raised = torch.maximum(highest, logits.amax(1, keepdim=True))
            keep, shares = torch.exp(highest - raised), torch.exp(logits - raised)
            weight = weight * keep + shares.sum(1, keepdim=True)
            mean = mean * keep + torch.einsum("bnhw,nchw->bchw", shares, points)
            highest = raised
        return mean / weight


def _window_sums(values: Tensor, side: int) -> Tensor:
    """Sums over square windows around each pixel, cut off at the border: ``(B, n, H, W)`` -> the same."""
    reach = side // 2
    for axis in (2, 3):
        size = values.shape[axis]
        total = F.pad(values.cumsum(axis), (1, 0) if axis == 3 else (0, 0, 1, 0))
        first = torch.arange(size, device=values.device).sub(reach).clamp_min(0)
        last = torch.arange(size, device=values.device).add(reach + 1).clamp_max(size)
        values = total.index_select(axis, last) - total.index_select(axis, first)
    return values
