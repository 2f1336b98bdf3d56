"""What a comparison is read against: the ceiling, the closed-form references, the nearest training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import REFERENCES, closed_form
from consistency_lab.metrics.distances import Distance, MeanSquaredError, nearest
from consistency_lab.similarity.cube import cube, scored
from consistency_lab.similarity.statistics import pair_score, pairs_of, score
from consistency_lab.similarity.trajectories import Trajectories, shown_images, to_bytes


def references_of(images: ImageSet, like: DiffusionModel) -> list[DiffusionModel]:
    """The closed-form denoisers of a training set, on a model's schedule and device."""
    made = [(name, closed_form(name, images.all(), like.denoiser.schedule)) for name in REFERENCES]
    return [DiffusionModel(name, denoiser.to(like.device)) for name, denoiser in made]


def add_ceiling(
    result: xr.Dataset, walked: Sequence[Trajectories], again: Sequence[Trajectories], distances: Sequence[Distance]
) -> None:
    """The same models with other steps: how alike two sets of images are that differ by the solver alone."""
    ends = [Trajectories(w.name, w.estimates[-1:]) for w in [*walked, *again]]
    values = cube(ends, [(k, k + len(walked)) for k in range(len(walked))], distances)[0][:, 0]
    result["ceiling"] = (("model", "sample", "metric"), values.astype(np.float32))


def add_references(
    result: xr.Dataset,
    walked: Sequence[Trajectories],
    references: Sequence[Trajectories],
    distances: Sequence[Distance],
    shown: int,
) -> None:
    """Each model's distance to each closed-form denoiser, started from the same noise."""
    shape = (len(walked), len(references))
    pairs = [(k, len(walked) + r) for k in range(shape[0]) for r in range(shape[1])]
    distance, null = (x.reshape(*shape, *x.shape[1:]) for x in cube([*walked, *references], pairs, distances))
    result.coords["reference"] = [reference.name for reference in references]
    result["reference_distance"] = (("model", "reference", "t", "sample", "metric"), distance.astype(np.float32))
    distance, null = scored(distances, distance, null)
    result["reference_score"] = (("model", "reference", "t", "metric"), score(distance.mean(3), null.mean(3)))
    _add_residuals(result, walked, references)
    pictures = np.stack([shown_images(reference, shown) for reference in references])
    result["reference_images"] = (("reference", "shown", "t", "channel", "row", "column"), pictures)


def _add_residuals(result: xr.Dataset, walked: Sequence[Trajectories], references: Sequence[Trajectories]) -> None:
    """Do two models still agree in what a reference does not explain? The score (MSE) of A - R against B - R, R from the same noise."""
    pairs = pairs_of(len(walked))
    rows = []
    for reference in references:
        residuals = [Trajectories(w.name, w.estimates - reference.estimates) for w in walked]
        rows.append(pair_score(*cube(residuals, pairs, [MeanSquaredError()]), axis=2))
    for end, part in (("", 0), ("_low", 1), ("_high", 2)):
        values = np.stack([row[part][..., 0] for row in rows], axis=1)
        result[f"residual_score{end}"] = (("pair", "reference", "t"), values)


def add_nearest(result: xr.Dataset, walked: Sequence[Trajectories], images: ImageSet, shown: int) -> None:
    """The nearest training image of each final image: far away means that it was not copied."""
    pool = images.all()
    found = [nearest(w.estimates[-1], pool) for w in walked]
    result["nearest_distance"] = (("model", "sample"), np.stack([d.numpy() for d, _ in found]).astype(np.float32))
    pictures = np.stack([to_bytes(pool[index[:shown].to(pool.device)].cpu()) for _, index in found])
    result["nearest_images"] = (("model", "shown", "channel", "row", "column"), pictures)
