"""What is known of one code base's checkpoints."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError, explained
from consistency_lab.interop.states import State as Loaded

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """One code base.

    Attributes:
        name: as its users call it.
        marks: patterns; each is found in the name of a tensor of its networks.
        lines: lines of Python that make ``net`` with the tensors ``state`` in it; shapes tell what they can.
        told: the arguments of `wrap_module` that are right for it, as Python; ``shape`` and ``name`` are added.
        remark: a sentence on what the file does not say, and what is usual; empty for nothing.
        prefix: of the address that builds it; empty where its network's class is in no package that can be installed.
        options: what the address needs beside the file, as it is written: ``"size=32"``.
        opener: builds it: path of the file and options in, model out.
    """

    name: str
    marks: Sequence[str]
    lines: Callable[[State], Sequence[str]]
    told: Callable[[State], Mapping[str, str]]
    remark: str = ""
    prefix: str = ""
    options: str = ""
    opener: Callable[..., DiffusionModel] | None = field(default=None, compare=False)

    def knows(self, state: State) -> bool:
        """Whether the names are those of its networks."""
        return all(any(re.search(mark, name) for name in state) for mark in self.marks)

    def recipe(self, state: State, name: str) -> list[str]:
        """Lines of Python from ``state`` to ``model``."""
        told = {"shape": "(CHANNELS, HEIGHT, WIDTH)", **self.told(state), "name": repr(name)}
        arguments = ", ".join(f"{key}={value}" for key, value in told.items())
        return [*self.lines(state), f"model = cl.wrap_module(net, {arguments})"]


def package(name: str, family: str) -> ModuleType:
    """The package of that family. Raises `UserError` with how it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        project = name.partition(".")[0].replace("_", "-")
        raise UserError(
            f"a checkpoint of {family} is built from its own classes: pip install {project} ({error})."
        ) from error


def built(kind: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """The network of that class with those arguments. Raises `UserError` for what its code does not bear."""
    with explained(f"{kind.__name__} cannot be built so; check the options of the address"):
        return kind(**options)


def fill(net: nn.Module, state: State, what: str) -> nn.Module:
    """The network with those tensors, in eval mode.

    Raises:
        UserError: names or shapes that do not fit, with the first of them.
    """
    own = net.state_dict()
    wrong = [
        *(f"{key} is missing" for key in own if key not in state),
        *(f"{key} is not in the network" for key in state if key not in own),
        *(
            f"{key} is {tuple(state[key].shape)} and not {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"the tensors are not those of {what}: {wrong[0]}{more}; check the options of the address.")
    net.load_state_dict(dict(state))
    return net.eval().requires_grad_(False)


def facts_of(source: str, file: Path, state: Loaded) -> dict[str, str]:
    """The provenance of a model from a checkpoint."""
    return {"source": source, "file": file.name, "weights": "ema" if state.averaged else "raw"}


def count(state: State, pattern: str) -> int:
    """How many numbers stand in the place of the pattern's group: ``blocks.(\\d+).`` -> blocks, counted from 0."""
    found = [int(match[1]) for name in state if (match := re.match(pattern, name))]
    return max(found, default=-1) + 1


def need(options: Mapping[str, Any], address: str) -> None:
    """Raise `UserError` for an option that the file does not tell and that was not given."""
    if missing := [key for key, value in options.items() if value is None]:
        pattern = "&".join(f"{key}=..." for key in missing)
        raise UserError(f"the file does not say {', '.join(missing)}; write {address}?{pattern}.")
