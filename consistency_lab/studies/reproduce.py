"""A result measured again from what it says of itself: the same models, found or trained, asked the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from consistency_lab.contrast.model import ContrastModel
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import Distance
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.landscape import line_landscape
from consistency_lab.probes.plane import plane_landscape
from consistency_lab.probes.subject import Subject, diffusion_subject
from consistency_lab.similarity.compare import compare
from consistency_lab.store.results import provenance
from consistency_lab.store.runs import Store
from consistency_lab.studies.agreement import DIFFERS, Agreement, agreements, made_differently
from consistency_lab.studies.contrast_subject import contrast_subject
from consistency_lab.studies.recorded import RecordedImages, RecordedModel, recorded_models

Metrics = Sequence[str | Distance]


@dataclass(frozen=True)
class Reproduction:
    """A result and its repetition.

    Attributes:
        result: what was measured now.
        agreements: of every number of the first.
        differently: in what the two were made differently: versions, device, threads, data; a line each.
    """

    result: xr.Dataset
    agreements: list[Agreement]
    differently: list[str]

    @property
    def agrees(self) -> bool:
        """Whether every number is equal, equal to rounding, or within its interval."""
        return all(each.status != DIFFERS for each in self.agreements)


@dataclass(frozen=True)
class Recorded:
    """What it takes to measure a result again; `read_recorded` reads it, and nothing is trained before `measured`.

    Attributes:
        first: the result.
        facts: its provenance.
        models, again: that it is of.
        images: where image sets are found.
    """

    first: xr.Dataset
    facts: Mapping[str, Any]
    models: list[RecordedModel]
    again: list[RecordedModel]
    images: RecordedImages

    @property
    def sets(self) -> list[Mapping[str, Any]]:
        """The image sets that it was measured on, by name and fingerprint."""
        known = [self.facts.get("data"), self.facts.get("images"), self.facts["asked"].get("training_images")]
        return [data for data in known if data]

    def metrics(self, change: Callable[[Sequence[str]], Metrics] = list) -> Metrics:
        """The metrics that were asked for, as ``change`` has them. Raises `UserError` for one that was no text."""
        asked = self.facts["asked"].get("metrics", [])
        for name, text in zip(self.first["metric"].values if asked else [], asked, strict=True):
            if text is None:
                raise UserError(
                    f"the metric {str(name)!r} was given as an object, which a result cannot hold; compare in Python again."
                )
        return change(asked)

    def measured(
        self,
        store: Store,
        metrics: Metrics,
        *,
        device: str | None = None,
        progress: bool | None = None,
    ) -> Reproduction:
        """Find or train the models, measure again and compare.

        Raises:
            UserError: models or images that are missing.
        """
        for model in (*self.models, *self.again):
            if model.shipped("cpu") is None and model.kept(store) is None:
                model.check_trainable()
        sets = [self.images.find(data) for data in self.sets]
        options: dict[str, Any] = {"device": device, "progress": progress}
        models = [model.ready(store, self.images, **options) for model in self.models]
        second = [model.ready(store, self.images, **options) for model in self.again]
        if self.first.attrs["kind"] == "comparison":
            result = _comparison(self.facts, models, second, sets, metrics)
        else:
            result = _PROBES[self.first.attrs["kind"]](self.facts, models, sets)
        said = made_differently(self.facts, provenance(result))
        return Reproduction(result, agreements(self.first, result), said)


def read_recorded(
    first: xr.Dataset, store: Store, *, data: Sequence[str] = (), data_dir: Path | None = None
) -> Recorded:
    """What a result says of how it was made.

    Args:
        first: a comparison, a difficulty, or a landscape of a line or a plane.
        store: where runs are looked up.
        data: image sets that the result is of, where their names do not say what they are (see `load_images`).
        data_dir: folder with the files of published sets.

    Raises:
        UserError: another kind of result, one that does not hold what it takes, or a model that this package did not train.
        StoreError: no provenance.
    """
    facts, kind = provenance(first), str(first.attrs.get("kind"))
    if kind != "comparison" and kind not in _PROBES:
        known = ", ".join(("comparison", *_PROBES))
        raise UserError(f"a result of the kind {kind!r} cannot be measured again by itself; these can: {known}.")
    if not (facts.get("models") or facts.get("model")):
        raise UserError(f"the provenance of this {kind} names no model, so it cannot be measured again.")
    parts = recorded_models(facts, store)
    if "asked" not in facts:
        raise UserError(
            f"this {kind} is of an earlier version, which did not record all that was asked (levels, metrics, points); measure it anew, "
            f"of the models {', '.join(model.name for model in parts['models'])}."
        )
    return Recorded(first, facts, parts["models"], parts["again"], RecordedImages(data, data_dir))


@plain_defaults()
def _comparison(
    facts: Mapping[str, Any], models: list[Any], second: list[Any], sets: list[Any], metrics: Metrics
) -> xr.Dataset:
    asked = dict(facts["asked"])
    # A block of all samples is no block, and may be smaller than one that is asked for.
    block = None if asked["block"] is None else max(asked["block"], 4)
    return compare(
        models,
        SharedNoise(facts["noise_seed"]),
        sampler=Sampler(**facts["sampler"]) if "sampler" in facts else None,
        images=sets[0] if sets else None,
        labels=facts.get("labels"),
        again=second[0] if second else None,
        **{**asked, "metrics": metrics, "block": block},
    )


def _difficulty(facts: Mapping[str, Any], models: list[Any], sets: list[Any]) -> xr.Dataset:
    asked = dict(facts["asked"])
    if (snapshots := asked.pop("snapshots")) == "given":
        raise UserError("the snapshots of this difficulty were given by its caller, and a result does not hold them.")
    model = models[0] if snapshots else replace(models[0], folder=None)  # a run that is looked into is another question
    images, pool = sets
    return probe_difficulty(model, images, **{**asked, "training_images": pool})


def _line(facts: Mapping[str, Any], models: list[Any], sets: list[Any]) -> xr.Dataset:
    subject, *others = _subjects(facts, models, sets[0])
    return line_landscape(subject, towards=others[0] if others else None, seed=facts["seed"], **_reach(facts))


def _plane(facts: Mapping[str, Any], models: list[Any], sets: list[Any]) -> xr.Dataset:
    subject, *others = _subjects(facts, models, sets[0])
    return plane_landscape(subject, through=others or None, seed=facts["seed"], **_reach(facts))


def _reach(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts["asked"][key] for key in ("points", "span", "one_dimensional")}


def _subjects(facts: Mapping[str, Any], models: list[Any], images: Any) -> list[Subject]:
    found = []
    for model in models:
        options: dict[str, Any] = {"count": facts["images"]["used"], "seed": facts["noise_seed"]}
        if isinstance(model, ContrastModel):
            found.append(contrast_subject(model, images, part=facts["part"], **options))
        else:
            units = str(facts["loss_units"]).rpartition(" ")[2]
            found.append(diffusion_subject(model, images, bins=facts["asked"]["bins"], units=units, **options))
    if found[0].batch.fingerprint != facts["batch"] and images.fingerprint == facts["images"]["fingerprint"]:
        raise UserError(
            "the batch of this landscape is another than that of its images, noise and levels: it was chosen by its caller, and a result "
            "does not hold it."
        )
    return found


_PROBES: dict[str, Callable[[Mapping[str, Any], list[Any], list[Any]], xr.Dataset]] = {
    "difficulty": _difficulty,
    "landscape": _line,
    "plane": _plane,
}
