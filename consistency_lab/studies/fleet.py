"""Many models of any kind, trained one after another, or side by side wherever an executor has its workers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_generative
from consistency_lab.errors import HeldError, UserError
from consistency_lab.loading import Model
from consistency_lab.model_kinds import kind_of
from consistency_lab.progress import current_board
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.training.lockstep import LockstepLoop, in_lockstep, lockstep_groups, train_together
from consistency_lab.training.processes import refuse_several
from consistency_lab.training.settings import LoopSettings, TrainingSettings
from consistency_lab.training.stopping import stop_between_steps
from consistency_lab.training.train import DIFFUSION_KIND

_logger = logging.getLogger(__name__)
_POLL = 2.0  # seconds between two tries at a run that another process holds


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
        store: where runs are stored, or its root; a stopped fleet resumes. All workers see it: a folder, or a URL (`Store`).
        device: of every job; of ``"cuda"`` each local worker takes a GPU of its own while there are enough.
        workers, executor, address, gpus_per_worker: where the jobs are done, see `executor_of`. Results depend on the threads of a run by
            rounding alone.
        lockstep: models of one architecture that are trained at once, as `in_lockstep` has it. It is part of their specs.
        say: is told when a job is done, and when it lost its worker.

    Raises:
        UserError: fewer than one worker, an executor or settings that do not exist.
    """

    def __init__(
        self,
        images: ImageSet,
        jobs: Mapping[str, LoopSettings],
        store: Store | str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        workers: int | None = None,
        executor: str | Executor = "local",
        address: str | None = None,
        gpus_per_worker: float | None = None,
        lockstep: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ):
        refuse_several("many models are trained")
        self.executor = executor_of(executor, workers, address, gpus_per_worker)
        if not isinstance(jobs, Mapping):
            raise UserError(f"jobs are a dict of name -> settings, not a {type(jobs).__name__}.")
        store = store if isinstance(store, Store) else Store(store)
        store.check()
        check_set(images)
        self.images, self.store, self.say, self.device = images, store, say, torch.device(device)
        self.jobs = in_lockstep(jobs, images.shape, self.device, lockstep)
        self.runs = fleet_runs(images, self.jobs, store, self.device)
        if board := current_board():
            for name, settings in self.jobs.items():
                board.plan(name, settings.steps, done=self.runs[name].done)
        self._loaded: dict[str, Model] = {}

    def family(self, name: str, members: Sequence[str]) -> Family:
        """The jobs of those names as a family; nothing is trained yet."""
        runs, kind = [self.runs[member] for member in members], kind_of(self.jobs[members[0]])
        identities = tuple(run.hash[:12] for run in runs)
        return Family(name, identities, kind.noise_shape(runs[0].spec), kind.name, lambda: self.models(members))

    def models(self, names: Sequence[str]) -> list[Model]:
        """The models of those jobs, trained if the store does not have them. Raises `UserError` for what training refuses."""
        for name in names:
            self._look_again(name)
        missing = [name for name in names if not self.runs[name].done]
        # Jobs of one spec are one model, whatever they are called.
        self._train(list({self.runs[name].hash: name for name in reversed(missing)}.values())[::-1])
        for name in missing:
            self._look_again(name)
        for name in names:
            if name not in self._loaded:
                self._loaded[name] = kind_of(self.jobs[name]).load(self.runs[name], device=self.device, name=name)
        return [self._loaded[name] for name in names]

    def _look_again(self, name: str) -> None:
        """Find a job's run anew: its spec may have been trained under another name since."""
        known = self.runs[name]
        if not known.done:
            self.runs[name] = self.store.run(known.kind, name, known.spec)

    def _train(self, missing: Sequence[str]) -> None:
        jobs = {name: Job(self.jobs[name], self.runs[name]) for name in missing}
        train_jobs(self.executor, self.images, jobs, self.store, self.device, self.say)


