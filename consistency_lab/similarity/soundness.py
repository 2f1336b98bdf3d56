"""Are these numbers about what the reader thinks? Whether the samples look like images at all, and whose training set was given.

Images that exploded alike, or hardly left the noise, are alike too: a high score says nothing about models that have learned nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.intervals import Array, Interval, jackknife
from consistency_lab.similarity.trajectories import Trajectories

EDGE = 1.5  # images lie in [-1, 1]; x0 estimates that are not clipped overshoot a little
MOST_OUTSIDE = 0.05  # share of pixels beyond the edge; samples of a Gaussian fitted to digits have 0.014 there
SPREADS = (0.5, 1.5)  # of the samples' pixels, over that of the data


def add_soundness(result: xr.Dataset, walked: Sequence[Trajectories], images: ImageSet | None) -> None:
    """Add, per model, the share of final pixels outside [-1.5, 1.5] ``outside (model, sample)``, and the standard deviation of all
    final pixels ``spread (model)`` with its jackknife interval over samples; with a training set, its own ``data_spread``.
    """
    ends = [w.estimates[-1].double().flatten(1).numpy() for w in walked]
    outside = np.stack([(np.abs(x) > EDGE).mean(1) for x in ends])
    result["outside"] = (("model", "sample"), outside.astype(np.float32))
    spreads = [_spread(x) for x in ends]
    for end, values in zip(("", "_low", "_high"), zip(*spreads, strict=True), strict=True):
        result[f"spread{end}"] = (("model",), np.array(values))
    if images is not None:
        result["data_spread"] = ((), float(images.all().double().std()))


def _spread(x: Array) -> Interval:
    """Standard deviation over all pixels of samples ``(N, D)``, and its interval over samples."""
    count, first, second = len(x), x.mean(1), (x**2).mean(1)
    without = [(total.sum() - total) / (count - 1) for total in (first, second)]
    estimate = np.sqrt(max(second.mean() - first.mean() ** 2, 0.0))
    return jackknife(estimate, np.sqrt(np.maximum(without[1] - without[0] ** 2, 0.0)))


def warnings_of(result: xr.Dataset, models: Sequence[Mapping[str, Any]], images: ImageSet | None, *others: str) -> str:
    """The warnings that belong beside the score, as a JSON list of sentences.

    Args:
        result: after `add_soundness`.
        models: what is known of each (`described`).
        images: the training set that the comparison was given.
        others: sentences that come first; empty ones are passed over.
    """
    said = [sentence for sentence in others if sentence]
    for name, outside in zip(result["model"].values, result["outside"].values, strict=True):
        if (share := float(outside.mean())) > MOST_OUTSIDE:
            said.append(
                f"{name}: {100 * share:.2g} % of the pixels of its samples lie outside [-{EDGE}, {EDGE}] and images lie in [-1, 1]; "
                "untrained or diverged models can agree on such samples, so its scores say little."
            )
    if "data_spread" in result:
        data = float(result["data_spread"])
        for name, value in zip(result["model"].values, result["spread"].values, strict=True):
            if not SPREADS[0] * data <= value <= SPREADS[1] * data:
                said.append(
                    f"{name}: the pixels of its samples have a standard deviation of {value:.3g}, those of the data {data:.3g}; "
                    "the samples do not look like the data, so its scores say little."
                )
    return json.dumps(said + _other_data(models, images))


def _other_data(models: Sequence[Mapping[str, Any]], images: ImageSet | None) -> list[str]:
    """Models that were trained on another set than the one that was given."""
    if images is None:
        return []
    prints = {str(m["name"]): (m.get("data") or {}).get("fingerprint") for m in models}
    others = [name for name, known in prints.items() if known not in (None, images.fingerprint)]
    if not others:
        return []
    return [
        f"{', '.join(others)}: trained on other images than {images.name!r} ({len(images)} images); the references and the nearest "
        f"training images are those of {images.name!r}, so they say nothing about what these models learned or copied."
    ]
