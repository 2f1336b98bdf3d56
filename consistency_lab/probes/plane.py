"""The loss on a plane through weight space: spanned by two random directions, or by three models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.choices import above_zero, whole
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError
from consistency_lab.intervals import Array, add_interval, mean_interval
from consistency_lab.probes.directions import dot, norm, plane_through, random_axes
from consistency_lab.probes.joining import own_losses, settling
from consistency_lab.probes.landscape import same_question
from consistency_lab.probes.smoothness import curvature, over_images, roughness
from consistency_lab.probes.subject import Subject, check_subjects, diffusion_subject
from consistency_lab.probes.weight_space import losses_at
from consistency_lab.store.results import with_provenance

MARGIN = 0.25  # beside three models, in units of the way from the first to the second


@plain_defaults()
def probe_plane(
    model: DiffusionModel,
    images: ImageSet,
    *,
    through: Sequence[DiffusionModel] | None = None,
    points: int = 15,
    span: float = 1.0,
    count: int = 32,
    bins: int = 4,
    seed: int = 0,
    one_dimensional: bool = False,
) -> xr.Dataset:
    """`plane_landscape` of a diffusion model, for every noise level at once.

    Args:
        model: the model at (0, 0).
        images: their first ``count`` are denoised.
        through: two more models of the same architecture, for the plane through the three.
        points: see `plane_landscape`, as for ``span`` and ``one_dimensional``.
        count: images, each at every noise level.
        bins: noise levels.
        seed: of the directions and the noise.

    Raises:
        UserError: as `plane_landscape`; too few images.
    """
    subject = diffusion_subject(model, images, count=count, bins=bins, seed=seed)
    others = None if through is None else [same_question(subject, other) for other in through]
    return plane_landscape(
        subject, through=others, points=points, span=span, seed=seed, one_dimensional=one_dimensional
    )


@plain_defaults()
def plane_landscape(
    subject: Subject,
    *,
    through: Sequence[Subject] | None = None,
    points: int = 15,
    span: float = 1.0,
    seed: int = 0,
    one_dimensional: bool = False,
) -> xr.Dataset:
    """The loss on a plane through a module.

    Args:
        subject: the module at (0, 0) and its loss.
        through: two more modules, which are asked what the subject is asked (against its opponent, where there is one): the plane through
            the three, whose axes are orthogonal and of one length, the way from the first to the second. The third is evaluated where it
            lies, beside the grid. All three have the losses and buffers that they have by themselves; where running statistics of batch
            norm differ, those of every other point are recomputed from the frozen batch. Without them the plane is spanned by two random
            filter-normalised directions that are orthogonal in every filter.
        points: on an axis (on the longer one, for three models); the module itself is always one of them.
        span: half-length of random axes, in units of the module's own filter norms.
        seed: of the directions.
        one_dimensional: random directions move biases and norms too.

    Returns:
        A plane result: ``loss (y, x)``, ``loss_by_t (y, x, t)`` where there are noise levels, ``corner_loss (corner)`` of the models
        themselves at ``corner_x``, ``corner_y``. Numbers in the attributes: ``curvature_x``, ``curvature_y`` and their ``relative_...``
        versions (as in `line_landscape`), ``roughness`` (deviation from the best quadratic in both coordinates, as a share of the range;
        it depends on ``roughness_span``, half of the longer side),
        ``direction_norm`` of both axes, their ``axes_cosine``. Intervals are over images.

    Raises:
        UserError: another number of modules, modules that differ in more than their weights, modules on one line, fewer than 5 points, a
            span of 0, a loss that draws random numbers.
    """
    check_subjects(subject, *(through or ()))
    points, span = whole("points", points), above_zero("span is a length", span)
    if points < 5:
        raise UserError(f"a plane needs at least 5 points on an axis, not {points}.")
    subject.check()
    asked = {"points": points, "span": span, "one_dimensional": one_dimensional, "bins": subject.levels}
    facts: dict[str, Any] = {"seed": seed, "asked": asked}
    settle, own = None, []
    corners, names = [[0.0, 0.0]], [subject.name]
    if through is None:
        drawn = random_axes(subject.module, seed, 2, one_dimensional=one_dimensional)
        axes, path = drawn.axes, "random directions, filter-normalised"
        x = y = np.arange(-(points // 2), points // 2 + 1) * (span / (points // 2))
        facts |= {"filters": drawn.filters, "left_out": drawn.left_out}
    else:
        if len(through) != 2:
            raise UserError(f"a plane goes through three models: name two more, not {len(through)}.")
        ends = [subject.joined(other) for other in through]
        settle, own = settling(subject, *ends), [subject.losses(), *(own_losses(subject, end) for end in ends)]
        axes, corners = plane_through(subject.module, *(end.module for end in ends))
        names = [subject.name, *(other.name for other in through)]
        path = f"plane through {', '.join(names)}"
        x, y = _ticks(corners, points)
        facts |= {"through": [other.facts.get("model", {"name": other.name}) for other in through]}
        facts |= {"specs": {name: spec for each in (subject, *through) for name, spec in each.specs.items()}}
    grid = np.stack([a.ravel() for a in np.meshgrid(x, y)], 1)  # y major
    places = [*grid.tolist(), *corners]
    losses = losses_at(subject.module, subject.loss, subject.batch, axes, places, settle)
    for corner, known in zip(corners, own, strict=False):  # the models themselves, wherever they are met
        losses[[i for i, place in enumerate(places) if place == corner]] = known.flatten()
    by_t = losses.numpy().reshape(len(losses), subject.levels, subject.count)
    by_image = by_t.mean(1)
    on_grid, shape = by_image[: len(grid)], (len(y), len(x))
    result = xr.Dataset(
        {"corner_x": ("corner", [c[0] for c in corners]), "corner_y": ("corner", [c[1] for c in corners])},
        coords={"x": x, "y": y, "corner": names},
    )
    add_interval(result, "loss", ("y", "x"), mean_interval(on_grid.reshape(*shape, -1)))
    add_interval(result, "corner_loss", ("corner",), mean_interval(by_image[len(grid) :]))
    if subject.times is not None:
        result = result.assign_coords(t=subject.times.numpy())
        values = by_t[: len(grid)].reshape(*shape, subject.levels, subject.count)
        add_interval(result, "loss_by_t", ("y", "x", "t"), mean_interval(values))
    result.attrs.update(model=subject.name, path=path, units=subject.units)
    for name, statistic in plane_numbers(x, y).items():
        add_interval(result, name, (), over_images(statistic, on_grid))
    result = result.assign(
        direction_norm=norm(axes[0]),
        roughness_span=float(max(np.ptp(x), np.ptp(y))) / 2,
        axes_cosine=dot(*axes) / (norm(axes[0]) * norm(axes[1])),
    )
    return with_provenance(result, "plane", choices=("t",), path=path, **{**subject.provenance(), **facts})


def plane_numbers(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[Array], float]]:
    """The numbers of `plane_landscape` as functions of the mean loss on the grid, y major."""
    column, row = int(np.argmin(np.abs(x))), int(np.argmin(np.abs(y)))
    grid = np.stack([a.ravel() for a in np.meshgrid(x, y)], 1)

    def table(loss: Array) -> Array:
        return loss.reshape(len(y), len(x))

    def along(axis: str, loss: Array) -> float:
        return curvature(x, table(loss)[row]) if axis == "x" else curvature(y, table(loss)[:, column])

    return {
        "curvature_x": lambda loss: along("x", loss),
        "curvature_y": lambda loss: along("y", loss),
        "relative_curvature_x": lambda loss: along("x", loss) / float(table(loss)[row, column]),
        "relative_curvature_y": lambda loss: along("y", loss) / float(table(loss)[row, column]),
        "roughness": lambda loss: roughness(grid, loss),
    }


def _ticks(corners: Sequence[Sequence[float]], points: int) -> tuple[Array, Array]:
    """Positions along both axes, in equal steps of which a whole number leads from the first to the second model."""
    low, high = np.min(corners, 0) - MARGIN, np.max(corners, 0) + MARGIN
    steps = max(2, int((points - 1) / float((high - low).max())))
    x, y = (np.arange(np.ceil(low[k] * steps), np.floor(high[k] * steps) + 1) / steps for k in (0, 1))
    return x, y
