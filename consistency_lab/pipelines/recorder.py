"""Write down what a pipeline of diffusers does: latents and x0 estimates of every step, and its images."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from consistency_lab.errors import UserError
from consistency_lab.pipelines.noise_levels import Level, check_known, level_of, x0_of
from consistency_lab.pipelines.recording_files import flow_time, save_recording


@dataclass
class _Call:
    """One call of the pipeline: of every step the sample that went in, and the x0 that its network expected."""

    levels: list[Level] = field(default_factory=list)
    samples: list[Tensor] = field(default_factory=list)
    x0: list[Tensor] = field(default_factory=list)
    last: Tensor | None = None


class Recorder:
    """Records a pipeline of diffusers while it runs, on whatever machine.

    >>> recorder = Recorder(pipe)  # doctest: +SKIP
    >>> for batch in batches:  # doctest: +SKIP
    ...     images = pipe(batch, output_type="pt", callback_on_step_end=recorder).images
    ...     recorder.add_images(images)
    >>> recorder.save("reference.safetensors", prompts=prompts)  # doctest: +SKIP

    It listens to the pipeline's scheduler: of every step it keeps the latents that go in and the x0 estimate, and the latents that come
    out of the last one. Every call of the pipeline adds its samples. What is recorded equals the pipeline's own values to the bit.
    As ``callback_on_step_end`` it sees too what the pipeline does with latents after a step; pipelines without that argument are recorded
    all the same.

    Args:
        pipe: a pipeline with a scheduler, before it is called.
        rows: how many samples a call has; needed where a pipeline doubles its batch for guidance inside the scheduler (DiT), and all rows
            by default.

    Raises:
        UserError: no scheduler, or one whose noise levels are not known.
    """

    def __init__(self, pipe: Any, *, rows: int | None = None):
        scheduler = getattr(pipe, "scheduler", None)
        if scheduler is None or not hasattr(scheduler, "step"):
            raise UserError(f"a {type(pipe).__name__} has no scheduler to listen to; give a pipeline of diffusers.")
        check_known(scheduler)
        self.rows = rows
        self._scheduler = scheduler
        self._class = type(pipe).__name__
        self._calls: list[_Call] = []
        self._images: list[Tensor] = []
        self._listen()

    def __call__(self, pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """As ``callback_on_step_end``: the latents after a step as the pipeline goes on with them."""
        if "latents" in kwargs and self._calls and self._calls[-1].samples:
            self._calls[-1].last = self._kept(kwargs["latents"])
        return kwargs

    def add_images(self, images: Any) -> None:
        """Keep the images of the last call: a tensor (N, C, H, W) or array (N, H, W, C) in [0, 1], or PIL images."""
        self._images.append(as_pixels(images))

    def close(self) -> None:
        """Stop listening; the scheduler is as it was."""
        for name in ("step", "set_timesteps"):
            self._scheduler.__dict__.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def tensors(self) -> dict[str, Tensor]:
        """What a recording holds of all calls: ``latents`` and ``x0`` ``(step, sample, ...)``, ``t``, ``log_snr``, and ``images`` if any.

        Raises:
            UserError: no call was seen, or calls of other steps or shapes.
        """
        calls = [call for call in self._calls if call.samples]
        if not calls:
            raise UserError(
                f"the recorder has seen no step of {self._class}; make it before the call, after the scheduler was set."
            )
        first = calls[0]
        for call in calls[1:]:
            if call.levels != first.levels or call.samples[0].shape[1:] != first.samples[0].shape[1:]:
                raise UserError(
                    "the calls of the pipeline differ in steps, noise levels or shape; record each kind in a file of its own."
                )
        joined = [_joined(call) for call in calls]
        found = {
            "latents": torch.cat([latents for latents, _ in joined], 1),
            "x0": torch.cat([x0 for _, x0 in joined], 1),
        }
        alpha, sigma = (
            torch.tensor([getattr(each, name) for each in first.levels], dtype=torch.float64)
            for name in ("alpha", "sigma")
        )
        infinite, zero = torch.full((1,), torch.inf, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        log_snr = torch.cat([2 * (alpha.log() - sigma.log()), infinite])
        times = [each.t for each in first.levels if each.t is not None]
        whole = len(times) == len(first.levels)
        t = torch.cat([torch.tensor(times, dtype=torch.float64), zero]) if whole else flow_time(log_snr)
        found |= {"t": t, "log_snr": log_snr}
        if self._images:
            found["images"] = torch.cat(self._images)
        return found

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        names: Sequence[str] = (),
        prompts: Sequence[str] = (),
        labels: Sequence[int] = (),
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Write all calls as one recording, whole or not at all, and stop listening.

        Args:
            path: ends in .safetensors (types are kept) or .npz (float32).
            names, prompts, labels: one for each sample, in the order of the calls: recordings are paired by names where they have these.
            facts: more to be said in results; JSON types. ``noise_seed`` says that sample i was made from ``SharedNoise(noise_seed)``, i.

        Raises:
            UserError: no call was seen, calls that differ, or not as many names, prompts, labels or images as samples.
            StoreError: it cannot be written.
        """
        known = {"pipeline": self._class, "scheduler": type(self._scheduler).__name__}
        said = {"names": names, "prompts": prompts, "labels": labels}
        save_recording(path, self.tensors(), said, {**known, **(facts or {})})
        self.close()

    def _listen(self) -> None:
        scheduler = self._scheduler
        self.close()  # another recorder of the same pipeline hears no more
        step, set_timesteps = scheduler.step, scheduler.set_timesteps
        signature = inspect.signature(step)

        @functools.wraps(set_timesteps)
        def begun(*args: Any, **options: Any) -> Any:
            self._calls.append(_Call())
            return set_timesteps(*args, **options)

        @functools.wraps(step)
        def stepped(*args: Any, **options: Any) -> Any:
            given = signature.bind(*args, **options).arguments
            made = step(*args, **options)
            self._seen(given["model_output"], given["timestep"], given["sample"], made)
            return made

        scheduler.step, scheduler.set_timesteps = stepped, begun

    @torch.no_grad()
    def _seen(self, output: Tensor, timestep: Any, sample: Tensor, made: Any) -> None:
        scheduler = self._scheduler
        place = getattr(scheduler, "step_index", None)  # of the next step
        level = level_of(scheduler, timestep, None if place is None else place - 1)
        if not self._calls:
            self._calls.append(_Call())
        call = self._calls[-1]
        kept = slice(self.rows)
        call.levels.append(level)
        call.samples.append(self._kept(sample))
        call.x0.append(x0_of(scheduler, output[kept], sample[kept], level).cpu())
        call.last = self._kept(made[0] if isinstance(made, tuple) else made.prev_sample)

    def _kept(self, tensor: Tensor) -> Tensor:
        return tensor.detach()[: self.rows].to("cpu", copy=True)


