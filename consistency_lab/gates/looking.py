"""Batch by batch until it can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from consistency_lab.errors import UserError
from consistency_lab.gates.decision import FAIL, OPEN, together
from consistency_lab.gates.samples import Distances, Makers, Pictures, distances_of, worst_of
from consistency_lab.gates.telling import Criterion, Told, tell
from consistency_lab.metrics.distances import Distance


@dataclass
class Record:
    """What a gate has seen.

    Attributes:
        distances, told: of each metric.
        samples: that were seen, ``(units, i)``.
        looks: how many units each look has seen.
        lost: samples of which the candidate's image is not finite; their units are left out.
        pictures: of the worst.
    """

    distances: list[Distances]
    told: list[Told]
    samples: np.ndarray
    looks: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    pictures: Pictures = field(default_factory=Pictures)

    @property
    def decision(self) -> str:
        """Of all metrics."""
        return together(each.decision for each in self.told)

    def add(
        self, units: np.ndarray, distances: Sequence[Distances], images: Sequence[Tensor], criterion: Criterion
    ) -> None:
        """Look at more units: distances of each metric, images of reference and candidate."""
        both = zip(self.distances, distances, strict=True)
        self.distances = [old.joined(new) for old, new in both] if self.looks else list(distances)
        self.samples = np.concatenate([self.samples, units])
        self.looks.append(len(self.samples))
        self.pictures.see(worst_of(self.distances, self.samples), units.reshape(-1).tolist(), *images[:2])
        self.told = [tell(each, self.looks, criterion, place) for place, each in enumerate(self.distances)]


def look(
    makers: Makers,
    units: np.ndarray,
    distances: Sequence[Distance],
    criterion: Criterion,
    *,
    step: int,
    early: bool,
    progress: bool | None,
) -> Record:
    """Make and measure ``step`` units at a time until it can be told, or all have been seen. One image that is not finite is a failure.

    Raises:
        UserError: images of different shapes, some that are not finite which the candidate is held to, or none of its own that is.
    """
    record = Record([], [], np.empty((0, units.shape[1]), dtype=np.int64))
    with tqdm(total=units.size, unit="sample", disable=None if progress is None else not progress, leave=False) as bar:
        for some in np.split(units, range(step, len(units), step)):
            _look_at(record, some, makers, distances, criterion)
            bar.update(some.size)
            if record.lost or (early and record.decision != OPEN):
                break
    if not record.looks:
        raise UserError(
            f"{makers.models[1].name!r} made no four images that are all finite; there is nothing to compare."
        )
    if record.lost:
        record.told = [each._replace(decision=FAIL, more=np.nan) for each in record.told]
    return record


def _look_at(
    record: Record, units: np.ndarray, makers: Makers, distances: Sequence[Distance], criterion: Criterion
) -> None:
    indices = units.reshape(-1).tolist()
    finite, shown, by_frame = np.ones(units.size, dtype=bool), [], []
    for frame in range(makers.frames):
        images = makers.images(indices, frame)
        good = makers.finite(images, indices)
        if not good.all():
            images[1] = images[1].clone()
            images[1][~good] = 0.0  # for metrics that refuse it; its unit is left out below
        finite &= good
        by_frame.append([distances_of(each, units.shape[1], *images) for each in distances])
        if frame == makers.frames // 2:
            shown = images
    record.lost += [index for index, good in zip(indices, finite.tolist(), strict=True) if not good]
    kept = np.asarray(finite.reshape(units.shape).all(1))
    if kept.any():
        found = [Distances.over_frames(each).of(kept) for each in zip(*by_frame, strict=True)]
        record.add(units[kept], found, [each[np.repeat(kept, units.shape[1])] for each in shown], criterion)
