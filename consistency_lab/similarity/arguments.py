"""What a comparison is given: the right kinds of things, or one sentence on what to write instead."""

from __future__ import annotations

from collections.abc import Sequence

from consistency_lab.choices import whole
from consistency_lab.data.imageset import check_set
from consistency_lab.diffusion.model import check_generative
from consistency_lab.diffusion.noise import check_noise
from consistency_lab.errors import UserError


def counted(**counts: object) -> list[int]:
    """Numbers of samples, levels and the like, as ints. Raises `UserError` for what is no whole number, or below 0, by name."""
    return [whole(name, value) for name, value in counts.items()]


def check_arguments(models: object, noise: object, metrics: object, images: object) -> None:
    """Raise `UserError` unless there are a sequence of models, shared noise, one metric or more, and an image set or None."""
    if not isinstance(models, Sequence) or isinstance(models, str):
        raise UserError(f"models are given as a list, not as {type(models).__name__}; write compare([a, b], ...).")
    for model in models:
        check_generative(model)
    check_noise(noise)
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        given = repr(metrics) if isinstance(metrics, str) else "metric"
        raise UserError(f"metrics are given as a list; write metrics=[{given}].")
    if not metrics:
        raise UserError(
            "a comparison needs at least one metric, for example 'mse'; see `consistency-lab list metrics`."
        )
    if images is not None:
        check_set(images)
