"""Paths between two models in weight space: the straight line, and a trained quadratic curve (Garipov et al. 1802.10026, section 3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from consistency_lab.intervals import Array
from consistency_lab.networks.reentrant import differentiating
from consistency_lab.probes.frozen import FrozenBatch, SampleLoss
from consistency_lab.probes.joining import Settle, to_settle
from consistency_lab.probes.weight_space import losses_at_stops
from consistency_lab.training.loop import Batch

Weights = list[Tensor]
_GOLDEN = (5**0.5 - 1) / 2


def weights_of(module: nn.Module) -> Weights:
    return [p.detach().clone() for p in module.parameters()]


def on_line(start: Sequence[Tensor], end: Sequence[Tensor], position: float) -> Weights:
    """``(1 - s) start + s end``; the ends are the models themselves bit for bit."""
    if position in (0.0, 1.0):
        return list(end if position else start)
    return [(1 - position) * a + position * b for a, b in zip(start, end, strict=True)]


def on_curve(start: Sequence[Tensor], middle: Sequence[Tensor], end: Sequence[Tensor], position: float) -> Weights:
    """The quadratic Bezier curve ``(1 - s)^2 start + 2 s (1 - s) middle + s^2 end``; the ends are the models themselves bit for bit."""
    if position in (0.0, 1.0):
        return list(end if position else start)
    a, b, c = (1 - position) ** 2, 2 * position * (1 - position), position**2
    return [a * x + b * y + c * z for x, y, z in zip(start, middle, end, strict=True)]


def put(module: nn.Module, weights: Sequence[Tensor]) -> None:
    """Copy weights into a module."""
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), weights, strict=True):
            parameter.copy_(weight)


def losses_on(
    module: nn.Module,
    loss: SampleLoss,
    batch: FrozenBatch,
    path: Callable[[float], Weights],
    positions: Sequence[float],
    settle: Settle | None = None,
) -> Array:
    """Losses per sample at each position of a path: ``(positions, B)`` float64. The module is left as it was.

    ``settle`` recomputes running statistics at each position, see `settling`.
    """

    def way() -> Iterator[float]:
        for position in positions:
            put(module, path(position))
            if settle is not None:
                settle()
            yield position

    return losses_at_stops(module, loss, batch, way()).numpy()


def train_middle(
    start: nn.Module,
    end: nn.Module,
    loss: SampleLoss,
    batches: Callable[[int], Batch],
    *,
    steps: int,
    lr: float,
    seed: int = 0,
) -> Iterator[tuple[Weights, Tensor]]:
    """Train the middle point of the curve between two models: its weights and the loss of the batch, after each step.

    The middle begins half way on the straight line. Each step takes one point of the curve and one batch; the gradient reaches the middle
    through the curve: ``2 s (1 - s)`` times that at the point. Positions are uniform on [0, 1]: multiples of the golden ratio mod 1 from a
    start that the seed gives, which fill the curve evenly. Adam, whose learning rate falls to 0 along a line. Where running statistics of
    batch norm differ between the ends, the curve is trained on those of its batches, as in the paper.

    Args:
        start, end: the models; neither is touched.
        loss: ``loss(module, *data) -> (B,)``.
        batches: ``batches(step)``, from step 0.
        steps, lr: of the training; seed: of the positions.
    """
    a, b, walker = weights_of(start), weights_of(end), copy.deepcopy(start)
    middle = [((x + y) / 2).requires_grad_(True) for x, y in zip(a, b, strict=True)]
    for parameter in walker.parameters():
        parameter.requires_grad_(True)
    for norm in to_settle(walker, end):
        norm.train()
    optimizer = torch.optim.Adam(middle, lr=lr)
    first = float(torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu"))
    for step in range(steps):
        position = (first + step * _GOLDEN) % 1.0
        put(walker, on_curve(a, [m.detach() for m in middle], b, position))
        batch = batches(step)
        with differentiating():
            value = (batch.weight * loss(walker, *batch.data)).mean()
            gradients = torch.autograd.grad(value, list(walker.parameters()), allow_unused=True)
        for point, gradient in zip(middle, gradients, strict=True):
            point.grad = None if gradient is None else 2 * position * (1 - position) * gradient
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.step()
        yield [m.detach().clone() for m in middle], value.detach()
