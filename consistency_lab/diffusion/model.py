"""A denoiser with a name: what training returns, what is compared and what is probed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from consistency_lab.devices import measuring, plain_defaults, resolve_device, sent, while_running
from consistency_lab.diffusion.denoiser import Denoiser, GuidedDenoiser
from consistency_lab.diffusion.noise import SharedNoise, check_noise
from consistency_lab.diffusion.sampling import Sampler, SamplerStep, sample_path, start_state
from consistency_lab.errors import UserError, short
from consistency_lab.markup import fact_rows, table

CHUNK = 256  # images that are computed together; images agree bit for bit for equal chunks, and to rounding for others


class GenerativeModel(Protocol):
    """What any model must offer to be compared under shared noise.

    Models whose ``noise_shape`` differs cannot be given the same noise.
    """

    @property
    def name(self) -> str: ...

    @property
    def noise_shape(self) -> tuple[int, ...]: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def generate(self, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
        """The images of those indices, float32 ``(N, C, H, W)`` on the CPU."""
        ...


@runtime_checkable
class RecordedWalk(GenerativeModel, Protocol):
    """A generative model that brings its own estimates, along noise levels that are known: a recorded trajectory.

    Two of them can be compared along the levels that both have; nothing is computed between levels.
    """

    @property
    def t(self) -> Tensor:
        """Its times, decreasing to 0 ``(T,)`` float64; 1 is noise."""
        ...

    @property
    def log_snr(self) -> Tensor:
        """The noise level of each, increasing; infinite where it is data ``(T,)`` float64."""
        ...

    @property
    def quantities(self) -> tuple[str, ...]:
        """What it holds at every level: ``"latents"``, and ``"x0"`` if it holds x0 estimates."""
        ...

    def estimates(self, indices: Sequence[int], levels: Sequence[int], quantity: str) -> Tensor:
        """One of these of those samples at those levels (as places in ``t``), float32 ``(T, N, C, H, W)`` on the CPU."""
        ...


@runtime_checkable
class MadeBefore(GenerativeModel, Protocol):
    """A generative model that makes all samples of a comparison before any is compared, so that it need not stay in memory."""

    def made(self, noise: SharedNoise, indices: Sequence[int]) -> GenerativeModel:
        """A model of the same name that holds what this one makes of those indices."""
        ...


def described(model: GenerativeModel) -> dict[str, Any]:
    """Name and facts of a model, for provenance; its spec has a place of its own there (`specs_of`)."""
    return {"name": model.name, **{key: value for key, value in model.facts.items() if key != "spec"}}


def specs_of(models: Sequence[GenerativeModel]) -> dict[str, Any]:
    """The specs of those models that were trained here, by name, for provenance: with them a result can be measured again."""
    return {model.name: model.facts["spec"] for model in models if "spec" in model.facts}


def model_table(title: str, model: GenerativeModel) -> str:
    """Name, noise shape and facts of a model as HTML, for notebooks."""
    rest = {key: value for key, value in described(model).items() if key != "name"}
    shape = "x".join(map(str, model.noise_shape))
    return table(f"{title} {model.name}", [("starts from noise of shape", shape), *fact_rows(rest)])


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A denoiser, and what is known of where it came from.

    Attributes:
        name: how tables and figures call it.
        denoiser: in eval mode, on the device on which it is to be used.
        facts: provenance for results: network, parameters, seeds, steps, which weights (``"ema"`` or ``"raw"``), ...
        sampler: how `generate` samples when it is not told, as a `Sampler` or in text.
        classes: number of labels of a class-conditional model, 0 for any other. Image i is generated with the label i mod classes unless
            it is told otherwise.
        folder: the run folder that it was loaded from; None where there is none.
    """

    name: str
    denoiser: Denoiser
    facts: Mapping[str, Any] = field(default_factory=dict)
    sampler: Sampler | str = field(default_factory=Sampler)
    classes: int = 0
    folder: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampler", Sampler.of(self.sampler))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images, and of the noise that they are made from."""
        return tuple(self.denoiser.shape)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        tensors = [*self.denoiser.parameters(), *self.denoiser.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    def to(self, device: str | torch.device) -> Self:
        """The model itself with its weights on another device, as torch modules do. Raises `UserError` if there is none of that name."""
        self.denoiser.to(resolve_device(device))
        return self

    def path(
        self,
        noise: SharedNoise,
        indices: Sequence[int],
        sampler: Sampler | str | None = None,
        times: Tensor | None = None,
        labels: Sequence[int] | None = None,
    ) -> Iterator[SamplerStep]:
        """Sample the images of those indices together, yielding every step (see `sample_path` and, for ``labels``, `labels`)."""
        return while_running(_sampling, self._steps(noise, indices, sampler, times, labels))

    def _steps(
        self,
        noise: SharedNoise,
        indices: Sequence[int],
        sampler: Sampler | str | None,
        times: Tensor | None,
        labels: Sequence[int] | None,
    ) -> Iterator[SamplerStep]:
        """The steps of `path`, to be taken under `_sampling`."""
        check_noise(noise)
        first = None if times is None else float(times[0])
        yield from sample_path(
            self.denoiser,
            start_state(self.denoiser, noise.initial(indices, self.noise_shape, self.device), first),
            self.sampler if sampler is None else sampler,
            times=times,
            path_noise=(noise, indices),
            cond=self.labels(indices, labels),
        )

    def labels(self, indices: Sequence[int], asked: Sequence[int] | None = None) -> Tensor | None:
        """The labels ``(N,)`` that the images of those indices are asked for with; None for an unconditional model.

        Args:
            indices: image numbers.
            asked: image i is generated with ``asked[i mod len(asked)]``; all labels in their order by default.
        """
        if not self.classes:
            return None
        turn = range(self.classes) if asked is None else asked
        asked_for = torch.tensor([turn[i % len(turn)] for i in indices], dtype=torch.int64, device="cpu")
        return sent(asked_for, self.device)

    def guided(self, guidance: float) -> DiffusionModel:
        """The model with classifier-free guidance of that scale (1: as trained). Raises `UserError` for a model without labels."""
        if not self.classes:
            raise UserError(f"{self.name!r} has no labels to be guided by; train it with conditional=True.")
        facts = {**self.facts, "guidance": guidance}
        return replace(
            self,
            name=f"{self.name}-cfg{guidance:g}",
            denoiser=GuidedDenoiser(self.denoiser, guidance).eval(),
            facts=facts,
        )

    def generate(
        self,
        noise: SharedNoise,
        indices: Sequence[int],
        sampler: Sampler | str | None = None,
        labels: Sequence[int] | None = None,
    ) -> Tensor:
        """The images of those indices ``(N, C, H, W)``, float32 on the CPU, computed `CHUNK` at a time; ``labels`` as in `labels`."""
        images = []
        with _sampling():
            for chunk in chunks(indices):
                for step in self._steps(noise, chunk, sampler, None, labels):
                    last = step
                images.append(last.x_t.float().cpu())
        return torch.cat(images)

    def __repr__(self) -> str:
        return f"DiffusionModel({self.name!r}, {'x'.join(map(str, self.noise_shape))}, {self.denoiser.schedule.spec})"

    def _repr_html_(self) -> str:
        return model_table("Diffusion model", self)


@contextmanager
def _sampling() -> Iterator[None]:
    """Measured, and whatever the caller has made torch's defaults."""
    with plain_defaults(), measuring():
        yield


def as_image_tensor(images: object, name: str) -> Tensor:
    """What a generator gave, float32 on the CPU: a tensor of any type on any device, or an array of numbers, of any shape.

    Raises:
        UserError: anything else.
    """
    if not isinstance(images, Tensor):
        array = np.asarray(images)
        if array.dtype.kind not in "buif":
            raise UserError(
                f"{name!r} made a {type(images).__name__} where images were expected; let it give a tensor or an array of numbers."
            )
        images = torch.from_numpy(array.astype(np.float32))
    return images.detach().to("cpu", torch.float32)


def images_of(model: GenerativeModel, noise: SharedNoise, indices: Sequence[int]) -> Tensor:
    """What any generative model makes of those indices, ``(N, C, H, W)`` float32 on the CPU.

    Raises:
        UserError: no images, or not as many.
    """
    images = as_image_tensor(model.generate(noise, indices), model.name)
    if images.ndim != 4 or len(images) != len(indices):
        raise UserError(
            f"{model.name!r} made {tuple(images.shape)} where {len(indices)} images (N, C, H, W) were expected; wrap_generator makes a "
            "model of a function from noise to images, in any order of axes that is declared."
        )
    return images


def check_generative(model: object) -> None:
    """Raise `UserError` for anything but a `GenerativeModel`, and say how to come by one."""
    # Looked up without being asked: the noise shape of a pipeline is known when the pipeline has been loaded.
    lacks = [name for name in ("name", "noise_shape", "generate") if inspect.getattr_static(model, name, None) is None]
    if not all(hasattr(model, name) for name in lacks):
        hint = f"load({model!r})" if isinstance(model, str) else "train(...), load(...) or wrap_module(...)"
        raise UserError(f"a {type(model).__name__} is no model; give what {hint} returns.")


def check_diffusion(model: object) -> None:
    """Raise `UserError` for anything but a `DiffusionModel`: other generative models have no noise levels to be asked about."""
    if not isinstance(model, DiffusionModel):
        check_generative(model)
        name = getattr(model, "name", "")
        raise UserError(
            f"{name!r} is no diffusion model and has no noise levels; only landscapes and the curvature of its networks can be "
            "probed (in Python: contrast_subject)."
        )


def chunks(indices: Sequence[int], size: int = CHUNK) -> Iterator[Sequence[int]]:
    """The indices in order, ``size`` at a time. Raises `UserError` for one index alone."""
    if not isinstance(indices, Sized):
        raise UserError(
            f"image indices are given as a list or range, not as {short(indices)}; write [{short(indices)}]."
        )
    for first in range(0, len(indices), size):
        yield indices[first : first + size]
