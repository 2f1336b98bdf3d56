"""Distances between final images that were made beforehand, each model's under a noise of its own choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.pairwise import pairwise_distances
from consistency_lab.similarity.trajectories import Trajectories


def final_distances(
    images: Sequence[Tensor], pairs: Sequence[tuple[int, int]], metrics: Sequence[Distance]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance and null of pairs of models, both ``(pairs, samples, metrics)``, from their images ``(samples, C, H, W)``."""
    walked = [Trajectories("", each[None]) for each in images]
    distance, null, *_ = pairwise_distances(walked, pairs, metrics)
    return distance[:, 0], null[:, 0]
