"""How good are the images? Every model beside real images, and beside what it must be told apart from.

A control, real images against other real ones, stands in every table. With a training set there are four rows beside the models:
training images (the control: real images that are not those measured against), the Gaussian denoiser's samples, the data mean, and the
optimal denoiser's samples, which are copies. A measure on which a trained model does not beat the Gaussian's samples says nothing about
its training.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet, check_set, check_shape
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_generative, described, images_of
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.references import closed_form
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES, Schedule
from consistency_lab.errors import UserError
from consistency_lab.intervals import Interval, add_interval
from consistency_lab.metrics.classifier import SmallClassifier, classes_covered, train_classifier
from consistency_lab.metrics.quality import INTERVAL, Measure, Reference, measure
from consistency_lab.similarity.checks import counted
from consistency_lab.similarity.trajectories import place_of
from consistency_lab.store.checkpoint import load_run_tensors, save_run_tensors
from consistency_lab.store.results import with_provenance
from consistency_lab.store.runs import Store

REAL = "other real images"
TRAINING_IMAGES, GAUSSIAN, MEAN, MEMORISER = "training images", "Gaussian denoiser", "data mean", "optimal denoiser"
_WEIGHTS = "classifier.safetensors"
_logger = logging.getLogger(__name__)


class FeatureExtractor(Protocol):
    """What gives images their features: ``(N, C, H, W)`` in [-1, 1] -> ``(N, F)``, each image by itself."""

    @property
    def feature_name(self) -> str: ...

    def features(self, images: Tensor) -> Tensor: ...


def classifier_spec(images: ImageSet, seed: int = 0, steps: int = 1000) -> dict[str, Any]:
    """What decides the classifier of a data set. Raises `UserError` for a set without labels."""
    check_set(images)
    if images.labels is None:
        raise UserError(
            f"{images.name!r} has no labels, so no classifier gives features for it; measure on other features."
        )
    return {"data": images.fingerprint, "seed": seed, "steps": steps}


def set_classifier(images: ImageSet, store: Store, *, seed: int = 0, steps: int = 1000) -> SmallClassifier:
    """The small classifier of a data set, trained once and kept in the store; what another process is training is waited for.

    Args:
        images: a set with labels, all of which it is trained on but for a tenth that its accuracy is taken on.
        store: where it is kept, or read from.
        seed, steps: of its training, see `train_classifier`.

    Returns:
        the classifier, whose ``features`` are of images ``(N, C, H, W)`` in [-1, 1].

    Raises:
        UserError: a set without labels.
    """
    spec = classifier_spec(images, seed, steps)
    name = images.name.split("/")[0].split("(")[0]
    assert images.labels is not None  # classifier_spec has refused a set without
    run = store.run("classifier", name, spec)
    if not run.done:
        with run.begin(waiting=_logger.warning):
            if not run.done:
                made = train_classifier(images.all(), images.labels, name, seed=seed, steps=steps)
                save_run_tensors(run, _WEIGHTS, *made.to_state())
                run.finish(made.facts)
    return SmallClassifier.from_state(*load_run_tensors(run, _WEIGHTS))


@plain_defaults()
def measure_quality(
    models: Sequence[GenerativeModel],
    real: ImageSet,
    features: FeatureExtractor | Callable[[Tensor], Tensor],
    *,
    training: ImageSet | None = None,
    noise: SharedNoise | None = None,
    count: int = 1000,
    sampler: Sampler | str | None = None,
    references: Mapping[str, Tensor] | None = None,
) -> xr.Dataset:
    """Frechet and kernel distance, precision, recall, density and coverage of each model's images beside real ones, and of controls.

    All is measured where the first model is; a classifier goes there too.

    Args:
        models: whose images 0 ... count - 1 of ``noise`` are measured.
        real: the real images that samples are measured against; best some that no model was trained on.
        features: what gives the features: a classifier of the set (`set_classifier`), `InceptionFeatures` (then the first two measures
            are FID and KID), `DinoFeatures`, or a function from images ``(N, C, H, W)`` in [-1, 1] to features ``(N, F)``.
        training: the models' training set, if ``real`` is not that. Its images are the control, real against real, and the closed-form
            references are made from it. Without it a random half of ``real`` is the control, and samples are measured against the other.
        noise: ``SharedNoise(1)`` by default.
        count: samples a row; a Frechet distance depends on it, so every row has as many. The control has as many as there are images.
        sampler: of diffusion models and references; each model's own by default.
        references: what `reference_samples` gives for the same arguments, where it is at hand.

    Returns:
        ``value (row, measure)`` with an interval over samples, the real images held fixed; ``frechet_bias (row)``, what a Frechet distance
        owes to the number of its samples (jackknife; the finite number of real images adds more, to the control as well); ``samples
        (row)``, ``role (row)``: model, control or reference; with a classifier ``covered (row)``, the classes with at least a tenth of an
        equal share. Kind ``"quality"``; ``warnings`` say what to hold against the numbers.

    Raises:
        UserError: what is no model, image set or noise, images of unlike shapes, too few real images or samples.
    """
    if not isinstance(models, Sequence) or isinstance(models, str) or not models:
        raise UserError("quality is of one model or more, given as a list.")
    for model in models:
        check_generative(model)
    for part in (real, *([] if training is None else [training])):
        check_set(part)
    check_noise(noise)
    (count,) = counted(count=count)
    sampler = None if sampler is None else Sampler.of(sampler)
    noise, place = noise or SharedNoise(1), place_of(models)
    extractor = _at(place, _extractor(features))
    samples = {
        model.name: model.generate(noise, range(count), sampler)
        if isinstance(model, DiffusionModel)
        else images_of(model, noise, range(count))
        for model in models
    }
    if len(samples) < len(models):
        raise UserError("two models have one name; give each its own.")
    for name, each in samples.items():
        check_shape(name, each.shape[1:], real)
    against = real
    if training is None:
        against, control = _halves(real)
        beside = {REAL: control.all()[:count]} if references is None else dict(references)
    else:
        schedule = next(
            (m.denoiser.schedule for m in models if isinstance(m, DiffusionModel)), SCHEDULES.build("linear")
        )
        made = references is None
        beside = reference_samples(training, schedule, noise, count, sampler, place) if made else dict(references or {})
    samples |= beside
    reference = Reference(extractor.features(against.all()).to(place), extractor.feature_name)
    rows = {name: measure(reference, extractor.features(x)) for name, x in samples.items()}
    result = _table(rows)
    controls = {REAL: "control", TRAINING_IMAGES: "control"}
    result.coords["role"] = ("row", [controls.get(name, "reference") if name in beside else "model" for name in rows])
    if isinstance(extractor, SmallClassifier):
        covered = [classes_covered(extractor.predict(x), len(extractor.head.bias)) for x in samples.values()]
        result["covered"] = ("row", np.array(covered, dtype=np.int32))
    warnings = _warnings(result, reference, count)
    result.attrs.update(
        interval=INTERVAL,
        note=f"{extractor.feature_name}; {len(against)} real images of {against.name!r}. Frechet distances of other numbers of images, or "
        "of other features, do not compare.",
        warnings=json.dumps(warnings),
    )
    facts: dict[str, Any] = {"classifier": extractor.facts} if isinstance(extractor, SmallClassifier) else {}
    if training is not None:
        facts["data"] = {"name": training.name, "fingerprint": training.fingerprint, "images": len(training)}
    walkers = [model for model in models if isinstance(model, DiffusionModel)]
    return with_provenance(
        result,
        "quality",
        choices=("row", "measure"),
        models=[described(model) for model in models],
        samples=count,
        noise_seed=noise.seed,
        features=extractor.feature_name,
        samplers={model.name: Sampler.of(sampler or model.sampler).facts for model in walkers},
        measured_against={"name": against.name, "fingerprint": against.fingerprint, "images": len(against)},
        **facts,
    )


class _Function:
    """A function from images to features as an extractor."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.features, self.feature_name = (
            function,
            f"{getattr(function, '__name__', type(function).__name__)} features",
        )


