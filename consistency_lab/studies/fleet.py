"""Many models of any kind, trained one after another or in parallel in separate processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_generative
from consistency_lab.errors import UserError
from consistency_lab.loading import Model, kind_of
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.processes import refuse_several
from consistency_lab.training.settings import LoopSettings


def fleet_runs(
    images: ImageSet, jobs: Mapping[str, LoopSettings], store: Store, device: torch.device
) -> dict[str, Run]:
    """The run of each job in the store, finished or not. Raises `UserError` for what is no image set, or settings that do not exist."""
    check_set(images)
    for name, settings in jobs.items():
        if not isinstance(settings, LoopSettings):
            raise UserError(
                f"the job {name!r} is a {type(settings).__name__}; give settings, such as TrainingSettings(steps=1000)."
            )
    kinds = {name: kind_of(settings) for name, settings in jobs.items()}
    return {
        name: store.run(kinds[name].name, name, kinds[name].spec(images, settings, device))
        for name, settings in jobs.items()
    }


@dataclass(frozen=True)
class Family:
    """Models that differ in their seed, known before they are trained.

    Attributes:
        name: how tables call it.
        identities: what tells each model apart from every other: the hash of its run.
        noise_shape: of what they start from.
        kind: ``"model"`` for diffusion models, ``"gan"``, ``"vae"``, or another's own.
        models: gives the models; trains them the first time.
    """

    name: str
    identities: tuple[str, ...]
    noise_shape: tuple[int, ...]
    kind: str
    models: Callable[[], Sequence[GenerativeModel]]

    @classmethod
    def of(cls, name: str, models: Sequence[GenerativeModel]) -> Family:
        """The family of models that are there already; one without a run is told apart by its name.

        Raises:
            UserError: what is no model, or none.
        """
        if isinstance(models, str) or not len(models):
            raise UserError(f"a family is a list of models; {name!r} was given {models!r}.")
        for model in models:
            check_generative(model)
        identities = tuple(str(model.facts.get("run", model.name)) for model in models)
        diffusion = all(isinstance(model, DiffusionModel) for model in models)
        kind = "model" if diffusion else str(models[0].facts.get("kind", "other"))
        return cls(name, identities, tuple(models[0].noise_shape), kind, lambda: models)

    @property
    def diffusion(self) -> bool:
        """Whether they are diffusion models, which have a way from noise to data."""
        return self.kind == "model"


def check_families(families: Sequence[object]) -> None:
    """Raise `UserError` for anything but families, and say how to make one."""
    for family in families:
        if not isinstance(family, Family):
            raise UserError(
                f"a {type(family).__name__} is no family; give what Family.of(name, models) or Fleet.family returns."
            )


class Fleet:
    """Jobs and their runs. A model is trained when it is first asked for, so that a study whose rows are finished trains nothing.

    Args:
        images: the training set of every job.
        jobs: name -> settings, whose type says what is trained: `TrainingSettings`, `GANSettings` or `VAESettings`.
        store: where runs are stored; a stopped fleet resumes.
        device: of every job.
        workers: processes; each gets an equal share of the CPU's threads. Results depend on the threads of a run by rounding alone.
        say: is told when a job is done.

    Raises:
        UserError: fewer than one worker, or settings that do not exist.
    """

    def __init__(
        self,
        images: ImageSet,
        jobs: Mapping[str, LoopSettings],
        store: Store,
        *,
        device: str | torch.device = "cpu",
        workers: int = 1,
        say: Callable[[str], None] = lambda line: None,
    ):
        if workers < 1:
            raise UserError(f"a fleet needs at least one worker, not {workers}.")
        refuse_several("many models are trained")
        store.check()
        self.images, self.jobs, self.store, self.workers, self.say = images, jobs, store, workers, say
        self.device = torch.device(device)
        self.runs = fleet_runs(images, jobs, store, self.device)
        self._loaded: dict[str, Model] = {}

    def family(self, name: str, members: Sequence[str]) -> Family:
        """The jobs of those names as a family; nothing is trained yet."""
        runs, kind = [self.runs[member] for member in members], kind_of(self.jobs[members[0]])
        identities = tuple(run.hash[:12] for run in runs)
        return Family(name, identities, kind.noise_shape(runs[0].spec), kind.name, lambda: self.models(members))

    def models(self, names: Sequence[str]) -> list[Model]:
        """The models of those jobs, trained if the store does not have them. Raises `UserError` for what training refuses."""
        self._train([name for name in names if not self.runs[name].done])
        for name in names:
            if name not in self._loaded:
                self._loaded[name] = kind_of(self.jobs[name]).load(self.runs[name], device=self.device, name=name)
        return [self._loaded[name] for name in names]

    def _train(self, missing: Sequence[str]) -> None:
        root, place = str(self.store.root), str(self.device)
        if self.workers == 1 or len(missing) < 2:
            for name in missing:
                self.say(f"trained {_train_one(self.images, name, self.jobs[name], root, place)}")
            return
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        # Forked children would share the locks of torch's thread pools; spawned ones begin clean.
        with ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            arguments = [(self.images, name, self.jobs[name], root, place, threads) for name in missing]
            for future in as_completed([pool.submit(_train_one, *each) for each in arguments]):
                self.say(f"trained {future.result()}")


def train_fleet(images: ImageSet, jobs: Mapping[str, LoopSettings], store: Store, **options: Any) -> dict[str, Model]:
    """Train every job that the store does not have, and load them all: name -> model. Arguments and errors as for `Fleet`."""
    fleet = Fleet(images, jobs, store, **options)
    return dict(zip(jobs, fleet.models(list(jobs)), strict=True))


def _train_one(
    images: ImageSet, name: str, settings: LoopSettings, root: str, device: str, threads: int | None = None
) -> str:
    if threads is not None:
        torch.set_num_threads(threads)
    kind_of(settings).train(images, name=name, settings=settings, store=root, device=device, progress=False)
    return name
