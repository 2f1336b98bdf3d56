"""Why do the outputs agree? Every probe on every family of the main table, with a GAN and a VAE beside the diffusion models.

Numbers that are compared between kinds of models have no scale of weights or of loss in them: a loss in nats and a squared error cannot
be put on one axis, their relative curvature, roughness and predictiveness along filter-normalised directions can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from consistency_lab.contrast.model import ContrastModel
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.model import DiffusionModel, GenerativeModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import unknown_name
from consistency_lab.intervals import Interval, as_columns, interval_names, interval_of
from consistency_lab.paper.rows import Rows
from consistency_lab.probes.curvature import curvature_spectrum
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.landscape import line_landscape
from consistency_lab.probes.profiles import difficulty_correlations, difficulty_table
from consistency_lab.probes.structure import probe_structure
from consistency_lab.probes.subject import Subject, diffusion_subject
from consistency_lab.store.results import provenance
from consistency_lab.store.runs import Store
from consistency_lab.store.spec import MEASURES_VERSION
from consistency_lab.studies.connectivity import probe_connectivity
from consistency_lab.studies.contrast_subject import contrast_subject
from consistency_lab.studies.fleet import Family, check_families

PROBES = ("line", "between", "curvature", "difficulty", "structure", "connectivity")
# How much of each probe: what its cost is made of, see why_cost.py.
LINE: dict[str, Any] = {"points": 25}
LINE_SPAN = 0.5  # of a random line
CURVATURE: dict[str, Any] = {"eigenvalues": 2, "probes": 3, "steps": 25, "products": 24}
DIFFICULTY: dict[str, Any] = {"bins": 20, "detail": 32}
STRUCTURE: dict[str, Any] = {"sampler": Sampler(steps=50), "levels": 14}
CONNECTIVITY: dict[str, Any] = {"bins": 10, "points": 21, "steps": 300, "samples": 128, "sampler": Sampler(steps=25)}
Question = tuple[str, Family, str | None]
"""Probe, family, and the network of a GAN."""


class Why:
    """The probes of one data set. Each answer is a row of numbers, stored when it is finished, and a result in the store.

    Args:
        images, held_out: what the models were trained on, and images that they were not: losses are taken on the latter.
        store: where results are kept.
        rows: where finished rows are kept.
        count, bins: images of a loss, and noise levels of a diffusion model's.
        seed: of noise and directions.
        say: is told what happens.

    Raises:
        UserError: what is no image set.
    """

    def __init__(
        self,
        images: ImageSet,
        held_out: ImageSet,
        store: Store,
        rows: Rows,
        *,
        count: int = 64,
        bins: int = 10,
        seed: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ):
        for part in (images, held_out):
            check_set(part)
        self.images, self.held_out, self.store, self.rows, self.say = images, held_out, store, rows, say
        self.count, self.bins, self.seed = count, bins, seed

    def table(self, families: Sequence[Family], probes: Sequence[str] = PROBES) -> pd.DataFrame:
        """One row per probe and family, with the numbers of `values_of`.

        Lines and spectra are taken of all families, of a GAN's generator and discriminator; the other probes are about noise levels, or
        train on them, and ask diffusion models alone.
        """
        found = []
        for probe, family, part in self.asked(families, probes):
            name = f"{family.name} {part}" if part == "discriminator" else family.name
            found.append({"probe": probe, "family": name, **self._row(probe, family, part)})
        return pd.DataFrame(found)

    def missing(self, families: Sequence[Family], probes: Sequence[str] = PROBES) -> Iterator[Question]:
        """What neither a row nor a result in the store answers yet: probe, family and part."""
        for question in self.asked(families, probes):
            if (
                self.rows.find(self._spec(*question)) is None
                and not self.store.run("why", "", self._spec(*question)).done
            ):
                yield question

    def asked(self, families: Sequence[Family], probes: Sequence[str] = PROBES) -> Iterator[Question]:
        """The questions of a table: probe, family and part. Raises `UserError` for unknown probes, and for what is no family."""
        check_families(families)
        for probe in probes:
            if probe not in PROBES:
                raise unknown_name("probe", probe, PROBES)
        for family in families:
            for probe in probes:
                if not family.diffusion and probe not in ("line", "between", "curvature"):
                    continue
                for part in self._networks(family):
                    yield probe, family, part

    def result(self, probe: str, family: Family, part: str | None = None) -> xr.Dataset:
        """The result behind a row, computed the first time."""
        spec = self._spec(probe, family, part)
        name = f"{probe}-{family.name}{f'-{part}' if part else ''}"
        return self.store.result("why", name, spec, partial(getattr(self, f"_{probe}"), family, part))

    def _networks(self, family: Family) -> tuple[str | None, ...]:
        return ("generator", "discriminator") if family.kind == "gan" else (None,)

    def _row(self, probe: str, family: Family, part: str | None) -> dict[str, Any]:
        def compute() -> dict[str, Any]:
            self.say(f"probing {probe} of {family.name}{f', {part}' if part else ''}")
            return values_of(self.result(probe, family, part))

        return self.rows.row(self._spec(probe, family, part), compute)

    def _spec(self, probe: str, family: Family, part: str | None) -> dict[str, Any]:
        own = {"probe": probe, "family": family.name, "models": list(family.identities[:2]), "part": part}
        sets = {"data": self.images.fingerprint, "held_out": self.held_out.fingerprint}
        how = {"count": self.count, "bins": self.bins, "seed": self.seed, "measures_version": MEASURES_VERSION}
        return {"row": "why", **own, **sets, **how}

    def subject(
        self, model: GenerativeModel, part: str | None, count: int | None = None, bins: int | None = None
    ) -> Subject:
        """What lines are drawn through."""
        count = count or self.count
        if isinstance(model, ContrastModel):
            return contrast_subject(model, self.held_out, part=part, count=count, seed=self.seed)
        assert isinstance(model, DiffusionModel)  # families are of models that were trained here
        return diffusion_subject(model, self.held_out, count=count, bins=bins or self.bins, seed=self.seed)

    def bent(self, model: GenerativeModel, part: str | None) -> Subject:
        """What the curvature is of: a product costs as much as some passes over all samples."""
        return self.subject(model, part, count=min(16, self.count), bins=4)

    def _line(self, family: Family, part: str | None) -> xr.Dataset:
        return line_landscape(self.subject(family.models()[0], part), span=LINE_SPAN, seed=self.seed, **LINE)

    def _between(self, family: Family, part: str | None) -> xr.Dataset:
        first, second = family.models()[:2]
        subject = self.subject(first, part)
        other = self.subject(second, part)
        # Both ends are asked with the first one's opponent, where there is one: it is part of the question.
        return line_landscape(subject, towards=subject.asked_of(other.module, second.name), **LINE)

    def _curvature(self, family: Family, part: str | None) -> xr.Dataset:
        return curvature_spectrum(self.bent(family.models()[0], part), seed=self.seed, scaled=True, **CURVATURE)

    @property
    def looked_at(self) -> int:
        """Images of the difficulty."""
        return min(2 * self.count, len(self.held_out))

    def _difficulty(self, family: Family, part: None) -> xr.Dataset:
        (model,) = _diffusion(family, 1)
        return probe_difficulty(
            model, self.held_out, count=self.looked_at, seed=self.seed, training_images=self.images, **DIFFICULTY
        )

    def _structure(self, family: Family, part: None) -> xr.Dataset:
        return probe_structure(
            _diffusion(family, 2), self.images, SharedNoise(self.seed), count=self.count, **STRUCTURE
        )

    def _connectivity(self, family: Family, part: None) -> xr.Dataset:
        first, second = _diffusion(family, 2)
        return probe_connectivity(
            first, second, self.images, self.held_out, count=self.count, seed=self.seed, **CONNECTIVITY
        )


def _diffusion(family: Family, models: int) -> list[DiffusionModel]:
    """The first models of a family, which is one of diffusion models."""
    return [model for model in family.models()[:models] if isinstance(model, DiffusionModel)]


def values_of(result: xr.Dataset) -> dict[str, Any]:
    """The numbers of a result that a table shows: each with its interval under ``..._low`` and ``..._high``, None where undefined."""
    return _plain(_VALUES[result.attrs["kind"]](result))


def _of_line(result: xr.Dataset) -> dict[str, Any]:
    """Single numbers, and what depends on the reach at each of them: ``roughness_on_0.05``, ``predictiveness_at_0.05``."""
    values = {str(key): value.item() for key, value in result.data_vars.items() if not value.dims}
    for name, over in (("roughness_on", "span"), ("predictiveness_at", "distance")):
        if name in result:
            for i, reach in enumerate(result[over].values):
                values |= as_columns(f"{name}_{reach:g}", interval_of(result.isel({over: i}), name))
    return values


def _of_curvature(result: xr.Dataset) -> dict[str, Any]:
    """Over all samples; ``relative_trace``: the trace over the loss at the model; ``negative_share``: of the eigenvalues' density."""
    values: dict[str, Any] = {"parameters": int(result["parameters"]), "loss": float(result["loss"][0])}
    for operator in result["operator"].values:
        one = result.sel(operator=operator).isel(part=0)
        found = {side: interval_of(one.sel(end=side, rank=1), "eigenvalue") for side in ("top", "bottom")}
        found["trace"] = interval_of(one, "trace")
        found |= {f"relative_{x}": Interval(*(end / values["loss"] for end in found[x])) for x in ("trace", "top")}
        for name, number in found.items():
            values |= as_columns(f"{operator}_{name}", number)
        values[f"{operator}_top_converged"] = bool(one["converged"].sel(end="top", rank=1))
        grid, density = one["grid"].values, one["density"].values
        values[f"{operator}_negative_share"] = float(
            np.trapezoid(np.where(grid < -2 * float(one["width"]), density, 0.0), grid)
        )
    parts = result.isel(operator=0)
    values["trace_by_t"] = dict(zip(result["part"].values.tolist(), parts["trace"].values.tolist(), strict=True))
    return values


