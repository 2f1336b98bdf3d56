"""Contestants x seeds, on equal terms, to targets that were fixed before.

Every contestant of a seed starts from the same weights and sees the same images in the same order with the same noise. A target is what a
uniform constant-rate run of another seed, the target pilot, has reached at a fraction of its steps: no contestant's own run sets it.

Losses are of averaged weights. The average's half-life is at most 5 % of the steps taken so far (see `WeightAverage`), and presets set it
to no less at any step: then it trails the weights by one share of the steps at every step of every contestant and length of run, early
crossings are late by the same factor as late ones, and speed-ups, which are ratios, do not notice it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import closed_form
from consistency_lab.errors import UserError
from consistency_lab.metrics.quality import frechet_distance, moments
from consistency_lab.paper.race.aggregation import gathered
from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.crossing import losses_at
from consistency_lab.paper.race.pace import known_pace, measured_pace
from consistency_lab.paper.race.parallel_runs import run_all
from consistency_lab.paper.race.running import RaceRun, Watch, recorded
from consistency_lab.paper.rows import Rows
from consistency_lab.similarity.quality import GAUSSIAN, MEAN, MEMORISER, TRAINING_IMAGES, reference_samples
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.training.processes import refuse_several
from consistency_lab.training.settings import TrainingSettings

TARGETS = (
    0.3,
    0.6,
)  # fractions of the target pilot's run: early enough that other seeds of the control arrive before their ends
FOLLOWED = ("control", "annealed", "recipe", "paper")

Live = Callable[[xr.Dataset], None]


def race(
    contestants: Sequence[Contestant],
    watch: Watch,
    rows: Rows,
    *,
    seeds: Sequence[int] = range(5),
    target_seed: int = 1000,
    target_settings: TrainingSettings | None = None,
    targets: Sequence[float] = TARGETS,
    followed: int = 0,
    workers: int | None = None,
    executor: str | Executor = "local",
    live: Live | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> xr.Dataset:
    """Run what the rows do not have, and put everything together.

    Args:
        contestants: names that differ; exactly one has the role ``"control"``.
        watch: what all are measured by.
        rows: where finished runs and evaluations are stored; a stopped race resumes.
        seeds: of the runs.
        target_seed, target_settings: of the target pilot: a seed that is none of the race's; settings, by default those of the control,
            with uniform times at a constant rate.
        targets: fractions of the pilot's run; the last is the one that matters.
        followed: seeds, the first ones, of which controls, recipes and the paper's make samples at every evaluation; all others make
            theirs at the last.
        workers, executor: where runs are trained, see `executor_of`.
        live: is given the race so far after every seed, and the whole at the end.
        say: is told what happens.

    Returns:
        A race result: ``loss (contestant, seed, step)`` of the averaged weights on the frozen batch, ``evaluation_step``,
        ``evaluation_loss`` and ``frechet (contestant, seed, evaluation)``, ``crossing`` and ``censored (contestant, seed, target)`` in
        steps, ``diverged_at`` (NaN: did not), ``total_variation`` and ``effective_share`` ``(contestant, seed)`` (see `train_watched`),
        ``seconds_per_step (contestant, seed)`` and ``machine (seed)`` (see `measured_pace`; NaN and "" in a race so far), ``pilot_loss
        (step)`` of the target pilot, ``target_loss (target)`` and whether it is below what needs no training, ``target_qualified``,
        ``reference_value (reference, metric)`` and ``qualified (metric)``. NaN where a run has no such step.

    Raises:
        UserError: contestants that cannot be compared, no or two controls, seeds that are not the race's alone.
    """
    refuse_several("a race is run")
    control = _check(contestants, watch, seeds, target_seed, targets)
    references = _references(watch, rows)
    first = target_pilot(target_settings or control.settings, target_seed)
    planned = runs_of(contestants, seeds, followed)
    told: list[int] = []

    def known(run: RaceRun) -> dict[str, Any]:
        found = recorded(watch, run, rows)
        assert found is not None  # all have been run by now
        return found

    def together(done: Sequence[int]) -> xr.Dataset:
        pilot = known(first)
        if pilot["diverged_at"] is not None:
            raise UserError("the target pilot diverged, so there is no target; lower the learning rate of the control.")
        at = [fraction * first.settings.steps for fraction in targets]
        wanted = losses_at(pilot["steps"], pilot["loss"], at)
        runs = {(run.name, seed): known(run) for seed in done for run in planned[seed]}
        paces = {seed: known_pace(watch, planned[seed], rows) for seed in done}
        settings = first.settings
        return gathered(contestants, control, done, runs, paces, pilot, targets, wanted, references, watch, settings)

    def after() -> None:
        """Tell what there is whenever one more seed is complete, but for the last, after which steps are timed first."""
        if live is None or len(told) + 1 >= len(seeds):
            return
        ready = [first, *(run for seed in list(seeds)[: len(told) + 1] for run in planned[seed])]
        if all(recorded(watch, run, rows) is not None for run in ready):
            told.append(list(seeds)[len(told)])
            live(together(told))

    every = [run for seed in seeds for run in planned[seed]]
    where = executor_of(executor, workers)
    run_all(watch, [first, *every], rows, where, say=say, after=after)
    while live is not None and len(told) + 1 < len(seeds):
        after()
    say("a step of every contestant is timed, in turns")
    for runs in planned.values():
        measured_pace(watch, runs, rows, where)
    result = together(list(seeds))
    if live is not None:
        live(result)
    return result


def target_pilot(settings: TrainingSettings, seed: int) -> RaceRun:
    """The run that sets the targets."""
    return RaceRun("target pilot", settings.replace(seed=seed))


def runs_of(contestants: Sequence[Contestant], seeds: Sequence[int], followed: int) -> dict[int, list[RaceRun]]:
    """Seed -> the runs of a race in the order of its contestants, see `race` for ``followed``."""
    # A contestant of another role that is the same run as one of those is the same row, so it is followed as well.
    shown = [each.settings for each in contestants if each.role in FOLLOWED]
    return {
        seed: [
            RaceRun(c.name, c.settings.replace(seed=seed), k < followed and c.settings in shown) for c in contestants
        ]
        for k, seed in enumerate(seeds)
    }


def _check(
    contestants: Sequence[Contestant], watch: Watch, seeds: Sequence[int], target_seed: int, targets: Sequence[float]
) -> Contestant:
    names, controls = [c.name for c in contestants], [c for c in contestants if c.role == "control"]
    if len(controls) != 1:
        raise UserError(f"a race has one contestant in the role of the control, not {len(controls)}.")
    if len(set(names)) < len(names):
        raise UserError(f"two contestants of a race have one name: {', '.join(sorted(names))}.")
    if not len(seeds) or len(set(seeds)) < len(seeds) or target_seed in seeds:
        raise UserError(
            f"a race needs seeds that differ, and a target seed that is none of them, not {list(seeds)}, {target_seed}."
        )
    if not targets or not all(0 < f <= 1 for f in targets):
        raise UserError(f"targets are fractions of the target pilot's run, above 0 and at most 1, not {list(targets)}.")
    for each in contestants:
        if each.settings.schedule != watch.schedule or each.settings.conditional:
            raise UserError(
                f"{each.name!r} cannot be raced: its loss under uniform t is another measure. Contestants are unconditional and on the "
                f"schedule {watch.schedule!r}."
            )
    return controls[0]


def _references(watch: Watch, rows: Rows) -> dict[str, dict[str, float | None]]:
    """What needs no training, by the same measures: name -> loss and Frechet distance."""
    made: dict[str, dict[str, float | None]] = {}
    common = {"images": watch.images.fingerprint, "schedule": watch.schedule, **watch.facts}

    def compute() -> dict[str, Any]:
        samples = reference_samples(watch.images, watch.schedule_object, SharedNoise(1), watch.count)
        keys = {GAUSSIAN: "gaussian", MEAN: "mean", MEMORISER: "optimal"}
        for name, images in samples.items():
            loss = None
            if name != TRAINING_IMAGES:
                pool = watch.images.all()
                loss = watch.loss(closed_form(keys[name], pool, watch.schedule_object).to(watch.device))
            features = moments(watch.classifier.features(images))
            made[name] = {"loss": loss, "frechet": frechet_distance(watch.reference, features)}
        return made

    return rows.row({"row": "references", **common}, compute)
