"""Small trained models that ship with the package: ``load("zoo:fashion-unet-s0")``, ``consistency-lab list zoo``.

Each is one safetensors file in ``models/``: the averaged weights in float16, and beside them the spec that they were trained by.
`analyses/make_zoo.py` makes the files, and `models/README.md`: how they were trained, how good they are, and under which licence.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from consistency_lab.choices import Names
from consistency_lab.diffusion.model import GenerativeModel
from consistency_lab.errors import DamagedError, UserError, unknown_name
from consistency_lab.model_kinds import MODEL_KINDS
from consistency_lab.store.checkpoint import load_tensors, save_tensors
from consistency_lab.store.run import Run
from consistency_lab.training.run_io import final_weights, finished_run

FOLDER = Path(__file__).with_name("models")


class Zoo(Names):
    """The names of the models; none has an option."""

    def _known(self) -> Collection[str]:
        return sorted(path.stem for path in FOLDER.glob("*.safetensors"))

    def options(self, name: str) -> dict[str, Any]:
        return {}

    def check(self, name: str) -> None:
        """Raise `UserError` with the nearest name unless there is a model of that name."""
        if name not in self.names():
            raise unknown_name(self.kind, name, self.names())


ZOO = Zoo("model of the zoo")


def open_zoo(path: str, *, name: str | None = None, device: str | torch.device | None = None) -> GenerativeModel:
    """A model that ships with the package; ``zoo:NAME`` in an address.

    Args:
        path: its name; `ZOO` knows all.
        name: how tables call it; its own by default.
        device: where to put it; by default a GPU where there is one.

    Raises:
        UserError: there is none of that name, with the nearest one.
        DamagedError: its file is missing or was changed.
    """
    ZOO.check(path)
    file = FOLDER / f"{path}.safetensors"
    tensors, about = load_tensors(file)
    kind = MODEL_KINDS.get(about.get("kind", ""))
    if kind is None or "spec" not in about:
        raise DamagedError(f"{file} does not say what it is a model of; install the package again.")
    weights = {key: tensor.float() for key, tensor in tensors.items()}
    more = {"zoo": path, "stored": "float16", "seconds": about.get("seconds")}
    model: GenerativeModel = kind.of_weights(
        name or path, about["spec"], weights, source=str(file), device=device, more=more
    )
    return model


def pack(run: Run | str | Path, path: str | os.PathLike[str], about: Mapping[str, Any]) -> int:
    """Write a finished run as a file of the zoo, and return its bytes.

    Args:
        run: a diffusion model, GAN or VAE; of the latter two the part that makes images is kept.
        path: of the file.
        about: what is to be told beside the spec, as JSON takes it.

    Raises:
        UserError: no finished run of a model, or weights that float16 cannot hold.
        StoreError: the run's files are damaged, or ``path`` cannot be written.
    """
    kinds = [kind for kind in MODEL_KINDS if Run.open(run.folder if isinstance(run, Run) else run).kind == kind]
    if not kinds:
        raise UserError(f"{run} is no run of a model; name one of {', '.join(MODEL_KINDS)}.")
    done = finished_run(run, kinds[0])
    tensors, _ = final_weights(done, "ema")
    halves = {key: tensor.half() for key, tensor in tensors.items()}
    if large := [key for key, half in halves.items() if not half.isfinite().all()]:
        raise UserError(f"float16 does not hold the weights {large[0]!r}, which reach beyond 65504.")
    seconds = (done.summary or {}).get("seconds")
    save_tensors(path, halves, {**about, "kind": done.kind, "spec": done.spec, "seconds": seconds})
    return os.path.getsize(path)
