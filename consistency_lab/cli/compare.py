"""The command `compare`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from consistency_lab.cli.common import (
    OfModels,
    SideBySide,
    claim_folder,
    find,
    load_models,
    parse_numbers,
    print_headline,
    print_table,
    runs_itself,
    training_images,
    with_weights,
    write_results,
)
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    from consistency_lab.similarity.memory import Memory

_ANNOUNCED = 2**30  # bytes from which on a comparison says beforehand what it takes
_LEVELS = 13  # of a comparison at which states are asked about; the last of its 14 is the image


@dataclass(frozen=True)
class Compare(SideBySide, OfModels):
    """Compare trained models under shared noise, or folders of images, against the null and the closed-form references.

    Example: consistency-lab compare unet-s0 unet-s1 --out comparison
    Example: consistency-lab compare images:ref/ images:cand/ --again images:again/ --metrics mse ssim
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
    again: str | None = None
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

        sampler, where = Sampler.parse(self.sampler), self.where
        if not self.metrics:
            raise UserError("--metrics needs at least one name, for example mse; see `consistency-lab list metrics`.")
        found = find(self.models, self.store)
        if self.again is not None:
            find([self.again], self.store)
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
            self.say(
                {
                    "models": found,
                    "samples": "all that they have in common" if count is None else count,
                    "network_evaluations": own,
                    "peak_memory": self._memory_of_runs(count),
                    "out": str(self.out),
                }
            )
            return
        claim_folder(self.out, self.force)
        models = load_models([*self.models, *([] if self.again is None else [self.again])], self.store, self.device)
        second = None if self.again is None else models.pop()
        if self.guidance is not None:
            models = _guided(models, self.guidance)
        if self.frozen:
            for model in models:
                check_diffusion(model)
        images = training_images(self.data, self.data_dir)
        metrics = self._metrics()
        labels = None if self.labels is None else parse_numbers(self.labels, "labels")
        if not self.quiet:
            self._announce(models, images, metrics)
        noise = SharedNoise(self.seed)
        walked: dict[str, Any] = {"count": self.count, "sampler": sampler, "labels": labels}
        result = compare(models, noise, metrics=metrics, images=images, again=second, executor=where, **walked)
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

    def _memory_of_runs(self, count: int | None) -> str:
        """What the specs of the runs say of the memory; models from elsewhere do not say before they are opened."""
        from consistency_lab.addresses import is_foreign
        from consistency_lab.loading import find_run

        if count is None or any(map(is_foreign, self.models)):
            return "not known before the models are opened"
        specs = [(run.kind, run.spec) for run in (find_run(text, self.store) for text in self.models)]
        data = [spec["data"] for _, spec in specs]
        schedules = [str(spec["settings"].get("schedule")) for _, spec in specs]
        along = all(kind == "model" for kind, _ in specs)
        labelled = self.labels is not None or any(each["classes"] for each in data)
        images = max(each["images"] for each in data) if self.data else 0
        return str(self._memory(tuple(data[0]["shape"]), count, schedules, along, labelled, images, self._metrics()))

    def _announce(self, models: list[Any], images: Any, metrics: Any) -> None:
        """A line about a comparison that takes long: how much memory, and how much of it is there."""
        from consistency_lab.diffusion.model import DiffusionModel
        from consistency_lab.inputs import free_memory
        from consistency_lab.pipelines.pairing import COUNT
        from consistency_lab.similarity.blocks import image_shape

        shape, along = image_shape(models), all(isinstance(model, DiffusionModel) for model in models)
        if shape is None or (self.count is None and not along):
            return  # folders and recordings have as many samples as they have
        schedules = [str(model.denoiser.schedule.spec) if along else "" for model in models]
        labelled = self.labels is not None or any(getattr(model, "classes", 0) for model in models)
        data = 0 if images is None else len(images)
        memory = self._memory(shape, self.count or COUNT, schedules, along, labelled, data, metrics)
        free = free_memory()
        short = free is not None and memory.peak > free
        if memory.blocks > 1 or memory.peak > _ANNOUNCED or short:
            said = f", and {free / 2**30:.2f} GiB are free" if short and free is not None else ""
            print(f"consistency-lab: this takes up to {memory}{said}.", file=sys.stderr)

    def _metrics(self) -> tuple[str, ...]:
        return with_weights(self.metrics, self.lpips_weights)

    def _memory(
        self,
        shape: tuple[int, ...],
        count: int,
        schedules: list[str],
        along: bool,
        labelled: bool,
        data: int,
        metrics: Any,
    ) -> Memory:
        from consistency_lab.diffusion.references import DEFAULT_REFERENCES
        from consistency_lab.metrics.distances import METRICS
        from consistency_lab.similarity.memory import expected_memory

        return expected_memory(
            shape,
            count,
            len(schedules),
            [METRICS.build(metric) for metric in metrics],
            walks=len(schedules) * len(set(schedules)),  # of each model its own, and one for every other schedule
            levels=_LEVELS + 1 if along else 1,
            labelled=labelled,
            ceiling=along,
            references=len(DEFAULT_REFERENCES) if along and data else 0,
            data=data,
        )


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
