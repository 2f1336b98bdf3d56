"""A pipeline of diffusers from its folder, in one of its variants: precision, quantisation, scheduler, LoRA, cache, compiled, offloaded."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import inspect
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from consistency_lab.devices import random_state
from consistency_lab.errors import UserError, explained, nearest_path, unknown_name
from consistency_lab.interop.layout import read_json, refuse_code
from consistency_lab.interop.pickles import refuse_pickle
from consistency_lab.pipelines.noise_levels import reading

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TORCHAO = {
    "int8wo": "Int8WeightOnlyConfig",
    "int4wo": "Int4WeightOnlyConfig",
    "fp8wo": "Float8WeightOnlyConfig",
    "int8dq": "Int8DynamicActivationInt8WeightConfig",
}
_BITSANDBYTES: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
}
_LAYERWISE = {"fp8": "float8_e4m3fn", "fp8e5m2": "float8_e5m2"}
QUANTIZERS: dict[str, Any] = {"torchao": _TORCHAO, "bitsandbytes": _BITSANDBYTES, "layerwise": _LAYERWISE}
CACHES = ("firstblock", "pab", "taylorseer")  # FasterCache wants video latents
OFFLOADS = ("model", "sequential")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_WHERE = "model_index.json"


@dataclass(frozen=True)
class Variant:
    """What is done to a pipeline before it is called.

    Attributes:
        dtype: of the weights and of the computation.
        quantize: of the denoiser: ``torchao:int8wo``, ``bitsandbytes:nf4``, ``layerwise:fp8`` (`QUANTIZERS`).
        scheduler: the class that takes the place of its scheduler, with the same configuration; with or without the word Scheduler.
        lora: a folder or file of LoRA weights as safetensors.
        cache: ``firstblock:0.1``, ``pab``, ``taylorseer`` (`CACHES`), as diffusers' hooks have them.
        compile: whether the denoiser is compiled.
        offload: ``model`` or ``sequential``, to the CPU while it is not used.
    """

    dtype: str = "float32"
    quantize: str | None = None
    scheduler: str | None = None
    lora: str | None = None
    cache: str | None = None
    compile: bool = False
    offload: str | None = None

    def check(self) -> None:
        """Raise `UserError` for an unknown name, or a package that is missing."""
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", str(self.dtype), DTYPES)
        if self.quantize is not None:
            tool, _, kind = str(self.quantize).partition(":")
            if tool not in QUANTIZERS:
                raise unknown_name("quantiser", tool, QUANTIZERS)
            if kind not in QUANTIZERS[tool]:
                raise unknown_name(f"quantisation of {tool}", kind, QUANTIZERS[tool])
            if tool != "layerwise":
                require(tool, f"quantize={self.quantize}")
        if self.cache is not None:
            _cache_setting(str(self.cache))
        if self.offload is not None and self.offload not in OFFLOADS:
            raise unknown_name("offload", str(self.offload), OFFLOADS)
        if self.lora is not None:
            require("peft", f"lora={self.lora}")
            _check_weights(Path(self.lora).expanduser())
        if self.offload is not None:
            require("accelerate", f"offload={self.offload}")

    @property
    def spec(self) -> dict[str, Any]:
        """What differs from the pipeline as it is in float32; JSON."""
        plain = asdict(Variant())
        return {key: value for key, value in asdict(self).items() if value != plain[key] or key == "dtype"}


def require(package: str, wanted_by: str) -> None:
    """Raise `UserError` if a package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{wanted_by} needs the package {package}, which is not installed: pip install {package}")


