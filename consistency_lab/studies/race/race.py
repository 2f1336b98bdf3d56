"""Contestants x seeds, on equal terms, to targets that were fixed before.

Every contestant of a seed starts from the same weights and meets the same images in the same order with the same noise. A target is what a
uniform constant-rate run of another seed, the target pilot, has reached at a fraction of its steps: it is known before the race is run, and
no contestant's own run sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import closed_form
from consistency_lab.errors import UserError
from consistency_lab.metrics.quality import frechet_distance, moments
from consistency_lab.store.results import with_provenance
from consistency_lab.studies.quality import FLOOR, GAUSSIAN, MEAN, MEMORISER, reference_samples
from consistency_lab.studies.race.contestants import Contestant
from consistency_lab.studies.race.crossing import first_sustained
from consistency_lab.studies.race.running import EVALUATIONS, Watch, race_run
from consistency_lab.studies.rows import Rows

TARGETS = (0.5, 0.9)  # fractions of the target pilot's run
SUSTAINED = 0.1  # of the control's run: how long a target must be held
LOSS = "held-out loss"

Live = Callable[[xr.Dataset], None]


def race(
    contestants: Sequence[Contestant],
    watch: Watch,
    rows: Rows,
    *,
    seeds: Sequence[int] = range(5),
    target_seed: int = 1000,
    targets: Sequence[float] = TARGETS,
    live: Live | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> xr.Dataset:
    """Run what the rows do not have, and put everything together.

    Args:
        contestants: names that differ; exactly one has the role ``"control"``.
        watch: what all are measured by.
        rows: where finished runs and evaluations are kept; a stopped race goes on.
        seeds: of the runs.
        target_seed: of the target pilot, none of the race's.
        targets: fractions of the pilot's run; the last is the one that matters.
        live: is given the race so far after every round of a seed.
        say: is told what happens.

    Returns:
        A race result: ``loss (contestant, seed, step)`` of the averaged weights on the frozen batch, ``evaluation_step``,
        ``evaluation_loss`` and ``frechet (contestant, seed, evaluation)``, ``crossing`` and ``censored (contestant, seed, target)`` in
        steps, ``diverged_at`` (NaN: did not) and ``seconds_per_step (contestant, seed)``, ``target_loss (target)``,
        ``reference_value (reference, metric)`` and ``qualified (metric)``. NaN where a run has no such step.

    Raises:
        UserError: contestants that cannot be compared, no or two controls, seeds that are not the race's alone.
    """
    control = _check(contestants, watch, seeds, target_seed, targets)
    say(f"target pilot: {control.name}, seed {target_seed}")
    pilot = race_run(watch, control.settings.replace(seed=target_seed), rows, say)
    if pilot["diverged_at"] is not None:
        raise UserError("the target pilot diverged, so there is no target; lower the learning rate of the control.")
    at = [fraction * control.settings.steps for fraction in targets]
    wanted = np.interp(at, pilot["steps"], np.array(pilot["loss"], dtype=np.float64))
    say("targets: " + ", ".join(f"{value:.4f} at {100 * f:g} %" for f, value in zip(targets, wanted, strict=True)))
    references = _references(watch, rows)
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    result = None
    for seed in seeds:
        for each in contestants:
            say(f"seed {seed}: {each.name}")
            runs[each.name, seed] = race_run(watch, each.settings.replace(seed=seed), rows, say)
        done = list(seeds)[: list(seeds).index(seed) + 1]
        result = _together(contestants, control, done, runs, targets, wanted, references, watch, target_seed)
        if live is not None:
            live(result)
    assert result is not None  # seeds are not empty, see _check
    return result


def qualifies(metric: str, trained: float, gaussian: float, memoriser: float) -> bool:
    """Whether a metric (the lower the better) may be a race's target: a trained model beats what needs no training.

    The Gaussian's samples win in pixels whatever was learnt, so a distance of pixels never qualifies.
    """
    if "pixel" in metric.lower():
        return False
    return bool(trained < gaussian and trained < memoriser)


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
            if name != FLOOR:
                pool = watch.images.all()
                loss = watch.loss(closed_form(keys[name], pool, watch.schedule_object).to(watch.device))
            features = moments(watch.classifier.features(images))
            made[name] = {"loss": loss, "frechet": frechet_distance(watch.reference, features)}
        return made

    return rows.row({"row": "references", **common}, compute)


def _together(
    contestants: Sequence[Contestant],
    control: Contestant,
    seeds: Sequence[int],
    runs: dict[tuple[str, int], dict[str, Any]],
    targets: Sequence[float],
    wanted: np.ndarray,
    references: dict[str, dict[str, float | None]],
    watch: Watch,
    target_seed: int,
) -> xr.Dataset:
    steps = sorted({step for run in runs.values() for step in run["steps"]})
    place = {step: i for i, step in enumerate(steps)}
    shape = (len(contestants), len(seeds))
    loss = np.full((*shape, len(steps)), np.nan)
    evaluations = {key: np.full((*shape, EVALUATIONS), np.nan) for key in ("step", "loss", "frechet", "covered")}
    crossing, censored = np.full((*shape, len(targets)), np.nan), np.zeros((*shape, len(targets)), dtype=bool)
    diverged, seconds = np.full(shape, np.nan), np.full(shape, np.nan)
    window = SUSTAINED * control.settings.steps
    for i, each in enumerate(contestants):
        for j, seed in enumerate(seeds):
            run = runs[each.name, seed]
            curve = np.array(run["loss"], dtype=np.float64)  # None becomes NaN
            loss[i, j, [place[step] for step in run["steps"]]] = curve
            seconds[i, j] = run["seconds_per_step"]
            for k, (step, values) in enumerate(run["evaluations"]):
                evaluations["step"][i, j, k] = step
                for key in ("loss", "frechet", "covered"):
                    evaluations[key][i, j, k] = np.nan if values[key] is None else values[key]
            if run["diverged_at"] is not None:
                diverged[i, j] = run["diverged_at"]
            for k, target in enumerate(wanted):
                found = first_sustained(run["steps"], curve.tolist(), target, window) if run["steps"] else None
                lost = found is None or run["diverged_at"] is not None
                # A run that diverged arrived nowhere, whatever it touched before.
                censored[i, j, k] = lost or found.censored  # type: ignore[union-attr]
                crossing[i, j, k] = each.settings.steps if lost else found.at  # type: ignore[union-attr]
    frechet = f"Frechet distance ({watch.classifier.feature_name})"
    metrics, names = [LOSS, frechet], list(references)
    value = np.array([[references[n][key] for key in ("loss", "frechet")] for n in names], dtype=np.float64)
    own = [c.name for c in contestants].index(control.name)
    last = [_last(evaluations[key][own]) for key in ("loss", "frechet")]
    qualified = [
        qualifies(metric, last[k], value[names.index(GAUSSIAN), k], value[names.index(MEMORISER), k])
        for k, metric in enumerate(metrics)
    ]
    run_dims, per_target = ("contestant", "seed"), ("contestant", "seed", "target")
    result = xr.Dataset(
        {
            "loss": ((*run_dims, "step"), loss),
            "evaluation_step": ((*run_dims, "evaluation"), evaluations["step"]),
            "evaluation_loss": ((*run_dims, "evaluation"), evaluations["loss"]),
            "frechet": ((*run_dims, "evaluation"), evaluations["frechet"]),
            "covered": ((*run_dims, "evaluation"), evaluations["covered"]),
            "crossing": (per_target, crossing),
            "censored": (per_target, censored),
            "diverged_at": (run_dims, diverged),
            "seconds_per_step": (run_dims, seconds),
            "target_loss": ("target", wanted),
            "reference_value": (("reference", "metric"), value),
            "qualified": ("metric", np.array(qualified)),
            "role": ("contestant", [c.role for c in contestants]),
            "entry": ("contestant", [c.entry for c in contestants]),
            "pilot_steps": ("contestant", np.array([c.pilot_steps for c in contestants], dtype=np.int32)),
            "planned_steps": ("contestant", np.array([c.settings.steps for c in contestants], dtype=np.int32)),
        },
        coords={
            "contestant": [c.name for c in contestants],
            "seed": np.array(seeds, dtype=np.int32),
            "step": np.array(steps, dtype=np.int32),
            "target": list(targets),
            "reference": names,
            "metric": metrics,
        },
        attrs={"control": control.name},
    )
    return with_provenance(
        result,
        "race",
        settings={c.name: vars(c.settings) for c in contestants},
        data={"name": watch.images.name, "fingerprint": watch.images.fingerprint, "images": len(watch.images)},
        held_out={"name": watch.held_out.name, "images": len(watch.held_out)},
        watch=watch.facts,
        target_seed=target_seed,
        sustained_steps=window,
        device=str(watch.device),
    )


def _last(values: np.ndarray) -> float:
    """Mean over seeds ``(seed, evaluation)`` of the last evaluation; NaN where a seed has none."""
    kept = [row[np.isfinite(row)] for row in values]
    return float(np.mean([row[-1] if len(row) else np.nan for row in kept]))
