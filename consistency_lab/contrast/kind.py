"""What GANs and VAEs share as kinds of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import GAN, VAE
from consistency_lab.training.model_kind import ModelKind
from consistency_lab.training.settings import LoopSettings

S = TypeVar("S", bound=LoopSettings)
N = TypeVar("N", GAN, VAE)


class ContrastKind(ModelKind[S, N, ContrastModel]):
    """Models that make an image from noise at once. ``main`` is the setting of the part that generates."""

    def facts(self, spec: Mapping[str, Any], module: N) -> dict[str, Any]:
        settings = spec["settings"]
        generating = module.generator if isinstance(module, GAN) else module.decoder
        shown = ("generator", "discriminator", "autoencoder", "penalty", "beta")
        return {
            "kind": self.name,
            "network": settings[self.main]["name"],
            **{key: settings[key] for key in shown if key in settings},
            "noise_shape": list(module.noise_shape),
            "parameters": sum(p.numel() for p in generating.parameters()),
            "parameters_trained": sum(p.numel() for p in module.parameters()),
        }

    def wrap(self, name: str, module: N, facts: dict[str, Any], folder: Path | None) -> ContrastModel:
        return ContrastModel(name, module, facts, folder)

    def noise_shape(self, spec: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple(self.build(spec).noise_shape)
