"""Directions in weight space on which landscapes are drawn. A direction is a list with one tensor per parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from consistency_lab.errors import UserError

Direction = list[Tensor]
TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class RandomAxes:
    """Filter-normalised Gaussian directions, orthogonal to each other in every filter.

    Attributes:
        axes: the directions.
        filters: how many filters are moved.
        left_out: how many are not: ``"one_dimensional"`` (parameters: biases, norms), ``"single_element"`` and ``"zero"`` (filters).
    """

    axes: list[Direction]
    filters: int
    left_out: dict[str, int]


def random_axes(model: nn.Module, seed: int = 0, count: int = 1, *, one_dimensional: bool = False) -> RandomAxes:
    """Filter-normalised Gaussian directions (Li et al. 1712.09913, section 4).

    Every filter (the slice of a weight that makes one output) gets the norm of that filter in the model. Axes are made orthogonal filter
    by filter and normalised afterwards, so that both properties hold at once. A filter of one element has no direction of its own and one
    of norm zero no scale: they stay where they are.

    Args:
        model: gives shapes, scales and the device.
        seed: the axes are a function of (seed, the model's weights); drawn on the CPU, the first axis whatever ``count``.
        count: 1 or 2 axes.
        one_dimensional: move biases and norms too, each tensor as one filter. They are left out by default, as in the paper.
    """
    if count not in (1, 2):
        raise UserError(f"a landscape has 1 or 2 random axes, not {count}.")
    generator = torch.Generator().manual_seed(seed)
    parameters = [p.detach() for p in model.parameters()]
    draws = [
        [torch.randn(p.shape, generator=generator, dtype=torch.float32, device="cpu") for p in parameters]
        for _ in range(count)
    ]
    axes: list[Direction] = [[] for _ in range(count)]
    filters, left_out = 0, {"one_dimensional": 0, "single_element": 0, "zero": 0}
    for i, weights in enumerate(parameters):
        rows = as_filters(weights)
        norms = _lengths(rows)
        if weights.dim() <= 1 and not one_dimensional:
            left_out["one_dimensional"] += 1
            norms = torch.zeros_like(norms)
        elif rows.shape[1] < 2:
            left_out["single_element"] += len(rows)
            norms = torch.zeros_like(norms)
        else:
            left_out["zero"] += int((norms == 0).sum())
            filters += int((norms > 0).sum())
        first = draws[0][i].to(weights).reshape(rows.shape)
        lengths = _lengths(first)
        axes[0].append((first * (norms / lengths.clamp_min(TINY)).to(rows)).reshape(weights.shape))
        if count == 2:
            unit = first.double() / lengths.clamp_min(TINY)
            other = draws[1][i].to(unit).reshape(rows.shape)
            other = other - (other * unit).sum(1, keepdim=True) * unit
            axes[1].append((other * (norms / _lengths(other).clamp_min(TINY))).reshape(weights.shape).to(weights))
    return RandomAxes(axes, filters, left_out)


def _lengths(rows: Tensor) -> Tensor:
    """The norm of each row, float64 ``(filters, 1)``."""
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)


def as_filters(weights: Tensor) -> Tensor:
    """A parameter as its filters ``(filters, elements)``; a tensor of fewer than two dimensions is one filter."""
    return weights.reshape(len(weights), -1) if weights.dim() > 1 else weights.reshape(1, -1)


def difference(start: nn.Module, end: nn.Module) -> Direction:
    """The direction that leads from one model's parameters to another's."""
    return [b.detach().to(a) - a.detach() for a, b in zip(start.parameters(), end.parameters(), strict=True)]


def plane_through(start: nn.Module, second: nn.Module, third: nn.Module) -> tuple[list[Direction], list[list[float]]]:
    """Two orthogonal axes of one length that span the plane through three models (Garipov et al. 1802.10026, section 3).

    Returns:
        the axes, both as long as the way from the first to the second model, and the three models' coordinates: (0, 0), (1, 0), and where
        the third lies.

    Raises:
        UserError: the three lie on one line, to rounding.
    """
    first, other = difference(start, second), difference(start, third)
    length = norm(first)
    along = dot(first, other) / length**2 if length else 0.0
    rest = [b - along * a for a, b in zip(first, other, strict=True)]
    height = norm(rest)
    if not height > 1e-4 * norm(other) or not length:
        raise UserError("the three models lie on one line in weight space, so there is no plane through them.")
    return [first, [r * (length / height) for r in rest]], [[0.0, 0.0], [1.0, 0.0], [along, height / length]]


def dot(a: Direction, b: Direction) -> float:
    """Scalar product over all parameters."""
    return float(torch.stack([(x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)]).sum())


def norm(direction: Direction) -> float:
    """Euclidean norm over all parameters."""
    return dot(direction, direction) ** 0.5
