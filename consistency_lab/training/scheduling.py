"""A learning-rate scheduler of torch: followed once beforehand, so that a run's rates are part of its spec and a resume needs no state."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from consistency_lab.devices import plain_defaults
from consistency_lab.errors import UserError
from consistency_lab.training.optimizers import OPTIMIZERS
from consistency_lab.training.settings import LoopSettings

MakeScheduler = Callable[[torch.optim.Optimizer], LRScheduler]


@dataclass(frozen=True)
class ScheduledRate:
    """The learning rate of every step, as a factor of the peak: called with the 0-based step."""

    name: str
    factors: tuple[float, ...]

    def __call__(self, step: int) -> float:
        return self.factors[step]

    @property
    def spec(self) -> dict[str, str]:
        """The scheduler's class, and a digest of the factors, which are all that a run has of it."""
        return {"name": self.name, "factors": hashlib.sha256(np.array(self.factors, "<f8").tobytes()).hexdigest()[:32]}


@plain_defaults()
def scheduled_rate(make: MakeScheduler, settings: LoopSettings) -> ScheduledRate:
    """Follow a scheduler through a run, on an optimizer of the run's kind that trains nothing.

    Args:
        make: ``optimizer -> scheduler``; it is stepped once a step.
        settings: steps, optimizer and peak learning rate.

    Raises:
        UserError: what makes no scheduler; one that waits for a loss or sets momentum; rates that are negative or no numbers.
    """
    optimizer = OPTIMIZERS.build(settings.optimizer, [nn.Parameter(torch.zeros(()))], settings.lr)
    group = optimizer.param_groups[0]
    own = _momentum(group)
    scheduler = make(optimizer) if callable(make) else None
    if isinstance(scheduler, ReduceLROnPlateau):
        raise UserError("a scheduler that waits for a loss cannot be part of a spec; give one of steps alone.")
    if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer:
        raise UserError(
            "lr_scheduler is a function that makes a scheduler of the optimizer that it is given, for example "
            "lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)."
        )
    factors = []
    for step in range(settings.steps):
        if step:
            optimizer.step()  # moves nothing: there are no gradients
            try:
                scheduler.step()
            except ValueError as error:
                raise UserError(f"the learning-rate scheduler does not reach step {step + 1}: {error}") from error
        factors.append(float(group["lr"]) / settings.lr)
        if not 0 <= factors[-1] < math.inf:
            raise UserError(f"the learning-rate scheduler gives the rate {group['lr']} at step {step + 1}.")
        if _momentum(group) != own:
            raise UserError("the learning-rate scheduler sets momentum too; make it with cycle_momentum=False.")
    return ScheduledRate(type(scheduler).__name__, tuple(factors))


def _momentum(group: dict[str, object]) -> object:
    return copy.copy([group.get(key) for key in ("betas", "momentum")])
