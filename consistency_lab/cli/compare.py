"""The command `compare`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from consistency_lab.cli.common import (
    OfModels,
    claim_folder,
    find,
    load_models,
    parse_numbers,
    print_headline,
    print_json,
    print_table,
    runs_itself,
    training_images,
    with_weights,
    write_results,
)
from consistency_lab.errors import UserError

_LEVELS = 13  # of a comparison at which states are asked about; the last of its 14 is the image


@dataclass(frozen=True)
class Compare(OfModels):
    """Compare trained models under shared noise, or folders of images, against the null and the closed-form references.

    Example: consistency-lab compare unet-s0 unet-s1 --out comparison
    Example: consistency-lab compare images:ref/ images:cand/ --self images:self/ --metrics mse ssim
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of runs in the store, run folders, diffusers:DIR, torchscript:FILE?schedule=...&..., images:DIR"""
    store: Path = Path("runs")
    """where names are looked up"""
    seed: int = 0
    """seed of the shared noise"""
    count: int | None = None
    """samples; 256 by default, of folders of images all that they have in common"""
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
    self: str | None = None
    """a second run of the first model, such as images:DIR: the first against it is the ceiling, where models make an image in one go"""
    frozen: bool = False
    """also ask all models about the same noisy images of --data: do their functions agree, apart from where their trajectories lead?"""
    copies: str | None = None
    """also RP and, with --data, GL, by a TorchScript embedding for copy detection: a file such as sscd_disc_large.torchscript.pt, or
    sscd(path='FILE', size=288, square=False)"""
    out: Path = Path("comparison")
    """folder for the results, their figures and the report"""

    def run(self) -> None:
        from consistency_lab.diffusion.model import check_diffusion
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.pipelines.pairing import COUNT
        from consistency_lab.similarity.compare import compare
        from consistency_lab.similarity.frozen import compare_frozen
        from consistency_lab.similarity.reproducibility import measure_reproducibility

        sampler = Sampler.parse(self.sampler)
        if not self.metrics:
            raise UserError("--metrics needs at least one name, for example mse; see `consistency-lab list metrics`.")
        found = find(self.models, self.store)
        if self.self is not None:
            find([self.self], self.store)
        if self.frozen and self.data is None:
            raise UserError("--frozen shows the models noisy images: name the set in --data.")
        embedding = None if self.copies is None else _embedding(self.copies)
        if self.dry_run:
            each = sampler.evaluations() + sampler.evaluations(2 * sampler.steps)
            each += sampler.evaluations() * (embedding is not None) + _LEVELS * self.frozen
            read = [text.startswith(("images:", "trajectory:")) for text in found]
            count = self.count if self.count is not None or any(read) else COUNT
            theirs = sum(runs_itself(text) for text in found)
            evaluations = (read.count(False) - theirs) * (count or COUNT) * each
            own = f"{evaluations}, and as many as {theirs} pipelines take by themselves" if theirs else evaluations
            print_json(
                {
                    "models": found,
                    "samples": "all that they have in common" if count is None else count,
                    "network_evaluations": own,
                    "out": str(self.out),
                }
            )
            return
        claim_folder(self.out, self.force)
        models = load_models([*self.models, *([] if self.self is None else [self.self])], self.store, self.device)
        second = None if self.self is None else models.pop()
        if self.guidance is not None:
            models = _guided(models, self.guidance)
        if self.frozen:
            for model in models:
                check_diffusion(model)
        images = training_images(self.data, self.data_dir)
        metrics = with_weights(self.metrics, self.lpips_weights)
        labels = None if self.labels is None else parse_numbers(self.labels, "labels")
        noise = SharedNoise(self.seed)
        walked: dict[str, Any] = {"count": self.count, "sampler": sampler, "labels": labels}
        result = compare(models, noise, metrics=metrics, images=images, again=second, **walked)
        results, models = {"comparison": result}, [m for m in models if m.name in result["model"].values]
        if self.frozen:
            count = min(COUNT if self.count is None else self.count, len(images))
            results["frozen"] = compare_frozen(models, images, noise, count=count, metrics=metrics, along=result)
        if embedding is not None:
            results["reproducibility"] = measure_reproducibility(models, embedding, images, noise, **walked)
        write_results(results, self.out, "Comparison of " + ", ".join(model.name for model in models))
        print_headline(result)
        if embedding is not None:
            from consistency_lab.plots.copies import THRESHOLD, copies_frame

            table = copies_frame(results["reproducibility"])
            print(f"\nReproducibility (RP) and generalisation (GL) at {THRESHOLD:g}\n")
            print_table(results["reproducibility"], table[table["threshold"] == THRESHOLD].drop(columns="threshold"))


def _embedding(text: str) -> Any:
    from consistency_lab.metrics.distances import METRICS
    from consistency_lab.similarity.reproducibility import copy_embedding

    return METRICS.build(text) if text.startswith("sscd(") else copy_embedding(text)


def _guided(models: list[Any], scale: float) -> list[Any]:
    """The models with guidance where they have labels; those that have none are named."""
    labelled = [bool(getattr(model, "classes", 0)) for model in models]  # a GAN or VAE has none
    without = ", ".join(model.name for model, has in zip(models, labelled, strict=True) if not has)
    if not any(labelled):
        raise UserError(f"--guidance needs class-conditional models, and {without} know no labels; leave it out.")
    if without:
        print(f"consistency-lab: no guidance for {without}, trained without labels.", file=sys.stderr)
    return [model.guided(scale) if has else model for model, has in zip(models, labelled, strict=True)]
