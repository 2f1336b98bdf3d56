"""From images to a diffusion model: kept in a store, never trained twice, resumed after a stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from consistency_lab.choices import Choice
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import resolve_device
from consistency_lab.diffusion.denoiser import PREDICTIONS, NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel, described
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import NETWORKS, build_network
from consistency_lab.store.checkpoint import load_state, load_tensors, load_weights, save_state, save_tensors
from consistency_lab.store.results import with_provenance
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.loop import OPTIMIZERS, Batch, TrainingLoop, check_finite, stream_generator
from consistency_lab.training.momentum import MOMENTUM_RULES
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import TIMESTEPS

KIND = "model"
_LOG_EVERY = 25  # steps; the loss is fetched from the device this often
_CHECKPOINT_SECONDS = 20.0
_STATE = "checkpoint.pt"
_WEIGHTS = {"ema": "ema.safetensors", "raw": "raw.safetensors"}


class DenoisingBatches:
    """Images in shuffled epochs, times from a sampler, noise from its own stream; all functions of the step.

    Raises:
        UserError: a batch larger than the data.
    """

    def __init__(self, images: ImageSet, settings: TrainingSettings, device: torch.device):
        if settings.batch > len(images):
            raise UserError(
                f"a batch of {settings.batch} is larger than the {len(images)} images of {images.name!r}; lower batch."
            )
        self.images, self.device, self.size, self.seeds = images.to(device), device, settings.batch, settings.seeds
        self.sampler = TIMESTEPS.build(settings.timesteps, SCHEDULES.build(settings.schedule), settings.steps)
        self.per_epoch = len(images) // settings.batch
        self._order: tuple[int, Tensor] | None = None
        self.dropout = settings.label_dropout if settings.conditional else None

    def _indices(self, step: int) -> Tensor:
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = stream_generator(self.seeds["order"], "order", epoch)
            self._order = (epoch, torch.randperm(len(self.images), generator=generator).to(self.device))
        return self._order[1][place * self.size : (place + 1) * self.size]

    def batch(self, step: int) -> Batch:
        indices = self._indices(step)
        x0 = self.images.batch(indices)
        times = stream_generator(self.seeds["noise"], "noise", 2 * step)
        t, weight = self.sampler.sample(self.size, step, times)
        # Noise is drawn on the device: a GPU's noise is its own, and the device is part of the spec.
        generator = stream_generator(self.seeds["noise"], "noise", 2 * step + 1, self.device)
        eps = torch.randn(x0.shape, generator=generator, device=self.device)
        data = [x0, t.to(self.device), eps]
        if self.dropout is not None:
            data.append(self._labels(indices, torch.rand(self.size, generator=times) < self.dropout))
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


def training_spec(images: ImageSet, settings: TrainingSettings, device: torch.device) -> dict[str, Any]:
    """What decides a run's result, with every default filled in: the content of its hash.

    Raises:
        UserError: a network, schedule, sampler, optimizer or momentum rule, or an option of one, that does not exist.
    """
    if settings.conditional and images.labels is None:
        raise UserError(f"{images.name!r} has no labels; set conditional=False, or load a labelled set.")
    predicts = PREDICTIONS.resolve(settings.predicts)
    if predicts.name == "edm" and predicts.options["sigma_data"] is None:
        predicts = Choice("edm", {"sigma_data": pixel_deviation(images)})
    registries = {
        "network": NETWORKS,
        "schedule": SCHEDULES,
        "timesteps": TIMESTEPS,
        "optimizer": OPTIMIZERS,
        "momentum": MOMENTUM_RULES,
    }
    facts = {**dataclasses.asdict(settings), "predicts": {"name": predicts.name, **predicts.options}}
    for stream in ("seed", "init_seed", "order_seed", "noise_seed"):
        del facts[stream]
    for key, registry in registries.items():
        choice = registry.resolve(facts[key])  # type: ignore[attr-defined]
        facts[key] = {"name": choice.name, **choice.options}
    return {
        "settings": {**facts, "seeds": settings.seeds},
        "data": {
            "name": images.name,
            "fingerprint": images.fingerprint,
            "images": len(images),
            "shape": list(images.shape),
            "classes": images.classes if settings.conditional else 0,
        },
        "dtype": "float32",
        "device": device.type,
    }


def pixel_deviation(images: ImageSet) -> float:
    """Standard deviation over all pixels of (at most the first 10,000) images, to four decimals: EDM's sigma_data."""
    return round(float(images.batch(torch.arange(min(len(images), 10_000))).double().std()), 4)


