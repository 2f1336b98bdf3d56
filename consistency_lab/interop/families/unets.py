"""The U-Net of improved- and guided-diffusion, which torchcfm and flow_matching's examples use too: the same names, other meanings.

Only torchcfm's class is in a package that can be installed; checkpoints of guided-diffusion are built with it too: it is the same network.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from consistency_lab.choices import height_and_width, whole
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError
from consistency_lab.interop.families.family import Family, State, built, count, facts_of, fill, package
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.states import load_state
from consistency_lab.interop.units import OURS

_MARKS = (
    r"^time_embed\.0\.weight$",
    r"^input_blocks\.0\.0\.weight$",
    r"^middle_block\.1\.qkv\.weight$",
    r"^out\.2\.weight$",
)
_HEADS = "num_heads, num_head_channels and use_new_attention_order leave no trace in the file, and change what the network does."


def unet_options(state: State) -> dict[str, Any]:
    """The arguments of its `UNetModel`, from the names and shapes of its tensors; its heads are not among them."""
    width, outputs = state["time_embed.0.weight"].shape[1], count(state, r"output_blocks\.(\d+)\.")
    raised = [i for i in range(outputs) if f"output_blocks.{i}.1.in_layers.0.weight" in state]
    raised += [i for i in range(outputs) if f"output_blocks.{i}.2.in_layers.0.weight" in state]
    convolved = [i for i in range(outputs) if any(f"output_blocks.{i}.{j}.conv.weight" in state for j in (1, 2))]
    levels = 1 + len(raised or convolved)
    blocks = outputs // levels - 1
    first = [
        1 + level * (blocks + 1) for level in range(levels)
    ]  # of each level's blocks: its own, and one that halves
    made = [state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in first]
    mults = [x / width for x in made]
    labels = state.get("label_emb.weight")
    return {
        "image_size": None,
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "model_channels": width,
        "out_channels": state["out.2.weight"].shape[0],
        "num_res_blocks": blocks,
        "attention_resolutions": tuple(2**k for k, i in enumerate(first) if f"input_blocks.{i}.1.qkv.weight" in state),
        "channel_mult": tuple(int(x) if x == int(x) else x for x in mults),
        "num_classes": None if labels is None else labels.shape[0],
        "use_scale_shift_norm": state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * made[0],
        "resblock_updown": bool(raised),
    }


def load_torchcfm(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int],
    heads: int | None = None,
    head_channels: int | None = None,
    new_attention_order: bool = False,
    value_range: tuple[float, float] = OURS,
    ema: bool = True,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> DiffusionModel:
    """A model from a checkpoint of torchcfm's `UNetModel`: ``torchcfm:cifar10_weights.pt?size=32&head_channels=64``.

    Widths, depths, attention, channels and labels are read off the tensors. Its t = 0 is noise and its velocity is data minus noise: both
    are turned here.

    Args:
        path: the file.
        size: height and width of the images, or one number for both.
        heads, head_channels: ``num_heads`` or ``num_head_channels`` as it was trained; one of them is needed.
        new_attention_order: ``use_new_attention_order``.
        value_range: of its images.
        ema: take the averaged weights.
        name: how tables call it; the file's name by default.
        device: where to put it; by default a GPU where there is one.

    Raises:
        UserError: the package is not installed, the file holds no such network, or its heads are not said.
    """
    file, state = Path(path), load_state(path, ema=ema)
    net, options = _built(state, f"torchcfm:{path}", size, heads, head_channels, new_attention_order)
    return wrap_module(
        net,
        schedule="flow",
        predicts="-flow",
        time="reversed",
        shape=(options["in_channels"], *options["image_size"]),
        classes=options["num_classes"] or 0,
        call=lambda net, x, t, *labels: net(t, x, *labels),
        value_range=value_range,
        name=name or file.stem,
        device=device,
        facts=facts_of("torchcfm", file, state),
    )


def load_guided(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int],
    heads: int | None = None,
    head_channels: int | None = None,
    new_attention_order: bool = False,
    schedule: str = "linear",
    predicts: str = "eps",
    ema: bool = True,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> DiffusionModel:
    """A model from a checkpoint of guided-diffusion: ``guided-diffusion:64x64_diffusion.pt?size=64&head_channels=64``.

    Its repository is in no package; torchcfm's `UNetModel` is the same network, to the bit, and is what is built. For models of 1000 steps;
    a learned variance is dropped.

    Args:
        path: the file; of improved-diffusion's, those of 1000 steps.
        size: height and width of the images, or one number for both.
        heads, head_channels: ``num_heads`` or ``num_head_channels`` as it was trained; one of them is needed.
        new_attention_order: ``use_new_attention_order``.
        schedule: ``noise_schedule``: ``linear`` or ``cosine``.
        predicts: ``x0`` for one that was trained with ``predict_xstart``.
        ema: take the averaged weights.
        name: how tables call it; the file's name by default.
        device: where to put it; by default a GPU where there is one.

    Raises:
        UserError: torchcfm is not installed, the file holds no such network, or its heads are not said.
    """
    file, state = Path(path), load_state(path, ema=ema)
    net, options = _built(state, f"guided-diffusion:{path}", size, heads, head_channels, new_attention_order)
    return wrap_module(
        net,
        schedule=schedule,
        predicts=predicts,
        time="index",
        shape=(options["in_channels"], *options["image_size"]),
        classes=options["num_classes"] or 0,
        learned_variance=options["out_channels"] == 2 * options["in_channels"],
        call=lambda net, x, index, *labels: net(index, x, *labels),
        name=name or file.stem,
        device=device,
        facts=facts_of("guided-diffusion", file, state),
    )


def _built(
    state: State,
    address: str,
    size: int | tuple[int, int],
    heads: int | None,
    head_channels: int | None,
    new_attention_order: bool,
) -> tuple[nn.Module, dict[str, Any]]:
    """torchcfm's network with those tensors, and its arguments; ``image_size`` is (height, width)."""
    if not TORCHCFM.knows(state):
        raise UserError(f"{address} holds no such UNetModel; its first tensor is {next(iter(state))!r}.")
    if (heads is None) == (head_channels is None):
        raise UserError(
            f"{_HEADS} Write {address}?size=...&heads=4 (num_heads) or &head_channels=64 (num_head_channels, which counts where both "
            "were given)."
        )
    options = {**unet_options(state), "image_size": height_and_width(size)}
    said = {
        "num_heads": 1 if heads is None else whole("heads", heads, 1),
        "num_head_channels": -1 if head_channels is None else whole("head_channels", head_channels, 1),
        "use_new_attention_order": new_attention_order,
    }
    net = built(package("torchcfm.models.unet.unet", "torchcfm").UNetModel, **options, **said)
    return fill(net, state, "such a UNetModel"), options


