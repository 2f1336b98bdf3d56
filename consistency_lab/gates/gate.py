"""Does a candidate still make its reference's images? Looked at batch by batch until it can be told."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.choices import whole
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_generative, described
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.gates.baseline import Baseline, baseline_of
from consistency_lab.gates.looking import look
from consistency_lab.gates.result import add_samples, add_trace, warnings_of
from consistency_lab.gates.samples import Makers, units_of
from consistency_lab.gates.telling import Criterion
from consistency_lab.interop.wrapping import wrapping_sentences
from consistency_lab.metrics.distances import METRICS, Distance
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.pipelines.pairing import agreed
from consistency_lab.similarity.labels import agreed_labels, labels_of
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
    metrics: str | Distance | Sequence[str | Distance] = "mse",
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
        metrics: distances, one or several, by name (see `METRICS`) or as objects; all must pass.
        at_least: the score that must be reached, from 0 to below 1; one for all metrics or one for each.
        margin: how far below the ceiling the score may be where no bound is given, from 0 to below 1.
        baseline: of an earlier gate (see `consistency_lab.gates.baseline`), or its file: scores must reach its estimates less its
            tolerance. Where there is a bound too, the higher of both counts.
        noise: the shared noise, ``SharedNoise(0)`` by default; its seed draws the order too.
        count: samples at most; by default 1,024, and of folders all that they have in common.
        batch: samples that are made between two looks; rounded down to whole units of four, and at least one.
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
    distances, held = _distances(metrics), baseline_of(baseline)
    if not _share("error", error):
        raise UserError("error is a probability above 0: no interval is always right; write for example error=0.05.")
    bounds = _bounds([distance.name for distance in distances], at_least, held, again is not None)
    criterion = Criterion(bounds, _share("margin", margin), error / 2 / len(distances))
    if count is not None:
        whole("count", count)
    agreement = agreed(models, noise, count)
    count = count or agreement.most or len(agreement.names) or COUNT
    if count < 2:
        raise UserError(f"a gate needs at least 2 samples, not {count}: its null is the same models under other noise.")
    asked = None
    if labels is not None or agreement.labels is None:  # by default no more labels than have a whole unit
        asked = agreed_labels(models, count if labels is not None else max(2, count // 2), labels)
    under = agreement.labels if asked is None else labels_of(range(count), asked)
    units = units_of(count, noise.seed, under)
    _check_shapes(models)
    record = look(
        Makers(agreement.models, noise, sampler, asked, agreement.frames),
        units,
        distances,
        criterion,
        step=max(1, whole("batch", batch, 1) // units.shape[1]),
        early=early,
        progress=progress,
    )
    result = xr.Dataset(coords={**metric_coordinates(distances), "sample": record.samples.reshape(-1)})
    if agreement.names:
        result.coords["sample_name"] = ("sample", [agreement.names[i] for i in result["sample"].values.tolist()])
    if under is not None:
        result.coords["label"] = ("sample", under[result["sample"].values])
    add_trace(result, record.told, criterion, [units_seen * record.samples.shape[1] for units_seen in record.looks])
    add_samples(result, record.distances, record.pictures)
    facts: dict[str, Any] = {"models": [described(model) for model in models], "samples": record.samples.size}
    facts |= {"most_samples": units.size, "noise_seed": noise.seed, "error": error, "early": early}
    if asked is not None:
        facts["labels"] = list(asked)
    if diffusion := [model for model in models if isinstance(model, DiffusionModel)]:
        facts |= {"sampler": (sampler or Sampler.of(diffusion[0].sampler)).facts, "device": str(diffusion[0].device)}
    if held is not None:
        facts["baseline"] = asdict(held)
    result = with_provenance(result, "gate", choices=("metric",), **facts).assign_attrs(
        reference=reference.name,
        candidate=candidate.name,
        decision=record.decision,
        margin=criterion.margin,
        interval=f"{100 * (1 - error):g} %, anytime-valid: at all looks at once, over noise: this pair"
        + (f"; split between {len(distances)} metrics" if len(distances) > 1 else ""),
    )
    said = [*agreement.said, *warnings_of(result, record.lost, held), *wrapping_sentences(models, None)]
    return result.assign_attrs(warnings=json.dumps(said))


def _distances(metrics: str | Distance | Sequence[str | Distance]) -> list[Distance]:
    """The metrics, each once and each a distance."""
    given = [metrics] if isinstance(metrics, str | Distance) or not isinstance(metrics, Sequence) else list(metrics)
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
                "(again, --again), or the baseline of an earlier gate."
            )
        return None
    return tuple(bounds)


def _share(what: str, value: object) -> float:
    """A number from 0 to below 1: no interval ever lies within 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 <= value < 1:
        raise UserError(f"{what} is a number from 0 to below 1, not {value!r}.")
    return float(value)


def _check_shapes(models: Sequence[GenerativeModel]) -> None:
    """That all models that start from noise can be given the same."""
    made = [model for model in models if not isinstance(model, FolderModel)]
    for model in made[1:]:
        if model.noise_shape != made[0].noise_shape:
            raise UserError(
                f"{model.name!r} starts from noise of shape {model.noise_shape} and {made[0].name!r} from {made[0].noise_shape}; models "
                "whose shapes differ cannot be given the same noise."
            )