def build_denoiser(spec: dict[str, Any]) -> NetworkDenoiser:
    """The untrained denoiser of a spec, on the CPU."""
    settings, data = settings_of(spec), spec["data"]
    channels, height, width = data["shape"]
    shape = (channels, height, width)
    network = build_network(settings.network, shape, data["classes"], settings.seeds["init"])
    return NetworkDenoiser(network, SCHEDULES.build(settings.schedule), shape, settings.predicts)


def model_name(settings: TrainingSettings) -> str:
    """The name that a model gets when none is given: its network and its seed."""
    return f"{Choice.parse(settings.network).name}-s{settings.seed}"


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
    settings = (settings or TrainingSettings()).replace(**changes)
    if recipe is not None:
        settings = recipe.apply(settings)
    place = resolve_device(device)
    spec = training_spec(images, settings, place)
    name = name or model_name(settings)
    loop = TrainingLoop(
        (denoiser := build_denoiser(spec).to(place)),
        denoising_loss,
        DenoisingBatches(images, settings, place),
        settings,
        place,
    )
    if store is None:
        for _ in _watched(loop, name, progress):
            pass
        denoiser.load_state_dict(loop.average.weights)
        return DiffusionModel(name, denoiser.eval(), _facts(spec, denoiser, "ema"), classes=spec["data"]["classes"])
    store = store if isinstance(store, Store) else Store(store)
    run = store.run(KIND, name, spec)
    if force:
        run.discard()
    if not run.done:
        with run.begin():
            if not run.done:
                _train_in(run, loop, progress)
    return load_model(run, device=place, name=name)


def _watched(loop: TrainingLoop, name: str, progress: bool | None) -> Iterator[tuple[int, float, float, float]]:
    """Run the loop, show it, and yield (step, mean loss since the last, lr, beta1) every `_LOG_EVERY` steps."""
    total, pending = loop.settings.steps, []
    with tqdm(
        total=total, initial=loop.step, desc=name, unit="step", disable=None if progress is None else not progress
    ) as bar:
        for done in loop:
            pending.append(done.loss)
            bar.update()
            if done.step % _LOG_EVERY == 0 or done.step == total:
                loss = float(torch.stack(pending).mean())
                pending.clear()
                check_finite(loss, done.step, name)
                bar.set_postfix_str(f"loss {loss:.4f}")
                yield done.step, loss, done.lr, done.beta1


