"""Who runs, and against what.

A speed-up says nothing without its controls: uniform times at a constant rate; uniform times with the contestant's own annealing, at
several lengths of run, of which the fastest counts, since annealing alone reaches any quality sooner on a shorter run; and for a
curriculum its two static twins, the density at its end and its average over the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from consistency_lab.choices import Choice
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import BINS, TIMESTEPS

ROLES = (
    "control",
    "annealed",
    "matched",
    "momentum",
    "density",
    "twin",
    "curriculum",
    "paper",
    "recipe",
    "ablation",
    "shuffled",
)
_KNOTS = 101


@dataclass(frozen=True)
class Contestant:
    """Settings under a name.

    Attributes:
        name: how tables call it.
        settings: of its runs; the race sets the seed.
        role: one of `ROLES`. Speed-ups are taken against the fastest of each controlling role.
        entry: contestants of one entry are one idea at several lengths of run; its own name where it is alone.
        matched: the entry of its own control, alike in optimizer and preconditioning, with uniform times; "" where it has none.
        pilot_steps: steps that were spent on the same set to find its recipe.
        pilot_seconds: time that was spent on it: of those steps and of the probes, or of a recipe that needs the images alone.
    """

    name: str
    settings: TrainingSettings
    role: str
    entry: str = ""
    pilot_steps: int = 0
    pilot_seconds: float = 0.0
    matched: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UserError(f"the role of a contestant is one of {', '.join(ROLES)}, not {self.role!r}.")
        object.__setattr__(self, "entry", self.entry or self.name)


def at_horizons(contestant: Contestant, horizons: Sequence[float]) -> list[Contestant]:
    """The contestant in runs of several lengths, fractions of its own. Its annealing and curriculum shrink with the run.

    The half-life of the weight average stays what it is in steps, so that lengths compare.

    Raises:
        UserError: a horizon of 0 or less.
    """
    made = []
    for horizon in horizons:
        if not horizon > 0:
            raise UserError(f"the length of a run is a fraction above 0 of its steps, not {horizon!r}.")
        if horizon == 1:  # as it is, bit for bit: its runs may be another entry's too
            made.append(contestant)
            continue
        steps = max(1, round(horizon * contestant.settings.steps))
        half_life = contestant.settings.ema_half_life * contestant.settings.steps / steps
        settings = contestant.settings.replace(steps=steps, ema_half_life=half_life)
        name = f"{contestant.name}, {steps} steps"
        made.append(replace(contestant, name=name, settings=settings, entry=contestant.entry))
    return made


def static_twins(contestant: Contestant) -> list[Contestant]:
    """The density at the end of a curriculum, and its average over the run, each from the first step to the last.

    Raises:
        UserError: a sampler that adapts to the loss: its densities are not known beforehand.
    """
    settings = contestant.settings
    sampler = TIMESTEPS.build(settings.timesteps, SCHEDULES.build(settings.schedule), settings.steps)
    if sampler.state_dict():
        raise UserError(f"{settings.timesteps!r} adapts to the loss, so it has no static twins before it is run.")
    total = np.zeros(BINS)
    for step in range(settings.steps):
        total += sampler.masses(step)  # checked where it is drawn from: checks of 400,000 take half a minute
    twins = {"at its end": sampler.checked_masses(settings.steps), "averaged": total / settings.steps}
    return [
        Contestant(
            f"{contestant.name}, {what}", settings.replace(timesteps=as_density(masses, sampler.weighted)), "twin"
        )
        for what, masses in twins.items()
    ]


def as_density(masses: np.ndarray, weighted: bool = False) -> Choice:
    """Masses of the `BINS` cells as a `density` of `_KNOTS` values, linear between them."""
    centres = (np.arange(BINS) + 0.5) / BINS
    knots = np.interp(np.linspace(0, 1, _KNOTS), centres, masses)
    options: dict[str, object] = {"values": [round(float(v), 4) for v in knots / knots.max()]}
    if weighted:
        options |= {"weighted": True, "floor": 0.01}
    return Choice("density", options)
