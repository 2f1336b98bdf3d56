"""Files of weights that say no more than their tensors' names: what they hold, and how it becomes a model.

Only tensors are read (``weights_only``): a file that would run code when it is opened stays closed, and the error says so.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from consistency_lab.errors import UserError

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".th", ".safetensors")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_AVERAGE = re.compile(r"(^|[._])(ema|averaged?|avg|shadow)([._0-9]|$)|ema_model|model_ema", re.IGNORECASE)
_WRAPPERS = ("module.", "_orig_mod.", "ema_model.", "online_model.", "model.", "net.", "network.", "state_dict.")
_SHOWN = 3


class _Weights(NamedTuple):
    """Named tensors in a file.

    Attributes:
        keys: what leads to them: ``("ema",)`` for ``file["ema"]``.
        prefix: what all their names begin with: ``"module."``.
        tensors: under their full names.
        averaged: by their prefix where another network lies beside them, else by what leads to them too.
    """

    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    averaged: bool

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(self.tensors.items())[:_SHOWN])
        more = ", ..." if len(self.tensors) > _SHOWN else ""
        where = " under " + "".join(f"[{key!r}]" for key in self.keys) if self.keys else ""
        begins = f", names beginning with {self.prefix!r}" if self.prefix else ""
        kind = "averaged weights" if self.averaged else "weights"
        count = sum(tensor.numel() for tensor in self.tensors.values())
        return f"{kind}{where}{begins}: {len(self.tensors)} tensors, {count:,} numbers ({shapes}{more})"


def is_weights(text: str) -> bool:
    """Whether the text names a file of weights; the file need not exist."""
    return ":" not in text[2:] and Path(text).suffix.lower() in SUFFIXES


def is_hub_name(text: str) -> bool:
    """Whether the text looks like ``organisation/name`` of the Hugging Face Hub, and is no path that exists."""
    return bool(_HUB.fullmatch(text)) and not Path(text).exists()


def refuse_hub_name(text: str) -> NoReturn:
    """Say how a model gets here from the Hub. Raises `UserError` always; nothing is downloaded."""
    name = text.rpartition("/")[2]
    raise UserError(
        f"{text!r} is no run here and looks like a name on the Hugging Face Hub, from which nothing is downloaded; fetch its files once "
        f"(hf download {text} --local-dir {name}) and name the folder: diffusers:{name}"
    )


def refuse_weights(path: str | Path) -> NoReturn:
    """Say what a file of weights holds and how it becomes a model.

    Raises:
        UserError: always; with what is in the file, or why it was not opened, and the lines of Python to write.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(
            f"{file} is a folder; name a run by its name, or write diffusers:{file} for a folder of diffusers."
        )
    if not file.is_file():
        raise UserError(f"there is no file {file}; name a run of the store, diffusers:FOLDER or torchscript:FILE?...")
    if _is_torchscript(file):
        raise UserError(
            f"{file} is TorchScript, which does not say what it is: write torchscript:{file}?schedule=...&predicts=...&time=...&shape=C,H,W"
        )
    found = _weights_in(_opened(file))
    if not found:
        raise UserError(
            f"{file} holds no named tensors, so nothing to build a model from; name the file of its state_dict."
        )
    best = next((weights for weights in found if weights.averaged), found[0])
    held = "; ".join(map(str, found[:4])) + ("; ..." if len(found) > 4 else "")
    raise UserError(
        f"{file} holds {held}. Weights do not say what network they are of, nor how it was trained; build it, fill it and wrap it:"
        f"\n{recipe(file, best)}"
    )


def recipe(file: Path, weights: _Weights) -> str:
    """The lines of Python that make a model of those weights."""
    if file.suffix.lower() == ".safetensors":
        read = [f"from safetensors.torch import load_file; state = load_file({str(file)!r})"]
    else:
        steps = "".join(f"[{key!r}]" for key in weights.keys)
        read = [f"import torch; state = torch.load({str(file)!r}, map_location='cpu', weights_only=True){steps}"]
    if weights.prefix:
        strip = f"{{key.removeprefix({weights.prefix!r}): value for key, value in state.items() if key.startswith({weights.prefix!r})}}"
        read.append(f"state = {strip}")
    lines = [
        *read,
        "net = MyNetwork(...)  # the class that it was trained with",
        "net.load_state_dict(state)",
        "import consistency_lab as cl",
        f"model = cl.wrap_module(net, schedule=..., predicts=..., time=..., shape=..., name={file.stem!r})",
    ]
    return "\n".join(f"    {line}" for line in lines)


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _opened(file: Path) -> Any:
    """The content of a file, its tensors alone. Raises `UserError` for a file that holds more, or is damaged."""
    if file.suffix.lower() == ".safetensors":
        from consistency_lab.store.checkpoint import load_tensors

        return load_tensors(file)[0]
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(
            f"{file} holds Python objects{what} and not tensors alone, and opening it would run their code, so it stays closed; on a "
            "machine that you trust, where the code that wrote it is installed, save what is needed of it once: "
            "torch.save(torch.load(FILE, weights_only=False)['...'].state_dict(), NEW_FILE)"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{file} is truncated or is no file of torch.save; restore it from its source.") from error


def _weights_in(content: Any) -> list[_Weights]:
    """Every group of named tensors, averaged ones apart from the others that lie with them; the largest first."""
    groups = []
    for keys, tensors in _mappings(content, ()):
        split: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            split.setdefault(_wrapper(name), {})[name] = tensor
        several = len(split) > 1 and any(_AVERAGE.search(prefix) for prefix in split)
        for prefix, part in split.items() if several else [(_common(tensors), tensors)]:
            said = prefix if several else ".".join([*keys, prefix])
            groups.append(_Weights(keys, prefix, part, bool(_AVERAGE.search(said))))
    groups = [group for group in groups if any(tensor.ndim > 1 for tensor in group.tensors.values())]
    return sorted(groups, key=lambda group: -sum(tensor.numel() for tensor in group.tensors.values()))


def _mappings(content: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    if not isinstance(content, Mapping) or len(keys) > 4:
        return
    tensors = {
        str(name): value for name, value in content.items() if isinstance(value, Tensor) and isinstance(name, str)
    }
    if tensors:
        yield keys, tensors
    for name, value in content.items():
        if isinstance(name, str) and "optim" not in name.lower():
            yield from _mappings(value, (*keys, name))


def _wrapper(name: str) -> str:
    """The names of wrapping modules that a tensor's name begins with."""
    prefix = ""
    while part := next((w for w in _WRAPPERS if name.startswith(w, len(prefix))), ""):
        prefix += part
    return prefix


def _common(tensors: Mapping[str, Tensor]) -> str:
    """The wrapping that all names share."""
    prefixes = [_wrapper(name) for name in tensors]
    shortest = min(prefixes, key=len)
    return shortest if all(prefix.startswith(shortest) for prefix in prefixes) else ""
