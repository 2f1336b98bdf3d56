"""The named tensors of a checkpoint, out of the wrappers that training puts around them.

Only tensors are read (``weights_only``): a file that would run code when it is opened stays closed, and the error says so.
"""

from __future__ import annotations

import argparse
import mmap
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch
from torch import Tensor

from consistency_lab.errors import UserError, nearest_path
from consistency_lab.inputs import check_archive

_AVERAGE = re.compile(r"(^|[._])(ema|averaged?|avg|shadow)([._0-9]|$)|ema_model|model_ema", re.IGNORECASE)
_WRAPPERS = (
    "module",
    "_orig_mod",
    "ema_model",
    "online_model",
    "model",
    "net",
    "network",
    "state_dict",
    "diffusion_model",
)
_OPTIMIZERS = re.compile(r"^opt$|optim|sched|scaler|^lr_", re.IGNORECASE)
_SHADOW = "shadow_params"
_STATISTICS = (
    "running_mean",
    "running_var",
    "num_batches_tracked",
)  # of batch norms: no parameters, so never in such a list
_SHOWN = 3


class State(dict[str, Tensor]):
    """One network's tensors by name, as its ``load_state_dict`` takes them; printed, it says what it is and what was dropped.

    Attributes:
        kept: where in the file they were.
        dropped: what else the file holds, one text each.
        beside: tensors that lay in the network's wrapper, by name: the ``betas`` of denoising-diffusion-pytorch's `GaussianDiffusion`.
        averaged: whether they are averages over training (EMA).
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        kept: str = "weights",
        dropped: tuple[str, ...] = (),
        beside: Mapping[str, Tensor] | None = None,
        averaged: bool = False,
    ):
        super().__init__(tensors)
        self.kept, self.dropped, self.beside, self.averaged = kept, dropped, dict(beside or {}), averaged

    def __str__(self) -> str:
        return f"{self.kept}; dropped: {', '.join(self.dropped) or 'nothing'}"

    __repr__ = __str__


class Weights(NamedTuple):
    """Named tensors in a file.

    Attributes:
        keys: what leads to them: ``("ema",)`` for ``file["ema"]``.
        prefix: what all their names begin with: ``"module."``.
        tensors: by name, without that.
        averaged: by their prefix where another network lies beside them, else by what leads to them too.
        beside: tensors of the wrapper that the prefix stands for: a schedule's buffers, or how often the average was updated.
    """

    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    averaged: bool
    beside: dict[str, Tensor]

    @property
    def where(self) -> str:
        """What they are, what leads to them, and with what their names begin."""
        under = " under " + "".join(f"[{key!r}]" for key in self.keys) if self.keys else ""
        begins = f", names beginning with {self.prefix!r}" if self.prefix else ""
        return f"{'averaged weights' if self.averaged else 'weights'}{under}{begins}"

    def state(self, dropped: tuple[str, ...] = ()) -> State:
        """They alone, for ``load_state_dict``."""
        return State(self.tensors, self.where, dropped, self.beside, self.averaged)

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def __str__(self) -> str:
        shapes = ", ".join(
            f"{self.prefix}{name} {tuple(tensor.shape)}" for name, tensor in list(self.tensors.items())[:_SHOWN]
        )
        more = ", ..." if len(self.tensors) > _SHOWN else ""
        return f"{self.where}: {len(self.tensors)} tensors, {self.size:,} numbers ({shapes}{more})"


def load_state(path: str | os.PathLike[str], *, ema: bool | str = True, prefix: str | None = None) -> State:
    """The tensors of one network from a checkpoint, without what training wrapped around them.

    Averaged weights are taken where there are any, optimizers and schedulers are dropped, and prefixes of wrapping modules (``module.``,
    ``_orig_mod.``, ``ema_model.``, ``model.``) are taken off the names. A list of averaged tensors without names (``shadow_params``, of
    score_sde and torch-ema) gets those of the network that lies beside it. Only tensors are read; no code in the file runs.

    Args:
        path: a file of ``torch.save`` or of safetensors.
        ema: True for averaged weights where there are any; False for the others; or what leads to the ones that are wanted,
            ``"model_ema"`` for ``file["model_ema"]``.
        prefix: what is taken off their names; by default the wrappers that all names share. ``""`` for nothing.

    Returns:
        a dict for ``load_state_dict``; printed, it says what was kept and what was dropped.

    Raises:
        UserError: no such file, one that holds more than tensors, none of the weights that are asked for, or averages that cannot be
            given names.

    >>> net.load_state_dict(cl.load_state("checkpoint.pt"))
    """
    file = Path(path).expanduser()
    content = opened(file)
    found = weights_in(content)
    if not found:
        raise UserError(f"{file} holds no named tensors; name the file of a state_dict.")
    if ema is True and not found[0].averaged and any(True for _ in _shadows(content, ())):
        raise UserError(
            f"{file} holds averages as a list without names ({_SHADOW}), which fits its network's shapes in no way or in several; "
            "copy them into the network with the code that wrote them, or take the others with ema=False."
        )
    chosen = _chosen(found, ema, file)
    others = tuple(weights.where for weights in found if weights is not chosen)
    top = chosen.keys[:1] if chosen.keys else ()
    seen = {weights.keys[0] for weights in found if weights.keys}
    rest = () if not chosen.keys else tuple(f"[{key!r}]" for key in content if key not in {*top, *seen})
    if prefix is not None:
        full = {f"{chosen.prefix}{name}": tensor for name, tensor in chosen.tensors.items()}
        tensors = {name.removeprefix(prefix): tensor for name, tensor in full.items() if name.startswith(prefix)}
        if not tensors:
            raise UserError(f"no name in {file} begins with {prefix!r}; the first is {next(iter(full))!r}.")
        chosen = chosen._replace(tensors=tensors)
    return chosen.state(others + rest)


def best_of(found: list[Weights]) -> Weights:
    """The averaged weights where there are any, else the largest."""
    return next((weights for weights in found if weights.averaged), found[0])


def _chosen(found: list[Weights], ema: bool | str, file: Path) -> Weights:
    if isinstance(ema, str):
        for weights in found:
            if ".".join(weights.keys) == ema:
                return weights
        there = ", ".join(".".join(weights.keys) or "the file itself" for weights in found)
        raise UserError(f"{file} holds no weights under {ema!r}; it holds some under {there}.")
    if ema:
        return best_of(found)
    plain = [weights for weights in found if not weights.averaged]
    if not plain:
        raise UserError(f"{file} holds averaged weights alone; read them with ema=True.")
    return plain[0]


def opened(file: Path) -> Any:
    """The content of a file, its tensors alone. Raises `UserError` for one that is not there, holds more, or is damaged."""
    check_archive(file)
    if not file.is_file():
        raise UserError(f"there is no file {file}; name a checkpoint.{nearest_path(file)}")
    if file.suffix.lower() == ".safetensors":
        from consistency_lab.store.checkpoint import load_tensors

        return load_tensors(file)[0]
    try:
        # DiT, SiT and flow_matching keep their command line with the weights; a Namespace holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            if zipfile.is_zipfile(file):
                return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            # Of the old format a length that was changed is asked for whole: a file in memory hands out no more than there is.
            with open(file, "rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as held:
                return torch.load(cast(IO[bytes], held), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(
            f"{file} holds Python objects{what} and not tensors alone, and opening it would run their code, so it stays closed; on a "
            "machine that you trust, where the code that wrote it is installed, save what is needed of it once: "
            "torch.save(torch.load(FILE, weights_only=False)['...'].state_dict(), NEW_FILE)"
        ) from error
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        raise UserError(f"{file} is truncated or is no file of torch.save; restore it from its source.") from error


def weights_in(content: Any) -> list[Weights]:
    """Every network's tensors, averaged ones apart from the others that lie with them; the largest first."""
    groups = []
    for keys, wrapped in _mappings(content, ()):
        outer, tensors, around = _unwrapped(wrapped)
        first = {name.partition(".")[0] for name in tensors if "." in name}
        several = len(first) > 1 and any(_AVERAGE.search(part) for part in first)
        for root in sorted(first) if several else [""]:
            begin = f"{root}." if root else ""
            part = {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}
            inner, own, beside = _unwrapped(part)
            prefix = f"{outer}{begin}{inner}"
            said = begin + inner if several else ".".join([*keys, prefix])
            groups.append(Weights(keys, prefix, own, bool(_AVERAGE.search(said)), {**around, **beside}))
    groups = [group for group in groups if any(tensor.ndim > 1 for tensor in group.tensors.values())]
    groups.sort(key=lambda group: -group.size)
    for keys, shadow in _shadows(content, ()):
        named = next((n for group in groups if (n := _named(shadow, group.tensors))), None)
        if named:
            groups.insert(0, Weights(keys, "", named, True, {}))
    return groups


