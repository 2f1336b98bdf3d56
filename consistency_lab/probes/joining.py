"""Between which models there is a path through weight space, and what their buffers are on the way.

A path moves the weights of one module towards those of another, and its end is the other model only if the two differ in nothing else:
not in schedule, prediction or guidance, not in what their layers do, not in buffers. Running statistics of batch norm are the exception:
they belong to the weights they were taken with, so that both ends keep their own and every point between has them recomputed, as
cumulative averages over the frozen batch (Izmailov et al. 1803.05407, section 3; Garipov et al. 1802.10026, appendix A.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from consistency_lab.diffusion.denoiser import Denoiser
from consistency_lab.diffusion.loss import TwoStepLoss
from consistency_lab.diffusion.parametrisation import Parametrisation
from consistency_lab.diffusion.schedule import Schedule
from consistency_lab.errors import UserError
from consistency_lab.probes.frozen import FrozenBatch, SampleLoss, untouched

if TYPE_CHECKING:
    from consistency_lab.probes.subject import Subject

Settle = Callable[[], None]
"""Makes the running statistics of a module those of the weights that it has now."""

_PLAIN = (bool, int, float, str, type(None), tuple, list)


def check_joinable(first: nn.Module, second: nn.Module, names: tuple[str, str]) -> None:
    """Raise `UserError`, naming what differs, for modules that differ in more than weights and running statistics of batch norm."""
    if found := next(_differences(first, second), None):
        raise UserError(
            f"{names[0]!r} and {names[1]!r} {found}; there is a path only between models that differ in nothing but their weights."
        )


def _differences(first: nn.Module, second: nn.Module) -> Iterator[str]:
    parts, others = dict(first.named_modules()), dict(second.named_modules())
    # What is said of a model comes before what follows from it.
    for name, part in parts.items():
        if isinstance(part, Denoiser) and name in others:
            yield from _other_settings(part, others[name])
    yield from _other_tensors("parameters", first.named_parameters(), second.named_parameters())
    for name in {**parts, **others}:
        if name not in parts or name not in others:
            yield f"differ in {name}, which only one of them has"
        elif _class(parts[name]) != _class(others[name]):
            yield f"differ in {name or 'class'} ({_class(parts[name])} against {_class(others[name])})"
    yield from _other_tensors("buffers", first.named_buffers(), second.named_buffers())
    taken = {f"{name}.{key}" for name, part in parts.items() if _tracks(part) for key, _ in part.named_buffers()}
    buffers = dict(second.named_buffers())
    for name, buffer in first.named_buffers():
        if name not in taken and not torch.equal(buffer, buffers[name].to(buffer)):
            yield f"differ in the buffer {name}, which is no weight and cannot be recomputed between them"


def _class(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__qualname__))


def _other_settings(first: Denoiser, second: nn.Module) -> Iterator[str]:
    if type(first) is not type(second):
        yield f"are a {_class(first)} and a {_class(second)}"
    settings = {key: (_told(value), _told(vars(second).get(key))) for key, value in vars(first).items()}
    for key in sorted(settings, key=lambda key: key not in ("schedule", "predicts")):
        here, there = settings[key]
        if here is not None and not key.startswith("_") and key != "training" and here != there:
            yield f"differ in {key} ({here} against {there})"


def _told(value: Any) -> str | None:
    """What a setting is, in words by which it can be compared; None for what has none."""
    if isinstance(value, Schedule):
        return value.spec
    if isinstance(value, Parametrisation):
        options = {key: _told(option) for key, option in vars(value).items()}
        return f"{type(value).__name__}({', '.join(f'{key}={option}' for key, option in options.items())})"
    return repr(value) if isinstance(value, _PLAIN) else None


def _other_tensors(
    what: str, first: Iterator[tuple[str, Tensor]], second: Iterator[tuple[str, Tensor]]
) -> Iterator[str]:
    here, there = ({name: tuple(x.shape) for name, x in tensors} for tensors in (first, second))
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            yield f"have different {what} ({name}: {here.get(name, 'none')} against {there.get(name, 'none')})"


def check_loss(first: SampleLoss, second: SampleLoss, names: tuple[str, str]) -> None:
    """Raise `UserError` for losses that measure different things; an opponent is part of the question and stays the first one's."""
    here, there = _settings(first), _settings(second)
    if here is None or there is None:
        return
    if here[0] is not there[0]:
        raise UserError(f"{names[0]!r} and {names[1]!r} have different losses; there is a path only on one loss.")
    for key, value in here[1].items():
        if isinstance(value, _PLAIN) and value != (other := there[1].get(key)):
            raise UserError(
                f"{names[0]!r} and {names[1]!r} differ in {key} of their loss ({value!r} against {other!r}); "
                "there is a path only on one loss."
            )


