"""Networks as TorchScript files, the form in which a module travels without its source."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import torch

from consistency_lab.devices import resolve_device
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError, naming, nearest_path
from consistency_lab.inputs import check_archive
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.pickles import is_pickle, refuse_pickle
from consistency_lab.interop.schedules import as_schedule
from consistency_lab.interop.times import TimeMap
from consistency_lab.interop.units import OURS
from consistency_lab.packing import packing_holds
from consistency_lab.trust import check_trust, trusting

_INSTEAD = "build the network from its class, fill it with weights saved as safetensors and give it to wrap_module"


def load_torchscript(
    path: str | os.PathLike[str],
    *,
    schedule: str,
    predicts: str,
    shape: tuple[int, int, int],
    time: str | TimeMap,
    name: str | None = None,
    value_range: tuple[float, float] = OURS,
    classes: int = 0,
    null_label: int | None = None,
    learned_variance: bool = False,
    device: str | torch.device | None = None,
    trust: bool = False,
) -> DiffusionModel:
    """A model from a file that ``torch.jit.save`` wrote, which is a program: it may read and write files when it runs.

    Where its class can be had, `wrap_module` takes the network with weights from `load_state`, and nothing of the file is run.

    Args:
        path: the file.
        name: how tables call it; the file's name by default.
        device: where to put it; by default a GPU where there is one.
        schedule, predicts, shape, time, value_range, classes, null_label, learned_variance: as in `wrap_module`.
        trust: whether the file may run.

    Raises:
        UserError: the file is not trusted, no TorchScript in it, or what `wrap_module` raises.
    """
    file, place = Path(path), resolve_device(device)
    as_schedule(schedule)  # refused before a large file is read
    with trusting(trust):
        module = _open(file, place)
    with naming(file):
        return wrap_module(
            module,
            schedule=schedule,
            predicts=predicts,
            shape=shape,
            name=name or file.stem,
            time=time,
            value_range=value_range,
            classes=classes,
            null_label=null_label,
            learned_variance=learned_variance,
            device=place,
            facts={"source": "torchscript", "file": file.name},
        )


def _open(file: Path, place: torch.device) -> torch.jit.ScriptModule:
    if is_pickle(file):
        refuse_pickle(file)
    check_archive(file)
    if not file.is_file():
        raise UserError(f"there is no file {file}; name a file that torch.jit.save wrote.{nearest_path(file)}")
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive raises whatever its bytes happen to mean
        raise UserError(f"{file} is truncated or is not TorchScript; name a file that torch.jit.save wrote.") from None
    # torch.save writes the same kind of archive, with a pickle in it and no code.
    if not any("/code/" in name for name in names):
        raise UserError(
            f"{file} holds no TorchScript (torch.save wrote it, perhaps): save the module with "
            "torch.jit.script(module).save(...), or build it in Python and give it to wrap_module."
        )
    check_trust(file, "TorchScript", _INSTEAD)
    if not packing_holds(file):
        raise UserError(f"{file} is damaged: the sums of its packing do not fit; restore it from its source.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch.export is to be used instead; it does not open these files
            return torch.jit.load(str(file), map_location=place)
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(
            f"{file} cannot be loaded as TorchScript ({reason}); save it again with this version of torch."
        ) from error
