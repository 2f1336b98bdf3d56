"""A training run as a trajectory over its steps: how alike are its snapshots to its final model, and two runs to each other?

Snapshots of one run are not independent models: each grew out of the one before. How they scatter says nothing about other runs, so they
get an interval over noise, for this run, and none over models. Runs that were started apart are independent at equal steps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet, check_shape
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_diffusion, described
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import Array, add_interval
from consistency_lab.markup import percent
from consistency_lab.metrics.distances import METRICS, Distance
from consistency_lab.similarity.checks import EDGE, MOST_OUTSIDE, check_arguments, counted, outside
from consistency_lab.similarity.controls import with_references
from consistency_lab.similarity.labels import agreed_labels, labels_of
from consistency_lab.similarity.pairwise import FAMILY, PAIR, coordinates, pairwise_distances, scored
from consistency_lab.similarity.statistics import family_score, pair_score
from consistency_lab.similarity.trajectories import Trajectories, WalkCache, WalkPlan, meetings, place_of
from consistency_lab.store.results import with_provenance
from consistency_lab.training.train import kept_steps, load_snapshots

DEFAULT_REFERENCES = ("gaussian", "optimal")  # the data mean is the same whatever the noise, and scores 0
Pairs = tuple[Array, Array]  # distance and null
NOTE = (
    "Snapshots of one run are not independent models: each grew out of the one before. Intervals of snapshots are over noise and hold for "
    "this run; none is given over models."
)


@plain_defaults()
def compare_snapshots(
    models: Sequence[DiffusionModel],
    noise: SharedNoise | None = None,
    *,
    images: ImageSet | None = None,
    count: int = 64,
    metrics: Sequence[str | Distance] = ("mse", "cosine"),
    sampler: Sampler | str | None = None,
) -> xr.Dataset:
    """How alike are the images of a run's snapshots to those of its last, and the images of two runs at equal steps?

    Args:
        models: one or more, trained with a store that kept averaged weights along the way, for as many steps. The steps that all kept are
            compared.
        noise: ``SharedNoise(0)`` by default.
        images: the training set, for the closed-form references: what models learn first they may share with the Gaussian denoiser.
        count: samples, the images 0 ... count - 1 of the noise.
        metrics: distances, by name or as objects.
        sampler: 50 steps of DDIM by default.

    Returns:
        Scores of final images along ``step``, as in a comparison. ``to_final (model, step, metric)``: a snapshot beside the last one of its
        own run, hence 1 at the last step. With two runs or more ``between (pair, step, metric)``. Both have intervals over noise, for these
        runs. With three runs or more ``family_score (step, metric)``, over runs and noise. With images ``reference_score (reference, step,
        metric)``, of the distance averaged over models. ``..._distance`` and ``..._null`` are the means that each score is made of, and
        ``outside (model, step)`` the share of pixels beyond [-1.5, 1.5]. Kind ``"snapshots"``; steps at which a snapshot gave values that
        are not finite are left out, and ``warnings`` name them.

    Raises:
        UserError: no models, some that were trained without a store or kept no weights, or for another number of steps.
    """
    check_arguments(models, noise, metrics, images)
    for model in models:
        check_diffusion(model)
    (count,) = counted(count=count)
    if not models or count < 2:
        raise UserError(
            f"snapshots are of one run or more and of two samples or more, not of {len(models)} and {count}."
        )
    if images is not None:
        check_shape(models[0].name, models[0].noise_shape, images)
    distances = [metric if isinstance(metric, Distance) else METRICS.build(metric) for metric in metrics]
    sampler, noise, steps = Sampler.of(sampler), noise or SharedNoise(0), _common_steps(models)
    walk = WalkPlan(noise, count, sampler, 2, agreed_labels(models, count))
    labels = None if walk.labels is None else labels_of(range(count), walk.labels)
    walks = meetings(
        models, sampler.steps, torch.tensor([sampler.steps]), partial(_over_training, walk, place_of(models), steps)
    )
    if images is not None:
        walks = with_references(walks, models, walk, WalkCache(), images, DEFAULT_REFERENCES)
    finite = torch.stack([each.estimates.flatten(1).isfinite().all(1) for each in walks.every]).all(0).cpu()
    if not finite[-1]:
        raise UserError(
            "a final model gives images that are not finite, so there is nothing to compare with; train it again."
        )
    lost = [step for step, fine in zip(steps, finite.tolist(), strict=True) if not fine]
    every = [Trajectories(each.name, each.estimates[finite.to(each.estimates.device)]) for each in walks.every]
    names, own = [model.name for model in models], every[: len(models)]
    result = xr.Dataset(coords=coordinates(names, distances))
    if len(models) == 1:
        result = result.drop_vars(["pair", "first", "second"])
    result.coords["step"] = np.array(steps, dtype=np.int32)[finite.numpy()]

    def add(
        name: str, dim: str, left: Sequence[Trajectories], right: Sequence[Trajectories], mean: bool = False
    ) -> Pairs:
        """Scores of each of one with each of the other ``(dim, step, metric)``."""
        sides = [(k, k + len(left)) for k in range(len(left))]
        found = pairwise_distances([*left, *right], sides, distances, labels)
        distance, null = found.distance, found.null
        if mean:  # over the models, of each reference
            distance, null = (x.reshape(len(models), -1, *x.shape[1:]).mean(0) for x in (distance, null))
        dims = (dim, "step", "metric")
        for what, values in (("distance", distance), ("null", null)):
            result[f"{name}_{what}"] = (dims, values.mean(2))
        distance, null = scored(distances, distance, null)
        add_interval(result, name, dims, pair_score(distance, null, axis=2))
        return distance, null

    add("to_final", "model", own, [_constant(each.name, each.estimates[-1:], len(each.estimates)) for each in own])
    result.attrs.update(note=NOTE, interval=PAIR)
    if len(models) > 1:
        first, second = zip(*walks.sides, strict=True)
        distance, null = add("between", "pair", [every[k] for k in first], [every[k] for k in second])
    if len(models) > 2:
        family = family_score(distance.swapaxes(1, 2), null.swapaxes(1, 2), len(models))
        add_interval(result, "family_score", ("step", "metric"), family)
        result.attrs["family_interval"] = FAMILY.format(dof=len(models) - 1, count=len(models))
    if images is not None:
        result.coords["reference"] = list(DEFAULT_REFERENCES)
        beside = [
            _constant(x.name, x.estimates[-1:], len(own[0].estimates))
            for row in walks.beside[: len(models)]
            for x in row
        ]
        add("reference_score", "reference", [each for each in own for _ in DEFAULT_REFERENCES], beside, mean=True)
    shares = np.array([[outside(images).mean() for images in each.estimates] for each in own])
    result["outside"] = (("model", "step"), shares)
    result.attrs["warnings"] = json.dumps(_warnings(result, lost))
    facts = {"samples": count, "noise_seed": noise.seed, "sampler": sampler.facts, "device": str(models[0].device)}
    if images is not None:
        facts["data"] = {"name": images.name, "fingerprint": images.fingerprint, "images": len(images)}
    return with_provenance(
        result, "snapshots", choices=("metric", "step"), models=[described(model) for model in models], **facts
    )


def _warnings(result: xr.Dataset, lost: Sequence[int]) -> list[str]:
    """Images that exploded alike are alike too, and early snapshots do explode."""
    said = []
    if lost:
        said.append(f"left out, since images of a snapshot are not finite there: step {', '.join(map(str, lost))}.")
    for name in result["model"].values:
        share = result["outside"].sel(model=name)
        if bad := [str(step) for step in result["step"].values[share.values > MOST_OUTSIDE]]:
            worst = percent(float(share.max()))
            said.append(
                f"{name}: at step {', '.join(bad)} up to {worst} of all pixels lie outside [-{EDGE}, {EDGE}], so scores say little there."
            )
    return said


def _common_steps(models: Sequence[DiffusionModel]) -> list[int]:
    kept = [kept_steps(model) for model in models]
    for model, steps in zip(models, kept, strict=True):
        if not steps:
            raise UserError(f"the run of {model.name!r} kept no weights along the way; train it with snapshots=12.")
    if len({steps[-1] for steps in kept}) > 1:
        told = ", ".join(f"{model.name} for {steps[-1]}" for model, steps in zip(models, kept, strict=True))
        raise UserError(
            f"the runs were trained for different numbers of steps ({told}); compare the snapshots of runs of one length."
        )
    return sorted(set.intersection(*map(set, kept)))


def _over_training(
    walk: WalkPlan, place: torch.device, steps: Sequence[int], model: GenerativeModel, grid: Tensor
) -> Trajectories:
    """The images of a run's snapshots: training steps in the place of noise levels."""
    assert isinstance(model, DiffusionModel)
    made = [WalkCache().of(snapshot, walk, grid, place).estimates[-1] for _, snapshot in load_snapshots(model, steps)]
    return Trajectories(model.name, torch.stack(made))


def _constant(name: str, images: Tensor, steps: int) -> Trajectories:
    """The same images ``(1, N, C, H, W)`` at every step."""
    return Trajectories(name, images.expand(steps, *images.shape[1:]))
