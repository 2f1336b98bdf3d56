"""From images to a diffusion model: kept in a store, never trained twice, resumed after a stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from consistency_lab.choices import Choice, Registry
from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.labels import check_every_class
from consistency_lab.diffusion.denoiser import PREDICTIONS, NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel, described
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.store.checkpoint import load_weights
from consistency_lab.store.results import with_provenance
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.loop import Batch, EpochOrder, TrainingLoop, stream_generator
from consistency_lab.training.model_kind import ModelKind
from consistency_lab.training.run_io import snapshots_of
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import TIMESTEPS
from consistency_lab.training.timesteps.base import check_draws
from consistency_lab.training.weighting import WEIGHTINGS


class DenoisingBatches:
    """Images in shuffled epochs, times from a sampler, noise from its own stream; all functions of the step.

    Raises:
        UserError: a batch larger than the data.
    """

    def __init__(self, images: ImageSet, settings: TrainingSettings, device: torch.device):
        self.order = EpochOrder(len(images), settings.batch, settings.seeds["order"], images.name)
        self.images, self.device, self.size, self.seeds = images.to(device), device, settings.batch, settings.seeds
        self.schedule, self.units = SCHEDULES.build(settings.schedule), settings.objective
        self.sampler = TIMESTEPS.build(settings.timesteps, self.schedule, settings.steps)
        self.weighting = WEIGHTINGS.build(measured("weighting", settings.weighting, images))
        self.dropout = settings.label_dropout if settings.conditional else None

    def batch(self, step: int) -> Batch:
        indices = self.order(step).to(self.device)
        x0 = self.images.batch(indices)
        times = stream_generator(self.seeds["noise"], "noise", 2 * step)
        t, weight = self.sampler.sample(self.size, step, times)
        check_draws(self.sampler, t, weight, self.size)
        level = self.weighting.weights(self.schedule, t, self.units)
        weight = weight if level is None else weight * level
        # Noise is drawn on the device: a GPU's noise is its own, and the device is part of the spec.
        generator = stream_generator(self.seeds["noise"], "noise", 2 * step + 1, self.device)
        eps = torch.randn(x0.shape, generator=generator, dtype=torch.float32, device=self.device)
        data = [x0, t.to(self.device), eps]
        if self.dropout is not None:
            data.append(
                self._labels(
                    indices, torch.rand(self.size, generator=times, dtype=torch.float32, device="cpu") < self.dropout
                )
            )
        return Batch(tuple(data), weight.to(self.device, torch.float32))

    def _labels(self, indices: Tensor, dropped: Tensor) -> Tensor:
        assert self.images.labels is not None  # training_spec has refused conditional training without labels
        labels = self.images.labels[indices]
        return torch.where(dropped.to(labels.device), torch.full_like(labels, self.images.classes), labels)

    def observe(self, batch: Batch, losses: Tensor) -> None:
        self.sampler.update(batch.data[1], losses)

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)


def measured(key: str, text: str | Choice, images: ImageSet) -> Choice:
    """The choice of a prediction or weighting, its ``sigma_data`` measured on the set where none is given."""
    registry: Registry[Any] = PREDICTIONS if key == "predicts" else WEIGHTINGS
    choice = registry.resolve(text)
    if choice.options.get("sigma_data", 0) is None:
        return Choice(choice.name, {**choice.options, "sigma_data": pixel_deviation(images)})
    return choice


def pixel_deviation(images: ImageSet) -> float:
    """Standard deviation over all pixels of (at most the first 10,000) images, to four decimals: EDM's sigma_data."""
    return round(float(images.batch(torch.arange(min(len(images), 10_000), device="cpu")).double().std()), 4)


