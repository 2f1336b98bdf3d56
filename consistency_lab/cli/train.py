"""The commands `train`, `train-gan` and `train-vae`: one kind of settings each, all else alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from consistency_lab.cli.common import Common, parse_numbers, print_json
from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.training.settings import LoopSettings, TrainingSettings


@dataclass(frozen=True)
class Training(Common):
    """Train one model, or one per seed, of the kind that the settings are for."""

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
    """several models: 0-3,7"""
    out: Path = Path("runs")
    """the store"""

    def run(self) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.devices import resolve_device
        from consistency_lab.loading import kind_of
        from consistency_lab.store.runs import Store

        kind = kind_of(self.settings)
        seeds = [self.settings.seed] if self.seeds is None else parse_numbers(self.seeds, "seeds")
        jobs = [self.settings.replace(seed=seed) for seed in seeds]
        names = [
            f"{self.name}-s{job.seed}" if self.name and len(jobs) > 1 else self.name or kind.model_name(job)
            for job in jobs
        ]
        images, store = load_images(self.data, data_dir=self.data_dir), Store(self.out)
        store.check()
        if self.dry_run:
            place = resolve_device(self.device)
            for name, job in zip(names, jobs, strict=True):
                run = store.run(kind.name, name, kind.spec(images, job, place))
                parameters = sum(p.numel() for p in kind.build(run.spec).parameters())
                print_json(
                    {"name": name, "folder": str(run.folder), "done": run.done, "parameters": parameters, **run.spec}
                )
            return
        for name, job in zip(names, jobs, strict=True):
            options: dict[str, Any] = {"device": self.device, "force": self.force, "progress": self.progress}
            model = kind.train(images, settings=job, name=name, store=store, **options)
            print(f"{model.name}: {model.folder}")


@dataclass(frozen=True)
class Train(Training):
    """Train one diffusion model, or one per seed.

    Example: consistency-lab train --network mlp --steps 500 --seeds 0-3
    """

    settings: TrainingSettings = field(default_factory=TrainingSettings)
    recipe: Path | None = None
    """a recipe (JSON of `consistency-lab recipe`), which overrides the settings that it derives"""

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
