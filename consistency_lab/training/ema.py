"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WARMUP = 0.05  # the half-life never exceeds this fraction of the steps taken so far


class WeightAverage:
    """Average whose half-life is given in steps, and grows to it while the run is young (Karras et al. 2206.00364, appendix F.2).

    Without the warm-up the first, random weights would stay in the average for many half-lives.

    Args:
        module: the network; its parameters are averaged and its buffers copied.
        half_life: in steps.
    """

    def __init__(self, module: nn.Module, half_life: float):
        self.half_life = half_life
        self._live = module.state_dict()
        self.weights = {key: value.detach().clone() for key, value in self._live.items()}

    def decay(self, step: int) -> float:
        """The factor that the average keeps at the ``step``-th update (the first is 1)."""
        return 0.5 ** (1.0 / max(1e-8, min(self.half_life, _WARMUP * step)))

    @torch.no_grad()
    def update(self, step: int) -> None:
        keys = [key for key, value in self._live.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[k] for k in keys], [self._live[k] for k in keys], 1.0 - self.decay(step))
        for key, value in self._live.items():
            if not value.is_floating_point():
                self.weights[key].copy_(value)

    def load(self, weights: dict[str, Tensor]) -> None:
        for key, value in weights.items():
            self.weights[key].copy_(value)
