"""The best denoiser of all on its training set: it memorises (De Bortoli 2208.05314; Kamb & Ganguli 2412.20292, equation 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from consistency_lab.devices import at_a_time
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError

_CHUNK = 2**23  # values of images that pass by at a time
_EXACT = 2**19  # of those, values of the images that matter, up to which they are weighed in float64
_PIECE = 64  # images of one product of shares and images: they are still in the processor's cache
_LEFT_OUT = 24.0  # nats: images that together weigh less than e^-24 of the whole are left out
_NOTHING = (
    -60.0
)  # nats: what is smaller weighs nothing, and products with numbers near the smallest of float32 are very slow
_ROUNDING = 2.0**-24  # of float32, relative
_ROUGH = 1e-4  # nats that a logit may be off by where very many images matter


class OptimalDenoiser(Denoiser):
    """The minimiser of the training loss over all functions: it memorises (De Bortoli 2208.05314; Kamb & Ganguli 2412.20292, equation 4).

        x0(x, s) = sum_i softmax_i(-|x - y_i|^2 / 2 s^2) y_i

    One streaming pass over the images with an online log-sum-exp. A matrix product in float32 says which images of a chunk can matter, with
    a bound on its rounding; these are weighed and averaged in float64. Where more than a few matter, the noise is so high that rounding
    hardly moves the logits (by less than 10^-4, or float64 is taken all the same), and float32 averages them too.

    Args:
        images: the training set ``(N, C, H, W)`` in [-1, 1].
        schedule: the noise schedule.
    """

    images: Tensor
    halves: Tensor

    def __init__(self, images: Tensor, schedule: Schedule):
        super().__init__()
        if len(images) == 0:
            raise UserError("the optimal denoiser needs at least one image.")
        self.schedule, self.shape = schedule, (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        self.register_buffer("images", images.flatten(1).float())
        halves = [0.5 * chunk.double().pow(2).sum(1) for chunk in self.images.split(self._rows)]
        self.register_buffer("halves", torch.cat(halves), persistent=False)  # |y|^2 / 2

    @property
    def _rows(self) -> int:
        return max(1, _CHUNK // self.images.shape[1])

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        state = (x_t.double() / self.schedule.alpha(t).reshape(-1, 1, 1, 1)).flatten(1)
        x0 = self._posterior_mean(state, self.schedule.noise_to_signal(t))
        return Prediction.of(x_t, x0.reshape(x_t.shape).to(x_t.dtype), "x0", alpha, sigma)

    def _posterior_mean(self, state: Tensor, level: Tensor) -> Tensor:
        """``state`` (B, D) and its noise ``level`` (B,), both float64."""
        count, size = self.images.shape
        columns, squared = state.T.float().contiguous(), level**2
        # No sum of D products rounds by more than D of these, and few by more than two.
        longest = (2 * self.halves.max()).sqrt()
        unit = _ROUNDING * longest * (state.norm(dim=1) + longest)
        margin = squared * (_LEFT_OUT + math.log(count)) + 2 * size * unit
        precise = bool((2 * unit <= _ROUGH * squared).all())
        best = highest = torch.full_like(level, -torch.inf)
        weight, mean = torch.zeros_like(level), torch.zeros_like(state)
        for points, halves in zip(self.images.split(self._rows), self.halves.split(self._rows), strict=True):
            # |x|^2 is common to all images and drops out of the softmax: x y - |y|^2 / 2, (n, B).
            fits = (points @ columns).sub_(halves.float()[:, None])
            best = torch.maximum(best, fits.amax(0).double())
            chosen = (fits >= (best - margin).float()).any(1).nonzero()[:, 0]
            if len(chosen) == 0:
                continue
            exact = len(chosen) * size <= _EXACT or not precise
            if exact:
                points = points[chosen].double()
                fits = points @ state.T - halves[chosen, None]
            raised = torch.maximum(highest, fits.amax(0).double())
            shares = ((fits - raised.to(fits.dtype)) / squared.to(fits.dtype)).clamp_min(_NOTHING).exp()
            keep = torch.exp((highest - raised) / squared)
            weight = weight * keep + shares.sum(0)
            mean = torch.addcmul(_average(shares, points).double(), mean, keep[:, None])
            highest = raised
        return mean / weight[:, None]


def _average(shares: Tensor, points: Tensor) -> Tensor:
    """``shares.T @ points`` of ``(n, B)`` and ``(n, D)``, a few rows at a time: they stay in the processor's cache."""
    total = torch.zeros(shares.shape[1], points.shape[1], dtype=points.dtype, device=points.device)
    piece = at_a_time(_PIECE, points.device)
    for part, own in zip(points.split(piece), shares.split(piece), strict=True):
        total.addmm_(own.T, part)
    return total
