"""Densities over t that follow the losses of the run. They are functions of their state and not of the step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.training.timesteps.base import BINS, TimestepSampler, positive


class _Adaptive(TimestepSampler):
    """Keeps the masses of its state; a subclass calls `_changed` when the state does."""

    def __init__(self, schedule: Schedule, total_steps: int, floor: float = 0.0, weighted: bool = False):
        super().__init__(schedule, total_steps, floor, weighted)
        self._version, self._known = 0, (-1, np.empty(0))

    def _changed(self) -> None:
        self._version += 1

    def _key(self, step: int) -> Any:
        return self._version

    def masses(self, step: int) -> np.ndarray:
        if self._known[0] != self._version:
            self._known = (self._version, self._masses_of_state())
        return self._known[1]

    def _masses_of_state(self) -> np.ndarray:
        raise NotImplementedError

    def _observed(self, t: Tensor, loss: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Cells and losses of the draws whose loss is a number: one that is not must not poison the density.

        Raises `UserError` unless there is one loss a time.
        """
        if t.dim() != 1 or t.shape != loss.shape:
            raise UserError(
                f"a timestep sampler learns from one loss per time: times of shape {tuple(t.shape)} came with losses {tuple(loss.shape)}."
            )
        times, losses = t.detach().double().cpu().numpy(), loss.detach().double().cpu().numpy()
        cell = ((times - self.low) / (self.high - self.low) * BINS).astype(np.int64).clip(0, BINS - 1)
        good = np.isfinite(losses)
        return cell[good], losses[good]


class LossSecondMoment(_Adaptive):
    """p(t) in proportion to sqrt(E[L_t^2]) of the last losses at each t (Nichol & Dhariwal 2102.09672, equation 18).

    Uniform until every cell has been drawn ``history`` times. Published with importance weights and a uniform share of .001; weights need
    `LEAST_FLOOR` here.

    Args:
        history: losses that are remembered per cell.
        cells: equal cells of t, a divisor of `BINS`; published: one a timestep, 1000. Short runs fill fewer cells sooner.
        floor, weighted: see `TimestepSampler`.
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        history: int = 10,
        cells: int = BINS,
        floor: float = 0.01,
        weighted: bool = True,
    ):
        super().__init__(schedule, total_steps, floor, weighted)
        if history < 1 or cells < 1 or BINS % cells:
            raise UserError(
                f"loss_second_moment needs a history of at least 1 and a number of cells that divides {BINS}, "
                f"not history={history!r}, cells={cells!r}."
            )
        self.losses, self.counts = np.zeros((cells, history)), np.zeros(cells, dtype=np.int64)

    def update(self, t: Tensor, loss: Tensor) -> None:
        cell, losses = self._observed(t, loss)
        cells, history = self.losses.shape
        cell = cell // (BINS // cells)
        order = np.argsort(cell, kind="stable")
        cell, losses = cell[order], losses[order]
        # The place of a draw among those of its cell in this batch; of more than fit, the last stay.
        first = np.searchsorted(cell, cell)
        rank, size = np.arange(len(cell)) - first, np.bincount(cell, minlength=cells)
        kept = rank >= size[cell] - history
        self.losses[cell[kept], (self.counts[cell[kept]] + rank[kept]) % history] = losses[kept]
        self.counts += size
        self._changed()

    def _masses_of_state(self) -> np.ndarray:
        cells, history = self.losses.shape
        root = self._root()
        if (self.counts < history).any() or not root.sum() > 0:
            return np.full(BINS, 1.0 / BINS)
        return self.floor / BINS + (1 - self.floor) * np.repeat(root / root.sum(), BINS // cells) * cells / BINS

    def _root(self) -> np.ndarray:
        return np.sqrt((self.losses**2).mean(1))

    def state_dict(self) -> dict[str, Any]:
        return {"losses": torch.from_numpy(self.losses.copy()), "counts": torch.from_numpy(self.counts.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.counts = state["losses"].numpy().copy(), state["counts"].numpy().copy()
        self._changed()


class LossRoot(LossSecondMoment):
    """p(t) in proportion to E[L_t]^exponent of the last losses at each t: the recipe's density, followed on the run itself.

    With importance weights the gradient has the least variance for p in proportion to sqrt(E |g_t|^2) (see `consistency_lab.recipe`). The
    gradient of a squared error |r|^2 is 2 J'r, with J the network's Jacobian in its weights: as far as the size of J does not depend on
    t, E |g_t|^2 goes with E[L_t], and no gradient of single samples need be taken. `LossSecondMoment` is the density of least variance
    of the loss's value instead, whose range over t is the square of this one's.

    Args:
        history, cells, floor, weighted: see `LossSecondMoment`; few cells, so that it starts within the first steps.
        exponent: 1/2 is the above.
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        history: int = 10,
        cells: int = 50,
        exponent: float = 0.5,
        floor: float = 0.1,
        weighted: bool = True,
    ):
        super().__init__(schedule, total_steps, history=history, cells=cells, floor=floor, weighted=weighted)
        positive("loss_root", exponent=exponent)
        self.exponent = exponent

    def _root(self) -> np.ndarray:
        return self.losses.mean(1) ** self.exponent


