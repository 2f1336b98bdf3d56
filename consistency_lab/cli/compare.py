"""The command `compare`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from consistency_lab.cli.common import (
    Common,
    find,
    load_models,
    parse_numbers,
    print_headline,
    print_json,
    training_images,
    with_weights,
    write_results,
)
from consistency_lab.errors import UserError


@dataclass(frozen=True)
class Compare(Common):
    """Compare trained models under shared noise, against the null and the closed-form references.

    Example: consistency-lab compare unet-s0 unet-s1 --out comparison
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of runs in the store, run folders, diffusers:DIR, torchscript:FILE?schedule=...&..."""
    store: Path = Path("runs")
    """where names are looked up"""
    seed: int = 0
    """seed of the shared noise"""
    count: int = 256
    """samples"""
    metrics: tuple[str, ...] = ("mse", "psnr", "cosine")
    """distances"""
    lpips_weights: Path | None = None
    """file with the trunk's weights, for metrics such as lpips-squeeze"""
    sampler: str = "ddim(steps=50)"
    """ddim, heun, dpm++2m or ancestral, with options; ddim(clip=True) clamps each estimate of the image to [-1, 1]: for networks whose
    samples explode without; it makes models more alike"""
    guidance: float | None = None
    """scale of classifier-free guidance, for the class-conditional models among them"""
    labels: str | None = None
    """labels that conditional models are asked for in turn, such as 0-9 or 3,5; by default all that they know"""
    data: str | None = None
    """training set, for the references and the nearest training images"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    out: Path = Path("comparison")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.similarity.compare import compare
        from consistency_lab.store.atomic import ensure_writable

        sampler = Sampler.parse(self.sampler)
        if not self.metrics:
            raise UserError("--metrics needs at least one name, for example mse; see `consistency-lab list metrics`.")
        found = find(self.models, self.store)
        if self.dry_run:
            evaluations = len(found) * self.count * (sampler.evaluations() + sampler.evaluations(2 * sampler.steps))
            print_json(
                {
                    "models": found,
                    "samples": self.count,
                    "network_evaluations": evaluations,
                    "out": str(self.out),
                }
            )
            return
        ensure_writable(self.out)
        models = load_models(self.models, self.store, self.device)
        if self.guidance is not None:
            models = _guided(models, self.guidance)
        images = training_images(self.data, self.data_dir)
        metrics = with_weights(self.metrics, self.lpips_weights)
        result = compare(
            models,
            SharedNoise(self.seed),
            count=self.count,
            metrics=metrics,
            sampler=sampler,
            images=images,
            labels=None if self.labels is None else parse_numbers(self.labels, "labels"),
        )
        write_results({"comparison": result}, self.out, "Comparison of " + ", ".join(model.name for model in models))
        print_headline(result)


def _guided(models: list[Any], scale: float) -> list[Any]:
    """The models with guidance where they have labels; those that have none are named."""
    labelled = [bool(getattr(model, "classes", 0)) for model in models]  # a GAN or VAE has none
    without = ", ".join(model.name for model, has in zip(models, labelled, strict=True) if not has)
    if not any(labelled):
        raise UserError(f"--guidance needs class-conditional models, and {without} know no labels; leave it out.")
    if without:
        print(f"consistency-lab: no guidance for {without}, trained without labels.", file=sys.stderr)
    return [model.guided(scale) if has else model for model, has in zip(models, labelled, strict=True)]
