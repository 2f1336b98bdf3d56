"""Does a candidate still make its reference's images? Looked at batch by batch until it can be told."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence, Sized
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from consistency_lab.choices import whole
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_generative, described
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.gates.baseline import Baseline, baseline_of
from consistency_lab.gates.decision import FAIL, OPEN, together
from consistency_lab.gates.result import add_samples, add_trace, warnings_of, worst_of
from consistency_lab.gates.samples import Distances, Pictures, distances_of, images_for, units_of
from consistency_lab.gates.telling import Criterion, Told, tell
from consistency_lab.metrics.distances import METRICS, Distance
from consistency_lab.similarity.labels import agreed_labels
from consistency_lab.similarity.quantities import metric_coordinates
from consistency_lab.store.results import with_provenance

COUNT = 1024  # samples at most, of models that can make any number
BATCH = 32  # samples between two looks
MARGIN = 0.02  # nulls that a candidate may be further from the reference than the reference's second run is


@plain_defaults()
def gate(
    reference: GenerativeModel,
    candidate: GenerativeModel,
    again: GenerativeModel | None = None,
    *,
    metric: str | Distance | Sequence[str | Distance] = "mse",
    at_least: float | Sequence[float] | None = None,
    margin: float = MARGIN,
    baseline: Baseline | str | os.PathLike[str] | None = None,
    noise: SharedNoise | None = None,
    count: int | None = None,
    batch: int = BATCH,
    error: float = 0.05,
    early: bool = True,
    sampler: Sampler | str | None = None,
    labels: Sequence[int] | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Does a candidate (quantised, compiled, distilled, ported) still make the images of its reference from the same noise?

    Samples are made in a random order, ``batch`` at a time. After each batch the score, 1 - E d(A_i, B_i) / E d(A_i, B_j), gets an
    interval that holds at all looks at once (`consistency_lab.gates.sequence`), and the gate stops when it can tell: *pass* if the whole
    interval reaches the bound, *fail* if none of it does. If the samples run out first it *cannot tell*, and says how many more
    would. Without a bound the candidate must be as close to the reference as the reference's own second run, up to a margin.

    Args:
        reference, candidate: any two models of one noise and image shape.
        again: a second run of the reference, under other conditions if that is what may vary (another GPU, another batch size). It gives
            the ceiling, what the reference itself scores, and the criterion where there is no bound. For a model that is deterministic the
            ceiling is 1, and the reference itself may be given.
        metric: distances, one or several, by name (see `METRICS`) or as objects; all must pass.
        at_least: the score that must be reached, from 0 to below 1; one for all metrics or one for each.
        margin: how far below the ceiling the score may be where no bound is given, from 0 to below 1.
        baseline: of an earlier gate (see `consistency_lab.gates.baseline`), or its file: scores must reach its estimates less its
            tolerance. Where there is a bound too, the higher of both counts.
        noise: the shared noise, ``SharedNoise(0)`` by default; its seed draws the order too.
        count: samples at most; by default all that a model of finitely many has (whatever has a length), else 1,024.
        batch: samples that are made between two looks; rounded down to whole units of four.
        error: how probable it may be, at most, that the interval ever misses the score: half at either end, so that a gate passes
            wrongly with a probability of at most ``error / 2``, and fails wrongly with the same. Split between metrics.
        early: stop when it can be told; otherwise take all ``count`` samples.
        sampler: how diffusion models sample; each as it does by itself by default.
        labels: what conditional models are asked for, as in `compare`; the null is then within labels.
        progress: a progress bar; by default on a terminal.

    Returns:
        A result of kind "gate": ``score`` with its ends ``(look, metric)`` over ``samples (look)``, with ``again`` also ``ceiling`` and
        ``shortfall`` (ceiling - score); ``decision``, ``bound`` and ``more`` (how many more samples would tell) ``(metric)``;
        ``distance``, ``null`` and ``again`` ``(sample, metric)``; ``trimmed_score``, ``median_score``, ``worst_share``, ``worst_sample``
        ``(metric)`` and ``worst_images (worst, side, ...)``. ``attrs["decision"]`` is the decision of all.

    Raises:
        UserError: neither bound nor second run nor baseline; a bound that cannot be reached; a metric that is no distance; models that
            cannot be compared; images of the reference that are not finite, or none of the candidate's that is.
    """
    models = [reference, candidate, *([] if again is None else [again])]
    for model in models:
        check_generative(model)
    check_noise(noise)
    noise, sampler = noise or SharedNoise(0), None if sampler is None else Sampler.of(sampler)
    distances, held = _distances(metric), baseline_of(baseline)
    if not _share("error", error):
        raise UserError("error is a probability above 0: no interval is always right; write for example error=0.05.")
    bounds = _bounds([distance.name for distance in distances], at_least, held, again is not None)
    criterion = Criterion(bounds, _share("margin", margin), error / 2 / len(distances))
    count = _count(models, count)
    asked = agreed_labels(models, max(2, count // 2), labels)
    units = units_of(count, noise.seed, asked)

    found: list[Distances] = []
    told: list[Told] = []
    looks: list[int] = []
    lost: list[int] = []
    kept = np.empty((0, units.shape[1]), dtype=np.int64)
    pictures = Pictures()
    with tqdm(total=units.size, unit="sample", disable=None if progress is None else not progress, leave=False) as bar:
        for some in np.split(
            units, range(step := max(1, whole("batch", batch, 1) // units.shape[1]), len(units), step)
        ):
            indices = some.reshape(-1).tolist()
            images = [images_for(model, noise, indices, sampler, asked) for model in models]
            finite = _finite(models, images, indices)
            lost += [index for index, good in zip(indices, finite.tolist(), strict=True) if not good]
            whole_units = finite.reshape(some.shape).all(1)
            if whole_units.any():
                some, images = some[whole_units], [each[np.repeat(whole_units, some.shape[1])] for each in images]
                new = [distances_of(each, some.shape[1], *images) for each in distances]
                found = [old.joined(each) for old, each in zip(found, new, strict=True)] if found else new
                kept = np.concatenate([kept, some])
                looks.append(len(kept))
                pictures.see(worst_of(found, kept), some.reshape(-1).tolist(), *images[:2])
                told = [tell(each, looks, criterion, place) for place, each in enumerate(found)]
            if not told:
                raise UserError(f"{candidate.name!r} made no image that is finite; there is nothing to compare.")
            bar.update(len(indices))
            if lost or (early and together(each.decision for each in told) != OPEN):
                break
    if lost:
        told = [each._replace(decision=FAIL, more=np.nan) for each in told]

    result = xr.Dataset(coords={**metric_coordinates(distances), "sample": kept.reshape(-1)})
    add_trace(result, told, criterion, [look * kept.shape[1] for look in looks])
    add_samples(result, found, pictures, models)
    facts: dict[str, Any] = {
        "models": [described(model) for model in models],
        "samples": kept.size,
        "most_samples": units.size,
    }
    facts |= {"noise_seed": noise.seed, "error": error, "early": early}
    if asked is not None:
        facts["labels"] = list(asked)
    if diffusion := [model for model in models if isinstance(model, DiffusionModel)]:
        facts |= {"sampler": asdict(sampler or Sampler.of(diffusion[0].sampler)), "device": str(diffusion[0].device)}
    if held is not None:
        facts["baseline"] = asdict(held)
    result = with_provenance(result, "gate", choices=("metric",), **facts).assign_attrs(
        reference=reference.name,
        candidate=candidate.name,
        decision=together(each.decision for each in told),
        margin=criterion.margin,
        interval=f"{100 * (1 - error):g} %, anytime-valid: at all looks at once, over noise: this pair"
        + (f"; split between {len(distances)} metrics" if len(distances) > 1 else ""),
    )
    return result.assign_attrs(warnings=json.dumps(warnings_of(result, lost, held)))


def _distances(metric: str | Distance | Sequence[str | Distance]) -> list[Distance]:
    """The metrics, each once and each a distance."""
    given = [metric] if isinstance(metric, str | Distance) else list(metric)
    if not given:
        raise UserError("a gate needs one metric or more, for example 'mse'; see `consistency-lab list metrics`.")
    distances = [each if isinstance(each, Distance) else METRICS.build(each) for each in given]
    names = [distance.name for distance in distances]
    for distance in distances:
        if not distance.scored:
            raise UserError(
                f"{distance.name} is no distance and has no score; use mse, of which psnr is a logarithm, or ssim, lpips-alex, ..."
            )
        if names.count(distance.name) > 1:
            raise UserError(f"the metric {distance.name!r} is named twice; name each once.")
    return distances


def _bounds(
    metrics: Sequence[str], at_least: float | Sequence[float] | None, held: Baseline | None, again: bool
) -> tuple[float, ...] | None:
    """The score that each metric must reach; None where it is the ceiling that counts."""
    bounds = [-np.inf] * len(metrics)
    if at_least is not None:
        given = list(at_least) if isinstance(at_least, Sequence) else [at_least]
        if len(given) not in (1, len(metrics)):
            raise UserError(
                f"{len(given)} bounds were given for {len(metrics)} metrics; give one for all or one for each."
            )
        bounds = [_share("at_least, the score to be reached,", each) for each in given] * (
            len(metrics) if len(given) == 1 else 1
        )
    if held is not None:
        bounds = [max(bound, held.bound(name)) for bound, name in zip(bounds, metrics, strict=True)]
    if at_least is None and held is None:
        if not again:
            raise UserError(
                "a gate needs something to hold the candidate to: a bound (at_least=0.95, --at-least .95), a second run of the reference "
                "(again, --self), or the baseline of an earlier gate."
            )
        return None
    return tuple(bounds)


def _share(what: str, value: object) -> float:
    """A number from 0 to below 1: no interval ever lies within 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 <= value < 1:
        raise UserError(f"{what} is a number from 0 to below 1, not {value!r}.")
    return float(value)


def _count(models: Sequence[GenerativeModel], count: int | None) -> int:
    """Samples at most, and that all models can be given the same noise."""
    for model in models:
        if model.noise_shape != models[0].noise_shape:
            raise UserError(
                f"{model.name!r} starts from noise of shape {model.noise_shape} and {models[0].name!r} from {models[0].noise_shape}; models "
                "whose shapes differ cannot be given the same noise."
            )
    there = min((len(model) for model in models if isinstance(model, Sized)), default=None)
    if count is None:
        count = COUNT if there is None else there
    count = whole("count", count)
    if count < 2:
        raise UserError(f"a gate needs at least 2 samples, not {count}: its null is the same models under other noise.")
    if there is not None and count > there:
        raise UserError(f"count is {count}, and there are {there} samples.")
    return count


def _finite(models: Sequence[GenerativeModel], images: Sequence[Tensor], indices: Sequence[int]) -> np.ndarray:
    """Which of the candidate's images are finite ``(N,)``. Raises `UserError` where another model's are not, or shapes differ."""
    finite = [each.flatten(1).isfinite().all(1).numpy() for each in images]
    for model, its, good in zip(models, images, finite, strict=True):
        if its.shape != images[0].shape:
            shapes = ["x".join(map(str, each.shape[1:])) for each in (its, images[0])]
            raise UserError(
                f"{model.name!r} makes images of {shapes[0]} and {models[0].name!r} of {shapes[1]}; compare images of one shape."
            )
        if model is not models[1] and not good.all():
            raise UserError(
                f"{model.name!r}, which the candidate is held to, gives values that are not finite for sample {indices[int(good.argmin())]}."
            )
    return finite[1]
