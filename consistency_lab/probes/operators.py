"""The Hessian of a loss on a frozen batch, and its Gauss-Newton part, as operators: ``H @ V``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from consistency_lab.devices import measuring
from consistency_lab.errors import UserError
from consistency_lab.networks.reentrant import differentiating
from consistency_lab.probes.directions import as_filters
from consistency_lab.probes.subject import Split, Subject
from consistency_lab.probes.twice import twice_differentiable

Product = Callable[[list[Tensor]], Sequence[Tensor] | None]
"""A vector in the shapes of the weights to a matrix times it; None for 0."""


HELD = 1024  # samples whose graph is kept between products


class CurvatureOperator(ABC):
    """A symmetric matrix of second derivatives of the mean loss of a subject: ``operator @ V`` for ``V`` ``(P,)`` or ``(P, k)``.

    The mean is over samples, whatever the chunks, a ragged last one included. The module is left as it was: its weights are not written,
    ``requires_grad`` is set for the time of a product and set back, gradients do not gather.

    Args:
        subject: the loss; call its `check` first.
        parameters: names of the parameters that the matrix is over; all by default.
        scaled: make it D H D with the diagonal D of the filters' norms over the root of their sizes, and 0 for one-dimensional parameters.
            Then its trace is the mean curvature along `random_axes`, and does not depend on scales of filters that the network does not
            notice (unscaled: loss per squared weight).

    Raises:
        UserError: a parameter that the module does not have.
    """

    name: str

    def __init__(self, subject: Subject, parameters: Sequence[str] | None = None, *, scaled: bool = False):
        known = dict(subject.module.named_parameters())
        names = list(known) if parameters is None else list(parameters)
        if missing := [name for name in names if name not in known]:
            raise UserError(f"{subject.name!r} has no parameter {missing[0]!r}; it has {', '.join(known)}.")
        if not names:
            raise UserError("a curvature needs at least one parameter.")
        self.subject, self.names = subject, names
        self.weights = [known[name] for name in names]
        self.size = sum(p.numel() for p in self.weights)
        self.scale = torch.cat([_filter_scale(p) for p in self.weights]) if scaled else None
        self._hold = False
        self._held: list[Product] = []

    @property
    def dtype(self) -> torch.dtype:
        return self.weights[0].dtype

    @property
    def device(self) -> torch.device:
        return self.weights[0].device

    def restricted(self, subject: Subject) -> CurvatureOperator:
        """The same operator for the same module on another batch."""
        return type(self)(subject, self.names, scaled=self.scale is not None)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        if vectors.dim() not in (1, 2) or len(vectors) != self.size:
            raise UserError(f"the operator takes vectors of length {self.size}, not {tuple(vectors.shape)}.")
        rows = vectors.to(self.device, self.dtype).reshape(self.size, -1).T.contiguous()
        if self.scale is not None:
            rows = rows * self.scale
        result = torch.zeros_like(rows)
        # Attention has second derivatives in the MATH kernel only.
        with measuring(), differentiating(), _differentiable(self), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            for times in self._chunks():
                for row, sum_ in zip(rows, result, strict=True):
                    if (found := times(self._split(row))) is not None:
                        sum_ += torch.cat([gradient.flatten() for gradient in found])
        if self.scale is not None:
            result = result * self.scale
        return result.T.reshape(vectors.shape)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What does not depend on the vector is computed once for all products inside; the module must not change there.

        That is a graph with the intermediate results of all samples. For more than `HELD` of them it is computed anew, chunk by chunk.
        """
        self._hold = len(self.subject.batch) <= HELD
        try:
            yield
        finally:
            self._hold, self._held = False, []

    def _chunks(self) -> Iterator[Product]:
        """The products with the matrices of the chunks."""
        if self._held:
            yield from self._held
            return
        batch, held = self.subject.batch, []
        for parts in zip(*(x.split(batch.chunk) for x in batch.tensors), strict=True):
            times = self._product(parts)
            if self._hold:
                held.append(times)
            yield times
        self._held = held

    @abstractmethod
    def _product(self, parts: tuple[Tensor, ...]) -> Product:
        """The product with one chunk's share of the matrix."""

    def _split(self, row: Tensor) -> list[Tensor]:
        pieces = row.split([p.numel() for p in self.weights])
        return [piece.reshape(p.shape) for piece, p in zip(pieces, self.weights, strict=True)]


