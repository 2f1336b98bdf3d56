"""Do models that make the same images share a basin? Loss barriers between two models, beside how alike their images are.

2404.07946 explains that models agree by a smooth landscape with "similar minima". Agreement in weights is asked here three ways: along the
straight line, along a trained curve (which may go round a hill), and along the straight line after the hidden units have been put in
one order. No barrier says one basin; a barrier that alignment removes says one basin up to the order of units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.devices import measuring, plain_defaults, while_running
from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion, described
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.references import closed_form
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import Array, Interval, add_interval, interval_of, jackknife, mean_interval
from consistency_lab.probes.directions import difference, norm
from consistency_lab.probes.frozen import untouched
from consistency_lab.probes.joining import check_joinable, own_losses, settling
from consistency_lab.probes.landscape import same_question
from consistency_lab.probes.subject import Subject, diffusion_subject
from consistency_lab.similarity.compare import compare
from consistency_lab.store.results import with_provenance
from consistency_lab.studies.alignment import aligned
from consistency_lab.studies.curves import Weights, losses_on, on_curve, on_line, train_middle, weights_of
from consistency_lab.training.batches import DenoisingBatches
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import settings_of

LINE, CURVE, ALIGNED = "straight line", "trained curve", "line after alignment"


@plain_defaults()
def probe_connectivity(
    a: DiffusionModel,
    b: DiffusionModel,
    images: ImageSet,
    held_out: ImageSet,
    *,
    noise: SharedNoise | None = None,
    count: int = 64,
    bins: int = 10,
    points: int = 21,
    steps: int = 300,
    lr: float | None = None,
    samples: int = 128,
    sampler: Sampler | str | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The loss between two models on three paths, its barriers, and the consistency of their images.

    Args:
        a, b: that differ in nothing but their weights, and running statistics of batch norm.
        images: what the curve is trained on (times uniform; batch size and data as in a's training).
        held_out: whose first ``count`` images give every loss that is reported.
        noise: that the images are made from; ``SharedNoise(0)`` by default.
        count, bins: images, each at so many noise levels.
        points: positions on each path, ends included.
        steps, lr: of the curve's training; a's own peak learning rate by default, falling to 0.
        samples, sampler: of the comparison of their images; ``Sampler()`` by default, which text may stand for too.
        seed: of the frozen batch and of the curve's training.

    Returns:
        A connectivity result: ``loss (path, position)``, ``loss_by_t (path, position, t)``, ``barrier (path)`` and ``barrier_by_t (path,
        t)`` with 95 % intervals over images, ``mean_loss``, that of the denoiser that answers with the data mean, and ``consistency``
        with its interval over noise. Where alignment is not defined, the attribute ``alignment`` says why and the path is not there.

    Raises:
        UserError: what is no diffusion model, image set or noise; models that differ in more than weights or were not trained here;
            too few images or points; a loss that draws random numbers.
    """
    for model in (a, b):
        check_diffusion(model)
    for part in (images, held_out):
        check_set(part)
    check_noise(noise)
    settings = _curve_settings(a, b, steps, seed)
    if points < 3 or steps < 1 or count < 2:
        raise UserError(f"connectivity needs 3 points, 1 step and 2 images or more, not {points}, {steps} and {count}.")
    subject = diffusion_subject(a, held_out, count=count, bins=bins, seed=seed)
    batch, line = subject.batch, np.linspace(0, 1, points)
    other = same_question(subject, b)
    assert isinstance(other.module, Denoiser)
    b = replace(b, denoiser=other.module)  # where the first one is
    start, end = weights_of(a.denoiser), weights_of(b.denoiser)
    paths: dict[str, tuple[Subject, Callable[[float], Weights]]] = {LINE: (other, lambda s: on_line(start, end, s))}
    apart, alignment = {"weight_distance": norm(difference(a.denoiser, b.denoiser))}, "done"
    with untouched(a.denoiser):
        a.denoiser.eval()
        subject.check()
        own_losses(subject, other)  # or refuse before a curve is trained
        source = DenoisingBatches(images, settings, a.device)
        rate = settings.lr if lr is None else lr
        training, middle = [], start
        way = train_middle(a.denoiser, b.denoiser, denoising_loss, source.batch, steps=steps, lr=rate, seed=seed)
        for reached, value in while_running(measuring, way):
            training.append(value)
            middle = reached
        paths[CURVE] = other, lambda s: on_curve(start, middle, end, s)
        try:
            ordered = weights_of((twin := aligned(b, a)).denoiser)
            apart["aligned_weight_distance"] = norm(difference(a.denoiser, twin.denoiser))
            paths[ALIGNED] = same_question(subject, twin), lambda s: on_line(start, ordered, s)
        except UserError as reason:
            alignment = str(reason)
        losses = np.stack([_losses(subject, last, path, line) for last, path in paths.values()])
        blank = closed_form("mean", images.all(), a.denoiser.schedule).to(a.device)
        flat = batch.losses(blank, denoising_loss).double().cpu().numpy().reshape(bins, count).mean(0)
    assert subject.times is not None  # a diffusion model's
    result = _dataset(list(paths), line, subject.times.numpy(), losses.reshape(len(paths), points, bins, count))
    add_interval(result, "mean_loss", (), mean_interval(flat))
    result["curve_loss"] = ("step", torch.stack(training).cpu().numpy())
    likeness = compare([a, b], noise, count=samples, metrics=("mse",), sampler=sampler).isel(pair=0, t=-1, metric=0)
    add_interval(result, "consistency", (), interval_of(likeness, "score"))
    result = result.assign(apart)
    result.attrs.update(first=a.name, second=b.name, units="mean squared error in eps", alignment=alignment)
    return with_provenance(
        result,
        "connectivity",
        choices=("path", "t"),
        models=[described(m) for m in (a, b)],
        images={"name": held_out.name, "fingerprint": held_out.fingerprint, "used": count},
        data={"name": images.name, "fingerprint": images.fingerprint, "images": len(images)},
        curve={"steps": steps, "lr": rate, "batch": settings.batch, "timesteps": str(settings.timesteps)},
        samples=samples,
        seed=seed,
        noise_seed=(noise or SharedNoise(0)).seed,
        batch=batch.fingerprint,
        device=str(a.device),
    )


