"""What is looked at while a model trains: losses on held-out images over t, and a callback that sees every record and may stop the run.

Neither changes a weight. A callback sees each record of a run once and in order, those of its log first: a resumed run has a callback with
the state that it would have had, and a run that the store has is told to it without training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import whole
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.devices import measuring
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.store.run import Run
from consistency_lab.training.settings import TrainingSettings

BINS = 10
LOG_EVERY = 25  # steps; the loss is fetched from the device this often

Record = dict[str, Any]
Callback = Callable[[Record], object]


class Validation:
    """The loss of the averaged weights on held-out images: the same images with the same noise at the centres of `BINS` equal cells of t.

    Args:
        images: held-out images, all of which are used: ten evaluations of the network each.
        denoiser: the one that trains, which is left alone.
        settings: units of the squared error, and whether labels are given.
        every: steps between two validations; the last step is always one.

    Raises:
        UserError: what is no image set; images of another shape, or without labels for a conditional model; an ``every`` at which nothing
            is logged.
    """

    def __init__(self, images: ImageSet, denoiser: Denoiser, settings: TrainingSettings, every: int):
        check_set(images)
        conditional, units = settings.conditional, settings.objective
        if images.shape != tuple(denoiser.shape) or (conditional and images.labels is None):
            lacks = "no labels" if images.shape == tuple(denoiser.shape) else f"images of {images.shape}"
            raise UserError(
                f"the validation set {images.name!r} has {lacks}; hold out a part of the set that is trained on."
            )
        self.every = whole("validate_every", every, least=1)
        if self.every % LOG_EVERY:
            raise UserError(f"validate_every is a multiple of {LOG_EVERY}, the steps between two records, not {every}.")
        self.twin, self.units, self.images, self.key = (
            copy.deepcopy(denoiser).eval(),
            units,
            images,
            images.fingerprint[:12],
        )
        device, schedule = next(denoiser.parameters()).device, denoiser.schedule
        self.x0 = images.all().to(device)
        self.eps = SharedNoise(0).draw(range(len(images)), images.shape, stream="probe", device=device)
        self.labels = images.labels.to(device) if conditional and images.labels is not None else None
        self.times = schedule.t_min + (np.arange(BINS) + 0.5) / BINS * (schedule.t_max - schedule.t_min)

    def due(self, step: int, last: int) -> bool:
        """Whether the record of a step holds a validation."""
        return step % self.every == 0 or step == last

    def __call__(self, weights: Mapping[str, Tensor]) -> Record:
        """Losses ``{"set", "loss" (their mean over t), "t", "losses"}`` of the averaged weights."""
        self.twin.load_state_dict(weights)
        with measuring(), torch.no_grad():
            losses = torch.stack([self._loss(float(t)) for t in self.times]).tolist()  # a GPU is waited for once
        return {"set": self.key, "loss": sum(losses) / BINS, "t": self.times.tolist(), "losses": losses}

    def _loss(self, t: float) -> Tensor:
        """The mean over the images at one time, a float64 scalar on the device."""
        total = torch.zeros((), dtype=torch.float64, device=self.x0.device)
        for first in range(0, len(self.x0), 256):
            part = slice(first, first + 256)
            cond = None if self.labels is None else self.labels[part]
            times = torch.full((len(self.x0[part]),), t, dtype=torch.float64, device="cpu")
            total += denoising_loss(self.twin, self.x0[part], times, self.eps[part], cond, self.units).double().sum()
        return total / len(self.x0)


class Watch:
    """A callback and a validation of one run.

    Args:
        callback: called with each record, ``{"step", "loss", "lr", "beta1", "seconds"}`` and perhaps ``"validation"``; True stops the run.
        validation: what is added to records.

    Attributes:
        stopped: the step at which the callback stopped the run, or None.
    """

    def __init__(self, callback: Callback | None = None, validation: Validation | None = None):
        if not (callback is None or callable(callback)):
            raise UserError(f"a callback is a function of a record, not {callback!r}.")
        self.callback, self.validation = callback, validation
        self.stopped: int | None = None
        self._seen = 0

    def tell(self, record: Record) -> None:
        """Give the callback a record that it has not seen, until it stops the run."""
        if self.callback is None or self.stopped is not None or record["step"] <= self._seen:
            return
        self._seen = int(record["step"])
        answer = self.callback(dict(record))
        if isinstance(answer, bool | np.bool_) and answer:
            self.stopped = self._seen

    def replay(self, run: Run, last: int) -> None:
        """Tell what a run has logged.

        Raises:
            UserError: its log lacks a validation, or has one of other images.
        """
        for record in run.records() if self.callback or self.validation else []:
            check, held = self.validation, record.get("validation", {}).get("set")
            if check is not None and check.due(record["step"], last) and held != check.key:
                raise UserError(
                    f"{run.folder} was trained without a validation on {check.images.name!r} at step {record['step']}; leave validation "
                    "out, or train it again with force=True."
                )
            self.tell(record)
