"""SpeeD's sampling of timesteps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.training.timesteps.base import BINS, TimestepSampler, noise_rate, positive


class SpeeD(TimestepSampler):
    """SpeeD's asymmetric sampling with its antithetic draws (Wang et al. 2405.17403, equations 6 and 7, and the authors' code).

    Times below ``tau`` are drawn ``k`` times as often as those above. With ``dual``, half of a batch is drawn so, and the other half are
    its mirror images: t' = tau* - t below tau*, and t - tau* above, where tau* is the first time at which the noise rate grows by less than
    1e-4 per thousandth of t. The mirrored half of an odd batch is one smaller. ``masses`` are those of an even batch.

    The authors' change-aware weight of the loss is a weighting and not part of the density.
    """

    def __init__(self, schedule: Schedule, total_steps: int, *, tau: float = 0.7, k: float = 5.0, dual: bool = True):
        super().__init__(schedule, total_steps)
        positive("speed", k=k)
        if not self.low < tau <= self.high:
            raise UserError(f"tau of speed lies in ({self.low:g}, {self.high:g}], not {tau!r}.")
        # The cell in which tau falls is shared in proportion.
        below = np.clip((tau - self.edges[:-1]) / (self.edges[1] - self.edges[0]), 0.0, 1.0)
        shape = 1.0 + (k - 1.0) * below
        self.drawn, self.dual = shape / shape.sum(), dual
        self.mirror = self._mirror()

    def _mirror(self) -> int:
        """tau* in cells."""
        slope = np.diff(noise_rate(self.schedule, self.edges)) / (1000 * np.diff(self.edges))
        flat = slope < 1e-4
        # On every schedule the rate grows from 0, so a flat beginning would be a table's flaw and not the end of meaning.
        return int(flat.argmax()) if flat.any() and flat.argmax() > 0 else BINS

    def masses(self, step: int) -> np.ndarray:
        if not self.dual:
            return self.drawn
        mirrored = np.zeros(BINS)
        mirrored[: self.mirror] = self.drawn[: self.mirror][::-1]
        np.add.at(mirrored, np.arange(BINS - self.mirror), self.drawn[self.mirror :])
        return 0.5 * (self.drawn + mirrored)

    def _key(self, step: int) -> Any:
        return None

    def _draw(self, n: int, cumulative: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if not self.dual:
            return super()._draw(n, cumulative, generator)
        first = (n + 1) // 2
        cell, inside = super()._draw(first, torch.from_numpy(np.cumsum(self.drawn)), generator)
        place = cell + inside
        other = torch.where(place < self.mirror, self.mirror - place, place - self.mirror)[: n - first]
        both = torch.cat([place, other])
        cell = both.long().clamp_max(BINS - 1)
        return cell, both - cell
