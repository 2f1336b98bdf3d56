"""k-diffusion: its checkpoints carry their configuration, of which it builds the network and the preconditioning itself.

Its slim safetensors files carry it too, as ``config`` among their metadata.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch

from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError, explained
from consistency_lab.inputs import check_file
from consistency_lab.interop.families.family import Family, State, facts_of, fill, package
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.states import load_state, opened
from consistency_lab.interop.units import OURS
from consistency_lab.json_text import parsed


def load_k_diffusion(
    path: str | os.PathLike[str],
    *,
    config: str | None = None,
    value_range: tuple[float, float] = OURS,
    ema: bool = True,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> DiffusionModel:
    """A model from a checkpoint of k-diffusion: ``k-diffusion:model_00010000.pth``.

    Args:
        path: what its ``train.py`` saved, or the slim safetensors file made of that.
        config: the json file of its configuration, where the checkpoint is older and does not hold it.
        value_range: of its images.
        ema: take the averaged weights.
        name: how tables call it; the file's name by default.
        device: where to put it; by default a GPU where there is one.

    Raises:
        UserError: the package is not installed, the file is no such checkpoint, or its configuration is of another version.
    """
    file, state = Path(path), load_state(path, ema=ema, prefix="")
    if config is not None:
        check_file(Path(config).expanduser())
    try:
        said = _configuration(file) if config is None else parsed(Path(config).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the configuration {config or 'in ' + str(file)}; give the json file of it."
        ) from error
    if said is None:
        raise UserError(f"{file} does not hold its configuration; write k-diffusion:{file}?config=FILE.json.")
    kd = package("k_diffusion", "k-diffusion")
    with explained(f"the installed k-diffusion cannot build the configuration of {file}"):
        said = kd.config.load_config(dict(said))
        net, wrapper = kd.config.make_model(said), kd.config.make_denoiser_wrapper(said)
    settings = said["model"]
    classes = said["dataset"]["num_classes"]
    net = wrapper(fill(net, state, f"the {settings['type']} of k-diffusion"))
    height, width = settings["input_size"]
    return wrap_module(
        net,
        schedule=f"edm(sigma_min={float(settings['sigma_min'])!r}, sigma_max={float(settings['sigma_max'])!r})",
        predicts="x0",
        time="sigma",
        shape=(settings["input_channels"], height, width),
        classes=classes,
        null_label=classes or None,
        call=(lambda net, x, sigma, labels: net(x, sigma, class_cond=labels)) if classes else None,
        value_range=value_range,
        name=name or file.stem,
        device=device,
        facts=facts_of("k-diffusion", file, state),
    )


def _configuration(file: Path) -> Mapping[str, Any] | None:
    if file.suffix.lower() == ".safetensors":
        with safetensors.safe_open(file, "pt") as tensors:
            text = (tensors.metadata() or {}).get("config")
        return parsed(text) if text else None
    content = opened(file)
    return content.get("config") if isinstance(content, Mapping) else None


def _lines(state: State) -> list[str]:
    return [
        "import k_diffusion as K",
        "config = K.config.load_config('CONFIG.json')",
        "net = K.config.make_model(config); net.load_state_dict(state)",
        "net = K.config.make_denoiser_wrapper(config)(net)",
    ]


def _told(state: State) -> dict[str, str]:
    return {"schedule": "'edm(sigma_min=0.01, sigma_max=80.0)'", "predicts": "'x0'", "time": "'sigma'"}


_REMARK = "sigma_min and sigma_max are in its configuration."
K_IMAGE = Family(
    "k-diffusion (image_v1)",
    (r"(^|\.)timestep_embed\.weight$", r"(^|\.)proj_in\.weight$", r"(^|\.)u_net\.d_blocks\.0\."),
    _lines,
    _told,
    _REMARK,
    "k-diffusion",
    "",
    load_k_diffusion,
)
K_TRANSFORMER = Family(
    "k-diffusion (image_transformer)",
    (r"^time_emb\.weight$", r"^mapping\.in_norm\.scale$", r"^patch_in\.proj\.weight$"),
    _lines,
    _told,
    _REMARK,
    "k-diffusion",
    "",
    load_k_diffusion,
)
