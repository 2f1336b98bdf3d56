"""From findings to a density, a momentum and an annealing, each with its reason in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import xarray as xr

from consistency_lab.choices import Choice
from consistency_lab.data.imageset import ImageSet
from consistency_lab.errors import UserError
from consistency_lab.networks.own import is_own
from consistency_lab.recipe.closed_form import COMPLETE, WORTH, ClosedForm
from consistency_lab.recipe.step_arithmetic import step_arithmetic
from consistency_lab.store.shapes import whole
from consistency_lab.training.settings import TrainingSettings

UNIFORM_SHARE = 0.1
SMOOTH = 0.05
MOST_MOMENTUM = 0.99

Draws = Literal["objective", "importance"]
Use = Literal["fixed", "followed"]


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
    """What `probe_curvature` found over all samples: of the Gauss-Newton part where it is there, whose eigenvalues are never negative.

    Raises:
        UserError: no eigenvalue, trace or number of parameters, or one that did not converge.
    """
    if not {"eigenvalue", "trace", "parameters"} <= set(result.data_vars):
        raise UserError(
            "a recipe needs the top eigenvalue, the trace and the number of parameters of a curvature result, and this one does not have "
            "them; make one with probe_curvature."
        )
    operators = [str(name) for name in result["operator"].values]
    operator = "gauss_newton" if "gauss_newton" in operators else operators[0]
    one = result.sel(operator=operator, part="all")
    top = one.sel(end="top", rank=1)
    if "converged" in top and not float(top["converged"]) == 1:
        raise UserError("the top eigenvalue of this curvature result did not converge; probe it again with more steps.")
    return Curvature(float(top["eigenvalue"]), float(one["trace"]), int(result["parameters"]))


def heavy_ball_momentum(condition: float) -> float:
    """Polyak's beta for a condition number of 1 or more; see the module's text."""
    root = math.sqrt(condition)
    return ((root - 1.0) / (root + 1.0)) ** 2


def pilot_of(result: xr.Dataset) -> str:
    return str(result.attrs.get("model", "the pilot"))


def of_kind(result: object, kind: str) -> xr.Dataset:
    """The result made whole. Raises `UserError` for a part of one whose numbers do not belong together, and for one of another kind."""
    ds = whole(result)
    if ds.attrs["kind"] != kind:
        raise UserError(f"a recipe needs a {kind} result here, not {ds.attrs['kind']!r}.")
    return ds


def density_profile(
    difficulty: xr.Dataset, draws: Draws, exponent: float, adam: bool
) -> tuple[np.ndarray, np.ndarray, str]:
    """Times, values over them with highest 1, and the reason as text. ``adam``: the optimizer descends in its metric."""
    moment, metric = gradient_second_moment(difficulty, draws, adam)
    what = f"root of the expected squared gradient norm{metric}"
    if moment is None:
        moment = (difficulty["error"].sel(units="eps").values.astype(np.float64) ** 2).mean(1)  # (t, sample)
        what = "root mean square eps-error"
    values = np.sqrt(moment) ** exponent
    if not np.isfinite(values).all() or not values.max() > 0:
        raise UserError(
            "the difficulty result has no finite, positive errors in eps; probe a model that has been trained."
        )
    values = values / values.max()
    t = difficulty["t"].values
    power = "" if exponent == 1 else f", raised to {exponent:g}"
    end = (
        "Their losses are weighted back to the uniform objective"
        if draws == "importance"
        else "Hard times count for more"
    )
    reason = (
        f"Times are drawn in proportion to the {what} of {pilot_of(difficulty)} at each t{power}, "
        f"with a uniform share of {UNIFORM_SHARE:g}: {quarters(t, values)}. {end}."
    )
    return t, values, reason


def quarters(t: np.ndarray, values: np.ndarray) -> str:
    """Where the draws of a density fall, its uniform share apart, in words."""
    cumulative = np.cumsum(values) / values.sum()
    quarter, half, most = (float(t[np.searchsorted(cumulative, share)]) for share in (0.25, 0.5, 0.9))
    return f"a quarter of the remaining draws fall below t = {quarter:.2f}, half below {half:.2f}, nine tenths below {most:.2f}"


def density_pairs(t: np.ndarray, values: np.ndarray) -> tuple[tuple[float, float], ...]:
    """(t, density) with the uniform share mixed in, of values at the centres of equal cells."""
    width = t[1] - t[0] if len(t) > 1 else 1.0
    heights = UNIFORM_SHARE / (len(t) * width) + (1 - UNIFORM_SHARE) * values / (values.sum() * width)
    return tuple(zip(t.tolist(), heights.tolist(), strict=True))


def preconditioning_of(found: ClosedForm, name: str) -> tuple[Choice, str]:
    """What the network is to predict, and the reason as text."""
    told, white = float(found.losses.mean()), found.white
    known = (
        f"A denoiser that knows the mean and covariance of {name!r} has the loss {told:.4f} on Gaussian data of these moments, one that "
        f"knows the variance of a pixel {white:.4f}: the covariance takes {100 * found.taken_off:.0f} % off"
    )
    if found.taken_off < WORTH:
        return Choice("edm"), (
            f"{known}, less than the {100 * WORTH:g} % that would be worth its axes. The network is preconditioned by the variance (edm)."
        )
    return Choice("gaussian", {"components": found.components}), (
        f"{known}. So the network corrects that denoiser, and begins where it is; {found.components} of {found.pixels} axes of the "
        f"covariance leave its loss within {100 * COMPLETE:g} %."
    )


def target_of(found: ClosedForm, name: str) -> tuple[dict[str, object], str]:
    """What is to be said of a noisy image, where that is not what made it, and the reason as text."""
    share = f"{100 * found.noise_share:.0f} % of that loss"
    known = f"{share} is noise of the target: other images of {name!r} could have made the same noisy ones"
    if found.noise_share < WORTH:
        return {}, f"{known}. Less than {100 * WORTH:g} % is not worth a target of less noise."
    return {"target": Choice("posterior")}, f"{known}. So the network learns the mean over them."


def optimizer_of(images: ImageSet, settings: TrainingSettings) -> tuple[dict[str, object], str]:
    """Muon where its iterations are a small part of a step, and the reason as text."""
    chosen = settings.optimizer
    if chosen.name != "adam":
        return {}, f"The optimizer stays {chosen}, which the settings name."
    if settings.momentum.name != "constant":
        return {}, f"The optimizer stays Adam, which the momentum rule {settings.momentum} is defined for."
    if is_own(settings.network):
        return {}, "The optimizer stays Adam: of a network of one's own it is not known what Muon's iterations cost."
    share = step_arithmetic(images, settings).muon_share
    size = f"{100 * share:.2g} % of" if share < 1 else f"{share:.3g} times"
    known = (
        f"Muon's iterations are {size} the arithmetic of a step of {settings.network} on batches of {settings.batch}"
    )
    if share >= WORTH:
        return {}, f"{known}; from {100 * WORTH:g} % on they cost more than they gain, and the optimizer stays Adam."
    if not hasattr(torch.optim, "Muon"):
        return {}, f"{known}, but it came with torch 2.9, and this is {torch.__version__}: the optimizer stays Adam."
    return {"optimizer": Choice("muon", chosen.options)}, (
        f"{known}, less than {100 * WORTH:g} %: weights that are matrices, convolutions among them, are stepped by Muon, at a "
        "rate of once to twice what is right for Adam."
    )


def followed_exponent(difficulty: xr.Dataset, exponent: float, adam: bool) -> tuple[float, str]:
    """The power of E[L_t] that the root second moment of the gradient, raised to ``exponent``, goes with; and the reason as text.

    Least squares on logarithms over t: E |g_t|^2 ~ E[L_t]^slope, so that the root goes with half the slope. 1 is the slope of a network
    whose Jacobian does not depend on t; it stands in where no gradients were measured.
    """
    loss = np.sqrt((difficulty["error"].sel(units="eps").values.astype(np.float64) ** 2).mean(1))
    moment, metric = gradient_second_moment(difficulty, "importance", adam)
    if moment is None or not (moment > 0).all() or np.ptp(np.log(loss)) < 1e-6:
        slope, why = 1.0, "as it does where the Jacobian of the network is of one size at all t"
    else:
        slope = float(np.polyfit(np.log(loss), np.log(moment), 1)[0])
        why = f"as it did in {pilot_of(difficulty)}"
    power = round(slope / 2 * exponent, 3)
    if not power > 0:
        raise UserError(
            "gradients fall where losses rise in this difficulty result, so a density cannot follow losses; use a fixed one."
        )
    return power, (
        f"The density is not kept as it was found: it goes with the losses of the run itself, as the {power:g}th power of their mean "
        f"at each t, because the expected squared gradient norm{metric} goes with the {slope:.2f}th power of the loss, {why}."
    )


def gradient_second_moment(difficulty: xr.Dataset, draws: Draws, adam: bool) -> tuple[np.ndarray | None, str]:
    """E |g_t|^2 of single samples at each t, and its metric in words; None where a difficulty result does not have it.

    As the variable ``gradient_second_moment``, whatever it is wanted for; for importance weights alone ``adam_second_moment``, or mean and
    noise of `probe_difficulty`'s gradients for an optimizer that is not Adam: what a density that changes the objective weighs are losses.
    """
    if "gradient_second_moment" in difficulty:
        return difficulty["gradient_second_moment"].values.astype(np.float64), ""
    if draws != "importance":
        return None, ""
    if adam and "adam_second_moment" in difficulty:
        return difficulty["adam_second_moment"].values.astype(np.float64), " in Adam's metric"
    parts = ["gradient norm", "gradient noise"]
    if not set(parts) <= set(difficulty.coords.get("definition", xr.DataArray([])).values):
        return None, ""
    # |E g|^2 + tr Cov(g) = E |g|^2; an unbiased |E g|^2 may be below 0, their sum is not.
    return difficulty["profile"].sel(definition=parts).sum("definition").values.astype(np.float64), ""


def at_knots(values: np.ndarray) -> np.ndarray:
    """From centres of equal cells to the ends of those cells, first and last included: where the `density` sampler has its knots."""
    centres, ends = np.arange(len(values)) + 0.5, np.arange(len(values) + 1.0)
    return np.interp(ends, centres, values)


class Rough(NamedTuple):
    """Roughness of lines through a model, and from how far to how far they go, in filter norms; empty where results do not say."""

    values: Sequence[float]
    spans: Sequence[float] = ()

    @property
    def smooth(self) -> bool:
        return bool(np.isfinite(self.values).all()) and max(self.values) < SMOOTH

    @property
    def text(self) -> str:
        reach = (
            f" on ±{' and ±'.join(f'{span:g}' for span in sorted(set(self.spans)))} filter norms" if self.spans else ""
        )
        return (
            f"on {len(self.values)} line(s) through the model the loss deviates from a quadratic by up to "
            f"{100 * max(self.values):.1f} % of its range{reach}"
        )


def from_roughness(rough: Rough) -> tuple[dict[str, object], list[str]]:
    if not np.isfinite(rough.values).all():
        why = "Momentum stays constant: the roughness of the landscape is undefined (the loss does not change along the line)."
        return {"momentum": "constant"}, [why]
    if rough.smooth:
        why = f"{rough.text}, below the {100 * SMOOTH:g} % that count as smooth."
        return {"momentum": "mdlrc"}, [f"Momentum decays with learning-rate compensation (MDLRC): {why}"]
    why = f"Momentum stays constant: {rough.text}, above the {100 * SMOOTH:g} % that count as smooth."
    return {"momentum": "constant"}, [why]


def from_curvature(
    curvature: Curvature | None, rough: Rough, settings: TrainingSettings, measured_momentum: bool
) -> tuple[dict[str, object], list[str]]:
    if rough.values and not rough.smooth:
        why = f"Momentum and annealing stay as they are: {rough.text}, too far from one for its formulas."
        return {}, [why]
    if curvature is not None and not math.isfinite(curvature.condition):
        return {}, [
            f"Momentum and annealing stay as they are: top eigenvalue {curvature.top:.3g} and trace {curvature.trace:.3g} are not "
            "both positive, so the loss is no valley there."
        ]
    optimizer = settings.optimizer
    sgd = optimizer.name == "sgd"
    option = "momentum" if sgd else "beta1"
    beta = float(optimizer.options.get(option, 0.9))
    changes: dict[str, object] = {}
    reasons = []
    if measured_momentum and curvature is not None:
        beta = min(heavy_ball_momentum(max(1.0, curvature.condition)), MOST_MOMENTUM)
        chosen = Choice(optimizer.name, {**optimizer.options, option: round(beta, 3)})
        changes = {"optimizer": chosen, "momentum": "constant"}
        reasons.append(
            f"Momentum is {beta:.3f}, the optimum of heavy-ball descent on a quadratic with the measured condition number, top over mean "
            f"eigenvalue, of {curvature.condition:.3g} (top {curvature.top:.3g}, trace {curvature.trace:.3g}, "
            f"{curvature.parameters} parameters; at most {MOST_MOMENTUM:g})."
        )
    if sgd and curvature is None:
        return changes, [
            *reasons,
            "The learning rate stays as it is: for SGD its annealing follows from a measured curvature.",
        ]
    stiffness = settings.lr / (1.0 - beta) * curvature.top if sgd and curvature else 2.0 * (1.0 + beta) / (1.0 - beta)
    final = min(1.0, 1.0 / math.sqrt(stiffness * settings.steps))
    measured = "rate times top eigenvalue" if sgd else "rate times top curvature at the edge of stability"
    reasons.append(
        f"The learning rate falls linearly to {final:.3g} of its peak: at {measured}, {stiffness:.3g}, the stiffest direction follows "
        f"the rate no further in {settings.steps} steps."
    )
    return {**changes, "lr_final": round(final, 4)}, reasons
