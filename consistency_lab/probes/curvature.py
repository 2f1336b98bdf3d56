"""The curvature of a loss: extreme eigenvalues, density of eigenvalues and trace, of the Hessian and of its Gauss-Newton part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from consistency_lab.choices import whole
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring, plain_defaults
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.intervals import Array, Interval, add_interval, as_columns, mean_interval, stacked
from consistency_lab.probes.lanczos import Eigenpairs, extreme_eigenpairs, quadrature
from consistency_lab.probes.operators import OPERATORS, CurvatureOperator
from consistency_lab.probes.subject import Subject, check_subjects, diffusion_subject
from consistency_lab.probes.trace import trace
from consistency_lab.store.results import with_provenance

POINTS = 512  # of a density's grid
WIDTH = 0.01  # of a node in a density, over the span of the nodes
ENDS = ("top", "bottom")


@plain_defaults()
def probe_curvature(
    model: DiffusionModel,
    images: ImageSet,
    *,
    count: int = 16,
    bins: int = 4,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """`curvature_spectrum` of a diffusion model.

    At its defaults a spectrum is that of 64 samples, 16 images at 4 noise levels: a network of 0.65 million parameters on images of 8x8
    takes about 5 minutes of one core. More ``count`` narrows the intervals over images, more ``steps`` and ``probes`` make the density
    finer and its error smaller, more ``products`` do that for the trace; the time grows in proportion.

    Args:
        model: the model.
        images: their first ``count`` are denoised.
        count: images, each at every noise level.
        bins: noise levels.
        seed: of the noise and of random vectors.
        options: of `curvature_spectrum`.

    Raises:
        UserError: as `curvature_spectrum`; too few images.
    """
    subject = diffusion_subject(model, images, count=count, bins=bins, seed=seed)
    return curvature_spectrum(subject, seed=seed, **options)


@plain_defaults()
def curvature_spectrum(
    subject: Subject,
    *,
    seed: int = 0,
    operators: Sequence[str] = ("hessian", "gauss_newton"),
    eigenvalues: int = 4,
    probes: int = 3,
    steps: int = 25,
    products: int = 24,
    by_t: bool = True,
    scaled: bool = False,
    parameters: Sequence[str] | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """The spectrum of the second derivatives of a subject's mean loss, over all samples and for each noise level separately.

    It costs about ``(4 + probes) * steps + products`` products for each operator, or less where eigenvalues converge early, and ``by_t``
    as much again.

    Args:
        subject: the module and its loss.
        seed: of random vectors.
        operators: ``"hessian"``, ``"gauss_newton"``, or both; Gauss-Newton needs a subject with a split.
        eigenvalues: at each end of the spectrum.
        probes: random vectors of the density.
        steps: Lanczos steps of a probe; the eigenvalues get up to twice as many.
        products: of the trace.
        by_t: for each noise level too; as many products again, each on one level's samples.
        scaled: in units of the filters' norms, see `CurvatureOperator`; loss per squared weight otherwise.
        parameters: names of those that the matrix is over; all by default.
        progress: show a progress bar; by default on a terminal only.

    Returns:
        A curvature result over ``operator`` and ``part`` (``"all"`` and one for each noise level, with its ``t``):

        * ``eigenvalue (operator, part, end, rank)`` with its ``residual`` ``|H v - value v|``, whether it ``converged`` (the residual is
          below a thousandth of the eigenvalue itself, which those near 0 hardly ever reach), and an interval
          over images to first order: that of ``v^T H v`` for the vector that was found;
        * ``density (operator, part, point)`` at ``grid``, a share of all eigenvalues per unit of eigenvalue, mean over probes with its
          standard error ``density_error``; every node is a bump of standard deviation ``width``, which hides what is narrower: the nodes
          of each probe and their weights, ``node`` and ``weight (operator, part, probe, step)``, give densities of any width
          (`consistency_lab.probes.lanczos.Quadrature`);
        * ``trace`` with the standard error of its random vectors, ``trace_error``, and an interval that holds this error and that over
          images; ``square``, the sum of the squared eigenvalues, with ``square_error``;
        * ``loss (part)`` at the model, and in the attributes the number of ``parameters``.

    Raises:
        UserError: unknown operators or parameters, a missing split, a loss that draws random numbers.
    """
    check_subjects(subject)
    for name in operators:
        if name not in OPERATORS:
            raise unknown_name("operator", name, OPERATORS)
    probes = whole("probes", probes)
    if not operators or probes < 2:
        raise UserError("a spectrum needs at least one operator and 2 probes.")
    subject.check()
    parts = {"all": subject}
    if by_t and subject.times is not None and subject.levels > 1:
        parts |= {f"t = {t:.2g}": subject.at([i]) for i, t in enumerate(subject.times.tolist())}
    rows, most = [], most_products(probes, steps, products)
    with tqdm(
        total=most * len(operators) * (1 + (len(parts) > 1)),
        desc=f"curvature of {subject.name}",
        unit="product",
        disable=None if progress is None else not progress,
    ) as bar:
        for name in operators:
            for part in parts.values():
                operator, share = OPERATORS[name](part, parameters, scaled=scaled), len(part.batch) / len(subject.batch)
                before = bar.n
                watched = partial(_Watched, bar=bar, share=share, limit=before + most * share)
                rows.append(_spectrum(operator, watched, seed, eigenvalues, probes, steps, products))
                bar.update(before + most * share - bar.n)  # what converged early
    shape = (len(operators), len(parts))
    result = xr.Dataset(
        coords={
            "operator": list(operators),
            "part": list(parts),
            "end": list(ENDS),
            "rank": np.arange(1, eigenvalues + 1),
        }
    )
    for key in rows[0]:
        values = np.stack([row[key] for row in rows])
        dims: tuple[str, ...] = {0: (), 1: ("point",), 2: ("end", "rank")}[values.ndim - 1]
        dims = ("probe", "step") if key in ("node", "weight") else dims
        result[key] = (("operator", "part", *dims), values.reshape(*shape, *values.shape[1:]))
    single = [p.times.item() if p.times is not None and key != "all" else np.nan for key, p in parts.items()]
    result = result.assign_coords(t=("part", single))
    losses = stacked(mean_interval(part.losses().mean(0).numpy()) for part in parts.values())
    add_interval(result, "loss", ("part",), losses)
    result["parameters"] = ((), operator.size)
    result.attrs.update(model=subject.name, units=subject.units)
    result.attrs["scale"] = "filter norms" if scaled else "weights"
    facts = {"seed": seed, "probes": probes, "steps": steps, "products": products, "parameters": parameters or "all"}
    return with_provenance(
        result, "curvature", choices=("operator", "part", "end", "rank"), **subject.provenance(), **facts
    )


def most_products(probes: int, steps: int, products: int) -> int:
    """Products of an operator that its spectrum takes: two runs for the eigenvalues, those of the density, and those of the trace."""
    return (4 + probes) * steps + products


class _Watched:
    """An operator whose products are shown on a progress bar, each as that share of one over all samples, up to a limit."""

    def __init__(self, operator: CurvatureOperator, *, bar: tqdm, share: float, limit: float):
        self.operator, self.bar, self.share, self.limit = operator, bar, share, limit
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        product = self.operator @ vectors
        done = self.share * (vectors.shape[1] if vectors.dim() > 1 else 1)
        self.bar.update(max(0.0, min(done, self.limit - self.bar.n)))
        return product


def _spectrum(
    operator: CurvatureOperator,
    watched: Callable[..., _Watched],
    seed: int,
    eigenvalues: int,
    probes: int,
    steps: int,
    products: int,
) -> dict[str, Array]:
    """All results for one operator."""
    blocks, shares = operator.subject.blocks()
    pieces = [operator.restricted(block) for block in blocks]
    with measuring():
        with operator.held():
            ends = extreme_eigenpairs(watched(operator), eigenvalues, steps=2 * steps, seed=seed)
            nodes = quadrature(watched(operator), probes=probes, steps=steps, seed=seed + 1)
        traced = trace(pieces, shares, products=products, seed=seed + 2)
    bounded = stacked(map(partial(_padded, length=eigenvalues), _over_blocks(pieces, pairs)) for pairs in ends)
    width = WIDTH * float(np.nanmax(nodes.nodes) - np.nanmin(nodes.nodes)) or 1e-12
    grid = nodes.grid(POINTS, width)
    density, squares = nodes.density(grid, width), operator.size * nodes.moments(2)
    half = _half_width(traced.parts, traced.error)
    return {
        **as_columns("eigenvalue", bounded),
        "residual": np.stack([_padded(pairs.residuals, eigenvalues) for pairs in ends]),
        "converged": np.stack([_padded(pairs.converged.astype(np.float64), eigenvalues) for pairs in ends]),
        "grid": grid,
        "density": density.mean(0),
        "density_error": _error(density),
        "width": np.array(width),
        "node": nodes.nodes,
        "weight": nodes.weights,
        **as_columns("trace", (traced.value, traced.value - half, traced.value + half)),
        "trace_error": np.array(traced.error),
        "square": squares.mean(),
        "square_error": _error(squares),
    }


def _over_blocks(pieces: Sequence[CurvatureOperator], pairs: Eigenpairs) -> Interval:
    """The eigenvalues, with the bounds of ``v^T H v`` over blocks of images around them."""
    quotients = np.stack([(pairs.vectors * (p @ pairs.vectors)).double().sum(0).cpu().numpy() for p in pieces], 1)
    spread = mean_interval(quotients)
    low, high = pairs.values - (spread.estimate - spread.low), pairs.values + (spread.high - spread.estimate)
    return Interval(pairs.values, low, high)


def _half_width(parts: Array, error: float) -> Array:
    """Half of a 95 % interval that holds the spread over blocks of images and the error of the random vectors."""
    spread: Interval = mean_interval(parts)
    over_images = spread.high - spread.estimate
    return np.hypot(over_images, 1.96 * error)


def _error(values: Array) -> Array:
    """Standard error of the mean over the first axis."""
    return values.std(axis=0, ddof=1) / len(values) ** 0.5


def _padded(values: Array, length: int) -> Array:
    return np.pad(values, (0, length - len(values)), constant_values=np.nan)
