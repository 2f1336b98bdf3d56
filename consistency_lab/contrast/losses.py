"""Losses per sample of a GAN's two networks and of a VAE. All randomness comes from outside, so that probes can freeze it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import GAN, VAE
from consistency_lab.data.imageset import ImageSet, check_shape
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError, unknown_name


def generator_loss(generator: nn.Module, x0: Tensor, z: Tensor, *, opponent: nn.Module) -> Tensor:
    """The relativistic pairing loss softplus(D(x) - D(G(z))) (Jolicoeur-Martineau 1807.00734; Huang et al. 2501.05441, equation 2).

    A fake is judged beside a real image, so that the generator gains nothing by making one good image over and over.

    Args:
        generator: noise to images.
        x0: real images ``(B, C, H, W)``.
        z: noise ``(B, ...)``, as many.
        opponent: the discriminator, images to scores ``(B, 1)``.

    Returns:
        ``(B,)``, in nats.
    """
    return F.softplus(opponent(x0) - opponent(generator(z))).squeeze(1)


def discriminator_loss(
    discriminator: nn.Module, x0: Tensor, z: Tensor, *, opponent: nn.Module, penalty: float = 0.0
) -> Tensor:
    """softplus(D(G(z)) - D(x)), and R1 + R2: penalty / 2 (|grad D(x)|^2 + |grad D(G(z))|^2) (Huang et al. 2501.05441, equation 4).

    Args:
        discriminator: images to scores ``(B, 1)``.
        x0: real images ``(B, C, H, W)``.
        z: noise ``(B, ...)``, as many.
        opponent: the generator.
        penalty: weight of R1 (Mescheder et al. 1801.04406, equation 9) and R2.

    Returns:
        ``(B,)``, in nats.
    """
    with torch.enable_grad() if penalty else nullcontext():
        both = torch.cat([x0, opponent(z)]).detach().requires_grad_(penalty > 0)
        scores = discriminator(both).squeeze(1)
        real, fake = scores.chunk(2)
        loss = F.softplus(fake - real)
        if penalty:
            (slope,) = torch.autograd.grad(scores.sum(), both, create_graph=True)
            loss = loss + 0.5 * penalty * sum(slope.square().flatten(1).sum(1).chunk(2))
    return loss if torch.is_grad_enabled() else loss.detach()


def vae_loss(vae: VAE, x0: Tensor, noise: Tensor, *, beta: float) -> Tensor:
    """Mean over pixels of the squared error, plus beta KL(q(z|x) || N(0, 1)) / pixels (Higgins et al. 2017).

    Up to a factor and a constant it is the evidence bound of a Gaussian decoder with the variance beta / 2 per pixel.

    Args:
        x0: images ``(B, C, H, W)``.
        noise: of the reparametrisation, ``(B, latent)``.
        beta: weight of the divergence.

    Returns:
        ``(B,)``, in squared pixel units.
    """
    mean, log_variance = vae.encode(x0)
    error = (vae.generate(mean + (0.5 * log_variance).exp() * noise) - x0).square().flatten(1).mean(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return error + beta * divergence / x0[0].numel()


class ProbeParts(NamedTuple):
    """What a probe takes: the module whose weights it moves, ``loss(module, *tensors) -> (B,)``, and the frozen tensors."""

    module: nn.Module
    loss: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]


PARTS = ("generator", "discriminator", "autoencoder")


def probe_parts(model: ContrastModel, images: ImageSet, count: int, *, part: str, seed: int = 0) -> ProbeParts:
    """One network of a model with everything else frozen: images, noise, and the opponent.

    Args:
        model: a GAN or VAE.
        images: their first ``count`` are used.
        count: samples.
        part: ``"generator"`` or ``"discriminator"`` of a GAN, without its gradient penalty; ``"autoencoder"`` of a VAE.
        seed: of the noise, from the ``"probe"`` stream, image i with noise i.

    Raises:
        UserError: a part that the model does not have, more images than there are, or images of another shape.
    """
    if part not in PARTS:
        raise unknown_name("part", part, PARTS)
    if not 1 <= count <= len(images):
        raise UserError(
            f"a probe of {count} images was asked for, and {images.name!r} has {len(images)}; choose between 1 and that."
        )
    module = model.module
    check_shape(model.name, module.shape, images)
    x0 = images.batch(range(count)).to(model.device)
    z = SharedNoise(seed).draw(range(count), model.noise_shape, stream="probe", device=model.device)
    if isinstance(module, VAE) and part == "autoencoder":
        return ProbeParts(module, partial(vae_loss, beta=model.facts["beta"]), (x0, z))
    if isinstance(module, GAN) and part == "generator":
        return ProbeParts(module.generator, partial(generator_loss, opponent=module.discriminator), (x0, z))
    if isinstance(module, GAN) and part == "discriminator":
        return ProbeParts(module.discriminator, partial(discriminator_loss, opponent=module.generator), (x0, z))
    raise UserError(f"{model.name!r} is a {model.facts['kind']} and has no {part}; choose another part.")
