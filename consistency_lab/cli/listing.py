"""The commands `status`, `list` and `export`: what there is, and one of it for others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from consistency_lab.choices import printable
from consistency_lab.cli.common import load_models
from consistency_lab.cli.names import names_at
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    from consistency_lab.store.run import Run


@dataclass(frozen=True)
class Status:
    """List the runs of a store, with the data and the settings that are not at their defaults.

    Example: consistency-lab status --store demo/runs
    """

    store: Path = Path("runs")
    """where runs are kept"""

    def run(self) -> None:
        from consistency_lab.store.runs import Store

        if self.store.exists() and not self.store.is_dir():
            raise UserError(f"{self.store} is a file; name the folder that runs are stored in.")
        store = Store(self.store)
        runs = store.runs()
        if not runs:
            print(f"no runs in {self.store}")
        for run in runs:
            data = run.spec.get("data")  # the facts of a set; of a classifier, whose name says which, a fingerprint
            name = data.get("name", "") if isinstance(data, dict) else ""
            said = ", ".join([str(name), *_changed(run)]).strip(", ")
            line = f"{run.state:<10}  {run.kind:<8}  {printable(run.name):<24}  {run.folder.name}  {printable(said)}"
            print(line.rstrip())
        if aside := store.set_aside():
            print(
                f"{len(aside)} set aside in {aside[0].parent}, which nothing reads: {', '.join(path.name for path in aside)}"
            )


def _changed(run: Run) -> list[str]:
    """The settings of a run that are not at their defaults; none for a kind that has no settings."""
    from consistency_lab.contrast.settings import GANSettings, VAESettings
    from consistency_lab.training.describing import changed_settings
    from consistency_lab.training.settings import TrainingSettings

    kinds = {"model": TrainingSettings, "gan": GANSettings, "vae": VAESettings}
    if run.kind not in kinds or "settings" not in run.spec:
        return []
    standard = kinds[run.kind]()
    said = changed_settings(
        run.spec["settings"], standard, {key: names_at(home) for key, home in standard.homes().items()}
    )
    more = {"start": ("start", "steps"), "lr_scheduler": ("lr_scheduler", "name"), "stopped": ("stopped",)}
    return [*said, *(f"{key}={reduce(getitem, path, run.spec)}" for key, path in more.items() if key in run.spec)]


LISTS = {
    "networks": "networks.registry:NETWORKS",
    "generators": "contrast.networks:GENERATORS",
    "discriminators": "contrast.networks:DISCRIMINATORS",
    "autoencoders": "contrast.networks:AUTOENCODERS",
    "datasets": "data.sources:DATASETS",
    "metrics": "metrics.distances:METRICS",
    "samplers": "diffusion.sampling:SAMPLERS",
    "schedules": "diffusion.schedule:SCHEDULES",
    "predictions": "diffusion.parametrisation:PREDICTIONS",
    "timesteps": "training.timesteps:TIMESTEPS",
    "weightings": "training.weighting:WEIGHTINGS",
    "targets": "training.targets:TARGETS",
    "momentum": "training.momentum:MOMENTUM_RULES",
    "optimizers": "training.optimizers:OPTIMIZERS",
    "zoo": "zoo:ZOO",
}


@dataclass(frozen=True)
class List:
    """List what can be chosen by name, with its options.

    Example: consistency-lab list networks "unet*"
    """

    what: tyro.conf.Positional[Literal[tuple(LISTS)]] = "networks"  # type: ignore[valid-type]
    """what to list"""
    pattern: tyro.conf.Positional[str] = "*"
    """shell pattern that names must match"""

    def run(self) -> None:
        registry = names_at(LISTS[self.what])
        names = registry.names(self.pattern)
        if not names:
            raise UserError(f"no {self.what} match {self.pattern!r}; there are {', '.join(registry.names())}.")
        for entry in names:
            print(registry.describe(entry))


@dataclass(frozen=True)
class Export:
    """Write a trained model in the layout of diffusers.

    Example: consistency-lab export unet-s0 --out unet-for-diffusers
    """

    model: tyro.conf.Positional[str] = ""
    """name of a run in the store, or a run folder"""
    store: Path = Path("runs")
    """where names are looked up"""
    out: Path = Path("exported")
    """folder to make; it must not exist or be empty"""

    def run(self) -> None:
        from consistency_lab.diffusion.model import DiffusionModel
        from consistency_lab.interop.export import export_diffusers

        (model,) = load_models([self.model], self.store, "cpu")
        if not isinstance(model, DiffusionModel):
            raise UserError(f"{model.name!r} is no diffusion model; diffusers has a layout for those alone.")
        print(export_diffusers(model, self.out))
