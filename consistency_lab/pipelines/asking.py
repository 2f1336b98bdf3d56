"""What a pipeline of diffusers is asked for: the arguments of its call, each said in one place."""

from __future__ import annotations

import inspect
import json
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consistency_lab.choices import height_and_width, whole
from consistency_lab.errors import UserError, short
from consistency_lab.inputs import check_file

BATCH = 4
_OPTION = {
    "prompt": "prompts",
    "class_labels": "labels",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "height": "size",
    "width": "size",
    "batch_size": "batch",
}  # arguments of a call by the option that says them
_OURS = {
    "latents": "they are the shared noise",
    "generator": "it is made of the shared noise",
    "output_type": "images are always taken as tensors",
    "return_dict": "the output is read by name",
    "num_images_per_prompt": "every image has a noise of its own; give prompts",
}  # arguments that nobody else may say, and why
_OWN_STEPS = ("timesteps", "sigmas")  # beside which pipelines pass over the number of steps


@dataclass(frozen=True)
class Asking:
    """What a pipeline is asked for.

    Attributes:
        prompts: of image i the prompt i mod their number; none for a pipeline without text.
        labels: of image i the class i mod their number; none for one without classes.
        steps, guidance, size: None: what the pipeline takes by itself.
        call: further arguments of the call, by name.
        batch: images that are made together; bits hold for equal batches only.
    """

    prompts: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    steps: int | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    batch: int = BATCH

    def said(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        """Prompts and labels of those images, by what recordings call them."""
        found = {"prompts": self.prompts, "labels": self.labels}
        return {name: [each[i % len(each)] for i in indices] for name, each in found.items() if each}

    def arguments(self, pipe: Any, indices: Sequence[int]) -> dict[str, Any]:
        """Of a call that makes those images. Raises `UserError` where the pipeline needs or knows other ones."""
        kind, takes = type(pipe).__name__, inspect.signature(type(pipe).__call__).parameters
        said, found = self.said(indices), dict(self.call)
        for option, argument in (("prompts", "prompt"), ("labels", "class_labels")):
            if argument in takes and not said.get(option):
                what = "a text file of prompts: prompts=FILE" if option == "prompts" else "classes: labels=0,1,2"
                raise UserError(f"{kind} is asked by {argument}; give {what}.")
            if said.get(option):
                if argument not in takes:
                    raise UserError(f"{kind} takes no {argument}; leave {option} out.")
                found[argument] = said[option]
        if "class_labels" in takes:
            self._check_labels(pipe)
        if "prompt" not in takes and "class_labels" not in takes:
            if "batch_size" not in takes:
                raise UserError(
                    f"{kind} makes no images of a prompt, a class or noise alone; only such pipelines can be compared."
                )
            found["batch_size"] = len(indices)
        height, width = self.size or (None, None)
        options = {"num_inference_steps": self.steps, "guidance_scale": self.guidance, "height": height, "width": width}
        found |= {name: value for name, value in options.items() if value is not None}
        if unknown := [name for name in found if name not in takes]:
            raise UserError(f"{kind} takes no {unknown[0]}; leave it out.")
        return found | ({"output_type": "pt"} if "output_type" in takes else {})

    @property
    def spec(self) -> dict[str, Any]:
        """As JSON gives it back. Raises `UserError` for arguments that JSON cannot hold."""
        found = {**vars(self), "prompts": list(self.prompts), "labels": list(self.labels), "call": dict(self.call)}
        try:
            return dict(json.loads(json.dumps(found)))
        except (TypeError, ValueError) as error:
            raise UserError("call= takes numbers, texts and lists; others cannot be recorded.") from error

    @property
    def changes(self) -> list[str]:
        """What differs from a call as the pipeline makes it by itself, for a name; prompts and labels are the same in every comparison."""
        size = None if self.size is None else "x".join(map(str, self.size))
        told = {"steps": self.steps, "guidance": self.guidance, "size": size, **self.call}
        return [f"{key}={value}" for key, value in told.items() if value is not None]

    def _check_labels(self, pipe: Any) -> None:
        """Raise `UserError` for a label that the network has no embedding of: on a GPU it would end the process."""
        config = getattr(getattr(pipe, "transformer", None), "config", None)
        classes = getattr(config, "num_embeds_ada_norm", None) or math.inf
        if strange := [label for label in self.labels if label >= classes]:
            raise UserError(
                f"the label {strange[0]} was asked for, and {type(pipe).__name__} knows the labels 0 to {classes - 1}."
            )


def asked_for(
    prompts: str | os.PathLike[str] | Sequence[str] | None,
    labels: int | Sequence[int] | None,
    steps: int | None,
    guidance: float | None,
    size: int | Sequence[int] | None,
    call: Mapping[str, Any] | None,
    batch: int,
) -> Asking:
    """What `load_pipeline` was told, checked as far as it can be without the pipeline.

    Raises:
        UserError: a value that is none of its option, or an argument in ``call`` that an option says, or that is ours to say.
    """
    return Asking(
        _prompts(prompts),
        _labels(labels),
        None if steps is None else whole("steps", steps, 1),
        None if guidance is None else _scale(guidance),
        None if size is None else height_and_width(size),
        _call(call, steps),
        whole("batch", batch, 1),
    )


def _prompts(given: str | os.PathLike[str] | Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str | os.PathLike):
        check_file(Path(given).expanduser())
        try:
            given = Path(given).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the prompts {given}; give a text file with one prompt a line.") from error
    if not isinstance(given, Sequence) or not all(isinstance(line, str) for line in given):
        raise UserError(
            f"prompts={short(given)} is neither a text file nor a list of texts; give a text file with one prompt a line."
        )
    found = tuple(line.strip() for line in given if line.strip())
    if not found:
        raise UserError("there is no prompt; give a text file with one prompt a line.")
    return found


def _labels(given: int | Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    several = given if isinstance(given, Iterable) else [given]
    return tuple(whole("each label", label) for label in several)


def _scale(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, numbers.Real) or not 0 <= float(given) < math.inf:
        raise UserError(f"guidance is a number of 0 or more, not {short(given)}.")
    return float(given)


def _call(given: Mapping[str, Any] | None, steps: int | None) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise UserError(f"call={given!r} gives no arguments by name; write call={{'eta':0.5}}.")
    for name in given:
        if option := _OPTION.get(name):
            raise UserError(f"{name} is said by {option}=; leave it out of call=.")
        if why := _OURS.get(name):
            raise UserError(f"{name} cannot be given in call=: {why}.")
        if name in _OWN_STEPS and steps is not None:
            raise UserError(f"{name} in call= and steps= both say the steps; give one of them.")
    return dict(given)
