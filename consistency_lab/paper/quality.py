"""How good are the images? Every model beside what it must be told apart from.

Four reference rows come with every table: training images (the floor: real images that are not those measured against), the Gaussian
denoiser's samples, the data mean, and the optimal denoiser's samples, which are copies. A measure on which a trained model does not beat
the Gaussian's samples says nothing about its training.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_generative, described, images_of
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.references import closed_form
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES, Schedule
from consistency_lab.errors import UserError
from consistency_lab.intervals import add_interval
from consistency_lab.metrics.classifier import SmallClassifier, classes_covered, train_classifier
from consistency_lab.metrics.quality import Reference, measure
from consistency_lab.store.checkpoint import load_tensors, save_tensors
from consistency_lab.store.results import with_provenance
from consistency_lab.store.runs import Store

TRAINING_IMAGES, GAUSSIAN, MEAN, MEMORISER = "training images", "Gaussian denoiser", "data mean", "optimal denoiser"
_WEIGHTS = "classifier.safetensors"
_logger = logging.getLogger(__name__)


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
                save_tensors(run.folder / _WEIGHTS, *made.to_state())
                run.finish(made.facts)
    return SmallClassifier.from_state(*load_tensors(run.folder / _WEIGHTS))


def quality_table(
    models: Sequence[GenerativeModel],
    images: ImageSet,
    held_out: ImageSet,
    classifier: SmallClassifier,
    *,
    noise: SharedNoise | None = None,
    count: int = 1000,
    sampler: Sampler | str | None = None,
    references: Mapping[str, Tensor] | None = None,
) -> xr.Dataset:
    """Frechet and kernel distance, precision, recall, density and coverage of each model and of the four references.

    Args:
        models: whose images 0 ... count - 1 of ``noise`` are measured.
        images: the training set: the references are made from it.
        held_out: the real images that samples are measured against.
        classifier: gives the features.
        noise: ``SharedNoise(1)`` by default.
        sampler: of diffusion models and references; ``Sampler()`` by default.
        references: what `reference_samples` gives for the same arguments, where it is at hand.
        count: samples a row; a Frechet distance depends on it, so every row has as many. The floor has as many as there are images.

    Returns:
        ``value (row, measure)`` with its interval and ``covered (row)``, the classes with at least a tenth of an equal share.

    Raises:
        UserError: what is no model, image set or noise.
    """
    for model in models:
        check_generative(model)
    for part in (images, held_out):
        check_set(part)
    check_noise(noise)
    noise = noise or SharedNoise(1)
    schedule = next((m.denoiser.schedule for m in models if isinstance(m, DiffusionModel)), SCHEDULES.build("linear"))
    samples = {
        model.name: model.generate(noise, range(count), sampler)
        if isinstance(model, DiffusionModel)
        else images_of(model, noise, range(count))
        for model in models
    }
    samples |= reference_samples(images, schedule, noise, count, sampler) if references is None else references
    reference = Reference(classifier.features(held_out.all()), classifier.feature_name)
    rows = {name: measure(reference, classifier.features(x)) for name, x in samples.items()}
    names = [each.name for each in next(iter(rows.values()))]
    values = np.array([[(m.value, m.low, m.high) for m in row] for row in rows.values()])
    result = xr.Dataset(
        coords={"row": list(rows), "measure": names},
    )
    add_interval(result, "value", ("row", "measure"), np.moveaxis(values, -1, 0))
    covered = [classes_covered(classifier.predict(x), len(classifier.head.bias)) for x in samples.values()]
    result["covered"] = ("row", np.array(covered, dtype=np.int32))
    return with_provenance(
        result,
        "quality",
        choices=("row", "measure"),
        models=[described(model) for model in models],
        samples=count,
        noise_seed=noise.seed,
        measured_against={"name": held_out.name, "fingerprint": held_out.fingerprint, "images": len(held_out)},
        classifier=classifier.facts,
    )


def reference_samples(
    images: ImageSet, schedule: Schedule, noise: SharedNoise, count: int, sampler: Sampler | str | None = None
) -> dict[str, Tensor]:
    """What a trained model is told apart from: name -> images."""
    made = {TRAINING_IMAGES: images.all()[:count]}
    for name, key in ((GAUSSIAN, "gaussian"), (MEAN, "mean"), (MEMORISER, "optimal")):
        model = DiffusionModel(name, closed_form(key, images.all(), schedule))
        made[name] = model.generate(noise, range(count), sampler)
    return made
