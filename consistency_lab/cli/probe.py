"""The command `probe`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from consistency_lab.cli.common import Common, find, load_models, print_json, training_images, write_results
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Probe(Common):
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
    """images or samples; 256 for difficulty, 32 for a plane or curvature, 64 for the others"""
    plane: bool = False
    """landscape: a plane; with three models the one through them"""
    player: str | None = None
    """landscape or curvature of a GAN: generator or discriminator"""
    out: Path = Path("probe")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.store.atomic import ensure_writable

        self._check()
        found = find(self.models, self.store)
        if self.dry_run:
            print_json(
                {
                    "probe": self.what,
                    "models": found,
                    "data": self.data,
                    "out": str(self.out),
                }
            )
            return
        ensure_writable(self.out)
        images = load_images(self.data, data_dir=self.data_dir)
        result = self._landscape(images) if self.what in ("landscape", "curvature") else self._probe(images)
        kind, title = result.attrs["kind"], f"{self.what.capitalize()} of {', '.join(self.models)}"
        write_results({f"{kind}-{result.attrs.get('model', self.models[0])}": result}, self.out, title)
        if self.what == "difficulty":
            from consistency_lab.probes.profiles import difficulty_table

            shown = ["definition", "peak_t", "peak_from", "peak_to", "share_below", "share_low", "share_high"]
            print(difficulty_table(result)[shown].to_string(index=False, float_format=lambda x: f"{x:.3f}"))

    def _check(self) -> None:
        if self.count is not None and self.count < 1:
            raise UserError(f"--count must be 1 or more, not {self.count}.")
        if self.plane and self.what != "landscape":
            raise UserError("--plane belongs to probe landscape.")
        if self.player and self.what not in ("landscape", "curvature"):
            raise UserError("--player belongs to probe landscape and probe curvature.")
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
            count, fitted = min(self.count or 256, len(images)), training_images(self.training_data, self.data_dir)
            return probe_difficulty(models[0], images, count=count, seed=seed, training_images=fitted)
        if self.what == "structure":
            return probe_structure(models, images, noise, count=self.count or 64)
        kept = max(1, len(images) // 10)
        fitted, held_out = images.split(len(images) - kept, kept, seed=0)
        count = min(self.count or 64, kept)
        first, second = models
        return probe_connectivity(first, second, fitted, held_out, noise=noise, count=count, seed=seed)

    def _landscape(self, images: Any) -> xr.Dataset:
        """A line, a plane or a spectrum of diffusion models, or of a player of GANs or VAEs."""
        from consistency_lab.probes.curvature import curvature_spectrum
        from consistency_lab.probes.landscape import line_landscape
        from consistency_lab.probes.plane import plane_landscape
        from consistency_lab.studies.players import named_subject

        small = self.plane or self.what == "curvature"
        count, bins = min(self.count or (32 if small else 64), len(images)), 4 if small else 10
        options: dict[str, Any] = {"player": self.player, "count": count, "bins": bins, "seed": self.seed}
        first, *others = (
            named_subject(text, images, store=self.store, device=self.device, **options) for text in self.models
        )
        if self.what == "curvature":
            return curvature_spectrum(first, seed=self.seed)
        if self.plane:
            return plane_landscape(first, through=others or None, seed=self.seed)
        return line_landscape(first, towards=others[0] if others else None, seed=self.seed)


# How many models a probe takes, and the same in words.
_PROBED = {
    "difficulty": (range(1, 2), "one model"),
    "structure": (range(1, 17), "one model or more, at most 16"),
    "landscape": (range(1, 3), "one or two models"),
    "plane": ((1, 3), "one or three models"),
    "curvature": (range(1, 2), "one model"),
    "connectivity": (range(2, 3), "two models"),
}
