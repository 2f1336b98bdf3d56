"""From findings to a density, a momentum and an annealing, each with its reason in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from consistency_lab.choices import Choice
from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings

FLOOR = 0.1
SMOOTH = 0.05
MOST_MOMENTUM = 0.99

Weighting = Literal["objective", "importance"]


class Curvature(NamedTuple):
    """A Hessian in three numbers.

    Attributes:
        top: its largest eigenvalue.
        trace: its trace.
        parameters: its size.
    """

    top: float
    trace: float
    parameters: int

    @property
    def condition(self) -> float:
        """Top over mean eigenvalue; NaN where the trace is not positive."""
        return self.top * self.parameters / self.trace if self.trace > 0 and self.top > 0 else math.nan


def read_curvature(result: xr.Dataset) -> Curvature:
    """The summary of a curvature result: ``top``, ``trace`` and ``parameters``, attributes or variables without dimensions."""

    def number(name: str) -> float:
        value = result.attrs.get(name, result.get(name))
        if value is None or np.ndim(value) != 0:
            raise UserError(f"a recipe needs the number {name!r} of a curvature result, and this one does not have it.")
        return float(value)

    return Curvature(number("top"), number("trace"), int(number("parameters")))


def heavy_ball_momentum(condition: float) -> float:
    """Polyak's beta for a condition number of 1 or more; see the module's text."""
    root = math.sqrt(condition)
    return ((root - 1.0) / (root + 1.0)) ** 2


def pilot_of(result: xr.Dataset) -> str:
    return str(result.attrs.get("model", "the pilot"))


def check_kind(result: xr.Dataset, kind: str) -> None:
    if result.attrs.get("kind") != kind:
        raise UserError(f"a recipe needs a {kind} result here, not {result.attrs.get('kind')!r}.")


def density_profile(
    difficulty: xr.Dataset, weighting: Weighting, exponent: float
) -> tuple[np.ndarray, np.ndarray, str]:
    """Times, values over them with highest 1, and the reason as text."""
    if "gradient_second_moment" in difficulty:
        moment = difficulty["gradient_second_moment"].values.astype(np.float64)
        what = "root of the expected squared gradient norm"
    else:
        moment = (difficulty["error"].sel(units="eps").values.astype(np.float64) ** 2).mean(1)  # (t, sample)
        what = "root mean square eps-error"
    values = np.sqrt(moment) ** exponent
    if not np.isfinite(values).all() or not values.max() > 0:
        raise UserError(
            "the difficulty result has no finite, positive errors in eps; probe a model that has been trained."
        )
    values = values / values.max()
    t = difficulty["t"].values
    cumulative = np.cumsum(values) / values.sum()
    quarter, half, most = (float(t[np.searchsorted(cumulative, share)]) for share in (0.25, 0.5, 0.9))
    power = "" if exponent == 1 else f", raised to {exponent:g}"
    end = (
        "Their losses are weighted back to the uniform objective"
        if weighting == "importance"
        else "Hard times count for more"
    )
    reason = (
        f"Times are drawn in proportion to the {what} of {pilot_of(difficulty)} at each t{power}, "
        f"with a uniform share of {FLOOR:g}: a quarter of the remaining draws fall below t = {quarter:.2f}, half below {half:.2f}, "
        f"nine tenths below {most:.2f}. {end}."
    )
    return t, values, reason


def at_knots(values: np.ndarray) -> np.ndarray:
    """From centres of equal cells to the ends of those cells, first and last included: where the `density` sampler has its knots."""
    centres, ends = np.arange(len(values)) + 0.5, np.arange(len(values) + 1.0)
    return np.interp(ends, centres, values)


def _deviation(rough: Sequence[float]) -> str:
    return f"on {len(rough)} line(s) through the model the loss deviates from a quadratic by up to {100 * max(rough):.1f} % of its range"


def from_roughness(rough: Sequence[float]) -> tuple[dict[str, object], list[str]]:
    if not np.isfinite(rough).all():
        why = "Momentum stays constant: the roughness of the landscape is undefined (the loss does not change along the line)."
        return {"momentum": "constant"}, [why]
    if max(rough) < SMOOTH:
        why = f"{_deviation(rough)}, below the {100 * SMOOTH:g} % that count as smooth."
        return {"momentum": "mdlrc"}, [f"Momentum decays with learning-rate compensation (MDLRC): {why}"]
    why = f"Momentum stays constant: {_deviation(rough)}, above the {100 * SMOOTH:g} % that count as smooth."
    return {"momentum": "constant"}, [why]


def from_curvature(
    curvature: Curvature, rough: Sequence[float], settings: TrainingSettings
) -> tuple[dict[str, object], list[str]]:
    if rough and not (np.isfinite(rough).all() and max(rough) < SMOOTH):
        why = f"Momentum and annealing stay as they are: {_deviation(rough)}, too far from one for its formulas."
        return {}, [why]
    if not math.isfinite(curvature.condition):
        return {}, [
            f"Momentum and annealing stay as they are: top eigenvalue {curvature.top:.3g} and trace {curvature.trace:.3g} are not "
            "both positive, so the loss is no valley there."
        ]
    beta = min(heavy_ball_momentum(max(1.0, curvature.condition)), MOST_MOMENTUM)
    optimizer = Choice.parse(settings.optimizer)
    sgd = optimizer.name == "sgd"
    chosen = Choice(optimizer.name, {**optimizer.options, "momentum" if sgd else "beta1": round(beta, 3)})
    stiffness = settings.lr / (1.0 - beta) * curvature.top if sgd else 2.0 * (1.0 + beta) / (1.0 - beta)
    final = min(1.0, 1.0 / math.sqrt(stiffness * settings.steps))
    measured = "rate times top eigenvalue" if sgd else "rate times top curvature at the edge of stability"
    return {"optimizer": str(chosen), "momentum": "constant", "lr_final": round(final, 4)}, [
        f"Momentum is {beta:.3f}, the optimum of heavy-ball descent on a quadratic with the measured condition number, top over mean "
        f"eigenvalue, of {curvature.condition:.3g} (top {curvature.top:.3g}, trace {curvature.trace:.3g}, "
        f"{curvature.parameters} parameters; at most {MOST_MOMENTUM:g}).",
        f"The learning rate falls linearly to {final:.3g} of its peak: at {measured}, {stiffness:.3g}, the stiffest direction follows "
        f"the rate no further in {settings.steps} steps.",
    ]
