"""Which sample of one recording belongs to which of another: agreed once, before they are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from consistency_lab.diffusion.model import GenerativeModel
from consistency_lab.errors import UserError
from consistency_lab.pipelines.recording import RecordedImages, Recording

Recorded = Recording | RecordedImages


class Matched(NamedTuple):
    """What recordings agreed on: as `pipelines.pairing.Agreement`."""

    models: list[GenerativeModel]
    names: tuple[str, ...]
    most: int
    labels: np.ndarray | None
    label_names: tuple[str, ...]
    said: tuple[str, ...]


def source(model: Recorded) -> Recording:
    """The recording that a model is, or whose images it is."""
    return model.recording if isinstance(model, RecordedImages) else model


def labels_made(model: GenerativeModel) -> tuple[int, ...]:
    """The labels that the images of a recording, or of a pipeline, are made under, image i under the i-th in turn; empty where none are."""
    if isinstance(model, Recorded):
        return source(model).labels
    return tuple(model.facts.get("labels") or ()) if model.facts.get("kind") == "pipeline" else ()


def matched(models: Sequence[GenerativeModel], count: int | None) -> Matched:
    """Pair the samples of recordings: by name where all have names, else by number. Labels are theirs, or their prompts.

    Beside a model that is asked for labels there are none here: it is asked for theirs (`similarity.labels`).

    Raises:
        UserError: other prompts or labels; too few samples.
    """
    records = [model for model in models if isinstance(model, Recorded)]
    sources = [source(model) for model in records]
    live = len(records) < len(models)
    said: list[str] = []
    names: list[str] = []
    if not live and all(each.names for each in sources):
        held = [set(each.names) for each in sources]
        names = [name for name in sources[0].names if all(name in own for own in held)]
        for each in sources:
            if lost := len(each.names) - len(names):
                said.append(
                    f"{each.name}: {lost} of its {len(each.names)} samples have no partner of their name and are left out."
                )
        orders = [[each.names.index(name) for name in names] for each in sources]
    else:
        most = min(len(each.samples) for each in sources)
        if max(len(each.samples) for each in sources) > most:
            told = ", ".join(f"{each.name} {len(each.samples)}" for each in sources)
            said.append(
                f"the recordings hold unequally many samples ({told}) and no names; the first {most} of each are paired by number."
            )
        orders = [list(range(most)) for _ in sources]
    if count is not None and count > len(orders[0]):
        raise UserError(
            f"{count} samples were asked for, and the recordings have {len(orders[0])} in common; lower count."
        )
    orders = [order[:count] for order in orders]
    picked = [model.of(order) for model, order in zip(records, orders, strict=True)]
    labels, label_names, why = _labels([source(model) for model in picked])
    if any(getattr(model, "classes", 0) for model in models):
        labels, label_names, why = None, (), []
    turn = iter(picked)
    return Matched(
        [next(turn) if isinstance(model, Recorded) else model for model in models],
        tuple(names[:count]),
        len(orders[0]),
        labels,
        label_names,
        (*said, *why),
    )


def _labels(sources: Sequence[Recording]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """A number for the prompt or label of each sample, where each is that of two samples or more."""
    told = [_asked(each) for each in sources]
    other, first = next(((each, own) for each, own in zip(sources, told, strict=True) if own), (None, None))
    if first is None or other is None:
        return None, (), []
    for each, own in zip(sources, told, strict=True):
        if own and own != first:
            at = next(i for i, (a, b) in enumerate(zip(own, first, strict=True)) if a != b)
            raise UserError(
                f"{each.name!r} was asked for {own[at]!r} and {other.name!r} for {first[at]!r} (sample {at}); ask both for the same "
                "prompts or labels in the same order."
            )
    counts = Counter(first)
    if len(counts) < 2:
        return None, (), []
    if few := [label for label in counts if counts[label] < 2]:
        said = (
            f"{len(few)} of {len(counts)} prompts or labels have one sample only (first {few[0]!r}), so there is no other noise under it: "
            "the null is over all samples, and counts what the prompt alone decides as agreement."
        )
        return None, (), [said]
    known = sorted(counts, key=lambda label: (len(label), label))
    return np.array([known.index(label) for label in first], dtype=np.int32), tuple(known), []


def _asked(recording: Recording) -> list[str]:
    """What each sample was asked for: its prompt, or its label."""
    return [*recording.prompts] or [str(label) for label in recording.labels]