class Job(NamedTuple):
    """A model that is to be trained: its settings, its run, and what training takes beside these."""

    settings: LoopSettings
    run: Run
    options: Mapping[str, Any] = MappingProxyType({})


def train_jobs(
    executor: Executor,
    images: ImageSet,
    jobs: Mapping[str, Job],
    store: Store,
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    """Train models wherever the executor does it, those in one lock-step as one piece of work.

    Raises:
        UserError: as `Executor.run`, and for a store that workers do not see.
    """
    groups = lockstep_groups({name: job.settings for name, job in jobs.items() if not job.options})
    alone = [name for name in jobs if not any(name in group for group in groups)]
    parts = {", ".join(group): group for group in groups}
    together = {label: ({name: jobs[name].settings for name in group},) for label, group in parts.items()}
    single = {name: (name, jobs[name].settings, dict(jobs[name].options)) for name in alone}
    pieces: tuple[tuple[Callable[..., None], Mapping[str, Sequence[Any]]], ...] = (
        (train_group, together),
        (train_job, single),
    )
    board = current_board()
    if board:
        for name, job in jobs.items():
            board.plan(name, job.settings.steps)
    for function, given in pieces:
        with closing(executor.run(function, given, (images.to("cpu"), store.address), device, say)) as done:
            for label, _ in done:
                for name in parts.get(label, [label]):
                    run = jobs[name].run
                    # Found anew: what has the same spec may lie there under another name.
                    if not run.done and not store.run(run.kind, name, run.spec).done:
                        raise UserError(
                            f"{name} was trained where {store.address} is another place; name a folder that all machines see, or a URL."
                        )
                    if board:
                        board.end(name)
                    say(f"trained {name}")


def train_fleet(
    images: ImageSet, jobs: Mapping[str, LoopSettings], store: Store | str | os.PathLike[str], **options: Any
) -> dict[str, Model]:
    """Train every job that the store does not have, and load them all: name -> model. Arguments and errors as for `Fleet`."""
    fleet = Fleet(images, jobs, store, **options)
    return dict(zip(jobs, fleet.models(list(jobs)), strict=True))


def train_job(
    images: ImageSet, address: str, name: str, settings: LoopSettings, options: Mapping[str, Any], device: torch.device
) -> None:
    """Train one model in the store of that address, unless it is there; what a worker does. A process that holds the run is waited for."""
    told = False
    while True:
        try:
            store = Store(address)
            kind_of(settings).train(
                images, name=name, settings=settings, store=store, device=device, progress=False, **options
            )
            return
        except HeldError as error:  # held by a worker that was taken for dead, or by another study of the same models
            if not told:
                _logger.warning("%s Waiting for it.", error)
            told = True
            time.sleep(_POLL)


def train_group(images: ImageSet, address: str, jobs: Mapping[str, TrainingSettings], device: torch.device) -> None:
    """Train models in lock-step in the store of that address, those that are not there; what a worker does.

    A run that another process holds is waited for, and then trained in its place by itself, to the same bits.
    """
    store = Store(address)
    specs = {name: DIFFUSION_KIND.spec(images, settings, device) for name, settings in jobs.items()}
    missing = [name for name, spec in specs.items() if not store.run(DIFFUSION_KIND.name, name, spec).done]
    if not missing:
        return
    modules = [DIFFUSION_KIND.build(specs[name]).to(device) for name in missing]
    loops = [
        cast(LockstepLoop, DIFFUSION_KIND.loop(module, images, jobs[name], device))
        for name, module in zip(missing, modules, strict=True)
    ]
    names = {id(loop): name for loop, name in zip(loops, missing, strict=True)}

    def steps(loop: LockstepLoop, check: Callable[[], None]) -> Generator[None, None, Run]:
        name = names[id(loop)]
        return DIFFUSION_KIND.steps(store, name, specs[name], loop, check)

    try:
        with stop_between_steps() as check:
            for _ in train_together(loops, steps, check):
                pass
    except HeldError:
        for name, settings in jobs.items():
            train_job(images, address, name, settings, {}, device)
