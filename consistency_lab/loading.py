"""Any model by one line of text: ours from a store, whatever its kind, other people's from where they lie."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from consistency_lab.addresses import Address, is_foreign, open_foreign, read_address, refuse_path
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.model import GenerativeModel
from consistency_lab.errors import StoreError, UserError
from consistency_lab.interop.files import is_hub_name, refuse_hub_name
from consistency_lab.model_kinds import MODEL_KINDS
from consistency_lab.pipelines.recording import RecordedImages
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.describing import differences

Model = GenerativeModel
_Named = tuple[Any, Address | None]  # a model, and its address if it has one


def find_run(text: str, store: Store | str | Path) -> Run:
    """The run of a model by name, of whatever kind.

    Raises:
        UserError: there is none, with the nearest name; several; a path, with the address to write; a name on the Hugging Face Hub.
    """
    store = store if isinstance(store, Store) else Store(store)
    try:
        return store.find(text, kind=tuple(MODEL_KINDS))
    except StoreError:
        raise
    except UserError:
        refuse_path(text)
        if is_hub_name(text):
            refuse_hub_name(text)
        raise


@plain_defaults()
def load(
    text: str,
    *,
    store: Store | str | Path = "runs",
    device: str | torch.device | None = None,
    weights: str = "ema",
    name: str | None = None,
    trust: bool = False,
) -> Model:
    """A model by name or path.

    Args:
        text: the name of a run in the store (a diffusion model, GAN or VAE), the path of a run folder, ``zoo:NAME`` for a model that
            ships with the package (``consistency-lab list zoo``), ``diffusers:DIR``, ``torchscript:FILE?schedule=...&...``,
            ``images:DIR``, or a checkpoint of another library, such as ``ddpm-pytorch:model-10.pt?size=32``.
        store: where names are looked up.
        device: where to put it; by default a GPU where there is one.
        weights: ``"ema"`` or ``"raw"``, for runs of ours.
        name: how tables call it.
        trust: whether a file that is a program (TorchScript) may run; it may read and write files then.

    Raises:
        UserError: nothing of that name, with the nearest one; a run that is not finished; a pickle; a program that is not
            trusted; a file of weights, with what it holds and how it becomes a model.
        StoreError: files that are missing, truncated or of another architecture.
    """
    if not isinstance(text, str | os.PathLike):
        raise UserError(f"a model is loaded by its name, path or address, not by {text!r}.")
    text = os.fspath(text)
    if is_foreign(text):
        return open_foreign(text, name=name, device=device, trust=trust)
    run = find_run(text, store)
    if run.kind not in MODEL_KINDS:
        raise UserError(f"{run.folder} is a {run.kind}, not a model; name one of {', '.join(MODEL_KINDS)}.")
    return MODEL_KINDS[run.kind].load(run, device=device, weights=weights, name=name)


def load_all(
    texts: Sequence[str],
    *,
    store: Store | str | Path = "runs",
    device: str | torch.device | None = None,
    trust: bool = False,
) -> list[Model]:
    """Models by name or path (see `load`), told apart where names collide.

    By what differs between them: the settings of runs, ``unet-s0 (lr=0.001)`` and ``unet-s0 (lr=0.002)``; of models from elsewhere the
    path, ``out (run1)`` and ``out (run2)``, then the options of their addresses, ``sd (batch=2)``. What is named twice is numbered.
    """
    models: list[Any] = [load(text, store=store, device=device, trust=trust) for text in texts]
    return [_renamed(model, name) for model, name in zip(models, names_apart(models, texts), strict=True)]


def names_apart(models: Sequence[Model], texts: Sequence[str]) -> list[str]:
    """A name for each model that no other has: its own, and in brackets what differs where another is called so too.

    Args:
        models: as they call themselves.
        texts: what each was loaded by.
    """
    said: list[list[str]] = [[] for _ in models]

    def name(k: int, *more: str) -> str:
        parts = [*said[k], *more]
        return f"{models[k].name} ({', '.join(parts)})" if parts else models[k].name

    sources = [read_address(text) if is_foreign(text) else None for text in map(os.fspath, texts)]
    for tell in (_settings, _prefixes, _paths, _options):
        own = [name(k) for k in range(len(models))]
        for same in ([k for k, other in enumerate(own) if other == each] for each in dict.fromkeys(own)):
            if len(same) > 1:
                for k, text in zip(same, tell([(models[k], sources[k]) for k in same]), strict=True):
                    said[k] += [text] if text else []
    found: list[str] = []
    for k in range(len(models)):
        numbered = (name(k, str(number)) for number in itertools.count(2))
        found.append(next(each for each in itertools.chain([name(k)], numbered) if each not in found))
    return found


def _settings(same: Sequence[_Named]) -> list[str]:
    """Of runs of ours."""
    runs = [k for k, (model, _) in enumerate(same) if "spec" in model.facts]
    told = dict(zip(runs, differences([same[k][0].facts["spec"] for k in runs]), strict=True))
    return [told.get(k, "") for k in range(len(same))]


def _prefixes(same: Sequence[_Named]) -> list[str]:
    kinds = [address.prefix if address else "" for _, address in same]
    return kinds if len(set(kinds)) > 1 else [""] * len(same)


def _paths(same: Sequence[_Named]) -> list[str]:
    """What is left of each path without the folders, before and behind, that all have; of files apart in their ending, that alone."""
    if not all(address for _, address in same):
        return [""] * len(same)
    parts = []
    for path in (Path(os.path.abspath(os.path.expanduser(address.path))) for _, address in same if address):
        parts.append((*path.parent.parts, path.stem, path.suffix) if path.is_file() else (*path.parts, ""))
    if len(set(parts)) == 1:
        return [""] * len(same)
    head = _shared(parts)
    tail = min(_shared([each[::-1] for each in parts]), min(map(len, parts)) - head)
    if tail:
        return ["/".join(each[head:-tail]) for each in parts]
    return ["/".join(each[head:-1]) + each[-1] for each in parts]


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many parts from the first on are alike."""
    levels = enumerate(zip(*parts, strict=False))
    return next((i for i, level in levels if len(set(level)) > 1), min(map(len, parts)))


def _options(same: Sequence[_Named]) -> list[str]:
    told = [address.said if address else {} for _, address in same]
    keys = [
        key for key in dict.fromkeys(k for each in told for k in each) if len({str(each.get(key)) for each in told}) > 1
    ]
    return [", ".join(f"{key}={each[key]}" for key in keys if key in each) for each in told]


def _renamed(model: Any, name: str) -> Any:
    if name == model.name:
        return model
    if isinstance(model, RecordedImages):
        return replace(model, recording=replace(model.recording, name=name))
    return replace(model, name=name)
