"""The U-Net under the names that diffusers gives it: configuration and parameters, both ways. diffusers is not needed.

Covers ``diffusers.UNet2DModel`` made of DownBlock2D, AttnDownBlock2D, UpBlock2D and AttnUpBlock2D. Our network at time
t is theirs at timestep ``1000 t - 1``, and every parameter of one is a parameter of the other, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from consistency_lab.choices import Choice
from consistency_lab.errors import UserError
from consistency_lab.networks.unet import AttentionBlock, UNet

# From our names to theirs: first where a parameter sits, then what it is. Applied in order, each at most once.
_RENAMES = [
    (r"^embedding\.label\.", r"class_embedding."),
    (r"^embedding\.", r"time_embedding."),
    (r"^norm_out\.", r"conv_norm_out."),
    (r"^middle\.(\d+)\.res\.", r"mid_block.resnets.\1."),
    (r"^middle\.(\d+)\.attention\.", r"mid_block.attentions.\1."),
    (r"^(down|up)\.(\d+)\.layers\.(\d+)\.res\.", r"\1_blocks.\2.resnets.\3."),
    (r"^(down|up)\.(\d+)\.layers\.(\d+)\.attention\.", r"\1_blocks.\2.attentions.\3."),
    (r"^(down|up)\.(\d+)\.resample\.", r"\1_blocks.\2.\1samplers.0."),
    (r"\.(norm|conv)_(\d)\.", r".\1\2."),
    (r"\.time\.", r".time_emb_proj."),
    (r"\.shortcut\.", r".conv_shortcut."),
    (r"\.norm\.", r".group_norm."),
    (r"\.attention\.query\.", r".to_q."),
    (r"\.attention\.key\.", r".to_k."),
    (r"\.attention\.value\.", r".to_v."),
    (r"\.attention\.out\.", r".to_out.0."),
]
# The names of attention in checkpoints that are older than diffusers 0.14, google/ddpm-cifar10-32 among them.
_OLD_RENAMES = [
    (r"(\.attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(\.attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(\.attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
]
# Settings of UNet2DModel that the U-Net here does not have, with the values that mean the same as not having them.
_FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default",),
    "class_embed_type": (None,),
}


def _renamed(name: str, renames: list[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def to_diffusers_state(network: UNet) -> dict[str, Tensor]:
    """The network's parameters under the names of ``diffusers.UNet2DModel``; the tensors are the network's own."""
    return {_renamed(name, _RENAMES): tensor for name, tensor in network.state_dict().items()}


def from_diffusers_state(network: UNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ``UNet2DModel`` state under the names of our ``network``, for its ``load_state_dict``; shapes are not read.

    Raises `UserError` naming the first parameter that is missing or that the network does not have.
    """
    theirs = {_renamed(name, _OLD_RENAMES): tensor for name, tensor in state.items()}
    names = {name: _renamed(name, _RENAMES) for name in network.state_dict()}
    if missing := sorted(set(names.values()) - set(theirs)):
        raise UserError(
            f"the diffusers weights lack {missing[0]!r}; they belong to another architecture than their configuration."
        )
    if unknown := sorted(set(theirs) - set(names.values())):
        raise UserError(
            f"the diffusers weights hold {unknown[0]!r}, which this U-Net does not have; check their configuration."
        )
    return {ours: theirs[name] for ours, name in names.items()}


