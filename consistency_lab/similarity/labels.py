"""The labels given to conditional models: one for each image, the same for all models of a comparison.

Images of one class are alike whatever noise they are made from. So the null of a comparison under labels is taken within them: other
noise, the same label. The plain null, over all other noise and labels, counts what the label alone decides as agreement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.errors import UserError, short
from consistency_lab.pipelines.matching import labels_made

LEAST = 2  # images per label: with fewer there is no other noise for it


def agreed_labels(
    models: Sequence[GenerativeModel], count: int, labels: Sequence[int] | None = None
) -> tuple[int, ...] | None:
    """The labels that images 0, 1, 2 ... are generated with, in turn; None if no model has labels.

    Args:
        models: those that are compared.
        count: images.
        labels: what the caller wants. By default those that a recording or pipeline among them is made under; else all labels of the
            models, or the first ``count // 2`` where they have more: every label needs two images.

    Raises:
        UserError: models with different numbers of labels, labels that a model does not have, that nobody could use, other ones than
            a recording or pipeline is made under, or that would have fewer than two images.
    """
    known = {m.name: m.classes for m in models if isinstance(m, DiffusionModel) and m.classes}
    made, under = next(((m.name, labels_made(m)) for m in models if labels_made(m)), ("", ()))
    if labels is None and known and under:
        labels = _in_turn(under)
    if labels is None:
        if not known:
            return None
        if len(set(known.values())) > 1:
            told = ", ".join(f"{name} knows {classes}" for name, classes in known.items())
            raise UserError(
                f"the models know different numbers of labels ({told}), so it is not certain that a label means the same to all; where it "
                f"does, say which to ask for, for example labels=range({min(known.values())})."
            )
        return tuple(range(min(next(iter(known.values())), count // LEAST)))
    asked = tuple(_whole(label) for label in labels) if isinstance(labels, Iterable) else (_whole(labels),)
    if not asked:
        raise UserError("labels needs one label or more, or None for all that the models know.")
    if not known and all(isinstance(m, DiffusionModel) for m in models):
        raise UserError("labels were given, and none of the models knows any; leave them out.")
    for name, classes in known.items():
        if strange := [label for label in asked if not 0 <= label < classes]:
            raise UserError(f"the label {strange[0]} was asked for, and {name!r} knows the labels 0 to {classes - 1}.")
    images = labels_of(range(count), asked)
    if under and (other := np.flatnonzero(images != labels_of(range(count), under))).size:
        at = int(other[0])
        raise UserError(
            f"image {at} of {made!r} is made under the label {under[at % len(under)]}, and {images[at]} was asked for; leave labels "
            "out, and all are asked for the same."
        )
    if few := [
        label
        for label in dict.fromkeys(asked if not under else images.tolist())
        if int((images == label).sum()) < LEAST
    ]:
        raise UserError(
            f"the label {few[0]} would have fewer than {LEAST} of {count} images, and the null of a conditional comparison is other noise "
            f"under the same label; raise count to {LEAST * len(asked)} or name fewer labels."
        )
    return asked


def _in_turn(labels: tuple[int, ...]) -> tuple[int, ...]:
    """The shortest beginning that, repeated, is all of them."""
    turns = (labels[:n] for n in range(1, len(labels)) if all(a == b for a, b in zip(labels, labels[n:], strict=False)))
    return next(turns, labels)


def _whole(label: object) -> int:
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise UserError(f"labels are whole numbers, one or more, such as range(10); not {short(label)}.")
    return int(label)


def labels_of(indices: Sequence[int], asked: Sequence[int]) -> np.ndarray:
    """The label of each of those images ``(N,)`` int32."""
    return np.array([asked[i % len(asked)] for i in indices], dtype=np.int32)


def mixed_warning(models: Sequence[GenerativeModel]) -> str:
    """A sentence if some models are given a label and others are not; else empty."""
    told = [m.name for m in models if getattr(m, "classes", 0) or labels_made(m)]
    blind = [m.name for m in models if m.name not in told]
    if not told or not blind:
        return ""
    return (
        f"{', '.join(told)}: asked for a label, and {', '.join(blind)} for none that is known; pairs of the two kinds differ by what the "
        "label says, not by the noise alone."
    )
