"""What GANs and VAEs share on their way from a spec or run folder to a `ContrastModel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consistency_lab.choices import Registry
from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import GAN, VAE
from consistency_lab.devices import plain_defaults, resolve_device
from consistency_lab.store.checkpoint import load_weights
from consistency_lab.store.run import Run
from consistency_lab.training.loop import OPTIMIZERS
from consistency_lab.training.momentum import MOMENTUM_RULES
from consistency_lab.training.run_io import final_weights, finished_run

DESCENT: Mapping[str, Registry[Any]] = {"optimizer": OPTIMIZERS, "momentum": MOMENTUM_RULES}


def trained_model(
    name: str,
    kind: str,
    spec: Mapping[str, Any],
    module: GAN | VAE,
    tensors: Mapping[str, Tensor],
    *,
    weights: str = "ema",
    source: str = "the average",
    folder: Path | None = None,
    **more: Any,
) -> ContrastModel:
    """The model of a spec with trained weights. Raises `StoreError` for weights of another architecture."""
    load_weights(module, tensors, source)
    settings = spec["settings"]
    choices = ("generator", "discriminator", "autoencoder")
    generating = module.generator if isinstance(module, GAN) else module.decoder
    facts = {
        "kind": kind,
        "network": settings["generator" if kind == "gan" else "autoencoder"]["name"],
        **{key: settings[key] for key in (*choices, "penalty", "beta") if key in settings},
        "noise_shape": list(module.noise_shape),
        "parameters": sum(p.numel() for p in generating.parameters()),
        "parameters_trained": sum(p.numel() for p in module.parameters()),
        "seeds": settings["seeds"],
        "steps": settings["steps"],
        "weights": weights,
        "data": spec["data"],
        "spec": spec,
        **more,
    }
    return ContrastModel(name, module.eval(), facts, folder)


@plain_defaults()
def load_contrast(
    run: Run | str | Path,
    kind: str,
    build: Callable[[dict[str, Any]], GAN | VAE],
    *,
    device: str | torch.device | None,
    weights: str,
    name: str | None,
) -> ContrastModel:
    """A trained model from its run folder.

    Args:
        run: a `Run`, or the path of a run folder.
        kind: that the run must be of.
        build: spec -> untrained module on the CPU.
        device: where to put it; by default a GPU where there is one.
        weights: ``"ema"`` or ``"raw"``.
        name: how tables call it; the run's name by default.

    Raises:
        UserError: the folder is not a finished run of that kind, or weights other than those two are asked for.
        StoreError: a file is missing, truncated, or of another architecture.
    """
    run = finished_run(run, kind)
    tensors, path = final_weights(run, weights)
    module = build(run.spec).to(resolve_device(device))
    facts = {"run": run.hash[:12], "seconds": (run.summary or {}).get("seconds")}
    return trained_model(
        name or run.name, kind, run.spec, module, tensors, weights=weights, source=str(path), folder=run.folder, **facts
    )