def _extractor(features: FeatureExtractor | Callable[[Tensor], Tensor]) -> FeatureExtractor:
    if hasattr(features, "features") and hasattr(features, "feature_name"):
        return features
    if not callable(features):
        raise UserError(
            f"features are given by a classifier, InceptionFeatures, DinoFeatures or a function of images, not by {features!r}."
        )
    return _Function(features)


def _at(place: torch.device, extractor: FeatureExtractor) -> FeatureExtractor:
    """The extractor where quality is measured: a classifier's own copy. Others are on the device that they were given."""
    if isinstance(extractor, SmallClassifier) and extractor.device != place:
        return copy.deepcopy(extractor).to(place)
    return extractor


def _halves(real: ImageSet) -> tuple[ImageSet, ImageSet]:
    """What samples are measured against, and the control."""
    if len(real) < 4:
        raise UserError(
            f"{real.name!r} has {len(real)} images, too few to measure real images against real ones; give training=...."
        )
    half = len(real) // 2
    against, control = real.split(len(real) - half, half, seed=0)
    return against, control


def _table(rows: Mapping[str, Sequence[Measure]]) -> xr.Dataset:
    first = next(iter(rows.values()))
    result = xr.Dataset(
        coords={
            "row": list(rows),
            "measure": [each.name for each in first],
            "better": ("measure", [each.better for each in first]),
            "samples": ("row", np.array([row[0].samples for row in rows.values()], dtype=np.int32)),
        }
    )
    parts = np.moveaxis(np.array([[(m.value, m.low, m.high) for m in row] for row in rows.values()]), 2, 0)
    add_interval(result, "value", ("row", "measure"), Interval(*parts))
    result["frechet_bias"] = ("row", np.array([row[0].bias for row in rows.values()]))
    return result


def _warnings(result: xr.Dataset, reference: Reference, count: int) -> list[str]:
    said = []
    images, length = reference.features.shape
    for what, number in (("samples", count), ("real images", images)):
        if number < 2 * length:
            said.append(
                f"{number} {what} are few for {length} features: a Frechet distance is then mostly that of a small set, to be read beside "
                "the control alone and beside no published number."
            )
    table = result["value"].isel(measure=0).to_series()
    models = table[result["role"].values == "model"]
    control = int(result["samples"].values[result["role"].values == "control"].min(initial=count))
    if control < count:
        said.append(
            f"the control has {control} images and each model {count}: with as many its Frechet distance would be smaller."
        )
    if GAUSSIAN in table:
        behind = ", ".join(map(str, models.index[models > table[GAUSSIAN]]))
        if behind:
            said.append(
                f"a Gaussian's samples come closer than those of {behind}: this distance says little of their training."
            )
    return said


def reference_samples(
    images: ImageSet,
    schedule: Schedule,
    noise: SharedNoise,
    count: int,
    sampler: Sampler | str | None = None,
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """What a trained model is told apart from: name -> images. They are made on ``device``, by default where the training set is."""
    made = {TRAINING_IMAGES: images.all()[:count]}
    for name, key in ((GAUSSIAN, "gaussian"), (MEAN, "mean"), (MEMORISER, "optimal")):
        model = DiffusionModel(name, closed_form(key, images.all(), schedule).to(device or images.device))
        made[name] = model.generate(noise, range(count), sampler)
    return made
