"""Any model by one line of text: ours from a store, whatever its kind, other people's from where they lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from consistency_lab.addresses import is_foreign, open_foreign
from consistency_lab.contrast.gan import GAN_KIND
from consistency_lab.contrast.vae import VAE_KIND
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import GenerativeModel
from consistency_lab.errors import StoreError, UserError
from consistency_lab.interop.files import is_hub_name, refuse_hub_name
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.describing import differences
from consistency_lab.training.model_kind import ModelKind
from consistency_lab.training.settings import LoopSettings
from consistency_lab.training.train import DIFFUSION_KIND

Model = GenerativeModel


MODEL_KINDS: dict[str, ModelKind[Any, Any, Any]] = {kind.name: kind for kind in (DIFFUSION_KIND, GAN_KIND, VAE_KIND)}


def kind_of(settings: LoopSettings) -> ModelKind[Any, Any, Any]:
    """The kind of model that settings are for."""
    return next(kind for kind in MODEL_KINDS.values() if type(settings) is kind.settings)


def find_run(text: str, store: Store | str | Path) -> Run:
    """The run of a model by name, of whatever kind.

    Raises:
        UserError: there is none, with the nearest name; several; a folder of diffusers, or a name on the Hugging Face Hub.
    """
    store = store if isinstance(store, Store) else Store(store)
    try:
        return store.find(text, kind=tuple(MODEL_KINDS))
    except StoreError:
        raise
    except UserError:
        if any(Path(text, name).is_file() for name in ("model_index.json", "config.json")):
            raise UserError(f"{text} is a folder of diffusers; write diffusers:{text}") from None
        if is_hub_name(text):
            refuse_hub_name(text)
        raise


@plain_defaults()
def load(
    text: str,
    *,
    store: Store | str | Path = "runs",
    device: str | torch.device | None = None,
    weights: str = "ema",
    name: str | None = None,
) -> Model:
    """A model by name or path.

    Args:
        text: the name of a run in the store (a diffusion model, GAN or VAE), the path of a run folder, ``diffusers:DIR``,
            ``torchscript:FILE?schedule=...&...``, ``images:DIR``, or a checkpoint of another library, such as
            ``ddpm-pytorch:model-10.pt?size=32``.
        store: where names are looked up.
        device: where to put it; by default a GPU where there is one.
        weights: ``"ema"`` or ``"raw"``, for runs of ours.
        name: how tables call it.

    Raises:
        UserError: nothing of that name, with the nearest one; a run that is not finished; a pickle; a file of weights, with what it
            holds and how it becomes a model.
        StoreError: files that are missing, truncated or of another architecture.
    """
    if not isinstance(text, str | os.PathLike):
        raise UserError(f"a model is loaded by its name, path or address, not by {text!r}.")
    text = os.fspath(text)
    if is_foreign(text):
        return open_foreign(text, name=name, device=device)
    run = find_run(text, store)
    if run.kind not in MODEL_KINDS:
        raise UserError(f"{run.folder} is a {run.kind}, not a model; name one of {', '.join(MODEL_KINDS)}.")
    return MODEL_KINDS[run.kind].load(run, device=device, weights=weights, name=name)


def load_all(
    texts: Sequence[str], *, store: Store | str | Path = "runs", device: str | torch.device | None = None
) -> list[Model]:
    """Models by name or path (see `load`), told apart where names collide: ``unet-s0 (lr=0.001)`` and ``unet-s0 (lr=0.002)``.

    Names that still collide, of one run that is named twice or of models from elsewhere, are left as they are.
    """
    models: list[Any] = [load(text, store=store, device=device) for text in texts]
    for name in {model.name for model in models}:
        same = [k for k, model in enumerate(models) if model.name == name and "spec" in model.facts]
        for k, text in zip(same, differences([models[k].facts["spec"] for k in same]), strict=True):
            if text:
                models[k] = replace(models[k], name=f"{name} ({text})")
    return models
