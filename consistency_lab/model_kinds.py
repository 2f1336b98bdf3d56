"""The kinds of models that are trained here, by name."""

from __future__ import annotations

from typing import Any

from consistency_lab.contrast.gan import GAN_KIND
from consistency_lab.contrast.vae import VAE_KIND
from consistency_lab.training.model_kind import ModelKind
from consistency_lab.training.settings import LoopSettings
from consistency_lab.training.train import DIFFUSION_KIND

MODEL_KINDS: dict[str, ModelKind[Any, Any, Any]] = {kind.name: kind for kind in (DIFFUSION_KIND, GAN_KIND, VAE_KIND)}


def kind_of(settings: LoopSettings) -> ModelKind[Any, Any, Any]:
    """The kind of model that settings are for."""
    return next(kind for kind in MODEL_KINDS.values() if type(settings) is kind.settings)
