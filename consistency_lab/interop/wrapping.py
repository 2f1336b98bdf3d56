"""Was a model described correctly? Its denoising error under what was said of it, and under what else might have been meant.

A wrong time, sign, prediction, range or schedule gives a model that runs but is bad. Images tell: the same frozen states are denoised under
each alternative, and one under which the module suddenly denoises as a trained model does, at nearly every noise level, is what was
meant. The yardstick is the best linear denoiser of the images (`GaussianDenoiser`), whose expected error needs the eigenvalues l of their
covariance alone: in eps units the mean of l / (l + s^2) at s = sigma / alpha, whatever the law of the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from consistency_lab.data.imageset import ImageSet, check_set, check_shape
from consistency_lab.devices import measuring
from consistency_lab.diffusion.denoiser import Denoiser, GuidedDenoiser, NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel, check_diffusion
from consistency_lab.errors import UserError
from consistency_lab.interop.alternatives import NoisyImages, alternatives, changes
from consistency_lab.interop.asking import noise_sentences
from consistency_lab.interop.module import ModuleNetwork, Told, WrappedDenoiser
from consistency_lab.interop.times import TIMES
from consistency_lab.networks.blocks import ImageNetwork

LEVELS = (-2.0, 0.0, 2.0, 4.0, 6.0, 7.0)  # log-SNR; most of them at low noise, where a slightly wrong schedule shows
CLEAR = 0.1  # in the logarithm of the error, the mean over levels: what an alternative must be better by
TRAINED = (
    0.05  # and at most so far above the Gaussian at its better levels: networks that learned little fit no alternative
)
POOR = (
    1.4  # times the linear denoiser's error, the geometric mean over levels: beyond it a wrapping cannot be vouched for
)
_TIE = 1.03  # at high noise all errors are nearly equal
_CAP = 1.0  # of one level's logarithm: a network that predicts x0 is bad at low noise, correctly wrapped too
_PIXELS = 4096  # the largest covariance whose eigenvalues are taken; beyond it as many images are


@dataclass(frozen=True)
class WrappingCheck:
    """What images say of a model's wrapping.

    Attributes:
        model: its name.
        log_snr: the noise levels that were asked about, in our image units; from much noise to little.
        error: the model's squared error in eps at each, as it was told.
        gaussian: that of the best linear denoiser of the images.
        instead: what it probably is, as the arguments of `wrap_module`: ``"predicts='v'"``; empty where nothing fits better.
        wrong: which of ``"time"``, ``"sign"``, ``"prediction"``, ``"range"`` and ``"schedule"`` that changes.
        error_instead: the model's error under it; empty where nothing fits better.
        worse_than_zeros: as told, it is worse than an answer of zeros would be, and no alternative fits.
    """

    model: str
    log_snr: tuple[float, ...]
    error: tuple[float, ...]
    gaussian: tuple[float, ...]
    instead: str = ""
    wrong: tuple[str, ...] = ()
    error_instead: tuple[float, ...] = ()
    worse_than_zeros: bool = False

    @property
    def suspect(self) -> bool:
        """Whether something speaks against the wrapping."""
        return bool(self.instead) or self.worse_than_zeros

    @property
    def poor(self) -> bool:
        """Whether it denoises so badly, at `POOR` times the linear denoiser's error, that nothing can be said for its wrapping either."""
        return (
            bool(np.mean(_ratios(self.error, self.gaussian).clip(max=10.0)) > math.log(POOR)) if self.error else False
        )

    @property
    def sentence(self) -> str:
        """What was found, for the reader."""
        ratio = _words(_ratios(self.error, self.gaussian))
        if self.instead:
            better = _words(_ratios(self.error_instead, self.gaussian))
            return (
                f"{self.model}: probably told wrongly what it is ({' and '.join(self.wrong)}): as told, its denoising error is {ratio} "
                f"times that of the best linear denoiser (mean over noise levels), and with {self.instead} it is {better} times that."
            )
        if self.worse_than_zeros:
            return (
                f"{self.model}: as it was told what it is, it denoises worse than an answer of zeros does; time, sign, prediction, range "
                "or schedule is wrong and no usual alternative fits, or the model has learned nothing."
            )
        if self.poor:
            return (
                f"{self.model}: its denoising error is {ratio} times that of the best linear denoiser (mean over noise levels), and no "
                "usual alternative is clearly better: it has learned little, or its time, sign, prediction, range or schedule is wrong."
            )
        return (
            f"{self.model}: nothing speaks against what it was told to be; its denoising error is {ratio} times that of the best linear "
            "denoiser (mean over noise levels)."
        )

    def __str__(self) -> str:
        return self.sentence


