"""A gate's score in a small JSON file that is committed beside the code: what later gates are held to, and what it was made with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import xarray as xr

from consistency_lab.errors import StoreError, UserError
from consistency_lab.intervals import as_value, interval_of
from consistency_lab.store.atomic import as_path, atomic_write
from consistency_lab.store.results import provenance

FORMAT = "consistency-lab gate baseline 1"
# What is recorded beside the scores, and said where it is another now.
_FACTS = (
    "reference",
    "candidate",
    "samples",
    "noise_seed",
    "sampler",
    "labels",
    "platform",
    "device",
    "accelerator",
    "measures_version",
)


@dataclass(frozen=True)
class Baseline:
    """Scores that a gate once had.

    Attributes:
        scores: of each metric ``{"value": ..., "low": ..., "high": ...}``.
        tolerance: how far a later score may lie below.
        facts: models, samples, sampler, device and versions of that gate.
    """

    scores: Mapping[str, Mapping[str, float | None]]
    tolerance: float
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, result: xr.Dataset, tolerance: float = 0.01) -> Self:
        """The last look of a gate. Raises `UserError` where a score is undefined or the tolerance is no share."""
        last = result.isel(look=-1)
        scores = {str(name): as_value(interval_of(last.sel(metric=name), "score")) for name in result["metric"].values}
        if undefined := [name for name, score in scores.items() if not np.isfinite(score["value"])]:
            raise UserError(f"the score by {undefined[0]} is undefined, so it cannot be a baseline.")
        if not 0 <= tolerance < 1:
            raise UserError(f"the tolerance of a baseline is a share of the null from 0 to 1, not {tolerance!r}.")
        finite = {
            name: {key: value if np.isfinite(value) else None for key, value in score.items()}
            for name, score in scores.items()
        }
        return cls(finite, float(tolerance), _facts(result))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """The baseline in a file. Raises `StoreError` if there is none, or it is no baseline."""
        path = as_path(path)
        try:
            found = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise StoreError(f"there is no baseline {path} ({error.strerror}); --write-baseline makes one.") from None
        except ValueError:
            found = None
        if (
            not isinstance(found, dict)
            or found.pop("format", None) != FORMAT
            or set(found) != {"scores", "tolerance", "facts"}
        ):
            raise StoreError(f"{path} is no baseline of a gate; make it again with --write-baseline.")
        return cls(**found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all. Raises `StoreError` if ``path`` cannot be written."""
        atomic_write(as_path(path), json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n")

    def bound(self, metric: str) -> float:
        """What a score must reach: the estimate less the tolerance. Raises `UserError` for a metric that it does not have."""
        if metric not in self.scores:
            raise UserError(
                f"the baseline has no score by {metric}, only by {', '.join(self.scores)}; make it again with that metric."
            )
        return float(self.scores[metric]["value"] or 0.0) - self.tolerance

    def differences(self, result: xr.Dataset) -> list[str]:
        """What is not as it was when the baseline was made, a sentence each: nothing to fail for, but to know."""
        return [
            f"baseline: {key} was {_said(self.facts.get(key))} and is {_said(now)}."
            for key, now in _facts(result).items()
            if key != "samples" and self.facts.get(key) != now  # a gate stops when it can tell
        ]


def _facts(result: xr.Dataset) -> dict[str, Any]:
    """Those of a gate that its numbers may rest on, on one level."""
    every = provenance(result)
    every["reference"], every["candidate"] = (model["name"] for model in every["models"][:2])
    versions = {f"version of {name}": version for name, version in every["versions"].items() if version is not None}
    return {**{key: every[key] for key in _FACTS if every.get(key) is not None}, **versions}


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "not recorded" if value is None else str(value)


def baseline_of(given: Baseline | str | os.PathLike[str] | None) -> Baseline | None:
    """A baseline as it is given, or read from its file."""
    return given if given is None or isinstance(given, Baseline) else Baseline.read(given)
