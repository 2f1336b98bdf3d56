"""What a distance between images is: an embedding, a comparison of embeddings, and the null that other noise would give."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from consistency_lab.devices import at_a_time, places
from consistency_lab.errors import UserError

RANGE = 2.0  # width of the image range [-1, 1]
_ELEMENTS = 2**22  # embedding values that are held in float64 at a time (32 MiB)
_CACHED = 2**17  # of those that several sums are taken of: what fits into the processor's cache (1 MiB)
_CLOSE = 1e-4  # of |a|^2 + |b|^2: a squared distance below that has lost four digits or more

Groups = Sequence[np.ndarray] | Sequence[Tensor] | None


class Distance(ABC):
    """A way to compare image i of one model with image i of another.

    Images are embedded once per model, so that K models cost K embeddings and not K (K - 1).

    Attributes:
        name: how results and the command line call it.
        unit: of its values.
        note: what else a reader of the values must know: resizing, weights. Empty where there is nothing to say.
        scored: whether 1 - distance / null is a consistency score; only for distances, where 0 means equal.
        better: ``"lower"`` or ``"higher"``.
        shifts: how many cyclic shifts of the samples the null is averaged over, where it has no closed form; 0 where it has one.
    """

    name: str
    unit: str
    note: str = ""
    scored: bool = True
    better: str = "lower"
    shifts: int = 8

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """What is kept of images ``(N, C, H, W)``: ``(N, ...)``, float64 unless that would be large.

        Raises:
            UserError: no such tensor, or values that are not finite.
        """

    @abstractmethod
    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of embedding i of ``a`` to embedding i of ``b``: ``(N,)`` float64."""

    def null(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean distance of sample i of one model to the samples j != i of the other, averaged over both directions: ``(N,)``.

        Its mean over i is the mean over all i != j. Here over the samples i + s and i - s for `shifts` values of s (all of them where
        there are no more); exact in any case for squared distances.

        Raises:
            UserError: fewer than two samples, for which there is no other noise.
        """
        return self.pairwise([a, b], [(0, 1)])[1][0]

    def shifted(self, embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], shift: int) -> Tensor:
        """The distance of sample i of one model to sample i - shift of the other, of pairs of models: ``(P, N)`` float64."""
        return torch.stack([self.between(embedded[a], embedded[b].roll(shift, 0)) for a, b in pairs]).double()

    def at_shifts(
        self, embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], shifts: Sequence[int]
    ) -> Iterator[Tensor]:
        """`shifted` for several shifts, one after the other; a metric to which they cost less together makes them together."""
        return (self.shifted(embedded, pairs, shift) for shift in shifts)

    def pairwise(
        self,
        embedded: Sequence[Tensor],
        pairs: Sequence[tuple[int, int]],
        groups: Groups = None,
        shifts: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`between` and `null` of pairs of models, each ``(P, N)`` float64: what compares K models in one go.

        Args:
            embedded: of each model, all of one shape.
            pairs: indices of two of them.
            groups: places of the samples among which the null is taken, group by group; None: among all.
            shifts: instead of the distance's own, where its null has no closed form.
        """
        distance = self.shifted(embedded, pairs, 0)
        null = torch.empty_like(distance)
        both = [*pairs, *((b, a) for a, b in pairs)]
        for group in all_or(groups):
            parts = [each[group] for each in embedded]
            check_samples(parts[0])
            n = len(parts[0])
            total, weights = torch.zeros_like(null[:, group]), 0.0
            chosen = chosen_shifts(n // 2, self.shifts if shifts is None else shifts)
            for shift, values in zip(chosen, self.at_shifts(parts, both, chosen), strict=True):
                weight = 0.5 if 2 * shift == n else 1.0  # i + n/2 and i - n/2 are one sample
                # Each value belongs to sample i and to sample i - s: a delete-one jackknife over samples may then use these rows.
                values = weight * (values + values.roll(-shift, 1))
                total += values[: len(pairs)] + values[len(pairs) :]
                weights += 4 * weight
            null[:, group] = total / weights
        return distance, null


def chosen_shifts(most: int, count: int) -> list[int]:
    """``count`` whole numbers from 1 to ``most``, evenly spread; all of them where there are no more."""
    spread = torch.linspace(1, most, min(count, most), dtype=torch.float32, device="cpu")
    return [int(s) for s in spread.round().long().unique().tolist()]


class SquaredDistance(Distance):
    """A distance that is the squared Euclidean distance of embeddings ``(N, F)``: its null over all i != j follows from sums, in O(N).

    Embeddings may be float32; sums are taken in float64, a few rows or columns at a time.
    """

    shifts = 0

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        rows = max(1, _ELEMENTS // max(1, a.shape[1]))
        parts = zip(a.split(rows), b.split(rows), strict=True)
        return torch.cat([(u.double() - v.double()).pow(2).sum(1) for u, v in parts])

    def shifted(self, embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], shift: int) -> Tensor:
        return squared_distances(embedded, pairs, [shift])[0]

    def pairwise(
        self,
        embedded: Sequence[Tensor],
        pairs: Sequence[tuple[int, int]],
        groups: Groups = None,
        shifts: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Distance.pairwise`; of all pairs together, from inner products.

        The sum over all j of |a_i - b_j|^2 is n |a_i|^2 + sum |b|^2 - 2 a_i sum(b). The null is that of both directions without j = i.
        """
        gram = _no_products(embedded)
        first, second = (places(side, gram.device) for side in zip(*pairs, strict=True))
        onto = torch.zeros_like(gram)
        for part in _centred_columns(embedded):
            gram.baddbmm_(part, part.mT)
            for group in all_or(groups):
                onto[group] += part[group] @ part[group].sum(0).T
        squares = gram.diagonal(dim1=1, dim2=2).T.contiguous()
        distance = _from_products(embedded, pairs, squares[first] + squares[second], gram)
        onto = onto + onto.mT  # of both directions
        null = torch.empty_like(distance)
        for group in all_or(groups):
            check_samples(embedded[0][group])
            norms, n = squares[:, group], len(embedded[0][group])
            total = norms.sum(1, keepdim=True)
            both = n * (norms[first] + norms[second]) + total[first] + total[second]
            both -= 2 * _of_pairs(onto[group], pairs)
            null[:, group] = (0.5 * both - distance[:, group]).div_(n - 1).clamp_min(0.0)
        return distance, null

    def matrix(self, embedded: Tensor) -> Tensor:
        """All pairs at once, from one Gram matrix in float64: ``(N, F)`` -> ``(N, N)``, symmetric, never negative, 0 on the diagonal."""
        check_samples(embedded)
        n, origin = len(embedded), embedded[0].double()
        gram = torch.zeros(n, n, dtype=torch.float64, device=embedded.device)
        width = max(1, _ELEMENTS // n)
        for part, start in zip(embedded.split(width, 1), origin.split(width), strict=True):
            centred = part.double() - start
            gram += centred @ centred.T
        gram = 0.5 * (gram + gram.T)
        squares = gram.diagonal()
        distances = (squares[:, None] + squares - 2 * gram).clamp_min(0.0)
        return distances.fill_diagonal_(0.0)


def squared_distances(
    embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], shifts: Sequence[int]
) -> list[Tensor]:
    """|a_i - b_(i - shift)|^2 of pairs of models, ``(P, N)`` float64 a shift, from inner products of all models' embeddings ``(N, F)``."""
    first, second = (places(side, embedded[0].device) for side in zip(*pairs, strict=True))
    grams = [_no_products(embedded) for _ in shifts]
    squares = grams[0][:, 0].clone()
    for part in _centred_columns(embedded):
        squares += part.pow(2).sum(2)
        for gram, shift in zip(grams, shifts, strict=True):
            gram.baddbmm_(part, part.roll(shift, 0).mT)
    squares = squares.T.contiguous()
    sums = [squares[first] + squares.roll(shift, 1)[second] for shift in shifts]
    return [_from_products(embedded, pairs, *each) for each in zip(sums, grams, shifts, strict=True)]


def _no_products(embedded: Sequence[Tensor]) -> Tensor:
    models = len(embedded)
    return torch.zeros(len(embedded[0]), models, models, dtype=torch.float64, device=embedded[0].device)


def _centred_columns(embedded: Sequence[Tensor]) -> Iterator[Tensor]:
    """Some columns of all models at a time, ``(N, K, columns)`` float64, in one piece of memory.

    All are centred by one common point, which changes no distance: differences of large equal terms would cost digits.
    """
    samples, models, like = len(embedded[0]), len(embedded), embedded[0]
    columns = min(like.shape[1], max(1, at_a_time(_CACHED, like.device) // (samples * models)))
    center = torch.stack([each.mean(0, dtype=torch.float64) for each in embedded]).mean(0)
    memory = torch.empty(samples, models, columns, dtype=torch.float64, device=like.device)
    for start in range(0, like.shape[1], columns):
        part = memory[..., : like.shape[1] - start]
        for model, each in enumerate(embedded):
            torch.sub(each[:, start : start + columns], center[start : start + columns], out=part[:, model])
        yield part


def _of_pairs(products: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Those of pairs of models ``(P, N)``, from those of all ``(N, K, K)``."""
    chosen = places([products.shape[1] * a + b for a, b in pairs], products.device)
    return products.flatten(1).T.contiguous()[chosen]


def _from_products(
    embedded: Sequence[Tensor], pairs: Sequence[tuple[int, int]], sums: Tensor, products: Tensor, shift: int = 0
) -> Tensor:
    """|a|^2 + |b|^2 - 2 ab ``(P, N)`` from ``(P, N)`` and ``(N, K, K)``; where that loses digits, |a - b|^2 itself."""
    distance = sums - 2 * _of_pairs(products, pairs)
    close = distance < _CLOSE * sums
    for pair, any_close in enumerate(close.any(1).tolist()):
        if not any_close:
            continue
        (a, b), where = pairs[pair], close[pair].nonzero()[:, 0]
        for part in where.split(max(1, _ELEMENTS // embedded[a].shape[1])):
            apart = embedded[a][part].double() - embedded[b][part - shift].double()
            distance[pair, part] = apart.pow(2).sum(1)
    return distance


def all_or(groups: Groups) -> Sequence[slice] | Sequence[np.ndarray] | Sequence[Tensor]:
    """The groups, or the one of all samples."""
    return [slice(None)] if groups is None else groups


def check_samples(images: Tensor) -> None:
    """Raise `UserError` for fewer than two samples."""
    if len(images) < 2:
        raise UserError(
            f"a comparison needs at least 2 samples for its null (the same models under other noise), not {len(images)}; raise count."
        )


class RangeWarning(UserWarning):
    """Images that are measured directly seem to lie in another range than [-1, 1]."""


def check_images(images: Tensor, what: str = "the images") -> Tensor:
    """The tensor itself, if it holds floating-point images ``(N, C, H, W)`` that are finite; any range, as for estimates of x0.

    Python's warning says so where no value is negative: images in [0, 1] or [0, 255] are measured as if black were mid-grey.

    Raises:
        UserError: another type or shape, or values that are not finite; the first such sample is named.
    """
    if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(
            f"{what} must be a floating-point tensor (N, C, H, W) in [-1, 1], not {kind} of shape {tuple(images.shape)}."
        )
    ends = torch.stack(images.detach().aminmax()).double()
    if (others := _TOGETHER.get()) is None:
        _judge(images, what, *ends.tolist())
    else:
        others.append((images, what, ends))
    return images


_TOGETHER: ContextVar[list[tuple[Tensor, str, Tensor]] | None] = ContextVar("together", default=None)


@contextmanager
def checked_together() -> Iterator[None]:
    """What `check_images` looks at inside is read at the end, all in one go: a GPU is waited for once. An error of it comes first."""
    looked_at: list[tuple[Tensor, str, Tensor]] = []
    before = _TOGETHER.set(looked_at)
    try:
        yield
    finally:
        _TOGETHER.reset(before)
        if looked_at:
            read = torch.stack([ends for *_, ends in looked_at]).tolist()
            for (images, what, _), (low, high) in zip(looked_at, read, strict=True):
                _judge(images, what, low, high)


def _judge(images: Tensor, what: str, low: float, high: float) -> None:
    """What `check_images` says of the least and the largest value."""
    if not math.isfinite(high - low):  # NaN where any value is
        bad = (~images.isfinite().flatten(1).all(1)).nonzero()
        if len(bad):
            raise UserError(f"{what} have values that are not finite, first in sample {int(bad[0])}; leave it out.")
    if low >= 0 and high > low:
        warnings.warn(
            f"{what} have values in [{low:.4g}, {high:.4g}], which looks like {_guess(low, high)}; distances are of images in [-1, 1], "
            "so convert them: 2 * images - 1 from [0, 1].",
            RangeWarning,
            stacklevel=3,
        )


def _guess(low: float, high: float) -> str:
    return "[0, 255]" if high > 8 and low > -8 else "[0, 1]" if high <= 1.5 else "no known range"


def check_range(images: Tensor, what: str = "the images") -> Tensor:
    """The tensor itself, if it may be finished images in [-1, 1]; they may overshoot a little.

    Raises:
        UserError: what `check_images` raises, values in [0, 1] (none is negative) and values as large as 0..255.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)  # it is an error here
        low, high = torch.stack(check_images(images, what).aminmax()).tolist()
    if max(-low, high) > 8 or (low >= 0 and high > low):
        raise UserError(
            f"{what} have values in [{low:.4g}, {high:.4g}], which looks like {_guess(low, high)}; give images in [-1, 1] "
            "(ImageSet.from_array converts with value_range=(lo, hi))."
        )
    return images


def displayed(images: Tensor) -> Tensor:
    """Images as they would be shown: clamped to [-1, 1]. Metrics of perception see estimates of x0 so, and pixel metrics as they are."""
    return check_images(images).clamp(-1.0, 1.0)


def as_rgb(images: Tensor) -> Tensor:
    """``(N, 1 or 3, H, W)`` -> ``(N, 3, H, W)``; grey is repeated. Raises `UserError` for other numbers of channels."""
    channels = images.shape[1]
    if channels not in (1, 3):
        raise UserError(
            f"images of {channels} channels have no colours to a feature network; give 1 (grey) or 3 (RGB)."
        )
    return images.expand(-1, 3, -1, -1)
