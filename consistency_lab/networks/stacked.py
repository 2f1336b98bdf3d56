"""K networks of one architecture as one network: their weights stacked, each layer computed for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from consistency_lab.errors import UserError

SMALL = 2_000_000  # parameters of a network whose kernels leave a GPU idle: an estimate, not yet measured


class StackedNetwork(nn.Module):
    """Answers the k-th of K equal parts of a batch by the k-th network; ``(x, t, cond)`` and result are those of any network.

    A GPU that is idle between the small kernels of one network has K times as much to do in each. Sums are taken in another order than by
    the network alone, so results agree to rounding; they depend on K, and neither on the place of a network nor on its companions.

    Weights are copies, unless the two are tied (`tie`).

    Args:
        networks: two or more of one architecture, on one device; a place of none (None) is filled by the first.

    Raises:
        UserError: networks that differ in more than their weights, or that draw random numbers or keep statistics while they train.
    """

    def __init__(self, networks: Sequence[nn.Module | None]):
        super().__init__()
        own = [(place, network) for place, network in enumerate(networks) if network is not None]
        self._places, present = [place for place, _ in own], [network for _, network in own]
        stackable(present)
        self._first = [present[0]]  # in a list: its weights are not this module's
        self._own = [[p for _, p in network.named_parameters()] for network in present]
        self.size, self._names = len(networks), [name for name, _ in present[0].named_parameters()]
        self.stacked = nn.ParameterList()
        for each in zip(*self._own, strict=True):
            values = [each[0].detach()] * self.size
            for place, value in zip(self._places, each, strict=True):
                values[place] = value.detach()
            stacked = torch.stack([value.contiguous() for value in values])
            self.stacked.append(nn.Parameter(stacked, requires_grad=each[0].requires_grad))
        self._buffers_of_all = dict(present[0].named_buffers())

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """``(K B, C, H, W)``, ``(K B,)`` and labels ``(K B,)`` or None to ``(K B, C, H, W)``.

        Raises:
            UserError: torch cannot compute this architecture for several weights at once.
        """
        x, t = (each.unflatten(0, (self.size, -1)) for each in (x, t))
        cond = None if cond is None else cond.unflatten(0, (self.size, -1))
        weights = dict(zip(self._names, self.stacked, strict=True))

        def one(weights: dict[str, Tensor], x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            answer: Tensor = functional_call(self._first[0], (weights, self._buffers_of_all), (x, t, cond))
            return answer

        # torch has no rule for several of the processor's own attention, and would go through them one by one.
        plain = sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext()
        try:
            with plain:
                out: Tensor = vmap(one, in_dims=(0, 0, 0, None if cond is None else 0))(weights, x, t, cond)
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise UserError(
                f"torch cannot compute several {type(self._first[0]).__name__} at once ({str(error).splitlines()[0]}); "
                "train them one by one."
            ) from error
        return out.flatten(0, 1)

    def tie(self) -> None:
        """Make the networks' weights parts of these: what changes theirs in place changes these, and `gradients` gives each its own.

        Networks must then stay on their device, and keep their parameters.
        """
        for stacked, *each in zip(self.stacked, *self._own, strict=True):
            for place, value in zip(self._places, each, strict=True):
                value.data = stacked.detach()[place]

    def gradients(self) -> None:
        """Give each network's parameters the gradients that a backward pass has left here, and begin anew."""
        for stacked, *each in zip(self.stacked, *self._own, strict=True):
            for place, parameter in zip(self._places, each, strict=True):
                parameter.grad = None if stacked.grad is None else stacked.grad[place]
            stacked.grad = None


def stackable(networks: Sequence[nn.Module]) -> None:
    """Raise `UserError` for networks that cannot be stacked, as `StackedNetwork` does."""
    first = networks[0]
    shapes = {name: (p.shape, p.dtype, p.device, p.requires_grad) for name, p in first.named_parameters()}
    for other in networks[1:]:
        if {name: (p.shape, p.dtype, p.device, p.requires_grad) for name, p in other.named_parameters()} != shapes or (
            type(other) is not type(first)
        ):
            raise UserError("networks in lock-step are of one architecture, on one device; these differ in it.")
    for part in first.modules():
        if getattr(part, "p", 0) and "Dropout" in type(part).__name__:
            raise UserError(
                "a network with dropout draws random numbers of its own, so it cannot be trained in lock-step."
            )
    if kept := [
        name for name in first.state_dict() if name not in dict(first.named_parameters(remove_duplicate=False))
    ]:
        raise UserError(f"the network keeps {kept[0]!r} beside its weights, so it cannot be trained in lock-step.")
