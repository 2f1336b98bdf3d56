"""Our models in the layout of diffusers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from consistency_lab.choices import Choice
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel, check_diffusion, described
from consistency_lab.errors import UserError
from consistency_lab.interop.layout import CONFIG, OURS, SCHEDULER, WEIGHTS, whole_folder
from consistency_lab.interop.module import ModuleNetwork
from consistency_lab.interop.schedules import write_scheduler
from consistency_lab.networks.blocks import ImageNetwork
from consistency_lab.networks.diffusers_keys import diffusers_config, to_diffusers_state
from consistency_lab.networks.own import is_own
from consistency_lab.networks.registry import NETWORKS
from consistency_lab.networks.unet import UNet
from consistency_lab.store.checkpoint import save_tensors


@plain_defaults()
def export_diffusers(model: DiffusionModel, path: str | os.PathLike[str]) -> str:
    """Write config.json, diffusion_pytorch_model.safetensors and scheduler/scheduler_config.json.

    A U-Net becomes a ``UNet2DModel``: ``diffusers.UNet2DModel.from_pretrained(path)`` at timestep ``1000 t - 1`` is our
    network at t. Networks that diffusers does not have keep the layout, under a class name of ours, and only
    `load_diffusers` reads them. Either way `import_diffusers` gives the weights back bit for bit. The weights are those
    that the model has (its EMA, where it was trained here).

    Args:
        model: its network is one of `NETWORKS`.
        path: a folder that does not exist or is empty; it appears whole or not at all.

    Returns:
        one or two sentences: what diffusers can read of it.

    Raises:
        UserError: a network that was wrapped, is no registered one, or whose options are not known.
        StoreError: ``path`` is in use or cannot be written.
    """
    check_diffusion(model)
    denoiser = model.denoiser
    network = denoiser.network if isinstance(denoiser, NetworkDenoiser) else None
    if not isinstance(network, ImageNetwork) or isinstance(network, ModuleNetwork):
        raise UserError(
            f"{model.name!r} is not one network of ours (guided, wrapped or in closed form); export what it is made of."
        )
    config, tensors, remark = _network(model, network)
    assert isinstance(denoiser, NetworkDenoiser)  # it has a network
    scheduler, sampling = write_scheduler(denoiser.schedule, denoiser.predicts)
    facts = json.loads(json.dumps(described(model), default=str))
    with whole_folder(path) as folder:
        save_tensors(folder / WEIGHTS, tensors, {"exported": facts})
        _write_json(folder / CONFIG, config)
        _write_json(folder / "scheduler" / SCHEDULER, scheduler)
    return f"{remark} {sampling}" if isinstance(network, UNet) else remark


def _network(model: DiffusionModel, network: ImageNetwork) -> tuple[dict[str, Any], Mapping[str, Tensor], str]:
    """The configuration, the weights under its names, and a sentence on who can read them."""
    if isinstance(network, UNet):
        config = {"_class_name": "UNet2DModel", **diffusers_config(network)}
        if network.embedding.label is not None:
            config["_null_label"] = network.embedding.null_label
        return config, to_diffusers_state(network), "diffusers.UNet2DModel.from_pretrained reads this folder."
    kind = type(network).__name__
    config = {
        "_class_name": OURS + kind,
        "network": str(_choice(model, network)),
        "shape": list(network.shape),
        "classes": network.classes,
    }
    remark = f"diffusers has no {kind}: this folder has the layout, and only consistency_lab reads it."
    return config, network.state_dict(), remark


def _choice(model: DiffusionModel, network: ImageNetwork) -> Choice:
    """The name and options that build the network again: those that its training recorded, or that an export did."""
    recorded = model.facts.get("spec", {}).get("settings", {}).get("network") or model.facts.get("choice")
    if isinstance(recorded, Mapping):
        recorded = Choice(recorded["name"], {key: value for key, value in recorded.items() if key != "name"})
    if recorded is None or is_own(recorded):
        raise UserError(
            f"the options of the network {type(network).__name__} of {model.name!r} are not recorded, so it could not "
            "be built again; export a model that train or load_model returned, or give DiffusionModel "
            "facts={'choice': 'NAME(option=value)'}."
        )
    return NETWORKS.resolve(recorded)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
