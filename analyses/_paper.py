"""What the preset `paper` would take: nothing of it has been run here, so its figures say what would have to be."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from consistency_lab.choices import Choice
from consistency_lab.networks.registry import build_network
from consistency_lab.paper.race.findings import unknown
from consistency_lab.paper.race.plan import race_contestants
from consistency_lab.presets import likeness_plan, race_plan
from consistency_lab.training.settings import TrainingSettings

SHAPE = (3, 32, 32)
SUSTAINED = 1e14  # operations a second of one data-centre GPU in bfloat16, about a tenth of its peak
_DAY = 86_400


@cache
def per_image(network: str | Choice) -> float:
    """Floating-point operations of a training step for one image: a forward pass, and twice that backward."""
    model = build_network(network, SHAPE).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *SHAPE, device="meta"), torch.empty(1, device="meta"), None)
    return 3.0 * counter.get_total_flops()


def paper_cost(study: str) -> str:
    """A sentence: operations of the training of a study's diffusion models, and days of one GPU."""
    if study == "race":
        plan = race_plan("paper")
        settings = [each.settings for each in race_contestants(plan, "standard", unknown()) for _ in range(plan.seeds)]
    else:
        families = likeness_plan("paper").families.values()
        settings = [each for family in families for each in family if isinstance(each, TrainingSettings)]
    total = sum(per_image(each.network) * each.batch * each.steps for each in settings)
    shared = (
        " (of the standard field)" if study == "race" else " (models that likeness, origins, emergence and why share)"
    )
    return (
        f"Nothing of this scale has been run: its {len(settings)} diffusion models{shared} take about {total:.1g} operations, "
        f"{total / SUSTAINED / _DAY:.0f} days of one GPU at {SUSTAINED:.0g} a second; sampling and all else come on top."
    )
