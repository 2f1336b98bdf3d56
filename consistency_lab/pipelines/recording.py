"""A trajectory that somebody else's engine has written down, as a model to compare: its latents or x0 estimates along noise levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import safetensors
import torch
from torch import Tensor

from consistency_lab.diffusion.model import model_table
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError

Space = Literal["latents", "pixels"]
BY_STEP = ("latents", "x0")
SAID = ("names", "prompts", "labels")  # one entry for each sample


@dataclass(frozen=True)
class Part:
    """One file of a recording, opened when it is read.

    Attributes:
        path: a safetensors file, or the npz file that ``arrays`` are of.
        shapes: of what it holds, by name.
        arrays: what an npz file holds; empty for safetensors, which are read piece by piece.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    arrays: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.shapes["latents"][1] if "latents" in self.shapes else self.shapes["images"][0]

    def read(self, name: str, step: int | None, rows: Sequence[int]) -> Tensor:
        """Those samples, at that step where the tensor has steps; float32, bytes of images in [-1, 1]."""
        if name in self.arrays:
            tensor = self.arrays[name] if step is None else self.arrays[name][step]
        else:
            with safetensors.safe_open(self.path, "pt") as file:
                whole, low, high = file.get_slice(name), min(rows), max(rows) + 1
                tensor = whole[low:high] if step is None else whole[step : step + 1, low:high][0]
                rows = [row - low for row in rows]
        values = tensor[list(rows)]
        return values.float() / 127.5 - 1 if name == "images" and values.dtype == torch.uint8 else values.float()


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """A `GenerativeModel` and `RecordedWalk` that was written down; `load_recording` reads one.

    Attributes:
        name: how tables call it.
        parts: its files, whose samples follow one another.
        t, log_snr: of every level ``(T,)``, as `RecordedWalk` says.
        steps: which step of the file each level is.
        samples: which samples of the files are its samples, in order.
        names, prompts, labels: of these samples; empty where they are not known.
        facts: provenance for results.
        holding: what must live as long as its files (a temporary folder).
    """

    name: str
    parts: tuple[Part, ...]
    t: Tensor
    log_snr: Tensor
    steps: tuple[int, ...]
    samples: tuple[int, ...]
    names: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    holding: object = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an estimate: a packed latent (L, C) counts as (1, L, C), a clip (C, F, H, W) as (C, F H, W)."""
        return as_image(self.parts[0].shapes["latents"][2:])

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """That of its latents: they began as noise."""
        return self.shape

    @property
    def quantities(self) -> tuple[str, ...]:
        return tuple(name for name in BY_STEP if all(name in part.shapes for part in self.parts))

    @property
    def noise_seed(self) -> int | None:
        """Of the `SharedNoise` that sample i was made from, where the file says so."""
        seed = self.facts.get("noise_seed")
        return seed if isinstance(seed, int) else None

    def of(self, samples: Sequence[int]) -> Self:
        """The same with those of its samples alone, in that order."""
        pick: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in samples) for name in SAID if getattr(self, name)
        }
        return replace(self, samples=tuple(self.samples[i] for i in samples), **pick)

    def estimates(self, indices: Sequence[int], levels: Sequence[int], quantity: str) -> Tensor:
        """``"latents"`` or ``"x0"`` of those samples at those levels, float32 ``(T, N, C, H, W)``; of data, x0 is the latent."""
        if quantity not in self.quantities:
            raise UserError(f"{self.name!r} holds no {quantity}; it holds {', '.join(self.quantities)}.")
        found = []
        for level in levels:
            name = "latents" if math.isinf(float(self.log_snr[level])) and self.log_snr[level] > 0 else quantity
            found.append(self._read(name, self.steps[level], indices).reshape(len(indices), *self.shape))
        return torch.stack(found)

    def generate(self, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
        """The last latents of those samples, float32 ``(N, C, H, W)``. The noise is not used."""
        return self.estimates(indices, [len(self.steps) - 1], "latents")[0]

    def pixels(self) -> RecordedImages:
        """The final images alone. Raises `UserError` if none were recorded."""
        if not all("images" in part.shapes for part in self.parts):
            raise UserError(f"{self.name!r} holds no images; record them, or compare its latents (space=latents).")
        return RecordedImages(self)

    def _read(self, name: str, step: int | None, indices: Sequence[int]) -> Tensor:
        if beyond := [i for i in indices if not 0 <= i < len(self.samples)]:
            raise UserError(
                f"{self.name!r} holds {len(self.samples)} samples, so there is no {beyond[0]}; lower count."
            )
        wanted = [self.samples[i] for i in indices]
        rows: dict[int, Tensor] = {}
        first = 0
        for part in self.parts:
            inside = [i for i in wanted if first <= i < first + part.count]
            if inside:
                values = part.read(name, step, [i - first for i in inside])
                rows |= dict(zip(inside, values, strict=True))
            first += part.count
        shape = self.parts[0].shapes[name][1 if step is None else 2 :]
        return torch.stack([rows[i] for i in wanted]) if wanted else torch.empty(0, *shape)

    def __repr__(self) -> str:
        return f"Recording({self.name!r}, {len(self.samples)} samples, {len(self.steps)} levels, {'x'.join(map(str, self.shape))})"

    def _repr_html_(self) -> str:
        return model_table("Recording", self)


@dataclass(frozen=True, eq=False, repr=False)
class RecordedImages:
    """The final images of a `Recording`, as a `GenerativeModel` without a path."""

    recording: Recording

    @property
    def name(self) -> str:
        return self.recording.name

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self.recording.facts, "space": "pixels"}

    @property
    def shape(self) -> tuple[int, int, int]:
        return as_image(self.recording.parts[0].shapes["images"][1:])

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """That of the noise: of the latents, or where none were kept of the images."""
        return self.recording.shape if "latents" in self.recording.parts[0].shapes else self.shape

    def of(self, samples: Sequence[int]) -> RecordedImages:
        return RecordedImages(self.recording.of(samples))

    def generate(self, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
        """The images of those samples, float32 ``(N, C, H, W)`` in [-1, 1]. The noise is not used."""
        return self.recording._read("images", None, indices).reshape(len(indices), *self.shape)

    def __repr__(self) -> str:
        return f"RecordedImages({self.recording!r})"


def as_image(shape: Sequence[int]) -> tuple[int, int, int]:
    """A sample's shape as (C, H, W): distances are sums over all values, whatever their axes are called."""
    if len(shape) >= 3:
        return int(shape[0]), math.prod(int(n) for n in shape[1:-1]), int(shape[-1])
    filled = (1, 1, 1, *(int(n) for n in shape))[-3:]
    return filled[0], filled[1], filled[2]
