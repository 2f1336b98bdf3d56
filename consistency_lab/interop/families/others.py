"""Code bases whose networks are in no package that can be installed: what their checkpoints are, and the lines that wrap them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from consistency_lab.interop.families.family import Family, State, count

# The continuous schedule of VP-SDEs (beta from 0.1 to 20) as a function of time.
_VP_SDE = "lambda t: ((-0.05 * t - 4.975 * t**2).exp(), (-(-0.1 * t - 9.95 * t**2).expm1()).sqrt())"


def _dit_options(state: State) -> dict[str, Any]:
    width, channels, patch = state["x_embedder.proj.weight"].shape[:3]
    learned = state["final_layer.linear.weight"].shape[0] == 2 * channels * patch**2
    rows = state["y_embedder.embedding_table.weight"].shape[0]
    return {
        "input_size": patch * math.isqrt(state["pos_embed"].shape[1]),
        "patch_size": patch,
        "in_channels": channels,
        "hidden_size": width,
        "depth": count(state, r"blocks\.(\d+)\."),
        "num_classes": rows - 1,
        "learn_sigma": learned,
    }


def _transformer_lines(kind: str) -> Any:
    def lines(state: State) -> list[str]:
        options = ", ".join(f"{key}={value!r}" for key, value in _dit_options(state).items())
        return [f"from models import {kind}", f"net = {kind}({options}, num_heads=16)", "net.load_state_dict(state)"]

    return lines


def _latents(state: State) -> dict[str, str]:
    options = _dit_options(state)
    size, classes = options["input_size"], options["num_classes"]
    return {"shape": f"({options['in_channels']}, {size}, {size})", "classes": str(classes), "null_label": str(classes)}


def _dit_told(state: State) -> Mapping[str, str]:
    learned = {"learned_variance": "True"} if _dit_options(state)["learn_sigma"] else {}
    return {"schedule": "'linear'", "predicts": "'eps'", "time": "'index'", **_latents(state), **learned}


_DIT_MARKS = (
    r"^x_embedder\.proj\.weight$",
    r"^t_embedder\.mlp\.0\.weight$",
    r"^blocks\.0\.adaLN_modulation\.1\.",
    r"^final_layer\.linear\.",
)
_LATENT = "The images are latents of Stable Diffusion's VAE times 0.18215; num_heads leaves no trace (6, 12, 16, 16 for S, B, L, XL)."
DIT = Family("DiT", _DIT_MARKS, _transformer_lines("DiT"), _dit_told, _LATENT)
SIT = Family(
    "SiT",
    _DIT_MARKS,
    _transformer_lines("SiT"),
    lambda state: {"schedule": "'flow'", "predicts": "'-flow'", "time": "'reversed'", **_latents(state)},
    f"{_LATENT} With its default path (Linear, velocity): t = 0 is noise and the velocity is data minus noise; its forward drops the "
    "variance itself.",
)


def _uvit_options(state: State) -> dict[str, Any]:
    width, channels, patch = state["patch_embed.proj.weight"].shape[:3]
    labels = state.get("label_emb.weight")
    extras = 1 if labels is None else 2
    return {
        "img_size": patch * math.isqrt(state["pos_embed"].shape[1] - extras),
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": 2 * count(state, r"in_blocks\.(\d+)\."),
        "qkv_bias": "in_blocks.0.attn.qkv.bias" in state,
        "mlp_time_embed": "time_embed.0.weight" in state,
        "num_classes": -1 if labels is None else labels.shape[0],
        "conv": "final_layer.weight" in state,
    }


def _uvit_lines(state: State) -> list[str]:
    options = ", ".join(f"{key}={value!r}" for key, value in _uvit_options(state).items())
    return ["from libs.uvit import UViT", f"net = UViT({options}, num_heads=8)", "net.load_state_dict(state)"]


def _uvit_told(state: State) -> Mapping[str, str]:
    options = _uvit_options(state)
    size, labels = options["img_size"], options["num_classes"]
    shape = {"shape": f"({options['in_chans']}, {size}, {size})"}
    classes = {"classes": str(labels)} if labels > 0 else {}
    if options["in_chans"] == 4:
        betas = "torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2"
        return {
            "schedule": f"(1 - {betas}).cumprod(0)",
            "predicts": "'eps'",
            "time": "lambda t: 1000 * t",
            **shape,
            **classes,
        }
    return {"schedule": _VP_SDE, "predicts": "'eps'", "time": "lambda t: 999 * t", **shape, **classes}


UVIT = Family(
    "U-ViT",
    (
        r"^patch_embed\.proj\.weight$",
        r"^in_blocks\.0\.attn\.",
        r"^mid_block\.attn\.",
        r"^out_blocks\.0\.skip_linear\.",
        r"^decoder_pred\.",
    ),
    _uvit_lines,
    _uvit_told,
    "On latents its timesteps are 1 ... 1000, on pixels 999 t; one class of ImageNet (1000 of 1001) means none. num_heads leaves no trace.",
)


def _score_told(state: State) -> Mapping[str, str]:
    fourier = "all_modules.0.W" in state  # NCSN++ of the VE models is told sigma, and scales by it inside
    if fourier:
        return {
            "schedule": "'edm(sigma_min=0.01, sigma_max=50.0)'",
            "predicts": "'score'",
            "time": "'sigma'",
            "value_range": "(0, 1)",
        }
    return {"schedule": _VP_SDE, "predicts": "'eps'", "time": "lambda t: 999 * t"}


SCORE_SDE = Family(
    "score_sde",
    (r"^all_modules\.\d+\.", r"^sigmas$"),
    lambda state: [
        "from models import utils as mutils; from models import ddpm, ncsnv2, ncsnpp",
        "net = mutils.get_model(config.model.name)(config)  # config: that of its configs/ folder",
        "net.load_state_dict(state)",
    ],
    _score_told,
    "These lines are for its continuous models: VE on [0, 1] with sigma as the time, VP on [-1, 1] (data.centered) with 999 t, whose "
    "output is eps although the code calls it a score. On sub-VP, sigma is 1 - alpha^2.",
)


def _edm_told(state: State) -> Mapping[str, str]:
    labels = next((x for name, x in state.items() if name.endswith("map_label.weight")), None)
    told = {"schedule": "'edm'", "predicts": "'x0'", "time": "'sigma'"}
    told["shape"] = "(net.img_channels, net.img_resolution, net.img_resolution)"
    if labels is None:
        return told
    classes = labels.shape[1]
    one_hot = f"torch.nn.functional.one_hot(labels, {classes}).to(x)"
    return {**told, "classes": str(classes), "call": f"lambda net, x, sigma, labels: net(x, sigma, {one_hot})"}


EDM = Family(
    "EDM",
    (r"^(model\.)?map_layer0\.weight$", r"^(model\.)?enc\.\d+x\d+_conv\.weight$", r"^(model\.)?dec\.\d+x\d+_"),
    lambda state: [
        "import json; from training.networks import EDMPrecond",
        "net = EDMPrecond(**json.load(open('OPTIONS.json')))  # its init_kwargs, saved beside the weights",
        "(net if any(key.startswith('model.') for key in state) else net.model).load_state_dict(state)",
    ],
    _edm_told,
    "A network-snapshot-*.pkl is a pickle and stays closed; the message about it says how its weights and options are taken out.",
)
AZULA = Family(
    "azula (a Denoiser)",
    (r"^backbone\.",),
    lambda state: [
        "from azula.denoise import KarrasDenoiser; from azula.noise import VPSchedule",
        "net = KarrasDenoiser(MyBackbone(...), VPSchedule())  # or SimpleDenoiser, and its schedule, as they were",
        "net.load_state_dict(state)",
    ],
    lambda state: {
        "schedule": "net.schedule",
        "predicts": "'x0'",
        "time": "'unit'",
        "call": "lambda net, x, t: net(x, t).mean",
    },
    "azula's networks are parts of a backbone that is the user's own, so no address builds it.",
)
