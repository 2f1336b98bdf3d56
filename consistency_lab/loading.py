"""Any model by one line of text: ours from a store, other people's from where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.interop.load import is_foreign, open_foreign
from consistency_lab.store.runs import Store
from consistency_lab.training.describing import differences
from consistency_lab.training.train import KIND, load_model


def load(
    text: str,
    *,
    store: Store | str | Path = "runs",
    device: str | torch.device | None = None,
    weights: str = "ema",
    name: str | None = None,
) -> DiffusionModel:
    """A model by name or path.

    Args:
        text: the name of a run in the store, the path of a run folder, ``diffusers:DIR``, or ``torchscript:FILE?schedule=...&...``.
        store: where names are looked up.
        device: where to put it; by default a GPU where there is one.
        weights: ``"ema"`` or ``"raw"``, for runs of ours.
        name: how tables call it.

    Raises:
        UserError: nothing of that name, with the nearest one; a run that is not finished; a pickle.
        StoreError: files that are missing, truncated or of another architecture.
    """
    if is_foreign(text):
        return open_foreign(text, name=name, device=device)
    store = store if isinstance(store, Store) else Store(store)
    return load_model(store.find(text, kind=KIND), device=device, weights=weights, name=name)


def load_all(
    texts: Sequence[str], *, store: Store | str | Path = "runs", device: str | torch.device | None = None
) -> list[DiffusionModel]:
    """Models by name or path (see `load`), told apart where names collide: ``unet-s0 (lr=0.001)`` and ``unet-s0 (lr=0.002)``.

    Names that still collide, of one run that is named twice or of models from elsewhere, are left as they are.
    """
    models = [load(text, store=store, device=device) for text in texts]
    for name in {model.name for model in models}:
        same = [k for k, model in enumerate(models) if model.name == name and "spec" in model.facts]
        for k, text in zip(same, differences([models[k].facts["spec"] for k in same]), strict=True):
            if text:
                models[k] = replace(models[k], name=f"{name} ({text})")
    return models
