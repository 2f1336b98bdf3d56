"""The loss along a line through weight space: between two models, or from one model along a random direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel, described
from consistency_lab.errors import UserError
from consistency_lab.intervals import mean_interval
from consistency_lab.probes.directions import difference, norm, random_direction
from consistency_lab.probes.frozen import FrozenBatch, SampleLoss, check_deterministic, frozen_grid, untouched
from consistency_lab.store.results import with_provenance


def losses_along(
    model: nn.Module, loss: SampleLoss, batch: FrozenBatch, direction: Sequence[Tensor], positions: Sequence[float]
) -> Tensor:
    """Loss per sample at ``weights + position * direction``: ``(positions, B)``, float64 on the CPU.

    Each point starts again from the stored weights, so that no error adds up along the walk, and position 0 is the model itself to
    the bit. The model is left as it was.
    """
    parameters = list(model.parameters())
    rows = []
    with measuring(), untouched(model), torch.no_grad():
        origin = [p.detach().clone() for p in parameters]
        for position in positions:
            for parameter, start, step in zip(parameters, origin, direction, strict=True):
                parameter.copy_(start if position == 0 else start + position * step)
            rows.append(batch.losses(model, loss).double().cpu())
    return torch.stack(rows)


def gradient_rms(model: nn.Module, loss: SampleLoss, batch: FrozenBatch) -> float:
    """Root mean square over parameters of the gradient of the mean loss."""
    with measuring(), untouched(model):
        for parameter in model.parameters():
            parameter.grad = None
            parameter.requires_grad_(True)
        for parts in zip(*(x.split(batch.chunk) for x in batch.tensors), strict=True):
            (loss(model, *parts).sum() / len(batch)).backward()
        squares = [p.grad.double().pow(2).sum() for p in model.parameters() if p.grad is not None]
        count = sum(p.numel() for p in model.parameters())
        return float((torch.stack(squares).sum() / count).sqrt())


def probe_landscape(
    model: DiffusionModel,
    images: ImageSet,
    *,
    towards: DiffusionModel | None = None,
    points: int = 25,
    span: float = 1.0,
    count: int = 64,
    bins: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """The loss on a line through the model, for every noise level at once.

    Losses are taken per sample on one frozen batch, so that the split by noise level costs nothing beyond the total.

    Args:
        model: the model at position 0.
        images: their first ``count`` are denoised.
        towards: the model at position 1; the line then runs from -0.5 to 1.5. Without it the line follows a random filter-normalised
            direction from ``-span`` to ``span``.
        points: on the line; the model itself is always one of them.
        span: half-length of a random line, in units of the model's own filter norms.
        count: images, each at every noise level.
        bins: noise levels.
        seed: of the direction and the noise.

    Returns:
        A landscape result: ``loss (position)`` with its interval, ``loss_by_t (position, t)``, and the numbers ``curvature`` (second
        derivative at the model, per squared unit of position), ``roughness`` (root mean square deviation from the best quadratic,
        as a share of the line's range), ``barrier`` (highest loss between two models above the straight line between theirs),
        ``direction_norm`` and ``gradient_rms``.

    Raises:
        UserError: models of different architecture, fewer than 5 points, too few images, or a loss that draws random numbers.
    """
    if points < 5:
        raise UserError(f"a landscape needs at least 5 points, not {points}.")
    denoiser = model.denoiser
    batch, times = frozen_grid(images, model, count, bins, seed)
    denoiser.eval()
    check_deterministic(denoiser, denoising_loss, batch)
    if towards is None:
        direction, line = random_direction(denoiser, seed), np.linspace(-span, span, points | 1)
        path = "random direction, filter-normalised"
    else:
        _check_same_shape(model, towards)
        direction, path = difference(denoiser, towards.denoiser), f"{model.name} to {towards.name}"
        # Steps of one size, such that both models are on the grid.
        inner = max(2, (points - 1) // 2)
        line = np.arange(-(inner // 2), inner + inner // 2 + 1) / inner
    losses = losses_along(denoiser, denoising_loss, batch, direction, line.tolist()).numpy()
    by_t = losses.reshape(len(line), bins, count)
    # Images are the independent units: every image meets all noise levels.
    loss = mean_interval(by_t.mean(1))
    result = xr.Dataset(
        {
            "loss": ("position", loss.estimate),
            "loss_low": ("position", loss.low),
            "loss_high": ("position", loss.high),
            "loss_by_t": (("position", "t"), by_t.mean(2)),
        },
        coords={"position": line, "t": times.numpy()},
        attrs={
            "model": model.name,
            "path": path,
            "curvature": curvature(line, loss.estimate),
            "roughness": roughness(line, loss.estimate),
            "barrier": barrier(line, loss.estimate) if towards is not None else np.nan,
            "direction_norm": norm(direction),
            "gradient_rms": gradient_rms(denoiser, denoising_loss, batch),
            "units": "mean squared error in eps",
        },
    )
    return with_provenance(
        result,
        "landscape",
        models=[described(m) for m in (model, towards) if m is not None],
        path=path,
        images={"name": images.name, "fingerprint": images.fingerprint, "used": count},
        seed=seed,
        batch=batch.fingerprint,
        device=str(model.device),
    )


def _check_same_shape(a: DiffusionModel, b: DiffusionModel) -> None:
    shapes = [[(name, tuple(p.shape)) for name, p in m.denoiser.named_parameters()] for m in (a, b)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{a.name!r} and {b.name!r} have different parameters; there is a line only between models of one architecture."
        )


def curvature(positions: np.ndarray, loss: np.ndarray) -> float:
    """Second derivative at position 0, from the model's two neighbours on the line."""
    centre = int(np.argmin(np.abs(positions)))
    step = positions[1] - positions[0]
    return float((loss[centre - 1] - 2 * loss[centre] + loss[centre + 1]) / step**2)


def roughness(positions: np.ndarray, loss: np.ndarray) -> float:
    """Root mean square deviation from the least-squares quadratic, over the range of the loss on the line; NaN for a constant."""
    span = float(loss.max() - loss.min())
    if span == 0.0:
        return float("nan")
    deviation = loss - np.polyval(np.polyfit(positions, loss, 2), positions)
    return float(np.sqrt((deviation**2).mean()) / span)


def barrier(positions: np.ndarray, loss: np.ndarray) -> float:
    """Highest excess of the loss on [0, 1] over the straight line between the losses of the two models."""
    inside = (positions >= 0) & (positions <= 1)
    chord = np.interp(positions[inside], [0.0, 1.0], np.interp([0.0, 1.0], positions, loss))
    return float((loss[inside] - chord).max())
