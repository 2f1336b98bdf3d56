"""Foreign models by one line of text: ``"diffusers:DIR"``, ``"torchscript:FILE?schedule=linear&predicts=eps&..."``, ``"images:DIR"``."""

from __future__ import annotations

import ast
import inspect
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from consistency_lab.choices import Choice, Registry
from consistency_lab.data.pictures import SUFFIXES as PICTURES
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.errors import UserError, nearest_path, unknown_name
from consistency_lab.interop.conventions import conventions
from consistency_lab.interop.families.registry import FAMILY_OPENERS
from consistency_lab.interop.files import SUFFIXES as WEIGHTS
from consistency_lab.interop.files import is_weights, refuse_weights
from consistency_lab.interop.pickles import is_pickle, refuse_pickle
from consistency_lab.interop.torchscript import load_torchscript
from consistency_lab.pipelines.contents import ARRAYS
from consistency_lab.pipelines.either import open_diffusers
from consistency_lab.pipelines.folders import load_folder_model
from consistency_lab.pipelines.recording_files import load_recording
from consistency_lab.trust import trusting
from consistency_lab.zoo import ZOO, open_zoo

_SHORT = {"range": "value_range"}  # what an address calls an option
_LONG = {option: short for short, option in _SHORT.items()}


def _refuse(path: str, *, name: str | None = None, device: str | torch.device | None = None) -> DiffusionModel:
    refuse_pickle(path)


OPENERS: Registry[GenerativeModel] = Registry(
    "kind of foreign model",
    {
        "diffusers": open_diffusers,
        "torchscript": load_torchscript,
        "edm": _refuse,
        "images": load_folder_model,
        "trajectory": load_recording,
        "zoo": open_zoo,
        **FAMILY_OPENERS,
    },
)


def is_foreign(text: str) -> bool:
    """Whether `open_foreign` is to be asked: the text begins with one of its prefixes, or names a file of weights or a pickle."""
    prefix, colon, _ = text.partition(":")
    return (bool(colon) and prefix in OPENERS.names()) or is_pickle(text) or is_weights(text)


def open_foreign(
    text: str, *, name: str | None = None, device: str | torch.device | None = None, trust: bool = False
) -> GenerativeModel:
    """A model that was not trained here.

    Args:
        text: ``PREFIX:PATH`` or ``PREFIX:PATH?option=value&option=value``. The prefixes are ``diffusers`` (a folder),
            ``torchscript`` (a file; it needs ``schedule``, ``predicts``, ``shape`` and ``time``), ``images`` (a folder of images, or
            an array of them), ``trajectory`` (a recording), ``zoo`` (the name of a model that ships with the package), and for
            checkpoints of other libraries ``ddpm-pytorch``, ``guided-diffusion``, ``k-diffusion``, ``smalldiffusion`` and ``torchcfm``;
            the options are those of `open_diffusers`, `load_torchscript`, `load_folder_model`, `load_recording` and so on;
            ``range=0,1`` is ``value_range``.
        name: how tables call it; an option ``name`` in the text comes first.
        device: where to put it; by default a GPU where there is one.
        trust: whether a file that is a program (TorchScript) may run. An address cannot say so.

    Raises:
        UserError: an unknown prefix or option, or what the loader raises. Pickles are refused with an explanation, and files of
            weights with what they hold and the lines that make a model of them.

    >>> model = open_foreign("torchscript:net.pt?schedule=edm&predicts=x0&time=sigma&shape=3,32,32", trust=True)
    """
    prefix, path, options = read_address(text)
    known = OPENERS.options(prefix)
    given = {key: value for key, value in (("name", name), ("device", device)) if key in known}
    with trusting(trust):
        return OPENERS.build(Choice(prefix, {**given, **options}), os.path.expanduser(path))