class Hessian(CurvatureOperator):
    """Second derivatives of the loss, by differentiating twice (Pearlmutter 1994)."""

    name = "hessian"

    def _product(self, parts: tuple[Tensor, ...]) -> Product:
        with twice_differentiable():
            loss = self.subject.loss(self.subject.module, *parts).sum() / len(self.subject.batch)
        _require_graph(loss)
        gradients = torch.autograd.grad(loss, self.weights, create_graph=True, allow_unused=True)
        bent = [g is not None and g.requires_grad for g in gradients]
        outputs = list(compress(gradients, bent))

        def times(vector: list[Tensor]) -> Sequence[Tensor] | None:
            if not outputs:
                return None  # the loss is linear in the weights
            along = list(compress(vector, bent))
            return torch.autograd.grad(outputs, self.weights, along, retain_graph=True, materialize_grads=True)

        return times


class GaussNewton(CurvatureOperator):
    """``J^T (d^2 loss / d output^2) J``: what remains where the output is linear in the weights (Schraudolph 2002).

    Raises:
        UserError: the subject's loss is not split into an output and a function of it, or not into what it is.
    """

    name = "gauss_newton"

    def __init__(self, subject: Subject, parameters: Sequence[str] | None = None, *, scaled: bool = False):
        super().__init__(subject, parameters, scaled=scaled)
        if subject.split is None:
            raise UserError(f"the loss of {subject.name!r} is not split into output and loss; Gauss-Newton needs that.")
        self.split: Split = subject.split
        first = [x[: subject.batch.chunk] for x in subject.batch.tensors]
        with measuring(), torch.no_grad():
            whole = subject.loss(subject.module, *first)
            composed = self.split.loss(self.split.output(subject.module, *first), *first)
        if whole.shape != composed.shape or not torch.allclose(whole, composed, rtol=1e-4):
            raise UserError(f"the split of {subject.name!r} does not give its loss.")

    def _product(self, parts: tuple[Tensor, ...]) -> Product:
        with twice_differentiable():
            output = self.split.output(self.subject.module, *parts)
        _require_graph(output)
        # J v is the derivative of J^T u in u, which is linear in u.
        dual = torch.zeros_like(output, requires_grad=True)
        pulled = torch.autograd.grad(output, self.weights, dual, create_graph=True, allow_unused=True)
        used = [g is not None for g in pulled]
        outputs = list(compress(pulled, used))
        end = output.detach().requires_grad_()
        loss = self.split.loss(end, *parts).sum() / len(self.subject.batch)
        (slope,) = torch.autograd.grad(loss, end, create_graph=True)

        def times(vector: list[Tensor]) -> Sequence[Tensor] | None:
            if not slope.requires_grad:
                return None  # the loss is linear in the output
            (pushed,) = torch.autograd.grad(outputs, dual, list(compress(vector, used)), retain_graph=True)
            (bent,) = torch.autograd.grad(slope, end, pushed, retain_graph=True)
            return torch.autograd.grad(output, self.weights, bent, retain_graph=True, materialize_grads=True)

        return times


OPERATORS: dict[str, type[CurvatureOperator]] = {"hessian": Hessian, "gauss_newton": GaussNewton}


def _filter_scale(weights: Tensor) -> Tensor:
    """Per element, the norm of its filter over the root of the filter's size; 0 where `random_axes` does not move it."""
    rows = as_filters(weights.detach())
    if weights.dim() <= 1 or rows.shape[1] < 2:
        return torch.zeros_like(weights.detach()).flatten()
    return (rows.norm(dim=1, keepdim=True) / rows.shape[1] ** 0.5).expand_as(rows).flatten()


def _require_graph(value: Tensor) -> None:
    if not value.requires_grad:
        raise UserError("the loss does not depend on the parameters that were chosen, so it has no curvature in them.")


@contextmanager
def _differentiable(operator: CurvatureOperator) -> Iterator[None]:
    """Gradients for the operator's parameters and no others, until the end of the block."""
    flags = [(p, p.requires_grad) for p in operator.subject.module.parameters()]
    chosen = {id(p) for p in operator.weights}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
