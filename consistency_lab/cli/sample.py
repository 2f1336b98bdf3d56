"""The command `sample`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from consistency_lab.cli.common import OfModels, find, load_models, parse_numbers
from consistency_lab.errors import UserError


@dataclass(frozen=True)
class Sample(OfModels):
    """Make images with a model, from shared noise.

    Example: consistency-lab sample unet-s0 --count 64 --out samples.png
    """

    model: tyro.conf.Positional[str] = ""
    """name of a run in the store, a run folder, diffusers:DIR, or torchscript:FILE?schedule=...&..."""
    store: Path = Path("runs")
    """where the name is looked up"""
    seed: int = 0
    """seed of the shared noise: image i is a function of it and of i alone"""
    count: int = 64
    """images 0 ... count - 1"""
    sampler: str = "ddim(steps=50)"
    """ddim, heun, dpm++2m or ancestral, with its options; for diffusion models"""
    labels: str | None = None
    """labels that a conditional model is asked for in turn, such as 0-9 or 3,5; by default all that it knows"""
    guidance: float | None = None
    """scale of classifier-free guidance, for a class-conditional model"""
    out: Path = Path("samples.png")
    """samples.png: all on one sheet; samples.npz: the numbers in [-1, 1]; a name without ending: a folder of PNGs"""

    def run(self) -> None:
        from consistency_lab.choices import whole
        from consistency_lab.diffusion.model import DiffusionModel, images_of
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.plots.samples import write_samples

        if not self.model:
            raise UserError("name a model, for example: consistency-lab sample unet-s0")
        count, sampler = whole("--count", self.count, least=1), Sampler.parse(self.sampler)
        labels = None if self.labels is None else parse_numbers(self.labels, "labels")
        found = find([self.model], self.store)[0]
        if self.dry_run:
            self.say({"model": found, "images": count, "out": str(self.out)})
            return
        if self.out.exists() and not self.force:
            raise UserError(f"{self.out} is there already; choose another --out, or --force to write over it.")
        (model,) = load_models([self.model], self.store, self.device)
        noise = SharedNoise(self.seed)
        if isinstance(model, DiffusionModel):
            images = _guided(model, self.guidance, labels).generate(noise, range(count), sampler, labels)
        elif self.guidance is not None or labels is not None:
            raise UserError(f"{model.name!r} knows no labels; leave --labels and --guidance out.")
        else:
            images = images_of(model, noise, range(count))
        write_samples(images, self.out)
        print(f"{count} images of {model.name}: {self.out}")


def _guided(model: Any, scale: float | None, labels: list[int] | None) -> Any:
    """The model with guidance where that is asked for, if it knows the labels."""
    if strange := [label for label in labels or [] if label >= model.classes]:
        known = f"knows the labels 0 to {model.classes - 1}" if model.classes else "knows no labels"
        raise UserError(f"the label {strange[0]} was asked for, and {model.name!r} {known}.")
    return model if scale is None else model.guided(scale)
