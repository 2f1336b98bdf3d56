"""The commands by name. The module of each is imported when it is asked for: `list` and `status` wait for no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

_HOMES = {
    "demo": "demo:Demo",
    "train": "train:Train",
    "train-gan": "train:TrainGAN",
    "train-vae": "train:TrainVAE",
    "sample": "sample:Sample",
    "compare": "compare:Compare",
    "gate": "gate:Gate",
    "layers": "layers:Layers",
    "snapshots": "snapshots:Snapshots",
    "quality": "quality:Quality",
    "probe": "probe:Probe",
    "predict": "predict:Predict",
    "study": "study:Study",
    "recipe": "race:MakeRecipe",
    "race": "race:Race",
    "report": "report:Report",
    "reproduce": "reproduce:Reproduce",
    "status": "listing:Status",
    "verify": "verify:Verify",
    "list": "listing:List",
    "export": "listing:Export",
}


class _Commands(Mapping[str, type[Any]]):
    def __getitem__(self, name: str) -> type[Any]:
        module, _, kind = _HOMES[name].partition(":")
        found: type[Any] = getattr(import_module(f"consistency_lab.cli.{module}"), kind)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


COMMANDS = _Commands()
