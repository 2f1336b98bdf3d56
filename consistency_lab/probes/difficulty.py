"""How hard is each noise level? One frozen grid, the same images and noise at every level, answers by every definition.

"Hard" depends on the unit: the error in eps vanishes towards t = 1 because x_t becomes the noise, the error in x0 grows there
(2404.07946 calls late times easy on the first reading). So every unit is shown, and beside it the excess over what needs no
training: the Gaussian denoiser, and the training set's optimal denoiser. The latter is the best there is on the images that it holds and
on no others: it answers with training images whatever it sees, and on held-out ones at low noise every trained model is better. So the
excess over it is taken on training images. Other definitions ask when a level was learned, how long and how noisy its gradient is, and how
fast the distribution of noisy images changes there (2403.10348); `profiles` sets them side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet, check_set, check_shape
from consistency_lab.devices import measuring, plain_defaults
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.loss import denoising_loss, noisy_state, truth
from consistency_lab.diffusion.model import DiffusionModel, described, specs_of
from consistency_lab.diffusion.references import closed_form
from consistency_lab.errors import UserError
from consistency_lab.intervals import Array, Interval, add_interval, jackknife, mean_interval, stacked, without_bounds
from consistency_lab.probes.convergence import half_times
from consistency_lab.probes.frozen import FrozenBatch, check_deterministic, frozen_grid, untouched
from consistency_lab.probes.gradients import adam_moments, gradient_moments
from consistency_lab.probes.marginals import gaussian_kl_rates, log_snr_rate
from consistency_lab.probes.profiles import Profile, add_profiles, group_count, leave_out_means
from consistency_lab.store.results import with_provenance
from consistency_lab.training.train import load_snapshots

UNITS = ("eps", "x0", "v")
EXCESS_OVER = ("gaussian", "optimal")
OPTIMAL = EXCESS_OVER.index("optimal")


def errors_per_sample(
    denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: Tensor | None = None, units: Sequence[str] = UNITS
) -> Tensor:
    """Squared error in several units from one forward pass: ``(B, len(units))``, the mean over pixels."""
    prediction = denoiser(noisy_state(denoiser.schedule, x0, t, eps), t, cond)
    target = truth(prediction, x0, eps)
    return torch.stack([(prediction.in_units(u) - target.in_units(u)).pow(2).flatten(1).mean(1) for u in units], 1)


@plain_defaults()
def probe_difficulty(
    model: DiffusionModel,
    images: ImageSet,
    *,
    count: int = 256,
    bins: int = 20,
    seed: int = 0,
    training_images: ImageSet | None = None,
    detail: int = 32,
    snapshots: Iterable[tuple[int, DiffusionModel]] | None = None,
) -> xr.Dataset:
    """How hard each noise level is, by every definition at once.

    Args:
        model: the model that is asked.
        images: whose first ``count`` images are denoised; held-out ones measure what was learned, training ones what was fitted.
        count: images; each gets the same noise at every level.
        bins: noise levels, centres of equal cells in t.
        seed: of the noise.
        training_images: what the references and the rate of the marginals are fitted to, and whose first ``count`` the excess over the
            optimal denoiser is taken on; ``images`` by default. Of a model that was trained with ``flip=True``: its set's ``mirrored()``.
        detail: how many of the images serve what costs more: gradients, and the errors of the checkpoints.
        snapshots: two or more (step, model) along the training run, in rising order; those of the model's run folder by default. Where that
            kept fewer, there is no half-time.

    Returns:
        A difficulty result: ``error (units, t, sample)`` and its means; ``excess (reference, units, t)`` over closed-form denoisers, of
        ``images`` over the Gaussian and of ``training_images`` over the optimal one; ``noise_scale (t)``; and ``profile (definition,
        t)``, what `difficulty_table` and `difficulty_correlations` read. All with 95 % intervals over images. ``adam_second_moment (t)``
        without: what recipes follow, see `adam_moments`.

    Raises:
        UserError: too few images, other shapes, a single snapshot, or a model that answers differently each time.
    """
    batch, times = frozen_grid(images, model, count, bins, seed)
    if detail < 1:
        raise UserError(f"gradients need at least 1 image, not {detail}; 2 or more give them an interval.")
    pool, schedule = images if training_images is None else training_images, model.denoiser.schedule
    check_set(pool)
    check_shape(model.name, model.noise_shape, pool)
    small = _first(batch, bins, count, min(detail, count))
    with measuring(), untouched(model.denoiser):
        model.denoiser.eval()
        with torch.no_grad():
            check_deterministic(model.denoiser, lambda m, *parts: errors_per_sample(m, *parts)[:, 0], batch)
            error = _on_grid(model.denoiser, batch, bins)
            references = [closed_form(name, pool.all(), schedule).to(model.device) for name in EXCESS_OVER]
            reference = np.stack([_on_grid(r, batch, bins) for r in references])
            excess = [error - each for each in reference]
            if pool.fingerprint != images.fingerprint:
                held, _ = frozen_grid(pool, model, min(count, len(pool)), bins, seed)
                excess[OPTIMAL] = _on_grid(model.denoiser, held, bins) - _on_grid(references[OPTIMAL], held, bins)
        groups = group_count(min(detail, count, len(pool)))
        profiles = [*_error_profiles(error, excess, groups), *_marginal_profiles(model, error, times, pool, groups)]
        gradient, scale, adam = _gradient_profiles(model, small, bins, groups)
    learnt, steps = _half_time_profiles(model, snapshots, small, bins, groups)
    result = xr.Dataset(
        {
            "error": (("units", "t", "sample"), error.astype(np.float32)),
            "reference_error": (("reference", "units", "t", "sample"), reference.astype(np.float32)),
        },
        coords={
            "units": list(UNITS),
            "t": times.numpy(),
            "log_snr": ("t", schedule.log_snr(times).numpy()),
            "reference": list(EXCESS_OVER),
        },
        attrs={"model": model.name},
    )
    add_interval(result, "error_mean", ("units", "t"), mean_interval(error))
    add_interval(result, "excess", ("reference", "units", "t"), stacked(mean_interval(each) for each in excess))
    add_interval(result, "noise_scale", ("t",), scale)
    result["adam_second_moment"] = ("t", adam)
    add_profiles(result, [*profiles, *learnt, *gradient])
    return with_provenance(
        result,
        "difficulty",
        choices=("units", "definition", "reference"),
        model=described(model),
        specs=specs_of([model]),
        images={"name": images.name, "fingerprint": images.fingerprint, "used": count, "detail": min(detail, count)},
        references_fitted_to=pool.name,
        excess_over_optimal_on=pool.name,
        noise_seed=seed,
        batch=batch.fingerprint,
        snapshots=steps,
        groups_left_out=groups,
        asked={
            "count": count,
            "bins": bins,
            "seed": seed,
            "detail": detail,
            "training_images": {"name": pool.name, "fingerprint": pool.fingerprint},
            "snapshots": "given" if snapshots is not None else "of the run" if steps else None,
        },
        device=str(model.device),
    )


def _error_profiles(error: Array, excess: Sequence[Array], groups: int) -> list[Profile]:
    """The error in each unit, and the excess in eps over each reference: at one t the units differ by a factor."""
    unit = "mean square over pixels"
    said = [(f"{u} error", error[i], f"squared error of the model in {u}") for i, u in enumerate(UNITS)]
    for row, name in zip(excess, EXCESS_OVER, strict=True):
        where = ", on training images" if name == EXCESS_OVER[OPTIMAL] else ""
        text = f"squared eps-error of the model minus that of the {name} denoiser{where}"
        said.append((f"over {name}", row[0], text))
    return [Profile(name, unit, text, x.mean(-1), leave_out_means(x, groups)) for name, x, text in said]


def _marginal_profiles(
    model: DiffusionModel, error: Array, times: Tensor, pool: ImageSet, groups: int
) -> list[Profile]:
    """How fast p_t changes (Gaussian approximation), and how fast x_t forgets x0 (from the model's error).

    d I(x0; x_t) / d log-SNR = SNR mmse / 2 (Guo, Shamai & Verdu 2005, theorem 1, in nats), and SNR times the error in x0 is the error in
    eps. The model's error is at least the mmse, so that its rate is an upper bound; it is the model's likelihood loss per unit of t
    (Kingma et al. 2107.00630, the loss in continuous time).
    """
    schedule = model.denoiser.schedule
    rate, without = gaussian_kl_rates(pool.all(), schedule, times, groups)
    kl = Profile(
        "KL rate",
        "nats per squared unit of t",
        "KL of the marginal at t to that 1/1000 later, over 1e-6: closed form for a Gaussian with the mean and covariance of the data",
        rate,
        without,
    )
    nats = log_snr_rate(schedule, times).numpy() * 0.5 * float(np.prod(model.noise_shape))
    text = "information on the image that is lost per unit of t, by the model's error: an upper bound"
    lost = error[0] * nats[:, None]
    return [kl, Profile("information", "nats per unit of t", text, lost.mean(-1), leave_out_means(lost, groups))]


def _gradient_profiles(
    model: DiffusionModel, batch: FrozenBatch, bins: int, groups: int
) -> tuple[list[Profile], Interval, Array]:
    """Norm and noise of the gradient of the objective (the loss in eps) at each t, the noise scale, and `adam_moments`.

    A model without weights has no such profiles.
    """
    nothing = np.full(bins, np.nan)
    parameters = [p for p in model.denoiser.parameters() if p.is_floating_point()]
    if not parameters:
        return [], without_bounds(nothing), nothing
    for parameter in parameters:
        parameter.requires_grad_(True)
    count = len(batch) // bins
    cells = zip(*(x.split(count) for x in batch.tensors), strict=True)
    moments = [gradient_moments(model.denoiser, denoising_loss, cell, groups) for cell in cells]
    estimate, without = np.stack([m.estimate for m in moments]), np.stack([m.without for m in moments], 1)
    unit = "squared eps-loss per squared weight"
    said = [
        ("gradient norm", "squared norm of the mean gradient over images, without the part that is noise"),
        ("gradient noise", "trace of the covariance of single images' gradients"),
    ]
    profiles = [Profile(name, unit, text, estimate[:, i], without[..., i]) for i, (name, text) in enumerate(said)]
    scale = jackknife(_noise_scale(estimate), _noise_scale(without))
    scale = scale._replace(low=np.maximum(scale.low, 0.0))  # a trace over a squared norm is never below 0
    return profiles, scale, adam_moments([m.by_weight for m in moments])


def _noise_scale(moments: Array) -> Array:
    """tr Cov / |G|^2, in images: the batch at which noise and gradient are of one size (1812.06162, equation 2.9).

    NaN where |G|^2 is not above 0.
    """
    known = moments[..., 0] > 0
    return np.where(known, moments[..., 1] / np.where(known, moments[..., 0], 1.0), np.nan)


def _half_time_profiles(
    model: DiffusionModel,
    snapshots: Iterable[tuple[int, DiffusionModel]] | None,
    batch: FrozenBatch,
    bins: int,
    groups: int,
) -> tuple[list[Profile], list[int]]:
    """The convergence half-time at each t, and the steps of the checkpoints; nothing if a run folder has fewer than two."""
    given = snapshots is not None
    if snapshots is None:
        snapshots = load_snapshots(model) if model.folder is not None else []
    steps, errors = [], []
    for step, at in snapshots:
        with measuring(), untouched(at.denoiser), torch.no_grad():
            at.denoiser.eval()
            steps.append(step)
            errors.append(_on_grid(at.denoiser, batch, bins)[0])
    if len(steps) < 2 and not given:
        return [], []
    if len(steps) < 2:
        raise UserError(f"a half-time needs at least 2 snapshots, not {len(steps)}.")
    means = np.stack([error.mean(-1) for error in errors])
    left = np.stack([leave_out_means(error, groups) for error in errors])
    text = f"step by which the error had fallen half of its way between the checkpoints at {steps[0]} and {steps[-1]}"
    known = np.array(steps)
    return [Profile("half-time", "training steps", text, half_times(known, means), half_times(known, left))], steps


def _first(batch: FrozenBatch, bins: int, count: int, kept: int) -> FrozenBatch:
    """The grid of the first images."""
    return FrozenBatch([x.reshape(bins, count, *x.shape[1:])[:, :kept].flatten(0, 1) for x in batch.tensors])


def _on_grid(denoiser: Denoiser, batch: FrozenBatch, bins: int) -> np.ndarray:
    """``(units, t, sample)``."""
    errors = batch.losses(denoiser, errors_per_sample)  # (bins * count, units)
    return errors.double().cpu().numpy().reshape(bins, -1, len(UNITS)).transpose(2, 0, 1)
