"""Consistency against the size of the training set, on disjoint halves: memorisation, the gap, generalisation.

Two families are trained on sets that share no image (Kadkhodaie et al. 2310.02557). Small sets are memorised: the images of a model lie
near its own set, and the families disagree. Large sets are not: both families draw the same images, which are near neither set in
particular (Zhang et al. 2310.05264).

Beside each size stands what linear denoisers of such sets would agree on (`similarity.prediction`), and which share of the agreement
closed-form denoisers of the models' own sets explain: what linear, what local, and what memorising models share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import as_columns, interval_of, mean_interval
from consistency_lab.loading import Model
from consistency_lab.metrics.distances import MeanSquaredError, nearest
from consistency_lab.paper.finals import final_distances
from consistency_lab.paper.rows import Rows
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.controls import references_of
from consistency_lab.similarity.permutation import square
from consistency_lab.similarity.prediction import OWN, predict_consistency
from consistency_lab.similarity.statistics import cross_score, explained_share, within_score
from consistency_lab.store.runs import Store
from consistency_lab.store.spec import MEASURES_VERSION
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.studies.fleet import train_fleet
from consistency_lab.training.settings import TrainingSettings

SEEDS = 3  # models a set
REFERENCES = ("gaussian", "local", "optimal")  # closed-form denoisers, each of its own set
EXPLAINED = 64  # samples, the first ones, of which they explain a share: the local denoiser takes its time
_SMALL = 8  # pixels a side, for which a local denoiser sees 3 and not 5; it uses the first 1000 images, for its work grows with them
COPY = 0.5  # a sample counts as a copy if its own set holds an image this much nearer than the other set's nearest


def size_sweep(
    images: ImageSet,
    sizes: Sequence[int],
    settings: TrainingSettings,
    store: Store,
    rows: Rows,
    *,
    seeds: int = SEEDS,
    count: int = 256,
    sampler: Sampler | str | None = None,
    noise_seed: int = 0,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    executor: str | Executor = "local",
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """For each size, two families of ``seeds`` models on two disjoint sets of that many images.

    Batch and steps are the same for every size: a set smaller than the batch is repeated until it fills one, which leaves its
    distribution as it is. ``workers`` and ``executor``: where models are trained, see `executor_of`.

    Returns:
        One row per size: the score (MSE) ``between`` families on disjoint sets and ``within`` families on one set, each with its interval;
        ``nearest_own`` and ``nearest_other``, the median squared distance of a sample to its nearest image of either set; ``copies``,
        the share of samples whose own set is nearer than `COPY` times the other, with its interval over samples; ``predicted``, the score
        ``between`` linear denoisers in theory, with its interval over pairs of sets (`predict_consistency`). For each of `REFERENCES`,
        fitted to each set and started from the same noise, ``explained_*``, the share of the agreement between families that is gone when
        its images are taken away, and ``residual_after_*``, the score of what is left, both over the first `EXPLAINED` samples and with
        intervals as ``between``. Rows that were made before lack prediction and shares.

    Raises:
        UserError: what is no image set, a size below 2, twice a size beyond the images there are, or fewer than three seeds.
    """
    check_set(images)
    if seeds < 3:
        raise UserError(f"a size sweep needs at least three seeds a set for its intervals, not {seeds}.")
    for size in sizes:
        if size < 2 or 2 * size > len(images):
            raise UserError(
                f"two disjoint sets of {size} images cannot be cut from the {len(images)} of {images.name!r}."
            )
    sampler, where, table = Sampler.of(sampler), executor_of(executor, workers), []
    common: dict[str, Any] = {"seeds": seeds, "count": count, "noise_seed": noise_seed, "sampler": sampler.facts}
    common |= {"measures_version": MEASURES_VERSION}
    for size in sizes:

        def compute(size: int = size) -> dict[str, Any]:
            say(f"training on {size} images")
            halves = images.split(size, size, seed=0)
            fleets = []
            for side, half in zip("ab", halves, strict=True):
                jobs = {f"{side}{size}-s{seed}": settings.replace(seed=seed) for seed in range(seeds)}
                fleets.append(
                    train_fleet(_repeated(half, settings.batch), jobs, store, device=device, executor=where, say=say)
                )
            found = _measure([list(fleet.values()) for fleet in fleets], halves, sampler, count, noise_seed)
            theory = predict_consistency(images, size, times=[0.0], count=0)
            return {**found, **as_columns("predicted", interval_of(theory.sel(states=OWN).squeeze(), "score"))}

        spec = {"row": "size", "size": size, **common, "data": images.fingerprint, "settings": settings.texts}
        table.append({"size": size, **rows.row(spec, compute)})
    return pd.DataFrame(table)


def _repeated(images: ImageSet, least: int) -> ImageSet:
    """The set itself, or whole copies of it until there are ``least`` images."""
    copies = -(-least // len(images))
    return images if copies == 1 else images.take(list(range(len(images))) * copies, f"{copies} x {images.name}")


def _measure(
    families: Sequence[Sequence[Model]],
    halves: Sequence[ImageSet],
    sampler: Sampler,
    count: int,
    seed: int,
) -> dict[str, Any]:
    both, n, references = [*families[0], *families[1]], len(families[0]), _references(halves[0])
    found = compare(both, SharedNoise(seed), count=count, metrics=("mse",), sampler=sampler, levels=2, shown=1)
    distance, null = (square(found.isel(t=[-1]), key)[..., 0, 0] for key in ("distance", "null"))
    between = cross_score(distance[:n, n:], null[:n, n:], n, n)
    within = within_score(distance, null, (n, n))

    own, other, left = [], [], []
    for side, family in enumerate(families):
        known: list[Tensor] = []
        for model in family:
            assert isinstance(model, DiffusionModel)  # the sweep's settings are theirs
            samples = model.generate(SharedNoise(seed), range(count), sampler)
            own.append(nearest(samples, halves[side].all())[0].numpy())
            other.append(nearest(samples, halves[1 - side].all())[0].numpy())
            few = samples[:EXPLAINED]
            if not known:
                made = references_of(halves[side], model, references)
                known = [each.generate(SharedNoise(seed), range(len(few)), sampler) for each in made]
            left.append([few, *(few - each for each in known)])
    copied = (np.stack(own) < COPY * np.stack(other)).mean(0)  # per noise, over models
    values = {
        **as_columns("between", between),
        **as_columns("within", within),
        "nearest_own": float(np.median(own)),
        "nearest_other": float(np.median(other)),
        **as_columns("copies", mean_interval(copied)),
    }
    whole, *rests = (_across(each, n) for each in zip(*left, strict=True))
    for name, rest in zip(REFERENCES, rests, strict=True):
        values |= as_columns(f"explained_{name}", explained_share(whole, rest, n, n))
        values |= as_columns(f"residual_after_{name}", cross_score(*rest, n, n))
    return values


def _references(images: ImageSet) -> list[str]:
    """`REFERENCES` with their options."""
    window = 3 if max(images.shape[1:]) <= _SMALL else 5
    return [f"local(window={window}, most=1000)" if name == "local" else name for name in REFERENCES]


def _across(images: Sequence[Tensor], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance and null of every one of the first n models with every other, ``(n, others, samples)``, from their images."""
    pairs = [(i, j) for i in range(n) for j in range(n, len(images))]
    distance, null = final_distances(images, pairs, [MeanSquaredError()])
    shape = n, len(images) - n, -1
    return distance.reshape(shape), null.reshape(shape)
