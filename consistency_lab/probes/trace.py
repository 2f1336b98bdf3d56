"""The trace of an operator from products with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from consistency_lab.errors import UserError
from consistency_lab.intervals import Array
from consistency_lab.probes.lanczos import Operator, gaussian


@dataclass(frozen=True)
class Trace:
    """An estimate of a trace.

    Attributes:
        value: unbiased.
        error: standard error over the random vectors that it was estimated with.
        parts: the same for each of the operators whose mean was taken; their weighted mean is ``value``.
    """

    value: float
    error: float
    parts: Array


def trace(parts: Sequence[Operator], shares: Sequence[float], *, products: int = 30, seed: int = 0) -> Trace:
    """Hutch++ (Meyer et al. 2010.09649, algorithm 1) of ``sum_i shares[i] * parts[i]``.

    The estimate is linear in the operator once its vectors are drawn, so the parts (a loss on some of the images each) cost nothing more
    than their mean, and their spread is that over images.

    Args:
        parts: operators of one size.
        shares: their weights, which add up to 1.
        products: columns that are multiplied: a third finds the range, a third is traced there, a third estimates the rest.
        seed: of the vectors.

    Raises:
        UserError: fewer than 6 products, from which there is no standard error.
    """
    if products < 6:
        raise UserError(f"a trace needs at least 6 products, not {products}.")
    first, generator = parts[0], torch.Generator().manual_seed(seed)
    # A third of the columns, or all there are: then the rest is empty and the trace exact.
    rank = min(products // 3, first.size)
    sketch = gaussian(first, rank, generator)
    image = sum(share * (part @ sketch) for part, share in zip(parts, shares, strict=True))
    basis = torch.linalg.qr(image).Q
    signs = torch.sign(gaussian(first, products // 3, generator))
    rest = signs - basis @ (basis.T @ signs)
    inside, beside = [], []
    for part in parts:
        image = part @ torch.cat([basis, rest], 1)
        inside.append(float((basis * image[:, :rank]).double().sum()))
        beside.append((rest * image[:, rank:]).double().sum(0).cpu().numpy())
    weights = np.asarray(shares, dtype=np.float64)
    samples = weights @ np.stack(beside)  # (products // 3,)
    values = np.array(inside) + np.stack(beside).mean(1)
    return Trace(float(weights @ values), float(samples.std(ddof=1) / len(samples) ** 0.5), values)
