"""smalldiffusion: its `Unet` and `DiT`, whose states are x0 + sigma eps and which are told sigma.

Its `Scaled`, `PredX0`, `PredV` and `PredFlow` add no tensors, so a checkpoint does not tell them apart; neither is its schedule in it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from consistency_lab.choices import Choice, whole
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import SCHEDULES, Schedule
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.interop.families.family import Family, State, built, count, facts_of, fill, need, package
from consistency_lab.interop.mixing import MixingSchedule
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.states import load_state
from consistency_lab.interop.units import OURS

_WRAPPERS = {"eps": (), "x0": ("PredX0",), "v": ("PredV",), "flow": ("PredFlow",)}


def _as_eps(net: nn.Module, x: Tensor, sigma: Tensor, *labels: Tensor) -> Tensor:
    """What a network of `PredV` gives, which is the v of a rescaled state, in eps, as the library itself reads it."""
    return net.predict_eps(x, sigma, *labels)  # type: ignore[operator]


def sigma_schedule(sigmas: Tensor, spec: str) -> Schedule:
    """Its sigmas ``(T,)`` as a schedule with alpha = 1: exact at the times (i + 1) / T, logarithmic in between."""
    levels, steps = sigmas.double().log(), len(sigmas)

    def mixing(t: Tensor) -> tuple[Tensor, Tensor]:
        place = (t * steps - 1).clamp(0, steps - 1)
        below = place.floor().long().clamp(max=steps - 2)
        table = levels.to(t.device)
        log_sigma = table[below] + (place - below) * (table[below + 1] - table[below])
        return torch.ones_like(t), log_sigma.exp()

    return MixingSchedule(mixing, t_min=1 / steps, spec=spec)


def load_smalldiffusion(
    path: str | os.PathLike[str],
    *,
    schedule: str | None = None,
    size: int | None = None,
    predicts: str = "eps",
    scaled: bool = False,
    heads: int | None = None,
    value_range: tuple[float, float] = OURS,
    ema: bool = True,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> DiffusionModel:
    """A model from a state dict of smalldiffusion: ``smalldiffusion:unet.pt?size=32&schedule=ScheduleDDPM&scaled=True``.

    Widths, depths, channels and labels are read off the tensors.

    Args:
        path: the file.
        schedule: its own, with options: ``ScheduleLogLinear(N=200, sigma_min=0.02, sigma_max=10)``; for ``predicts=flow`` it is not needed.
        size: height of the square images; a `DiT` tells it.
        predicts: ``eps``, or ``x0``, ``v``, ``flow`` for a network under `PredX0`, `PredV`, `PredFlow`.
        scaled: it was trained under `Scaled`.
        heads: of the attention of a `DiT`; a `Unet` has one.
        value_range: of its images; `img_normalize` makes [-1, 1] of them.
        ema: take the averaged weights.
        name: how tables call it; the file's name by default.
        device: where to put it; by default a GPU where there is one.

    Raises:
        UserError: the package is not installed, the file holds no such network, or something that it does not say is missing.
    """
    file, state = Path(path), load_state(path, ema=ema)
    family = next((family for family in (SMALL_UNET, SMALL_DIT) if family.knows(state)), None)
    if family is None:
        raise UserError(f"{file} holds no Unet or DiT of smalldiffusion; its first tensor is {next(iter(state))!r}.")
    if predicts not in _WRAPPERS:
        raise unknown_name("prediction of smalldiffusion", predicts, _WRAPPERS)
    address, flow = f"smalldiffusion:{path}", predicts == "flow"
    package_ = package("smalldiffusion", "smalldiffusion")
    wanted: dict[str, Any] = {} if flow else {"schedule": schedule}
    need({**wanted, **({"size": size} if family is SMALL_UNET else {"heads": heads})}, address)
    if family is SMALL_UNET:
        kind, options = "Unet", unet_options(state, whole("size", size, 1))
    else:
        kind, options = "DiT", dit_options(state, whole("heads", heads, 1))
    network = getattr(package_, kind)
    for wrapper in (("Scaled",) if scaled else ()) + _WRAPPERS[predicts]:
        network = getattr(package_, wrapper)(network)
    classes, embed = 0, state.get("cond_embed.embeddings.weight")
    if embed is not None:
        classes = embed.shape[0] - 1
        options["cond_embed"] = package_.CondEmbedderLabel(embed.shape[1], classes)
    if "sig_embed.mlp.4.weight" in state:
        options["sig_embed"] = package_.TimestepEmbedder(state["sig_embed.mlp.4.weight"].shape[0])
    net = fill(built(network, **options), state, f"the {kind} of smalldiffusion")
    call: Callable[..., Any] | None = _as_eps if predicts == "v" else None
    return wrap_module(
        net,
        schedule=SCHEDULES.build("flow") if flow else _schedule(package_, str(schedule)),
        predicts="eps" if predicts == "v" else predicts,
        time=f"{'unit' if flow else 'sigma'}(broadcast=True)",
        call=call,
        shape=tuple(net.input_dims),  # type: ignore[arg-type]
        classes=classes,
        null_label=classes or None,
        value_range=value_range,
        name=name or file.stem,
        device=device,
        facts=facts_of("smalldiffusion", file, state),
    )


def _schedule(package_: Any, text: str) -> Schedule:
    choice = Choice.parse(text)
    kinds = {key: kind for key, kind in vars(package_).items() if key.startswith("Schedule") and isinstance(kind, type)}
    if choice.name not in kinds:
        raise unknown_name("schedule of smalldiffusion", choice.name, kinds)
    try:
        sigmas = kinds[choice.name](**choice.options).sigmas
    except TypeError as error:
        raise UserError(f"the schedule {text!r} of smalldiffusion cannot be made: {error}.") from error
    return sigma_schedule(sigmas, f"smalldiffusion.{choice}")


def unet_options(state: State, size: int) -> dict[str, Any]:
    """The arguments of its `Unet` for images of that size, from the shapes of its tensors."""
    ch, levels = state["conv_in.weight"].shape[0], count(state, r"downs\.(\d+)\.")
    widths = [state[f"downs.{i}.blocks.0.0.layer1.2.weight"].shape[0] for i in range(levels)]
    attended = [size // 2**i for i in range(levels) if f"downs.{i}.blocks.0.1.norm.weight" in state]
    return {
        "in_dim": size,
        "in_ch": state["conv_in.weight"].shape[1],
        "out_ch": state["out_layer.2.weight"].shape[0],
        "ch": ch,
        "ch_mult": tuple(width // ch for width in widths),
        "embed_ch_mult": state["downs.0.blocks.0.0.temb_proj.1.weight"].shape[1] // ch,
        "num_res_blocks": count(state, r"downs\.0\.blocks\.(\d+)\."),
        "attn_resolutions": tuple(attended),
    }


def dit_options(state: State, heads: int) -> dict[str, Any]:
    """The arguments of its `DiT` with that many heads, from the shapes of its tensors."""
    dim, channels, patch = state["x_embed.proj.weight"].shape[:3]
    return {
        "in_dim": patch * math.isqrt(state["pos_embed"].shape[1]),
        "channels": channels,
        "patch_size": patch,
        "depth": count(state, r"blocks\.(\d+)\."),
        "head_dim": dim // heads,
        "num_heads": heads,
        "mlp_ratio": state["blocks.0.mlp.0.weight"].shape[0] / dim,
    }


def _lines(kind: str) -> Callable[[State], list[str]]:
    def lines(state: State) -> list[str]:
        options = unet_options(state, 32) if kind == "Unet" else dit_options(state, 6)
        said = ", ".join(f"{key}={value!r}" for key, value in options.items())
        return [
            f"from smalldiffusion import {kind}, ScheduleDDPM",
            f"net = {kind}({said})  # in_dim and heads as they were; Scaled({kind}), PredX0({kind}), ... where it was trained so",
            "net.load_state_dict(state)",
        ]

    return lines


def _told(state: State) -> dict[str, str]:
    schedule = "'edm(sigma_min=0.02, sigma_max=10.0)'"
    return {"schedule": schedule, "predicts": "'eps'", "time": "'sigma(broadcast=True)'", "shape": "net.input_dims"}


_REMARK = (
    "The schedule, and whether the class was under Scaled, PredX0, PredV or PredFlow, are not in the file; the address takes its own "
    "schedules by name."
)
SMALL_UNET = Family(
    "smalldiffusion (Unet)",
    (
        r"^conv_in\.weight$",
        r"^sig_embed\.mlp\.0\.weight$",
        r"^downs\.0\.blocks\.0\.0\.layer1\.",
        r"^out_layer\.2\.weight$",
    ),
    _lines("Unet"),
    _told,
    _REMARK,
    "smalldiffusion",
    "size=32&schedule=ScheduleDDPM",
    load_smalldiffusion,
)
SMALL_DIT = Family(
    "smalldiffusion (DiT)",
    (
        r"^x_embed\.proj\.weight$",
        r"^sig_embed\.mlp\.0\.weight$",
        r"^blocks\.0\.scale_modulation\.proj\.",
        r"^final_linear\.weight$",
    ),
    _lines("DiT"),
    _told,
    _REMARK,
    "smalldiffusion",
    "heads=6&schedule=ScheduleDDPM",
    load_smalldiffusion,
)
