"""Models of one architecture trained at once, step by step: one evaluation of their stacked networks in the place of one each.

Everything else of a step is each model's own: images, times, noise, clipping, optimizer, average, log. So they may differ in seeds,
timestep sampler, weighting, learning rate and momentum. A run that is trained in lock-step says at which place of how many (``lockstep`` of
its settings): its numbers are those of a run by itself to rounding, and depend on both (kernels that compute several networks vectorise
across them), but neither on its companions nor on whether they are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from consistency_lab.devices import plain_defaults, training_in
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.errors import HeldError, UserError
from consistency_lab.networks.own import is_own
from consistency_lab.networks.registry import build_network
from consistency_lab.networks.stacked import SMALL, StackedNetwork
from consistency_lab.store.run import Run
from consistency_lab.training.loop import Batch, BatchSource, TrainingLoop, TrainingStep, losses_of
from consistency_lab.training.settings import LoopSettings, TrainingSettings
from consistency_lab.training.stopping import Stopped

MOST = 16  # models of a small network that are trained at once by default
SHARED = ("network", "predicts", "conditional", "schedule", "objective", "precision", "batch")
"""The settings that models in lock-step have in common."""


class LockstepLoop(TrainingLoop):
    """A `TrainingLoop` whose gradients come from a `Lockstep`; iterated by itself it is alone in its lock-step.

    Arguments and errors as for `TrainingLoop`; the module is a `NetworkDenoiser`.
    """

    module: NetworkDenoiser
    settings: TrainingSettings

    def __init__(
        self,
        module: NetworkDenoiser,
        loss: Callable[..., Tensor],
        source: BatchSource,
        settings: TrainingSettings,
        device: torch.device,
        rate: Callable[[int], float] | None = None,
    ):
        super().__init__(module, loss, source, settings, device, rate)
        self.group: Lockstep | None = None
        self.ready: tuple[Batch, Tensor, Tensor] | None = None

    def _advance(self) -> TrainingStep:
        if self.ready is None:
            (self.group or Lockstep([self])).differentiate([self])
        assert self.ready is not None
        batch, losses, objective = self.ready
        self.ready = None
        self.descent.descend(self.step)
        return self._stepped(batch, losses, objective)


class Lockstep:
    """Takes the gradients of several models at once.

    Args:
        loops: whose settings are `alike`, at any steps. Places that none of them has are filled, and their numbers dropped.

    Raises:
        UserError: two loops of one place, or places of different lock-steps; models that differ in more than their weights.
    """

    def __init__(self, loops: Sequence[LockstepLoop]):
        first = loops[0]
        self.size, self._places = first.settings.place[1], {id(loop): loop.settings.place[0] for loop in loops}
        told = [loop.settings.lockstep for loop in loops]
        if len(set(told)) < len(told) or {loop.settings.place[1] for loop in loops} != {self.size}:
            raise UserError(f"models in lock-step each have a place of their own, not {', '.join(told)}.")
        networks: list[nn.Module | None] = [None] * self.size
        for loop in loops:
            loop.group, networks[self._places[id(loop)]] = self, loop.module.network
        self.network, base = StackedNetwork(networks), first.module
        self.network.tie()
        self.denoiser = NetworkDenoiser(self.network, base.schedule, base.shape, base.predicts)

    def differentiate(self, loops: Sequence[LockstepLoop]) -> None:
        """Give each of some loops the gradients of its next step."""
        settings = loops[0].settings
        with plain_defaults(), training_in(settings.precision):
            batches = {self._places[id(loop)]: loop.source.batch(loop.step) for loop in loops}
            filler = next(iter(batches.values()))
            parts = [batches.get(place, filler) for place in range(self.size)]
            together = Batch(
                tuple(torch.cat(each) for each in zip(*(part.data for part in parts), strict=True)),
                torch.cat([part.weight for part in parts]),
            )
            for loop in loops:
                loop.module.train()
            losses = losses_of(loops[0].loss, self.denoiser, together, settings.precision)
            losses, weight = (each.unflatten(0, (self.size, -1)) for each in (losses, together.weight))
            objectives = (weight * losses).mean(1)
            objectives.sum().backward()
            self.network.gradients()
            for loop, (place, batch) in zip(loops, batches.items(), strict=True):
                loop.sharing = len(loops)
                loop.ready = batch, losses[place].detach(), objectives[place].detach()


def alike(settings: LoopSettings, other: LoopSettings) -> bool:
    """Whether models of these settings can be trained in one lock-step."""
    both = isinstance(settings, TrainingSettings) and isinstance(other, TrainingSettings)
    return both and all(getattr(settings, key) == getattr(other, key) for key in SHARED)


def placed(settings: Sequence[TrainingSettings]) -> list[TrainingSettings]:
    """The same settings, each with its place in a lock-step of all of them."""
    return [each.replace(lockstep=f"{number}/{len(settings)}") for number, each in enumerate(settings, 1)]


def in_lockstep(
    jobs: Mapping[str, LoopSettings], shape: tuple[int, int, int], device: torch.device, most: int | None = None
) -> dict[str, LoopSettings]:
    """Jobs, those that are alike with a place in a lock-step. Jobs that have one, and GANs and VAEs, stay as they are.

    Args:
        jobs: name -> settings.
        shape: of the images.
        device: of all jobs.
        most: models in one lock-step; 1: none is. By default `MOST` of small networks on a GPU, and 1 elsewhere: on a processor a stacked
            network is slower than its parts one after another (benchmarks/RESULTS.md).

    Raises:
        UserError: fewer than 1.
    """
    if most is not None and most < 1:
        raise UserError(f"a lock-step is of one model or more, not {most}.")
    placed_jobs = dict(jobs)
    free = {name: s for name, s in jobs.items() if isinstance(s, TrainingSettings) and not s.lockstep}
    # Of a network of one's own nothing is known, and what knows the moments of its data cannot be stacked.
    free = {
        n: s for n, s in free.items() if not is_own(s.network) and PREDICTIONS.resolve(s.predicts).name != "gaussian"
    }
    while free:
        first = next(iter(free.values()))
        group = {name: settings for name, settings in free.items() if alike(first, settings)}
        free = {name: settings for name, settings in free.items() if name not in group}
        size = (MOST if device.type == "cuda" and _small(first, shape) else 1) if most is None else most
        names = list(group)
        for begin in range(0, len(names), size):
            part = names[begin : begin + size]
            if len(part) > 1:
                placed_jobs |= zip(part, placed([group[name] for name in part]), strict=True)
    return placed_jobs


def _small(settings: TrainingSettings, shape: tuple[int, int, int]) -> bool:
    network = build_network(settings.network, shape, 2 if settings.conditional else 0, 0)
    return sum(p.numel() for p in network.parameters()) <= SMALL


def lockstep_groups(jobs: Mapping[str, LoopSettings]) -> list[list[str]]:
    """The names of jobs that are trained at once: alike, and each with its own place among as many. Others are in none."""
    groups: list[list[str]] = []
    for name, settings in jobs.items():
        if not isinstance(settings, TrainingSettings) or not settings.lockstep:
            continue
        for group in groups:
            others = [jobs[other] for other in group]
            places = [other.place for other in others if isinstance(other, TrainingSettings)]
            if alike(others[0], settings) and places[0][1] == settings.place[1] and settings.place not in places:
                group.append(name)
                break
        else:
            groups.append([name])
    return [group for group in groups if len(group) > 1]


def train_together(
    loops: Sequence[LockstepLoop],
    steps: Callable[[LockstepLoop, Callable[[], None]], Generator[None, None, Run]],
    check: Callable[[], None],
) -> Iterator[tuple[int, Run]]:
    """Train loops in lock-step, each in its run folder, and yield (place, run) as each is finished.

    A model that diverges, or whose run another process holds, ends alone, and its error is raised when the others are done. Where one is
    stopped all are, each with its checkpoint.

    Args:
        loops: at step 0, of one lock-step.
        steps: `steps_in_store` of a loop, given what is called after each step.
        check: raises `Stopped` once Ctrl-C was pressed.
    """
    group, failed = Lockstep(loops), list[Exception]()
    going: dict[int, Any] = {place: steps(loop, check) for place, loop in enumerate(loops)}
    with contextlib.ExitStack() as closing:
        for each in going.values():
            closing.callback(each.close)
        while going:
            for place in list(going):
                try:
                    next(going[place])
                except StopIteration as end:
                    del going[place]
                    yield place, end.value
                except Stopped:
                    del going[place]
                    _stop(going)
                    raise
                except (UserError, HeldError) as error:
                    del going[place]
                    failed.append(error)
            if going:
                group.differentiate([loops[place] for place in going])
    if failed:
        raise min(
            failed, key=lambda error: isinstance(error, HeldError)
        )  # what is wrong, before what is to be waited for


def _stop(going: dict[int, Any]) -> None:
    """Have every other run save what it has."""
    for each in going.values():
        with contextlib.suppress(Stopped, StopIteration):
            each.throw(Stopped("stopped"))
