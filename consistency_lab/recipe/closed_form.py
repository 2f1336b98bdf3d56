"""What the mean and the covariance of a set of images alone say of how to train on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.moments import moments_of
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError

WORTH = 0.1  # of the loss of white images: what the covariance must take off before a network is given it
COMPLETE = 0.01  # of the closed form's loss: what leaving axes out may add
CELLS = 100  # times that losses are averaged over
POWER = 0.75  # of the loss of the run at each t: what the draws go with; see the package's text


class ClosedForm(NamedTuple):
    """Losses of closed-form denoisers on Gaussian data with the moments of a set, in eps units, under uniform t.

    Attributes:
        t: centres of equal cells.
        losses: of the denoiser that knows the covariance, at each t.
        white: loss of the one that knows the variance of a pixel alone, the mean over t; it is where EDM's preconditioning begins.
        components: the fewest leading axes with which the loss is within `COMPLETE` of that with all.
        pixels: D.
    """

    t: np.ndarray
    losses: np.ndarray
    white: float
    components: int
    pixels: int

    @property
    def taken_off(self) -> float:
        """Share of the white loss that the covariance takes off."""
        return 1.0 - float(self.losses.mean()) / self.white


def closed_form_of(images: ImageSet, schedule: Schedule, flip: bool = False) -> ClosedForm:
    """Measure a set; ``flip``: with its mirror images. Raises `UserError` for one whose images are all the same."""
    _, covariance = moments_of((images.mirrored() if flip else images).all())
    variances = torch.linalg.eigvalsh(covariance).clamp_min(0.0).flip(0).cpu().numpy()
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
    return ClosedForm(t, told, white, low, pixels)


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
