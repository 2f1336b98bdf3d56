"""The batches that a diffusion model is trained on: images in shuffled epochs with labels, times, noise and weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from consistency_lab.choices import Choice, Registry
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import sent
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.training.loop import Batch, ShuffledImages, stream_generator
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.targets import TARGETS, posterior_means
from consistency_lab.training.timesteps import TIMESTEPS
from consistency_lab.training.timesteps.base import check_draws
from consistency_lab.training.weighting import WEIGHTINGS


class DenoisingBatches:
    """Images in shuffled epochs, times from a sampler, noise from its own stream; all functions of the step.

    A batch's data are images, times, noise and, of a conditional model, labels. Times stay on the CPU, where they are checked and
    the schedule is asked about them; everything else is on the device when it is needed, and a GPU is waited for nowhere.

    Args:
        images, settings, device: of the run.
        first: steps of the runs that this one goes on from: images and noise are those of the steps after them.

    Raises:
        UserError: a batch larger than the data; a target that averages over images, of a conditional model.
    """

    def __init__(self, images: ImageSet, settings: TrainingSettings, device: torch.device, first: int = 0):
        self.shuffled, self.first = ShuffledImages(images, settings, device), first
        self.order, self.images = self.shuffled.order, self.shuffled.set
        self.device, self.size, self.seeds = device, settings.batch, settings.seeds
        self.schedule, self.units = SCHEDULES.build(settings.schedule), settings.objective
        self.sampler = TIMESTEPS.build(settings.timesteps, self.schedule, settings.steps)
        self.weighting = WEIGHTINGS.build(measured("weighting", settings.weighting, images))
        self.target = TARGETS.build(settings.target)
        if self.target.images and settings.conditional:
            raise UserError(
                f"target={str(settings.target)!r} averages over images of all classes; a conditional model is trained with target=sample."
            )
        self.dropout = settings.label_dropout if settings.conditional else None
        self.labels = images.labels.cpu() if settings.conditional and images.labels is not None else None

    def batch(self, step: int) -> Batch:
        x0, indices = self.shuffled(drawn := self.first + step)
        times = stream_generator(self.seeds["noise"], "noise", 2 * drawn)
        t, weight = self.sampler.sample(self.size, step, times)
        check_draws(self.sampler, t, weight, self.size)
        level = self.weighting.weights(self.schedule, t, self.units)
        weight = weight if level is None else weight * level
        # Noise is drawn on the device: a GPU's noise is its own, and the device is part of the spec.
        generator = stream_generator(self.seeds["noise"], "noise", 2 * drawn + 1, self.device)
        eps = torch.randn(x0.shape, generator=generator, dtype=torch.float32, device=self.device)
        if wanted := self.target.images:
            levels = torch.stack(self.schedule.alpha_sigma(t)).to(x0.dtype)
            alpha, sigma = sent(levels, self.device).reshape(2, -1, 1, 1, 1)
            others = self.shuffled.following(drawn, max(0, wanted - self.size))
            x0, eps = posterior_means(x0, eps, alpha, sigma, others)
        data = [x0, t, eps]
        if self.dropout is not None:
            dropped = torch.rand(self.size, generator=times, dtype=torch.float32, device="cpu") < self.dropout
            data.append(sent(self._labels(indices, dropped), self.device))
        return Batch(tuple(data), sent(weight.float(), self.device))

    def _labels(self, indices: Tensor, dropped: Tensor) -> Tensor:
        assert self.labels is not None  # training_spec has refused conditional training without labels
        return self.labels[indices].masked_fill_(dropped, self.images.classes)

    def observe(self, batch: Batch, losses: Tensor) -> None:
        self.sampler.update(batch.data[1], losses)

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)


def measured(key: str, text: str | Choice, images: ImageSet) -> Choice:
    """The choice of a prediction or weighting, its ``sigma_data`` measured on the set where none is given."""
    registry: Registry[Any] = PREDICTIONS if key == "predicts" else WEIGHTINGS
    choice = registry.resolve(text)
    if choice.options.get("sigma_data", 0) is None:
        return Choice(choice.name, {**choice.options, "sigma_data": pixel_deviation(images)})
    return choice


def pixel_deviation(images: ImageSet) -> float:
    """Standard deviation over all pixels of (at most the first 10,000) images, to four decimals: EDM's sigma_data."""
    return round(float(images.batch(torch.arange(min(len(images), 10_000), device="cpu")).double().std()), 4)
