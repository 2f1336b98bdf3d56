"""The loss and its gradient at points of weight space beside a model, which is left as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import loss_landscapes
import numpy as np
import torch
from torch import Tensor, nn

from consistency_lab.devices import measuring
from consistency_lab.errors import UserError
from consistency_lab.networks.reentrant import differentiating
from consistency_lab.probes.directions import Direction
from consistency_lab.probes.frozen import FrozenBatch, SampleLoss, untouched
from consistency_lab.probes.joining import Settle

Points = Sequence[Sequence[float]]


def at_points(
    module: nn.Module, axes: Sequence[Direction], points: Points, settle: Settle | None = None
) -> Iterator[int]:
    """Move the module to ``weights + sum_k point[k] * axes[k]`` for each point in turn, yielding its index.

    Each point starts again from the stored weights, so that no error adds up along the way, and the origin is the model itself bit for bit.
    ``settle`` is called at every other point; put the origin first, which has the buffers that the module came with. Run it inside
    `untouched`.
    """
    moved = [i for i, parts in enumerate(zip(*axes, strict=True)) if any(bool(part.any()) for part in parts)]
    parameters: list[Tensor] = [p for i, p in enumerate(module.parameters()) if i in moved]
    origin = [p.detach().clone() for p in parameters]
    steps = [[axis[i] for i in moved] for axis in axes]
    for index, point in enumerate(points):
        with torch.no_grad():
            if moved:  # a module without weights, or a way of length 0
                torch._foreach_copy_(parameters, origin)
            for position, step in zip(point, steps, strict=True):
                if moved and position:
                    torch._foreach_add_(parameters, step, alpha=float(position))
        if settle is not None and any(point):
            settle()
        yield index


def losses_at(
    module: nn.Module,
    loss: SampleLoss,
    batch: FrozenBatch,
    axes: Sequence[Direction],
    points: Points,
    settle: Settle | None = None,
) -> Tensor:
    """Loss per sample at each of the points: ``(points, B)``, float64 on the CPU. The module is left as it was."""
    return losses_at_stops(module, loss, batch, at_points(module, axes, points, settle))


def losses_at_stops(module: nn.Module, loss: SampleLoss, batch: FrozenBatch, way: Iterable[object]) -> Tensor:
    """Loss per sample wherever a way stops: ``(stops, B)``, float64 on the CPU. The module is left as it was.

    Args:
        way: moves the module's weights before it gives each of its items.
    """
    with measuring(), untouched(module), torch.no_grad():
        losses = batch.asked(module, loss)
        return torch.stack([losses() for _ in way]).double().cpu()


def losses_along(
    model: nn.Module,
    loss: SampleLoss,
    batch: FrozenBatch,
    direction: Direction,
    positions: Sequence[float],
    settle: Settle | None = None,
) -> Tensor:
    """`losses_at` on a line: ``(positions, B)`` at ``weights + position * direction``."""
    return losses_at(model, loss, batch, [direction], [[x] for x in positions], settle)


def losses_between(
    start: nn.Module, end: nn.Module, loss: SampleLoss, batch: FrozenBatch, steps: int, settle: Settle | None = None
) -> Tensor:
    """Loss per sample at the points 1/steps, 2/steps ... 1 of the way from one module to another: ``(steps, B)``, float64 on the CPU.

    This is loss-landscapes' linear interpolation: it walks by adding up equal steps, so its points are off by a rounding each. Both modules
    are left as they were.
    """

    with measuring(), untouched(start), untouched(end), torch.no_grad():
        asked = batch.asked(start, loss)

        def losses(_: loss_landscapes.ModelWrapper) -> np.ndarray:
            if settle is not None:
                settle()
            return asked().double().cpu().numpy()

        # Not on copies: those of a TorchScript have parameters that cannot be moved, and it is the start itself that is asked.
        return torch.from_numpy(loss_landscapes.linear_interpolation(start, end, losses, steps, deepcopy_model=False))


def mean_gradients(module: nn.Module, loss: SampleLoss, batches: Sequence[FrozenBatch]) -> Iterator[Direction]:
    """The gradient of the mean loss over each batch, where the module now is. Run it inside `untouched`.

    Parameters that the loss does not depend on have gradient zero. Raises `UserError` for a loss that depends on none.
    """
    parameters = list(module.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    for batch in batches:
        total = [torch.zeros_like(p) for p in parameters]
        for parts in zip(*(x.split(batch.chunk) for x in batch.tensors), strict=True):
            with differentiating():
                value = loss(module, *parts).sum() / len(batch)
                if not value.requires_grad:
                    raise UserError(
                        "the loss does not depend on the parameters of the module; probe the module that it uses."
                    )
                found = torch.autograd.grad(value, parameters, materialize_grads=True)
            for sum_, gradient in zip(total, found, strict=True):
                sum_.add_(gradient)
        yield total
