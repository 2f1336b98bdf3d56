"""Momentum that decays over a run, and what happens to the learning rate meanwhile.

Demon (Chen et al. 1910.04952, equation 3): with tau = step / total steps and beta0 the first momentum,

    beta1(tau) = beta0 (1 - tau) / ((1 - beta0) + beta0 (1 - tau)).

MDLRC (2404.07946, section 4.3) compensates the learning rate, lr(tau) = lr0 (1 - beta0) / (1 - beta1(tau)), which keeps the weight
lr (1 - beta1) of the newest gradient constant in Adam's averaging form. By substitution lr(tau) = lr0 (1 - beta0 tau): a linear decay.
Any claim for MDLRC therefore needs a control with that decay and constant momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from consistency_lab.choices import Registry
from consistency_lab.errors import UserError

Rule = Callable[[float], tuple[float, float]]
"""tau in [0, 1] -> (beta1, factor of the learning rate)."""


def demon(tau: float, beta0: float) -> float:
    """Demon's momentum; ``tau`` beyond 1 is read as 1."""
    left = 1.0 - min(tau, 1.0)
    return beta0 * left / ((1.0 - beta0) + beta0 * left)


def _constant(beta0: float) -> Rule:
    return lambda tau: (beta0, 1.0)


def _beta_decay_only(beta0: float) -> Rule:
    return lambda tau: (demon(tau, beta0), 1.0)


def _mdlrc(beta0: float) -> Rule:
    return lambda tau: (beta := demon(tau, beta0), (1.0 - beta0) / (1.0 - beta))


def _effective_lr(beta0: float) -> Rule:
    # Keeps lr / (1 - beta1) constant, the inverse compensation: another method, and not MDLRC.
    return lambda tau: (beta := demon(tau, beta0), (1.0 - beta) / (1.0 - beta0))


MOMENTUM_RULES: Registry[Rule] = Registry(
    "momentum rule",
    {"constant": _constant, "beta_decay_only": _beta_decay_only, "mdlrc": _mdlrc, "effective_lr": _effective_lr},
)


class MomentumSchedule:
    """Sets momentum and learning rate of a torch Adam or AdamW before each of its steps.

    Adam divides by 1 - beta1^k, which is right only for a constant beta1; with a varying one the mean of k gradients has the weight
    1 - prod(beta1). The difference is put into the learning rate, and for AdamW taken out of the weight decay again, which torch
    multiplies by the same learning rate.

    >>> network = torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    >>> schedule = MomentumSchedule(optimizer, "mdlrc", total_steps=1000)
    >>> schedule.step()  # before every optimizer.step()

    Args:
        optimizer: torch.optim.Adam or AdamW, not yet stepped.
        rule: ``"constant"``, ``"mdlrc"``, ``"beta_decay_only"`` or ``"effective_lr"``.
        total_steps: length of the run; beyond it the last values stay.

    Raises:
        UserError: another optimizer, an unknown rule, or a run of no steps.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rule: str, total_steps: int):
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            raise UserError(
                f"a momentum rule sets beta1 of Adam or AdamW; {type(optimizer).__name__} has no beta1. Use adam or adamw."
            )
        if total_steps < 1:
            raise UserError(f"a momentum rule needs a run of at least 1 step, not {total_steps}.")
        self.optimizer, self.total_steps, self.taken = optimizer, total_steps, 0
        self._base = [(group["lr"], group["betas"], group["weight_decay"]) for group in optimizer.param_groups]
        self._products = [1.0] * len(self._base)
        self._rules = [MOMENTUM_RULES.build(rule, betas[0]) for _, betas, _ in self._base]
        self._decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(
            optimizer.defaults.get("decoupled_weight_decay", False)
        )

    def step(self, lr_factor: float = 1.0) -> None:
        """Prepare the next optimizer step; ``lr_factor`` multiplies the learning rate (warm-up, annealing)."""
        tau, count = self.taken / self.total_steps, self.taken + 1
        for i, (group, (lr, betas, weight_decay)) in enumerate(
            zip(self.optimizer.param_groups, self._base, strict=True)
        ):
            beta, factor = self._rules[i](tau)
            self._products[i] *= beta
            correction = (1.0 - beta**count) / (1.0 - self._products[i])
            group["betas"] = (beta, betas[1])
            group["lr"] = lr * factor * lr_factor * correction
            if self._decoupled:
                group["weight_decay"] = weight_decay / correction
        self.taken = count

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "products": list(self._products)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken, self._products = int(state["taken"]), [float(value) for value in state["products"]]
