"""The race of a preset: data, classifier, pilot, recipes and field, and what it would cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.devices import measuring
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.landscape import probe_landscape
from consistency_lab.recipe import Recipe, shuffled
from consistency_lab.store.runs import Store
from consistency_lab.studies.cost import seconds_per_step
from consistency_lab.studies.quality import set_classifier
from consistency_lab.studies.race.contestants import Contestant
from consistency_lab.studies.race.field import center_field, standard_field
from consistency_lab.studies.race.race import TARGETS, Live, race
from consistency_lab.studies.race.running import Watch, evaluation_steps, run_spec_of
from consistency_lab.studies.rows import Rows
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import build_denoiser, train, training_spec

FIELDS = ("standard", "centers")
RECIPE, WEIGHTED = "recipe", "recipe, importance-weighted"
_TIMED = 64  # images of a timed forward pass


@dataclass(frozen=True)
class RacePlan:
    """A race on one data set.

    Attributes:
        data: the set, by name; its first random ``images`` are trained on (all that are left: None).
        held_out: images that no run sees: loss and features are of them.
        base: uniform times at a constant rate; every contestant is a change of it.
        seeds: how many, from 0.
        pilot_steps: how long the pilot of the findings is trained.
        horizons: lengths of run, as fractions of the base's steps, of entries that may choose theirs.
        targets: fractions of the target pilot's run.
        target_seed, pilot_seed: of the target pilot and of the pilot whose findings the recipes follow.
        batch, every, count, nfe: samples of the frozen batch, steps between its records, samples of an evaluation and network evaluations a
            sample.
    """

    data: str
    held_out: int
    base: TrainingSettings
    seeds: int
    pilot_steps: int
    images: int | None = None
    horizons: tuple[float, ...] = (0.25, 0.5, 1.0)
    targets: tuple[float, ...] = TARGETS
    target_seed: int = 1000
    pilot_seed: int = 2000
    batch: int = 512
    every: int = 25
    count: int = 1000
    nfe: int = 20

    def sets(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        """The whole set, what is trained on, and what is held out."""
        whole = load_images(self.data)
        training = self.images or len(whole) - self.held_out
        if not 0 < training <= len(whole) - self.held_out:
            raise UserError(
                f"{training} + {self.held_out} images cannot be cut from the {len(whole)} of {whole.name!r}."
            )
        images, held_out = whole.split(training, self.held_out, seed=0)
        return whole, images, held_out


class Findings(NamedTuple):
    """What recipes follow: results of one pilot."""

    difficulty: xr.Dataset
    landscape: xr.Dataset | None = None
    curvature: xr.Dataset | None = None

    def recipe(self, settings: TrainingSettings, **options: Any) -> Recipe:
        return Recipe.from_findings(
            self.difficulty, self.landscape, curvature=self.curvature, settings=settings, **options
        )


def findings(plan: RacePlan, images: ImageSet, store: Store, device: torch.device) -> Findings:
    """Of a short uniform run on the training images; run and results are kept in the store."""
    settings = plan.base.replace(steps=plan.pilot_steps, seed=plan.pilot_seed)
    pilot = train(images, name="race-pilot", settings=settings, store=store, device=device, progress=False)
    probes: dict[str, Callable[[], xr.Dataset]] = {
        "difficulty": lambda: probe_difficulty(pilot, images),
        "landscape": lambda: probe_landscape(pilot, images),
    }
    run = {"model": pilot.facts["run"], "data": images.fingerprint}
    found = {name: store.result("result", f"race-{name}", {**run, "result": name}, p) for name, p in probes.items()}
    return Findings(**found)


def race_field(
    plan: RacePlan, field: str, found: Findings, foreign: Mapping[str, Recipe] | None = None
) -> list[Contestant]:
    """The contestants. Raises `UserError` for a field that does not exist, or recipes for one that has none."""
    if field not in FIELDS:
        raise UserError(f"the field of a race is one of {', '.join(FIELDS)}, not {field!r}.")
    if field == "centers":
        if foreign:
            raise UserError("the ablation over centers races no recipes; give them to the standard field.")
        return center_field(plan.base)
    recipes = {RECIPE: found.recipe(plan.base), WEIGHTED: found.recipe(plan.base, weighting="importance")}
    other = found._replace(difficulty=shuffled(found.difficulty, 0)).recipe(plan.base)
    options = {"pilot_steps": plan.pilot_steps, "horizons": plan.horizons, "foreign": foreign}
    return standard_field(plan.base, recipes, other, **options)  # type: ignore[arg-type]


def run_race(
    plan: RacePlan,
    store: Store,
    rows: Rows,
    *,
    field: str = "standard",
    foreign: Mapping[str, Recipe] | None = None,
    device: torch.device | None = None,
    live: Live | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> xr.Dataset:
    """Everything of a preset's race; goes on from the rows.

    Args:
        plan: what to do; see `presets`.
        store: where classifier and pilot are kept.
        rows: where runs and evaluations are kept.
        field: ``"standard"``, or ``"centers"``: the paper's ablation over the center of CLTS.
        foreign: name -> recipe from findings on another set.
        device: the CPU by default.
        live: is given the race so far after every round.
        say: is told what happens.
    """
    place = device or torch.device("cpu")
    whole, images, held_out = plan.sets()
    say(
        f"{images.name}: {len(images)} images, {len(held_out)} held out; pilot of {plan.pilot_steps} steps and its findings"
    )
    contestants = race_field(plan, field, findings(plan, images, store, place), foreign)
    watch = _watch(plan, whole, images, held_out, store, place)
    options = {"seeds": range(plan.seeds), "target_seed": plan.target_seed, "targets": plan.targets}
    return race(contestants, watch, rows, **options, live=live, say=say)  # type: ignore[arg-type]


def race_dry_run(
    plan: RacePlan,
    store: Store,
    rows: Rows,
    *,
    field: str = "standard",
    foreign: Mapping[str, Recipe] | None = None,
    device: torch.device | None = None,
) -> dict[str, float]:
    """Seconds that each contestant would still take over all seeds, training and evaluations; 0 for what the rows have.

    Nothing is trained but a classifier that committed rows were made with and the store lacks. Without a pilot in the store the recipes
    are not known; uniform ones of the same cost stand in for them.
    """
    place = device or torch.device("cpu")
    whole, images, held_out = plan.sets()
    pilot = plan.base.replace(steps=plan.pilot_steps, seed=plan.pilot_seed)
    run = store.run("model", "race-pilot", training_spec(images, pilot, place))
    if run.done:
        found = findings(plan, images, store, place)
    else:
        t = (torch.arange(20) + 0.5).numpy() / 20
        flat = ((("units", "t", "sample")), torch.ones(1, 20, 1).numpy())
        difficulty = xr.Dataset({"error": flat}, {"units": ["eps"], "t": t}, {"kind": "difficulty"})
        found = Findings(difficulty, xr.Dataset(attrs={"kind": "landscape", "roughness": 0.0}))
    contestants = race_field(plan, field, found, foreign)
    # Rows are known by the classifier's facts among others; where there are rows there has been a classifier.
    watch = _watch(plan, whole, images, held_out, store, place) if len(rows) else None
    control = contestants[0]
    jobs = [("target pilot", control.settings, [plan.target_seed])]
    jobs += [(each.name, each.settings, list(range(plan.seeds))) for each in contestants]
    sampled = _seconds_to_evaluate(images, plan, place)
    per_step: dict[TrainingSettings, float] = {}
    cost = {} if run.done else {"pilot": seconds_per_step(images, pilot, place) * plan.pilot_steps}
    for name, settings, seeds in jobs:
        missing = sum(
            watch is None or rows.find(run_spec_of(watch, settings.replace(seed=seed))) is None for seed in seeds
        )
        if not missing:
            cost[name] = 0.0
            continue
        alike = settings.replace(steps=plan.base.steps, ema_half_life=plan.base.ema_half_life)
        if alike not in per_step:
            per_step[alike] = seconds_per_step(images, alike, place)
        each_run = per_step[alike] * settings.steps + len(evaluation_steps(settings.steps)) * sampled
        cost[name] = missing * each_run
    return cost


def _watch(
    plan: RacePlan, whole: ImageSet, images: ImageSet, held_out: ImageSet, store: Store, device: torch.device
) -> Watch:
    classifier, sampler = set_classifier(whole, store), Sampler("dpm++2m", plan.nfe)
    return Watch(images, held_out, classifier, plan.base.schedule, plan.batch, plan.every, plan.count, sampler, device)


def _seconds_to_evaluate(images: ImageSet, plan: RacePlan, device: torch.device) -> float:
    """Time to make the samples of one evaluation, from one forward pass after one that does not count."""
    denoiser = build_denoiser(training_spec(images, plan.base, device)).to(device).eval()
    x, t = torch.zeros(_TIMED, *images.shape, device=device), torch.full((_TIMED,), 0.5, device=device)
    taken = []
    with measuring(), torch.no_grad():
        for _ in range(2):
            start = time.perf_counter()
            float(denoiser(x, t).eps.sum())  # waits for an accelerator
            taken.append(time.perf_counter() - start)
    return taken[-1] * plan.nfe * plan.count / _TIMED