def _settings(loss: SampleLoss) -> tuple[Any, dict[str, Any]] | None:
    """What a loss is, and its settings; None for one that does not tell."""
    if isinstance(loss, TwoStepLoss):
        return type(loss), vars(loss)
    return (loss.func, loss.keywords) if isinstance(loss, partial) else None


def own_losses(subject: Subject, other: Subject) -> Tensor:
    """The losses ``(levels, count)`` of the other end of a path, float64 on the CPU: those of its own module.

    Raises:
        UserError: as `Subject.check`; its weights and buffers give another loss in the first module, because the two modules compute
            different things.
    """
    other.check()
    own = other.losses()
    with untouched(subject.module), torch.no_grad():
        for kind in ("parameters", "buffers"):
            for ours, theirs in zip(getattr(subject.module, kind)(), getattr(other.module, kind)(), strict=True):
                ours.copy_(theirs)
        moved = subject.losses()
    if not torch.allclose(moved, own, rtol=1e-3, atol=1e-4 * float(own.abs().mean()), equal_nan=True):
        raise UserError(
            f"with the weights of {other.name!r}, {subject.name!r} has a loss of {moved.mean():.4g} where {other.name!r} itself has "
            f"{own.mean():.4g}: they differ in something that is no weight (an option of a layer, the module's time); there is a path "
            "only between models that compute the same function of their weights."
        )
    return own


def _tracks(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def to_settle(first: nn.Module, *others: nn.Module) -> list[_BatchNorm]:
    """The batch norms of the first module if their running statistics differ from those of another; else none."""
    mine = {name: part for name, part in first.named_modules() if isinstance(part, _BatchNorm) and _tracks(part)}
    for other in others:
        theirs = dict(other.named_modules())
        for name, part in mine.items():
            pairs = zip(part.buffers(), theirs[name].buffers(), strict=True)
            if any(a.is_floating_point() and not torch.equal(a, b.to(a)) for a, b in pairs):
                return list(mine.values())
    return []


def settling(subject: Subject, *others: Subject) -> Settle | None:
    """A function that recomputes a subject's running statistics for its present weights, on its own batch; None if there is nothing to do.

    Raises:
        UserError: a batch of one sample, which has no variance.
    """
    norms = to_settle(subject.module, *(other.module for other in others))
    if not norms:
        return None
    if len(subject.batch) < 2:
        raise UserError(
            "running statistics of batch norm are recomputed from two samples or more; ask with count=2 at least."
        )
    return partial(_settle, subject.module, norms, subject.loss, subject.batch)


def _settle(module: nn.Module, norms: list[_BatchNorm], loss: SampleLoss, batch: FrozenBatch) -> None:
    momenta = [norm.momentum for norm in norms]
    # All noise levels in every chunk, in equal shares: the average over chunks is then that over samples.
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        with torch.no_grad():
            for rows in order.tensor_split(-(-len(batch) // batch.chunk)):
                loss(module, *(x[rows.to(x.device)] for x in batch.tensors))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
