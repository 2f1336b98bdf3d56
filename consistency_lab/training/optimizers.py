"""The optimizers that settings may name. All are torch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from consistency_lab.choices import Registry
from consistency_lab.errors import UserError


def _check_averages(**factors: float) -> None:
    """Raise `UserError` for a factor of a moving average outside [0, 1); torch takes such a momentum of SGD without a word."""
    for name, value in factors.items():
        if not 0.0 <= value < 1.0:
            raise UserError(f"{name} of an optimizer lies in [0, 1), not at {value!r}.")


def _one_kernel(parameters: Sequence[Tensor]) -> dict[str, bool]:
    """Have the optimizer step all parameters in one kernel where torch has one, which beside the default rounds in another order."""
    known = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return {"fused": True} if known else {}


def _adam(
    parameters: Sequence[nn.Parameter], lr: float, *, beta1: float = 0.9, beta2: float = 0.999
) -> torch.optim.Optimizer:
    _check_averages(beta1=beta1, beta2=beta2)
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, beta2), **_one_kernel(parameters))


def _adamw(
    parameters: Sequence[nn.Parameter],
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    _check_averages(beta1=beta1, beta2=beta2)
    decay: dict[str, Any] = {"weight_decay": weight_decay, **_one_kernel(parameters)}
    return torch.optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), **decay)


def _sgd(
    parameters: Sequence[nn.Parameter], lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    _check_averages(momentum=momentum)
    decay: dict[str, Any] = {"weight_decay": weight_decay, **_one_kernel(parameters)}
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, **decay)


def as_matrix(weight: Tensor) -> Tensor:
    """A weight of two or more dimensions as the matrix ``(outputs, everything else)``, a view of the same memory.

    A kernel whose channels lie last has its columns in that order; an orthogonal matrix stays one when its columns are permuted.

    Raises:
        UserError: no such view exists, as of a transposed kernel.
    """
    for order in (range(weight.ndim), (0, *range(2, weight.ndim), 1)):
        permuted = weight.detach().permute(*order)
        if permuted[0].is_contiguous():
            return permuted.as_strided((len(weight), permuted[0].numel()), (weight.stride(0), 1))
    raise UserError(
        f"a weight of shape {tuple(weight.shape)} and strides {weight.stride()} cannot be seen as a matrix, as Muon needs it; "
        "make it contiguous, or use adam."
    )


class _InFloat32(torch.Tensor):
    """A gradient whose step of torch's Muon is iterated in float32 where it would be in bfloat16.

    Many CPUs have no instructions for bfloat16 and multiply large matrices up to 25 times as slowly in it (`make bench ROW=muon`), and how
    they round differs between processors. Only the two methods that lie between a gradient and its iterations are changed: a mode that
    looks at every call of torch costs as much as the iterations of small matrices do.
    """

    # What is computed from it is a tensor as any other.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def lerp(self, end: Tensor, weight: float) -> Tensor:  # type: ignore[override]
        """Nesterov's step, which is what is iterated."""
        return super().lerp(end, weight).as_subclass(_InFloat32)

    def bfloat16(self) -> Tensor:
        """A copy, as the cast is one: it is divided in place."""
        return self.as_subclass(Tensor).clone()


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices and convolution kernels, Adam for all other weights, at one learning rate.

    The step of a matrix is its momentum with all singular values set to about 1 (five Newton-Schulz iterations), scaled to the root mean
    square that Adam's steps have (Liu et al. 2502.16982), so that a rate that is right for Adam is about right here. A kernel
    ``(outputs, inputs, height, width)`` counts as a matrix of ``outputs`` rows. Both optimizers are torch's; a CPU iterates in float32,
    a GPU in bfloat16.

    Args:
        parameters: of a network.
        lr: learning rate of both.
        momentum: of the matrices, with Nesterov's step.
        beta1, beta2: of Adam.
        weight_decay: of both, decoupled.

    Raises:
        UserError: factors outside [0, 1), a weight that is no matrix in memory, or a torch that has no Muon.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        beta1: float = 0.9,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
    ):
        _check_averages(momentum=momentum, beta1=beta1, beta2=beta2)
        if not hasattr(torch.optim, "Muon"):
            raise UserError(f"Muon came with torch 2.9, and this is {torch.__version__}; update torch or use adam.")
        self._weights = list(parameters)
        self._matrices = [(p, as_matrix(p)) for p in self._weights if p.ndim > 1]
        others = [p for p in self._weights if p.ndim < 2]
        self.parts: list[torch.optim.Optimizer] = []
        if self._matrices:
            views = [view for _, view in self._matrices]
            scaled: dict[str, Any] = {"adjust_lr_fn": "match_rms_adamw"}
            self.parts.append(torch.optim.Muon(views, lr, weight_decay, momentum, **scaled))
        if others:
            self.parts.append(_adamw(others, lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay))
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """The groups of both, themselves: who changes a rate here changes it there."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, of the weights themselves."""
        for weight in self._weights:
            if weight.grad is not None and not set_to_none:
                weight.grad.zero_()
            elif set_to_none:
                weight.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step along the gradients that the weights have; one without a gradient stays."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for weight, matrix in self._matrices:
            if matrix.data_ptr() != weight.data_ptr():  # the weight has been given other memory, as lock-step does
                matrix.data = as_matrix(weight)
            gradient = weight.grad
            matrix.grad = None if gradient is None else _laid_out(gradient, weight, matrix)
        for part in self.parts:
            part.step()
        for _, matrix in self._matrices:  # a copy of the weight's, of this step alone
            matrix.grad = None
        return value

    def __getstate__(self) -> dict[str, Any]:
        """All there is, for copies and pickles: torch's own lists three attributes by name and would leave both optimizers behind."""
        own = {name: getattr(self, name) for name in ("parts", "_weights", "_matrices")}
        return {**super().__getstate__(), **own}

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, its in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(its)
        self.param_groups = self._groups()


def _laid_out(gradient: Tensor, weight: Tensor, matrix: Tensor) -> Tensor:
    """A weight's gradient with its numbers where those of the weight's matrix are."""
    alike = torch.empty_strided(weight.shape, weight.stride(), dtype=gradient.dtype, device=gradient.device)
    laid = as_matrix(alike.copy_(gradient)).reshape(matrix.shape)
    return laid.as_subclass(_InFloat32) if laid.device.type == "cpu" else laid


OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry(
    "optimizer", {"adam": _adam, "adamw": _adamw, "sgd": _sgd, "muon": Muon}
)
