"""What a set of images says of how to train on it, before any network is: its mean and covariance, and how alike its images are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.moments import principal_axes
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.training.targets import Posterior, posterior_means

WORTH = 0.1  # of a loss: what the covariance, or a target of less noise, must take off before it is used
COMPLETE = 0.01  # of the closed form's loss: what leaving axes out may add
CELLS = 100  # times that losses are averaged over
SAMPLES = 512  # noisy images that the noise of the target is measured on
POWER = 0.75  # of the loss of the run at each t: what the draws go with; see the package's text


class ClosedForm(NamedTuple):
    """Losses of closed-form denoisers on Gaussian data with the moments of a set, in eps units, under uniform t.

    Attributes:
        t: centres of equal cells.
        losses: of the denoiser that knows the covariance, at each t.
        white: loss of the one that knows the variance of a pixel alone, the mean over t; it is where EDM's preconditioning begins.
        components: the fewest leading axes with which the loss is within `COMPLETE` of that with all.
        pixels: D.
        target_noise: mean square of what the noise of an image and its posterior mean differ by, on the images themselves: what
            `target=posterior` takes out of the target.
    """

    t: np.ndarray
    losses: np.ndarray
    white: float
    components: int
    pixels: int
    target_noise: float

    @property
    def taken_off(self) -> float:
        """Share of the white loss that the covariance takes off."""
        return 1.0 - float(self.losses.mean()) / self.white

    @property
    def noise_share(self) -> float:
        """The noise of the target over the loss of the closed form."""
        return self.target_noise / float(self.losses.mean())


def closed_form_of(images: ImageSet, schedule: Schedule, flip: bool = False) -> ClosedForm:
    """Measure a set; ``flip``: with its mirror images. Raises `UserError` for one whose images are all the same."""
    pool = (images.mirrored() if flip else images).all()
    variances = principal_axes(images, flip).variances.flip(0).cpu().numpy()
    if not variances[0] > 0:
        raise UserError(f"all images of {images.name!r} are the same, so that there is nothing to learn from them.")
    pixels = len(variances)
    t = schedule.t_min + (np.arange(CELLS) + 0.5) / CELLS * (schedule.t_max - schedule.t_min)
    alpha, sigma = (each.numpy()[:, None] for each in schedule.alpha_sigma(torch.from_numpy(t)))
    told = expected_loss(variances, variances, alpha, sigma)
    white = float(expected_loss(variances, np.full(pixels, variances.mean()), alpha, sigma).mean())
    low, most = 1, pixels
    while low < most:  # the loss falls with every axis that is kept
        kept = (low + most) // 2
        with_rest = np.append(variances[:kept], np.full(pixels - kept, variances[kept:].mean()))
        if expected_loss(variances, with_rest, alpha, sigma).mean() <= (1 + COMPLETE) * told.mean():
            most = kept
        else:
            low = kept + 1
    return ClosedForm(t, told, white, low, pixels, target_noise(pool, schedule))


def target_noise(pool: Tensor, schedule: Schedule) -> float:
    """Mean of |eps - eps*|^2 per pixel over noisy images ``(N, C, H, W)`` at evenly spread times, with as many images as training compares.

    The noise of an image's target is its own distance from the mean over all that the state may have come from, see
    `consistency_lab.training.targets`.
    """
    order = np.random.Generator(np.random.Philox(0))
    some = pool[torch.from_numpy(order.permutation(len(pool))[: Posterior().images])].cpu().float()
    x0, others = some[:SAMPLES], some[SAMPLES:]
    spread = (torch.from_numpy(order.permutation(len(x0))).double() + 0.5) / len(x0)
    levels = schedule.alpha_sigma(schedule.t_min + spread * (schedule.t_max - schedule.t_min))
    alpha, sigma = torch.stack(levels).to(x0.dtype).reshape(2, -1, 1, 1, 1)
    eps = SharedNoise(0).draw(range(len(x0)), tuple(x0.shape[1:]), stream="probe")
    return float((posterior_means(x0, eps, alpha, sigma, others)[1] - eps).double().pow(2).mean())


def expected_loss(variances: np.ndarray, believed: np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Mean squared eps-error per pixel of a Wiener filter that believes in other variances along the axes, at each level.

    Along an axis y = alpha x + sigma eps, and the filter says sigma y / r with r = alpha^2 believed + sigma^2; its error is

        (sigma alpha)^2 variance / r^2 + (alpha^2 believed / r)^2,

    which is alpha^2 variance / r where it believes what is so.

    Args:
        variances, believed: ``(D,)``.
        alpha, sigma: ``(T, 1)``.
    """
    power = alpha**2 * believed + sigma**2
    error: np.ndarray = (sigma * alpha / power) ** 2 * variances + (alpha**2 * believed / power) ** 2
    return error.mean(1)
