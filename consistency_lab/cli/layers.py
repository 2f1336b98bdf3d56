"""The command `layers`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
class Layers(OfModels):
    """Do models that make the same images compute alike? CKA of their layers, beside other inputs and the input itself.

    Example: consistency-lab layers unet-s0 unet-s1 --data digits --layers "network.*"
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """two or more: names of runs in the store, run folders, diffusers:DIR, torchscript:FILE?schedule=...&..."""
    store: Path = Path("runs")
    """where names are looked up"""
    data: str = "digits"
    """images that are made noisy"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    layers: tuple[str, ...] = ("*",)
    """names of modules or shell patterns; A=B for layer A of the first and B of the second of two different architectures"""
    times: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """noise levels, in the time of the first model"""
    seed: int = 0
    """seed of the noise"""
    count: int = 256
    """images"""
    out: Path = Path("layers")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.plots.layers import layer_frame
        from consistency_lab.similarity.representations import compare_representations

        found, layers = find(self.models, self.store), self._layers()
        if self.dry_run:
            evaluations = len(found) * self.count * len(self.times)
            self.say({"models": found, "images": self.count, "network_evaluations": evaluations, "out": str(self.out)})
            return
        claim_folder(self.out, self.force)
        images = training_images(self.data, self.data_dir)
        models = load_models(self.models, self.store, self.device)
        result = compare_representations(
            models, images, layers, times=self.times, noise=SharedNoise(self.seed), count=self.count
        )
        write_results({"layers": result}, self.out, "Layers of " + ", ".join(model.name for model in models))
        table = layer_frame(result)
        family = table["quantity"] == ("family" if "family_cka" in result else "cka")
        print_table(result, table[family & table["value"].notna()][["layer", "t", "value", "low", "high"]])

    def _layers(self) -> dict[str, str] | list[str]:
        mapped = [layer for layer in self.layers if "=" in layer]
        if not mapped:
            return list(self.layers)
        if len(mapped) < len(self.layers):
            raise UserError("--layers takes either patterns or pairs A=B, not both.")
        return {first: second for first, _, second in (layer.partition("=") for layer in mapped)}
