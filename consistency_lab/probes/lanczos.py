"""Eigenvalues of an operator from products with it: extreme pairs, and the density of all (Lanczos)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from consistency_lab.errors import UserError
from consistency_lab.intervals import Array

MEMORY = 2**30  # bytes for the bases of runs that go side by side


class Operator(Protocol):
    """A symmetric matrix ``(size, size)`` that can be multiplied with."""

    size: int

    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def __matmul__(self, vectors: Tensor) -> Tensor: ...


def gaussian(operator: Operator, columns: int, generator: torch.Generator) -> Tensor:
    """Standard normal columns ``(P, k)``, drawn on the CPU so that devices agree, one by one so that k makes no difference to them."""
    draws = [torch.randn(operator.size, generator=generator, dtype=torch.float64, device="cpu") for _ in range(columns)]
    return torch.stack(draws, 1).to(operator.device, operator.dtype)


@dataclass(frozen=True)
class Krylov:
    """What one Lanczos run knows: ``basis^T H basis`` is the tridiagonal matrix of ``diagonal`` and ``beside``.

    Attributes:
        diagonal: ``(m,)``.
        beside: ``(m,)``; the last is what leads out of the basis, 0 where the space is invariant.
        basis: ``(P, m)``, orthonormal.
    """

    diagonal: Array
    beside: Array
    basis: Tensor

    def ritz(self) -> tuple[Array, Array]:
        """Ritz values, rising, and the eigenvectors ``(m, m)`` of the tridiagonal matrix, one column each."""
        matrix = np.diag(self.diagonal) + np.diag(self.beside[:-1], 1) + np.diag(self.beside[:-1], -1)
        return np.linalg.eigh(matrix)

    def errors(self, inside: Array) -> Array:
        """``|H v - value v|`` of the Ritz pairs whose vectors in the basis are given."""
        return np.abs(self.beside[-1] * inside[-1])


def lanczos(
    operator: Operator,
    start: Tensor,
    steps: int,
    *,
    against: Tensor | None = None,
    stop: Callable[[Krylov], bool] | None = None,
) -> list[Krylov]:
    """Several Lanczos runs at once, with full re-orthogonalisation, twice at each step.

    Args:
        operator: H.
        start: first vectors, a column for each run ``(P, k)``; bases have their dtype.
        steps: at most; a run also ends where its space is invariant, to rounding.
        against: orthonormal columns ``(P, j)`` that all runs stay orthogonal to.
        stop: asked every 5 steps where there is one run.
    """
    runs, steps = start.shape[1], min(steps, operator.size - (0 if against is None else against.shape[1]))
    bases = torch.empty(steps, operator.size, runs, dtype=start.dtype, device=operator.device)
    diagonal, beside = np.zeros((steps, runs)), np.zeros((steps, runs))
    lengths = np.full(runs, steps)
    tiny = 100 * torch.finfo(start.dtype).eps

    def purged(vectors: Tensor, upto: int) -> Tensor:
        for _ in range(2):
            if against is not None:
                vectors = vectors - against @ (against.T @ vectors)
            known = bases[:upto]
            vectors = vectors - torch.einsum("spk,sk->pk", known, torch.einsum("spk,pk->sk", known, vectors))
        return vectors

    def knowledge(run: int, upto: int) -> Krylov:
        return Krylov(diagonal[:upto, run], beside[:upto, run], bases[:upto, :, run].T)

    current = purged(start.to(operator.device), 0)
    current = current / current.norm(dim=0)
    for step in range(steps):
        bases[step] = current
        product = (operator @ current).to(current)
        diagonal[step] = (current * product).sum(0).double().cpu().numpy()
        rest = purged(product, step + 1)
        beside[step] = rest.norm(dim=0).double().cpu().numpy()
        size = np.abs(np.concatenate([diagonal[: step + 1], beside[: step + 1]])).max(0)
        ended = (beside[step] <= tiny * size) & (lengths > step + 1)
        lengths[ended] = step + 1
        # What a run is given after its end does not enter its result.
        current = rest / torch.from_numpy(np.where(beside[step] > 0, beside[step], 1.0)).to(rest)
        if (lengths <= step + 1).all():
            break
        if stop is not None and runs == 1 and step % 5 == 4 and stop(knowledge(0, step + 1)):
            lengths[0] = step + 1
            break
    return [knowledge(run, int(lengths[run])) for run in range(runs)]


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues at one end of a spectrum.

    Attributes:
        values: ``(k,)``, the outermost first.
        vectors: ``(P, k)``, float64.
        residuals: ``|H v - value v|``, computed with the vectors themselves: an eigenvalue lies no further from the value than that.
        converged: whether a residual is below the tolerance times the absolute value itself. A value that is zero to the rounding of
            float64 has converged too; one that float32 products cannot tell from zero has not.
    """

    values: Array
    vectors: Tensor
    residuals: Array
    converged: np.ndarray


