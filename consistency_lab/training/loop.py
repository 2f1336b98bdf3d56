"""The one training loop, as a generator: it yields steps, and the caller owns logging, stopping and saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import keep_freed, plain_defaults, sent, training_in
from consistency_lab.errors import UserError
from consistency_lab.networks.reentrant import differentiating
from consistency_lab.training.ema import WeightAverage
from consistency_lab.training.momentum import MomentumSchedule
from consistency_lab.training.optimizers import OPTIMIZERS
from consistency_lab.training.settings import LoopSettings

_STREAMS = {"order": 1, "noise": 2, "flip": 3, "flip others": 4}


def stream_generator(seed: int, stream: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of (seed, stream, step) alone: a resumed run draws what the first would have drawn."""
    word = np.random.SeedSequence([seed, _STREAMS[stream], step]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(word >> np.uint64(1)))


class EpochOrder:
    """Which images a step sees: every image once per epoch, in an order that is a function of (seed, epoch) alone.

    Args:
        images: how many there are. What is left of an epoch after its last full batch is left out.
        batch: images per step.
        seed: of the order.
        name: what the images are called, for the message.

    Raises:
        UserError: a batch larger than the data.
    """

    def __init__(self, images: int, batch: int, seed: int, name: str):
        if batch > images:
            raise UserError(f"a batch of {batch} is larger than the {images} images of {name!r}; lower batch.")
        self.images, self.batch, self.seed, self.per_epoch = images, batch, seed, images // batch
        self._epoch, self._order = -1, torch.empty(0, device="cpu")

    def __call__(self, step: int) -> Tensor:
        """Indices ``(batch,)`` of the images of a 0-based step, on the CPU."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            drawn = stream_generator(self.seed, "order", epoch)
            self._order = torch.randperm(self.images, generator=drawn, device="cpu")
        return self._order[place * self.batch : (place + 1) * self.batch]

    def following(self, step: int, count: int) -> Tensor:
        """Indices ``(count,)`` of the images after those of a step in the order of its epoch, which begins anew after its last.

        Raises `UserError` where there are fewer besides the batch.
        """
        if count > self.images - self.batch:
            raise UserError(f"{count} images do not follow on a batch of {self.batch} of {self.images}.")
        self(step)
        first = (step % self.per_epoch + 1) * self.batch
        return self._order[(first + torch.arange(count, device="cpu")) % self.images]


class ShuffledImages:
    """The images of each step: shuffled epochs, mirrored at random where the settings say so; all functions of (order seed, step).

    Args:
        images: the training set.
        settings: batch, seeds, flip.
        device: where the images go.

    Raises:
        UserError: a batch larger than the data.
    """

    def __init__(self, images: ImageSet, settings: LoopSettings, device: torch.device):
        self.order = EpochOrder(len(images), settings.batch, settings.seeds["order"], images.name)
        self.set, self.device, self.settings = images.to(device), device, settings

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images ``(B, C, H, W)`` of a 0-based step on the device, and their indices ``(B,)`` in the set on the CPU.

        There they are checked: a GPU would have to be waited for.
        """
        indices = self.order(step)
        return self._shown(indices, "flip", step), indices

    def following(self, step: int, most: int) -> Tensor:
        """Images that the step does not see: the next ones of its epoch, see `EpochOrder.following`; so many, or all that there are."""
        if not (count := min(most, self.order.images - self.order.batch)):
            return torch.empty(0, *self.set.shape, device=self.device)
        return self._shown(self.order.following(step, count), "flip others", step)

    def _shown(self, indices: Tensor, stream: str, step: int) -> Tensor:
        x0 = self.set.batch(indices)
        if self.settings.flip:
            drawn = stream_generator(self.settings.seeds["order"], stream, step)
            mirrored = torch.rand(len(x0), generator=drawn, dtype=torch.float32, device="cpu") < 0.5
            x0 = torch.where(sent(mirrored, self.device).reshape(-1, 1, 1, 1), x0.flip(-1), x0)
        return x0


class Batch(NamedTuple):
    """What one step trains on: whatever the loss takes, and a weight per sample ``(B,)``."""

    data: tuple[Tensor, ...]
    weight: Tensor


class BatchSource(Protocol):
    """Where batches come from. Its batches are a function of the step and of the state that `observe` built."""

    def batch(self, step: int) -> Batch: ...

    def observe(self, batch: Batch, losses: Tensor) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainingStep(NamedTuple):
    """One finished step: its 1-based number, the mean weighted loss (a scalar on the device), the learning rate and beta1.

    ``parts`` are other scalars by name, such as the opponent's loss.
    """

    step: int
    loss: Tensor
    lr: float
    beta1: float
    parts: Mapping[str, Tensor] = MappingProxyType({})


def annealing(settings: LoopSettings, step: int) -> float:
    """Factor of the learning rate at a 0-based step: linear warm-up times linear decay to ``lr_final``."""
    warm = min(1.0, (step + 1) / settings.lr_warmup) if settings.lr_warmup else 1.0
    return warm * (1.0 - (1.0 - settings.lr_final) * min(step / settings.steps, 1.0))


