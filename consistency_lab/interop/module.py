"""Any torch module with its schedule, as a model that can be sampled, compared and probed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from consistency_lab.choices import Choice
from consistency_lab.devices import plain_defaults, resolve_device
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.prediction import per_sample
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError, short
from consistency_lab.interop.asking import ask
from consistency_lab.interop.mixing import Mixing
from consistency_lab.interop.schedules import as_schedule
from consistency_lab.interop.times import TimeMap, as_time_map
from consistency_lab.interop.units import OURS, OwnUnits, Range, check_value_range, half_and_centre, in_image_units
from consistency_lab.networks.blocks import ImageNetwork

Call = Callable[..., Any]


def _plainly(module: nn.Module, *inputs: Tensor) -> Any:
    return module(*inputs)


class ModuleNetwork(ImageNetwork):
    """A module ``module(x, time)`` or ``module(x, time, labels)`` as one of our networks, ``network(x, t, cond)``.

    Args:
        module: what is wrapped; it may return a tensor, a tuple whose first item is one, or an object with ``sample``.
        shape: (C, H, W) of the images.
        time_map: from times ``(B,)`` in [0, 1] to what the module is given.
        classes: number of labels; 0 for a module that takes none.
        null_label: the label that means "no label", what ``cond=None`` uses; None where there is no such label.
        learned_variance: the module's output has twice the channels; the second half, a variance, is dropped.
        call: how the module is called, ``call(module, x, time)`` or ``call(module, x, time, labels)``.

    Raises:
        UserError: a module in half precision, or one whose output does not have the image shape (when it is evaluated).
    """

    _place: Tensor

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, int, int],
        time_map: TimeMap,
        *,
        classes: int = 0,
        null_label: int | None = None,
        learned_variance: bool = False,
        call: Call | None = None,
    ):
        super().__init__(shape, classes)
        self.module, self.time_map, self.call = module, time_map, call or _plainly
        self.null_label, self.learned_variance = null_label, learned_variance
        # A module without weights (a frozen TorchScript, a formula) does not tell where it is; this moves along with it.
        self.register_buffer("_place", torch.empty(0), persistent=False)
        if self.precision in (torch.float16, torch.bfloat16):
            raise UserError(
                f"the module {type(module).__name__} is in half precision, too coarse to compare images by; "
                "give module.float()."
            )

    @property
    def place(self) -> torch.device:
        """Where it is computed."""
        return self._place.device

    @property
    def precision(self) -> torch.dtype | None:
        """What the module computes in: that of its weights; None for one that has none and takes what it is given."""
        # A frozen TorchScript has its weights as constants, and these are float32.
        otherwise = torch.float32 if isinstance(self.module, torch.jit.ScriptModule) else None
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), otherwise)

    def with_time_map(self, time_map: TimeMap) -> ModuleNetwork:
        """The same module that is given another time."""
        same = copy.copy(self)
        same.time_map = time_map
        return same

    def body(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        dtype = self.precision or x.dtype
        inputs = [x.to(dtype), self.time_map(t).to(x.device)]
        if inputs[1].is_floating_point():
            inputs[1] = inputs[1].to(dtype)
        if self.classes:
            inputs.append(self._labels(t, cond))
        output: Any = self.call(self.module, *inputs)
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
                "give cond, one label per image."
            )
        return torch.full_like(t, self.null_label, dtype=torch.long)


@dataclass(frozen=True)
class Told:
    """What was said of a module; a file of weights says none of it.

    Attributes:
        schedule: in the module's own units.
        predicts: one of `PREDICTIONS` with its options, in the module's own units; with a minus in front, the negative of it.
        time: one of `TIMES` with its options, or a function of t.
        value_range: the values of black and white in the module's own units.
        rescaled: the module is shown states as our networks are (rescaled on some schedules).
    """

    schedule: Schedule
    predicts: str
    time: str | TimeMap
    value_range: Range = OURS
    rescaled: bool = False


class WrappedDenoiser(NetworkDenoiser):
    """A module under what was said of it, in our units: images in [-1, 1].

    Args:
        network: the module; its time map is replaced by the one that ``told.time`` says.
        told: what was said.

    Raises:
        UserError: an unknown prediction or time, or a range that is none.
    """

    network: ModuleNetwork

    def __init__(self, network: ModuleNetwork, told: Told):
        text, value_range = str(told.predicts), check_value_range(told.value_range)
        schedule = in_image_units(told.schedule, value_range)
        network = network.with_time_map(as_time_map(told.time, told.schedule))
        super().__init__(network, schedule, network.shape, text.removeprefix("-"))
        sign = -1.0 if text.startswith("-") else 1.0
        self.parametrisation = OwnUnits(self.parametrisation, told.schedule, value_range, sign, told.rescaled)
        half, centre = half_and_centre(value_range)
        self.predicts, self.told, self.origin = text, told, -centre / half

    def shown(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the module is shown of states ``x_t`` ``(B, C, H, W)`` at times ``(B,)``."""
        alpha, sigma = (per_sample(scale(t), x_t) for scale in (self.schedule.alpha, self.schedule.sigma))
        return self.parametrisation.network_input(x_t, alpha, sigma, self.schedule)

    def retold(self, told: Told) -> WrappedDenoiser:
        """The same module under something else."""
        return WrappedDenoiser(self.network, told).eval()


