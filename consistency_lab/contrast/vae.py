"""From images to a VAE, through the same loop and store as a diffusion model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from consistency_lab.choices import Choice
from consistency_lab.contrast.batches import NoisedBatches
from consistency_lab.contrast.losses import vae_loss
from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import AUTOENCODERS, VAE
from consistency_lab.contrast.run_io import DESCENT, load_contrast, trained_model
from consistency_lab.contrast.settings import VAESettings
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import plain_defaults, resolve_device
from consistency_lab.networks.initialising import initialised
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.run_io import run_spec, train_in_store, train_unkept

KIND = "vae"


def vae_spec(images: ImageSet, settings: VAESettings, device: torch.device) -> dict[str, Any]:
    """What decides a run's result, with every default filled in.

    Raises:
        UserError: a network, optimizer or momentum rule, or an option of one, that does not exist.
    """
    return run_spec(images, settings.spec({**DESCENT, "autoencoder": AUTOENCODERS}), device)


def build_vae(spec: dict[str, Any]) -> VAE:
    """The untrained VAE of a spec, on the CPU."""
    settings = VAESettings.from_spec(spec["settings"])
    with initialised(settings.seeds["init"]):
        return AUTOENCODERS.build(settings.autoencoder, tuple(spec["data"]["shape"]))


def vae_name(settings: VAESettings) -> str:
    """The name that a model gets when none is given: its autoencoder and its seed."""
    return f"vae-{Choice.parse(settings.autoencoder).name}-s{settings.seed}"


@plain_defaults()
def train_vae(
    images: ImageSet,
    *,
    name: str | None = None,
    store: Store | str | Path | None = None,
    device: str | torch.device | None = None,
    force: bool = False,
    progress: bool | None = None,
    settings: VAESettings | None = None,
    **changes: Any,
) -> ContrastModel:
    """Train one VAE.

    Args:
        images: the training set; height and width multiples of 4.
        name: how tables call the model; ``vae-AUTOENCODER-sSEED`` by default.
        store: where runs are stored; with one, the same spec is never trained twice and a stopped run resumes. Without, nothing is stored.
        device: ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
        force: train again although the store has the run.
        progress: show a progress bar; by default on a terminal only.
        settings: where to start from; ``VAESettings()`` by default.
        **changes: any field of `VAESettings`.

    Returns:
        The model with its averaged (EMA) weights.

    Raises:
        UserError: settings that do not exist or do not fit the images, or a loss that diverges.
        StoreError: the store cannot be written, or another process holds the run.

    >>> model = train_vae(load_images("digits"), beta=0.2)
    """
    settings = (settings or VAESettings()).replace(**changes)
    place = resolve_device(device)
    spec = vae_spec(images, settings, place)
    name = name or vae_name(settings)
    module = build_vae(spec).to(place)
    source = NoisedBatches(images, settings, module.noise_shape, 1, place)
    loop = TrainingLoop(module, partial(vae_loss, beta=settings.beta), source, settings, place)
    if store is None:
        train_unkept(loop, name, progress)
        return trained_model(name, KIND, spec, module, loop.average.weights)
    run = train_in_store(store, KIND, name, spec, loop, force=force, progress=progress)
    return load_vae(run, device=place, name=name)


def load_vae(
    run: Run | str | Path, *, device: str | torch.device | None = None, weights: str = "ema", name: str | None = None
) -> ContrastModel:
    """A trained VAE from its run folder; arguments and errors as for `consistency_lab.training.train.load_model`."""
    return load_contrast(run, KIND, build_vae, device=device, weights=weights, name=name)