def _clip(parameters: list[nn.Parameter], most: float) -> None:
    """Scale gradients down to a norm, as `torch.nn.utils.clip_grad_norm_`, which multiplies by 1 where there is nothing to scale."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # A GPU is not waited for to be asked.
    if norm.device.type != "cpu" or not float(norm) < 0.999 * most:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)


class Descent:
    """How one module goes downhill: its optimizer, momentum rule, clipping and annealing.

    Args:
        module: its trainable parameters are given to the optimizer.
        settings: optimizer, learning rate, momentum and clipping.
        lr: peak learning rate, where it is not that of the settings.
        rate: factor of the learning rate at a 0-based step; `annealing` by default.

    Raises:
        UserError: an optimizer or momentum rule that does not exist, or the two do not go together.
    """

    def __init__(
        self,
        module: nn.Module,
        settings: LoopSettings,
        lr: float | None = None,
        rate: Callable[[int], float] | None = None,
    ):
        self.settings, self.lr = settings, settings.lr if lr is None else lr
        self.rate = rate or partial(annealing, settings)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise UserError("the network has no parameter that could be trained; give it one that requires gradients.")
        self.optimizer = OPTIMIZERS.build(settings.optimizer, self.parameters, self.lr)
        self.momentum = None
        adam = isinstance(self.optimizer, torch.optim.Adam | torch.optim.AdamW)
        if adam or settings.momentum.name != "constant":
            self.momentum = MomentumSchedule(self.optimizer, settings.momentum, settings.steps)

    def take(self, objective: Tensor, step: int) -> None:
        """One optimizer step on a scalar, the 0-based ``step`` of the run."""
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        self.descend(step)

    def descend(self, step: int) -> None:
        """One optimizer step along the gradients that the parameters have."""
        if self.settings.clip_norm:
            _clip(self.parameters, self.settings.clip_norm)
        factor = self.rate(step)
        if self.momentum is not None:
            self.momentum.step(factor)
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * factor
        self.optimizer.step()

    @property
    def rates(self) -> tuple[float, float]:
        """Learning rate and beta1 (SGD: momentum) of the last step."""
        if self.momentum is not None:
            return self.momentum.used[0]
        group = self.optimizer.param_groups[0]
        return group["lr"], group["momentum"] if "momentum" in group else group["betas"][0]

    def state_dict(self) -> dict[str, Any]:
        momentum = self.momentum.state_dict() if self.momentum else {}
        return {"optimizer": self.optimizer.state_dict(), "momentum": momentum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Rate and momentum follow from the settings; checkpoints of earlier versions hold those of their last step instead.
        own = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, options in zip(self.optimizer.param_groups, own, strict=True):
            group.update(options)
        if self.momentum is not None:
            self.momentum.load_state_dict(state["momentum"])


class _Stepping(Protocol):
    step: int
    settings: Any


def steps_of(loop: _Stepping, advance: Callable[[], TrainingStep]) -> Iterator[TrainingStep]:
    """Advance a loop to its last step, under torch's own defaults and in the precision of its settings; what cannot be differentiated is
    refused at the first."""
    first: bool = True
    keep_freed()
    while loop.step < loop.settings.steps:
        with plain_defaults(), training_in(loop.settings.precision), differentiating() if first else nullcontext():
            done = advance()
        first = False
        yield done


class TrainingLoop:
    """Trains any module on any loss per sample.

    Args:
        module: what is trained; its trainable parameters are given to the optimizer.
        loss: ``loss(module, *batch.data) -> (B,)``.
        source: where batches come from.
        settings: steps, optimizer, learning rate, momentum, averaging, precision.
        device: where it happens; the module must be there already.
        rate: factor of the learning rate at a 0-based step; `annealing` by default.

    Raises:
        UserError: an optimizer or momentum rule that does not exist, or the two do not go together.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[..., Tensor],
        source: BatchSource,
        settings: LoopSettings,
        device: torch.device,
        rate: Callable[[int], float] | None = None,
    ):
        self.module, self.loss, self.source, self.settings, self.device = module, loss, source, settings, device
        self.average = WeightAverage(module, settings.ema_half_life * settings.steps)
        self.descent = Descent(module, settings, rate=rate)
        self.step, self.sharing = 0, 1

    def __iter__(self) -> Iterator[TrainingStep]:
        """Train from where the loop stands to the last step."""
        return steps_of(self, self._advance)

    def _advance(self) -> TrainingStep:
        self.module.train()
        batch = self.source.batch(self.step)
        losses = losses_of(self.loss, self.module, batch, self.settings.precision)
        objective = (batch.weight * losses).mean()
        self.descent.take(objective, self.step)
        return self._stepped(batch, losses.detach(), objective.detach())

    def _stepped(self, batch: Batch, losses: Tensor, objective: Tensor) -> TrainingStep:
        """What follows a step of the optimizer."""
        self.step += 1
        self.average.update(self.step)
        self.source.observe(batch, losses)
        return TrainingStep(self.step, objective, *self.descent.rates)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; together with the settings and the data it gives that step bit for bit."""
        return {
            "step": self.step,
            "module": self.module.state_dict(),
            "average": self.average.weights,
            "source": self.source.state_dict(),
            **self.descent.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.average.load(state["average"])
        self.descent.load_state_dict(state)
        self.source.load_state_dict(state["source"])
        self.step = int(state["step"])


def losses_of(loss: Callable[..., Tensor], module: nn.Module, batch: Batch, precision: str) -> Tensor:
    """The loss of each sample of a batch, ``(B,)`` float32. Raises `UserError` for a loss that averages over them."""
    with torch.autocast(batch.weight.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        losses = loss(module, *batch.data).float()
    if losses.shape != batch.weight.shape:
        raise UserError(
            f"a loss gives one value per sample, {tuple(batch.weight.shape)}, and this one gave {tuple(losses.shape)}; "
            "do not average over the batch."
        )
    return losses


def check_finite(loss: float, step: int, what: str) -> None:
    """Raise `UserError` for a loss that is no longer a number."""
    if not np.isfinite(loss):
        raise UserError(
            f"the training of {what} diverged: its loss is {loss} at step {step}. Lower lr, or raise lr_warmup."
        )
