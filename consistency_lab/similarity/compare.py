"""Compare K models under shared noise: along the way, at the end, and against controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.data.imageset import ImageSet, check_shape
from consistency_lab.devices import hand_back, plain_defaults
from consistency_lab.diffusion.model import (
    CHUNK,
    DiffusionModel,
    GenerativeModel,
    check_generative,
    described,
    specs_of,
)
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import DEFAULT_REFERENCES
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.interop.wrapping import wrapping_sentences
from consistency_lab.metrics.distances import METRICS, Distance, metric_asked
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.pipelines.pairing import agreed
from consistency_lab.similarity.at_once import sampled_at_once
from consistency_lab.similarity.blocks import blocks_of, certain_shape, samples_in_a_block
from consistency_lab.similarity.checks import add_sanity_checks, check_arguments, counted, warnings_of
from consistency_lab.similarity.controls import add_ceiling, add_references
from consistency_lab.similarity.labels import agreed_labels, labels_of, mixed_warning
from consistency_lab.similarity.measuring import Asked
from consistency_lab.similarity.merging import Measured, Workers, measure
from consistency_lab.similarity.pairwise import add_pairs, coordinates, kinds_of_interval
from consistency_lab.similarity.parting import add_parting
from consistency_lab.similarity.robust import add_robust, add_typical, held_by_one
from consistency_lab.similarity.trajectories import WalkCache, WalkPlan, recorded_attributes, recorded_walks
from consistency_lab.store.results import with_provenance


@plain_defaults()
def compare(
    models: Sequence[GenerativeModel],
    noise: SharedNoise | None = None,
    *,
    count: int | None = None,
    metrics: Sequence[str | Distance] = ("mse", "psnr", "cosine"),
    sampler: Sampler | str | None = None,
    images: ImageSet | None = None,
    levels: int = 14,
    shown: int = 12,
    references: Sequence[str] = DEFAULT_REFERENCES,
    ceiling: bool = True,
    labels: Sequence[int] | None = None,
    known: WalkCache | None = None,
    again: GenerativeModel | None = None,
    block: int | None = None,
    executor: Workers | None = None,
) -> xr.Dataset:
    """How alike are the images that models make from the same noise?

    Every diffusion model walks the same noise levels from the same noise. At ``levels`` of them, and at the end, its x0 estimates are
    compared with those of every other model, and with what other noise would give (the null). With a training set, the closed-form
    references (Gaussian, optimal, data mean) start from the same noise, and the nearest training image of each sample is found.
    Models that make an image in one go (a GAN, a VAE) are compared by their images alone, and so are folders of images
    (`load_folder_model`). Recorded trajectories (`load_recording`) are compared at the noise levels that all of them have.
    Each model samples where it is; all is measured on the device of the first one that has a device, and on the CPU where none has.

    Args:
        models: two or more, of one noise and image shape. The schedules of diffusion models may differ: they are compared pair by pair at
            equal log-SNR (`diffusion.log_snr`), so that neither their order nor the other models change a pair's distance.
        noise: the shared noise, ``SharedNoise(0)`` by default.
        count: samples, the images 0 ... count - 1 of the noise; at least 2. 256 by default; of folders all images that they have in common,
            or so many of them, drawn at random; of recordings all samples in common, or the first of them.
        metrics: distances, by name (see `METRICS`) or as objects.
        sampler: how diffusion models sample, as a `Sampler` or in text (``"ddim(steps=20)"``); 50 steps of DDIM by default.
        images: the training set of the models, for references and nearest images.
        levels: noise levels along the trajectory that are kept, the final image included.
        shown: samples whose images the result carries along the trajectory, the first ones; beside them it carries the final images of
            the most and the least consistent samples.
        references: closed-form denoisers to compare with, by name (see `DEFAULT_REFERENCES`); they need ``images``.
        ceiling: compare each model with itself at twice the solver steps, where all are diffusion models: for a quarter of the samples,
            but 32 or more where there are so many, so that this is at most a third of all evaluations from 128 samples on.
        labels: what conditional models are asked for, image i for ``labels[i % len(labels)]``; by default all labels that they know, or
            the first ``count // 2``. The null is then taken within labels, and the plain one is given beside it.
        known: trajectories that earlier comparisons of the same noise have walked, and to which this one adds its own: all are held.
        again: a second run of the first model, for example of the same code on another machine: the first against its own second run is
            the ceiling, where models make an image in one go (a folder against a folder).
        block: samples that are held at a time. By default all, or as many as fit into the memory that is meant for them (512 MiB). In
            blocks a null is over the other samples of the block, see `similarity.blocks`.
        executor: whose workers measure the blocks, where samples come in several (`executor_of`, of `studies.executors`); the result is the
            same, to the bit where a worker has as many threads as this process.

    Returns:
        A comparison: ``distance`` and ``null`` ``(pair, t, sample, metric)``, scores with intervals, scores of typical samples and without
        each model (see `similarity.robust`), references, ceiling, images, where each pair met (``pair_log_snr``), and in the attribute
        ``warnings`` what to hold against its scores (see `similarity.checks`).

    Raises:
        UserError: fewer than two models or samples, noise shapes that differ, names that repeat, two schedules that share no
            noise level, labels that not all models know, so many values that are not finite that nothing is left to compare, or an
            executor to which the models cannot be sent.
    """
    check_arguments(models, noise, metrics, images)
    noise, sampler = noise or SharedNoise(0), Sampler.of(sampler)
    if count is not None:
        (count,) = counted(count=count)
    levels, shown = counted(levels=levels, shown=shown)
    if again is not None:
        check_generative(again)
    second = [] if again is None else [again]
    agreement = agreed([*models, *second], noise, count)
    models, second, count = agreement.models[: len(models)], agreement.models[len(models) :], agreement.counted(count)
    distances = [metric if isinstance(metric, Distance) else METRICS.build(metric) for metric in metrics]
    _check([*models], count, images)
    _check_names("metrics", [distance.name for distance in distances])
    diffusion = [model for model in models if isinstance(model, DiffusionModel)]
    along = len(diffusion) == len(models)
    if second and along:
        raise UserError(
            "a second run is for models that make an image in one go: the ceiling of diffusion models is each at twice the steps."
        )
    by_folder = agreement.labels is not None and labels is None
    asked = None if by_folder else agreed_labels(models, count, labels)
    under = agreement.labels if asked is None else labels_of(range(count), asked)
    walk = WalkPlan(noise, count, sampler, levels, asked)
    recorded = recorded_walks(models)
    held = samples_in_a_block(count, [*models, *second], levels if along or recorded else 1, distances, block)
    blocks = blocks_of(count, held if known is None else count, under)
    measured = measure(
        models,
        Asked(
            walk,
            distances,
            images,
            references if images is not None and along else (),
            along and ceiling,
            second[0] if second else None,
            under,
            agreement.frames,
            shown,
        ),
        blocks,
        known,
        executor,
    )
    kept, values, parts = measured.kept, measured.values, measured.blocks
    if parts is not None:
        hand_back()
    blind = mixed_warning(models)
    models = [models[k] for k in kept.models]
    if under is not None:
        under = under[kept.samples]
    result = xr.Dataset(coords=coordinates([m.name for m in models], distances))
    result.coords["sample"] = np.array(kept.samples, dtype=np.int32)
    result.coords["t"], result.coords["log_snr"] = measured.t, ("t", measured.log_snr)
    if under is not None:
        result.coords["label"] = ("sample", under)
    if agreement.names:
        result.coords["sample_name"] = ("sample", [agreement.names[i] for i in kept.samples])
    if parts is not None:
        result.coords["block"] = ("sample", parts)
    add_pairs(result, len(models), measured.pair_log_snr, values, distances, parts)
    if "other_noise" in values:
        add_typical(result, values.pop("other_noise")[1], measured.alone, distances, under, parts)
    add_robust(result, distances, parts)
    if "ceiling" in values:
        add_ceiling(result, values, distances, parts)
    if "ceiling_along" in values:
        add_parting(result, values, distances)
    if measured.references:
        result.coords["reference"] = measured.references
        add_references(result, values, distances, parts)
    _add_pictures(result, measured)
    if images is not None:
        result["nearest_distance"] = (("model", "sample"), values["nearest_distance"][1].astype(np.float32))
    add_sanity_checks(result, values, images)
    attributes, noted = recorded_attributes(recorded)
    result.attrs.update(attributes)
    said = [*agreement.said, *noted, kept.warning, blind, *held_by_one(result), *wrapping_sentences(models, images)]
    result.attrs["warnings"] = warnings_of(result, [described(model) for model in models], images, *said)
    result.attrs.update(kinds_of_interval(len(models), 1 if parts is None else int(parts.max()) + 1))
    facts: dict[str, Any] = {
        "models": [described(model) for model in models],
        "samples": len(kept.samples),
        "noise_seed": noise.seed,
        "specs": specs_of([*models, *second]),
        "asked": {
            "count": count,
            "metrics": [metric_asked(metric) for metric in metrics],
            "levels": levels,
            "shown": shown,
            "references": list(references),
            "ceiling": ceiling,
            "block": held if known is None else None,
        },
    }
    if kept.lost:
        facts["not_finite"] = kept.lost
    if asked is not None:
        facts["labels"] = list(asked)
    elif under is not None:
        facts[agreement.labelled_by] = list(agreement.label_names)
    if agreement.frames > 1:
        facts["frames"] = agreement.frames
    if parts is not None:
        facts["blocks"] = int(parts.max()) + 1
    if second and "ceiling" in values:
        facts["again"] = described(second[0])
    if diffusion:
        facts |= {
            "sampler": sampler.facts,
            "nfe": sampler.evaluations(),
            "ceiling_steps": 2 * sampler.steps if along and ceiling else None,
            "chunk": min(CHUNK, count),
        }
        facts["device"] = str(diffusion[0].device)
        if at_once := sampled_at_once(diffusion):
            facts["sampled_at_once"] = [[model.name for model in group] for group in at_once]
    if images is not None:
        facts["data"] = {"name": images.name, "fingerprint": images.fingerprint, "images": len(images)}
    return with_provenance(result, "comparison", choices=("metric", "t", "reference"), **facts)


def _add_pictures(result: xr.Dataset, measured: Measured) -> None:
    """Add ``images (model, shown, t, ...)`` and what stands beside them, and ``extreme_images (model, extreme, ...)``: of every metric the
    samples at either end.
    """
    pixels, first = ("channel", "row", "column"), measured.pictures
    result["images"] = (("model", "shown", "t", *pixels), first.of("images", 1))
    result.coords["extreme"] = np.array(measured.extremes.numbers, dtype=np.int32)
    result["extreme_images"] = (("model", "extreme", *pixels), measured.extremes.of("images", 1))
    if measured.references:
        result["reference_images"] = (("reference", "shown", "t", *pixels), first.of("reference_images", 1))
    if "nearest_distance" in measured.values:
        result["nearest_images"] = (("model", "shown", *pixels), first.of("nearest_images", 1))


def _check(models: Sequence[GenerativeModel], count: int, images: ImageSet | None) -> None:
    if len(models) < 2:
        raise UserError(f"a comparison needs at least two models, not {len(models)}.")
    if count < 2:
        raise UserError(
            f"a comparison needs at least 2 samples, not {count}: its null is the same models under other noise; raise count."
        )
    first = models[0]
    for model in models:
        if isinstance(model, FolderModel) or isinstance(first, FolderModel):
            continue  # of which the images' shape alone is known: see `agreed` and `walk_models`
        if model.noise_shape != first.noise_shape:
            raise UserError(
                f"{model.name!r} starts from noise of shape {model.noise_shape} and {first.name!r} from {first.noise_shape}; "
                "models whose shapes differ cannot be given the same noise."
            )
    _check_names("models", [model.name for model in models])
    for model in models if images is not None else ():
        assert images is not None  # as was asked
        if (shape := certain_shape(model)) is not None:
            check_shape(model.name, shape, images)


def _check_names(what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two {what} are called {twice!r}; give each its own name, and each only once.")
