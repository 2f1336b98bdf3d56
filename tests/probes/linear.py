"""A linear denoiser on Gaussian images, of which everything is known in closed form."""

from functools import partial

import torch
from torch import nn

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_error, denoising_loss, noisy_state
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.subject import Split, Subject, mean_square

SHAPE, SIZE = (1, 2, 2), 4


class Linear(nn.Module):
    """``W x`` on the pixels, at every time."""

    def __init__(self, seed=0):
        super().__init__()
        draw = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.weight = nn.Parameter(0.5 * draw)

    def forward(self, x, t, cond=None):
        return (x.flatten(1) @ self.weight.T).reshape(x.shape)


def linear_subject(count=12, bins=3, chunk=1024, seed=0):
    """The subject, and per level its second moments ``C (bins, 4, 4)`` of x_t and ``M (bins, 4, 4)`` of eps x_t^T."""
    schedule, generator = SCHEDULES.build("cosine"), torch.Generator().manual_seed(seed)
    spread = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.1], dtype=torch.float64))
    x0 = (torch.randn(count, SIZE, generator=generator, dtype=torch.float64) @ spread).reshape(count, *SHAPE)
    eps = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    times = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    tensors = [x0.repeat(bins, 1, 1, 1), times.repeat_interleave(count), eps.repeat(bins, 1, 1, 1)]
    denoiser = NetworkDenoiser(Linear(), schedule, SHAPE)
    loss, split = partial(denoising_loss, units="eps"), Split(partial(denoising_error, units="eps"), mean_square)
    subject = Subject("linear", denoiser, loss, FrozenBatch(tensors, chunk), "mean squared error in eps", times, split)
    x_t = noisy_state(schedule, *tensors).reshape(bins, count, SIZE)
    noise = tensors[2].reshape(bins, count, SIZE)
    return subject, x_t.mT @ x_t / count, noise.mT @ x_t / count, noise.pow(2).mean((1, 2))


def loss_formula(weights, second, mixed, noise):
    """Per level: ``(tr W C W^T - 2 tr W M^T) / d + mean eps^2``."""
    return torch.stack(
        [
            ((weights @ c @ weights.T).trace() - 2 * (weights @ m.T).trace()) / SIZE + n
            for c, m, n in zip(second, mixed, noise, strict=True)
        ]
    )


def hessian_formula(second):
    """``2 / d I x C`` for the row-major weights, C the mean over levels."""
    return torch.kron(torch.eye(SIZE, dtype=torch.float64), 2 / SIZE * second.mean(0))
