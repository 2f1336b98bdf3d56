"""The optimal denoiser of an observer that sees only a window around each pixel.

A convolutional network of limited reach cannot memorise whole images. The best it can do at each pixel is to weigh the training
images by how well they fit the window there (Kamb & Ganguli 2412.20292, the local score machine, equation 7): between the
Gaussian's smoothness and the optimal denoiser's copying.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError

_NOTHING = -80.0  # nats: what is smaller weighs nothing, and exponentials near the smallest numbers are slow
_STATES = 8  # that meet the images together
_CACHED = 2**16  # distances of pixels that are held at a time: what fits into the processor's cache,
_HELD = 2**24  # and on an accelerator


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
        """``state`` (B, C, H, W) and ``level`` (B,), float64, a few states at a time."""
        rows, columns = (_band(size, side, state.device) for size in state.shape[2:])
        parts = zip(state.split(_STATES), level.split(_STATES), strict=True)
        return torch.cat([self._mean_of_few(x, s, rows, columns) for x, s in parts])

    def _mean_of_few(self, state: Tensor, level: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """A streaming softmax over the images, at every pixel.

        Lines come first, ``(H, B, n, W)``: sums over either direction of the windows are then one product of matrices, and unlike
        differences of running sums they lose no digits.
        """
        few, _, height, width = state.shape
        values = _CACHED if state.device.type == "cpu" else _HELD
        x, scale = state.permute(1, 2, 0, 3)[:, :, :, None], (-0.5 / level**2)[:, None, None]
        highest = state.new_full((height, few, 1, width), -torch.inf)
        weight, mean = torch.zeros_like(highest), state.new_zeros(len(x), height, few, 1, width)
        for chunk in self.images.split(max(1, values // (few * height * width))):
            points = chunk.permute(1, 2, 0, 3).contiguous().double()[:, :, None]
            squares = (x[0] - points[0]).square()
            for own, theirs in zip(x[1:], points[1:], strict=True):
                squares = squares + (own - theirs).square()
            sums = (rows @ squares.flatten(1)).view(-1, width) @ columns
            logits = sums.view(squares.shape) * scale
            raised = torch.maximum(highest, logits.amax(2, keepdim=True))
            keep, shares = torch.exp(highest - raised), torch.exp((logits - raised).clamp_min(_NOTHING))
            weight = weight * keep + shares.sum(2, keepdim=True)
            mean = mean * keep + torch.stack([(shares * each).sum(2, keepdim=True) for each in points])
            highest = raised
        return (mean / weight)[:, :, :, 0].permute(2, 0, 1, 3)


def _band(size: int, side: int, device: torch.device) -> Tensor:
    """``(size, size)`` float64, symmetric: 1 where two places of a line lie in one window around either, which is cut off at the border."""
    places = torch.arange(size, device=device)
    return ((places[:, None] - places).abs() <= side // 2).double()
