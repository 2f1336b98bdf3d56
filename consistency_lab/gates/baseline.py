"""A gate's score in a small JSON file that is committed beside the code: what later gates are held to, and what it was made with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import xarray as xr

from consistency_lab.errors import StoreError, UserError
from consistency_lab.inputs import check_file
from consistency_lab.intervals import as_value, interval_of
from consistency_lab.json_text import parsed
from consistency_lab.store.atomic import as_path, atomic_write, unreadable
from consistency_lab.store.checksums import checked, with_checksum
from consistency_lab.store.results import provenance

FORMAT = "consistency-lab gate baseline 1"
# What is recorded beside the scores, and said where it is another now.
_FACTS = (
    "samples",
    "noise_seed",
    "sampler",
    "labels",
    "platform",
    "device",
    "accelerator",
    "measures_version",
)
_PLACES = (
    "path",
    "run",
    "made",
    "seconds",
    "batch",
)  # of a model: where it is and how fast it was made, which no number rests on


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
        check_file(path)
        try:
            found = parsed(path.read_text("utf-8"))
        except FileNotFoundError:
            raise StoreError(f"there is no baseline {path}; --write-baseline makes one.") from None
        except OSError as error:
            raise unreadable(path, error) from None
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise StoreError(f"{path} is no baseline of a gate; make it again with --write-baseline.")
        found = checked(found, path, "restore it from git, or take its 'checksum' out if the change is yours")
        del found["format"]
        if wrong := _wrong(found):
            raise StoreError(f"{path} is damaged, or was edited: {wrong}; make it again with --write-baseline.")
        return cls(**found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all. Raises `StoreError` if ``path`` cannot be written."""
        content = with_checksum({"format": FORMAT, **asdict(self)})
        atomic_write(as_path(path), json.dumps(content, indent=2, sort_keys=True) + "\n")

    def bound(self, metric: str) -> float:
        """What a score must reach: the estimate less the tolerance. Raises `UserError` for a metric that it does not have."""
        if metric not in self.scores:
            raise UserError(
                f"the baseline has no score by {metric}, only by {', '.join(self.scores)}; make it again with that metric."
            )
        value = self.scores[metric]["value"]
        assert value is not None  # only the ends of an interval may be unknown
        return float(value) - self.tolerance

    def differences(self, result: xr.Dataset) -> list[str]:
        """What is not as it was when the baseline was made, a sentence each: nothing to fail for, but to know."""
        now = json.loads(json.dumps(_facts(result)))  # as the file gives them
        return [
            f"baseline: {key} was {_said(self.facts.get(key))} and is {_said(now.get(key))}."
            for key in dict.fromkeys([*now, *self.facts])
            if key != "samples" and self.facts.get(key) != now.get(key)  # a gate stops when it can tell
        ]

    def out_of_reach(self, result: xr.Dataset) -> list[str]:
        """A sentence for each metric by which this very gate would not pass: its own lower end lies below the bound."""
        return [
            f"with {result.sizes['sample']} samples the candidate itself cannot pass this baseline: the lower end of its score by {name} "
            f"is {'unknown' if end is None else f'{end:.4g}'}, the bound {self.bound(name):.4g}; take more samples, or a larger tolerance."
            for name, score in self.scores.items()
            if (end := score["low"]) is None or end < self.bound(name)
        ]


def _wrong(found: Mapping[str, Any]) -> str:
    """What is wrong with the contents of a baseline's file; empty if nothing is."""
    if set(found) != {"scores", "tolerance", "facts"}:
        return "it holds " + (", ".join(sorted(found)) or "nothing")
    scores, tolerance = found["scores"], found["tolerance"]
    if not _number(tolerance) or not 0 <= tolerance < 1:
        return f"its tolerance is {tolerance!r}, which is no share from 0 to 1"
    if not isinstance(found["facts"], dict):
        return "its facts are no facts by name"
    if not isinstance(scores, dict) or not scores:
        return "it has no scores"
    for name, score in scores.items():
        if not isinstance(score, dict) or set(score) != {"value", "low", "high"}:
            return f"its score by {name} is no value with its two ends"
        low, value, high = score["low"], score["value"], score["high"]
        known = [each for each in (low, value, high) if each is not None]
        if value is None or not all(_number(each) and each <= 1 for each in known) or known != sorted(known):
            return f"its score by {name} is {value!r} from {low!r} to {high!r}"
    return ""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _facts(result: xr.Dataset) -> dict[str, Any]:
    """Those of a gate that its numbers may rest on, on one level: all that is known of both models among them."""
    every = provenance(result)
    facts = {key: every[key] for key in _FACTS if every.get(key) is not None}
    for role, model in zip(("reference", "candidate"), every["models"], strict=False):
        known = {key: value for key, value in model.items() if value is not None and key not in _PLACES}
        facts |= {role if key == "name" else f"{key} of {role}": value for key, value in known.items()}
    return facts | {f"version of {name}": value for name, value in every["versions"].items() if value is not None}


def _said(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} of them" if len(value) > 3 else ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "not recorded" if value is None else str(value)


def baseline_of(given: Baseline | str | os.PathLike[str] | None) -> Baseline | None:
    """A baseline as it is given, or read from its file."""
    return given if given is None or isinstance(given, Baseline) else Baseline.read(given)
