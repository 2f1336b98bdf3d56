"""From images to a diffusion model: stored, never trained twice, resumed after a stop."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from consistency_lab.choices import Choice
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.data.labels import check_every_class
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel, described, specs_of
from consistency_lab.diffusion.moments import WithMoments, principal_axes
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.own import NetworkMaker, code_digest, is_own, network_name, own_choice, own_network
from consistency_lab.networks.registry import build_network
from consistency_lab.store.checkpoint import load_weights
from consistency_lab.store.results import with_provenance
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.batches import DenoisingBatches, measured
from consistency_lab.training.group import shared_device
from consistency_lab.training.lockstep import LockstepLoop
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.model_kind import ModelKind
from consistency_lab.training.processes import refuse_several
from consistency_lab.training.run_io import snapshot_files, snapshots_of
from consistency_lab.training.scheduling import MakeScheduler, ScheduledRate, scheduled_rate
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.sharing import loop_class
from consistency_lab.training.starting import network_of, start_spec, starting_run, steps_behind
from consistency_lab.training.watching import Callback, Validation, Watch

_logger = logging.getLogger(__name__)


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
        return f"{network_name(settings.network)}-s{settings.seed}"

    def build(self, spec: Mapping[str, Any], network: nn.Module | NetworkMaker | None = None) -> NetworkDenoiser:
        """The untrained denoiser of a spec, on the CPU; ``network``: the user's own, for a spec of such a one."""
        settings, data = settings_of(spec), spec["data"]
        channels, height, width = data["shape"]
        shape, seed = (channels, height, width), settings.seeds["init"]
        parametrisation = PREDICTIONS.build(settings.predicts)
        shown = parametrisation.shown(shape)
        if network is None:
            built: nn.Module = build_network(settings.network, shown, data["classes"], seed)
        elif is_own(settings.network):
            built = own_network(network, shown, data["classes"], seed)
            if code_digest(built) != settings.network.options["code"]:
                _logger.warning(
                    "the code of %s (or Python) is not what this run was trained with.", type(built).__name__
                )
        else:
            raise UserError(f"this run's network is {settings.network}, which its spec builds; leave network out.")
        built = parametrisation.around(built, shape)
        return NetworkDenoiser(built, SCHEDULES.build(settings.schedule), shape, settings.predicts)

    def loop(
        self,
        module: NetworkDenoiser,
        images: ImageSet,
        settings: TrainingSettings,
        device: torch.device,
        first: int = 0,
        rate: ScheduledRate | None = None,
    ) -> TrainingLoop:
        """``first``: steps of the runs that this one goes on from; ``rate``: of a scheduler, in the place of the settings'."""
        loss = partial(denoising_loss, units=settings.objective)
        if (
            isinstance(module.network, WithMoments) and not first
        ):  # a model that is gone on from brings those of its own set
            module.network.measure(*principal_axes(images, settings.flip))
        if settings.lockstep:
            refuse_several("models in lock-step are trained")
        make = LockstepLoop if settings.lockstep else loop_class()
        return make(module, loss, DenoisingBatches(images, settings, device, first), settings, device, rate)

    def train(self, images: ImageSet, **options: Any) -> DiffusionModel:
        """See `consistency_lab.training.train.train`, which takes more than other kinds' do."""
        return train(images, **options)

    def facts(self, spec: Mapping[str, Any], module: NetworkDenoiser) -> dict[str, Any]:
        settings = spec["settings"]
        return {
            "kind": "diffusion",
            "network": settings["network"].get("module", settings["network"]["name"]),
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


def continued_name(start: str, spec: Mapping[str, Any], settings: TrainingSettings) -> str:
    """The name that a model gets when it goes on from another: ``unet-s0+500``, and another seed where it has one."""
    seed = "" if settings.seeds == spec["settings"]["seeds"] else f"-s{settings.seed}"
    return f"{start}+{settings.steps}{seed}"


@plain_defaults()
def train(
    images: ImageSet,
    *,
    network: str | Choice | nn.Module | NetworkMaker | None = None,
    start: DiffusionModel | Run | str | Path | None = None,
    name: str | None = None,
    store: Store | str | Path | None = None,
    device: str | torch.device | None = None,
    force: bool = False,
    progress: bool | None = None,
    recipe: Any = None,
    lr_scheduler: MakeScheduler | None = None,
    validation: ImageSet | None = None,
    validate_every: int = 100,
    callback: Callback | None = None,
    settings: TrainingSettings | None = None,
    **changes: Any,
) -> DiffusionModel:
    """Train one diffusion model.

    Called alike in each of several processes that ``accelerate launch`` or ``torchrun`` has started, it is trained by all of them: each
    takes its rows of every batch on its own GPU, the first one writes, and all return the model. Their number is part of the spec.

    Args:
        images: the training set.
        network: a registered name with options; or one of your own: a torch module, of which a copy is trained from its present weights, or
            a function or class that makes one of (shape, classes), from the seed. ``network(x, t, cond)`` takes noisy images
            ``(B, C, H, W)``, times ``(B,)`` in [0, 1] and labels or None, and returns a tensor shaped as the images.
        start: a model that was trained here, or the name or folder of its run: its weights (the averaged ones; those of a model that was
            loaded with ``weights="raw"`` otherwise) are those that this run begins with. Settings are the model's own unless given;
            optimizer and average begin anew; images and noise are those of the steps after the model's.
        name: how tables call the model; ``network-sSEED`` by default, and START+STEPS for one that goes on.
        store: where runs are stored; with one, the same spec is never trained twice and a stopped run resumes. Without, nothing is stored.
        device: ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
        force: train again; what the store has of the run is set aside.
        progress: show a progress bar; by default on a terminal only.
        recipe: a `Recipe`; it overrides the settings that it derives.
        lr_scheduler: a function that makes a scheduler of torch of the optimizer that it is given. It is stepped once a step, and its rates
            stand in the place of ``lr_warmup`` and ``lr_final``; the settings' ``lr`` is the rate that it begins with.
        validation: held-out images: their loss at ten noise levels is added to the run's log and to the callback's records.
        validate_every: steps between two validations, a multiple of 25; the last step is always one.
        callback: called with a record (a dict: step, loss, lr, beta1, seconds, and validation where there is one) every 25 steps; when it
            returns True the run ends there, as NAME@STEP. What it raises interrupts the run, which goes on another time.
        settings: where to start from; ``TrainingSettings()`` by default.
        **changes: any field of `TrainingSettings`.

    Returns:
        The model with its averaged (EMA) weights.

    Raises:
        UserError: settings that do not exist or do not fit the images, or a loss that diverges.
        StoreError: the store cannot be written or read, or without ``force`` holds weights and nothing that they could be made from.

    >>> model = train(load_images("digits"), network="mlp", steps=200, seed=0)
    """
    check_set(images)
    if start is not None and not isinstance(start, DiffusionModel):
        own = None if isinstance(network, str | Choice) else network
        start = load_model(starting_run(start, store, DIFFUSION_KIND.name), device="cpu", network=own)
    first = None if start is None else network_of(start)
    if settings is None and start is not None:
        settings = settings_of(start.facts["spec"]).with_one_seed()
    settings = DIFFUSION_KIND.changed(settings, changes)
    if recipe is not None:
        if not hasattr(recipe, "apply"):
            raise UserError(f"a recipe is what Recipe.from_findings or Recipe.load gives, not {recipe!r}.")
        settings = recipe.apply(settings)
    rate = None
    if lr_scheduler is not None:
        if settings.lr_final != 1.0 or "lr_warmup" in changes:
            raise UserError(
                "the learning rate follows lr_scheduler, or lr_warmup and lr_final; leave one of the two out."
            )
        rate = scheduled_rate(lr_scheduler, settings := settings.replace(lr_warmup=0))
    settings, module = _with_network(
        settings, first if network is None and is_own(settings.network) else network, images
    )
    place = shared_device(device)
    spec = training_spec(images, settings, place)
    if start is not None:
        spec["start"] = start_spec(start)
    if rate is not None:
        spec["lr_scheduler"] = rate.spec
    name = name or (
        DIFFUSION_KIND.model_name(settings)
        if start is None
        else continued_name(start.name, start.facts["spec"], settings)
    )
    denoiser = build_denoiser(spec, module).to(place)
    if start is not None and first is not None:
        load_weights(denoiser.network, first.state_dict(), f"the model {start.name!r}")
    loop = DIFFUSION_KIND.loop(denoiser, images, settings, place, 0 if start is None else steps_behind(start), rate)
    watched = None if validation is None else Validation(validation, denoiser, settings, validate_every)
    build, watch = partial(build_denoiser, network=module), Watch(callback, watched)
    options: dict[str, Any] = {"store": store, "force": force, "progress": progress}
    return DIFFUSION_KIND.finished(denoiser, loop, spec, name, watch=watch, build=build, **options)


def _with_network(
    settings: TrainingSettings, network: str | Choice | nn.Module | NetworkMaker | None, images: ImageSet
) -> tuple[TrainingSettings, nn.Module | None]:
    """The settings with the network that was asked for, and the module itself where it is the user's own."""
    if network is None:
        return settings, None
    if isinstance(network, str | Choice):
        return settings.replace(network=network), None
    classes = images.classes if settings.conditional else 0
    shown = PREDICTIONS.build(measured("predicts", settings.predicts, images)).shown(images.shape)
    module = own_network(network, shown, classes, settings.seeds["init"])
    return settings.replace(network=own_choice(module)), module


def settings_of(spec: Mapping[str, Any]) -> TrainingSettings:
    """The settings that a spec was made from (its seeds resolved)."""
    return TrainingSettings.from_spec(spec["settings"])


def load_model(
    run: Run | str | Path,
    *,
    device: str | torch.device | None = None,
    weights: str = "ema",
    name: str | None = None,
    network: nn.Module | NetworkMaker | None = None,
) -> DiffusionModel:
    """A trained model from its run folder.

    Args:
        run: a `Run`, or the path of a run folder.
        device: where to put it; by default a GPU where there is one.
        weights: ``"ema"`` or ``"raw"``.
        name: how tables call it; the run's name by default.
        network: for a run of a network of your own: the module, or what makes it, as `train` was given it.

    Raises:
        UserError: the folder is not a finished model, weights other than those two are asked for, or a network of your own is not given.
        StoreError: a file is missing, truncated, or of another architecture.
    """
    build = partial(build_denoiser, network=network)
    return DIFFUSION_KIND.load(run, device=device, weights=weights, name=name, build=build)


def load_snapshots(model: DiffusionModel, steps: Container[int] | None = None) -> Iterator[tuple[int, DiffusionModel]]:
    """The model as it was along its training run: (step, model with that step's averaged weights), first to last.

    Args:
        model: trained with a store (``snapshots`` of its settings says how many are kept).
        steps: those that are wanted, of `kept_steps`; all by default.

    Raises:
        UserError: the model was not loaded from a run folder.
    """
    run = _kept_run(model)
    base: Any = getattr(model.denoiser, "inner", model.denoiser)  # of a guided one
    own = isinstance(base, NetworkDenoiser) and is_own(settings_of(run.spec).network)
    for step, tensors, path in snapshots_of(run, steps):
        denoiser = build_denoiser(run.spec, base.network if own else None)
        load_weights(denoiser.network, tensors, str(path))
        facts = {**model.facts, "steps": step}
        yield (
            step,
            DiffusionModel(f"{model.name}@{step}", denoiser.to(model.device).eval(), facts, classes=model.classes),
        )


def kept_steps(model: DiffusionModel) -> list[int]:
    """The steps at which the weights of a model were kept along its run. Raises `UserError` for one without a run folder."""
    return [step for step, _ in snapshot_files(_kept_run(model))]


def _kept_run(model: DiffusionModel) -> Run:
    if model.folder is None:
        raise UserError(
            f"{model.name!r} was trained without a store, so no weights were kept along the way; train it with store=...."
        )
    return Run.open(model.folder)


def training_curves(models: Sequence[DiffusionModel]) -> xr.Dataset:
    """What models logged that were trained with a store, ``(model, step)``, NaN where one has no such step.

    ``loss`` is the mean over 25 steps of what each run itself minimised: it does not compare runs with different densities over t or
    different targets.
    Where any run was given held-out images, ``held_out`` is their loss, the same for all t and of the averaged weights: that one does
    compare runs of one objective and one set. How long each run took is in the provenance, so that two fresh runs give the same numbers.
    """
    records = {model.name: Run.open(model.folder).records() for model in models if model.folder is not None}
    if not records:
        raise UserError("none of the models was trained with a store, so there are no training curves.")
    steps = sorted({record["step"] for rows in records.values() for record in rows})
    logged = {name: np.full((len(records), len(steps)), np.nan) for name in ("loss", "held_out")}
    for row, rows in enumerate(records.values()):
        for record in rows:
            at, held_out = (row, steps.index(record["step"])), record.get("validation", {}).get("loss", np.nan)
            logged["loss"][at], logged["held_out"][at] = record["loss"], held_out
    if np.isnan(logged["held_out"]).all():
        del logged["held_out"]
    result = xr.Dataset(
        {name: (("model", "step"), values) for name, values in logged.items()},
        coords={"model": list(records), "step": np.array(steps, dtype=np.int32)},
    )
    known = [model for model in models if model.name in records]
    facts: dict[str, Any] = {"models": [described(model) for model in known], "specs": specs_of(known)}
    return with_provenance(result, "training", choices=("model",), **facts)
