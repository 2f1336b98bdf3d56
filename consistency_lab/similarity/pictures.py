"""Pictures of a few samples out of many, kept while blocks of them go by; large ones as thumbnails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from consistency_lab.similarity.trajectories import to_bytes

LARGEST = 128  # pixels of the longer side of a picture in a result


def pictured(images: Tensor) -> np.ndarray:
    """Images ``(..., C, H, W)`` as 0 ... 255 for display; those of more than `LARGEST` pixels a side as the means of their pixels."""
    height, width = images.shape[-2:]
    if max(height, width) > LARGEST:
        scale = LARGEST / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = torch.nn.functional.adaptive_avg_pool2d(images.reshape(-1, *images.shape[-3:]), size)
        images = small.reshape(*images.shape[:-2], *size)
    return to_bytes(images)


class Pictures:
    """What is shown of some samples, by their numbers: arrays by name."""

    def __init__(self) -> None:
        self._of: dict[int, dict[str, np.ndarray]] = {}
        self._none: dict[str, np.ndarray] = {}

    @property
    def numbers(self) -> list[int]:
        """Of the samples that are kept, in order."""
        return sorted(self._of)

    def add(self, numbers: Sequence[int], **pictures: np.ndarray) -> None:
        """Keep those samples too; arrays hold the samples along their first axis."""
        self._none = {name: values[:0] for name, values in pictures.items()}
        for place, number in enumerate(numbers):
            self._of[number] = {name: values[place] for name, values in pictures.items()}

    def only(self, numbers: Iterable[int]) -> None:
        """Keep none but those."""
        self._of = {number: self._of[number] for number in numbers if number in self._of}

    def of(self, name: str, axis: int) -> np.ndarray:
        """The pictures of that name of all samples that are kept, which become that axis."""
        found = [self._of[number][name] for number in self.numbers]
        return np.stack(found, axis) if found else np.moveaxis(self._none[name], 0, axis)