def _mappings(content: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    if not isinstance(content, Mapping) or len(keys) > 4:
        return
    tensors = {
        str(name): value for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)
    }
    if tensors:
        yield keys, tensors
    for name, value in content.items():
        if isinstance(name, str) and not _OPTIMIZERS.search(name):
            yield from _mappings(value, (*keys, name))


def _unwrapped(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """The wrappers that all names share, the tensors without them, and those of the wrappers themselves."""
    prefix, beside = "", dict[str, Tensor]()
    while True:
        dotted = {name.partition(".")[0] for name in tensors if "." in name}
        rest = {name: tensor for name, tensor in tensors.items() if "." not in name}
        # What a wrapper keeps of its own: counters, or the tables of a schedule. Anything else is the network's.
        own = "betas" in rest or all(tensor.ndim == 0 for tensor in rest.values())
        name = dotted.pop() if len(dotted) == 1 else ""
        if not own or not (name in _WRAPPERS or _AVERAGE.search(name)):
            return prefix, tensors, beside
        wrapper = f"{name}."
        prefix, beside = prefix + wrapper, {**beside, **rest}
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items() if name.startswith(wrapper)}


def _shadows(content: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Tensor]]]:
    """Lists of averaged tensors without names, as torch-ema and score_sde keep them."""
    if not isinstance(content, Mapping) or len(keys) > 4:
        return
    for name, value in content.items():
        if name == _SHADOW and isinstance(value, list | tuple) and all(isinstance(x, Tensor) for x in value):
            yield (*keys, name), list(value)
        elif isinstance(name, str):
            yield from _shadows(value, (*keys, name))


def _named(shadow: list[Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The list under the names of that network: the parameters that were trained, in their order; the rest of it as it is.

    None unless the shapes allow exactly one way: what fits from the front must be what fits from the back.
    """
    names = [name for name in tensors if name.rpartition(".")[2] not in _STATISTICS]
    front = _fit(shadow, names, tensors)
    back = _fit(shadow[::-1], names[::-1], tensors)
    if front is None or back is None or front != back[::-1]:
        return None
    return {**tensors, **dict(zip(front, shadow, strict=True))}


def _fit(shadow: list[Tensor], names: list[str], tensors: Mapping[str, Tensor]) -> list[str] | None:
    left, taken = iter(names), []
    for tensor in shadow:
        name = next((name for name in left if tensors[name].shape == tensor.shape), None)
        if name is None:
            return None
        taken.append(name)
    return taken
