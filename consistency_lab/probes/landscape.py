"""The loss along a line through weight space: between two models, or from one model along a random direction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.choices import above_zero, whole
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion, described, specs_of
from consistency_lab.errors import UserError
from consistency_lab.intervals import Array, Interval, add_interval, mean_interval, stacked
from consistency_lab.probes.directions import Direction, difference, norm, random_axes
from consistency_lab.probes.joining import Settle, own_losses, settling
from consistency_lab.probes.smoothness import (
    OFFSETS,
    ON_SPAN,
    SPANS,
    barrier,
    curvature,
    distances,
    gradient_smoothness,
    over_images,
    roughness,
)
from consistency_lab.probes.subject import Subject, check_subjects, diffusion_subject
from consistency_lab.probes.weight_space import losses_along, losses_between
from consistency_lab.store.results import with_provenance


@plain_defaults()
def probe_landscape(
    model: DiffusionModel,
    images: ImageSet,
    *,
    towards: DiffusionModel | None = None,
    points: int = 25,
    span: float = 1.0,
    count: int = 64,
    bins: int = 10,
    seed: int = 0,
    one_dimensional: bool = False,
) -> xr.Dataset:
    """`line_landscape` of a diffusion model: the loss on a line through it, for every noise level at once.

    Args:
        model: the model at position 0.
        images: their first ``count`` are denoised.
        towards: the model at position 1.
        points: see `line_landscape`, as for ``span`` and ``one_dimensional``.
        count: images, each at every noise level.
        bins: noise levels.
        seed: of the direction and the noise.

    Raises:
        UserError: as `line_landscape`; too few images.
    """
    subject = diffusion_subject(model, images, count=count, bins=bins, seed=seed)
    other = None if towards is None else same_question(subject, towards)
    return line_landscape(subject, towards=other, points=points, span=span, seed=seed, one_dimensional=one_dimensional)


def same_question(subject: Subject, model: DiffusionModel) -> Subject:
    """The same question for another diffusion model."""
    check_diffusion(model)
    return subject.asked_of(model.denoiser, model.name, {"model": described(model), "specs": specs_of([model])})


@plain_defaults()
def line_landscape(
    subject: Subject,
    *,
    towards: Subject | None = None,
    points: int = 25,
    span: float = 1.0,
    seed: int = 0,
    one_dimensional: bool = False,
) -> xr.Dataset:
    """The loss on a line through a module: a diffusion model, a generator, a discriminator, a VAE.

    Losses are taken per sample on one frozen batch, so that the split by noise level costs nothing beyond the total.

    Args:
        subject: the module at position 0 and its loss.
        towards: the module at position 1, which is asked what the subject is asked (against its opponent, where there is one); the line
            then runs from -0.5 to 1.5. Both models have the losses and the buffers that they have by themselves; where running
            statistics of batch norm differ, those of every other point are recomputed from the frozen batch. Without it the line follows
            a random filter-normalised direction from ``-span`` to ``span``.
        points: on the line; the model itself is always one of them.
        span: half-length of a random line, in units of the model's own filter norms.
        seed: of the direction.
        one_dimensional: a random direction moves biases and norms too.

    Returns:
        A landscape result: ``loss (position)`` and, where there are noise levels, ``loss_by_t (position, t)`` and ``curvature_by_t (t)``;
        ``gradient_cosine`` and ``gradient_change`` along the line (see `gradient_smoothness`). Single numbers: ``curvature``
        (second derivative at the model, loss per squared position), ``relative_curvature`` (the same over the loss at the model),
        ``roughness`` (root mean square deviation from the best quadratic, as a share of the line's range), ``barrier`` (highest loss
        between two models above the straight line between theirs; NaN on a random line), ``relative_barrier`` (over the mean of theirs),
        those of `gradient_smoothness`, and ``direction_norm``. Two of them depend on how far one looks, so that they are given at several
        reaches: ``roughness_on (span)``, on a random line, and ``predictiveness_at (distance)``; ``roughness_span`` and
        ``predictiveness_distance`` say which of these ``roughness`` and ``predictiveness`` are. All have 95 % intervals over images, named
        ``..._low`` and ``..._high``.

    Raises:
        UserError: models that differ in more than their weights (schedule, prediction, architecture, buffers), fewer than 5 points, a span
            of 0, or a loss that draws random numbers.
    """
    check_subjects(subject, *([] if towards is None else [towards]))
    points, span = whole("points", points), above_zero("span is a length", span)
    if points < 5:
        raise UserError(f"a landscape needs at least 5 points, not {points}.")
    subject.check()
    asked = {"points": points, "span": span, "one_dimensional": one_dimensional, "bins": subject.levels}
    facts: dict[str, Any] = {"seed": seed, "asked": asked}
    settle: Settle | None = None
    if towards is None:
        drawn = random_axes(subject.module, seed, one_dimensional=one_dimensional)
        (direction,), path = drawn.axes, "random direction, filter-normalised"
        line = np.arange(-(points // 2), points // 2 + 1) * (span / (points // 2))
        losses = losses_along(subject.module, subject.loss, subject.batch, direction, line.tolist())
        facts |= {"filters": drawn.filters, "left_out": drawn.left_out}
    else:
        end = subject.joined(towards)
        settle = settling(subject, end)
        direction, path = difference(subject.module, end.module), f"{subject.name} to {towards.name}"
        # Steps of one size, such that both models are on the grid.
        inner = max(2, (points - 1) // 2)
        line = np.arange(-(inner // 2), inner + inner // 2 + 1) / inner
        losses = _losses_through(subject, end, direction, line, inner, settle)
        facts |= {"towards": towards.facts.get("model", {"name": towards.name})}
        facts |= {"specs": {**subject.specs, **towards.specs}}
    by_t = losses.numpy().reshape(len(line), subject.levels, subject.count)
    # Images are the independent units: every image is seen at all noise levels.
    by_image = by_t.mean(1)
    offsets = [span * x for x in OFFSETS]
    curves, numbers, reached = gradient_smoothness(subject, direction, offsets, settle)
    result = xr.Dataset(coords={"position": line, "gradient_position": offsets, "distance": distances(offsets)})
    add_interval(result, "loss", ("position",), mean_interval(by_image))
    for name, curve in curves.items():
        add_interval(result, name, ("gradient_position",), curve)
    if subject.times is not None:
        result = result.assign_coords(t=subject.times.numpy())
        add_interval(result, "loss_by_t", ("position", "t"), mean_interval(by_t))
        bends = [over_images(partial(curvature, line), by_t[:, i]) for i in range(subject.levels)]
        add_interval(result, "curvature_by_t", ("t",), stacked(bends))
    result.attrs.update(model=subject.name, path=path, units=subject.units)
    result.attrs["towards"] = "" if towards is None else towards.name
    found = {name: over_images(f, by_image) for name, f in line_numbers(line, towards is not None).items()}
    for name, number in {**found, **numbers}.items():
        add_interval(result, name, (), number)
    add_interval(result, "predictiveness_at", ("distance",), reached)
    reaches = {"roughness_span": float(np.ptp(line)) / 2, "predictiveness_distance": float(result["distance"][0])}
    result = result.assign({"direction_norm": norm(direction), **reaches})
    if towards is None:
        result = result.assign_coords(span=[span * share for share in SPANS])
        add_interval(result, "roughness_on", ("span",), _roughness_on_spans(subject, direction, span, line, by_image))
    return with_provenance(result, "landscape", choices=("t",), path=path, **{**subject.provenance(), **facts})


def _roughness_on_spans(
    subject: Subject, direction: Direction, span: float, line: np.ndarray, by_image: np.ndarray
) -> Interval:
    """The roughness on shorter pieces of a random line, each with its own points, and on the whole of it."""
    found = []
    for share in SPANS[:-1]:
        piece = np.linspace(-1, 1, ON_SPAN) * share * span
        losses = losses_along(subject.module, subject.loss, subject.batch, direction, piece.tolist())
        images = losses.numpy().reshape(ON_SPAN, subject.levels, subject.count).mean(1)
        found.append(over_images(partial(roughness, piece), images))
    found.append(over_images(partial(roughness, line), by_image))
    return stacked(found)


def line_numbers(line: np.ndarray, between: bool) -> dict[str, Callable[[Array], float]]:
    """The numbers of `line_landscape` as functions of the mean loss on the line."""
    start, end = int(np.argmin(np.abs(line))), int(np.argmin(np.abs(line - 1)))

    def hill(loss: Array) -> float:
        return barrier(line, loss) if between else float("nan")

    def level(loss: Array) -> float:
        return float((loss[start] + loss[end]) / 2) if between else float(loss[start])

    return {
        "curvature": lambda loss: curvature(line, loss),
        "relative_curvature": lambda loss: _over(curvature(line, loss), float(loss[start])),
        "roughness": lambda loss: roughness(line, loss),
        "barrier": hill,
        "relative_barrier": lambda loss: _over(hill(loss), level(loss)),
    }


def _over(value: float, loss: float) -> float:
    """Relative to a loss; NaN where that is exactly 0."""
    return value / loss if loss else float("nan")


def _losses_through(
    subject: Subject, end: Subject, direction: Direction, line: np.ndarray, inner: int, settle: Settle | None
) -> Tensor:
    """Loss per sample on a line through two models: ``(len(line), B)``; what lies between them from loss-landscapes.

    At 0 and 1 they are the models' own bit for bit.
    """
    module, loss, batch = subject.module, subject.loss, subject.batch
    beyond, between = (line < 0) | (line > 1), (line > 0) & (line < 1)
    losses = torch.empty(len(line), len(batch), dtype=torch.float64)
    for where, values in (
        (line == 0, subject.losses().flatten()),
        (line == 1, own_losses(subject, end).flatten()),
        (between, losses_between(module, end.module, loss, batch, inner, settle)[:-1]),
        (beyond, losses_along(module, loss, batch, direction, line[beyond].tolist(), settle)),
    ):
        losses[torch.from_numpy(where)] = values
    return losses
