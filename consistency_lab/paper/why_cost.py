"""What the probes of `Why` would still cost: each kind of work is timed once on an untrained model, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.loading import Model
from consistency_lab.model_kinds import kind_of
from consistency_lab.paper.why import CONNECTIVITY, CURVATURE, DIFFICULTY, LINE, STRUCTURE, Why
from consistency_lab.studies.cost import fleet_cost
from consistency_lab.studies.fleet import Fleet
from consistency_lab.studies.probe_cost import (
    connectivity_cost,
    difficulty_cost,
    line_cost,
    spectrum_cost,
    structure_cost,
    total,
)
from consistency_lab.training.run_io import snapshot_steps
from consistency_lab.training.settings import LoopSettings


def why_cost(why: Why, fleet: Fleet, members: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, float]]:
    """Seconds of training that each model would still take, and of evaluation each probe of each family.

    What neither the rows nor the store answer is counted, and the training of a family of which anything is. A spectrum may end sooner
    than is counted.

    Args:
        why: the study.
        fleet: its models.
        members: family -> names of its models.

    Returns:
        name of a model, or "probe of family" -> (training, evaluation).
    """
    families = [fleet.family(name, names) for name, names in members.items()]
    missing = list(why.missing(families))
    wanted = dict.fromkeys(family.name for _, family, _ in missing)
    cost = dict.fromkeys(fleet.jobs, (0.0, 0.0))
    cost |= {f"{probe} of {family.name}": (0.0, 0.0) for probe, family, _ in why.asked(families)}
    training = {name: fleet.jobs[name] for family in wanted for name in members[family]}
    cost |= fleet_cost(fleet.images, training, fleet.store, fleet.device)
    prices: dict[str, _Prices] = {}
    for probe, family, part in missing:
        if family.name not in prices:
            prices[family.name] = _Prices(why, fleet.jobs[members[family.name][0]], fleet.device)
        name = f"{probe} of {family.name}"
        cost[name] = (0.0, cost[name][1] + getattr(prices[family.name], probe)(part))  # both networks of a GAN
    return cost


class _Prices:
    """Seconds of each probe for models of those settings."""

    def __init__(self, why: Why, settings: LoopSettings, device: torch.device):
        self.why, self.settings, self.device = why, settings, device
        fresh = settings.replace(steps=1, snapshots=0)
        self.model: Model = kind_of(settings).train(why.images, settings=fresh, device=device, progress=False)

    def line(self, part: str | None) -> float:
        return total(line_cost(self.why.subject(self.model, part), LINE["points"]))

    def between(self, part: str | None) -> float:
        return total(line_cost(self.why.subject(self.model, part), LINE["points"], between=True))

    def curvature(self, part: str | None) -> float:
        return total(spectrum_cost(self.why.bent(self.model, part), scaled=True, **CURVATURE))

    def difficulty(self, part: None) -> float:
        kept, sets = len(snapshot_steps(self.settings)), (self.why.held_out, self.why.images)
        return total(difficulty_cost(self._diffusion, *sets, count=self.why.looked_at, snapshots=kept, **DIFFICULTY))

    def structure(self, part: None) -> float:
        steps, levels = STRUCTURE["sampler"].steps, STRUCTURE["levels"]
        return total(structure_cost(self._diffusion, count=self.why.count, steps=steps, levels=levels, models=2))

    def connectivity(self, part: None) -> float:
        asked = {**CONNECTIVITY, "count": self.why.count, "walk": CONNECTIVITY["sampler"].steps}
        return total(connectivity_cost(self._diffusion, self.why.images, self.why.held_out, self.settings, asked))

    @property
    def _diffusion(self) -> DiffusionModel:
        assert isinstance(self.model, DiffusionModel)  # no other is asked for what has noise levels
        return self.model
