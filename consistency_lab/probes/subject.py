"""What a probe looks at: the loss of one module on one frozen batch, whatever kind of model it belongs to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring, plain_defaults
from consistency_lab.diffusion.loss import DenoisingLoss, denoising_error, mean_square
from consistency_lab.diffusion.model import DiffusionModel, described, specs_of
from consistency_lab.errors import UserError
from consistency_lab.probes.frozen import FrozenBatch, SampleLoss, check_deterministic, frozen_grid
from consistency_lab.probes.joining import check_joinable, check_loss


@dataclass(frozen=True)
class Split:
    """A loss as a convex function of an output: what Gauss-Newton needs to be told.

    Attributes:
        output: ``output(module, *tensors) -> (B, ...)``.
        loss: ``loss(output, *tensors) -> (B,)``, with ``loss(output(module, ...), ...)`` the loss of the subject.
    """

    output: Callable[..., Tensor]
    loss: Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Subject:
    """The loss of a module on a frozen batch.

    Attributes:
        name: how tables and figures call it.
        module: whose parameters are moved; it is probed in the mode in which it is.
        loss: ``loss(module, *tensors) -> (B,)``, a function of each sample by itself.
        batch: the frozen tensors: ``count`` images, or, with ``times``, the same images at every time, time major (`frozen_grid`).
        units: what the loss is measured in, for axes.
        times: the noise levels ``(levels,)`` of a diffusion model; None where there are none.
        split: for Gauss-Newton; None where the loss has not been taken apart.
        facts: provenance for results.
    """

    name: str
    module: nn.Module
    loss: SampleLoss
    batch: FrozenBatch
    units: str
    times: Tensor | None = None
    split: Split | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.batch) % self.levels:
            raise UserError(
                f"a batch of {len(self.batch)} samples cannot hold the same images at each of {self.levels} noise levels."
            )

    @property
    def levels(self) -> int:
        """Noise levels; 1 where there are none."""
        return 1 if self.times is None else len(self.times)

    @property
    def count(self) -> int:
        """Images: the independent units, each of which is seen at all noise levels."""
        return len(self.batch) // self.levels

    @property
    def device(self) -> torch.device:
        return self.batch.tensors[0].device

    @property
    def groups(self) -> Tensor:
        """The index of the noise level of each sample: ``(B,)``."""
        return torch.arange(self.levels, device="cpu").repeat_interleave(self.count)

    def at(self, levels: Sequence[int]) -> Subject:
        """The same subject at some of its noise levels only."""
        if self.times is None:
            raise UserError(f"{self.name!r} has no noise levels to choose from.")
        return replace(self, batch=self._rows(levels, range(self.count)), times=self.times[list(levels)])

    def of_images(self, images: Sequence[int]) -> Subject:
        """The same subject on some of its images only, at all noise levels."""
        return replace(self, batch=self._rows(range(self.levels), images))

    def blocks(self, most: int = 8) -> tuple[list[Subject], list[float]]:
        """The subject in up to ``most`` blocks of images, and the share of the images in each: what intervals over images are made of."""
        bounds = [round(i * self.count / min(most, self.count)) for i in range(min(most, self.count) + 1)]
        pieces = [range(a, b) for a, b in pairwise(bounds)]
        return [self.of_images(piece) for piece in pieces], [len(piece) / self.count for piece in pieces]

    def _rows(self, levels: Sequence[int], images: Sequence[int]) -> FrozenBatch:
        rows = torch.from_numpy((np.asarray(levels)[:, None] * self.count + np.asarray(images)).flatten())
        return FrozenBatch([x[rows.to(x.device)] for x in self.batch.tensors], self.batch.chunk)

    def asked_of(self, module: nn.Module, name: str, facts: Mapping[str, Any] | None = None) -> Subject:
        """The same question to a module that differs in its weights alone: to a copy on this device, where it is on another one.

        Raises:
            UserError: it differs in something else, which is named.
        """
        check_joinable(self.module, module, (self.name, name))
        places, others = ([x.device for x in (*m.parameters(), *m.buffers())] for m in (self.module, module))
        if places != others:
            module = copy.deepcopy(module).to(self.device)
        return replace(self, module=module, name=name, facts={**self.facts, **(facts or {})})

    def joined(self, other: Subject) -> Subject:
        """The other end of a path: this question, put to another subject's module.

        Raises:
            UserError: the modules differ in more than their weights, or the losses in more than the opponent.
        """
        check_loss(self.loss, other.loss, (self.name, other.name))
        return self.asked_of(other.module, other.name, other.facts)

    def losses(self) -> Tensor:
        """Loss per sample ``(levels, count)``, float64 on the CPU, through the chunks of the batch."""
        with measuring(), torch.no_grad():
            return self.batch.losses(self.module, self.loss).double().cpu().reshape(self.levels, self.count)

    @property
    def specs(self) -> dict[str, Any]:
        """Of the models that it is of, by name (see `specs_of`)."""
        return dict(self.facts.get("specs", {}))

    def check(self) -> None:
        """Refuse what cannot be probed before any time is spent on it.

        Raises:
            UserError: a loss that draws random numbers (dropout, its own noise), or batch norm in training mode, which makes the loss of
                a sample depend on the others and changes the module.
        """
        if any(isinstance(m, _BatchNorm) and m.training for m in self.module.modules()):
            raise UserError(
                f"{self.name!r} has batch norm in training mode, which mixes samples; call its eval() first."
            )
        with measuring():
            check_deterministic(self.module, self.loss, self.batch)

    def provenance(self) -> dict[str, Any]:
        """What results record of it."""
        return {
            **self.facts,
            "loss_units": self.units,
            "samples": self.count,
            "batch": self.batch.fingerprint,
            "device": str(self.device),
        }


def check_subjects(*subjects: object) -> None:
    """Raise `UserError` for anything but subjects, and say how to make one of it."""
    for subject in subjects:
        if not isinstance(subject, Subject):
            raise UserError(
                f"a {type(subject).__name__} is no subject; give what diffusion_subject(model, images) or "
                "contrast_subject(model, images) returns."
            )


@plain_defaults()
def diffusion_subject(
    model: DiffusionModel, images: ImageSet, *, count: int = 64, bins: int = 10, seed: int = 0, units: str = "eps"
) -> Subject:
    """The denoising loss of a diffusion model on `frozen_grid`.

    Args:
        model: the model.
        images: their first ``count`` are denoised.
        count: images, each with the same noise at every level.
        bins: noise levels, centres of equal cells in t.
        seed: of the noise.
        units: of the error, ``"eps"``, ``"x0"``, ``"v"`` or ``"flow"``.

    Raises:
        UserError: too few images, labels that are missing, unknown units.
    """
    batch, times = frozen_grid(images, model, count, bins, seed)
    return Subject(
        model.name,
        model.denoiser,
        DenoisingLoss(units),
        batch,
        f"mean squared error in {units}",
        times,
        Split(partial(denoising_error, units=units), mean_square),
        {
            "model": described(model),
            "specs": specs_of([model]),
            "images": {"name": images.name, "fingerprint": images.fingerprint, "used": count},
            "noise_seed": seed,
        },
    )