def _within(residuals: Array, values: Array, tolerance: float, largest: float) -> np.ndarray:
    """Whether each residual is small beside its own value, however large others are; or both are rounding."""
    rounding = 100 * np.finfo(np.float64).eps * largest
    return residuals <= np.maximum(tolerance * np.abs(values), np.where(np.abs(values) <= rounding, rounding, 0.0))


def extreme_eigenpairs(
    operator: Operator, count: int = 4, *, steps: int = 60, tolerance: float = 1e-3, seed: int = 0
) -> tuple[Eigenpairs, Eigenpairs]:
    """The ``count`` highest and the ``count`` lowest eigenpairs.

    One Lanczos run finds one vector for each value, however often the value occurs. Further runs, orthogonal to what has converged, look
    for what the earlier ones overlooked, until a run finds nothing that is further out by more than the tolerance. Bases are float64
    whatever the products are: beside an eigenvalue of 1e7 one of 100 is lost in the rounding of a float32 basis.

    Args:
        operator: H.
        count: pairs at each end.
        steps: products of a run, at most.
        tolerance: of each residual, over the absolute value of its own eigenvalue.
        seed: of the first vectors.

    Returns:
        top and bottom.

    Raises:
        UserError: more pairs than there are, or than the steps can find.
    """
    if not 1 <= count <= operator.size:
        raise UserError(f"{count} eigenvalues were asked for, and the matrix has {operator.size}.")
    if steps < min(2 * count, operator.size):
        raise UserError(f"{count} eigenvalues at each end need at least {2 * count} Lanczos steps, not {steps}.")
    generator = torch.Generator().manual_seed(seed)
    values, vectors = np.empty(0), torch.empty(operator.size, 0, dtype=torch.float64, device=operator.device)

    def news(ritz: Array) -> np.ndarray:
        """Which Ritz values, rising, are at an end: in later runs those that are further out than what is known."""
        ends = np.unique(np.concatenate([np.arange(len(ritz))[:count], np.arange(len(ritz))[-count:]]))
        if len(values) < count:
            return ends
        lowest, highest = np.sort(values)[count - 1], np.sort(values)[-count]
        below, above = lowest - tolerance * abs(lowest), highest + tolerance * abs(highest)
        return ends[(ritz[ends] < below) | (ritz[ends] > above)]

    def good(run: Krylov, ritz: Array, inside: Array, share: float = 1.0) -> np.ndarray:
        largest = np.abs(np.concatenate([ritz, values])).max()
        return _within(run.errors(inside), ritz, share * tolerance, largest)

    def done(run: Krylov) -> bool:
        ritz, inside = run.ritz()
        if len(ritz) < min(2 * count, operator.size):
            return False
        if len(fresh := news(ritz)):
            return bool(good(run, ritz, inside, 0.3)[fresh].all())
        errors = run.errors(
            inside
        )  # nothing further out yet: not to be expected once the ends of the run are known well enough
        return not len(news(np.array([ritz[0] - errors[0], ritz[-1] + errors[-1]])))

    # Each run finds at least the outermost value that is left, so that ``count`` runs find all and one more finds nothing.
    for number in range(count + 1):
        if vectors.shape[1] == operator.size:
            break
        (run,) = lanczos(operator, gaussian(operator, 1, generator).double(), steps, against=vectors, stop=done)
        ritz, inside = run.ritz()
        fresh, settled = news(ritz), good(run, ritz, inside)
        if number:  # of later runs only what has converged is new: the rest may be what is known, seen dimly
            fresh = fresh[settled[fresh]]
            if not len(fresh):
                break
        columns = run.basis @ torch.from_numpy(inside[:, fresh]).to(run.basis)
        vectors = torch.cat([vectors, columns / columns.norm(dim=0)], 1)
        values = np.concatenate([values, ritz[fresh]])
        if not settled[fresh].all():
            break  # what has not converged cannot be kept out of the next run
    order = np.argsort(values)
    top, bottom = order[::-1][:count], order[:count]
    return _chosen(operator, values, vectors, top, tolerance), _chosen(operator, values, vectors, bottom, tolerance)