def check_wrapping(model: DiffusionModel, images: ImageSet, *, count: int = 32, seed: int = 0) -> WrappingCheck:
    """Whether a model was described correctly: time, sign, prediction, range and schedule.

    The same noisy images are denoised as told and under each alternative: other predictions and their negatives, each with other forms
    of the time; other schedules; other ranges. One is named only where it is clearly better at nearly every noise level, and as good
    as the best linear denoiser of the images, so that a network that has learned little is not blamed. `compare` does this by itself
    for every wrapped model that it is given images with.

    Args:
        model: wrapped or trained here; guidance is taken off.
        images: like those that it was trained on.
        count: images that are denoised.
        seed: of their noise.

    Returns:
        what was found; printed, it is a sentence.

    Raises:
        UserError: no diffusion model, or images of another shape.
    """
    check_diffusion(model)
    check_set(images)
    check_shape(model.name, model.noise_shape, images)
    if count < 1:
        raise UserError(f"a check needs at least 1 image, not {count}.")
    return _checked(model, NoisyImages.of(model, images, count, seed), _spectrum(images))


def wrapping_sentences(models: Sequence[GenerativeModel], images: ImageSet | None) -> list[str]:
    """What speaks against the wrapping of models that were not trained here: sentences to stand beside their scores.

    Without images, they are asked about pure noise alone.
    """
    wrapped = [m for m in models if isinstance(m, DiffusionModel) and isinstance(_inner(m.denoiser), WrappedDenoiser)]
    if images is None:
        inner = [(_inner(m.denoiser), m.name) for m in wrapped]
        return [said for d, name in inner if isinstance(d, WrappedDenoiser) for said in noise_sentences(d, name)]
    spectrum = _spectrum(images) if wrapped else None
    checks = [_checked(m, NoisyImages.of(m, images, 32, 0), spectrum) for m in wrapped if spectrum is not None]
    return [check.sentence for check in checks if check.suspect or check.poor]


def _inner(denoiser: Denoiser) -> Denoiser:
    return _inner(denoiser.inner) if isinstance(denoiser, GuidedDenoiser) else denoiser


