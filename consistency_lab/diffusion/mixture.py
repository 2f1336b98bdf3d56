"""The exact denoiser of a law that is known: what every model trained on a synthetic set tries to become."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from consistency_lab.data.synthetic import GaussianMixture
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.prediction import Prediction
from consistency_lab.diffusion.schedule import Schedule


class MixtureDenoiser(Denoiser):
    """The posterior mean of a Gaussian mixture. With r_k the probability of component k given the state x = x_t / alpha,

        x0(x, s) = sum_k r_k (m_k + C_k (C_k + s^2 I)^-1 (x - m_k)),    r_k ~ w_k N(x; m_k, C_k + s^2 I),    s = sigma / alpha

    With one component it is the Gaussian denoiser of that law.

    Args:
        law: the law, for example that of a synthetic set (``load_images("mixture").law``).
        schedule: the noise schedule.
    """

    means: Tensor
    variances: Tensor
    axes: Tensor
    weights: Tensor

    def __init__(self, law: GaussianMixture, schedule: Schedule):
        super().__init__()
        channels, height, width = law.means.shape[1:]
        self.schedule, self.shape = schedule, (channels, height, width)
        variances, axes = torch.linalg.eigh(law.covariances)
        self.register_buffer("means", law.means.flatten(1))  # (K, D), float64 as the rest
        self.register_buffer("variances", variances.clamp_min(0.0))  # (K, D)
        self.register_buffer("axes", axes)  # (K, D, D), columns
        self.register_buffer("weights", law.weights)  # (K,)

    def predict(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, cond: Tensor | None) -> Prediction:
        state = (x_t.double() / self.schedule.alpha(t).to(x_t.device).reshape(-1, 1, 1, 1)).flatten(1)
        level = self.schedule.noise_to_signal(t).to(x_t.device).reshape(-1, 1, 1)
        apart = torch.einsum("bkd,kde->bke", state[:, None] - self.means, self.axes)  # along each component's axes
        total = self.variances + level**2
        logits = -0.5 * (apart**2 / total + torch.log(2 * math.pi * total)).sum(2) + torch.log(self.weights)
        each = self.means + torch.einsum("bke,kde->bkd", self.variances / total * apart, self.axes)
        x0 = torch.einsum("bk,bkd->bd", torch.softmax(logits, 1), each)
        return Prediction.of(x_t, x0.reshape(x_t.shape).to(x_t.dtype), "x0", alpha, sigma)
