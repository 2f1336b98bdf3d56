"""denoising-diffusion-pytorch: what its `Trainer` saves (``model-N.pt``) tells everything but the size and range of its images.

Its `GaussianDiffusion` keeps its betas, and with them the schedule, as buffers. What it predicts is in one of them too: the weights of the
loss at each timestep are 1 for the noise, the signal-to-noise ratio for the image and snr / (snr + 1) for v, or these with snr capped
where the loss is Min-SNR's.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import height_and_width
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import TableVP
from consistency_lab.errors import UserError
from consistency_lab.interop.families.family import Family, State, built, count, facts_of, fill, package
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.schedules import as_schedule
from consistency_lab.interop.states import load_state
from consistency_lab.interop.units import OURS

_NAME = "denoising-diffusion-pytorch"
_UNKNOWN = (
    "the file holds a Unet without the GaussianDiffusion that trained it, so its schedule and prediction are not in it; add "
    "&schedule=linear&predicts=eps (or what they are)"
)


def unet_options(state: State) -> dict[str, Any]:
    """The arguments of its `Unet`, from the shapes of its tensors."""
    first, last = state["init_conv.weight"], state["final_conv.weight"]
    dim, stages = state["time_mlp.1.weight"].shape[0] // 4, count(state, r"downs\.(\d+)\.")
    widths = [
        next(x for key in (f"downs.{i}.3.1.weight", f"downs.{i}.3.weight") if (x := state.get(key)) is not None).shape[
            0
        ]
        for i in range(stages)
    ]
    full = [
        f"downs.{i}.2.to_out.weight" in state for i in range(stages)
    ]  # to_out of the linear attention has a norm behind it
    memory = [state[f"downs.{i}.2.mem_kv"].shape for i in range(stages)]
    # (2, heads, memories, width) with full attention, (2, heads, width, memories) with linear attention
    heads, sizes = [x[1] for x in memory], [x[3 if whole else 2] for x, whole in zip(memory, full, strict=True)]
    inputs, outputs = first.shape[1], last.shape[0]
    return {
        "dim": dim,
        "init_dim": first.shape[0],
        "out_dim": outputs,
        "dim_mults": tuple(width // dim for width in widths),
        "channels": inputs // 2 if inputs == 2 * outputs else inputs,
        "self_condition": inputs == 2 * outputs,
        "full_attn": tuple(full),
        "attn_heads": tuple(heads),
        "attn_dim_head": tuple(sizes),
    }


def objective(beside: Mapping[str, Tensor]) -> str | None:
    """What the loss weights ``(T,)`` say that it predicts; None where they say nothing."""
    if not {"sqrt_recipm1_alphas_cumprod", "loss_weight"} <= set(beside):
        return None
    snr, weight = beside["sqrt_recipm1_alphas_cumprod"].double() ** -2, beside["loss_weight"].double()
    of_x0 = {"eps": weight * snr, "x0": weight, "v": weight * (snr + 1)}  # each is then snr, capped or not
    fits = {}
    for name, capped in of_x0.items():
        cap = capped.max()
        fits[name] = float(((capped - snr.clamp(max=cap)).abs() / snr.clamp(max=cap)).mean())
    best = min(fits, key=lambda name: fits[name])
    return best if fits[best] < 1e-2 else None


def load_ddpm_pytorch(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int],
    schedule: str | None = None,
    predicts: str | None = None,
    value_range: tuple[float, float] = OURS,
    theta: float = 10000,
    ema: bool = True,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> DiffusionModel:
    """A model from a checkpoint of denoising-diffusion-pytorch: ``ddpm-pytorch:model-10.pt?size=32``.

    Widths, attention, channels, schedule and prediction are in the file.

    Args:
        path: what ``Trainer.save`` wrote, or the state dict of its `GaussianDiffusion`, its `EMA` or its `Unet`.
        size: height and width of the images, or one number for both.
        schedule, predicts: of a bare `Unet`, as in `wrap_module`; otherwise what the file says.
        value_range: (0, 1) for one that was trained with ``auto_normalize=False``.
        theta: ``sinusoidal_pos_emb_theta`` of the `Unet`.
        ema: take the averaged weights.
        name: how tables call it; the file's name by default.
        device: where to put it; by default a GPU where there is one.

    Raises:
        UserError: the package is not installed, or the file is no such checkpoint.
    """
    file, state = Path(path), load_state(path, ema=ema)
    if not DDPM_PYTORCH.knows(state):
        raise UserError(f"{file} holds no Unet of {_NAME}; its first tensor is {next(iter(state))!r}.")
    beside, options = state.beside, unet_options(state)
    says = objective(beside)
    if (schedule is None and "betas" not in beside) or (predicts is None and says is None):
        raise UserError(f"{file}: {_UNKNOWN}.")
    height, width = height_and_width(size)
    unet = built(package("denoising_diffusion_pytorch", _NAME).Unet, **options, sinusoidal_pos_emb_theta=theta)
    shown = name or file.stem
    if options["self_condition"]:
        warnings.warn(
            f"{shown}: it was trained to be shown its estimate of the step before (self_condition), and is sampled here without.",
            stacklevel=2,
        )
    own = None if "betas" not in beside else np.cumsum(np.log1p(-beside["betas"].double().numpy()))
    return wrap_module(
        fill(unet, state, f"the Unet of {_NAME}"),
        schedule=as_schedule(schedule) if schedule is not None else TableVP([] if own is None else own),
        predicts=predicts or str(says),
        time="index(integer=True)",
        shape=(options["channels"], height, width),
        learned_variance=options["out_dim"] == 2 * options["channels"],
        value_range=value_range,
        name=shown,
        device=device,
        facts=facts_of("ddpm-pytorch", file, state),
    )


def _lines(state: State) -> list[str]:
    options = ", ".join(f"{key}={value!r}" for key, value in unet_options(state).items())
    return [
        "from denoising_diffusion_pytorch import Unet",
        f"net = Unet({options})",
        "net.load_state_dict(state)",
    ]


DDPM_PYTORCH = Family(
    name=_NAME,
    marks=(r"^init_conv\.weight$", r"^time_mlp\.1\.weight$", r"^downs\.0\.2\.mem_kv$", r"^final_conv\.weight$"),
    lines=_lines,
    told=lambda state: {
        "schedule": "(1 - state.beside['betas'].double()).cumprod(0)",
        "predicts": "'v'",
        "time": "'index(integer=True)'",
        "shape": f"({unet_options(state)['channels']}, HEIGHT, WIDTH)",
    },
    remark="Its default objective is pred_v; pred_noise is 'eps' and pred_x0 is 'x0'.",
    prefix="ddpm-pytorch",
    options="size=32",
    opener=load_ddpm_pytorch,
)
