"""Models that diffusers keeps in folders: its networks under our samplers, or its weights in our networks."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from consistency_lab.choices import Choice
from consistency_lab.devices import random_state, resolve_device
from consistency_lab.diffusion.denoiser import PREDICTIONS, NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError, naming
from consistency_lab.interop.layout import CONFIG, OURS, WEIGHTS, Layout, read_json, read_layout
from consistency_lab.interop.module import ModuleNetwork, Told, WrappedDenoiser, foreign_model
from consistency_lab.interop.schedules import TIMESTEPS, Scheduler, as_schedule, discrete_steps, read_scheduler
from consistency_lab.interop.sizes import check_size
from consistency_lab.interop.times import timestep_index
from consistency_lab.interop.units import OURS as OURS_RANGE
from consistency_lab.networks.blocks import ImageNetwork
from consistency_lab.networks.diffusers_keys import choice_from_diffusers, from_diffusers_state
from consistency_lab.networks.registry import build_network
from consistency_lab.networks.unet import UNet
from consistency_lab.store.checkpoint import load_tensors, load_weights

# Checkpoints of the DiT paper call their class Transformer2DModel.
_CLASSES = {
    "UNet2DModel": "UNet2DModel",
    "DiTTransformer2DModel": "DiTTransformer2DModel",
    "Transformer2DModel": "DiTTransformer2DModel",
}


def load_diffusers(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    name: str | None = None,
    schedule: str | Schedule | None = None,
    predicts: str | None = None,
    value_range: tuple[float, float] = OURS_RANGE,
) -> DiffusionModel:
    """A model from a local folder of diffusers: their network and weights, our samplers.

    Read are a ``UNet2DModel`` folder with its scheduler beside it (``scheduler_config.json``), and pipelines with a
    ``unet/`` of that class or a ``transformer/`` of the class ``DiTTransformer2DModel``. Timestep i = 0 ... T-1 is the
    time t = (i + 1) / T. A network that also predicts a variance has it dropped. Where the pipeline has an autoencoder,
    the model makes latents: they can be compared, and are not decoded. What the scheduler says of clipping is recorded
    and not applied, since clipping makes models more alike than they are; for that, sample with ``Sampler(clip=True)``.
    Folders that `export_diffusers` wrote for networks that diffusers does not have are read too.

    Args:
        path: the folder.
        device: where to put it; by default a GPU where there is one.
        name: how tables call it; the folder's name by default.
        schedule, predicts: for a folder without a scheduler, or to overrule it.
        value_range: the values of black and white that the network was trained on; diffusers' own scripts train on (-1, 1).

    Raises:
        UserError: diffusers is not installed, a part is missing, the weights are pickled, or the network or scheduler
            cannot be used here.
        StoreError: weights that are truncated.
    """
    layout = read_layout(path)
    scheduler = _scheduler(layout, schedule, predicts)
    if not layout.kind.startswith(OURS):
        module = _pretrained(layout)
        with naming(layout.weights.parent / CONFIG):
            network = _wrapped(module, layout, scheduler.timesteps)
        return _model(network, layout, scheduler, device, name, value_range)
    if value_range != OURS_RANGE:
        raise UserError(f"{layout.root} holds a network that was trained here, on [-1, 1]; leave value_range out.")
    return _model(_own_network(layout), layout, scheduler, device, name)


def import_diffusers(
    path: str | os.PathLike[str], *, device: str | torch.device | None = None, name: str | None = None
) -> DiffusionModel:
    """The same folder, its weights bit for bit in a network of ours: the inverse of `export_diffusers`.

    diffusers need not be installed.

    Raises:
        UserError: a part that is missing, or a network that ours cannot represent.
        StoreError: weights that are truncated or belong to another architecture.
    """
    layout = read_layout(path)
    scheduler = _scheduler(layout, None, None)
    if scheduler.timesteps != TIMESTEPS:
        raise UserError(
            f"{layout.root} was trained with {scheduler.timesteps} timesteps and the networks here count {TIMESTEPS}; "
            "load it with diffusers' own network, by load_diffusers."
        )
    return _model(_own_network(layout), layout, scheduler, device, name)


def _own_network(layout: Layout) -> ImageNetwork:
    check_size(layout)
    tensors, _ = load_tensors(layout.weights)
    with naming(layout.weights.parent / CONFIG):
        network, tensors = _configured(layout, tensors)
    load_weights(network, tensors, str(layout.weights))
    return network


def _configured(layout: Layout, tensors: dict[str, Tensor]) -> tuple[ImageNetwork, dict[str, Tensor]]:
    """The network that the configuration describes, with new weights, and the tensors under its names."""
    config = layout.config
    if layout.kind.startswith(OURS):
        try:
            choice, shape, classes = config["network"], tuple(config["shape"]), config["classes"]
        except KeyError as error:
            raise UserError(f"the config.json of {layout.root} lacks {error}; export the model again.") from None
        network = build_network(choice, shape, classes)
    elif layout.kind == "UNet2DModel":
        built, shape, classes = choice_from_diffusers(config, null_label=bool(config.get("_null_label", False)))
        network = build_network(built, shape, classes)
        assert isinstance(network, UNet)  # the choice of the line above names no other
        tensors = from_diffusers_state(network, tensors)
    else:
        raise UserError(
            f"{layout.root} holds a {layout.kind}, which no network here can represent; read it with load_diffusers."
        )
    return network, tensors


def _scheduler(layout: Layout, schedule: str | Choice | Schedule | None, predicts: str | None) -> Scheduler:
    if predicts is not None:
        PREDICTIONS.build(predicts)  # a misspelt one is refused before weights are read
    known = None if schedule is None else as_schedule(schedule)
    if known is not None and predicts is not None:
        return Scheduler(known, predicts, discrete_steps(known), {"scheduler": "given by the caller"})
    if layout.scheduler is None:
        raise UserError(
            f"{layout.root} has no scheduler_config.json, so its noise schedule and prediction are not known; put it "
            "there, or give both, such as schedule='linear' and predicts='eps' for DDPM's."
        )
    with naming(layout.scheduler):
        read = read_scheduler(read_json(layout.scheduler), layout.scheduler)
    if known is not None:
        return replace(read, schedule=known, timesteps=discrete_steps(known))
    return read if predicts is None else replace(read, predicts=predicts)


def require_diffusers() -> ModuleType:
    """The package. Raises `UserError` where it is not installed."""
    try:
        import diffusers
    except ImportError:
        what_to_do = "pip install diffusers"
        raise UserError(f"diffusers is not installed; {what_to_do}.") from None
    return diffusers


def _pretrained(layout: Layout) -> nn.Module:
    """diffusers' own network with its weights, all of them and no others, in float32 on the CPU."""
    if layout.kind not in _CLASSES:
        raise UserError(
            f"{layout.root} holds a {layout.kind}, which may need more than a noisy image, a time and a label; load "
            f"one of {', '.join(sorted(_CLASSES))}, or give the network to wrap_module."
        )
    diffusers = require_diffusers()
    check_size(layout)  # a truncated file, too, is named before diffusers sees it
    options = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
    verbosity = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()  # what it would warn of is an error below
    try:
        with random_state():  # it draws initial weights before it reads the file
            kind = getattr(diffusers, _CLASSES[layout.kind])
            folder = layout.weights.parent
            module, found = kind.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True, **options)
    except Exception as error:  # of a damaged configuration diffusers raises whatever it trips over
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(
            f"diffusers cannot build the network of {layout.root} from its config.json and {WEIGHTS}: {reason}"
        ) from error
    finally:
        diffusers.logging.set_verbosity(verbosity)
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if found[problem]:
            first = f"{problem.replace('_', ' ')}: {sorted(map(str, found[problem]))[0]}"
            raise UserError(
                f"the weights of {layout.root} do not fit its config.json ({first}); restore both from one source."
            )
    return module.eval()


