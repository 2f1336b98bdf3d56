"""Values that are not finite: which model gave them, where, and what can still be compared without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from consistency_lab.errors import UserError
from consistency_lab.similarity.trajectories import Trajectories

MOST_LOST = 0.5  # a model that loses more of its samples is left out itself, rather than everybody's samples
_NAMED = 20  # places that are recorded one by one


class Kept(NamedTuple):
    """What is left: indices of models and of samples, the places that were lost, and a sentence for the reader (empty: nothing was)."""

    models: list[int]
    samples: list[int]
    lost: list[dict[str, object]]
    warning: str


def finite_part(walks: Sequence[Trajectories], times: Tensor, others: Sequence[tuple[int, Trajectories]] = ()) -> Kept:
    """Which models and samples can be compared.

    A sample at which some model has a value that is not finite is left out for every model, since distances need both; a model with more
    than `MOST_LOST` of such samples is left out instead.

    Args:
        walks: of each model.
        times: ``(T,)`` of its estimates.
        others: further walks (with another step count, or on the clock of a pair), each with its model's index: their samples must be
            finite too.

    Raises:
        UserError: fewer than two models or two samples would be left; the first place is named.
    """
    bad = np.stack([(~w.estimates.flatten(2).isfinite().all(2)).numpy() for w in walks])  # (K, T, N)
    lost = np.asarray(bad.any(1))
    for k, walk in others:
        lost[k] |= (~walk.estimates.flatten(2).isfinite().all(2)).any(0).numpy()
    dropped = np.asarray(lost.mean(1) > MOST_LOST)
    models = np.flatnonzero(~dropped).tolist()
    samples = np.flatnonzero(~lost[~dropped].any(0)).tolist()
    if not lost.any():
        return Kept(models, samples, [], "")
    places = [_place(walks[k].name, bad[k, :, i], times, i) for k, i in np.argwhere(lost).tolist()]
    first = places[0]
    if len(models) < 2 or len(samples) < 2:
        raise UserError(
            f"the model {first['model']!r} gives values that are not finite{_at(first['t'])} for sample {first['sample']}, and without "
            f"such values {len(models)} models and {len(samples)} samples are left of {len(walks)} and {lost.shape[1]}; leave the model "
            "out or train it again."
        )
    gone = [f"{walks[k].name} ({int(lost[k].sum())} of its samples)" for k in np.flatnonzero(dropped).tolist()]
    said = [f"left out for values that are not finite: {', '.join(gone)}"] if gone else []
    if rest := lost.shape[1] - len(samples):
        culprits = ", ".join(walks[k].name for k in models if lost[k].any())
        said.append(
            f"{rest} of {lost.shape[1]} samples are left out for all models, because {culprits} gave values that are not finite"
        )
    return Kept(
        models, samples, places[:_NAMED], f"{'; '.join(said)}. First at {first['model']}, sample {first['sample']}."
    )


def _place(name: str, bad: np.ndarray, times: Tensor, sample: int) -> dict[str, object]:
    """t is None where only another walk than the model's own failed."""
    where = np.flatnonzero(bad)
    return {"model": name, "t": round(float(times[where[0]]), 4) if len(where) else None, "sample": sample}


def _at(t: object) -> str:
    return " on another grid of times" if t is None else f" at t = {t:.3g}"
