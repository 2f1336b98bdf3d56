"""Class labels: whole numbers from 0, of which none is skipped unless classes have names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from consistency_lab.errors import UserError

if TYPE_CHECKING:
    from consistency_lab.data.imageset import ImageSet

_logger = logging.getLogger(__name__)


def check_labels(name: str, labels: torch.Tensor, images: int) -> int:
    """One more than the largest label. Raises `UserError` unless there is one int64 label, 0 or more, for each of the images."""
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.shape != (images,):
        raise UserError(f"the labels of {name!r} must be one whole number (int64) for each of its {images} images.")
    if int(labels.min()) < 0:
        raise UserError(f"the labels of {name!r} must count from 0; one is {int(labels.min())}.")
    return int(labels.max()) + 1


def renumbered(name: str, labels: torch.Tensor) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The labels without gaps, and the numbers that they had as names: 1 to 10 become 0 to 9, and a 255 for "ignore" one class more."""
    numbers = labels.unique()
    largest = int(numbers[-1])
    if len(numbers) <= largest:
        _logger.warning(
            "the labels of %r skip numbers (%d of 0..%d are there): they are renumbered 0..%d, and their old numbers are the class "
            "names; give class_names to keep the numbers.",
            *(name, len(numbers), largest, len(numbers) - 1),
        )
        labels = torch.searchsorted(numbers, labels.contiguous())
    return labels, tuple(str(number) for number in numbers.tolist())


def check_every_class(images: ImageSet) -> None:
    """Raise `UserError` for a set without labels, and for a class without images: a model would be asked for what it never saw."""
    if images.labels is None:
        raise UserError(f"{images.name!r} has no labels; set conditional=False, or load a labelled set.")
    there = set(images.labels.unique().tolist())
    missing = [name for label, name in enumerate(images.class_names) if label not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of the {images.classes} classes of {images.name!r} have no image (first {missing[0]!r}), and a conditional "
            "model would learn nothing of them; give images of every class, or renumber them with "
            "ImageSet(name, images.pixels, images.labels)."
        )
