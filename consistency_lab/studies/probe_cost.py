"""What a probe would cost before it is started: each kind of work is counted, and timed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring
from consistency_lab.diffusion.log_snr import kept_points
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.probes.curvature import most_products
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.frozen import untouched
from consistency_lab.probes.lanczos import gaussian
from consistency_lab.probes.operators import OPERATORS, CurvatureOperator
from consistency_lab.probes.smoothness import OFFSETS, ON_SPAN, SPANS
from consistency_lab.probes.subject import Subject, diffusion_subject
from consistency_lab.probes.weight_space import mean_gradients
from consistency_lab.similarity.controls import walked_twice
from consistency_lab.studies.cost import seconds_per_step
from consistency_lab.training.settings import LoopSettings


@dataclass(frozen=True)
class Work:
    """Work of one kind: what it is, how often it is done (at most, where a search may end early), and seconds each time."""

    what: str
    times: float
    seconds: float


def total(work: Sequence[Work]) -> float:
    """Seconds of all of it."""
    return sum(each.times * each.seconds for each in work)


def line_cost(subject: Subject, points: int, *, between: bool = False) -> list[Work]:
    """Of `line_landscape`; a random line is walked on shorter spans too."""
    points += 0 if between else (len(SPANS) - 1) * ON_SPAN
    return [
        Work("losses of all samples", points, _seconds(subject.losses)),
        Work("gradients of all samples", 1 + len(OFFSETS), _seconds(partial(_gradients, subject))),
    ]


def plane_cost(subject: Subject, points: int) -> list[Work]:
    """Of `plane_landscape`."""
    return [Work("losses of all samples", points**2, _seconds(subject.losses))]


def spectrum_cost(
    subject: Subject,
    *,
    probes: int,
    steps: int,
    products: int,
    operators: Sequence[str] = tuple(OPERATORS),
    **rest: Any,
) -> list[Work]:
    """Of `curvature_spectrum`, with its options."""
    parts = {"all samples": (1, subject)}
    if subject.levels > 1:  # all levels cost alike
        parts["one noise level"] = (subject.levels, subject.at([0]))
    most, scaled = most_products(probes, steps, products), bool(rest.get("scaled"))
    found = []
    for name in operators:
        for what, (many, part) in parts.items():
            made, graph, each = _product_seconds(partial(OPERATORS[name], part, scaled=scaled))
            # Of the whole and of blocks of its images, for intervals; of these a graph for each third of the trace and for each end.
            found.append(Work(f"{name} of {what}", 2 * many, made))
            found.append(Work(f"graphs of the {name} of {what}", 5 * many, graph))
            found.append(Work(f"products with the {name} of {what}", most * many, each))
    return found


def difficulty_cost(
    model: DiffusionModel,
    images: ImageSet,
    fitted: ImageSet | None,
    *,
    count: int,
    bins: int,
    detail: int,
    snapshots: int,
) -> list[Work]:
    """Of `probe_difficulty`; one noise level costs as much as another, and so many snapshots are asked in addition."""
    options: dict[str, Any] = {"count": count, "training_images": fitted, "detail": detail, "bins": 1}
    level = _seconds(partial(probe_difficulty, model, images, **options), times=1)
    subject = diffusion_subject(model, images, count=min(detail, count), bins=bins)
    again = [Work("losses of one snapshot", snapshots, _seconds(subject.losses))] if snapshots else []
    return [Work("noise levels", bins, level), *again]


def structure_cost(model: DiffusionModel, *, count: int, steps: int, levels: int, models: int) -> list[Work]:
    """Of `probe_structure`: each model from two noises, then a swap for each and a handoff for each ordered pair, at each kept level."""
    rest = sum(steps - k for k in kept_points(steps, levels).tolist())
    times = 2 * models * steps + models * rest + models * (models - 1) * rest
    return [Work(f"sampling steps of {count} images", times, step_seconds(model, count))]


def connectivity_cost(
    model: DiffusionModel, images: ImageSet, held_out: ImageSet, settings: LoopSettings, asked: Mapping[str, Any]
) -> list[Work]:
    """Of `probe_connectivity`; ``asked`` holds its count, bins, points, steps, samples and the sampler's steps as ``walk``."""
    subject = diffusion_subject(model, held_out, count=asked["count"], bins=asked["bins"])
    return [
        Work("training steps", asked["steps"], seconds_per_step(images, settings, model.device)),
        Work("losses of all samples", 3 * asked["points"], _seconds(subject.losses)),  # on three paths
        Work(  # two models, and twice as many steps for the ceiling
            f"sampling steps of {asked['count']} images",
            2 * asked["walk"] * (asked["samples"] + 2 * len(walked_twice(asked["samples"]))) / asked["count"],
            step_seconds(model, asked["count"]),
        ),
    ]


def step_seconds(model: DiffusionModel, count: int) -> float:
    """A step of sampling so many images."""
    return _seconds(partial(model.generate, SharedNoise(0), range(count), Sampler(steps=2))) / 2


def _gradients(subject: Subject) -> None:
    blocks, _ = subject.blocks()
    with measuring(), untouched(subject.module):
        for gradient in mean_gradients(subject.module, subject.loss, [block.batch for block in blocks]):
            float(gradient[0].sum())  # waits for an accelerator


def _product_seconds(make: Callable[[], CurvatureOperator]) -> tuple[float, float, float]:
    """An operator, its first product, and one more, for which the graph is there already (see `CurvatureOperator.held`)."""

    def product(operator: CurvatureOperator) -> None:
        float((operator @ gaussian(operator, 1, torch.Generator().manual_seed(0))).sum())  # waits for an accelerator

    start = time.perf_counter()
    operator = make()
    made = time.perf_counter() - start
    with operator.held():
        first = _seconds(partial(product, operator), times=1)
        each = _seconds(partial(product, operator))
    return made, max(first - each, 0.0), each


def _seconds(work: Callable[[], object], times: int = 2) -> float:
    """The fastest of some runs: the first one warms up, and other programs only ever add to a time."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
