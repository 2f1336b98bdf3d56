"""GANs and VAEs as subjects of probes, so that their landscapes and spectra can stand beside those of diffusion models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.contrast.losses import probe_parts
from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import VAE
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion, check_generative, described, specs_of
from consistency_lab.errors import UserError
from consistency_lab.loading import load
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.subject import Split, Subject, diffusion_subject
from consistency_lab.store.runs import Store


@plain_defaults()
def contrast_subject(
    model: ContrastModel, images: ImageSet, *, part: str | None = None, count: int = 64, seed: int = 0
) -> Subject:
    """One network of a GAN with the other frozen, or a VAE with the noise of its reparametrisation frozen.

    Args:
        model: a GAN or VAE.
        images: their first ``count`` are used.
        part: ``"generator"`` or ``"discriminator"`` of a GAN, ``"autoencoder"`` of a VAE; by default what makes images.
        count: images.
        seed: of the noise.

    Raises:
        UserError: what is no GAN, VAE or image set, a part that the model does not have, or too few images.
    """
    if not isinstance(model, ContrastModel):
        check_generative(model)
        raise UserError(f"{model.name!r} is no GAN or VAE and has no generator; ask diffusion_subject(model, images).")
    check_set(images)
    part = part or ("autoencoder" if isinstance(model.module, VAE) else "generator")
    module, loss, tensors = probe_parts(model, images, count, part=part, seed=seed)
    if part == "autoencoder":
        units, pixels = "squared error + weighted divergence", images.shape[0] * images.shape[1] * images.shape[2]
        split = Split(_code_and_error, partial(_bound, beta=model.facts["beta"], pixels=pixels))
    else:
        units = f"{part}'s loss in nats"
        opponent = model.module.get_submodule("discriminator" if part == "generator" else "generator")
        scores, of_scores = _SCORES[part]
        split = Split(partial(scores, opponent=opponent), of_scores)
    facts = {
        "model": described(model),
        "specs": specs_of([model]),
        "part": part,
        "images": {"name": images.name, "fingerprint": images.fingerprint, "used": count},
        "noise_seed": seed,
    }
    name = model.name if part == "autoencoder" else f"{model.name} {part}"
    return Subject(name, module, loss, FrozenBatch(tensors), units, None, split, facts)


def named_subject(
    text: str,
    images: ImageSet,
    *,
    store: Store | str | Path = "runs",
    device: str | torch.device | None = None,
    part: str | None = None,
    count: int = 64,
    bins: int = 10,
    seed: int = 0,
) -> Subject:
    """The subject that one line of text names: what `load` takes, or a run of a GAN or VAE.

    Args:
        text: see `load`.
        images: their first ``count`` are used.
        store: where names are looked up.
        device: where to put the model; by default a GPU where there is one.
        part: of a GAN or VAE, see `contrast_subject`.
        count: images.
        bins: noise levels, for a diffusion model.
        seed: of the noise.

    Raises:
        UserError: nothing of that name; a part of a diffusion model; as `contrast_subject` and `diffusion_subject`.
    """
    model = load(text, store=store, device=device)
    if isinstance(model, ContrastModel):
        return contrast_subject(model, images, part=part, count=count, seed=seed)
    if part is not None:
        raise UserError(f"{text!r} is no GAN or VAE and has no {part}; leave the part out.")
    check_diffusion(model)
    assert isinstance(model, DiffusionModel)  # as was checked
    return diffusion_subject(model, images, count=count, bins=bins, seed=seed)


def _lead(discriminator: nn.Module, x0: Tensor, fake: Tensor) -> Tensor:
    """By how much real images are scored above fakes, ``(B, 1)``: all that either part's loss depends on."""
    return discriminator(x0) - discriminator(fake)


def _generator_lead(generator: nn.Module, x0: Tensor, z: Tensor, *, opponent: nn.Module) -> Tensor:
    return _lead(opponent, x0, generator(z))


def _discriminator_lead(discriminator: nn.Module, x0: Tensor, z: Tensor, *, opponent: nn.Module) -> Tensor:
    return _lead(discriminator, x0, opponent(z).detach())


def _generator_loss(lead: Tensor, *_: Tensor) -> Tensor:
    return F.softplus(lead).squeeze(1)


def _discriminator_loss(lead: Tensor, *_: Tensor) -> Tensor:
    return F.softplus(-lead).squeeze(1)


_SCORES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "generator": (_generator_lead, _generator_loss),
    "discriminator": (_discriminator_lead, _discriminator_loss),
}


def _code_and_error(autoencoder: VAE, x0: Tensor, noise: Tensor) -> Tensor:
    """The mean and log variance of the code, and the error of the image: ``(B, 2 latent + pixels)``."""
    mean, log_variance = autoencoder.encode(x0)
    error = autoencoder.generate(mean + (0.5 * log_variance).exp() * noise) - x0
    return torch.cat([mean, log_variance, error.flatten(1)], 1)


def _bound(output: Tensor, x0: Tensor, noise: Tensor, *, beta: float, pixels: int) -> Tensor:
    """The loss of a VAE from `_code_and_error`; convex in it, as Gauss-Newton wants."""
    latent = noise.shape[1]
    mean, log_variance, error = output.split([latent, latent, pixels], 1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return error.square().mean(1) + beta * divergence / pixels
