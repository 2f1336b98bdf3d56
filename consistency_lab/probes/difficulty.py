"""How hard is each noise level? One pass over a frozen grid answers in every unit.

"Hard" depends on the unit: the error in eps vanishes towards t = 1 because x_t becomes the noise, the error in x0 grows there
(2404.07946 calls late times easy on the first reading). So every unit is shown, and beside it the excess over what needs no
training: the Gaussian denoiser, and the training set's optimal denoiser.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.loss import noisy_state, truth
from consistency_lab.diffusion.model import DiffusionModel, described
from consistency_lab.diffusion.references import closed_form
from consistency_lab.intervals import mean_interval
from consistency_lab.probes.frozen import FrozenBatch, check_deterministic, frozen_grid, untouched
from consistency_lab.store.results import with_provenance

UNITS = ("eps", "x0", "v")
REFERENCES = ("gaussian", "optimal")


def errors_per_sample(
    denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: Tensor | None = None, units: Sequence[str] = UNITS
) -> Tensor:
    """Squared error in several units from one forward pass: ``(B, len(units))``, the mean over pixels."""
    prediction = denoiser(noisy_state(denoiser.schedule, x0, t, eps), t, cond)
    target = truth(prediction, x0, eps)
    return torch.stack([(prediction.in_units(u) - target.in_units(u)).pow(2).flatten(1).mean(1) for u in units], 1)


def probe_difficulty(
    model: DiffusionModel,
    images: ImageSet,
    *,
    count: int = 256,
    bins: int = 20,
    seed: int = 0,
    training_images: ImageSet | None = None,
) -> xr.Dataset:
    """Error per noise level, in eps, x0 and v, with its excess over closed-form denoisers.

    Args:
        model: the model that is asked.
        images: whose first ``count`` images are denoised; held-out ones measure what was learnt, training ones what was fitted.
        count: images; each meets the same noise at every level.
        bins: noise levels, centres of equal cells in t.
        seed: of the noise.
        training_images: what the references are fitted to; ``images`` by default.

    Returns:
        A difficulty result: ``error (units, t, sample)`` and the rest as means with 95 % intervals over images.

    Raises:
        UserError: too few images, other shapes, or a model that answers differently each time.
    """
    batch, times = frozen_grid(images, model, count, bins, seed)
    with measuring(), untouched(model.denoiser), torch.no_grad():
        model.denoiser.eval()
        check_deterministic(model.denoiser, lambda m, *parts: errors_per_sample(m, *parts)[:, 0], batch)
        error = _on_grid(model.denoiser, batch, bins, count)
        pool = (training_images or images).all()
        references = [closed_form(name, pool, model.denoiser.schedule).to(model.device) for name in REFERENCES]
        reference = np.stack([_on_grid(r, batch, bins, count) for r in references])
    result = xr.Dataset(
        {
            "error": (("units", "t", "sample"), error.astype(np.float32)),
            "reference_error": (("reference", "units", "t", "sample"), reference.astype(np.float32)),
        },
        coords={
            "units": list(UNITS),
            "t": times.numpy(),
            "log_snr": ("t", model.denoiser.schedule.log_snr(times).numpy()),
            "reference": list(REFERENCES),
        },
        attrs={"model": model.name},
    )
    for name, values in zip(("error_mean", "error_low", "error_high"), mean_interval(error), strict=True):
        result[name] = (("units", "t"), values)
    for name, values in zip(("excess", "excess_low", "excess_high"), mean_interval(error - reference), strict=True):
        result[name] = (("reference", "units", "t"), values)
    return with_provenance(
        result,
        "difficulty",
        model=described(model),
        images={"name": images.name, "fingerprint": images.fingerprint, "used": count},
        references_fitted_to=(training_images or images).name,
        noise_seed=seed,
        batch=batch.fingerprint,
        device=str(model.device),
    )


def _on_grid(denoiser: Denoiser, batch: FrozenBatch, bins: int, count: int) -> np.ndarray:
    """``(units, t, sample)``."""
    errors = batch.losses(denoiser, errors_per_sample)  # (bins * count, units)
    return errors.double().cpu().numpy().reshape(bins, count, len(UNITS)).transpose(2, 0, 1)
