"""Findings in, training settings out, with the derivation as text. Nothing is computed here that is not in the findings.

Two rules, after 2404.07946:

* Density over t. The paper trains hard timesteps more often. Difficulty is read as the root of the second moment of the loss at each
  t, in the units of the objective (eps): the density that Nichol & Dhariwal (2102.09672, equation 18) derive for importance sampling. It
  is used without importance weights, as in the paper, so it changes the objective; a uniform floor keeps every time trained.
* Momentum. The paper argues that on a smooth landscape a large momentum wastes steps, and lets it decay with a compensated learning rate
  (MDLRC). Smooth means here that the line through the model deviates from its best quadratic by less than `SMOOTH` of its range.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from consistency_lab.errors import UserError
from consistency_lab.store.results import with_provenance
from consistency_lab.training.settings import TrainingSettings

FLOOR = 0.1
SMOOTH = 0.05


@dataclass(frozen=True)
class Recipe:
    """Changes to training settings, and why.

    Attributes:
        changes: fields of `TrainingSettings` with their new values.
        reasons: one sentence per change, with the numbers that it follows from.
        density: (t, value) pairs of the density over t, for figures.
    """

    changes: dict[str, object]
    reasons: tuple[str, ...]
    density: tuple[tuple[float, float], ...] = field(default=(), repr=False)

    @classmethod
    def from_findings(
        cls, difficulty: xr.Dataset, landscape: xr.Dataset | Sequence[xr.Dataset] | None = None
    ) -> Recipe:
        """Derive a recipe.

        Args:
            difficulty: of a pilot model, on images of the kind to be trained on.
            landscape: one or several of the same pilot; without any, momentum stays as it is.

        Raises:
            UserError: a result of another kind.
        """
        landscapes = [] if landscape is None else [landscape] if isinstance(landscape, xr.Dataset) else list(landscape)
        for result, kind in [(difficulty, "difficulty"), *((x, "landscape") for x in landscapes)]:
            if result.attrs.get("kind") != kind:
                raise UserError(f"a recipe needs a {kind} result here, not {result.attrs.get('kind')!r}.")
        values, reasons = _density(difficulty)
        changes: dict[str, object] = {
            "timesteps": f"density(floor={FLOOR}, values={[round(float(v), 4) for v in values]})"
        }
        if landscapes:
            momentum, reason = _momentum(landscapes)
            changes["momentum"] = momentum
            reasons.append(reason)
        t = difficulty["t"].values
        width = t[1] - t[0] if len(t) > 1 else 1.0
        density = FLOOR / (len(t) * width) + (1 - FLOOR) * values / (values.sum() * width)
        return cls(changes, tuple(reasons), tuple(zip(t.tolist(), density.tolist(), strict=True)))

    def apply(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings with the recipe's changes."""
        return settings.replace(**self.changes)

    def to_dataset(self, title: str = "recipe") -> xr.Dataset:
        """The recipe as a result that figures and reports read."""
        t, density = zip(*self.density, strict=True)
        result = xr.Dataset({"density": ("t", np.array(density))}, coords={"t": np.array(t)})
        result.attrs.update(title=title, reasons=json.dumps(self.reasons), settings=json.dumps(self.changes))
        return with_provenance(result, "recipe", changes=self.changes, reasons=list(self.reasons))

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def _density(difficulty: xr.Dataset) -> tuple[np.ndarray, list[str]]:
    """Values over the difficulty's times, highest 1."""
    error = difficulty["error"].sel(units="eps").values.astype(np.float64)  # (t, sample)
    values = np.sqrt((error**2).mean(1))
    if not np.isfinite(values).all() or not values.max() > 0:
        raise UserError(
            "the difficulty result has no finite, positive errors in eps; probe a model that has been trained."
        )
    values = values / values.max()
    t = difficulty["t"].values
    cumulative = np.cumsum(values) / values.sum()
    quarter, half, most = (float(t[np.searchsorted(cumulative, share)]) for share in (0.25, 0.5, 0.9))
    reason = (
        f"Times are drawn in proportion to the root mean square eps-error of {difficulty.attrs.get('model', 'the pilot')} at each t, "
        f"with a uniform share of {FLOOR:g}: a quarter of the remaining draws fall below t = {quarter:.2f}, half below {half:.2f}, "
        f"nine tenths below {most:.2f}."
    )
    return values, [reason]


def _momentum(landscapes: Sequence[xr.Dataset]) -> tuple[str, str]:
    rough = [float(x.attrs["roughness"]) for x in landscapes]
    if not np.isfinite(rough).all():
        return (
            "constant",
            "Momentum stays constant: the roughness of the landscape is undefined (the loss does not change along the line).",
        )
    worst = max(rough)
    deviation = f"on {len(rough)} line(s) through the model the loss deviates from a quadratic by up to {100 * worst:.1f} % of its range"
    if worst < SMOOTH:
        reason = f"{deviation}, below the {100 * SMOOTH:g} % that count as smooth."
        return "mdlrc", f"Momentum decays with learning-rate compensation (MDLRC): {reason}"
    return "constant", f"Momentum stays constant: {deviation}, above the {100 * SMOOTH:g} % that count as smooth."
