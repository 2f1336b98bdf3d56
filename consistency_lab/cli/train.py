"""The commands `train`, `train-gan` and `train-vae`: one kind of settings each, all else alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from consistency_lab.choices import printable
from consistency_lab.cli.common import SideBySide, parse_numbers
from consistency_lab.cli.live import live
from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.errors import UserError
from consistency_lab.training.settings import LoopSettings, TrainingSettings

if TYPE_CHECKING:
    import torch

    from consistency_lab.data.imageset import ImageSet
    from consistency_lab.store.run import Run
    from consistency_lab.store.runs import Store
    from consistency_lab.studies.executors import Executor


@dataclass(frozen=True)
class Training(SideBySide):
    """Train one model, or one per seed, of the kind that the settings are for."""

    shared: ClassVar[bool] = True
    """several processes, of a launcher, may do it together"""
    settings: LoopSettings = field(default_factory=LoopSettings)
    config: Path | None = None
    """JSON file with training settings; options given here override it"""
    data: str = "digits"
    """training set"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    name: str | None = None
    """how tables call the model; by default after its network and seed: unet-s0, gan-dense-s0, vae-conv-s0"""
    seeds: str | None = None
    """of the model, such as 3, or of several, such as 0-3,7; by default that of the settings, or 0"""
    at_once: int | None = None
    """models that are trained in lock-step, as one; by default up to 16 of a small network on a GPU, and 1 elsewhere"""
    store: Path = Path("runs")
    """where models are kept"""

    def run(self) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.model_kinds import kind_of
        from consistency_lab.store.runs import Store
        from consistency_lab.training.group import shared_device
        from consistency_lab.training.lockstep import in_lockstep, lockstep_groups

        kind = kind_of(self.settings)
        seeds = [self.settings.seed] if self.seeds is None else parse_numbers(self.seeds, "seeds")
        jobs = [self.settings.replace(seed=seed) for seed in seeds]
        names = [
            f"{self.name}-s{job.seed}" if self.name and len(jobs) > 1 else self.name or self._default_name(job)
            for job in jobs
        ]
        images, store = load_images(self.data, data_dir=self.data_dir), Store(self.store)
        store.check()
        place, where = shared_device(self.device), self.where
        if not self._more():
            jobs = [*in_lockstep(dict(zip(names, jobs, strict=True)), images.shape, place, self.at_once).values()]
        together = bool(lockstep_groups(dict(zip(names, jobs, strict=True))))
        force, elsewhere = self.force, together or not where.here(len(jobs), place)
        runs: dict[str, Run] = {}
        if self.dry_run or elsewhere:
            more = self._more_spec()
            for name, job in zip(names, jobs, strict=True):
                runs[name] = store.run(kind.name, name, {**kind.spec(images, job, place), **more})
        if self.dry_run:
            models = []
            for name, run in runs.items():
                parameters = sum(p.numel() for p in kind.build(run.spec).parameters())
                known = {"name": name, "folder": str(run.folder), "done": run.done, "parameters": parameters}
                models.append({**known, **run.spec})
            self.say({"models": models})
            return
        if elsewhere:
            self._train_elsewhere(where, images, dict(zip(names, jobs, strict=True)), runs, store, place)
            force = False  # all are there; what follows reads them
        for name, job in zip(names, jobs, strict=True):
            options: dict[str, Any] = {"device": self.device, "force": force, "progress": self.progress}
            model = kind.train(images, settings=job, name=name, store=store, **options, **self._more())
            print(f"{printable(model.name)}: {model.folder}{self._known_as(model)}")

    def _train_elsewhere(
        self,
        where: Executor,
        images: ImageSet,
        jobs: Mapping[str, LoopSettings],
        runs: Mapping[str, Run],
        store: Store,
        device: torch.device,
    ) -> None:
        from consistency_lab.studies.fleet import Job, train_jobs

        if self.force:  # once: a job that loses its worker goes on
            for run in runs.values():
                run.set_aside()
        missing = {name: Job(jobs[name], run, self._more()) for name, run in runs.items() if not run.done}
        with live("Training", quiet=self.quiet) as say:
            train_jobs(where, images, missing, store, device, say)

    @staticmethod
    def _known_as(model: Any) -> str:
        from consistency_lab.store.run import Run

        stored = Run.open(model.folder).name
        return "" if stored == model.name else f" (trained already, as {stored!r}: the store knows it by that name)"

    def _default_name(self, job: LoopSettings) -> str:
        from consistency_lab.model_kinds import kind_of

        return kind_of(job).model_name(job)

    def _more(self) -> dict[str, Any]:
        """What training takes beside the settings."""
        return {}

    def _more_spec(self) -> dict[str, Any]:
        """What that adds to a spec."""
        return {}

    @classmethod
    def default(cls, given: Mapping[str, str | None]) -> Self:
        """The command before its own options are read: the settings of a file, where one is given."""
        config = given["config"]
        return cls() if config is None else cls(settings=cls().settings.read(config))


@dataclass(frozen=True)
class Train(Training):
    """Train one diffusion model, or one per seed.

    Example: consistency-lab train --network mlp --steps 500 --seeds 0-3
    """

    settings: TrainingSettings = field(default_factory=TrainingSettings)
    recipe: Path | None = None
    """a recipe (JSON of `consistency-lab recipe`), which overrides the settings that it derives"""
    start: str | None = None
    """go on from the weights of this model of the store, by its settings where none are given here; optimizer and average are fresh"""

    @classmethod
    def default(cls, given: Mapping[str, str | None]) -> Self:
        start, config = given["start"], given["config"]
        if start is None or config is not None:
            return super().default(given)
        from consistency_lab.store.runs import Store

        try:
            run = Store(given["store"] or cls().store).find(start, kind="model")
        except UserError:  # said when it runs: parsing needs no store
            return cls()
        return cls(settings=TrainingSettings.from_spec(run.spec["settings"]).with_one_seed())

    def _default_name(self, job: LoopSettings) -> str:
        from consistency_lab.training.starting import starting_run
        from consistency_lab.training.train import DIFFUSION_KIND, continued_name

        if self.start is None or not isinstance(job, TrainingSettings):
            return super()._default_name(job)
        run = starting_run(self.start, self.store, DIFFUSION_KIND.name)
        return continued_name(run.name, run.spec, job)

    def _more(self) -> dict[str, Any]:
        return {} if self.start is None else {"start": self.start}

    def _more_spec(self) -> dict[str, Any]:
        from consistency_lab.training.starting import start_spec, starting_run
        from consistency_lab.training.train import DIFFUSION_KIND, load_model

        if self.start is None:
            return {}
        return {
            "start": start_spec(load_model(starting_run(self.start, self.store, DIFFUSION_KIND.name), device="cpu"))
        }

    def run(self) -> None:
        if self.recipe is None:
            return super().run()
        from consistency_lab.recipe.recipe import Recipe

        settings = Recipe.load(self.recipe).apply(self.settings)
        return replace(self, settings=settings, recipe=None).run()


@dataclass(frozen=True)
class TrainGAN(Training):
    """Train one GAN, or one per seed, to be compared with the diffusion models of the same images.

    Example: consistency-lab train-gan --generator "image(network='unet')" --seeds 0-1
    """

    settings: GANSettings = field(default_factory=GANSettings)


@dataclass(frozen=True)
class TrainVAE(Training):
    """Train one VAE, or one per seed, to be compared with the diffusion models of the same images.

    Example: consistency-lab train-vae --beta 0.2 --seeds 0-1
    """

    settings: VAESettings = field(default_factory=VAESettings)
