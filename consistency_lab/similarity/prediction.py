"""What linear denoisers would agree on: the consistency of models of disjoint training sets, predicted from the images' covariance.

Two models that saw no common image share the population's mean and covariance, and what they learned of these differs by chance. How far
two best linear denoisers differ is known in closed form (`diffusion.equivalents`). Beside what was measured it says how much of the
agreement of trained networks is that of linear ones, and from which number of images on they do better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from consistency_lab.choices import whole
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.equivalents import Moments, about_same_states, along_trajectories, renormalised
from consistency_lab.diffusion.log_snr import kept_points
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES, Schedule
from consistency_lab.errors import UserError
from consistency_lab.intervals import Interval, add_interval
from consistency_lab.similarity.checks import counted
from consistency_lab.similarity.statistics import score
from consistency_lab.store.results import with_provenance

OWN, SAME_STATES = "own trajectories", "the same states"
NOTE = (
    "Of linear denoisers, not of trained networks: averages over pairs of disjoint sets, exact to a relative 1/n for Gaussian images; of "
    "other images mean and covariance alone are used. By squared errors."
)
INTERVAL = "95 % of pairs of disjoint sets, were the images Gaussian; along own trajectories alone"
_NORMAL = 1.959964  # standard deviations that hold 95 %


@plain_defaults()
def predict_consistency(
    images: ImageSet,
    n: int | Sequence[int],
    *,
    times: Sequence[float] | None = None,
    schedule: Schedule | str = "linear",
    noise: SharedNoise | None = None,
    count: int = 256,
) -> xr.Dataset:
    """How alike are two best linear denoisers that were fitted to two disjoint sets of n images each? Nothing is trained or sampled.

    The sets are drawn from a population with the mean and the covariance of ``images``. The numbers are those that `compare` measures
    along the models' own trajectories and `compare_frozen` about the same states, by the mean squared error, averaged over pairs of sets
    and over noise: score = 1 - distance / null, where the null is the distance of the two models under different noise. Compare them
    with families on disjoint sets, not with models of one set, which share their set's mean and covariance too.

    Args:
        images: of the population, all that there are.
        n: images in each of the two sets, 2 or more; or several such numbers. It may exceed half of ``images``.
        times: the noise levels, in the schedule's ``t``: those of a comparison are ``likeness["t"].values``. By default the 14 at which
            `compare` looks. At t = 0 are the images, and the limit of the same states.
        schedule: what ``times`` are times of; predictions depend on the noise levels alone.
        noise: of the samples whose distance is predicted one by one; ``SharedNoise(0)`` by default, as in `compare`.
        count: samples, the images 0 ... count - 1 of the noise; 0 for none.

    Returns:
        Kind ``"prediction"``. ``states`` are `"own trajectories"` and `"the same states"`; components are the eigenvectors of the
        covariance by falling ``variance``. In squared image units:

        * ``distance, null, score (states, n, t)``: mean over pixels, as in a comparison. Along own trajectories the score has an interval
          that holds 95 % of pairs of sets of Gaussian images: one pair may be that far from the average. It is symmetric in
          log(distance / (null - distance)).
        * ``component_distance, component_null, component_score (states, n, t, component)``: along each component. Their sum over
          components is the number of pixels times ``distance``. No score (NaN) where the null is below 1e-8.
        * ``sample_distance, sample_null (n, t, sample)``: of each noise along own trajectories, averaged over pairs of sets; the null is
          its distance to all other noise. Their means over many samples are ``distance`` and ``null``.
        * ``kappa (n, t)``: the noise variance that a denoiser of n images acts as if it saw (of x_t / alpha), s^2 for infinitely many.
        * ``gain (states, n, t, component)``: what one such denoiser makes of its input on average, and ``ideal_gain (states, t,
          component)``, what one of infinitely many images would: the input is the noise that sampling starts from, or the noisy image.

    Raises:
        UserError: what is no image set, one image alone, images that do not differ, n below 2 or given twice, times that the schedule
            does not have.
    """
    check_set(images)
    check_noise(noise)
    sizes = _sizes(n)
    (count,) = counted(count=count)
    noise = noise or SharedNoise(0)
    schedule = schedule if isinstance(schedule, Schedule) else SCHEDULES.build(schedule)
    t = _times(times, schedule)
    levels = schedule.noise_to_signal(t).numpy()
    fitted = GaussianDenoiser.fit(images.all().cpu(), schedule)
    axes = fitted.axes.flip(1)
    variances = fitted.variances.flip(0).numpy()
    variances = np.where(variances > variances[0] * len(variances) * np.finfo(float).eps, variances, 0.0)
    if not variances.any():
        raise UserError(f"the images of {images.name!r} do not differ, so there is nothing to agree on.")
    squares = _squares(noise, count, images.shape, axes)

    result = xr.Dataset(
        coords={
            "states": [OWN, SAME_STATES],
            "n": np.array(sizes, dtype=np.int32),
            "t": t.numpy(),
            "log_snr": ("t", np.where(levels > 0, -2 * np.log(np.where(levels > 0, levels, 1.0)), np.inf)),
            "component": np.arange(1, len(variances) + 1, dtype=np.int32),
            "variance": ("component", variances),
        }
    )
    moments = [
        [[of(variances, size, level) for level in levels] for size in sizes]
        for of in (along_trajectories, about_same_states)
    ]
    _add_scores(result, moments)
    if count:
        _add_samples(result, moments[0], variances, squares)
    result["kappa"] = (("n", "t"), np.stack([renormalised(variances, size, levels) for size in sizes]))
    result["gain"] = (("states", "n", "t", "component"), _stacked(moments, "gain").astype(np.float32))
    own = np.sqrt(variances + levels[:, None] ** 2)
    shrunk = [np.divide(variances, own**k, out=np.zeros_like(own), where=variances > 0) for k in (1, 2)]
    result["ideal_gain"] = (("states", "t", "component"), np.stack(shrunk).astype(np.float32))
    result.attrs.update(metric="mse", interval=INTERVAL, note=NOTE)
    return with_provenance(
        result,
        "prediction",
        choices=("states", "n", "t", "component", "sample"),
        data={"name": images.name, "fingerprint": images.fingerprint, "images": len(images)},
        schedule=schedule.spec,
        noise_seed=noise.seed,
        device="cpu",
    )


def _sizes(n: int | Sequence[int]) -> list[int]:
    sizes = [whole("n", each, 2) for each in (n if isinstance(n, Sequence | np.ndarray) else [n])]
    if not sizes or len(set(sizes)) < len(sizes):
        raise UserError(f"n is a number of images or several different ones, not {n!r}.")
    return sizes


def _times(times: Sequence[float] | None, schedule: Schedule) -> torch.Tensor:
    """``(T,)`` float64: the given ones, or those of `compare` by its defaults."""
    if times is None:
        steps = Sampler().steps
        return schedule.grid(steps)[kept_points(steps, 14)]
    wrong = UserError("times are given as a list of noise levels, for example times=[0.5, 0.1, 0].")
    try:
        t = torch.as_tensor(np.array(times, dtype=np.float64))
    except (TypeError, ValueError):
        raise wrong from None
    if t.ndim != 1 or not len(t):
        raise wrong
    schedule.check(t[t != 0])  # at 0 is the image
    return t


def _squares(noise: SharedNoise, count: int, shape: Sequence[int], axes: torch.Tensor) -> np.ndarray:
    """Squares of each sample's noise along each component, ``(count, d)``."""
    drawn = noise.initial(range(count), shape).double().flatten(1)
    return np.asarray((drawn @ axes).square())


