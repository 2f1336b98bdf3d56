"""Going on from a trained model: its weights are where the next run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError
from consistency_lab.networks.own import weights_digest
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store


def starting_run(start: Run | str | Path, store: Store | str | Path | None, kind: str) -> Run:
    """The run that is meant by a run, its folder, or its name in the store. Raises `UserError` where there is none."""
    if isinstance(start, Run):
        return start
    if store is None and not Path(start).is_dir():
        raise UserError(f"start={str(start)!r} is looked up in a store; say which, with store=..., or give the model.")
    return (store if isinstance(store, Store) else Store(store or ".")).find(start, kind=kind)


def network_of(model: Any) -> nn.Module:
    """The network whose weights a run begins with. Raises `UserError` for what was not trained here."""
    if not (isinstance(model, DiffusionModel) and "spec" in model.facts):
        raise UserError(
            f"a run goes on from a diffusion model that was trained here, not from {getattr(model, 'name', model)!r}; a torch module with "
            "weights of its own is given as network=..."
        )
    if not isinstance(model.denoiser, NetworkDenoiser):
        raise UserError(f"{model.name!r} is guided; give the model itself as start.")
    return model.denoiser.network


def steps_behind(model: DiffusionModel) -> int:
    """Steps that a model has been trained for, those of the runs that it went on from included."""
    return int(model.facts["steps"]) + int(model.facts["spec"].get("start", {}).get("steps", 0))


def start_spec(model: DiffusionModel) -> dict[str, Any]:
    """What a spec says of a start: a digest of its weights, and the steps behind them, from where batches and noise go on."""
    return {"weights": weights_digest(network_of(model)), "steps": steps_behind(model)}
