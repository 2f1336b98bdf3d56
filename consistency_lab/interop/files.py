"""Files of weights that say no more than their tensors' names: what they hold, and how it becomes a model."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import NoReturn

from consistency_lab.errors import UserError, nearest_path
from consistency_lab.inputs import check_file
from consistency_lab.interop.conventions import conventions
from consistency_lab.interop.families.registry import families_of, said_of
from consistency_lab.interop.states import best_of, opened, weights_in

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".th", ".safetensors")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


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
    check_file(file)
    if not file.is_file():
        raise UserError(
            f"there is no file {file}; name a run of the store, diffusers:FOLDER or torchscript:FILE?...{nearest_path(file)}"
        )
    if _is_torchscript(file):
        raise UserError(
            f"{file} is TorchScript, which does not say what it is: write "
            f"torchscript:{file}?schedule=...&predicts=...&time=...&shape=C,H,W ({conventions()})."
        )
    found = weights_in(opened(file))
    if not found:
        raise UserError(
            f"{file} holds no named tensors, so nothing to build a model from; name the file of its state_dict."
        )
    best = best_of(found)
    held = "; ".join(map(str, [best, *(x for x in found if x is not best)][:4])) + ("; ..." if len(found) > 4 else "")
    families = families_of(state := best.state())
    read = f"    import torch, consistency_lab as cl; state = cl.load_state({str(file)!r})"
    if not families:
        raise UserError(
            f"{file} holds {held}. Weights do not say what network they are of, nor how it was trained; build it, fill it and wrap it:"
            f"\n{read}\n{_UNKNOWN.format(name=file.stem, conventions=conventions())}"
        )
    ways = "\n".join(said_of(family, state, file) for family in families)
    lines = "" if all(family.prefix for family in families) else f" Lines of Python begin with\n{read}"
    several = "the same names in all of them; which it is you must know" if len(families) > 1 else "by its names"
    raise UserError(
        f"{file} holds {held}. This is {' or '.join(family.name for family in families)} ({several}).{lines}\n{ways}"
    )


_UNKNOWN = """    net = MyNetwork(...)  # the class that it was trained with
    net.load_state_dict(state)
    model = cl.wrap_module(net, schedule=..., predicts=..., time=..., shape=..., name={name!r})
    # {conventions}"""


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name for name in archive.namelist())
    except Exception:  # a damaged archive raises whatever its bytes happen to mean
        return False