def _lines(home: str, *, has_size: bool = True) -> Any:
    def lines(state: State) -> list[str]:
        options = unet_options(state)
        if not has_size:
            options = {key: value for key, value in options.items() if key not in ("image_size", "resblock_updown")}
        said = ", ".join(f"{key}={'SIZE' if key == 'image_size' else repr(value)}" for key, value in options.items())
        return [
            f"from {home} import UNetModel",
            f"net = UNetModel({said}, num_heads=4)  # or num_head_channels=64: as it was trained",
            "net.load_state_dict(state)",
        ]

    return lines


def _shape(options: dict[str, Any]) -> str:
    return f"({options['in_channels']}, SIZE, SIZE)"


def _discrete(state: State) -> dict[str, str]:
    options = unet_options(state)
    told = {"schedule": "'linear'", "predicts": "'eps'", "time": "'index'", "shape": _shape(options)}
    if options["out_channels"] == 2 * options["in_channels"]:
        told["learned_variance"] = "True"
    if options["num_classes"]:
        told["classes"] = str(options["num_classes"])
    return told


def _flow(call: str) -> Any:
    def told(state: State) -> dict[str, str]:
        options = unet_options(state)
        classes = {"classes": str(options["num_classes"])} if options["num_classes"] else {}
        velocity = {"schedule": "'flow'", "predicts": "'-flow'", "time": "'reversed'"}
        return {**velocity, "shape": _shape(options), **classes, "call": call}

    return told


GUIDED = Family(
    "guided-diffusion",
    _MARKS,
    _lines("guided_diffusion.unet"),
    _discrete,
    f"{_HEADS} Its default schedule is linear with 1000 steps; for noise_schedule='cosine' add &schedule=cosine.",
    "guided-diffusion",
    "size=64&heads=4",
    load_guided,
)
IMPROVED = Family(
    "improved-diffusion",
    _MARKS,
    _lines("improved_diffusion.unet", has_size=False),
    _discrete,
    "num_heads leaves no trace in the file. With 4000 steps on the cosine schedule and rescale_timesteps (its default) give "
    "schedule='cosine', time=lambda t: (4000 * t - 1) / 4.",
)
TORCHCFM = Family(
    "torchcfm",
    _MARKS,
    _lines("torchcfm.models.unet.unet"),
    _flow("lambda net, x, t, *labels: net(t, x, *labels)"),
    "Its t = 0 is noise and its velocity is data minus noise: time='reversed' and predicts='-flow' turn both.",
    "torchcfm",
    "size=32&heads=4",
    load_torchcfm,
)
FLOW_MATCHING = Family(
    "flow_matching (its image example)",
    _MARKS,
    lambda state: [
        "net = ...  # instantiate_model of its examples/image, or your own network",
        "net.load_state_dict(state)",
    ],
    _flow("lambda net, x, t, *labels: net(x, t, {'label': labels[0]} if labels else {})"),
    "Its t = 0 is noise and its velocity is data minus noise (with CondOTProbPath): time='reversed' and predicts='-flow' turn both.",
)
