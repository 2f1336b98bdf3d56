"""Folders as diffusers lays them out: config.json beside the weights of a model, model_index.json above a pipeline."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consistency_lab.errors import StoreError, UserError, nearest_path
from consistency_lab.inputs import check_file
from consistency_lab.interop.pickles import is_pickle, refuse_pickle
from consistency_lab.json_text import parsed
from consistency_lab.store.atomic import cannot

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler_config.json"
OURS = "consistency_lab."  # how the class names of networks begin that diffusers does not have
_INDEX = "model_index.json"
_PARTS = ("unet", "transformer")
_AUTOENCODERS = ("vae", "vqvae")


@dataclass(frozen=True)
class Layout:
    """Where the parts of a model lie.

    Attributes:
        root: the folder that was named.
        config: the content of the network's config.json.
        weights: the safetensors file.
        scheduler: the scheduler's configuration file, where there is one.
        latents: the pipeline has an autoencoder: the network denoises latents, not images.
    """

    root: Path
    config: dict[str, Any]
    weights: Path
    scheduler: Path | None
    latents: bool

    @property
    def kind(self) -> str:
        """The class of the network."""
        return str(self.config.get("_class_name"))

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights file."""
        with open(self.weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_layout(path: str | os.PathLike[str]) -> Layout:
    """Find configuration, weights and scheduler in a local folder; nothing is downloaded and no weights are read yet.

    Raises:
        UserError: no such folder, a part that is missing or cannot be read, or weights that are kept as a pickle only.
    """
    root = Path(path)
    if is_pickle(root):
        refuse_pickle(root)
    if not root.is_dir():
        raise UserError(
            f"there is no folder {root}; name one that holds a diffusers config.json or model_index.json.{nearest_path(root)}"
        )
    refuse_code(root)
    folder, latents = root, False
    if (root / _INDEX).is_file():
        index = read_json(root / _INDEX)
        part = next((part for part in _PARTS if index.get(part)), None)
        if part is None:
            kind = index.get("_class_name")
            raise UserError(f"the {kind} in {root} has neither a unet nor a transformer; name a diffusion pipeline.")
        # Older pipelines of one network keep everything in one folder.
        folder = root / part if (root / part).is_dir() else root
        latents = any(index.get(name) for name in _AUTOENCODERS)
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} has no {CONFIG}; name a folder that diffusers' save_pretrained made.")
    places = [root / SCHEDULER, root / "scheduler" / SCHEDULER]
    if (root.parent / _INDEX).is_file():  # the network's folder inside a pipeline was named
        places.append(root.parent / "scheduler" / SCHEDULER)
    scheduler = next((place for place in places if place.is_file()), None)
    return Layout(root, read_json(folder / CONFIG), _weights(folder), scheduler, latents)


def _weights(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    others = sorted(
        file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".safetensors")
    )
    if not others:
        raise UserError(f"{folder} has no weights; {WEIGHTS} is missing.")
    if others[0].endswith(".safetensors"):
        raise UserError(
            f"{folder} has its weights as {others[0]}, in parts or in another precision; save it as one {WEIGHTS}."
        )
    raise UserError(
        f"{folder} has its weights as {others[0]} only, a pickle that may run code when it is opened, so it is not; on "
        "a machine that you trust load it with diffusers' from_pretrained and write it by save_pretrained(folder)."
    )


def refuse_code(folder: Path) -> None:
    """Raise `UserError` for a folder with code of its own: Python files, a class that comes from one, a module named for it.

    Such code is never run here, trusted or not; what diffusers and transformers have themselves can be loaded.
    """
    found = next((f"the file {code.relative_to(folder)}" for code in sorted(folder.rglob("*.py"))), None)
    for file in [] if found else sorted(folder.rglob("*.json")):
        if file.name in (_INDEX, CONFIG) and (found := _code_of(read_json(file))):
            found = f"{found} in {file.relative_to(folder)}"
            break
    if found:
        raise UserError(
            f"{folder} brings code of its own ({found}), and code of others is not run; remove it if the pipeline works without, or "
            "load it in Python, where you see what runs, and give its network to wrap_module."
        )


def _code_of(config: Mapping[str, Any]) -> str | None:
    """What a configuration says is to be run, if anything."""
    for key in ("custom_pipeline", "trust_remote_code", "auto_map"):
        if config.get(key):
            return f"{key}={config[key]!r}"
    kind = config.get("_class_name")
    return None if kind is None or isinstance(kind, str) else f"_class_name={kind!r}"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `UserError` naming the file if there is none."""
    check_file(path)
    try:
        content = parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read as a JSON object; restore it from its source.")
    return content


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; it becomes ``path`` when the block ends well, else it is removed.

    Raises:
        StoreError: ``path`` exists and is no empty folder, or cannot be written.
    """
    target = Path(path).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StoreError(f"{target} exists and is not an empty folder; choose another place, or remove it.")
    temporary = target.with_name(f".tmp-{secrets.token_hex(6)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.rmdir()
        os.replace(temporary, target)
    except OSError as error:
        raise cannot("write", target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
