"""Which sample of one recording belongs to which of another: agreed once, before they are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from consistency_lab.diffusion.model import GenerativeModel
from consistency_lab.diffusion.noise import SharedNoise
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


def matched(models: Sequence[GenerativeModel], noise: SharedNoise, count: int | None) -> Matched:
    """Pair the samples of recordings: by name where all have names, else by number. Labels are theirs, or their prompts.

    Raises:
        UserError: noise that differs, or is not known beside a model that makes its images; other prompts; too few samples.
    """
    records = [model for model in models if isinstance(model, Recorded)]
    _check_noise(models, records, noise)
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
    turn = iter(picked)
    return Matched(
        [next(turn) if isinstance(model, Recorded) else model for model in models],
        tuple(names[:count]),
        len(orders[0]),
        labels,
        label_names,
        (*said, *why),
    )


def _check_noise(models: Sequence[GenerativeModel], records: Sequence[Recorded], noise: SharedNoise) -> None:
    seeds = {source(model).name: source(model).noise_seed for model in records}
    known = {name: seed for name, seed in seeds.items() if seed is not None}
    if len(set(known.values())) > 1:
        told = " and ".join(f"{name!r} from seed {seed}" for name, seed in known.items())
        raise UserError(f"the recordings were made from other noise ({told}); record them from the same.")
    live = next((model.name for model in models if not isinstance(model, Recorded)), None)
    if live is None:
        return
    for name, seed in seeds.items():
        if seed != noise.seed:
            what = "is not known" if seed is None else f"is that of seed {seed}"
            raise UserError(
                f"{name!r} is a recording whose noise {what}, and {live!r} makes its images from seed {noise.seed}. If its sample i was "
                f"made from noise i of that seed, say so where it is recorded: facts={{'noise_seed': {noise.seed}}}."
            )


def _labels(sources: Sequence[Recording]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """A number for the prompt or label of each sample, where each is that of two samples or more."""
    told = [_asked(each) for each in sources]
    first = next((each for each in told if each), None)
    if first is None:
        return None, (), []
    for each, own in zip(sources, told, strict=True):
        if own and own != first:
            at = next(i for i, (a, b) in enumerate(zip(own, first, strict=True)) if a != b)
            raise UserError(
                f"{each.name!r} was asked for {own[at]!r} where the other recording was for {first[at]!r} (sample {at}); record the same "
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
