"""What a preset's race is: its data, settings, seeds and contestants, and what all of them are measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.paper.race.contestant_sets import (
    center_contestants,
    pilot_free_contestants,
    standard_contestants,
)
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.findings import Findings
from consistency_lab.paper.race.race import TARGETS, target_pilot
from consistency_lab.paper.race.running import RaceRun, Watch
from consistency_lab.paper.race.table import AGAINST, MATCHED
from consistency_lab.recipe import Recipe
from consistency_lab.similarity.quality import set_classifier
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import TrainingSettings

FRESH = "fresh-seeds"
CONTESTANT_SETS = ("standard", "pilot-free", FRESH, "centers")
FROM_IMAGES = ("pilot-free", FRESH)


@dataclass(frozen=True)
class RacePlan:
    """A race on one data set.

    Attributes:
        data: the set, by name; its first random ``images`` are trained on (all that are left: None).
        held_out: images that no run sees: loss and features are of them.
        base: uniform times at a constant rate; every contestant is a change of it.
        seeds: how many, from 0.
        pilot_steps: how long the pilot of the findings is trained.
        horizons: lengths of run, as fractions of the base's steps, of uniform times with annealing.
        length: of everything else that anneals.
        targets: fractions of the target pilot's run.
        target_seed, pilot_seed, rate_seed: of the target pilot, of the pilot whose findings the recipes follow, and of the runs that
            learning rates are chosen by.
        fresh_seed, fresh_seeds: the first seed, and how many, of the race between those that another race has chosen.
        followed: seeds whose controls and recipes are sampled at every evaluation; all others at the last.
        batch, every, count, nfe: samples of the frozen batch, steps between its records, samples of an evaluation and network evaluations a
            sample.
        data_dir: folder with the files of published sets; no row depends on where they lie.
    """

    data: str
    held_out: int
    base: TrainingSettings
    seeds: int
    pilot_steps: int
    images: int | None = None
    horizons: tuple[float, ...] = (0.3, 0.45, 0.5, 1.0)
    length: float = 0.5
    targets: tuple[float, ...] = TARGETS
    target_seed: int = 1000
    pilot_seed: int = 2000
    rate_seed: int = 3000
    fresh_seed: int = 4000
    fresh_seeds: int = 5
    batch: int = 512
    every: int = 25
    count: int = 1000
    nfe: int = 20
    followed: int = 1
    data_dir: Path | None = None

    @property
    def pilot(self) -> TrainingSettings:
        """The settings of the pilot whose findings recipes follow."""
        return self.base.replace(steps=self.pilot_steps, seed=self.pilot_seed)

    @property
    def target_pilot(self) -> RaceRun:
        """The run that sets the targets of every race of the plan."""
        return target_pilot(self.base, self.target_seed)

    @property
    def fresh(self) -> range:
        """Seeds that nothing was chosen on."""
        return range(self.fresh_seed, self.fresh_seed + self.fresh_seeds)

    def sets(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        """The whole set, what is trained on, and what is held out."""
        whole = load_images(self.data, data_dir=self.data_dir)
        training = self.images or len(whole) - self.held_out
        if not 0 < training <= len(whole) - self.held_out:
            raise UserError(
                f"{training} + {self.held_out} images cannot be cut from the {len(whole)} of {whole.name!r}."
            )
        images, held_out = whole.split(training, self.held_out, seed=0)
        return whole, images, held_out


def race_contestants(
    plan: RacePlan,
    contestant_set: str,
    found: Findings,
    foreign: Mapping[str, Recipe] | None = None,
    free: Recipe | None = None,
    rates: Mapping[str, float] | None = None,
    seconds: float = 0.0,
) -> list[Contestant]:
    """The contestants. Raises `UserError` for a set that does not exist, or recipes for one that has none.

    Args:
        found, foreign: of the standard ones.
        free, rates, seconds: of those without a pilot, see `pilot_free_contestants`.
    """
    check_contestant_set(contestant_set, foreign)
    if contestant_set == "centers":
        return center_contestants(plan.base)
    if contestant_set in FROM_IMAGES:
        assert free is not None
        return pilot_free_contestants(
            plan.base, free, rates or {}, horizons=plan.horizons, length=plan.length, seconds=seconds
        )
    options = {"pilot_steps": plan.pilot_steps, "horizons": plan.horizons, "length": plan.length, "foreign": foreign}
    return standard_contestants(plan.base, found, **options)  # type: ignore[arg-type]


def leaders(contestants: Sequence[Contestant], table: pd.DataFrame | None) -> list[Contestant]:
    """The recipe at its fastest length and the fastest control of each kind that a goal is set against, by a race's table.

    Before there has been one: the first of each kind.
    """
    if table is None:
        first = {each.role: each for each in reversed(contestants)}
        matched = next(each for each in contestants if each.entry == first["recipe"].matched)
        return [first["control"], first["annealed"], matched, first["recipe"]]
    recipe = table[(table["role"] == "recipe") & table["fastest"]]
    goals = recipe[recipe["against"].isin([AGAINST[role] for role in ("control", "annealed")] + [MATCHED])]
    names = {*goals["contestant"], *goals["control"]}
    return [each for each in contestants if each.name in names]


def free_recipe(plan: RacePlan, images: ImageSet) -> Recipe:
    """The recipe that needs no pilot, for the base of a plan."""
    return Recipe.from_images(images, settings=plan.base)


def check_contestant_set(contestant_set: str, foreign: Mapping[str, Recipe] | None) -> None:
    if contestant_set not in CONTESTANT_SETS:
        raise UserError(f"the contestants of a race are one of {', '.join(CONTESTANT_SETS)}, not {contestant_set!r}.")
    if contestant_set != "standard" and foreign:
        raise UserError(f"the {contestant_set} contestants race no recipes of others; give them to the standard ones.")


def watch_of(
    plan: RacePlan, whole: ImageSet, images: ImageSet, held_out: ImageSet, store: Store, device: torch.device
) -> Watch:
    classifier, sampler = set_classifier(whole, store), Sampler("dpm++2m", plan.nfe)
    return Watch(
        images, held_out, classifier, str(plan.base.schedule), plan.batch, plan.every, plan.count, sampler, device
    )