def as_pixels(images: Any) -> Tensor:
    """The images of a pipeline's output as float32 ``(N, C, H, W)`` in [-1, 1]; a video's frames follow one another along the height.

    Raises:
        UserError: something else.
    """
    if isinstance(images, Sequence) and len(images) and not isinstance(images[0], Tensor):
        images = np.stack([np.asarray(image) for image in images])
    elif isinstance(images, Sequence) and len(images):
        images = torch.stack(list(images))
    if isinstance(images, Tensor):
        found = images.detach().to("cpu", torch.float32)
    elif isinstance(images, np.ndarray):
        array = images[..., None] if images.ndim == 3 else images
        scaled = array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)
        found = torch.from_numpy(scaled).movedim(-1, -3)
    else:
        raise UserError(f"a {type(images).__name__} is no images; give a pipeline's output.images.")
    if found.ndim == 5:  # (N, F, C, H, W)
        found = found.transpose(1, 2).flatten(2, 3)
    if found.ndim != 4:
        raise UserError(f"images of shape {tuple(found.shape)} are not (N, C, H, W); give a pipeline's output.images.")
    return (found * 2 - 1).contiguous()


def _joined(call: _Call) -> tuple[Tensor, Tensor]:
    """Latents and x0 ``(step + 1, sample, ...)`` of a call; after the last step both are the data."""
    assert call.last is not None
    return torch.stack([*call.samples, call.last]), torch.stack([*call.x0, call.last.float()])