def _stacked(moments: Sequence[Sequence[Sequence[Moments]]], field: str) -> np.ndarray:
    """``(states, n, t, component)``."""
    return np.array([[[getattr(each, field) for each in over_t] for over_t in over_n] for over_n in moments])


def _add_scores(result: xr.Dataset, moments: Sequence[Sequence[Sequence[Moments]]]) -> None:
    """Two independent sets differ by twice the spread of one, and under other noise by twice the square: nothing else is shared."""
    dims = ("states", "n", "t")
    distance, null = (2 * _stacked(moments, field) for field in ("spread", "square"))
    for name, value in (("distance", distance), ("null", null)):
        result[name] = (dims, value.mean(-1))
        result[f"component_{name}"] = ((*dims, "component"), value.astype(np.float32))
    value = score(distance.mean(-1), null.mean(-1))
    ratio, apart = (1 - value) / value, np.exp(_NORMAL * _stacked(moments, "deviation"))
    add_interval(result, "score", dims, Interval(value, 1 / (1 + ratio * apart), 1 / (1 + ratio / apart)))
    result["component_score"] = ((*dims, "component"), score(distance, null).astype(np.float32))


def _add_samples(
    result: xr.Dataset, moments: Sequence[Sequence[Moments]], variances: np.ndarray, squares: np.ndarray
) -> None:
    """Of given noise the spread is a weighted sum of its squares; the fitted mean's, variances / n, is the same for all noise."""
    pixels, rows = len(variances), []
    for n, over_t in zip(result["n"].values.tolist(), moments, strict=True):
        mean = variances.sum() / n
        of_noise = [each.square - variances / n for each in over_t]  # E h(S)^2, diagonal
        distance = [2 * (squares @ each.weight + mean) for each in over_t]
        null = [squares @ square + square.sum() + 2 * mean for square in of_noise]
        rows.append((distance, null))
    result.coords["sample"] = np.arange(len(squares), dtype=np.int32)
    for i, name in enumerate(("sample_distance", "sample_null")):
        values = np.array([row[i] for row in rows]) / pixels
        result[name] = (("n", "t", "sample"), values.astype(np.float32))
