"""The gradient at each noise level: how long its mean is, and how far the gradients of single samples scatter around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from consistency_lab.intervals import Array
from consistency_lab.probes.frozen import SampleLoss
from consistency_lab.probes.per_sample import gradient_of_one, gradients_per_sample

TOGETHER = 2**25  # numbers of samples' gradients that are held at a time


class GradientMoments(NamedTuple):
    """Squared norm of the mean gradient, trace of the gradients' covariance, and mean squared norm of one sample's gradient, each with
    its replicates: ``estimate`` (3,), ``without`` (groups, 3); and the mean square of each weight's gradient, ``by_weight``
    (parameters,)."""

    estimate: Array
    without: Array
    by_weight: Tensor


def gradient_moments(module: nn.Module, loss: SampleLoss, tensors: Sequence[Tensor], groups: int) -> GradientMoments:
    """Moments of the per-sample gradients g_i of a loss over all parameters (McCandlish et al. 1812.06162, appendix A).

        tr Cov = n / (n - 1) (mean |g_i|^2 - |mean g_i|^2),        |G|^2 = |mean g_i|^2 - tr Cov / n

    Both are unbiased: the norm of a mean of n noisy gradients is too long by the noise that is left in it, and its square without that
    part can fall below 0 where the mean cannot be told apart from 0.

    Only the sums of ``groups`` groups are kept (sample i in group i mod groups), and of the samples' own gradients as many as `TOGETHER`
    allows, or one: beyond these numbers memory is ``groups + 2`` times the parameters, however many samples there are.

    Args:
        module: whose parameters, those that ask for gradients, are differentiated.
        loss: ``loss(module, *tensors) -> (B,)``.
        tensors: of n samples, two or more.
        groups: that are left out in turn.
    """
    parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    size, count = sum(p.numel() for p in parameters), len(tensors[0])
    sums = torch.zeros(groups, size, dtype=torch.float32, device=tensors[0].device)
    by_weight = torch.zeros(size, dtype=torch.float32, device=tensors[0].device)
    squares = torch.zeros(groups, dtype=torch.float64, device=tensors[0].device)
    members = np.bincount(np.arange(count) % groups, minlength=groups).astype(np.float64)
    done = 0
    for pieces in _gradients(module, loss, tensors, parameters, max(1, TOGETHER // size)):
        group = torch.arange(done, done + len(pieces[0]), device=sums.device) % groups
        done, begin = done + len(group), 0
        for rows in pieces:  # parameter by parameter: temporary tensors stay small
            here = slice(begin, begin := begin + rows.shape[1])
            sums[:, here].index_add_(0, group, rows)
            square = rows.square()
            squares.index_add_(0, group, square.sum(1, dtype=torch.float64))
            by_weight[here] += square.sum(0) / count
    # Nothing comes home before all samples are through.
    gram, squared = _gram(sums).cpu().numpy(), squares.cpu().numpy()
    everyone = np.ones(groups, dtype=bool)
    without = [_moments(gram, squared, members, everyone & (np.arange(groups) != g)) for g in range(groups)]
    return GradientMoments(_moments(gram, squared, members, everyone), np.stack(without), by_weight)


def _gradients(
    module: nn.Module, loss: SampleLoss, tensors: Sequence[Tensor], parameters: list[Tensor], together: int
) -> Iterator[list[Tensor]]:
    """The samples' own gradients ``(samples, n)``, up to so many at a time and parameter by parameter where one pass gives them; of one
    sample and over all parameters elsewhere."""
    for parts in zip(*(x.split(together) for x in tensors), strict=True):
        rows = gradients_per_sample(module, loss, parts, parameters) if len(parts[0]) > 1 else None
        if rows is not None:
            yield rows
            continue
        for i in range(len(parts[0])):
            yield [gradient_of_one(module, loss, [x[i : i + 1] for x in parts], parameters)[None]]


def adam_moments(by_weight: Sequence[Tensor]) -> Array:
    """E |g_t|^2 at each t in the metric in which Adam's steps descend: sum_i E g_ti^2 / sqrt(v_i), v the mean over t of E g_t^2.

    Adam divides each weight's step by sqrt(v_i) (Kingma & Ba 1412.6980), so that weights count that are quiet as well as loud ones. See
    `consistency_lab.recipe` for what it is good for.

    Args:
        by_weight: of each t, see `GradientMoments`; ``(parameters,)`` each.
    """
    scale = torch.stack(list(by_weight)).mean(0).double().sqrt()
    used = scale > 0
    return torch.stack([(row[used].double() / scale[used]).sum() for row in by_weight]).cpu().numpy()


def _gram(rows: Tensor) -> Tensor:
    """Inner products in float64, a few million numbers at a time."""
    width = max(1, 2**22 // len(rows))
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in rows.split(width, 1):
        wide = part.double()
        total += wide @ wide.T
    return total


def _moments(gram: Array, squares: Array, members: Array, kept: np.ndarray) -> Array:
    n = members[kept].sum()
    if n < 2:
        return np.full(3, np.nan)
    single, mean = squares[kept].sum() / n, gram[np.ix_(kept, kept)].sum() / n**2
    trace = n / (n - 1) * (single - mean)
    return np.array([mean - trace / n, trace, single])
