"""The command `quality`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from consistency_lab.cli.common import (
    OfModels,
    claim_folder,
    find,
    load_models,
    print_table,
    training_images,
    write_results,
)
from consistency_lab.errors import UserError


@dataclass(frozen=True)
class Quality(OfModels):
    """How good are the images? Frechet distance (FID), kernel distance, precision and recall beside real images, and real beside real.

    Example: consistency-lab quality unet-s0 unet-s1 --data digits --count 500
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of runs in the store, run folders, diffusers:DIR, torchscript:FILE?schedule=...&..."""
    store: Path = Path("runs")
    """where names are looked up, and where a set's classifier is kept"""
    data: str = "digits"
    """real images to measure against"""
    training_data: str | None = None
    """training set, if that is another: the control and the closed-form references are made from it; else half of data is the control"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    features: Literal["classifier", "inception", "dinov2"] = "classifier"
    """whose features: a small classifier of the labels, trained once (of training-data where that is given); inception (FID and KID) and
    dinov2 through torch-fidelity"""
    weights: Path | None = None
    """inception: torch-fidelity's file of weights; dinov2: a folder laid out as torch's hub folder. Nothing is downloaded"""
    seed: int = 1
    """seed of the shared noise"""
    count: int = 1000
    """samples of each model"""
    sampler: str = "ddim(steps=50)"
    """ddim, heun, dpm++2m or ancestral, with its options; for diffusion models"""
    out: Path = Path("quality")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.plots.quality import quality_frame
        from consistency_lab.similarity.quality import measure_quality

        if not self.models:
            raise UserError("name a model or more, for example: consistency-lab quality unet-s0 --data digits")
        if self.count < 2:
            raise UserError(f"--count must be 2 or more, not {self.count}.")
        if self.weights is not None and self.features == "classifier":
            raise UserError("--weights belongs to --features inception and --features dinov2.")
        found, sampler = find(self.models, self.store), Sampler.parse(self.sampler)
        if self.dry_run:
            evaluations = len(found) * self.count * sampler.evaluations()
            self.say({"models": found, "samples": self.count, "network_evaluations": evaluations, "out": str(self.out)})
            return
        claim_folder(self.out, self.force)
        real, training = (training_images(data, self.data_dir) for data in (self.data, self.training_data))
        extractor = self._extractor(real if training is None else training)
        models = load_models(self.models, self.store, self.device)
        noise = SharedNoise(self.seed)
        result = measure_quality(
            models, real, extractor, training=training, noise=noise, count=self.count, sampler=sampler
        )
        write_results({"quality": result}, self.out, "Quality of " + ", ".join(model.name for model in models))
        table = quality_frame(result)
        first = table[table["measure"] == table["measure"].iloc[0]]
        print(first["measure"].iloc[0])
        print_table(result, first[["row", "role", "samples", "value", "low", "high", "bias"]])

    def _extractor(self, images: Any) -> Any:
        from consistency_lab.devices import resolve_device
        from consistency_lab.metrics.dino import DinoFeatures
        from consistency_lab.metrics.inception import InceptionFeatures
        from consistency_lab.similarity.quality import set_classifier
        from consistency_lab.store.runs import Store

        if self.features == "classifier":
            return set_classifier(images, Store(self.store))
        kind: Any = InceptionFeatures if self.features == "inception" else DinoFeatures
        return kind(self.weights, device=resolve_device(self.device))
