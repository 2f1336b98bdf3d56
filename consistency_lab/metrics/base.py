"""What a distance between images is: an embedding, a comparison of embeddings, and the null that other noise would give."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from consistency_lab.errors import UserError

RANGE = 2.0  # width of the image range [-1, 1]
_ELEMENTS = 2**24  # embedding values that are held in float64 at a time (128 MiB)
_WIDE = 2**22  # values of one embedding from which on it is taken in parts (features of large images)


class Distance(ABC):
    """A way to compare image i of one model with image i of another.

    Images are embedded once per model, so that K models cost K embeddings and not K (K - 1).

    Attributes:
        name: how results and the command line call it.
        unit: of its values.
        note: what else a reader of the values must know: resizing, weights. Empty where there is nothing to say.
        scored: whether 1 - distance / null is a consistency score; only for distances, where 0 means equal.
        better: ``"lower"`` or ``"higher"``.
        shifts: how many cyclic shifts of the samples the null is averaged over, where it has no closed form.
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
        check_samples(a)
        n = len(a)
        steps = (
            torch.linspace(1, n // 2, min(self.shifts, n // 2), dtype=torch.float32, device="cpu")
            .round()
            .long()
            .unique()
            .tolist()
        )
        total, weights = torch.zeros(n, dtype=torch.float64, device=a.device), 0.0
        for s in steps:
            weight = 0.5 if 2 * s == n else 1.0  # i + n/2 and i - n/2 are one sample
            for values in (self.between(a, b.roll(s, 0)), self.between(a.roll(s, 0), b)):
                # Each value belongs to sample i and to sample i - s: a delete-one jackknife over samples may then use these rows.
                total += weight * (values + values.roll(-s, 0))
            weights += 4 * weight
        return total / weights


class SquaredDistance(Distance):
    """A distance that is the squared Euclidean distance of embeddings ``(N, F)``: its null over all i != j follows from sums, in O(N).

    Embeddings may be float32; differences are taken in float64, a few rows at a time.
    """

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape[1] > _WIDE:
            return torch.stack([(u - v).pow(2).sum(1) for u, v in _paired_columns(a, b)]).sum(0)
        return torch.cat([(u - v).pow(2).sum(1) for u, v in _paired_rows(a, b)])

    def null(self, a: Tensor, b: Tensor) -> Tensor:
        check_samples(a)
        if a.shape[1] > _WIDE:
            return _null_of_columns(a, b)
        n, origin = len(a), a[0].double()
        # Differences of large equal terms would cost digits: centre both embeddings by one common point, which changes no distance.
        sum_a, sum_b = torch.zeros_like(origin), torch.zeros_like(origin)
        for u, v in _paired_rows(a, b):
            sum_a += (u - origin).sum(0)
            sum_b += (v - origin).sum(0)
        centre = origin + (sum_a + sum_b) / (2 * n)
        apart = (sum_a - sum_b) / 2  # the sum of the centred a; that of the centred b is its negative
        rows = []
        for u, v in _paired_rows(a, b):
            u, v = u - centre, v - centre
            rows.append(torch.stack([u.pow(2).sum(1), v.pow(2).sum(1), u @ apart, v @ apart, (u - v).pow(2).sum(1)]))
        norm_a, norm_b, a_dot, b_dot, own = torch.cat(rows, dim=1)
        to_b = n * norm_a + norm_b.sum() + 2 * a_dot - own
        to_a = n * norm_b + norm_a.sum() - 2 * b_dot - own
        return (0.5 * (to_a + to_b) / (n - 1)).clamp_min(0.0)

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


def _paired_rows(a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]] | zip[tuple[Tensor, Tensor]]:
    rows = max(1, _ELEMENTS // max(1, a.shape[1]))
    return zip((x.double() for x in a.split(rows)), (x.double() for x in b.split(rows)), strict=True)


def _paired_columns(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some columns of both at a time, in float64."""
    width = max(1, _ELEMENTS // (64 * len(a)))
    return ((u.double(), v.double()) for u, v in zip(a.split(width, 1), b.split(width, 1), strict=True))


def _null_of_columns(a: Tensor, b: Tensor) -> Tensor:
    """The null of all i != j from the table of all distances, which few wide embeddings have."""
    table = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for u, v in _paired_columns(a, b):
        u, v = u - u[0], v - u[0]  # centred by one common point
        table += u.pow(2).sum(1)[:, None] + v.pow(2).sum(1) - 2 * u @ v.T
    table = table.clamp_min(0.0).fill_diagonal_(0.0)
    return 0.5 * (table.sum(0) + table.sum(1)) / (len(a) - 1)


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
    bad = (~images.isfinite().flatten(1).all(1)).nonzero()
    if len(bad):
        raise UserError(f"{what} have values that are not finite, first in sample {int(bad[0])}; leave it out.")
    low, high = (float(x) for x in images.detach().aminmax())
    if low >= 0 and high > low:
        warnings.warn(
            f"{what} have values in [{low:.4g}, {high:.4g}], which looks like {_guess(low, high)}; distances are of images in [-1, 1], "
            "so convert them: 2 * images - 1 from [0, 1].",
            RangeWarning,
            stacklevel=2,
        )
    return images


def _guess(low: float, high: float) -> str:
    return "[0, 255]" if high > 8 and low > -8 else "[0, 1]" if high <= 1.5 else "no known range"


def check_range(images: Tensor, what: str = "the images") -> Tensor:
    """The tensor itself, if it may be finished images in [-1, 1]; they may overshoot a little.

    Raises:
        UserError: what `check_images` raises, values in [0, 1] (none is negative) and values as large as 0..255.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)  # it is an error here
        low, high = (float(x) for x in check_images(images, what).aminmax())
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