@plain_defaults()
def wrap_module(
    module: nn.Module,
    *,
    schedule: str | Choice | Schedule | Mixing | Sequence[float] | np.ndarray | Tensor,
    predicts: str,
    shape: tuple[int, int, int],
    name: str,
    time: str | TimeMap,
    value_range: tuple[float, float] = OURS,
    classes: int = 0,
    null_label: int | None = None,
    learned_variance: bool = False,
    call: Call | None = None,
    device: str | torch.device | None = None,
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

    Schedule, prediction and time are told in the module's own units: where its images lie in ``value_range``, its x0 does, its
    sigma is the noise on such images, and sampling starts from the noise alone in those units. Everything that comes out of the
    model is in ours: images in [-1, 1], and the log-SNR of noise on them.

    The module is asked once, for two images at two times, together and alone. Python's warning says so where its answers do not
    depend on the time, or where its answer to pure noise has the sign or the time of another convention; with images,
    `check_wrapping` looks closer, and `compare` does so by itself.

    Args:
        module: called as ``module(x, time)``, and with ``classes`` as ``module(x, time, labels)``. It is put in eval
            mode and not copied.
        schedule: the name of one in `SCHEDULES` with its options, a `Schedule`, its alphas_cumprod ``(T,)``, or a function of t
            that gives (alpha, sigma), t = 0 being data.
        predicts: what its output means: ``"eps"``, ``"x0"``, ``"v"`` (alpha eps - sigma x0), ``"flow"`` (eps - x0),
            ``"score"`` (-eps / sigma) or ``"edm(sigma_data=...)"``. A minus in front is the negative: ``"-flow"`` is x0 - eps.
        shape: (C, H, W) of the images.
        name: how tables call it.
        time: what the module is given as time, ``(B,)``: ``"unit"``, t in [0, 1], 1 being noise; ``"reversed"``, 1 - t;
            ``"index"``, the timestep ``T t - 1`` as floats; ``"sigma"``, the schedule's noise scale; or a function of t.
            ``"index(integer=True)"`` is rounded, for an embedding table; ``"sigma(broadcast=True)"`` is ``(B, 1, 1, 1)``.
        value_range: which of the module's values are black and white; (-1, 1) here, and often (0, 1) elsewhere.
        classes: number of labels; 0 for a module that takes none. Image i is generated with the label i mod classes.
        null_label: the label that means "no label", where there is one.
        learned_variance: the output has twice the channels, of which the second half is dropped.
        call: how it is called where it is not ``module(x, time)``: ``lambda module, x, time: module(time, x)``.
        device: where to put it; by default where its weights are.
        facts: more provenance for results; JSON types.

    Raises:
        UserError: an unknown schedule, prediction or time, a table that is no alphas_cumprod, a module in half precision, or one
            that fails, gives another shape or values that are not finite, answers differently each time, or whose answer for one
            image depends on the others.
    """
    if not isinstance(module, nn.Module):
        what = (
            f"the class {module.__name__}; give an instance of it"
            if isinstance(module, type)
            else f"a {type(module).__name__}"
        )
        raise UserError(f"wrap_module takes a torch module (an nn.Module), not {what}.")
    told = Told(as_schedule(schedule), predicts, time, value_range)
    if not (isinstance(shape, tuple | list) and all(isinstance(size, int) for size in shape)):
        raise UserError(f"shape={short(shape)} is not usable; give (channels, height, width).")
    options: dict[str, Any] = {"classes": classes, "null_label": null_label, "learned_variance": learned_variance}
    network = ModuleNetwork(module, shape, as_time_map(time, told.schedule), call=call, **options)
    denoiser = WrappedDenoiser(_placed(network, device), told)
    model = foreign_model(denoiser, denoiser.network, name, {"source": "module", **(facts or {})})
    for sentence in ask(denoiser, name):
        warnings.warn(sentence, stacklevel=3)  # past the decorator
    return model


def _placed(network: ModuleNetwork, device: str | torch.device | None) -> ModuleNetwork:
    """The network on that device, or told where its module is, which stays there."""
    if device is not None:
        return network.to(resolve_device(device))
    tensors = [*network.module.parameters(), *network.module.buffers()]
    network._place = network._place.to(tensors[0].device if tensors else "cpu")
    return network


def foreign_model(denoiser: NetworkDenoiser, network: ImageNetwork, name: str, facts: dict[str, Any]) -> DiffusionModel:
    """The model of a network that was not trained here, in eval mode, with the facts that all such models have."""
    inner = network.module if isinstance(network, ModuleNetwork) else network
    common: dict[str, Any] = {
        "kind": "diffusion",
        "network": getattr(inner, "original_name", type(inner).__name__),
        "predicts": denoiser.predicts,
        "schedule": denoiser.schedule.spec,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    if isinstance(network, ModuleNetwork) and network.learned_variance:
        common["learned_variance"] = "dropped"
    if isinstance(denoiser, WrappedDenoiser) and denoiser.told.value_range != OURS:
        common["value_range"] = list(denoiser.told.value_range)
    return DiffusionModel(name, denoiser.eval(), {**common, **facts}, classes=network.classes)