def _losses(subject: Subject, end: Subject, path: Callable[[float], Weights], line: Array) -> Array:
    """``(len(line), B)``: at the ends the models' own, with their own buffers."""
    settle, inner = settling(subject, end), line[1:-1].tolist()
    first, last = (x.flatten()[None].numpy() for x in (subject.losses(), own_losses(subject, end)))
    between = losses_on(subject.module, subject.loss, subject.batch, path, inner, settle)
    return np.concatenate([first, between, last])


def _curve_settings(a: DiffusionModel, b: DiffusionModel, steps: int, seed: int) -> TrainingSettings:
    check_joinable(a.denoiser, b.denoiser, (a.name, b.name))
    if any("spec" not in m.facts for m in (a, b)):
        raise UserError("connectivity trains a curve as its ends were trained; give models that this package trained.")
    fresh = {f"{stream}_seed": None for stream in ("init", "order", "noise")}
    return settings_of(a.facts["spec"]).replace(steps=steps, seed=seed, timesteps="uniform", target="sample", **fresh)


def _dataset(paths: list[str], line: Array, times: Array, losses: Array) -> xr.Dataset:
    """Losses ``(path, position, t, image)`` as means and barriers; images are the independent units."""
    result = xr.Dataset(coords={"path": paths, "position": line, "t": times})
    add_interval(result, "loss", ("path", "position"), mean_interval(losses.mean(2)))
    result["loss_by_t"] = (("path", "position", "t"), losses.mean(3))
    add_interval(result, "barrier", ("path",), barrier_interval(line, losses.mean(2)))
    add_interval(result, "barrier_by_t", ("path", "t"), barrier_interval(line, losses.swapaxes(1, 2)))
    return result


def barrier_interval(positions: Array, losses: Array) -> Interval:
    """Highest mean excess of the loss over the straight line between the losses of the ends (Frankle et al. 1912.05671, section 2).

    A maximum of means: never below 0, and a little too high where the means are noisy. The interval is the delete-one jackknife's over
    images, its lower end drawn back to 0.

    Args:
        positions: ``(P,)`` from 0 to 1.
        losses: ``(..., P, images)``.

    Returns:
        ``(...)``.
    """
    chord = losses[..., :1, :] + positions[:, None] * (losses[..., -1:, :] - losses[..., :1, :])
    excess = losses - chord
    n = excess.shape[-1]
    left = (excess.sum(-1, keepdims=True) - excess) / (n - 1)
    found = jackknife(excess.mean(-1).max(-1), np.moveaxis(left.max(-2), -1, 0))
    return found._replace(low=np.maximum(found.low, 0.0))