def _spectrum(images: ImageSet) -> np.ndarray:
    """Eigenvalues of the covariance of the pixels, padded with zeros to their number; of at most 8192 images."""
    chosen = torch.linspace(0, len(images) - 1, min(len(images), 2 * _PIXELS)).round().long()
    flat = images.batch(chosen, "cpu").flatten(1).double()
    if flat.shape[1] > _PIXELS:
        flat = flat[:: -(-len(flat) // _PIXELS)]
    flat = flat - flat.mean(0)
    gram = flat.T @ flat if flat.shape[1] <= len(flat) else flat @ flat.T
    values = (torch.linalg.eigvalsh(gram) / len(flat)).clamp_min(0).numpy()
    return np.concatenate([values, np.zeros(flat.shape[1] - len(values))])


def _gaussian(spectrum: np.ndarray, levels: Sequence[float]) -> tuple[float, ...]:
    return tuple(float((spectrum / (spectrum + math.exp(-level))).mean()) for level in levels)


def _ratios(error: Sequence[float] | np.ndarray, gaussian: Sequence[float] | np.ndarray) -> np.ndarray:
    """Logarithms of the error over the Gaussian's, per level; infinite where an error is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.log(np.array(error) / np.array(gaussian)), nan=np.inf)


def _words(ratios: np.ndarray) -> str:
    ratio = float(np.exp(np.mean(ratios[np.isfinite(ratios)]))) if np.isfinite(ratios).any() else math.inf
    return f"{ratio:.3g}" if ratio < 1e6 else "beyond all bounds"


def _checked(model: DiffusionModel, batch: NoisyImages, spectrum: np.ndarray) -> WrappingCheck:
    denoiser = _inner(model.denoiser)
    low, high = denoiser.schedule.log_snr_range
    levels = tuple(level for level in LEVELS if low <= level <= high)
    gaussian = _gaussian(spectrum, levels)
    error = _errors(denoiser, batch, levels)
    found = WrappingCheck(model.name, levels, error, gaussian)
    if not levels or not isinstance(denoiser, NetworkDenoiser) or (np.array(error) < np.array(gaussian)).all():
        return found
    wrapped = _as_wrapped(denoiser)
    best, least = None, math.inf
    for other, errors in alternatives(wrapped, batch, levels):
        # One change rather than two, unless two are clearly better.
        score = _fit(error, errors, gaussian) + CLEAR / 2 * len(changes(wrapped.told, other))
        if score < least:
            best, least = (other, errors), score
    if best is not None:
        wrong, arguments = zip(*changes(wrapped.told, best[0]), strict=True)
        return replace(found, instead=", ".join(arguments), wrong=wrong, error_instead=best[1])
    return replace(found, worse_than_zeros=_worse_than_zeros(wrapped, batch, levels, error))


def _fit(error: Sequence[float], other: Sequence[float], gaussian: Sequence[float]) -> float:
    """How well an alternative fits, the less the better; infinite unless it is clearly better than what was told, and a trained model.

    Compared over the levels that it covers, four at least.
    """
    known = ~np.isnan(other)
    own, theirs = (_ratios(np.array(x)[known], np.array(gaussian)[known]) for x in (error, other))
    if len(theirs) < 4 or not (theirs <= own + math.log(_TIE)).mean() > 0.7:
        return math.inf
    trained = np.sort(theirs)[: len(theirs) // 2].mean() < TRAINED
    gain = np.mean(own.clip(max=_CAP) - theirs.clip(max=_CAP))
    return float(theirs.clip(max=_CAP).mean()) if trained and gain > CLEAR else math.inf


def _as_wrapped(denoiser: NetworkDenoiser) -> WrappedDenoiser:
    """A network of ours as a module that was wrapped."""
    if isinstance(denoiser, WrappedDenoiser):
        return denoiser
    network = denoiser.network
    classes = network.classes if isinstance(network, ImageNetwork) else 0
    told = Told(denoiser.schedule, denoiser.predicts, "unit", rescaled=True)
    module = ModuleNetwork(network, denoiser.shape, TIMES.build("unit", denoiser.schedule), classes=classes)
    return WrappedDenoiser(module, told).eval()


def _errors(denoiser: Denoiser, batch: NoisyImages, levels: Sequence[float]) -> tuple[float, ...]:
    """Squared error in eps at each level, the mean over images and pixels."""
    dtype = next((p.dtype for p in denoiser.parameters()), torch.float64)
    x0, eps = batch.x0.to(dtype), batch.eps.to(dtype)
    times = [float(denoiser.schedule.time_from_log_snr(level)) for level in levels]
    with measuring(), torch.no_grad():
        return tuple(
            float(
                denoising_loss(denoiser, x0, torch.full((len(x0),), t, dtype=torch.float64), eps, batch.labels).mean()
            )
            for t in times
        )


def _worse_than_zeros(
    wrapped: WrappedDenoiser, batch: NoisyImages, levels: Sequence[float], error: Sequence[float]
) -> bool:
    worse = []
    for level, own in zip(levels, error, strict=True):
        _, alpha, sigma, x_t = batch.at(wrapped.schedule, level)
        zeros = wrapped.parametrisation.estimate(x_t, torch.zeros_like(x_t), alpha, sigma).eps
        worse.append(not own <= 1.5 * float((zeros - batch.eps).pow(2).mean()))
    return bool(np.mean(worse) > 0.7)
