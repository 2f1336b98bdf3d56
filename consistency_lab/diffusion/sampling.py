"""Samplers as generators: each yields every state it visits, and the caller decides what to keep.

A sampler walks from noise to data along a grid of times. Its state is float64 whatever the network computes in (as in EDM's
sampler): the difference between two samplers is then the sampler's and not rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from consistency_lab.choices import Choice, Registry, whole
from consistency_lab.devices import PRECISIONS, evaluating_in, sent
from consistency_lab.diffusion.denoiser import Denoiser, NoiseLevel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError, unknown_name


class SamplerStep(NamedTuple):
    """Where a sampler is: the time, the state ``x_t``, and the estimate ``x0`` made there, both ``(B, C, H, W)`` float64.

    The last step has t = 0 and ``x_t = x0 =`` the image.
    """

    t: float
    x_t: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Sampler:
    """How images are made from noise.

    Attributes:
        method: ``"ddim"`` (Song et al. 2010.02502, eta = 0; first order), ``"heun"`` (Karras et al. 2206.00364, algorithm 1; two
            evaluations per step), ``"dpm++2m"`` (Lu et al. 2211.01095, algorithm 2; one evaluation per step), or ``"ancestral"`` (Ho et al.
            2006.11239, algorithm 2; stochastic, its noise is shared too). Heun and DPM-Solver++ are called second-order methods;
            what an image has depends on the schedule, since the last step goes to the estimate itself: a first-order step from the lowest
            noise of the grid, s = sigma / alpha, to 0. With n steps s ~ 1/n on ``flow``, a constant on ``edm``, and there Heun's image is
            of second order as a whole (measured 2.0 and 2.1; DPM-Solver++ 1.7 and 2.1). On ``linear`` and ``cosine`` s ~ 1/sqrt(n), the
            last step dominates, and both fall to first order or less (Heun 1.2, DPM-Solver++ 0.5 to 0.7 from 200 to 800 steps).
            Or the name of a step of your own (`SAMPLERS.register`).
        steps: steps of the solver.
        clip: clamp each x0 estimate to [-1, 1]. Off by default: it makes models more alike than they are. It is recorded.
        precision: what a network in float32 is evaluated in: ``"float32"``, ``"tf32"`` (a GPU's) or ``"bfloat16"`` (autocast). The solver's
            state is float64, and closed forms, which have no weights, keep their own precision. What a lower one changes is in every
            distance, that of a model to itself too, and so it is recorded.
    """

    method: str = "ddim"
    steps: int = 50
    clip: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", str(self.precision), PRECISIONS)
        SAMPLERS.builder(self.method)  # an unknown one is refused by name
        object.__setattr__(self, "steps", whole("the number of a sampler's steps", self.steps))
        if self.steps < 1:
            raise UserError(f"a sampler needs at least 1 step, not {self.steps}.")

    @classmethod
    def parse(cls, text: str) -> Sampler:
        """From text: ``"ddim"``, ``"dpm++2m(steps=20)"``, ``"ddim(clip=True)"``.

        Raises:
            UserError: an unknown method or option, or a value of another type.
        """
        choice = Choice.parse(text)
        options: Registry[Sampler] = Registry(
            "sampler", {name: partial(_sampler, cls, name) for name in SAMPLERS.names()}
        )
        return options.build(choice)

    @classmethod
    def of(cls, sampler: Sampler | str | None) -> Sampler:
        """The sampler itself, one from text (see `parse`), or the default for None. Raises `UserError` for anything else."""
        if sampler is None:
            return cls()
        if isinstance(sampler, str):
            return cls.parse(sampler)
        if not isinstance(sampler, Sampler):
            raise UserError(f"a sampler is a Sampler or its text, such as 'ddim(steps=20)', not {sampler!r}.")
        return sampler

    @property
    def facts(self) -> dict[str, Any]:
        """What results and specs record of it; the precision where it is not the default, so that older hashes stay as they were."""
        said = asdict(self)
        return {key: value for key, value in said.items() if (key, value) != ("precision", type(self).precision)}

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise along the way (which is shared too)."""
        return SAMPLERS.build(self.method).stochastic

    @property
    def memory(self) -> bool:
        """Whether a step uses the estimate of the step before it."""
        return SAMPLERS.build(self.method).memory

    def evaluations(self, steps: int | None = None) -> int:
        """Network evaluations (NFE) an image costs, in ``steps`` steps or the sampler's own; the last step evaluates no next level."""
        steps = self.steps if steps is None else steps
        return SAMPLERS.build(self.method).evaluations * (steps - 1) + 1


def _sampler(
    kind: type[Sampler],
    method: str,
    *,
    steps: int = Sampler.steps,
    clip: bool = Sampler.clip,
    precision: str = Sampler.precision,
) -> Sampler:
    return kind(method, steps, clip, precision)


class Estimate(NamedTuple):
    """A denoiser's answer at one noise level, float64: what a sampler's step starts from.

    Attributes:
        s: ``sigma / alpha`` of the level, a scalar tensor on the CPU, which a state on any device may be multiplied by.
        x0: the clean image as it is estimated there, ``(B, C, H, W)``, clamped where the sampler clips.
        eps: the noise that belongs to it, so that the state is ``alpha (x0 + s eps)``.
    """

    s: Tensor
    x0: Tensor
    eps: Tensor


class NextLevel(NamedTuple):
    """Where a sampler's step goes, and what it may use on the way.

    Attributes:
        alpha, s: of the next noise level, scalar tensors on the CPU: to look at them waits for nothing. At the last step ``s`` is 0.
        evaluate: the denoiser's `Estimate` of a state ``(B, C, H, W)`` at the next level; not at the last step.
        previous: the estimate of the step before; None at the first step.
        path: draws the shared noise of this step, ``(B, C, H, W)`` standard normal.
    """

    alpha: Tensor
    s: Tensor
    evaluate: Callable[[Tensor], Estimate]
    previous: Estimate | None
    path: Callable[[], Tensor]


Step = Callable[[Estimate, NextLevel], Tensor]
"""One step of a sampler: the estimate at this level and the next level in, the state ``(B, C, H, W)`` at the next level out."""


@dataclass(frozen=True)
class SamplingMethod:
    """A step, and what must be known of it before it is taken."""

    step: Step
    stochastic: bool = False
    memory: bool = False
    evaluations: int = 1


class SamplerRegistry(Registry[SamplingMethod]):
    """Steps of samplers by name."""

    def register(  # type: ignore[override]
        self, name: str, step: Step, *, stochastic: bool = False, memory: bool = False, evaluations: int = 1
    ) -> None:
        """Add a sampler.

        Args:
            name: how `Sampler` calls it.
            step: ``step(here, to) -> state``: an `Estimate` at this noise level and the `NextLevel` in, the next state out.
            stochastic: the step draws ``to.path()``.
            memory: the step uses ``to.previous``.
            evaluations: of the network a step, this level's own included.

        Raises:
            UserError: the name is taken, or the step is no function.
        """
        if not callable(step):
            raise UserError(f"the step of the sampler {name!r} is a function of (here, to), not {step!r}.")
        super().register(name, partial(SamplingMethod, step, stochastic, memory, evaluations))


# Steps are written for y = x / alpha, in which every schedule's probability-flow ODE is dy/ds = eps. They return the next x.


def _ddim(here: Estimate, to: NextLevel) -> Tensor:
    return to.alpha * (here.x0 + to.s * here.eps)


def _heun(here: Estimate, to: NextLevel) -> Tensor:
    if float(to.s) == 0.0:
        return to.alpha * here.x0
    slope = 0.5 * (here.eps + to.evaluate(_ddim(here, to)).eps)
    return to.alpha * (here.x0 + here.s * here.eps + (to.s - here.s) * slope)


def _dpm_2m(here: Estimate, to: NextLevel) -> Tensor:
    if to.previous is None or float(to.s) == 0.0:
        return _ddim(here, to)
    step, last = torch.log(here.s / to.s), torch.log(to.previous.s / here.s)  # in lambda = log(alpha / sigma)
    x0 = here.x0 + 0.5 * step / last * (here.x0 - to.previous.x0)
    ratio = to.s / here.s
    return to.alpha * (ratio * (here.x0 + here.s * here.eps) + (1 - ratio) * x0)


def _ancestral(here: Estimate, to: NextLevel) -> Tensor:
    # The posterior q(x_s | x_t, x0): DDIM's equation 16 with eta = 1.
    kept = to.s**2 / here.s
    mean = here.x0 + kept * here.eps
    if float(to.s) > 0.0:
        mean = mean + torch.sqrt(to.s**2 - kept**2) * to.path()
    return to.alpha * mean


SAMPLERS = SamplerRegistry("sampler", {})
SAMPLERS.register("ddim", _ddim)
SAMPLERS.register("heun", _heun, evaluations=2)
SAMPLERS.register("dpm++2m", _dpm_2m, memory=True)
SAMPLERS.register("ancestral", _ancestral, stochastic=True)


def start_state(denoiser: Denoiser, noise: Tensor, t: float | None = None) -> Tensor:
    """The state that sampling starts from, at t_max unless told otherwise, float64: ``sigma(t) noise``, which lies around the
    denoiser's ``origin``. So a network whose images are not centred at 0 is shown the noise itself, in its own units.
    """
    t = denoiser.schedule.t_max if t is None else t
    start = denoiser.schedule.sigma(t) * noise.double()
    return start + float(denoiser.schedule.alpha(t)) * denoiser.origin if denoiser.origin else start


@torch.no_grad()
def sample_path(
    denoiser: Denoiser,
    start: Tensor,
    sampler: Sampler | str,
    *,
    times: Tensor | None = None,
    path_noise: tuple[SharedNoise, Sequence[int]] | None = None,
    cond: Tensor | None = None,
) -> Iterator[SamplerStep]:
    """Walk from the state ``start`` at ``times[0]`` to data.

    Args:
        denoiser: what estimates the clean image.
        start: ``x_t`` at the first time, ``(B, C, H, W)``; `start_state` makes it from noise.
        sampler: the method, as a `Sampler` or in text; its ``steps`` give the grid unless ``times`` does.
        times: decreasing times, the last being 0; the schedule's own grid by default.
        path_noise: the shared noise and the image indices that a stochastic sampler draws from.
        cond: class labels ``(B,)``.

    Yields:
        `SamplerStep` at every time of the grid.

    Raises:
        UserError: a stochastic sampler without path noise, times that do not decrease to 0, or a precision that the network or the device
            does not have.
    """
    sampler = Sampler.of(sampler)
    if sampler.stochastic and path_noise is None:
        raise UserError(
            f"the sampler {sampler.method!r} is stochastic: give it path noise, (SharedNoise(seed), indices)."
        )
    times = denoiser.schedule.grid(sampler.steps) if times is None else times.double().cpu()
    if len(times) < 2 or float(times[-1]) != 0.0 or bool((times.diff() >= 0).any()):
        raise UserError("the times of a sampler must decrease strictly and end at 0.")
    schedule, method = denoiser.schedule, SAMPLERS.build(sampler.method)
    dtype = next((p.dtype for p in denoiser.parameters()), torch.float64)
    network = any(True for _ in denoiser.parameters())
    if network and sampler.precision != "float32" and dtype != torch.float32:
        raise UserError(
            f"precision {sampler.precision!r} is of networks in float32, and this one is in {dtype}; leave it out."
        )
    precision = sampler.precision if network else "float32"
    x, previous = start.double(), None

    # Once for the grid: the network has its levels where it is, and the solver its scalars on the CPU.
    schedule.check(times[:-1])
    alphas, sigmas = map(torch.stack, zip(*map(schedule.alpha_sigma, times.tolist()), strict=True))
    levels: dict[float, tuple[Tensor, Tensor]]
    levels = dict(zip(times.tolist(), zip(alphas, sigmas / alphas, strict=True), strict=True))
    moved = sent(torch.stack([times, alphas, sigmas], 1), start.device)
    shown = {t: NoiseLevel(*row) for t, row in zip(times.tolist(), moved, strict=True)}

    def evaluate(state: Tensor, t: float) -> Estimate:
        with evaluating_in(precision, state.device):
            prediction = denoiser(state.to(dtype), shown[t], cond)
        x0, eps = prediction.x0.double(), prediction.eps.double()
        alpha, s = levels[t]
        if sampler.clip:
            x0 = x0.clamp(-1.0, 1.0)
            eps = (state / alpha - x0) / s
        return Estimate(s, x0, eps)

    def increment(start_time: float, end_time: float) -> Tensor:
        if (
            path_noise is None or not method.stochastic
        ):  # what is not said to be stochastic is taken for a function of its start
            raise UserError(f"the sampler {sampler.method!r} draws noise; register it with stochastic=True.")
        noise, indices = path_noise
        return noise.increment(indices, x.shape[1:], start_time, end_time, x.device).double()

    for t, after in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        here = evaluate(x, t)
        yield SamplerStep(t, x, here.x0)
        to = NextLevel(
            *levels[after],
            partial(evaluate, t=after),
            previous if method.memory else None,
            partial(increment, t, after),
        )
        x, previous = _checked(method.step(here, to), x, sampler.method), here
    yield SamplerStep(0.0, x, x)


def _checked(state: object, like: Tensor, method: str) -> Tensor:
    """What a step returned. Raises `UserError` unless it is the next state."""
    if not isinstance(state, Tensor) or state.shape != like.shape:
        given = tuple(state.shape) if isinstance(state, Tensor) else f"a {type(state).__name__}"
        raise UserError(
            f"a step of the sampler {method!r} returned {given}; return the next state, {tuple(like.shape)}."
        )
    return state
