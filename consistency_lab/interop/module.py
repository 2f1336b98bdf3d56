"""Any torch module with its schedule, as a model that can be sampled, compared and probed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from consistency_lab.choices import Choice
from consistency_lab.devices import plain_defaults
from consistency_lab.diffusion.denoiser import Direct, NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.interop.schedules import as_schedule, discrete_steps
from consistency_lab.networks.blocks import ImageNetwork

Clock = Callable[[Tensor], Tensor]
_SNAP = 1e-3


def timestep_index(t: Tensor, steps: int) -> Tensor:
    """The timestep ``T t - 1`` of times ``(B,)``, as floats."""
    index = steps * t - 1
    # A float32 time can miss its discrete step by 1e-4 of an index; there are embeddings that would notice.
    nearest = index.round()
    return torch.where((index - nearest).abs() < _SNAP, nearest, index)


def _unit(t: Tensor) -> Tensor:
    return t


def _noise_scale(t: Tensor, schedule: Schedule) -> Tensor:
    return schedule.sigma(t).to(t.dtype)


def _clock(time: str | Clock, schedule: Schedule) -> Clock:
    if callable(time):
        return time
    clocks: dict[str, Clock] = {
        "unit": _unit,
        "index": partial(timestep_index, steps=discrete_steps(schedule)),
        "sigma": partial(_noise_scale, schedule=schedule),
    }
    if time not in clocks:
        raise unknown_name("time", time, clocks)
    return clocks[time]


class ModuleNetwork(ImageNetwork):
    """A module ``module(x, time)`` or ``module(x, time, labels)`` as one of our networks, ``network(x, t, cond)``.

    Args:
        module: what is wrapped; it may return a tensor, a tuple whose first item is one, or an object with ``sample``.
        shape: (C, H, W) of the images.
        clock: from times ``(B,)`` in [0, 1] to what the module is given.
        classes: number of labels; 0 for a module that takes none.
        null_label: the label that means "no label", what ``cond=None`` uses; None where there is no such label.
        learned_variance: the module's output has twice the channels; the second half, a variance, is dropped.

    Raises:
        UserError: a module in half precision, or one whose output does not have the image shape (when it is evaluated).
    """

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, int, int],
        clock: Clock,
        *,
        classes: int = 0,
        null_label: int | None = None,
        learned_variance: bool = False,
    ):
        super().__init__(shape, classes)
        self.module, self.clock = module, clock
        self.null_label, self.learned_variance = null_label, learned_variance
        # A module without weights (a frozen TorchScript, a formula) does not tell where it is; this moves along with it.
        self.register_buffer("_place", torch.empty(0), persistent=False)
        if self._precision(None) in (torch.float16, torch.bfloat16):
            raise UserError(
                f"the module {type(module).__name__} is in half precision, too coarse to compare images by; "
                "give module.float()."
            )

    def _precision(self, otherwise: torch.dtype | None) -> torch.dtype | None:
        """What the module computes in: that of its weights."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), otherwise)

    def body(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        # A frozen TorchScript has its weights as constants, and these are float32.
        otherwise = torch.float32 if isinstance(self.module, torch.jit.ScriptModule) else None
        dtype = self._precision(otherwise) or x.dtype
        inputs = [x.to(dtype), self.clock(t).to(x.device)]
        if inputs[1].is_floating_point():
            inputs[1] = inputs[1].to(dtype)
        if self.classes:
            inputs.append(self._labels(t, cond))
        output: Any = self.module(*inputs)
        output = output[0] if isinstance(output, tuple | list) else getattr(output, "sample", output)
        wanted = (len(x), self.shape[0] * (2 if self.learned_variance else 1), *self.shape[1:])
        if not isinstance(output, Tensor) or tuple(output.shape) != wanted:
            what = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise UserError(
                f"the module {type(self.module).__name__} gave {what} where {wanted} was expected; check shape, and "
                "learned_variance where there are twice the channels."
            )
        return output[:, : self.shape[0]].to(x.dtype)

    def _labels(self, t: Tensor, cond: Tensor | None) -> Tensor:
        if cond is not None:
            return cond
        if self.null_label is None:
            raise UserError(
                f"the module {type(self.module).__name__} has no label that means 'no label'; "
                "give cond, one label an image."
            )
        return torch.full_like(t, self.null_label, dtype=torch.long)


@plain_defaults()
def wrap_module(
    module: nn.Module,
    *,
    schedule: str | Choice | Schedule | Sequence[float] | np.ndarray | Tensor,
    predicts: str,
    shape: tuple[int, int, int],
    name: str,
    time: str | Clock,
    classes: int = 0,
    null_label: int | None = None,
    learned_variance: bool = False,
    facts: dict[str, Any] | None = None,
) -> DiffusionModel:
    """A model out of any torch module that was trained as a diffusion model.

    >>> import torch
    >>> from consistency_lab.interop.module import wrap_module
    >>> class Mine(torch.nn.Module):                 # a network from elsewhere; to this one everything is noise
    ...     def forward(self, x, timestep):          # (B, C, H, W) and (B,) -> (B, C, H, W)
    ...         return x
    >>> betas = torch.linspace(1e-4, 0.02, 1000)     # and how its states were mixed
    >>> table = (1 - betas.double()).cumprod(0)
    >>> model = wrap_module(
    ...     Mine(), schedule=table, predicts="eps", shape=(1, 8, 8), name="mine", time="index"
    ... )
    >>> model.denoiser(torch.ones(2, 1, 8, 8), 1.0).eps.mean()
    tensor(1.)

    The module sees the state ``x_t = alpha x0 + sigma eps`` as it is. So a network that is preconditioned as in EDM,
    ``net(x, sigma) -> denoised``, is ``schedule="edm", predicts="x0", time="sigma"``; what is inside of such a
    preconditioning, ``F(c_in x, time)``, is ``predicts="edm(sigma_data=0.5)"``.

    Args:
        module: called as ``module(x, time)``, and with ``classes`` as ``module(x, time, labels)``. It is put in eval
            mode and not copied.
        schedule: the name of one in `SCHEDULES` with its options, a `Schedule`, or its alphas_cumprod ``(T,)``.
        predicts: what its output means: ``"eps"``, ``"x0"``, ``"v"``, ``"flow"`` or ``"edm(sigma_data=...)"``.
        shape: (C, H, W) of the images, in [-1, 1].
        name: how tables call it.
        time: what the module is given as time, ``(B,)``: ``"unit"``, t in [0, 1]; ``"index"``, the timestep
            ``T t - 1`` as floats; ``"sigma"``, the schedule's noise scale; or a function of t.
        classes: number of labels; 0 for a module that takes none. Image i is asked for with the label i mod classes.
        null_label: the label that means "no label", where there is one.
        learned_variance: the output has twice the channels, of which the second half is dropped.
        facts: more provenance for results; JSON types.

    Raises:
        UserError: an unknown schedule, prediction or time, or a module in half precision.
    """
    known = as_schedule(schedule)
    if not (isinstance(shape, tuple | list) and all(isinstance(size, int) for size in shape)):
        raise UserError(f"shape={shape!r} is not usable; give (channels, height, width).")
    network = ModuleNetwork(
        module, shape, _clock(time, known), classes=classes, null_label=null_label, learned_variance=learned_variance
    )
    denoiser = NetworkDenoiser(network, known, network.shape, predicts)
    if isinstance(denoiser.parametrisation, Direct):
        denoiser.parametrisation = _AsItIs(denoiser.parametrisation.units)
    return foreign_model(denoiser, network, name, {"source": "module", **(facts or {})})


class _AsItIs(Direct):
    """The state itself is shown; networks that were trained here are shown a rescaled one on some schedules."""

    def network_input(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
        return x_t


def foreign_model(denoiser: NetworkDenoiser, network: ImageNetwork, name: str, facts: dict[str, Any]) -> DiffusionModel:
    """The model of a network that was not trained here, in eval mode, with the facts that all such models have."""
    inner = network.module if isinstance(network, ModuleNetwork) else network
    common = {
        "kind": "diffusion",
        "network": getattr(inner, "original_name", type(inner).__name__),
        "predicts": denoiser.predicts,
        "schedule": denoiser.schedule.spec,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    if isinstance(network, ModuleNetwork) and network.learned_variance:
        common["learned_variance"] = "dropped"
    return DiffusionModel(name, denoiser.eval(), {**common, **facts}, classes=network.classes)
