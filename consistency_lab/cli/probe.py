"""The command `probe`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from consistency_lab.cli.common import (
    OfModels,
    claim_folder,
    find,
    load_models,
    training_images,
    write_results,
)
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Probe(OfModels):
    """Ask models why: how hard each noise level is, which of them decides the image, the loss around a model or between two, its curvature.

    Example: consistency-lab probe difficulty unet-s0 --data digits
    """

    what: tyro.conf.Positional[Literal["difficulty", "structure", "landscape", "curvature", "connectivity"]] = (
        "difficulty"
    )
    """difficulty (one model), structure (one or more), landscape (one, or two to go between), curvature (one), connectivity (two; it
    trains a curve)"""
    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of runs in the store, run folders, diffusers:DIR, torchscript:FILE?schedule=...&..."""
    store: Path = Path("runs")
    """where names are looked up"""
    data: str = "digits"
    """images that the loss is taken on; for connectivity a tenth of them, the curve being trained on the others"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    training_data: str | None = None
    """training set that the references of difficulty are fitted to; the same images by default"""
    seed: int = 0
    """seed of the noise and of random directions"""
    count: int | None = None
    """images or samples; 256 for difficulty, 32 for a plane, 16 for curvature, 64 for the others"""
    plane: bool = False
    """landscape: a plane; with three models the one through them"""
    part: str | None = None
    """landscape or curvature of a GAN: generator or discriminator"""
    out: Path = Path("probe")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.data.sources import load_images

        self._check()
        found = find(self.models, self.store)
        images = load_images(self.data, data_dir=self.data_dir)
        if self.dry_run:
            asked = {"probe": self.what, "models": found, "data": self.data, "out": str(self.out)}
            self.say({**asked, **self._cost(images)})
            return
        claim_folder(self.out, self.force)
        result = self._landscape(images) if self.what in ("landscape", "curvature") else self._probe(images)
        kind, title = result.attrs["kind"], f"{self.what.capitalize()} of {', '.join(self.models)}"
        write_results({f"{kind}-{result.attrs.get('model', self.models[0])}": result}, self.out, title)
        if self.what == "difficulty":
            from consistency_lab.intervals import interval_names
            from consistency_lab.probes.profiles import difficulty_table

            shown = ["definition", *interval_names("peak_t", "share_below")]
            print(difficulty_table(result)[shown].to_string(index=False, float_format=lambda x: f"{x:.3f}"))

    def _check(self) -> None:
        if self.count is not None and self.count < 1:
            raise UserError(f"--count must be 1 or more, not {self.count}.")
        if self.plane and self.what != "landscape":
            raise UserError("--plane belongs to probe landscape.")
        if self.part and self.what not in ("landscape", "curvature"):
            raise UserError("--part belongs to probe landscape and probe curvature.")
        allowed, said = _PROBED["plane" if self.plane else self.what]
        if len(self.models) not in allowed:
            name = f"probe {self.what}{' --plane' if self.plane else ''}"
            raise UserError(f"{name} takes {said}, not {len(self.models)}.")

    def _probe(self, images: Any) -> xr.Dataset:
        """What is asked of diffusion models alone."""
        from consistency_lab.diffusion.model import check_diffusion
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.probes.difficulty import probe_difficulty
        from consistency_lab.probes.structure import probe_structure
        from consistency_lab.studies.connectivity import probe_connectivity

        models = load_models(self.models, self.store, self.device)
        for model in models:
            check_diffusion(model)
        noise, seed = SharedNoise(self.seed), self.seed
        if self.what == "difficulty":
            fitted = training_images(self.training_data, self.data_dir)
            return probe_difficulty(models[0], images, count=self._count(images), seed=seed, training_images=fitted)
        if self.what == "structure":
            return probe_structure(models, images, noise, count=self.count or 64)
        fitted, held_out = _split(images)
        first, second = models
        return probe_connectivity(first, second, fitted, held_out, noise=noise, count=self._count(held_out), seed=seed)

    def _count(self, images: Any) -> int:
        """Images of a loss."""
        usual = {"difficulty": 256, "plane": 32, "curvature": 16}.get("plane" if self.plane else self.what, 64)
        return min(self.count or usual, len(images))

    def _subject(self, text: str, images: Any) -> Any:
        """What a line, a plane or a spectrum is of."""
        from consistency_lab.studies.contrast_subject import named_subject

        bins = 4 if self.plane or self.what == "curvature" else 10
        options: dict[str, Any] = {"part": self.part, "count": self._count(images), "bins": bins, "seed": self.seed}
        return named_subject(text, images, store=self.store, device=self.device, **options)

    def _cost(self, images: Any) -> dict[str, Any]:
        """What the probe would do, each kind of work timed once on this machine with the threads that it has now."""
        from consistency_lab.studies.probe_cost import total

        work = [each for each in self._work(images) if each.times]
        rows = [{"what": w.what, "at_most": round(w.times), "seconds_each": float(f"{w.seconds:.3g}")} for w in work]
        return {"work": rows, "minutes": round(total(work) / 60, 2)}

    def _work(self, images: Any) -> Any:
        from inspect import signature

        from consistency_lab.diffusion.model import check_diffusion
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.probes.curvature import curvature_spectrum
        from consistency_lab.probes.difficulty import probe_difficulty
        from consistency_lab.probes.landscape import line_landscape
        from consistency_lab.probes.plane import plane_landscape
        from consistency_lab.probes.structure import probe_structure
        from consistency_lab.studies import probe_cost
        from consistency_lab.studies.connectivity import probe_connectivity
        from consistency_lab.training.run_io import snapshot_steps
        from consistency_lab.training.train import settings_of

        def usual(probe: Any, *names: str) -> dict[str, Any]:
            return {name: signature(probe).parameters[name].default for name in names}

        if self.what in ("landscape", "curvature"):
            subject = self._subject(self.models[0], images)
            if self.what == "curvature":
                return probe_cost.spectrum_cost(subject, **usual(curvature_spectrum, "probes", "steps", "products"))
            if self.plane:
                return probe_cost.plane_cost(subject, **usual(plane_landscape, "points"))
            return probe_cost.line_cost(subject, between=len(self.models) > 1, **usual(line_landscape, "points"))
        model = load_models(self.models[:1], self.store, self.device)[0]
        check_diffusion(model)
        settings = settings_of(model.facts["spec"]) if "spec" in model.facts else None
        if self.what == "difficulty":
            fitted = training_images(self.training_data, self.data_dir)
            kept = len(snapshot_steps(settings)) if settings and model.folder else 0
            asked = {"count": self._count(images), "snapshots": kept, **usual(probe_difficulty, "bins", "detail")}
            return probe_cost.difficulty_cost(model, images, fitted, **asked)
        if self.what == "structure":
            asked = {"count": self.count or 64, "steps": Sampler().steps, **usual(probe_structure, "levels")}
            return probe_cost.structure_cost(model, models=len(self.models), **asked)
        if settings is None:
            raise UserError(
                "connectivity trains a curve as its ends were trained; give models that this package trained."
            )
        fitted, held_out = _split(images)
        asked = {"count": self._count(held_out), "walk": Sampler().steps}
        asked |= usual(probe_connectivity, "bins", "points", "steps", "samples")
        return probe_cost.connectivity_cost(model, fitted, held_out, settings, asked)

    def _landscape(self, images: Any) -> xr.Dataset:
        """A line, a plane or a spectrum of diffusion models, or of GANs or VAEs."""
        from consistency_lab.probes.curvature import curvature_spectrum
        from consistency_lab.probes.landscape import line_landscape
        from consistency_lab.probes.plane import plane_landscape

        first, *others = (self._subject(text, images) for text in self.models)
        if self.what == "curvature":
            return curvature_spectrum(first, seed=self.seed, progress=self.progress)
        if self.plane:
            return plane_landscape(first, through=others or None, seed=self.seed)
        return line_landscape(first, towards=others[0] if others else None, seed=self.seed)


def _split(images: Any) -> tuple[Any, Any]:
    """What a curve is trained on, and the tenth that its loss is taken on."""
    kept = max(1, len(images) // 10)
    return images.split(len(images) - kept, kept, seed=0)


# How many models a probe takes, and the same in words.
_PROBED = {
    "difficulty": (range(1, 2), "one model"),
    "structure": (range(1, 17), "one model or more, at most 16"),
    "landscape": (range(1, 3), "one or two models"),
    "plane": ((1, 3), "one or three models"),
    "curvature": (range(1, 2), "one model"),
    "connectivity": (range(2, 3), "two models"),
}