def _chosen(operator: Operator, values: Array, vectors: Tensor, order: np.ndarray, tolerance: float) -> Eigenpairs:
    columns, found = vectors[:, torch.from_numpy(order.copy())], values[order]
    off = (operator @ columns).to(columns) - columns * torch.from_numpy(found).to(columns)
    residuals = off.norm(dim=0).cpu().numpy()
    return Eigenpairs(found, columns, residuals, _within(residuals, found, tolerance, np.abs(values).max()))


@dataclass(frozen=True)
class Quadrature:
    """Stochastic Lanczos quadrature: nodes and weights ``(probes, steps)``; weights of a probe add up to 1, NaN beyond a run's end."""

    nodes: Array
    weights: Array

    def moments(self, power: int) -> Array:
        """The mean power of an eigenvalue, one estimate for each probe."""
        return np.nansum(self.weights * self.nodes**power, axis=1)

    def density(self, grid: Array, width: float) -> Array:
        """Per probe ``(probes, grid)``: every node as a normal density of that standard deviation."""
        distance = (grid - self.nodes[..., None]) / width
        bumps = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
        return np.nansum(self.weights[..., None] * bumps, axis=1)

    def middle(self, share: float) -> tuple[float, float, float]:
        """Between which two eigenvalues that share of all lies, as much below as above, and the mean distance of a probe's nodes there."""
        known = np.isfinite(self.nodes)
        order = np.argsort(self.nodes[known])
        nodes, below = self.nodes[known][order], np.cumsum(self.weights[known][order]) / len(self.nodes)
        ends = np.searchsorted(below, [(1 - share) / 2, (1 + share) / 2]).clip(0, len(nodes) - 1)
        low, high = map(float, nodes[ends])
        return low, high, (high - low) * len(self.nodes) / float(np.ptp(ends) + 1)

    def grid(self, points: int, width: float) -> Array:
        """Evenly spaced, 5 widths beyond the outermost nodes."""
        return np.linspace(np.nanmin(self.nodes) - 5 * width, np.nanmax(self.nodes) + 5 * width, points)


def quadrature(operator: Operator, *, probes: int = 4, steps: int = 40, seed: int = 0) -> Quadrature:
    """Nodes and weights of the density of eigenvalues (Ghorbani et al. 1901.10159, section 2), each probe an unbiased estimate.

    Args:
        operator: H.
        probes: random unit vectors.
        steps: products for each.
        seed: of the probes.
    """
    generator = torch.Generator().manual_seed(seed)
    each = steps * operator.size * torch.finfo(operator.dtype).bits // 8
    together = max(1, min(probes, MEMORY // each))
    nodes, weights = np.full((probes, steps), np.nan), np.full((probes, steps), np.nan)
    for first in range(0, probes, together):
        start = gaussian(operator, min(together, probes - first), generator)
        for row, run in enumerate(lanczos(operator, start, steps), start=first):
            ritz, inside = run.ritz()
            nodes[row, : len(ritz)], weights[row, : len(ritz)] = ritz, inside[0] ** 2
    return Quadrature(nodes, weights)
