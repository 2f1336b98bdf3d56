"""Weights as safetensors, training state as tensors and plain Python: opening either runs no code of the file's.

A file is whole or absent (`atomic`) and carries its checksum (`checksums`); a damaged one is reported in one sentence that names it.
What lies in a run folder also says of which run it is, and under which name: weights that were put in the place of others are refused.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from consistency_lab.errors import DamagedError, StoreError, UserError
from consistency_lab.inputs import check_archive
from consistency_lab.json_text import parsed
from consistency_lab.store.atomic import as_path, is_file, unreadable
from consistency_lab.store.checksums import BLANK, CHANGED, sum_holds, write_summed
from consistency_lab.store.run import Run

STATE = "checkpoint.pt"  # what a training state is called in a run folder
_METADATA, _SUM = "consistency_lab", "consistency_lab_checksum"
_END = b"PK\5\6"  # begins the last 22 bytes of a zip archive
_AFTER = f"\n{BLANK}\n".encode()  # behind a training state, where readers of zip archives look for nothing


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
    about = {"format": "pt", _METADATA: json.dumps(dict(metadata)), _SUM: BLANK}
    content = safetensors.torch.save(separate, about)
    write_summed(path, content, content.index(f'"{_SUM}":"'.encode()) + len(_SUM) + 4)


def load_tensors(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON object of a safetensors file; the object is empty for a file of other origin.

    Raises:
        StoreError: the file cannot be read. DamagedError: it is missing, truncated, changed or no safetensors file.
    """
    check_tensors(path)
    return _tensors(path, device)


def check_tensors(path: str | os.PathLike[str]) -> bool:
    """Read a safetensors file through and look at its checksum; False where it has none, as files of other origin.

    Raises:
        StoreError: the file cannot be read. DamagedError: it is missing, truncated, changed or no safetensors file.
    """
    with _reading(path, "safetensors file"):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(min(length, os.fstat(file.fileno()).st_size))
            held = sum_holds(file, header, 8)
        with safetensors.safe_open(path, "pt"):  # whether all of it is there
            pass
    return _fits(held, path)


def save_run_tensors(run: Run, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors into a run folder, as the file of that name of this run. Raises `StoreError` as `save_tensors` does."""
    save_tensors(run.folder / name, tensors, {**metadata, "run": run.hash, "file": name})


def load_run_tensors(run: Run, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_run_tensors` wrote; a file of an earlier version is known by its spec, if it holds one.

    Raises:
        StoreError: as `load_tensors`. DamagedError: also for the file of another run, or of another name.
    """
    check_run_tensors(run, name)
    return _tensors(run.folder / name, "cpu")


def check_run_tensors(run: Run, name: str) -> bool:
    """Read such a file through, as `check_tensors` does, and raise `DamagedError` also if it is another run's, or has another name."""
    path = run.folder / name
    summed = check_tensors(path)
    with _reading(path, "safetensors file"), safetensors.safe_open(path, "pt") as file:
        metadata = _metadata(file)
    if metadata.get("run", run.hash) != run.hash or metadata.get("spec", run.spec) != run.spec:
        raise DamagedError(f"{path} is of another run; put back the file that belongs there.")
    if metadata.get("file", name) != name:
        raise DamagedError(f"{path} was written as {metadata['file']}; put back the file that belongs there.")
    return summed


def save_state(path: str | os.PathLike[str], state: object) -> None:
    """Write what a resumed run needs: tensors in nested dicts, lists and tuples, with numbers, texts and None.

    Tensors of a GPU are written as those of the CPU, so that the file can be read on any machine.

    Raises:
        StoreError: ``path`` cannot be written, or the state holds something that could not be loaded again safely.
    """
    here, buffer = _loadable(state, "state"), io.BytesIO()
    torch.save(here, buffer)
    buffer.write(_AFTER)
    write_summed(path, buffer.getbuffer(), buffer.tell() - len(_AFTER) + 1)


def load_state(path: str | os.PathLike[str], device: str | torch.device = "cpu", of: Run | None = None) -> Any:
    """What `save_state` was given, its tensors on ``device``.

    Args:
        of: the run whose hash the state, a dict, has as ``"run"``, unless it is of an earlier version.

    Raises:
        StoreError: the file cannot be read. DamagedError: it is missing, truncated, changed or of another run.
    """
    check_state(path)
    with _reading(path, "training state"):
        state = torch.load(path, map_location=device, weights_only=True)
    if of is not None and isinstance(state, dict) and state.get("run", of.hash) != of.hash:
        raise DamagedError(f"{path} is of another run; put back the file that belongs there.")
    return state


def check_state(path: str | os.PathLike[str]) -> bool:
    """Read a training state through and look at its checksum; False where it has none. Raises as `load_state` does."""
    with _reading(path, "training state"), open(path, "rb") as file:
        start = max(0, os.fstat(file.fileno()).st_size - len(_AFTER))
        file.seek(start)
        end = file.read()
        held = sum_holds(file, end, start)
        if held is None and end[-len(_END) - 18 :][: len(_END)] != _END:
            raise ValueError("no whole archive")
    return _fits(held, path)


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


def _tensors(path: str | os.PathLike[str], device: str | torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _reading(path, "safetensors file"), safetensors.safe_open(path, "pt", device=str(device)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _metadata(file)  # noqa: SIM118 (it is no dict)


def _metadata(file: Any) -> dict[str, Any]:
    """The JSON object beside the tensors; empty where there is none."""
    found = parsed((file.metadata() or {}).get(_METADATA, "{}"))
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _misfit(what: str, why: str) -> StoreError:
    return StoreError(
        f"{what} is of another architecture: {why}; build the network with the options that it was trained with."
    )


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """What readers raise for a file that is missing or damaged, or cannot be read just now, in one sentence."""
    check_archive(path)
    if not is_file(as_path(path)):
        raise DamagedError(f"there is no file {path}; give the path of a checkpoint.")
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise unreadable(as_path(path), error) from error
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        raise DamagedError(f"{path} is truncated or is not a {what}; restore it from a copy.") from error


def _fits(held: bool | None, path: str | os.PathLike[str]) -> bool:
    if held is False:
        raise DamagedError(f"{path} {CHANGED}; restore it from a copy.")
    return bool(held)


def _loadable(value: Any, where: str) -> Any:
    """The value with its tensors on the CPU. Refuses now what ``weights_only=True`` would refuse at the resume.

    Exact types, since numpy's float is a float.
    """
    if type(value) in (dict, OrderedDict, defaultdict):
        made = copy(value)  # with what a module notes beside its weights
        for key, inner in value.items():
            _loadable(key, f"a key of {where}")
            made[key] = _loadable(inner, f"{where}[{key!r}]")
        return made
    if type(value) in (list, tuple):
        return type(value)([_loadable(inner, f"{where}[{index}]") for index, inner in enumerate(value)])
    if isinstance(value, Tensor):
        return value.cpu()
    if type(value) not in (int, float, bool, str, type(None)):
        raise StoreError(
            f"{where} is a {type(value).__name__}, which cannot be saved; make it a tensor or a plain number."
        )
    return value