def diffusers_config(network: UNet) -> dict[str, Any]:
    """The arguments of ``diffusers.UNet2DModel`` that make the same network, read off the network; JSON types only."""
    down: list[Any] = list(network.down)
    up: list[Any] = list(network.up)
    first: Any = network.middle[0]
    attentions = [block for block in network.modules() if isinstance(block, AttentionBlock)]
    split = [block.norm.num_channels // block.attention.heads for block in attentions if block.attention.heads > 1]
    embedding, resamplers = network.embedding, [level.resample for level in down if level.resample is not None]
    classes = None if embedding.label is None else embedding.label.num_embeddings
    return {
        "sample_size": network.shape[1] if network.shape[1] == network.shape[2] else list(network.shape[1:]),
        "in_channels": network.shape[0],
        "out_channels": network.shape[0],
        "block_out_channels": [level.layers[0].res.conv_1.out_channels for level in down],
        "down_block_types": ["DownBlock2D" if x.layers[0].attention is None else "AttnDownBlock2D" for x in down],
        "up_block_types": ["UpBlock2D" if x.layers[0].attention is None else "AttnUpBlock2D" for x in up],
        "layers_per_block": len(down[0].layers),
        "add_attention": first.attention is not None,
        "attention_head_dim": split[0] if split else None,
        "norm_num_groups": network.norm_out.num_groups,
        "norm_eps": network.norm_out.eps,
        "downsample_padding": int(all(step.symmetric for step in resamplers)),
        "flip_sin_to_cos": embedding.cos_first,
        "freq_shift": embedding.shift,
        "num_class_embeds": classes,
    }


def choice_from_diffusers(
    config: Mapping[str, Any], size: int | None = None, null_label: bool = False
) -> tuple[Choice, tuple[int, int, int], int]:
    """What `build_network` needs to make the network of a ``UNet2DModel`` configuration (what its config.json says).

    Args:
        config: the configuration; keys that are missing have diffusers' defaults.
        size: height and width of the images, where the configuration leaves ``sample_size`` open.
        null_label: read the last of the class embeddings as "no label", as our exports have it.

    Returns:
        (choice, shape, classes).

    Raises:
        UserError: a setting that the U-Net here cannot represent, named with its value.
    """
    for key, allowed in _FIXED.items():
        if config.get(key, allowed[0]) not in allowed:
            raise _unsupported(key, config[key], f"only {allowed[0]!r} can be read")
    channels = list(config.get("block_out_channels", (224, 448, 672, 896)))
    groups, images = config.get("norm_num_groups", 32), config.get("in_channels", 3)
    if config.get("out_channels", 3) != images:
        raise _unsupported(
            "out_channels", config.get("out_channels", 3), f"only as many as in_channels, {images}, can be read"
        )
    if groups is None or config.get("attn_norm_num_groups") not in (None, groups):
        raise _unsupported("norm_num_groups", groups, "one number for all norms can be read")
    if config.get("time_embedding_dim") not in (None, 4 * channels[0]):
        raise _unsupported("time_embedding_dim", config["time_embedding_dim"], f"only {4 * channels[0]} can be read")
    down = _attention_levels(config, "down_block_types", ["DownBlock2D"] + ["AttnDownBlock2D"] * 3)
    up = _attention_levels(config, "up_block_types", ["AttnUpBlock2D"] * 3 + ["UpBlock2D"])
    up = tuple(sorted(len(channels) - 1 - level for level in up))
    sample_size = config.get("sample_size") or size
    if sample_size is None:
        raise UserError("the configuration does not say the size of the images; give size.")
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    rows = config.get("num_class_embeds") or 0
    options = {
        "width": channels[0],
        "multipliers": tuple(c // channels[0] if c % channels[0] == 0 else c / channels[0] for c in channels),
        "blocks": config.get("layers_per_block", 2),
        "attention": down,
        "attention_up": None if up == down else up,
        "middle_attention": config.get("add_attention", True),
        "groups": groups,
        "head_width": config.get("attention_head_dim", 8),
        "norm_eps": config.get("norm_eps", 1e-5),
        "symmetric_padding": _padding(config.get("downsample_padding", 1)),
        "cos_first": config.get("flip_sin_to_cos", True),
        "shift": config.get("freq_shift", 0),
        "null_label": null_label,
    }
    return Choice("unet", options), (images, height, width), rows - 1 if rows and null_label else rows


def _attention_levels(config: Mapping[str, Any], key: str, default: list[str]) -> tuple[int, ...]:
    """The positions of the blocks with attention; an unknown kind of block is a `UserError`."""
    kinds = list(config.get(key, default))
    plain, attending = ("DownBlock2D", "AttnDownBlock2D") if key.startswith("down") else ("UpBlock2D", "AttnUpBlock2D")
    if other := [kind for kind in kinds if kind not in (plain, attending)]:
        raise _unsupported(key, other[0], f"only {plain} and {attending} can be read")
    return tuple(i for i, kind in enumerate(kinds) if kind == attending)


def _padding(value: int) -> bool:
    if value not in (0, 1):
        raise _unsupported("downsample_padding", value, "only 0 and 1 can be read")
    return bool(value)


def _unsupported(key: str, value: Any, instead: str) -> UserError:
    return UserError(f"a UNet2DModel with {key}={value!r} cannot be represented by the U-Net here: {instead}.")
