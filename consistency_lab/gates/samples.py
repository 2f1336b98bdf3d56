"""What a gate looks at: which samples in which order, their distances in units, and the pictures of the worst; nothing else is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, images_of
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.gates.sequence import UNIT
from consistency_lab.intervals import Array
from consistency_lab.metrics.distances import Distance
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.similarity.pairwise import embedded
from consistency_lab.similarity.trajectories import to_bytes

SHOWN = 4  # worst samples of each metric of which pictures are kept
_VALUES = 2**20  # of the images that are embedded at a time
SIDE = 128  # pixels: what is shown of an image is no larger


def units_of(count: int, seed: int, under: np.ndarray | None = None) -> np.ndarray:
    """The samples 0 ... count - 1 in the order in which they are seen, ``(units, UNIT)``: a permutation that the seed draws.

    All samples of a unit have one label, where there are labels: the null is within them. What is left over is not seen. Units are smaller
    where there are fewer samples, of some label or at all.

    Args:
        under: the label of each sample ``(count,)``, two of each or more; None without labels.
    """
    # Philox's words never change between versions of numpy; its permutations may.
    order = np.argsort(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(count), kind="stable")
    groups = [order] if under is None else [order[under[order] == label] for label in np.unique(under)]
    size = min(UNIT, *map(len, groups))
    units = np.concatenate([group[: len(group) // size * size].reshape(-1, size) for group in groups])
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    return units[
        np.argsort(place[units[:, -1]], kind="stable")
    ]  # a unit comes where its last sample does: labels at random


@dataclass(frozen=True)
class Makers:
    """What makes the images.

    Attributes:
        models: reference, candidate and, where there is one, the reference's second run.
        noise: what all start from.
        sampler: of diffusion models; None: each its own.
        labels: what conditional models are asked for in turn, or None.
        frames: of every sample, 1 for images.
    """

    models: Sequence[GenerativeModel]
    noise: SharedNoise
    sampler: Sampler | None
    labels: Sequence[int] | None
    frames: int

    def images(self, indices: Sequence[int], frame: int = 0) -> list[Tensor]:
        """The images of those samples by each model, on the CPU.

        Raises:
            UserError: shapes that differ.
        """
        made = [self._of(model, indices, frame) for model in self.models]
        for model, its in zip(self.models, made, strict=True):
            if its.shape != made[0].shape:
                shapes = ["x".join(map(str, each.shape[1:])) for each in (its, made[0])]
                raise UserError(
                    f"{model.name!r} makes images of {shapes[0]} and {self.models[0].name!r} of {shapes[1]}; compare images of one shape."
                )
        return made

    def _of(self, model: GenerativeModel, indices: Sequence[int], frame: int) -> Tensor:
        if isinstance(model, DiffusionModel):  # any other model knows its own sampler, and has no labels
            return model.generate(self.noise, indices, self.sampler, self.labels if model.classes else None)
        return images_of(model.at(frame) if isinstance(model, FolderModel) else model, self.noise, indices)

    def finite(self, images: Sequence[Tensor], indices: Sequence[int]) -> np.ndarray:
        """Which of the candidate's images are finite ``(N,)``. Raises `UserError` where those that it is held to are not."""
        good = [each.flatten(1).isfinite().all(1).numpy() for each in images]
        for model, its in zip((self.models[0], *self.models[2:]), (good[0], *good[2:]), strict=True):
            if not its.all():
                raise UserError(
                    f"{model.name!r}, which the candidate is held to, gives values that are not finite for sample "
                    f"{indices[int(its.argmin())]}."
                )
        return good[1]


