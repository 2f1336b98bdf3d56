"""The one training loop, as a generator: it yields steps, and the caller owns logging, stopping and saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from consistency_lab.choices import Choice, Registry
from consistency_lab.errors import UserError
from consistency_lab.training.ema import WeightAverage
from consistency_lab.training.momentum import MomentumSchedule
from consistency_lab.training.settings import TrainingSettings

_STREAMS = {"order": 1, "noise": 2}


def stream_generator(seed: int, stream: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of (seed, stream, step) alone: a resumed run draws what the first would have drawn."""
    word = np.random.SeedSequence([seed, _STREAMS[stream], step]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(word >> np.uint64(1)))


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
    """One finished step: its 1-based number, the mean weighted loss (a scalar on the device), the learning rate and beta1."""

    step: int
    loss: Tensor
    lr: float
    beta1: float


def _adam(
    parameters: list[nn.Parameter], lr: float, *, beta1: float = 0.9, beta2: float = 0.999
) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, beta2))


def _adamw(
    parameters: list[nn.Parameter], lr: float, *, beta1: float = 0.9, beta2: float = 0.999, weight_decay: float = 0.01
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


def _sgd(
    parameters: list[nn.Parameter], lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)


OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer", {"adam": _adam, "adamw": _adamw, "sgd": _sgd})


def annealing(settings: TrainingSettings, step: int) -> float:
    """Factor of the learning rate at a 0-based step: linear warm-up times linear decay to ``lr_final``."""
    warm = min(1.0, (step + 1) / settings.lr_warmup) if settings.lr_warmup else 1.0
    return warm * (1.0 - (1.0 - settings.lr_final) * min(step / settings.steps, 1.0))


class TrainingLoop:
    """Trains any module on any loss per sample.

    Args:
        module: what is trained; its trainable parameters are given to the optimizer.
        loss: ``loss(module, *batch.data) -> (B,)``.
        source: where batches come from.
        settings: steps, optimizer, learning rate, momentum, averaging, precision.
        device: where it happens; the module must be there already.

    Raises:
        UserError: an optimizer or momentum rule that does not exist, or the two do not go together.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[..., Tensor],
        source: BatchSource,
        settings: TrainingSettings,
        device: torch.device,
    ):
        self.module, self.loss, self.source, self.settings, self.device = module, loss, source, settings, device
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = OPTIMIZERS.build(settings.optimizer, self.parameters, settings.lr)
        self.momentum = None
        if (
            isinstance(self.optimizer, torch.optim.Adam | torch.optim.AdamW)
            or Choice.parse(settings.momentum).name != "constant"
        ):
            self.momentum = MomentumSchedule(self.optimizer, settings.momentum, settings.steps)
        self.average = WeightAverage(module, settings.ema_half_life * settings.steps)
        self.step = 0

    def __iter__(self) -> Iterator[TrainingStep]:
        """Train from where the loop stands to the last step."""
        while self.step < self.settings.steps:
            yield self._advance()

    def _advance(self) -> TrainingStep:
        self.module.train()
        batch = self.source.batch(self.step)
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            losses = self.loss(self.module, *batch.data).float()
        objective = (batch.weight * losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        if self.settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self._set_rates()
        self.optimizer.step()
        self.step += 1
        self.average.update(self.step)
        self.source.observe(batch, losses.detach())
        group = self.optimizer.param_groups[0]
        return TrainingStep(
            self.step, objective.detach(), group["lr"], group["betas"][0] if "betas" in group else group["momentum"]
        )

    def _set_rates(self) -> None:
        factor = annealing(self.settings, self.step)
        if self.momentum is not None:
            self.momentum.step(factor)
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.lr * factor

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; together with the settings and the data it gives that step to the bit."""
        return {
            "step": self.step,
            "module": self.module.state_dict(),
            "average": self.average.weights,
            "optimizer": self.optimizer.state_dict(),
            "momentum": self.momentum.state_dict() if self.momentum else {},
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.average.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.momentum is not None:
            self.momentum.load_state_dict(state["momentum"])
        self.source.load_state_dict(state["source"])
        self.step = int(state["step"])


def check_finite(loss: float, step: int, what: str) -> None:
    """Raise `UserError` for a loss that is no longer a number."""
    if not np.isfinite(loss):
        raise UserError(
            f"the training of {what} diverged: its loss is {loss} at step {step}. Lower lr, or raise lr_warmup."
        )
