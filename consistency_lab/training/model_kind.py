"""What a kind of model is: how a spec is made, and how from it a model comes to be, in a store or without.

Diffusion models, GANs and VAEs each are a `ModelKind`, which says in what they differ from each other and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.devices import check_precision, plain_defaults, resolve_device
from consistency_lab.errors import UserError
from consistency_lab.store.checkpoint import load_weights
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.group import shared_device
from consistency_lab.training.processes import refuse_several, started
from consistency_lab.training.run_io import (
    Loop,
    final_weights,
    finished_run,
    steps_in_store,
    train_in_store,
    train_unkept,
)
from consistency_lab.training.settings import LoopSettings
from consistency_lab.training.sharing import SharedLoop, in_company
from consistency_lab.training.watching import Watch

S = TypeVar("S", bound=LoopSettings)
N = TypeVar("N", bound=nn.Module)
M = TypeVar("M")


class ModelKind(ABC, Generic[S, N, M]):
    """A kind of model, of settings ``S``, a module ``N`` that is trained and the model ``M`` around it.

    Attributes:
        name: of the kind, in stores and in the default names of models.
        settings: their type.
        main: the setting after which a model is named that is given no name.
        part: the submodule whose weights are written; all of the module by default.
    """

    name: ClassVar[str]
    settings: type[S]
    main: ClassVar[str]
    part: ClassVar[str] = ""

    @abstractmethod
    def build(self, spec: Mapping[str, Any]) -> N:
        """The untrained module of a spec, on the CPU."""

    @abstractmethod
    def loop(self, module: N, images: ImageSet, settings: S, device: torch.device) -> Loop:
        """What trains the module, at step 0. Raises `UserError` for settings that do not fit the images."""

    @abstractmethod
    def facts(self, spec: Mapping[str, Any], module: N) -> dict[str, Any]:
        """The provenance that only this kind has: what it is, its choices, the number of its parameters."""

    @abstractmethod
    def wrap(self, name: str, module: N, facts: dict[str, Any], folder: Path | None) -> M:
        """The model around a trained module in eval mode."""

    @abstractmethod
    def noise_shape(self, spec: Mapping[str, Any]) -> tuple[int, ...]:
        """What a model of that spec will start from, told before anything is trained."""

    def fitted(self, settings: S, images: ImageSet) -> S:
        """The settings with what is measured on the images. Raises `UserError` if the two do not go together."""
        return settings

    def classes(self, settings: S, images: ImageSet) -> int:
        """Number of labels that the model is given; 0 for an unconditional one."""
        return 0

    def model_name(self, settings: S) -> str:
        """The name that a model gets when none is given: its network and its seed."""
        return f"{self.name}-{getattr(settings, self.main).name}-s{settings.seed}"

    def spec(self, images: ImageSet, settings: S, device: torch.device) -> dict[str, Any]:
        """What decides a run's result, with every default filled in: the content of its hash.

        Raises:
            UserError: no image set; a name that does not exist, or an option of one; settings that do not fit the images or
                the device.
        """
        check_set(images)
        processes, _ = started()
        check_precision(settings.precision, device)
        return {
            "settings": self.fitted(settings, images).spec(),
            "data": {
                "name": images.name,
                "fingerprint": images.fingerprint,
                "images": len(images),
                "shape": list(images.shape),
                "classes": self.classes(settings, images),
                **({"mirrored": images.mirrored().fingerprint} if settings.flip else {}),
            },
            "dtype": "float32",
            "device": device.type,
            **({"processes": processes} if processes > 1 else {}),
        }

    def changed(self, settings: S | None, changes: Mapping[str, Any]) -> S:
        """Settings, by default those of the kind, with some changed. Raises `UserError` for another kind's, or what does not exist."""
        settings = self.settings() if settings is None else settings
        if not isinstance(settings, self.settings):
            raise UserError(
                f"settings are {self.settings.__name__}(...), not {settings!r}; single ones are written as train(..., steps=500)."
            )
        return settings.replace(**changes)

    @plain_defaults()
    def train(
        self,
        images: ImageSet,
        *,
        name: str | None = None,
        store: Store | str | Path | None = None,
        device: str | torch.device | None = None,
        force: bool = False,
        progress: bool | None = None,
        settings: S | None = None,
        **changes: Any,
    ) -> M:
        """Train one model, or load it where the store has it; arguments and errors as for `consistency_lab.training.train.train`."""
        settings, place = self.changed(settings, changes), shared_device(device)
        spec, name = self.spec(images, settings, place), name or self.model_name(settings)
        module = self.build(spec).to(place)
        loop = self.loop(module, images, settings, place)
        return self.finished(module, loop, spec, name, store=store, force=force, progress=progress)

    def finished(
        self,
        module: N,
        loop: Loop,
        spec: Mapping[str, Any],
        name: str,
        *,
        store: Store | str | Path | None,
        force: bool = False,
        progress: bool | None = None,
        watch: Watch | None = None,
        build: Callable[[Mapping[str, Any]], N] | None = None,
    ) -> M:
        """Train the loop of a new module to its end, or until its callback stops it, and load what the store has of it then.

        Args:
            module, loop, spec, name: of the run; the loop is at step 0.
            store, force, progress: as for `train`.
            watch: callback and validation.
            build: makes the module that is loaded; `build` by default.
        """

        spent: dict[str, Any] = {}

        def trained() -> Run | None:
            if store is None:
                spent["seconds"] = round(train_unkept(loop, name, progress, watch), 2)
                return None
            options: dict[str, Any] = {"keep": self._kept, "force": force, "progress": progress, "watch": watch}
            return train_in_store(store, self.name, name, spec, loop, **options)

        if isinstance(loop, SharedLoop):
            run = in_company(loop, spec, trained)
        else:
            refuse_several(f"a {self.name} is trained")
            run = trained()
        if run is None:
            if loop.step < loop.settings.steps:
                name, spec = f"{name}@{loop.step}", {**spec, "stopped": loop.step}
            return self._model(name, spec, module, self._kept(loop.average.weights), more=spent)
        name = f"{name}@{run.spec['stopped']}" if "stopped" in run.spec else name
        return self.load(run, device=loop.device, name=name, build=build)

    def steps(
        self, store: Store, name: str, spec: Mapping[str, Any], loop: Loop, check: Callable[[], None]
    ) -> Generator[None, None, Run]:
        """Train a new loop in the store, yielding before each step: `steps_in_store`, which refuses a run that another process holds."""
        options: dict[str, Any] = {"keep": self._kept, "progress": False, "waiting": None}
        return steps_in_store(store, self.name, name, spec, loop, check=check, **options)

    @plain_defaults()
    def load(
        self,
        run: Run | str | Path,
        *,
        device: str | torch.device | None = None,
        weights: str = "ema",
        name: str | None = None,
        build: Callable[[Mapping[str, Any]], N] | None = None,
    ) -> M:
        """A trained model from its run folder.

        Args:
            run: a `Run`, or the path of a run folder.
            device: where to put it; by default a GPU where there is one.
            weights: ``"ema"`` or ``"raw"``.
            name: how tables call it; the run's name by default.
            build: makes the module of the run's spec; `build` by default.

        Raises:
            UserError: the folder is not a finished run of this kind, or weights other than those two are asked for.
            StoreError: a file is missing, truncated, or of another architecture.
        """
        run = finished_run(run, self.name)
        tensors, path = final_weights(run, weights)
        module = (build or self.build)(run.spec).to(resolve_device(device))
        more = {"run": run.hash[:12], "seconds": (run.summary or {}).get("seconds")}
        return self._model(name or run.name, run.spec, module, tensors, weights, str(path), run.folder, more)

    @plain_defaults()
    def of_weights(
        self,
        name: str,
        spec: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        source: str,
        device: str | torch.device | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> M:
        """A trained model from averaged weights that lie in no run folder.

        Args:
            name: how tables call it.
            spec: that it was trained by.
            tensors: the weights of its `part`.
            source: how messages call them, their path for example.
            device: where to put it; by default a GPU where there is one.
            more: provenance beside the spec's.

        Raises:
            StoreError: weights of another architecture.
        """
        module = self.build(spec).to(resolve_device(device))
        return self._model(name, spec, module, tensors, source=source, more=more)

    def _kept(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        prefix = f"{self.part}." if self.part else ""
        return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}

    def _model(
        self,
        name: str,
        spec: Mapping[str, Any],
        module: N,
        tensors: Mapping[str, Tensor],
        weights: str = "ema",
        source: str = "the average",
        folder: Path | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> M:
        load_weights(module.get_submodule(self.part), tensors, source)
        facts = {
            **self.facts(spec, module),
            "seeds": spec["settings"]["seeds"],
            "steps": spec.get("stopped", spec["settings"]["steps"]),
            "weights": weights,
            "data": spec["data"],
            **{key: spec[key] for key in ("start", "lr_scheduler") if key in spec},
            "spec": spec,
            **(more or {}),
        }
        return self.wrap(name, module.eval(), facts, folder)
