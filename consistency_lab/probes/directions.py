"""Directions in weight space on which landscapes are drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def random_direction(model: nn.Module, seed: int = 0) -> list[Tensor]:
    """A filter-normalised Gaussian direction (Li et al. 1712.09913, section 4), one tensor per parameter.

    Every filter (the slice of a weight that makes one output) gets the norm of that filter in the model. One-dimensional parameters
    (biases, norms) are left out, as in the paper: their direction is zero. So is that of zero filters, which have no scale.

    Args:
        model: gives shapes, scales and the device.
        seed: the direction is a function of (seed, model's weights); drawn on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for parameter in model.parameters():
        weights = parameter.detach()
        draw = torch.randn(parameter.shape, generator=generator).to(weights)
        if weights.dim() <= 1:
            direction.append(torch.zeros_like(weights))
            continue
        axes = tuple(range(1, weights.dim()))
        norms, drawn = weights.pow(2).sum(axes, keepdim=True).sqrt(), draw.pow(2).sum(axes, keepdim=True).sqrt()
        direction.append(draw * norms / drawn.clamp_min(torch.finfo(weights.dtype).tiny))
    return direction


def difference(start: nn.Module, end: nn.Module) -> list[Tensor]:
    """The direction that leads from one model's parameters to another's, one tensor per parameter."""
    return [b.detach().to(a) - a.detach() for a, b in zip(start.parameters(), end.parameters(), strict=True)]


def norm(direction: list[Tensor]) -> float:
    """Euclidean norm over all parameters."""
    return float(torch.stack([d.double().pow(2).sum() for d in direction]).sum().sqrt())