def check_folder(folder: Path) -> dict[str, Any]:
    """The index of a pipeline's folder, after a look at what it would load: classes of diffusers and transformers alone, from safetensors.

    Raises:
        UserError: no pipeline, code of its own, or pickled weights.
    """
    if not (folder / _WHERE).is_file():
        raise UserError(f"{folder} has no {_WHERE}; name a folder that a pipeline's save_pretrained made.")
    index = read_json(folder / _WHERE)
    refuse_code(folder)
    import diffusers

    kind = index.get("_class_name")
    known = getattr(diffusers, kind, None) if isinstance(kind, str) else None
    if not (isinstance(known, type) and issubclass(known, diffusers.DiffusionPipeline)):
        raise UserError(
            f"{folder} is of the pipeline {kind!r}, which diffusers {diffusers.__version__} does not have; code of others is not run."
        )
    for part, said in index.items():
        if part.startswith("_") or not isinstance(said, list) or len(said) != 2 or said[0] is None:
            continue
        if said[0] not in ("diffusers", "transformers") and not hasattr(diffusers.pipelines, str(said[0])):
            raise UserError(f"{folder} takes its {part} from {said[0]!r}: code of others is not run.")
        if said[0] == "transformers":
            require("transformers", f"the {part} of {folder}")
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        _check_weights(place)
    return index


def _check_weights(place: Path) -> None:
    """Raise `UserError` for weights that are there as a pickle alone."""
    if not place.exists():
        raise UserError(f"there is no file or folder {place}.{nearest_path(place)}")
    files = [place] if place.is_file() else sorted(place.iterdir())
    pickled = [file for file in files if file.suffix in _PICKLED]
    if pickled and not any(file.suffix == ".safetensors" for file in files):
        if place.is_file():
            refuse_pickle(place)
        raise UserError(
            f"{place} has its weights as {pickled[0].name} only, a pickle that may run code when it is opened, so it is not; on a machine "
            "that you trust load it with diffusers' from_pretrained and write it by save_pretrained(folder)."
        )


@contextlib.contextmanager
def opened(folder: Path, variant: Variant, device: torch.device) -> Iterator[Any]:
    """The pipeline, in memory for as long as the block runs.

    Raises:
        UserError: it cannot be built, or not in that variant.
    """
    index = check_folder(folder)
    pipe = None
    try:
        pipe = _built(folder, index, variant)
        with explained(f"the pipeline of {folder} cannot be changed so"):
            _changed(pipe, variant, device)
        yield pipe
    finally:
        if pipe is not None and variant.offload is not None:
            pipe.remove_all_hooks()
        del pipe
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def denoiser_of(pipe: Any) -> tuple[str, Any]:
    """The network that is asked at every step, and its name in the pipeline."""
    for name in ("transformer", "unet"):
        if getattr(pipe, name, None) is not None:
            return name, getattr(pipe, name)
    raise UserError(f"a {type(pipe).__name__} has neither a transformer nor a unet, so no denoiser to change.")


def _built(folder: Path, index: dict[str, Any], variant: Variant) -> Any:
    import diffusers

    options: dict[str, Any] = {"torch_dtype": DTYPES[variant.dtype], "use_safetensors": True, "local_files_only": True}
    if "safety_checker" in index:  # it would blacken images, and black images are alike
        options |= {"safety_checker": None, "requires_safety_checker": False}
    takes = inspect.signature(getattr(diffusers, index["_class_name"]).__init__).parameters.values()
    # A part that was left out (the third text encoder of SD3) is null in the index, and asked for all the same.
    absent = [
        name
        for name in (each.name for each in takes if each.default is each.empty)
        if not (index.get(name) or [None])[0]
    ]
    options |= {name: None for name in absent if name != "self"}
    if config := _quantization(variant, index):
        options["quantization_config"] = config
    with explained(f"diffusers cannot build the pipeline of {folder}"), random_state(), _quiet():
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _quantization(variant: Variant, index: dict[str, Any]) -> Any:
    tool, _, kind = (variant.quantize or "").partition(":")
    part = "transformer" if index.get("transformer") else "unet"
    import diffusers

    config: Any
    if tool == "torchao":
        import torchao.quantization

        config = diffusers.TorchAoConfig(getattr(torchao.quantization, _TORCHAO[kind])())
    elif tool == "bitsandbytes":
        own = dict(_BITSANDBYTES[kind])
        if "load_in_4bit" in own:
            own["bnb_4bit_compute_dtype"] = DTYPES[variant.dtype]
        config = diffusers.BitsAndBytesConfig(**own)
    else:
        return None
    return diffusers.PipelineQuantizationConfig(quant_mapping={part: config})


