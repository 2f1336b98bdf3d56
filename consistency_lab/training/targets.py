"""What a denoiser is told it should have said of a noisy image.

The loss pulls an estimate towards the image and the noise that made the noisy state x_t = alpha x0 + sigma eps, though others could have
made it too. Their posterior means, given x_t and a set of images M that x0 was drawn from at random,

    x0* = sum_i p_i y_i,    p_i = softmax_i(-|x_t - alpha y_i|^2 / 2 sigma^2),  y_i in M,        eps* = (x_t - alpha x0*) / sigma,

are a target of less noise (the stable target field of Xu, Tong & Jaakkola 2302.00670). The gradient's mean stays what it was, whatever the
size of M: network and Jacobian see x_t alone, and E[eps | x_t, M] = eps*, because before x_t is seen every image of M is as likely as any
other to be x0. So M has to be a random subset of the training set in which x0 is a random member.

They make the same state, alpha x0* + sigma eps* = x_t, so that everything downstream takes them for an image and its noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from consistency_lab.choices import Registry, require_positive
from consistency_lab.devices import training_in


class Sample:
    """The image and the noise of the sample itself (Ho et al. 2006.11239, equation 14)."""

    images = 0
    """how many images a state is compared with, those of the batch among them; 0: none"""


class Posterior(Sample):
    """Their posterior means over images of the training set: those of the batch and the next ones in the order of the epoch.

    Args:
        images: how many, at least the batch and at most the training set. More take away more noise; their cost goes with images x batch x
            pixels.
    """

    def __init__(self, *, images: int = 1024):
        require_positive(images=images)
        self.images = images


@torch.no_grad()
def posterior_means(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """x0* and eps* ``(B, C, H, W)`` of states ``alpha x0 + sigma eps``, over the batch and others.

    In full float32, whatever training computes in. Against float64 eps* is off by less than 1e-5, unless two images are nearly the same at
    a sigma so small that rounding decides between them: then by their difference times alpha / sigma at most.

    Args:
        x0, eps: images and noise ``(B, C, H, W)``, as they were drawn.
        alpha, sigma: of their noise level, ``(B, 1, 1, 1)``.
        others: images ``(N, C, H, W)`` that they are compared with besides the batch; none of it is among them.
    """
    known = torch.cat([x0, others]).flatten(1)
    a, s, image = alpha.flatten(1), sigma.flatten(1), x0.flatten(1)
    state = a * image + s * eps.flatten(1)
    with training_in("float32"):  # products in TF32 would round the own image, and a / s multiplies that
        fits = (a / s**2) * (state @ known.T) - (a**2 / (2 * s**2)) * known.pow(2).sum(1)
        mean = fits.softmax(1) @ known
    # By the difference of two images: (x_t - alpha x0*) / sigma would lose digits where sigma is small.
    return mean.view_as(x0), eps + (a / s * (image - mean)).view_as(eps)


TARGETS: Registry[Sample] = Registry("target", {"sample": Sample, "posterior": Posterior})
