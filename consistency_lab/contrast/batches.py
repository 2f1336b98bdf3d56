"""Images in shuffled epochs, and noise, for models without a time input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.training.loop import Batch, ShuffledImages, stream_generator
from consistency_lab.training.settings import LoopSettings


class NoisedBatches:
    """``(x0, noise, noise, ...)``: images and independent draws of standard normal noise, all functions of the step.

    Args:
        images: the training set.
        settings: batch and seeds.
        noise_shape: of one draw for one image.
        draws: how many a step.
        device: where batches come to be; a GPU's noise is its own.

    Raises:
        UserError: a batch larger than the data.
    """

    def __init__(
        self,
        images: ImageSet,
        settings: LoopSettings,
        noise_shape: Sequence[int],
        draws: int,
        device: torch.device,
    ):
        self.images, self.device, self.draws = ShuffledImages(images, settings, device), device, draws
        self.shape, self.seed = (settings.batch, *noise_shape), settings.seeds["noise"]

    def batch(self, step: int) -> Batch:
        x0, _ = self.images(step)
        noise = [self._noise(self.draws * step + draw) for draw in range(self.draws)]
        return Batch((x0, *noise), torch.ones(len(x0), dtype=torch.float32, device=self.device))

    def _noise(self, number: int) -> Tensor:
        generator = stream_generator(self.seed, "noise", number, self.device)
        return torch.randn(self.shape, generator=generator, dtype=torch.float32, device=self.device)

    def observe(self, batch: Batch, losses: Tensor) -> None:
        """Nothing: no draw depends on a loss."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept between steps."""