def _of_difficulty(result: xr.Dataset) -> dict[str, Any]:
    return {
        "excess_over_optimal_on": provenance(result)["excess_over_optimal_on"],
        "definitions": difficulty_table(result).to_dict("records"),
        "rank_correlations": difficulty_correlations(result).to_dict("records"),
    }


def _of_structure(result: xr.Dataset) -> dict[str, Any]:
    """Where half of the image is fixed, and where it changes sides: means over the models (or directions) of a pair."""
    whole = result.sel(part=result["part"].values[0])
    values: dict[str, Any] = {}
    for name, variable in (("half_known_t", "fixed_t"), ("swap_t", "swap_switch_t"), ("handoff_t", "handoff_switch_t")):
        values |= as_columns(name, (whole[end].mean() for end in interval_names(variable)))
    return values


def _of_connectivity(result: xr.Dataset) -> dict[str, Any]:
    values = as_columns("mean_loss", interval_of(result, "mean_loss"))
    values |= as_columns("consistency", interval_of(result, "consistency"))
    for path in result["path"].values:
        values |= as_columns(f"barrier_{path}", interval_of(result.sel(path=path), "barrier"))
    return values


_VALUES: dict[str, Callable[[xr.Dataset], dict[str, Any]]] = {
    "landscape": _of_line,
    "curvature": _of_curvature,
    "difficulty": _of_difficulty,
    "structure": _of_structure,
    "connectivity": _of_connectivity,
}


def _plain(value: Any) -> Any:
    """As JSON takes it: NaN and infinities are None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
