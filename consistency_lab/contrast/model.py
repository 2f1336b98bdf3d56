"""A GAN or VAE with a name: one pass from noise to image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from consistency_lab.contrast.networks import GAN, VAE
from consistency_lab.devices import measuring, plain_defaults, resolve_device
from consistency_lab.diffusion.model import chunks, model_table
from consistency_lab.diffusion.noise import SharedNoise


@dataclass(frozen=True, eq=False)
class ContrastModel:
    """A `GenerativeModel` (see `consistency_lab.diffusion.model`) without a path: the image follows from the noise at once.

    Attributes:
        name: how tables and figures call it.
        module: in eval mode, on the device on which it is to be used.
        facts: provenance for results: kind (``"gan"`` or ``"vae"``), networks, parameters, seeds, steps, weights, ...
        folder: the run folder that it was loaded from; None where there is none.
    """

    name: str
    module: GAN | VAE
    facts: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return tuple(self.module.noise_shape)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """The model itself with its weights on another device, as torch modules do. Raises `UserError` if there is none of that name."""
        self.module.to(resolve_device(device))
        return self

    @plain_defaults()
    def generate(self, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
        """The images of those indices ``(N, C, H, W)``, float32 in [-1, 1] on the CPU, computed `CHUNK` at a time."""
        with measuring(), torch.no_grad():
            images = [
                self.module.generate(noise.initial(chunk, self.noise_shape, self.device)).float().cpu()
                for chunk in chunks(indices)
            ]
        return torch.cat(images) if images else torch.empty(0, *self.module.shape, dtype=torch.float32, device="cpu")

    def __repr__(self) -> str:
        return f"ContrastModel({self.name!r}, {self.noise_shape} -> {'x'.join(map(str, self.module.shape))})"

    def _repr_html_(self) -> str:
        return model_table(type(self.module).__name__, self)