class _DiffusionKind(ModelKind[TrainingSettings, NetworkDenoiser, DiffusionModel]):
    """Diffusion models. Weights are those of the network: the rest of a denoiser follows from the spec."""

    name, settings, main, part = "model", TrainingSettings, "network", "network"

    def fitted(self, settings: TrainingSettings, images: ImageSet) -> TrainingSettings:
        """With ``sigma_data`` measured. Raises `UserError` for a conditional model of a set without labels, or a class without images."""
        if settings.conditional:
            check_every_class(images)
        return settings.replace(
            **{key: measured(key, getattr(settings, key), images) for key in ("predicts", "weighting")}
        )

    def classes(self, settings: TrainingSettings, images: ImageSet) -> int:
        return images.classes if settings.conditional else 0

    def model_name(self, settings: TrainingSettings) -> str:
        return super().model_name(settings).removeprefix(f"{self.name}-")

    def build(self, spec: Mapping[str, Any]) -> NetworkDenoiser:
        settings, data = settings_of(spec), spec["data"]
        channels, height, width = data["shape"]
        shape = (channels, height, width)
        network = build_network(settings.network, shape, data["classes"], settings.seeds["init"])
        return NetworkDenoiser(network, SCHEDULES.build(settings.schedule), shape, settings.predicts)

    def loop(
        self, module: NetworkDenoiser, images: ImageSet, settings: TrainingSettings, device: torch.device
    ) -> TrainingLoop:
        loss, source = partial(denoising_loss, units=settings.objective), DenoisingBatches(images, settings, device)
        return TrainingLoop(module, loss, source, settings, device)

    def facts(self, spec: Mapping[str, Any], module: NetworkDenoiser) -> dict[str, Any]:
        settings = spec["settings"]
        return {
            "kind": "diffusion",
            "network": settings["network"]["name"],
            "predicts": settings["predicts"]["name"],
            "objective": settings["objective"],
            "schedule": settings["schedule"]["name"],
            "parameters": sum(p.numel() for p in module.parameters()),
        }

    def wrap(self, name: str, module: NetworkDenoiser, facts: dict[str, Any], folder: Path | None) -> DiffusionModel:
        return DiffusionModel(name, module, facts, classes=facts["data"]["classes"], folder=folder)

    def noise_shape(self, spec: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple(spec["data"]["shape"])


DIFFUSION_KIND = _DiffusionKind()
training_spec, build_denoiser = DIFFUSION_KIND.spec, DIFFUSION_KIND.build


def train(
    images: ImageSet,
    *,
    name: str | None = None,
    store: Store | str | Path | None = None,
    device: str | torch.device | None = None,
    force: bool = False,
    progress: bool | None = None,
    recipe: Any = None,
    settings: TrainingSettings | None = None,
    **changes: Any,
) -> DiffusionModel:
    """Train one diffusion model.

    Args:
        images: the training set.
        name: how tables call the model; ``network-sSEED`` by default.
        store: where runs are kept; with one, the same spec is never trained twice and a stopped run goes on. Without, nothing is kept.
        device: ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
        force: train again although the store has the run.
        progress: show a progress bar; by default on a terminal only.
        recipe: a `Recipe`; it overrides the settings that it derives.
        settings: where to start from; ``TrainingSettings()`` by default.
        **changes: any field of `TrainingSettings`.

    Returns:
        The model with its averaged (EMA) weights.

    Raises:
        UserError: settings that do not exist or do not fit the images, or a loss that diverges.
        StoreError: the store cannot be written, or another process holds the run.

    >>> model = train(load_images("digits"), network="mlp", steps=200, seed=0)
    """
    if recipe is not None:
        if not hasattr(recipe, "apply"):
            raise UserError(f"a recipe is what Recipe.from_findings or Recipe.load gives, not {recipe!r}.")
        settings, changes = recipe.apply(DIFFUSION_KIND.changed(settings, changes)), {}
    options: dict[str, Any] = {"store": store, "device": device, "force": force, "progress": progress}
    return DIFFUSION_KIND.train(images, name=name, settings=settings, **options, **changes)


def settings_of(spec: Mapping[str, Any]) -> TrainingSettings:
    """The settings that a spec was made from (its seeds resolved)."""
    return TrainingSettings.from_spec(spec["settings"])


def load_model(
    run: Run | str | Path, *, device: str | torch.device | None = None, weights: str = "ema", name: str | None = None
) -> DiffusionModel:
    """A trained model from its run folder.

    Args:
        run: a `Run`, or the path of a run folder.
        device: where to put it; by default a GPU where there is one.
        weights: ``"ema"`` or ``"raw"``.
        name: how tables call it; the run's name by default.

    Raises:
        UserError: the folder is not a finished model, or weights other than those two are asked for.
        StoreError: a file is missing, truncated, or of another architecture.
    """
    return DIFFUSION_KIND.load(run, device=device, weights=weights, name=name)


def load_snapshots(model: DiffusionModel) -> Iterator[tuple[int, DiffusionModel]]:
    """The model as it was along its training run: (step, model with that step's averaged weights), first to last.

    Raises:
        UserError: the model was not loaded from a run folder.
    """
    if model.folder is None:
        raise UserError(
            f"{model.name!r} was trained without a store, so no weights were kept along the way; train it with store=...."
        )
    run = Run.open(model.folder)
    for step, tensors, path in snapshots_of(run):
        denoiser = build_denoiser(run.spec)
        load_weights(denoiser.network, tensors, str(path))
        facts = {**model.facts, "steps": step}
        yield (
            step,
            DiffusionModel(f"{model.name}@{step}", denoiser.to(model.device).eval(), facts, classes=model.classes),
        )


def training_curves(models: Sequence[DiffusionModel]) -> xr.Dataset:
    """The logged training losses of models that were trained with a store: ``loss (model, step)``, NaN where one has no such step.

    Losses are means over 25 steps of what each run itself minimised: they do not compare runs with different densities over t.
    """
    records = {model.name: Run.open(model.folder).records() for model in models if model.folder is not None}
    if not records:
        raise UserError("none of the models was trained with a store, so there are no training curves.")
    steps = sorted({record["step"] for rows in records.values() for record in rows})
    loss = np.full((len(records), len(steps)), np.nan)
    for row, rows in enumerate(records.values()):
        for record in rows:
            loss[row, steps.index(record["step"])] = record["loss"]
    result = xr.Dataset(
        {"loss": (("model", "step"), loss)}, coords={"model": list(records), "step": np.array(steps, dtype=np.int32)}
    )
    return with_provenance(result, "training", models=[described(model) for model in models])
