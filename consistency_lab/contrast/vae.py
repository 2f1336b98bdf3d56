"""From images to a VAE, through the same loop and store as a diffusion model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from consistency_lab.contrast.batches import NoisedBatches
from consistency_lab.contrast.kind import ContrastKind
from consistency_lab.contrast.losses import vae_loss
from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import AUTOENCODERS, VAE
from consistency_lab.contrast.settings import VAESettings
from consistency_lab.data.imageset import ImageSet
from consistency_lab.networks.initialising import initialised
from consistency_lab.store.runs import Store
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.sharing import loop_class


class _VAEKind(ContrastKind[VAESettings, VAE]):
    name, settings, main = "vae", VAESettings, "autoencoder"

    def build(self, spec: Mapping[str, Any]) -> VAE:
        settings = VAESettings.from_spec(spec["settings"])
        with initialised(settings.seeds["init"]):
            return AUTOENCODERS.build(settings.autoencoder, tuple(spec["data"]["shape"]))

    def loop(self, module: VAE, images: ImageSet, settings: VAESettings, device: torch.device) -> TrainingLoop:
        source = NoisedBatches(images, settings, module.noise_shape, 1, device)
        return loop_class()(module, partial(vae_loss, beta=settings.beta), source, settings, device)


VAE_KIND = _VAEKind()


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
        force: train again; what the store has of the run is set aside.
        progress: show a progress bar; by default on a terminal only.
        settings: where to start from; ``VAESettings()`` by default.
        **changes: any field of `VAESettings`.

    Returns:
        The model with its averaged (EMA) weights.

    Raises:
        UserError: settings that do not exist or do not fit the images, or a loss that diverges.
        StoreError: the store cannot be written or read, or without ``force`` holds weights and nothing that they could be made from.

    >>> model = train_vae(load_images("digits"), beta=0.2)
    """
    options: dict[str, Any] = {"store": store, "device": device, "force": force, "progress": progress}
    return VAE_KIND.train(images, name=name, settings=settings, **options, **changes)
