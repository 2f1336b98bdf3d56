"""Presets name specs: what to train, compare and probe on a data set, sized for a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consistency_lab.errors import unknown_name
from consistency_lab.training.settings import TrainingSettings

if TYPE_CHECKING:
    from consistency_lab.studies.demo import DemoPlan
    from consistency_lab.studies.race.study import RacePlan

_FAMILY = 4  # models a family: an interval over models wants four or more
_UNET = TrainingSettings(network="unet", steps=1500)
_DIT = TrainingSettings(network="dit", steps=1500)
_MLP = TrainingSettings(network="mlp", steps=1500)


@dataclass(frozen=True)
class LikenessPlan:
    """The main table of a preset.

    Attributes:
        data: the data set, by name.
        held_out: images that no model is trained on; quality is measured against them.
        families: name -> settings of its models, which differ in their seed.
        metrics: distances.
    """

    data: str
    held_out: int
    families: dict[str, tuple[TrainingSettings, ...]]
    metrics: tuple[str, ...] = ("mse", "cosine")

    @property
    def jobs(self) -> dict[str, TrainingSettings]:
        """Every model of every family by name."""
        return {f"{family}-s{each.seed}": each for family, members in self.families.items() for each in members}


def likeness_plan(preset: str) -> LikenessPlan:
    """The main table of a preset. Raises `UserError` for one that does not exist."""
    if preset != "digits":
        raise unknown_name("preset", preset, ["digits"])
    members = {"unet": _UNET, "dit": _DIT, "mlp": _MLP}
    families = {name: tuple(each.replace(seed=seed) for seed in range(_FAMILY)) for name, each in members.items()}
    return LikenessPlan("digits", 297, families)


@dataclass(frozen=True)
class SizesPlan:
    """The sweep over the size of the training set of a preset: sizes of two disjoint sets, and the settings of every model."""

    data: str
    sizes: tuple[int, ...]
    settings: TrainingSettings


def sizes_plan(preset: str) -> SizesPlan:
    """The size sweep of a preset. Raises `UserError` for one that does not exist."""
    if preset != "digits":
        raise unknown_name("preset", preset, ["digits"])
    return SizesPlan("digits", (8, 32, 128, 400, 898), _MLP.replace(snapshots=0))


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


def race_plan(preset: str) -> RacePlan:
    """The race of a preset. Raises `UserError` for one that does not exist."""
    from consistency_lab.studies.race.study import RacePlan  # imports torch, which --help must not wait for

    plans = {
        "digits": lambda: RacePlan(
            "digits", held_out=297, base=_MLP.replace(steps=1200, snapshots=0), seeds=5, pilot_steps=300
        ),
        "fashion": lambda: RacePlan(
            "fashion-mnist(size=16)",
            held_out=1000,
            base=_UNET.replace(steps=1000, batch=64, snapshots=0),
            seeds=3,
            pilot_steps=200,
            images=10_000,
            horizons=(0.5, 1.0),
        ),
    }
    if preset not in plans:
        raise unknown_name("preset", preset, plans)
    return plans[preset]()