class Distances(NamedTuple):
    """Distances of some units by one metric.

    Attributes:
        cross: of image i of the reference to image j of the candidate, of all pairs of a unit, ``(units, i, j)``.
        again: of image i to that of the reference's second run, ``(units, i)``; None where there is none.
    """

    cross: Array
    again: Array | None

    @property
    def own(self) -> Array:
        """Of the same noise, ``(units, i)``."""
        return self.cross.diagonal(axis1=1, axis2=2)

    @property
    def nulls(self) -> Array:
        """Of each sample to the others of its unit, both directions, ``(units, i)``."""
        rest = self.cross * (1 - np.eye(self.cross.shape[1]))
        return (rest.sum(1) + rest.sum(2)) / (2 * (self.cross.shape[1] - 1))

    @property
    def excess(self) -> Array:
        """What the candidate's distance is above that of the second run; the distance itself where there is none."""
        return self.own if self.again is None else self.own - self.again

    @classmethod
    def over_frames(cls, frames: Sequence[Distances]) -> Distances:
        """The means over the frames of clips: a clip is a sample, and its null the same frame of other clips."""
        again = [each.again for each in frames if each.again is not None]
        return cls(np.mean([each.cross for each in frames], 0), np.mean(again, 0) if again else None)

    def of(self, units: np.ndarray) -> Distances:
        """Those units alone."""
        return Distances(self.cross[units], None if self.again is None else self.again[units])

    def joined(self, other: Distances) -> Distances:
        """These units, then the others."""
        again = None if self.again is None or other.again is None else np.concatenate([self.again, other.again])
        return Distances(np.concatenate([self.cross, other.cross]), again)


def distances_of(
    metric: Distance, size: int, reference: Tensor, candidate: Tensor, again: Tensor | None = None
) -> Distances:
    """Distances of images ``(units x size, C, H, W)``, unit by unit.

    Each image is embedded once, and of large images only those of a unit are at a time: the features of one at 512x512 take up to 100 MB.
    """
    images = [reference, candidate, *([] if again is None else [again])]
    step = size * max(1, _VALUES // (size * reference[0].numel()))
    parts = [
        _of_units(metric, size, [each[at : at + step] for each in images]) for at in range(0, len(reference), step)
    ]
    return reduce(Distances.joined, parts)


def _of_units(metric: Distance, size: int, images: Sequence[Tensor]) -> Distances:
    a, b, *rest = embedded(metric, images)
    places = np.arange(len(a)).reshape(-1, size)
    cross = np.empty((len(places), size, size))
    for shift in range(size):
        partner = np.roll(places, -shift, axis=1)
        values = metric.between(a, b[torch.from_numpy(partner.reshape(-1)).to(b.device)])
        cross[:, np.arange(size), (np.arange(size) + shift) % size] = _array(values).reshape(-1, size)
    return Distances(cross, _array(metric.between(a, rest[0])).reshape(-1, size) if rest else None)


def _array(values: Tensor) -> Array:
    return values.detach().double().cpu().numpy()


def worst_of(distances: Sequence[Distances], samples: np.ndarray) -> set[int]:
    """The `SHOWN` samples with the largest distance, by each metric; ``samples`` ``(units, i)``."""
    ranked = (np.argsort(-each.own.reshape(-1), kind="stable")[:SHOWN] for each in distances)
    return {int(i) for places in ranked for i in samples.reshape(-1)[places]}


class Pictures:
    """Pictures of the worst samples so far, ``{sample: (reference, candidate)}``, no larger than `SIDE`."""

    def __init__(self) -> None:
        self.kept: dict[int, np.ndarray] = {}

    def see(self, worst: set[int], indices: Sequence[int], reference: Tensor, candidate: Tensor) -> None:
        """Keep those of the worst samples that are kept already or are among these, and forget the others.

        Args:
            worst: of all samples seen.
            indices: the samples of the images ``(N, C, H, W)``.
        """
        here = {index: place for place, index in enumerate(indices)}
        for index in worst & set(here):
            self.kept[index] = to_bytes(torch.stack([smaller(each[here[index]]) for each in (reference, candidate)]))
        self.kept = {index: self.kept[index] for index in sorted(worst)}


def smaller(image: Tensor) -> Tensor:
    """An image ``(C, H, W)`` of at most `SIDE` pixels a side, each the mean of those that it stands for."""
    longest = max(image.shape[1:])
    if longest <= SIDE:
        return image
    size = [max(1, round(length * SIDE / longest)) for length in image.shape[1:]]
    return torch.nn.functional.interpolate(image[None], size, mode="area")[0]
