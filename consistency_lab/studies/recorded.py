"""What a result was made of, as its provenance has it: models by their specs, image sets by their fingerprints, found or made again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images, source_of
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.errors import UserError
from consistency_lab.model_kinds import MODEL_KINDS
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training.describing import changed_settings
from consistency_lab.training.model_kind import ModelKind
from consistency_lab.training.train import load_snapshots
from consistency_lab.zoo import ZOO, open_zoo

_logger = logging.getLogger(__name__)


@dataclass
class RecordedImages:
    """Image sets by name and fingerprint.

    Attributes:
        given: sources that were named by the caller (see `load_images`), looked at first.
        data_dir: folder with the files of published sets.
    """

    given: Sequence[str] = ()
    data_dir: Path | None = None
    _read: dict[str, ImageSet] = field(default_factory=dict)

    def find(self, data: Mapping[str, Any]) -> ImageSet:
        """The set of that fingerprint; else, with a warning, the one of that name that is here.

        Raises:
            UserError: no set of that name is known, or its files are missing.
        """
        name, wanted = str(data["name"]), data["fingerprint"]
        for source in self.given:
            if (images := self._of(source)).fingerprint == wanted:
                return images
        named = source_of(name)
        if named is None:
            raise UserError(
                f"the images {name!r} (fingerprint {wanted[:12]}) are missing; name their file or folder with --data."
            )
        images = self._of(str(named))
        if images.fingerprint != wanted:
            _logger.warning("the images %r are not those of the result: they have another fingerprint.", name)
        return images

    def _of(self, source: str) -> ImageSet:
        if source not in self._read:
            self._read[source] = load_images(source, data_dir=self.data_dir)
        return self._read[source]


@dataclass(frozen=True)
class RecordedModel:
    """A model that a result is of.

    Attributes:
        facts: what the provenance says of it: name, kind, weights, steps, ...
        spec: of its run.
    """

    facts: Mapping[str, Any]
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def kind(self) -> ModelKind[Any, Any, Any]:
        name = str(self.facts.get("kind"))
        return MODEL_KINDS["model" if name == "diffusion" else name]

    @property
    def settings(self) -> Any:
        settings = self.kind.settings.from_spec(self.spec["settings"])
        return settings.with_one_seed()

    def kept(self, store: Store) -> Run | None:
        """Its finished run, if the store has it."""
        run = store.run(self.kind.name, self.name, self.spec)
        return run if run.done and not run.stale else None

    def shipped(self, device: str | None = None) -> Any:
        """The model as it ships with the package; None where it does not, or not as trained by that spec."""
        name = self.facts.get("zoo")
        model: Any = open_zoo(name, device=device) if name in ZOO.names() else None
        return model if model is not None and model.facts["spec"] == self.spec else None

    def training(self) -> str:
        """What would be trained, in words."""
        changed = changed_settings(self.spec["settings"], self.kind.settings(), self.kind.settings.registries())
        return f"train a {self.kind.name} on {self.spec['data']['name']}: {', '.join(changed) or 'all at defaults'}"

    def check_trainable(self) -> None:
        """Raise `UserError` for what a spec alone does not train."""
        steps = self.spec["settings"]["steps"]
        why = {
            "start": "it goes on from another model, whose weights are not in the result",
            "lr_scheduler": "its learning rate follows a scheduler of the caller's",
            "stopped": f"a callback of the caller's stopped it before its {steps} steps",
        }
        found = next((reason for key, reason in why.items() if key in self.spec), None)
        if "module" in self.spec["settings"].get("network", {}):
            found = "its network is the caller's own"
        if found:
            raise UserError(
                f"{self.name!r} cannot be trained again from its spec: {found}; name the store that has it with --store."
            )

    def ready(self, store: Store, images: RecordedImages, device: str | None, progress: bool | None) -> Any:
        """The model: of the zoo, if it was one; from the store, where that has the run; else trained into it.

        Raises:
            UserError: it cannot be trained again, or its images are missing or are others.
        """
        model = self.shipped(device) or self._run(store, images, device, progress)
        steps = self.facts.get("steps")
        if steps != model.facts["steps"]:
            model = self._snapshot(model, steps)
        if "guidance" in self.facts:
            model = model.guided(self.facts["guidance"])
        return replace(model, name=self.name)

    def _run(self, store: Store, images: RecordedImages, device: str | None, progress: bool | None) -> Any:
        run = self.kept(store)
        if run is None:
            self.check_trainable()
            data = images.find(self.spec["data"])
            if data.fingerprint != self.spec["data"]["fingerprint"]:
                raise UserError(
                    f"{self.name!r} was trained on other images than the {data.name!r} that are here (fingerprint "
                    f"{data.fingerprint[:12]} instead of {self.spec['data']['fingerprint'][:12]}); name the right ones with --data."
                )
            made = self.kind.train(data, settings=self.settings, store=store, device=device, progress=progress)
            run = Run.open(made.folder)
        return self.kind.load(run, device=device, weights=str(self.facts.get("weights", "ema")))

    def _snapshot(self, model: Any, step: Any) -> Any:
        if isinstance(model, DiffusionModel) and (found := dict(load_snapshots(model, {step}))):
            return found[step]
        raise UserError(f"the run of {self.name!r} kept no weights of step {step}.")


def recorded_models(facts: Mapping[str, Any], store: Store) -> dict[str, list[RecordedModel]]:
    """The models of a result by the part that they play: ``models`` in their order, ``again`` for a second run of the first.

    Raises:
        UserError: a model that was not trained by this package, or whose spec is neither in the result nor in the store.
    """
    models = facts.get("models") or [facts["model"]]
    if "towards" in facts:
        models = [*models, facts["towards"]]
    parts = {"models": [*models, *facts.get("through", [])], "again": [facts["again"]] if "again" in facts else []}
    specs = facts.get("specs", {})
    return {part: [_recorded(each, specs, store) for each in own] for part, own in parts.items()}


def _recorded(facts: Mapping[str, Any], specs: Mapping[str, Any], store: Store) -> RecordedModel:
    name = str(facts.get("name"))
    if name in specs:
        return RecordedModel(facts, specs[name])
    if "run" not in facts:
        source = facts.get("source") or facts.get("kind") or "a network of the caller's"
        raise UserError(
            f"{name!r} was not trained by this package ({source}), so the result does not hold what it takes to make it again; its files "
            "are needed: measure them with the command that the result is of."
        )
    found = next(_runs_of(store, str(facts["run"])), None)
    if found is None:
        raise UserError(
            f"the result is of an earlier version, which did not record the spec of {name!r}, and {store.root} does not have its run "
            f"{facts['run']}; name the store that has it with --store."
        )
    return RecordedModel(facts, found.spec)


def _runs_of(store: Store, digest: str) -> Iterator[Run]:
    return (run for run in store.runs() if run.hash.startswith(digest))