def snapshot_steps(settings: TrainingSettings) -> list[int]:
    """The log-spaced steps at which weights are kept, rounded up to logged steps; the last is the end of the run."""
    if not settings.snapshots:
        return []
    points = np.geomspace(min(_LOG_EVERY, settings.steps), settings.steps, settings.snapshots)
    return sorted({min(settings.steps, int(-(-point // _LOG_EVERY)) * _LOG_EVERY) for point in points})


def _train_in(run: Run, loop: TrainingLoop, progress: bool | None) -> None:
    """Train inside a begun run folder, from its checkpoint where there is one."""
    state = run.folder / _STATE
    seconds = 0.0
    if state.exists():
        saved = load_state(state)
        if saved["threads"] != torch.get_num_threads() and loop.device.type == "cpu":
            torch.set_num_threads(
                saved["threads"]
            )  # sums on a CPU depend on how they are divided: the resume is to the bit
        loop.load_state_dict(saved["loop"])
        seconds = saved["seconds"]
    run.truncate_log(loop.step)
    keep = set(snapshot_steps(loop.settings))
    started = saved_at = time.monotonic()
    for step, loss, lr, beta1 in _watched(loop, run.name, progress):
        now = time.monotonic()
        run.log({"step": step, "loss": loss, "lr": lr, "beta1": beta1, "seconds": seconds + now - started})
        if step in keep:
            save_tensors(
                run.folder / "snapshots" / f"step-{step:07d}.safetensors",
                _network(loop.average.weights),
                {"step": step},
            )
        if now - saved_at > _CHECKPOINT_SECONDS:
            facts = {"loop": loop.state_dict(), "seconds": seconds + now - started, "threads": torch.get_num_threads()}
            save_state(state, facts)
            saved_at = now
    seconds += time.monotonic() - started
    for kind, weights in (("ema", loop.average.weights), ("raw", loop.module.state_dict())):
        save_tensors(run.folder / _WEIGHTS[kind], _network(weights), {"spec": run.spec, "weights": kind})
    run.finish({"steps": loop.step, "seconds": round(seconds, 2), "final_loss": run.records()[-1]["loss"]})
    state.unlink(missing_ok=True)


def _network(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("network."): value for key, value in weights.items() if key.startswith("network.")}


def _facts(spec: dict[str, Any], denoiser: NetworkDenoiser, weights: str, **more: Any) -> dict[str, Any]:
    settings = spec["settings"]
    return {
        "kind": "diffusion",
        "network": settings["network"]["name"],
        "predicts": settings["predicts"]["name"],
        "schedule": settings["schedule"]["name"],
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "seeds": settings["seeds"],
        "steps": settings["steps"],
        "weights": weights,
        "data": spec["data"],
        "spec": spec,
        **more,
    }


def settings_of(spec: dict[str, Any]) -> TrainingSettings:
    """The settings that a spec was made from (its seeds resolved)."""
    facts = dict(spec["settings"])
    seeds = facts.pop("seeds")
    for key, value in facts.items():
        if isinstance(value, dict):
            facts[key] = str(Choice(value["name"], {k: v for k, v in value.items() if k != "name"}))
    return TrainingSettings.of(**facts, **{f"{stream}_seed": seed for stream, seed in seeds.items()})


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
    run = run if isinstance(run, Run) else Run.open(run)
    if run.kind != KIND or not run.done:
        raise UserError(
            f"{run.folder} is not a finished model; train it first (the same command goes on where it stopped)."
        )
    if weights not in _WEIGHTS:
        raise UserError(f"the weights of a run are 'ema' or 'raw', not {weights!r}.")
    place, denoiser = resolve_device(device), build_denoiser(run.spec)
    path = run.folder / _WEIGHTS[weights]
    load_weights(denoiser.network, load_tensors(path)[0], str(path))
    summary = run.summary or {}
    facts = _facts(run.spec, denoiser, weights, run=run.hash[:12], seconds=summary.get("seconds"))
    classes = run.spec["data"]["classes"]
    return DiffusionModel(name or run.name, denoiser.to(place).eval(), facts, classes=classes, folder=run.folder)


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
    for path in sorted((model.folder / "snapshots").glob("step-*.safetensors")):
        denoiser = build_denoiser(run.spec)
        load_weights(denoiser.network, load_tensors(path)[0], str(path))
        step = int(path.stem.removeprefix("step-"))
        facts = {**model.facts, "steps": step}
        yield (
            step,
            DiffusionModel(f"{model.name}@{step}", denoiser.to(model.device).eval(), facts, classes=model.classes),
        )


def training_curves(models: Sequence[DiffusionModel]) -> xr.Dataset:
    """The logged training losses of models that were trained with a store: ``loss (model, step)``, NaN where one has no such step.

    Losses are means over `_LOG_EVERY` steps of what each run itself minimised: they do not compare runs with different densities over t.
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
