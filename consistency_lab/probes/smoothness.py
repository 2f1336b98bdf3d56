"""How smooth is a landscape? Numbers with units, their scale-free versions, and 95 % intervals over images.

Positions on a filter-normalised line are shares of the filters' own norms, so that a change of the weights' scale that the network does
not notice leaves them alone. What is divided by the loss at the model (``relative_...``) does not depend on the scale of the loss either:
diffusion models, GANs and VAEs can stand on one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from consistency_lab.devices import measuring
from consistency_lab.intervals import Array, Interval, jackknife, without_bounds
from consistency_lab.probes.directions import Direction, norm
from consistency_lab.probes.frozen import untouched
from consistency_lab.probes.joining import Settle
from consistency_lab.probes.subject import Subject
from consistency_lab.probes.weight_space import at_points, mean_gradients

OFFSETS = (-0.5, -0.25, -0.1, 0.1, 0.25, 0.5)
SPANS = (
    0.1,
    0.3,
    1.0,
)  # shares of a random line on which its roughness is taken: a loss is a quadratic near enough to any point
ON_SPAN = 9  # points of the shorter ones


def curvature(positions: np.ndarray, loss: np.ndarray) -> float:
    """Second derivative at position 0, from the model's two neighbours on the line; loss per squared position."""
    centre = int(np.argmin(np.abs(positions)))
    step = positions[1] - positions[0]
    return float((loss[centre - 1] - 2 * loss[centre] + loss[centre + 1]) / step**2)


def roughness(positions: np.ndarray, loss: np.ndarray) -> float:
    """Root mean square deviation from the least-squares quadratic, over the range of the loss; NaN for a constant. No unit.

    Args:
        positions: ``(n,)`` on a line, or ``(n, 2)`` on a plane.
        loss: ``(n,)``.
    """
    span = float(loss.max() - loss.min())
    if span == 0.0:
        return float("nan")
    points = positions.reshape(len(positions), -1)
    squares = [points[:, i] * points[:, j] for i in range(points.shape[1]) for j in range(i + 1)]
    design = np.column_stack([np.ones(len(points)), points, *squares])
    deviation = loss - design @ np.linalg.lstsq(design, loss, rcond=None)[0]
    return float(np.sqrt((deviation**2).mean()) / span)


def barrier(positions: np.ndarray, loss: np.ndarray) -> float:
    """Highest excess of the loss on [0, 1] over the straight line between the losses of the two models; a loss."""
    inside = (positions >= 0) & (positions <= 1)
    chord = np.interp(positions[inside], [0.0, 1.0], np.interp([0.0, 1.0], positions, loss))
    return float((loss[inside] - chord).max())


def over_images(statistic: Callable[[Array], float], losses: Array) -> Interval:
    """A statistic of the mean loss over images, with the jackknife's interval over images; NaN bounds for one image.

    Args:
        statistic: ``(points,)`` to a number.
        losses: ``(points, images)``.
    """
    n = losses.shape[1]
    estimate = np.array(statistic(losses.mean(1)))
    if n < 2:
        return without_bounds(estimate)
    without = (losses.sum(1, keepdims=True) - losses) / (n - 1)
    return jackknife(estimate, np.array([statistic(column) for column in without.T]))


def gradient_smoothness(
    subject: Subject, direction: Direction, offsets: Sequence[float] = OFFSETS, settle: Settle | None = None
) -> tuple[dict[str, Interval], dict[str, Interval], Interval]:
    """How well the gradient at the model predicts the gradient near it (after Santurkar et al. 1805.11604, section 3).

    Intervals are those of the jackknife that leaves out an eighth of the images at a time.

    Args:
        subject: the loss.
        direction: of the line.
        offsets: positions on the line, without 0.
        settle: recomputes running statistics there, see `settling`.

    Returns:
        Curves over the offsets: ``gradient_cosine`` between the gradient there and at the model, and ``gradient_change``, the norm of their
        difference over the norm of the gradient at the model; no unit, both. And numbers: ``predictiveness``, the mean cosine at the two
        offsets closest to the model; ``lipschitz``, the largest ratio of the change of the gradient to the way in weight space, a lower
        bound of its Lipschitz constant, in loss per squared weight; ``relative_lipschitz``, the same per squared position and over the
        loss at the model; ``gradient_rms``, the root mean square over parameters of the gradient at the model, in loss per weight. And the
        mean cosine at each distance in `distances`, which falls with it: the first is the predictiveness.
    """
    blocks, shares = subject.blocks()
    batches = [block.batch for block in blocks]
    # Row 0 is everything, the others leave out one block each.
    weights = np.stack([shares, *(np.where(np.arange(len(shares)) == i, 0, shares) for i in range(len(shares)))])
    with np.errstate(invalid="ignore"):
        weights /= weights.sum(1, keepdims=True)
    length, way = norm(direction), np.abs(np.asarray(offsets))
    squares, products, changes = [], [], []
    with measuring(), untouched(subject.module):
        for index in at_points(subject.module, [direction], [[0.0], *([x] for x in offsets)], settle):
            rows = torch.stack(
                [
                    torch.cat([g.flatten() for g in gradient])
                    for gradient in mean_gradients(subject.module, subject.loss, batches)
                ]
            ).double()
            if index == 0:
                first = rows
            squares.append(_form(weights, rows @ rows.T).clip(min=0.0))
            products.append(_form(weights, first @ rows.T))
            step = rows - first
            changes.append(_form(weights, step @ step.T).clip(min=0.0))
    here, there = np.sqrt(squares[0]), np.sqrt(np.stack(squares[1:]))
    change = np.sqrt(np.stack(changes[1:]))  # (offsets, 1 + blocks)
    losses = torch.stack(
        [batch.losses(subject.module, subject.loss).detach().double().mean().cpu() for batch in batches]
    )
    level = weights @ losses.numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine, relative = np.stack(products[1:]) / (here * there), change / here
        steepest = (change / way[:, None]).max(0)
        means = np.stack([cosine[way == reach].mean(0) for reach in distances(offsets)])
        curves = {"gradient_cosine": _interval(cosine), "gradient_change": _interval(relative)}
        numbers = {
            "predictiveness": _interval(means[0]),
            "lipschitz": _interval(steepest / length),
            "relative_lipschitz": _interval(steepest * length / level),
            "gradient_rms": _interval(here / first.shape[1] ** 0.5),
        }
    return curves, numbers, _interval(means)


def distances(offsets: Sequence[float]) -> Array:
    """How far from the model gradients are taken, rising."""
    return np.unique(np.abs(np.asarray(offsets)))


def _form(weights: Array, products: torch.Tensor) -> Array:
    """``w products w^T`` for each row w of the weights."""
    return np.einsum("ri,ij,rj->r", weights, products.cpu().numpy(), weights)


def _interval(values: Array) -> Interval:
    """From ``(..., 1 + blocks)``."""
    return jackknife(values[..., 0], np.moveaxis(values[..., 1:], -1, 0))
