"""Does a sampler really differ from uniform, when, and what would its importance weights cost?

A curriculum that is uniform until its last percent, as a public one was (2405.17403's baseline), shows here at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.choices import Choice, whole
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.store.results import with_provenance
from consistency_lab.training.timesteps.base import BINS, check_draws, effective_share, total_variation
from consistency_lab.training.timesteps.registry import TIMESTEPS

Loss = Callable[[np.ndarray], np.ndarray]


@plain_defaults()
def audit_timesteps(
    choices: Sequence[str | Choice],
    schedule: Schedule,
    total_steps: int,
    *,
    points: int = 21,
    bands: int = 20,
    batch: int = 128,
    loss: Loss | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """What samplers draw over a run.

    Args:
        choices: samplers as they are written in settings.
        schedule: the noise schedule.
        total_steps: length of the run.
        points: equally spaced steps, first and last included, at which the density is read.
        bands: equal bands of t in which draws are counted; a divisor of `BINS`.
        batch: draws per step, where a sampler is played.
        loss: the loss at times ``(n,)``. Adaptive samplers are played through the run with it; without one they are read as they begin.
        seed: of the draws.

    Returns:
        ``share (sampler, step, t)``, the probability of each band; ``run_share (sampler, t)``, its mean over the steps; at each step
        ``total_variation`` from uniform and ``effective_share``, the share of draws that a batch is worth once weighted back to uniform;
        ``run_total_variation (sampler)`` of the mean over the steps and ``lost (sampler)``, mass that the schedule cut off.

    Raises:
        UserError: bands that do not divide `BINS`, a run of fewer than 2 steps, a sampler that does not exist or whose masses are no
            density, or a loss that does not give one number per time.
    """
    for what, value in (
        ("points", points),
        ("bands", bands),
        ("total_steps", total_steps),
        ("batch", batch),
        ("seed", seed),
    ):
        whole(f"{what} of an audit", value)
    if bands < 1 or BINS % bands or total_steps < 2 or points < 2:
        raise UserError(
            f"an audit needs at least 2 points of a run of at least 2 steps, and bands that divide {BINS}; "
            f"not {points} points, {total_steps} steps, {bands} bands."
        )
    steps = np.unique(np.linspace(0, total_steps - 1, points).round().astype(int))
    shape = (len(choices), len(steps))
    share, variation, effective = np.empty((*shape, bands)), np.empty(shape), np.empty(shape)
    lost, uniform = np.empty(len(choices)), np.full(BINS, 1.0 / BINS)
    mean_masses = np.empty((len(choices), BINS))
    for i, text in enumerate(choices):
        sampler = TIMESTEPS.build(text, schedule, total_steps)
        lost[i], reached, seen = sampler.lost, 0, []
        generator = torch.Generator().manual_seed(seed)
        for j, step in enumerate(steps.tolist()):
            while loss is not None and reached < step:
                t, weight = sampler.sample(batch, reached, generator)
                check_draws(sampler, t, weight, batch)
                sampler.update(t, _losses(loss, t))
                reached += 1
            masses = sampler.checked_masses(step)
            seen.append(masses)
            share[i, j] = masses.reshape(bands, -1).sum(1)
            variation[i, j], effective[i, j] = total_variation(masses, uniform), effective_share(masses)
        mean_masses[i] = np.mean(seen, axis=0)
    width = (schedule.t_max - schedule.t_min) / bands
    times = schedule.t_min + (np.arange(bands) + 0.5) * width
    per_step = ("sampler", "step")
    result = xr.Dataset(
        {
            "share": ((*per_step, "t"), share),
            "run_share": (("sampler", "t"), mean_masses.reshape(len(choices), bands, -1).sum(2)),
            "total_variation": (per_step, variation),
            "effective_share": (per_step, effective),
            "run_total_variation": ("sampler", np.array([total_variation(m, uniform) for m in mean_masses])),
            "lost": ("sampler", lost),
        },
        coords={
            "sampler": [str(choice) for choice in choices],
            "step": steps.astype(np.int32),
            "t": times,
            "log_snr": ("t", schedule.log_snr(torch.from_numpy(times)).numpy()),
        },
    )
    return with_provenance(
        result,
        "timesteps",
        choices=("sampler",),
        schedule=schedule.spec,
        total_steps=total_steps,
        played=loss is not None,
        batch=batch,
    )


def _losses(loss: Loss, t: Tensor) -> Tensor:
    values = np.asarray(loss(t.numpy()), dtype=np.float64)
    if values.shape != tuple(t.shape) or not np.isfinite(values).all():
        raise UserError(
            f"the loss of an audit gives one finite number per time: for {len(t)} times it gave {values.size} values, "
            f"{int(np.isfinite(values).sum())} of them finite."
        )
    return torch.from_numpy(values)
