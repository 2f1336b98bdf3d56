"""A pipeline of diffusers as it is: its scheduler and code, our noise. Each variant of it is a model to compare."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from consistency_lab.devices import measuring, resolve_device
from consistency_lab.diffusion.model import model_table
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError, explained, nearest_path
from consistency_lab.interop.diffusers import require_diffusers
from consistency_lab.pipelines.asking import BATCH, Asking, asked_for
from consistency_lab.pipelines.noise_levels import knows
from consistency_lab.pipelines.recorder import Recorder
from consistency_lab.pipelines.recording import RecordedImages, Recording, Space
from consistency_lab.pipelines.recording_files import load_recording, save_recording
from consistency_lab.pipelines.shared_draws import NoiseAskedFor, SharedDraws
from consistency_lab.pipelines.variants import Variant, check_folder, denoiser_of, opened
from consistency_lab.store.atomic import as_path, atomic_write, ensure_writable


@dataclass(frozen=True, eq=False, repr=False)
class PipelineModel:
    """A `GenerativeModel` that is a pipeline of diffusers; `load_pipeline` makes it.

    The pipeline is in memory only while it makes images: for a comparison it makes all of them before the next model is loaded, batch by
    batch, each kept as a `Recording` in a file. What is kept already is not made again.

    Attributes:
        name: how tables call it.
        folder: of the pipeline.
        variant, asking: how it is changed, and what it is asked for.
        space: what is compared: ``"pixels"`` or ``"latents"``.
        store: where batches are kept; a temporary folder that ends with the models where None was given.
        device: where it runs.
        facts: provenance for results.
    """

    name: str
    folder: Path
    variant: Variant
    asking: Asking
    space: Space
    store: Path
    device: torch.device
    facts: Mapping[str, Any] = field(default_factory=dict)
    holding: object = None

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(C, H, W) of its noise: that of a batch that it made, else the pipeline is loaded and asked."""
        if made := next(self.store.rglob("*.safetensors"), None):
            return load_recording(made).noise_shape
        noise, indices = SharedNoise(0), range(self.asking.batch)
        draws = SharedDraws(noise, indices, only_shape=True)
        with opened(self.folder, self.variant, self.device) as pipe, contextlib.suppress(NoiseAskedFor):
            self._called(pipe, draws)
        assert draws.shape is not None
        return draws.shape[1:] if len(draws.shape) == 4 and draws.shape[0] == 1 else draws.shape

    def made(self, noise: SharedNoise, indices: Sequence[int]) -> Recording | RecordedImages:
        """What it makes of those images, as a recording; batches that are not kept yet are made now, and the pipeline is released."""
        batch = self.asking.batch
        wanted = sorted({index // batch for index in indices})
        missing = [number for number in wanted if not self._file(noise, number).is_file()]
        if missing:
            with opened(self.folder, self.variant, self.device) as pipe:
                for number in missing:
                    self._make(pipe, noise, number)
        found = load_recording([self._file(noise, number) for number in wanted], name=self.name)
        assert isinstance(found, Recording)
        place = {number * batch + row: at * batch + row for at, number in enumerate(wanted) for row in range(batch)}
        facts = {**found.facts, **self.facts, "noise_seed": noise.seed, "space": self.space}
        for key in ("file", "sha256"):  # of the first batch alone
            facts.pop(key, None)
        found = replace(found.of([place[index] for index in indices]), facts=facts, holding=self)
        return found.pixels() if self.space == "pixels" else found

    def generate(self, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
        """Its final images (or latents) of those indices ``(N, C, H, W)`` float32 on the CPU; images lie in [-1, 1]."""
        made = self.made(noise, indices)
        return made.generate(noise, range(len(indices)))

    def _file(self, noise: SharedNoise, number: int) -> Path:
        return self.store / f"seed-{noise.seed}" / f"batch-{number:06d}.safetensors"

    def _make(self, pipe: Any, noise: SharedNoise, number: int) -> None:
        """Make and keep one batch."""
        batch = self.asking.batch
        indices = range(number * batch, (number + 1) * batch)
        scheduler = getattr(pipe, "scheduler", None)
        if scheduler is None or not knows(scheduler):
            raise UserError(
                f"the noise levels of {type(scheduler).__name__} are not known here, so the pipeline "
                "cannot be recorded; choose scheduler=..."
            )
        draws = SharedDraws(noise, indices)
        with Recorder(pipe, rows=batch) as recorder:
            recorder.add_images(_images(self._called(pipe, draws)))
            tensors = recorder.tensors()
        assert draws.shape is not None
        vae = getattr(pipe, "vae", None) or getattr(pipe, "vqvae", None)
        facts = {
            "class": type(pipe).__name__,
            "denoiser": type(denoiser_of(pipe)[1]).__name__,
            "scheduler": type(scheduler).__name__,
            "evaluations": len(tensors["t"]) - 1,
            "noise_draws": draws.draws,
            "vae": "none" if vae is None else type(vae).__name__,
        }
        tensors |= _unpacked(pipe, tensors, draws.shape)
        save_recording(self._file(noise, number), tensors, self.asking.said(indices), facts)

    def _called(self, pipe: Any, draws: SharedDraws) -> Any:
        """The pipeline's output for the images of those draws. Raises `UserError` for whatever it does not bear."""
        arguments = self.asking.arguments(pipe, draws.indices)
        if "generator" in inspect.signature(type(pipe).__call__).parameters:
            arguments["generator"] = draws.generators
        what = f"{type(pipe).__name__} cannot make images with these options ({self.name})"
        with torch.no_grad(), measuring(), draws, explained(what):
            return pipe(**arguments)

    def __repr__(self) -> str:
        return f"PipelineModel({self.name!r}, {self.facts.get('class')}, {self.variant.spec})"

    def _repr_html_(self) -> str:
        return model_table("Pipeline", self)


def load_pipeline(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    device: str | torch.device | None = None,
    space: Space = "pixels",
    prompts: str | os.PathLike[str] | Sequence[str] | None = None,
    labels: int | Sequence[int] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    size: int | Sequence[int] | None = None,
    call: Mapping[str, Any] | None = None,
    batch: int = BATCH,
    dtype: str = "float32",
    quantize: str | None = None,
    scheduler: str | None = None,
    lora: str | os.PathLike[str] | None = None,
    cache: str | None = None,
    compile: bool = False,
    offload: str | None = None,
    store: str | os.PathLike[str] | None = None,
) -> PipelineModel:
    """A pipeline of diffusers as it is: their scheduler and code, our shared noise, in one of its variants.

    Image i starts from noise i of the `SharedNoise`, in the shape that the pipeline asks for, and schedulers that add noise draw it from a
    generator of image i. Nothing is loaded until images are needed, and the pipeline is released when they are made.

    Args:
        path: a folder that a pipeline's ``save_pretrained`` made. Code of others and pickled weights are refused.
        name: how tables call it; by default the folder's name and what differs from the pipeline as it is.
        device: where it runs; by default a GPU where there is one.
        space: ``"pixels"``: final images are compared, decoded once by its own VAE; ``"latents"``: latents along t.
        prompts: a text file, one prompt a line, or the prompts: image i has prompt i mod their number.
        labels: classes, for pipelines that take these: image i has class i mod their number.
        steps, guidance, size: number of steps, guidance scale, and height and width in pixels; the pipeline's own by default.
        call: further arguments of the pipeline's call by name, such as ``{"eta": 0.5}``; what another option says is refused here.
        batch: images that are made together, always so many: image i is the same to the bit whatever number is asked for.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        quantize: of the denoiser: ``torchao:int8wo``, ``bitsandbytes:nf4``, ``layerwise:fp8``.
        scheduler: a class of diffusers that takes the place of its scheduler, such as ``EulerDiscrete``.
        lora: a folder or safetensors file.
        cache: ``firstblock:0.1``, ``pab`` or ``taylorseer``.
        compile: whether the denoiser is compiled.
        offload: ``model`` or ``sequential``.
        store: a folder in which what was made is kept, by a hash of weights, options, prompts and versions. A temporary one by default.

    Raises:
        UserError: diffusers or a package of a variant is not installed, no pipeline, code of others, pickled weights, or an option that
            the pipeline does not know, or that is said twice.
    """
    require_diffusers()
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; name one that a pipeline's save_pretrained made.{nearest_path(folder)}"
        )
    if space not in get_args(Space):
        raise UserError(f"space={space!r} is not known; write space='latents' or space='pixels'.")
    variant = Variant(
        dtype, quantize, scheduler, None if lora is None else os.fspath(lora), cache, bool(compile), offload
    )
    variant.check()
    index = check_folder(folder)
    asked = asked_for(prompts, labels, steps, guidance, size, call, batch)
    where = resolve_device(device)
    weights = _fingerprint(folder, variant)
    spec = {"weights": weights, "variant": variant.spec, "asking": asked.spec, "device": where.type} | {
        package: version(package) for package in ("torch", "diffusers")
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    holding = None
    if store is None:
        holding = tempfile.TemporaryDirectory(prefix="consistency-lab-")
        kept = Path(holding.name)
    else:
        ensure_writable(as_path(store).expanduser())
        kept = as_path(store).expanduser() / "pipelines" / f"{folder.resolve().name}-{digest[:12]}"
        atomic_write(kept / "spec.json", json.dumps(spec, indent=1, sort_keys=True))
    changes = [f"{key}={value}" for key, value in variant.spec.items() if (key, value) != ("dtype", "float32")]
    changes += asked.changes
    facts = {
        "kind": "pipeline",
        "source": "diffusers",
        "mode": "theirs",
        "class": index["_class_name"],
        "weights_sha256": weights,
        **variant.spec,
        **{key: value for key, value in asked.spec.items() if value not in (None, [], {})},
        "made": digest[:12],
    }
    label = name or " ".join([folder.resolve().name, *changes])
    return PipelineModel(label, folder, variant, asked, space, kept, where, facts, holding)


def _fingerprint(folder: Path, variant: Variant) -> str:
    """sha256 of all files of the pipeline and of its LoRA, and of their names."""
    total = hashlib.sha256()
    roots = [folder] + ([Path(variant.lora).expanduser()] if variant.lora else [])
    for root in roots:
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        for file in files:
            if any(part.startswith(".") for part in file.relative_to(root.parent).parts[1:]):
                continue
            with open(file, "rb") as content:
                own = hashlib.file_digest(content, "sha256").hexdigest()
            total.update(f"{file.relative_to(root.parent).as_posix().partition('/')[2]} {own}\n".encode())
    return total.hexdigest()


def _images(output: Any) -> Any:
    """The images of a pipeline's output."""
    for name in ("images", "frames"):
        if hasattr(output, name):
            return getattr(output, name)
    raise UserError(f"the pipeline gave a {type(output).__name__} without images.")


def _unpacked(pipe: Any, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Latents and x0 in the shape of the noise, where the pipeline packs 2x2 latents into one token (Flux and its like)."""
    latents = tensors["latents"]
    if latents.shape[2:] == shape or len(shape) not in (3, 4) or latents.ndim != 4:
        return {}
    channels, height, width = (shape[-3], shape[-2], shape[-1]) if len(shape) == 3 or shape[0] == 1 else (0, 0, 0)
    if tuple(latents.shape[2:]) != (height * width // 4, channels * 4):
        return {}
    found = {}
    for name in ("latents", "x0"):
        split = tensors[name].reshape(*latents.shape[:2], height // 2, width // 2, channels, 2, 2)
        found[name] = split.permute(0, 1, 4, 2, 5, 3, 6).reshape(*latents.shape[:2], channels, height, width)
    return found