class ClusterCurriculum(_Adaptive):
    """From the easiest times to all of them, cluster by cluster (Kim et al. 2403.10348).

    Times are cut into clusters. Training begins on the one of the highest noise; the next lower one joins when the loss there has not
    improved for ``patience`` steps. At the end all times are uniform. The paper's numbers of clusters and its patience are not known to us.

    Args:
        clusters: how many.
        patience: steps without a new lowest batch loss in the newest cluster.
        axis: clusters of equal width in ``"timestep"`` or in ``"log_snr"``.
    """

    def __init__(
        self,
        schedule: Schedule,
        total_steps: int,
        *,
        clusters: int = 8,
        patience: int = 20,
        axis: str = "timestep",
    ):
        super().__init__(schedule, total_steps)
        if not 1 <= clusters <= 100 or patience < 1:
            raise UserError(
                f"clusters needs 1 to 100 clusters and a patience of at least 1, not {clusters!r}, {patience!r}."
            )
        if axis not in ("timestep", "log_snr"):
            raise UserError(f"the axis of clusters is timestep or log_snr, not {axis!r}.")
        low, high = self.low, self.high
        if axis == "timestep":
            bounds = np.linspace(low, high, clusters + 1)
        else:
            levels = schedule.log_snr(torch.tensor([low, high], dtype=torch.float64, device="cpu"))
            bounds = schedule.time_from_log_snr(
                torch.linspace(float(levels[0]), float(levels[1]), clusters + 1, dtype=torch.float64, device="cpu")
            ).numpy()
        # Cluster of each cell, 0 at the lowest noise. On some axes the lowest clusters are narrower than a cell; they are left out.
        found = np.searchsorted(bounds[1:-1], self.centres)
        self.cluster = np.unique(found, return_inverse=True)[1]
        self.patience = patience
        self.newest, self.best, self.waited = int(self.cluster.max()), math.inf, 0

    def update(self, t: Tensor, loss: Tensor) -> None:
        if self.newest == 0:
            return
        cell, losses = self._observed(t, loss)
        new = self.cluster[cell] == self.newest
        if not new.any():
            return
        mean = float(losses[new].mean())
        self.best, self.waited = (mean, 0) if mean < self.best else (self.best, self.waited + 1)
        if self.waited >= self.patience:
            self.newest, self.best, self.waited = self.newest - 1, math.inf, 0
            self._changed()

    def _masses_of_state(self) -> np.ndarray:
        trained = self.cluster >= self.newest
        return trained / trained.sum()

    def state_dict(self) -> dict[str, Any]:
        return {"newest": self.newest, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.newest, self.best, self.waited = int(state["newest"]), float(state["best"]), int(state["waited"])
        self._changed()
