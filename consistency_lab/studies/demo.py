"""The main job in one run: train models that differ in seed and architecture, compare them, ask why, and try what follows.

Everything is kept in a store: a second run reads what the first one made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.landscape import probe_landscape
from consistency_lab.recipe import Recipe
from consistency_lab.similarity.compare import compare
from consistency_lab.store.runs import Store
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import train, training_curves
from consistency_lab.zoo import open_zoo


@dataclass(frozen=True)
class DemoPlan:
    """What the demo does.

    Attributes:
        data: the data set, by name.
        held_out: images that no model is trained on; difficulty and landscape are measured on them.
        runs: the models: name -> settings. The first two share an architecture and differ in seed.
        pilot: the model whose findings give the recipe, and which is trained again with it.
        count: samples of the comparison.
        sampler: of the comparison.
    """

    data: str
    held_out: int
    runs: dict[str, TrainingSettings]
    pilot: str
    count: int = 256
    sampler: dict[str, Any] = field(default_factory=dict)


class DemoResults(NamedTuple):
    """Models by name, and results by the name of the file that each belongs in."""

    models: dict[str, DiffusionModel]
    results: dict[str, xr.Dataset]
    recipe: Recipe


@dataclass(frozen=True)
class QuickPlan:
    """What the quick demo does, which trains nothing.

    Attributes:
        families: models of the zoo that are compared with each other: name of the result -> their names.
        data: the set that they were trained on. The closed-form references are made of it where its files are here.
        metrics: of every comparison.
        count: samples of a comparison.
        sampler: of the diffusion models.
    """

    families: dict[str, tuple[str, ...]]
    data: str
    metrics: tuple[str, ...]
    count: int
    sampler: dict[str, Any]


def run_quick(
    plan: QuickPlan,
    *,
    seed: int = 0,
    data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, xr.Dataset]:
    """Compare models that ship with the package: a result for each family of the plan.

    Args:
        plan: what to do; see `presets`.
        seed: of the shared noise.
        data_dir: where the files of published sets lie; nothing is downloaded.
        device: by default a GPU where there is one.
        say: is told what happens.
    """
    try:
        images = load_images(plan.data, data_dir=data_dir, download=False)
    except UserError:
        images = None
        say(f"{plan.data} is not here, so no closed-form references are drawn beside the models")
    results = {}
    for name, members in plan.families.items():
        say(f"comparing {', '.join(members)}")
        models = [open_zoo(member, device=device) for member in members]
        noise, sampler = SharedNoise(seed), Sampler(**plan.sampler)
        how: dict[str, Any] = {
            "count": plan.count,
            "metrics": plan.metrics,
            "sampler": sampler,
            "images": images,
            "ceiling": False,
        }
        results[name] = compare(models, noise, **how)
    return results


def demo_data(plan: DemoPlan) -> tuple[ImageSet, ImageSet]:
    """The training set and the held-out images of a plan."""
    images = load_images(plan.data)
    if not 0 < plan.held_out < len(images):
        raise UserError(f"{plan.held_out} images cannot be held out of the {len(images)} of {images.name!r}.")
    train_part, held_out = images.split(len(images) - plan.held_out, plan.held_out, seed=0)
    return train_part, held_out


def run_demo(
    plan: DemoPlan,
    store: Store,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    force: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> DemoResults:
    """Train, compare, probe, derive a recipe, train with it.

    Args:
        plan: what to do; see `presets`.
        store: where models and results are kept.
        seed: of the shared noise; the models' seeds are in the plan.
        device: by default a GPU where there is one.
        force: do everything again.
        progress: show progress bars; by default on a terminal only.
        say: is told what happens.

    Raises:
        StoreError: the store cannot be written.
    """
    store.check()
    images, held_out = demo_data(plan)
    how: dict[str, Any] = {"store": store, "device": device, "force": force, "progress": progress}
    models = {}
    for name, settings in plan.runs.items():
        say(f"training {name}: {settings.steps} steps of {settings.batch} images")
        run = partial(train, images, name=name, settings=settings, **how)
        models[name] = _watched(run, held_out) if name == plan.pilot else run()
    pilot = models[plan.pilot]
    facts = {
        "plan": {**vars(plan), "runs": {name: settings.texts for name, settings in plan.runs.items()}},
        "seed": seed,
        "device": pilot.device.type,
        "threads": torch.get_num_threads(),
    }
    results: dict[str, xr.Dataset] = {}

    def keep(name: str, models: Sequence[DiffusionModel], compute: Callable[[], xr.Dataset]) -> None:
        """The result of that name, by what it is computed from: the plan, and the runs of the models."""
        spec = {**facts, "result": name, "models": [model.facts["run"] for model in models]}
        results[name] = store.result("result", name, spec, compute, force=force)

    say("comparing all pairs under shared noise")
    family = list(models.values())
    sampler = Sampler(**plan.sampler)
    noise = SharedNoise(seed)
    keep("comparison", family, lambda: compare(family, noise, count=plan.count, sampler=sampler, images=images))
    say("probing difficulty and landscape")
    for model in (family[0], pilot) if family[0] is not pilot else (pilot,):
        difficulty = partial(probe_difficulty, model, held_out, training_images=images)
        keep(f"difficulty-{model.name}", [model], difficulty)
        keep(f"landscape-{model.name}", [model], partial(probe_landscape, model, held_out))
    keep("landscape-between", family[:2], lambda: probe_landscape(family[0], held_out, towards=family[1]))
    recipe = Recipe.from_findings(results[f"difficulty-{plan.pilot}"], results[f"landscape-{plan.pilot}"])
    results["recipe"] = recipe.to_dataset(f"recipe from {plan.pilot}")
    say(f"training {plan.pilot} with the recipe")
    run = partial(train, images, name=f"{plan.pilot}-recipe", settings=plan.runs[plan.pilot], recipe=recipe, **how)
    taught = _watched(run, held_out)
    keep(f"difficulty-{taught.name}", [taught], lambda: probe_difficulty(taught, held_out, training_images=images))
    models[taught.name] = taught
    results["training"] = training_curves(list(models.values()))
    return DemoResults(models, results, recipe)


def _watched(run: Callable[..., DiffusionModel], held_out: ImageSet) -> DiffusionModel:
    """The model with its losses on held-out images in its log; without them where the store has a run that was not asked for any."""
    try:
        return run(validation=held_out, validate_every=50)
    except UserError:
        return run()