def refuse_path(text: str) -> None:
    """Say what is to be written for a path that stands where a model is named. Returns where nothing lies there.

    Raises:
        UserError: a folder of diffusers, of images, or of something else; an array file; files of weights that begin with that name.
    """
    path = Path(text).expanduser()
    if any((path / name).is_file() for name in ("model_index.json", "config.json")):
        raise UserError(f"{text} is a folder of diffusers; write diffusers:{text}")
    if path.is_file() and path.suffix.lower() in ARRAYS:
        raise UserError(f"{text} is a file of arrays; for the images in it write images:{text}")
    if path.is_dir() and text.strip():
        if any(Path(name).suffix.lower() in {*PICTURES, *ARRAYS} for _, _, files in os.walk(path) for name in files):
            raise UserError(f"{text} is a folder of images: write images:{text}")
        raise UserError(
            f"{text} is a folder, and neither a run of this package nor a folder of images (images:DIR) or of diffusers (diffusers:DIR); "
            "of a store of runs write --store DIR and the name of a run in it."
        )
    if beside := [f"{text}{suffix}" for suffix in WEIGHTS if text and Path(f"{path}{suffix}").is_file()]:
        raise UserError(
            f"no run is called {text!r}, but the file {beside[0]} lies there: write {beside[0]} to be told how it becomes a model."
        )


class Address(NamedTuple):
    """What an address says: ``PREFIX:PATH?option=value&option=value``."""

    prefix: str
    path: str
    options: dict[str, Any]

    @property
    def said(self) -> dict[str, Any]:
        """The options but the name, as an address writes them."""
        several = {key: ",".join(map(str, x)) if isinstance(x, tuple | list) else x for key, x in self.options.items()}
        return {_LONG.get(key, key): value for key, value in several.items() if key != "name"}

    def check_there(self) -> None:
        """Raise `UserError` if there is no such file, folder or model of the zoo. Nothing is opened."""
        if self.prefix == "zoo":
            ZOO.check(self.path)
        elif not (path := Path(self.path).expanduser()).exists():
            raise UserError(f"there is no file or folder {path}.{nearest_path(path)}")


def read_address(text: str) -> Address:
    """What that address says; nothing is opened. Raises `UserError` as `open_foreign` does for a text that nothing can be opened by."""
    prefix, colon, rest = text.partition(":")
    if prefix not in OPENERS.names() and is_pickle(text):
        refuse_pickle(text)
    if prefix not in OPENERS.names() and is_weights(text):
        refuse_weights(text)
    if not colon:
        raise UserError(
            f"{text!r} does not say what kind of model it is; write diffusers:{text} for a folder, or "
            f"torchscript:{text}?... for a file."
        )
    OPENERS.builder(prefix)  # an unknown one is refused by name
    path, options = _split(rest)
    if not path:
        raise UserError(f"{text!r} names no file or folder; write {prefix}:PATH.")
    known = OPENERS.options(prefix)
    if strange := [key for key in options if key not in known]:
        written = [_LONG.get(key, key) for key in known if key not in ("name", "device")]
        raise unknown_name(f"option of {prefix}", strange[0], written)
    needed = [key for key, default in known.items() if default is inspect.Parameter.empty]
    if missing := [key for key in needed if key not in options]:
        pattern = "&".join(f"{key}=..." for key in needed)
        known_values = f" ({conventions()})" if {"schedule", "predicts", "time"} & {*missing} else ""
        raise UserError(f"{text!r} does not give {', '.join(missing)}; write {prefix}:{path}?{pattern}{known_values}.")
    OPENERS.resolve(Choice(prefix, options))
    return Address(prefix, path, options)


def _split(text: str) -> tuple[str, dict[str, Any]]:
    """``"PATH?key=value&key=value"`` -> PATH and the options; values are Python literals where they can be read so."""
    path, mark, query = text.rpartition("?")
    if not mark:
        return text, {}
    options = {}
    for pair in query.split("&"):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UserError(f"cannot read the option {pair!r} of {path!r}; write ?option=value&option=value.")
        options[_SHORT.get(key, key)] = value if key == "name" else _value(value)
    return path, options


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return text