def _changed(pipe: Any, variant: Variant, device: torch.device) -> None:
    """Everything but precision and quantisation, which are had in building it."""
    if variant.scheduler is not None:
        pipe.scheduler = _scheduler(pipe.scheduler, variant.scheduler)
    if variant.lora is not None:
        path = Path(variant.lora).expanduser()
        where, named = (path.parent, {"weight_name": path.name}) if path.is_file() else (path, {})
        with explained(f"the LoRA {path} does not fit"):
            with _quiet():
                pipe.load_lora_weights(where, local_files_only=True, use_safetensors=True, **named)
            if not pipe.get_active_adapters():
                raise UserError(f"the LoRA {path} holds no weights for a {type(pipe).__name__}; name another one.")
    name, denoiser = denoiser_of(pipe)
    denoiser.eval()
    if (variant.quantize or "").startswith("layerwise:"):
        storage = getattr(torch, _LAYERWISE[str(variant.quantize).partition(":")[2]])
        denoiser.enable_layerwise_casting(storage_dtype=storage, compute_dtype=DTYPES[variant.dtype])
    if variant.cache is not None:
        _cache(pipe, name, denoiser, str(variant.cache))
    if variant.offload is not None:
        if device.type == "cpu":
            raise UserError(
                f"offload={variant.offload} moves weights between the CPU and an accelerator, and the device is the CPU; leave it out."
            )
        move = pipe.enable_model_cpu_offload if variant.offload == "model" else pipe.enable_sequential_cpu_offload
        move(device=device)
    else:
        pipe.to(device)
    if variant.compile:
        denoiser.compile()


def _scheduler(current: Any, name: str) -> Any:
    import diffusers

    kind = getattr(diffusers, name if name.endswith("Scheduler") else f"{name}Scheduler", None)
    if kind is None:
        known = [each for each in dir(diffusers) if each.endswith("Scheduler") and not each.startswith("Flax")]
        raise unknown_name("scheduler", name, known)
    with explained(f"the scheduler {name} cannot take the place of {type(current).__name__}"):
        made = kind.from_config(current.config)
    if reading(made) != reading(current):
        raise UserError(
            f"{kind.__name__} is for networks of {reading(made)} and {type(current).__name__} for those of {reading(current)}, so that the "
            "network would be asked wrongly; choose another scheduler."
        )
    return made


def _cache_setting(text: str) -> tuple[str, Any]:
    """The kind of cache and its number, None where it has its default. Raises `UserError` for an unknown kind or no such number."""
    kind, colon, value = text.partition(":")
    if kind not in CACHES:
        raise unknown_name("cache", kind, CACHES)
    if not colon:
        return kind, None
    try:
        number = float(value) if kind == "firstblock" else int(value)
    except ValueError:
        number = math.nan
    if not (0 if kind == "firstblock" else 1) <= number < math.inf:
        least = "a threshold of 0 or more" if kind == "firstblock" else "a whole number of steps of 1 or more"
        raise UserError(f"cache={text}: {kind} takes {least}, not {value!r}.")
    return kind, number


def _cache(pipe: Any, name: str, denoiser: Any, text: str) -> None:
    import diffusers

    kind, value = _cache_setting(text)
    if not hasattr(denoiser, "enable_cache"):
        raise UserError(
            f"cache={text}: the {name} of {type(pipe).__name__} ({type(denoiser).__name__}) has no caches in diffusers; leave it out."
        )
    timestep = {"current_timestep_callback": lambda: pipe.current_timestep}
    makers: dict[str, Any] = {
        "firstblock": lambda: diffusers.FirstBlockCacheConfig(**({} if value is None else {"threshold": value})),
        "pab": lambda: diffusers.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=value or 2, **timestep
        ),
        "taylorseer": lambda: diffusers.TaylorSeerCacheConfig(**({} if value is None else {"cache_interval": value})),
    }
    with explained(f"cache={text} cannot be used with {type(denoiser).__name__}"):
        denoiser.enable_cache(makers[kind]())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and remarks."""
    import diffusers

    loggers: list[Any] = [diffusers.utils.logging]
    if importlib.util.find_spec("transformers"):
        loggers.append(importlib.import_module("transformers.utils.logging"))
    before = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
        logger.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of arguments that 1.0 will call otherwise
            yield
    finally:
        for logger, verbosity in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            logger.enable_progress_bar()
