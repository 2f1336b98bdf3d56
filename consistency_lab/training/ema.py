"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from consistency_lab.errors import UserError

_WARMUP = 0.05  # the half-life never exceeds this fraction of the steps taken so far


class WeightAverage:
    """Average whose half-life is given in steps, and grows to it while the run is young (Karras et al. 2206.00364, appendix F.2).

    Without the warm-up the first, random weights would stay in the average for many half-lives.

    Args:
        module: the network; its parameters are averaged, and its buffers (the statistics of batch norm, the vectors of spectral norm) are
            at every update what they are in the module, whatever tensor that is by then.
        half_life: in steps.

    Raises:
        UserError: a module whose ``state_dict`` is not all of it: parameters without a size, or what is no tensor.
    """

    def __init__(self, module: nn.Module, half_life: float):
        self.module, self.half_life = module, half_life
        live = _state(module)
        self.weights = {key: value.detach().clone() for key, value in live.items()}
        self._parameters = {key: value for key, value in live.items() if isinstance(value, nn.Parameter)}
        self._averaged = [key for key, p in self._parameters.items() if p.is_floating_point() or p.is_complex()]
        self._unsaved = {key: value.detach().clone() for key, value in _unsaved(module).items()}

    def decay(self, step: int) -> float:
        """The factor that the average keeps at the ``step``-th update (the first is 1)."""
        return 0.5 ** (1.0 / max(1e-8, min(self.half_life, _WARMUP * step)))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the module's weights in.

        Raises:
            UserError: the module is no longer what it was built as, so that its file would not be the model (at the first step, for what
                a first forward pass makes).
        """
        live = _state(self.module)
        self._check(live)
        keys = self._averaged
        torch._foreach_lerp_([self.weights[k] for k in keys], [live[k] for k in keys], 1.0 - self.decay(step))
        for key, value in live.items():
            if key not in self._parameters:
                self.weights[key].copy_(value)

    def load(self, weights: dict[str, Tensor]) -> None:
        for key, value in weights.items():
            self.weights[key].copy_(value)

    def _check(self, live: dict[str, Tensor]) -> None:
        if live.keys() != self.weights.keys():
            new = min(live.keys() ^ self.weights.keys())
            raise UserError(
                f"the network makes or drops {new!r} while it is used, and a model that is loaded from its file is built without "
                "that; register it in __init__, with its size (register_buffer, or a layer of known size)."
            )
        for key, value in live.items():
            if value is not self._parameters.get(key, value):
                raise UserError(
                    f"the network puts another parameter in the place of {key!r} while it is used, which no optimizer trains; "
                    "change its values in place, or make it a buffer."
                )
            if value.shape != self.weights[key].shape:
                was, now = tuple(self.weights[key].shape), tuple(value.shape)
                raise UserError(
                    f"the buffer {key!r} had the shape {was} and now has {now}, so no network could be built for its file; "
                    "register it in __init__ in the shape that it keeps."
                )
        present = _unsaved(self.module) if self._unsaved else {}
        for key, value in self._unsaved.items():
            if key in present and value.shape == present[key].shape and not torch.equal(value, present[key]):
                raise UserError(
                    f"training changes the buffer {key!r}, which is registered with persistent=False and so in no file; "
                    "leave that out, so that a model that is loaded has it."
                )
        self._unsaved = {}  # what changes, changes in the first step


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, the tensors themselves."""
    state = module.state_dict(keep_vars=True)
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"the network keeps {key!r}, which is no tensor; weights are kept as tensors alone.")
        if is_lazy(value):
            raise UserError(f"{key!r} of the network has no size yet (a lazy layer); give the layer its sizes.")
    return state


def _unsaved(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that are in no file, those with content."""
    saved = {id(value) for value in module.state_dict(keep_vars=True).values()}
    return {key: value for key, value in module.named_buffers() if id(value) not in saved and value.numel()}