def _wrapped(module: nn.Module, layout: Layout, timesteps: int) -> ModuleNetwork:
    config: Any = module.config
    size = config.sample_size
    if size is None:
        raise UserError(
            f"the config.json of {layout.root} leaves sample_size open; write the size of the images there."
        )
    height, width = (size, size) if isinstance(size, int) else size
    for key, usual in (("time_embedding_type", "positional"), ("class_embed_type", None)):
        if config.get(key, usual) != usual:
            raise UserError(
                f"the network of {layout.root} has {key}={config[key]!r} and takes other times or labels than timesteps "
                "and class numbers; load it with diffusers and give it to wrap_module."
            )
    channels, out = config.in_channels, config.out_channels or config.in_channels
    if out not in (channels, 2 * channels):
        raise UserError(
            f"the network of {layout.root} takes {channels} channels and gives {out}; only as many or, with a "
            "variance, twice as many can be used."
        )
    classes, null_label = _labels(config)
    time_map = partial(timestep_index, steps=timesteps)
    options: dict[str, Any] = {"classes": classes, "null_label": null_label, "learned_variance": out == 2 * channels}
    return ModuleNetwork(module, (channels, height, width), time_map, **options)


def _labels(config: Any) -> tuple[int, int | None]:
    """The number of labels, and the one that means "no label"."""
    if "num_embeds_ada_norm" in config:  # DiT, which was trained for guidance: its embedding has one row more
        return config.num_embeds_ada_norm, config.num_embeds_ada_norm
    rows = config.num_class_embeds or 0
    return (rows - 1, rows - 1) if rows and config.get("_null_label") else (rows, None)


def _model(
    network: ImageNetwork,
    layout: Layout,
    scheduler: Scheduler,
    device: str | torch.device | None,
    name: str | None,
    value_range: tuple[float, float] = OURS_RANGE,
) -> DiffusionModel:
    facts = {
        "source": "diffusers",
        "class": layout.kind,
        "makes": "latents, not decoded" if layout.latents else "images",
        "weights_sha256": layout.fingerprint,
        **scheduler.facts,
    }
    if "network" in layout.config:
        facts["choice"] = layout.config["network"]
    if exported := load_tensors(layout.weights)[1].get("exported"):
        facts["exported"] = exported
    network = network.to(resolve_device(device))
    denoiser: NetworkDenoiser
    if isinstance(network, ModuleNetwork):
        usual = scheduler.timesteps == discrete_steps(scheduler.schedule)
        time = "index" if usual else partial(timestep_index, steps=scheduler.timesteps)
        told = Told(scheduler.schedule, scheduler.predicts, time, value_range, rescaled=True)
        denoiser = WrappedDenoiser(network, told)
        network = denoiser.network
    else:
        denoiser = NetworkDenoiser(network, scheduler.schedule, network.shape, scheduler.predicts)
    return foreign_model(denoiser, network, name or layout.root.resolve().name, facts)
