"""Presets name specs: what to train, compare and probe on a data set, sized for a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consistency_lab.errors import unknown_name
from consistency_lab.training.settings import TrainingSettings

if TYPE_CHECKING:
    from consistency_lab.studies.demo import DemoPlan

_UNET = TrainingSettings(network="unet", steps=1500)
_DIT = TrainingSettings(network="dit", steps=1500)
_MLP = TrainingSettings(network="mlp", steps=1500)


def demo_plan(preset: str) -> DemoPlan:
    """The demo of a preset. Raises `UserError` for one that does not exist."""
    from consistency_lab.studies.demo import DemoPlan  # imports torch, which --help must not wait for

    runs = {
        "unet-s0": _UNET,
        "unet-s1": _UNET.replace(seed=1),
        "dit-s2": _DIT.replace(seed=2),
        "mlp-s3": _MLP.replace(seed=3),
    }
    plans = {"digits": lambda: DemoPlan(data="digits", held_out=297, runs=runs, pilot="mlp-s3", count=256)}
    if preset not in plans:
        raise unknown_name("preset", preset, plans)
    return plans[preset]()
