"""Weights as safetensors, training state as tensors and plain Python: opening either runs no code of the file's.

A file is whole or absent (`atomic`), and a damaged one is reported in one sentence that names it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from consistency_lab.errors import StoreError
from consistency_lab.inputs import check_archive
from consistency_lab.store.atomic import atomic_write

_METADATA = "consistency_lab"


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write named tensors of any shape and a JSON object beside them, as one safetensors file.

    The format refuses tensors that share storage (tied weights, slices of one buffer): all but the first are copied.

    Raises:
        StoreError: ``path`` cannot be written.
    """
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    # "format" is what other readers of safetensors ask for.
    atomic_write(path, safetensors.torch.save(separate, {"format": "pt", _METADATA: json.dumps(dict(metadata))}))


def load_tensors(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON object of a safetensors file; the object is empty for a file of other origin.

    Raises:
        StoreError: the file is missing, truncated or no safetensors file.
    """
    with _reading(path, "safetensors file"), safetensors.safe_open(path, "pt", device=str(device)) as file:
        metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (it is no dict)


def check_tensors(path: str | os.PathLike[str]) -> None:
    """Raise `StoreError` if a safetensors file is missing, truncated or no safetensors file; reads its header and length only."""
    with _reading(path, "safetensors file"), safetensors.safe_open(path, "pt"):
        pass


def save_state(path: str | os.PathLike[str], state: object) -> None:
    """Write what a resumed run needs: tensors in nested dicts, lists and tuples, with numbers, texts and None.

    Raises:
        StoreError: ``path`` cannot be written, or the state holds something that could not be loaded again safely.
    """
    _check_loadable(state, "state")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getbuffer())


def load_state(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Any:
    """What `save_state` was given, its tensors on ``device``. Raises `StoreError` if the file is missing or damaged."""
    with _reading(path, "training state"):
        return torch.load(path, map_location=device, weights_only=True)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], what: str = "the checkpoint") -> None:
    """Copy weights into a module, all of them or none.

    Args:
        what: how a message calls the weights, their path for example.

    Raises:
        StoreError: the weights are another architecture's; names the first tensor that does not fit.
    """
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise _misfit(what, f"it lacks {name!r}")
        if tensors[name].shape != tensor.shape:
            raise _misfit(
                what, f"{name!r} is {tuple(tensors[name].shape)} there and {tuple(tensor.shape)} in this network"
            )
    for name in tensors:
        if name not in wanted:
            raise _misfit(what, f"it holds {name!r}, which this network lacks")
    module.load_state_dict(dict(tensors), strict=True)


def _misfit(what: str, why: str) -> StoreError:
    return StoreError(
        f"{what} is of another architecture: {why}; build the network with the options that it was trained with."
    )


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """What readers raise for a file that is missing or damaged, in one sentence."""
    check_archive(path)
    if not Path(path).is_file():
        raise StoreError(f"there is no file {path}; give the path of a checkpoint.")
    try:
        yield
    except StoreError:
        raise
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
    ) as error:
        raise StoreError(f"{path} is truncated or is not a {what}; remove it, or restore it from a copy.") from error


def _check_loadable(value: object, where: str) -> None:
    """Refuse now what ``weights_only=True`` would refuse at the resume. Exact types, since numpy's float is a float."""
    if type(value) in (dict, OrderedDict, defaultdict):
        assert isinstance(value, dict)
        for key, inner in value.items():
            _check_loadable(key, f"a key of {where}")
            _check_loadable(inner, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        for index, inner in enumerate(value):
            _check_loadable(inner, f"{where}[{index}]")
    elif not (isinstance(value, Tensor) or type(value) in (int, float, bool, str, type(None))):
        raise StoreError(
            f"{where} is a {type(value).__name__}, which cannot be saved; make it a tensor or a plain number."
        )
