"""The noise level of every step of a scheduler of diffusers, and the x0 that its network expects there.

A scheduler's samples are x = alpha x0 + sigma eps. Its classes differ in what alpha and sigma are; the tests hold each against its own
``add_noise``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from consistency_lab.errors import UserError

_BY_TIMESTEP = ("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "PNDM", "LCM", "TCD", "CogVideoXDDIM", "CogVideoXDPM")
_CONSTANT_VARIANCE = ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "SASolver")
_MIDPOINT = ("KDPM2Discrete", "DPMSolverSDE")  # every second evaluation is at the geometric mean of two levels
_UNTIMED = ("EDMEuler", "EDMDPMSolverMultistep", "CMStochasticIterative")  # their timesteps are logarithms of sigma
_ADDED = (
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "HeunDiscrete",
    "LMSDiscrete",
    "KDPM2AncestralDiscrete",
    *_MIDPOINT,
    *_UNTIMED,
)
_FLOW = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM")
_KNOWN = (*_BY_TIMESTEP, *_CONSTANT_VARIANCE, *_ADDED, *_FLOW)


class Level(NamedTuple):
    """Of one step: x = alpha x0 + sigma eps, and the time in [0, 1] where the scheduler counts timesteps (else None)."""

    alpha: float
    sigma: float
    t: float | None


def family(scheduler: Any) -> str:
    """The scheduler's class without the word Scheduler."""
    return str(type(scheduler).__name__).removesuffix("Scheduler")


def knows(scheduler: Any) -> bool:
    """Whether the levels of that scheduler are known here."""
    return family(scheduler) in _KNOWN


def check_known(scheduler: Any) -> None:
    """Raise `UserError` for a scheduler whose noise levels are not known here."""
    if not knows(scheduler):
        raise UserError(
            f"the noise levels of {type(scheduler).__name__} are not known here (known: {', '.join(_KNOWN)}); write the trajectory "
            "yourself, as load_recording describes, with alphas and sigmas."
        )


def reading(scheduler: Any) -> str:
    """What a network's output is to that scheduler; a network that was trained for one reading says nothing under another."""
    config, kind = scheduler.config, family(scheduler)
    if kind in _FLOW or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return "flow matching"  # the data fades as 1 - sigma
    if kind == "CMStochasticIterative":
        return "consistency models"
    return "EDM preconditioning" if kind.startswith(("EDM", "CosineDPM")) else "diffusion models"


def level_of(scheduler: Any, timestep: Any, step: int | None) -> Level:
    """The level of the sample that goes into a step.

    Args:
        scheduler: after ``set_timesteps``.
        timestep: of the step.
        step: its place in ``sigmas``, for schedulers that have these.
    """
    kind, now = family(scheduler), float(timestep)
    total = scheduler.config.get("num_train_timesteps", 1000)
    if kind in _BY_TIMESTEP:  # alpha² is alphas_cumprod[timestep]
        kept = float(scheduler.alphas_cumprod[int(now)])
        return Level(kept**0.5, (1 - kept) ** 0.5, (now + 1) / total)
    assert step is not None
    sigma = float(scheduler.sigmas[step])
    if reading(scheduler) == "flow matching":
        return Level(1 - sigma, sigma, sigma)
    if kind in _MIDPOINT and step % 2:
        sigma = (sigma * float(scheduler.sigmas[step - 1])) ** 0.5
    t = None if kind in _UNTIMED else min((now + 1) / total, 1.0)
    if kind in _CONSTANT_VARIANCE:
        alpha = (1 + sigma**2) ** -0.5
        return Level(alpha, sigma * alpha, t)
    return Level(1.0, sigma, t)


def x0_of(scheduler: Any, output: Tensor, sample: Tensor, level: Level) -> Tensor:
    """What the network expects the data to be, float32: its output, read as the scheduler reads it, without clipping."""
    output, sample = output.float(), sample.float()
    if output.shape[1] == 2 * sample.shape[1]:  # the network predicts a variance too
        output = output[:, : sample.shape[1]]
    alpha, sigma, kind = level.alpha, level.sigma, scheduler.config.get("prediction_type", "epsilon")
    match reading(scheduler):
        case "EDM preconditioning":
            return scheduler.precondition_outputs(sample, output, sample.new_tensor(sigma))
        case "consistency models":
            skip, out = scheduler.get_scalings_for_boundary_condition(sigma)
            return skip * sample + out * output
        case "flow matching":
            return sample - sigma * output
    if kind == "epsilon":
        return (sample - sigma * output) / alpha
    if kind == "v_prediction":  # of the sample scaled to constant variance
        scale = (alpha**2 + sigma**2) ** 0.5
        return (alpha * sample - sigma * scale * output) / scale**2
    if kind == "sample":
        return output
    raise UserError(f"{type(scheduler).__name__} predicts {kind!r}, of which no x0 is known here.")
