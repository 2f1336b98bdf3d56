"""What else might have been meant by what was said of a module, and how it denoises under that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import Choice
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.prediction import per_sample
from consistency_lab.diffusion.schedule import SCHEDULES, Schedule
from consistency_lab.interop.module import Told, WrappedDenoiser
from consistency_lab.interop.schedules import discrete_steps
from consistency_lab.interop.units import half_and_centre

_PLAIN = ("eps", "x0", "v", "flow", "score")
_TIME_ORDER = ("unit", "index", "reversed", "sigma")  # of two that are the same the more usual one is named
_RANGES = ((-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5))


@dataclass(frozen=True)
class NoisyImages:
    """Images and noise ``(B, C, H, W)`` float64 on the model's device, and labels ``(B,)`` where it wants them."""

    x0: Tensor
    eps: Tensor
    labels: Tensor | None

    @classmethod
    def of(cls, model: DiffusionModel, images: ImageSet, count: int, seed: int) -> NoisyImages:
        chosen = torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()
        labels = model.labels(range(len(chosen)))
        if labels is not None and images.labels is not None and images.classes <= model.classes:
            labels = images.labels[chosen.to(images.device)].to(model.device)
        noise = SharedNoise(seed).draw(range(len(chosen)), images.shape, stream="probe", device=model.device)
        return cls(images.batch(chosen, model.device).double(), noise.double(), labels)

    def at(self, schedule: Schedule, level: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The images as noisy as that log-SNR: times ``(B,)``, alpha and sigma, which broadcast to images, and the states ``x_t``."""
        t = schedule.time_from_log_snr(level).expand(len(self.x0)).to(self.x0.device)
        alpha, sigma = (per_sample(scale(t), self.x0) for scale in (schedule.alpha, schedule.sigma))
        return t, alpha, sigma, alpha * self.x0 + sigma * self.eps


def alternatives(
    wrapped: WrappedDenoiser, batch: NoisyImages, levels: Sequence[float]
) -> Iterator[tuple[Told, tuple[float, ...]]]:
    """What else might have been meant, and the error under it; NaN at levels that its schedule does not cover."""
    told = wrapped.told
    for base, predictions in _candidates(told, float(batch.x0.std())):
        try:
            denoisers = [wrapped.retold(replace(base, predicts=predicts)) for predicts in predictions]
            errors = np.full((len(levels), len(predictions)), np.nan)
            low, high = denoisers[0].schedule.log_snr_range
            for row, level in zip(errors, levels, strict=True):
                if low <= level <= high:
                    row[:] = _errors_of_one_answer(denoisers, batch, level)
        except Exception:  # a module need not understand what it was not made for
            continue
        for predicts, each in zip(predictions, errors.T, strict=True):
            yield replace(base, predicts=predicts), tuple(each.tolist())


def _candidates(told: Told, deviation: float) -> Iterator[tuple[Told, list[str]]]:
    """Groups of alternatives that show the module the same states at the same times, and so cost one evaluation."""
    own = str(told.predicts)
    signed = [f"{sign}{name}" for name in _PLAIN for sign in ("", "-")]
    others = [text for text in signed if text != own]
    preconditioned = own.removeprefix("-").startswith("edm")
    yield told, others
    if not preconditioned and deviation > 0:
        half, _ = half_and_centre(told.value_range)
        yield told, [f"edm(sigma_data={round(half * deviation, 4)})"]
    if preconditioned:
        yield told, [own.removeprefix("-") if own.startswith("-") else f"-{own}"]
    for time in _times(told):
        yield replace(told, time=time), signed
        if preconditioned:
            yield replace(told, time=time), [own]
    for value_range in _RANGES:
        if value_range != told.value_range:
            yield replace(told, value_range=value_range), [own]
    steps = discrete_steps(told.schedule)
    for name in (f"linear(steps={steps})", f"linear(beta_end=0.01, steps={steps})", "cosine", "flow", "edm"):
        schedule = SCHEDULES.build(name)
        if schedule != told.schedule:
            yield replace(told, schedule=schedule), [own]


def _times(told: Told) -> list[str]:
    """The other names of times, in the shape that the module was given its time."""
    if callable(told.time):
        return list(_TIME_ORDER)
    own = Choice.parse(told.time)
    shape = {"broadcast": True} if own.options.get("broadcast") else {}
    return [str(Choice(name, shape)) for name in _TIME_ORDER if name != own.name]


@torch.no_grad()
def _errors_of_one_answer(denoisers: Sequence[WrappedDenoiser], batch: NoisyImages, level: float) -> list[float]:
    """The error in eps of each reading of the module's one answer to the same states."""
    first = denoisers[0]
    t, alpha, sigma, x_t = batch.at(first.schedule, level)
    with measuring():
        answer = first.network(first.shown(x_t, t), t.to(first.network.precision or torch.float64), batch.labels)
    read = [d.parametrisation.estimate(x_t, answer.double(), alpha, sigma).eps for d in denoisers]
    return [float((eps - batch.eps).pow(2).mean()) for eps in read]


def changes(told: Told, other: Told) -> list[tuple[str, str]]:
    """What differs, and the argument that says it."""
    said = []
    if other.predicts != told.predicts:
        flipped = str(other.predicts).removeprefix("-") == str(told.predicts).removeprefix("-")
        said.append(("sign" if flipped else "prediction", f"predicts={str(other.predicts)!r}"))
    if other.time != told.time:
        said.append(("time", f"time={str(other.time)!r}"))
    if other.value_range != told.value_range:
        said.append(("range", f"value_range=({other.value_range[0]:g}, {other.value_range[1]:g})"))
    if other.schedule != told.schedule:
        said.append(("schedule", f"schedule={other.schedule.spec!r}"))
    return said
