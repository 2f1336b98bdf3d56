"""A folder of diffusers in one of two modes: its network under our sampler, or the whole pipeline under its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.interop.diffusers import load_diffusers
from consistency_lab.interop.layout import read_json
from consistency_lab.pipelines.diffusers_pipeline import PipelineModel, load_pipeline
from consistency_lab.pipelines.recording import Space

Mode = Literal["ours", "theirs"]
_NETWORKS = (
    "UNet2DModel",
    "DiTTransformer2DModel",
    "Transformer2DModel",
)  # that take a noisy image, a time and a label alone


def open_diffusers(
    path: str | os.PathLike[str],
    *,
    mode: Mode | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    schedule: str | Schedule | None = None,
    predicts: str | None = None,
    value_range: tuple[float, float] | None = None,
    space: Space | None = None,
    prompts: str | None = None,
    labels: int | Sequence[int] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: int | Sequence[int] | None = None,
    call: Mapping[str, Any] | None = None,
    batch: int | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    scheduler: str | None = None,
    lora: str | None = None,
    cache: str | None = None,
    compile: bool | None = None,
    offload: str | None = None,
    store: str | None = None,
) -> DiffusionModel | PipelineModel:
    """A model from a folder of diffusers, as the address ``diffusers:DIR`` opens it.

    Args:
        path: the folder.
        mode: ``"ours"``: its network under our sampler (`load_diffusers`), which is the default where that network needs nothing but a
            noisy image, a time and a label; ``"theirs"``: its own scheduler and code with our noise (`load_pipeline`), the default for all
            others.
        name, device: as in either.
        schedule, predicts, value_range: of mode ours, see `load_diffusers`.
        space, prompts, labels, steps, guidance, size, call, batch, dtype, quantize, scheduler, lora, cache, compile, offload, store: of
            mode theirs, see `load_pipeline`.

    Raises:
        UserError: an option of the other mode, or what the loader raises.
    """
    own: dict[str, Any] = {"schedule": schedule, "predicts": predicts, "value_range": value_range}
    theirs: dict[str, Any] = {
        "space": space, "prompts": prompts, "labels": labels, "steps": steps, "guidance": guidance, "size": size, "call": call,
        "batch": batch, "dtype": dtype, "quantize": quantize, "scheduler": scheduler, "lora": lora, "cache": cache, "compile": compile,
        "offload": offload, "store": store,
    }  # fmt: skip
    if mode not in (None, "ours", "theirs"):
        raise UserError(f"mode={mode!r} is not known; write mode=ours or mode=theirs.")
    chosen = mode or usual_mode(path)
    other = own if chosen == "theirs" else theirs
    if strange := [option for option, value in other.items() if value is not None]:
        hint = "" if mode is not None else f" (for {path} that is the default)"
        wanted = "ours" if chosen == "theirs" else "theirs"
        raise UserError(f"{strange[0]} is no option of mode={chosen}{hint}; add mode={wanted}, or leave it out.")
    given = {key: value for key, value in (own if chosen == "ours" else theirs).items() if value is not None}
    if chosen == "ours":
        return load_diffusers(path, name=name, device=device, **given)
    return load_pipeline(path, name=name, device=device, **given)


def usual_mode(path: str | os.PathLike[str]) -> Mode:
    """``"theirs"`` for a pipeline whose network needs more than a noisy image, a time and a label."""
    index = Path(path) / "model_index.json"
    if not index.is_file():
        return "ours"
    parts = read_json(index)
    said = next((parts[part] for part in ("transformer", "unet") if parts.get(part)), None)
    known = isinstance(said, list) and len(said) == 2 and str(said[1]) in _NETWORKS
    return "ours" if known or not isinstance(said, list) else "theirs"
