"""From the runs of a race to its result: curves, crossings, censoring, references, and which metrics may be a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from consistency_lab.paper.race.contestants import Contestant
from consistency_lab.paper.race.crossing import arrival
from consistency_lab.paper.race.pace import Pace
from consistency_lab.paper.race.running import EVALUATIONS, Watch
from consistency_lab.similarity.quality import GAUSSIAN, MEMORISER
from consistency_lab.store.results import with_provenance
from consistency_lab.training.settings import TrainingSettings

SUSTAINED = 0.1  # of the control's run: how long a target must be held
LOSS = "held-out loss"


def qualifies(trained: float, gaussian: float, memoriser: float) -> bool:
    """Whether a metric (the lower the better) may be a race's target: a trained model beats what needs no training.

    Features are a classifier's (`Watch`): in pixels a Gaussian's samples win whatever was learned.
    """
    return bool(trained < gaussian and trained < memoriser)


def gathered(
    contestants: Sequence[Contestant],
    control: Contestant,
    seeds: Sequence[int],
    runs: Mapping[tuple[str, int], dict[str, Any]],
    paces: Mapping[int, Pace | None],
    pilot: Mapping[str, Any],
    targets: Sequence[float],
    wanted: np.ndarray,
    references: dict[str, dict[str, float | None]],
    watch: Watch,
    target_settings: TrainingSettings,
) -> xr.Dataset:
    """The result of `race`: of runs by (contestant, seed) and the target pilot, as `recorded` gives them, what their steps take by seed,
    where that is known, and the wanted losses."""
    steps = sorted({step for run in (*runs.values(), pilot) for step in run["steps"]})
    place = {step: i for i, step in enumerate(steps)}
    shape = (len(contestants), len(seeds))
    loss = np.full((*shape, len(steps)), np.nan)
    evaluations = {key: np.full((*shape, EVALUATIONS), np.nan) for key in ("step", "loss", "frechet", "covered")}
    crossing, censored = np.full((*shape, len(targets)), np.nan), np.zeros((*shape, len(targets)), dtype=bool)
    diverged = np.full(shape, np.nan)
    seconds = np.full(shape, np.nan)
    numbers = {key: np.full(shape, np.nan) for key in ("total_variation", "effective_share")}
    window = SUSTAINED * control.settings.steps
    for i, each in enumerate(contestants):
        for j, seed in enumerate(seeds):
            run = runs[each.name, seed]
            curve = np.array(run["loss"], dtype=np.float64)  # None becomes NaN
            loss[i, j, [place[step] for step in run["steps"]]] = curve
            for key in numbers:
                numbers[key][i, j] = run[key]
            if pace := paces[seed]:
                seconds[i, j] = pace.seconds[each.name]
            for k, (step, values) in enumerate(run["evaluations"]):
                evaluations["step"][i, j, k] = step
                for key in ("loss", "frechet", "covered"):
                    evaluations[key][i, j, k] = np.nan if values[key] is None else values[key]
            if run["diverged_at"] is not None:
                diverged[i, j] = run["diverged_at"]
            gone, planned = run["diverged_at"] is not None, each.settings.steps
            for k, target in enumerate(wanted):
                crossing[i, j, k], censored[i, j, k] = arrival(run["steps"], curve, target, window, planned, gone)
    frechet = f"Frechet distance ({watch.classifier.feature_name})"
    metrics, names = [LOSS, frechet], list(references)
    value = np.array([[references[n][key] for key in ("loss", "frechet")] for n in names], dtype=np.float64)
    own = [c.name for c in contestants].index(control.name)
    last = [_last(evaluations[key][own]) for key in ("loss", "frechet")]
    qualified = [
        qualifies(last[k], value[names.index(GAUSSIAN), k], value[names.index(MEMORISER), k])
        for k in range(len(metrics))
    ]
    beaten = [value[names.index(name), 0] for name in (GAUSSIAN, MEMORISER)]
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
            **{key: (run_dims, each) for key, each in numbers.items()},
            "seconds_per_step": (run_dims, seconds),
            "machine": ("seed", [pace.machine if (pace := paces[seed]) else "" for seed in seeds]),
            "pilot_loss": ("step", _on_steps(pilot, place)),
            "target_loss": ("target", wanted),
            "target_qualified": ("target", [qualifies(each, *beaten) for each in wanted]),
            "reference_value": (("reference", "metric"), value),
            "qualified": ("metric", np.array(qualified)),
            "role": ("contestant", [c.role for c in contestants]),
            "entry": ("contestant", [c.entry for c in contestants]),
            "matched": ("contestant", [c.matched for c in contestants]),
            "pilot_steps": ("contestant", np.array([c.pilot_steps for c in contestants], dtype=np.int32)),
            "pilot_seconds": ("contestant", np.array([c.pilot_seconds for c in contestants])),
            "batch": ("contestant", np.array([c.settings.batch for c in contestants], dtype=np.int32)),
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
        choices=("contestant", "target"),
        settings={c.name: c.settings.texts for c in contestants},
        data={"name": watch.images.name, "fingerprint": watch.images.fingerprint, "images": len(watch.images)},
        held_out={"name": watch.held_out.name, "images": len(watch.held_out)},
        watch=watch.facts,
        target_seed=target_settings.init_seed,
        target_settings=target_settings.texts,
        sustained_steps=window,
        target_rule=f"what a run of `target_settings` had reached at the fractions of its {target_settings.steps} steps",
        device=str(watch.device),
    )


def _on_steps(pilot: Mapping[str, Any], place: Mapping[int, int]) -> np.ndarray:
    """The losses of the target pilot on the steps of the race; NaN where it has no record."""
    losses = np.full(len(place), np.nan)
    losses[[place[step] for step in pilot["steps"]]] = np.array(pilot["loss"], dtype=np.float64)
    return losses


def _last(values: np.ndarray) -> float:
    """Mean over seeds ``(seed, evaluation)`` of the last evaluation; NaN where a seed has none."""
    kept = [row[np.isfinite(row)] for row in values]
    return float(np.mean([row[-1] if len(row) else np.nan for row in kept]))
