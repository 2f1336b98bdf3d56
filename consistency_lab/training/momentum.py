"""Momentum that decays over a run, and what happens to the learning rate meanwhile.

Demon (Chen et al. 1910.04952, equation 3): with tau = step / total steps and beta0 the first momentum,

    beta(tau) = beta0 (1 - tau) / ((1 - beta0) + beta0 (1 - tau)).

MDLRC (2404.07946, section 4.3) compensates the learning rate so that the weight of the newest gradient stays constant. What that means
depends on how an optimizer keeps its gradients:

* averaging, m <- beta m + (1 - beta) g (Adam, AdamW, SGD with dampening = momentum): the newest gradient weighs lr (1 - beta), so
  lr(tau) = lr0 (1 - beta0) / (1 - beta(tau)). By substitution that is lr0 (1 - beta0 tau): a linear decay. Any claim for MDLRC therefore
  needs a control with that decay and constant momentum.
* summing, m <- beta m + g (SGD without dampening): the newest gradient weighs lr itself, so the rate stays constant, and MDLRC is
  Demon as it is.

Demon-Adam as published sums in Adam as well, m <- g + beta(tau) m at a constant rate: to first order that is MDLRC. Demon's beta at a
constant rate in torch's averaging Adam is not it. Both are here, under names of their own.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from consistency_lab.choices import Registry
from consistency_lab.errors import UserError

Form = Literal["average", "sum"]


def demon(tau: float, beta0: float) -> float:
    """Demon's momentum; ``tau`` beyond 1 is read as 1."""
    left = 1.0 - min(tau, 1.0)
    return beta0 * left / ((1.0 - beta0) + beta0 * left)


class MomentumRule:
    """Constant momentum, and the base of the others. ``rule(tau)`` gives momentum and the factor of the learning rate.

    Args:
        beta0: the optimizer's own momentum.
        form: how the optimizer keeps its gradients.
    """

    sums = False
    """Whether the rule wants gradients summed in an optimizer that averages them."""

    def __init__(self, beta0: float, form: Form = "average"):
        self.beta0, self.form = beta0, form

    def __call__(self, tau: float) -> tuple[float, float]:
        return self.beta0, 1.0


class BetaDecayOnly(MomentumRule):
    """Demon's momentum at a constant learning rate, in whatever form the optimizer has: the control for MDLRC.

    Args:
        floor: momentum never falls below it.
        start: fraction of the run at which the decay begins; it ends with the run.

    Raises:
        UserError: a floor outside [0, beta0], a start outside [0, 1), or an optimizer without momentum.
    """

    def __init__(self, beta0: float, form: Form = "average", *, floor: float = 0.0, start: float = 0.0):
        super().__init__(beta0, form)
        if not beta0 > 0:
            raise UserError("the optimizer has momentum 0, which cannot decay; give it one, such as 0.9.")
        if not 0 <= floor <= beta0:
            raise UserError(f"the floor of momentum lies between 0 and the optimizer's own {beta0:g}, not {floor!r}.")
        if not 0 <= start < 1:
            raise UserError(f"momentum may begin to decay at a fraction of the run in [0, 1), not {start!r}.")
        self.floor, self.start = floor, start

    def __call__(self, tau: float) -> tuple[float, float]:
        beta = max(self.floor, demon(max(0.0, (tau - self.start) / (1.0 - self.start)), self.beta0))
        return beta, self.compensation(beta)

    def compensation(self, beta: float) -> float:
        return 1.0


class MDLRC(BetaDecayOnly):
    """Demon's momentum with the newest gradient's weight kept constant."""

    def compensation(self, beta: float) -> float:
        return (1.0 - self.beta0) / (1.0 - beta) if self.form == "average" else 1.0


class EffectiveLR(BetaDecayOnly):
    """Demon's momentum with lr / (1 - beta) kept constant: the inverse compensation, another method and not MDLRC.

    In a summing optimizer lr / (1 - beta) is how far a lasting gradient moves a weight per step, and keeping it cancels the annealing that
    Demon brings. In an averaging one the rate grows by up to 1 / (1 - beta0).
    """

    def compensation(self, beta: float) -> float:
        return (1.0 - beta) / (1.0 - self.beta0)


class DemonAdam(BetaDecayOnly):
    """Demon-Adam as published (1910.04952, algorithm 2): m <- g + beta(tau) m at a constant rate, without bias correction of m.

    The rate is scaled by 1 - beta0, so that a constant beta would take Adam's steps once it has begun. The second moment keeps Adam's bias
    correction; the weight decay of AdamW keeps the optimizer's own rate.
    """

    sums = True


MOMENTUM_RULES: Registry[MomentumRule] = Registry(
    "momentum rule",
    {
        "constant": MomentumRule,
        "beta_decay_only": BetaDecayOnly,
        "demon_adam": DemonAdam,
        "mdlrc": MDLRC,
        "effective_lr": EffectiveLR,
    },
)


class MomentumSchedule:
    """Sets momentum and learning rate of a torch Adam, AdamW or SGD before each of its steps.

    Adam divides by 1 - beta1^k, which is right only for a constant beta1; with a varying one the mean of k gradients has the weight
    1 - prod(beta1). The difference is put into the learning rate, and for AdamW taken out of the weight decay again, which torch
    multiplies by the same learning rate. SGD corrects no bias: torch starts its buffer with the first gradient itself.

    >>> network = torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    >>> schedule = MomentumSchedule(optimizer, "mdlrc(floor=0.5)", total_steps=1000)
    >>> schedule.step()  # before every optimizer.step()

    Args:
        optimizer: torch.optim.Adam, AdamW or SGD, not yet stepped. A stopped run loads the states of both after this.
        rule: ``"constant"``, ``"mdlrc"``, ``"beta_decay_only"``, ``"demon_adam"`` or ``"effective_lr"``, with options.
        total_steps: length of the run; beyond it the last values stay.

    Raises:
        UserError: another optimizer or one that has been stepped, an unknown rule, a run of no steps, or a rule that has no meaning there.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rule: str, total_steps: int):
        self._adam = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
        if not self._adam and not isinstance(optimizer, torch.optim.SGD):
            raise UserError(
                f"momentum rules are defined for Adam, AdamW and SGD; what {type(optimizer).__name__} does with its gradients between "
                "steps is not what they compensate for. Use one of those three."
            )
        if total_steps < 1:
            raise UserError(f"a momentum rule needs a run of at least 1 step, not {total_steps}.")
        if optimizer.state:
            raise UserError(
                "the optimizer has been stepped; put the momentum rule on a new one, and load the states of a stopped run after that."
            )
        self.optimizer, self.total_steps, self.taken = optimizer, total_steps, 0
        self._base = [dict(group, params=None) for group in optimizer.param_groups]
        self._rules = [self._rule(rule, group) for group in self._base]
        # Per group: the product of beta so far, or for a summing rule the sum of the weights of all gradients in m.
        self._running = [0.0 if rule.sums else 1.0 for rule in self._rules]
        self._decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(
            optimizer.defaults.get("decoupled_weight_decay", False)
        )

    def _rule(self, text: str, group: dict[str, Any]) -> MomentumRule:
        if self._adam:
            return MOMENTUM_RULES.build(text, group["betas"][0])
        beta, dampening = group["momentum"], group["dampening"]
        rule = MOMENTUM_RULES.build(text, beta, "average" if dampening else "sum")
        if type(rule) is MomentumRule:
            return rule
        if rule.sums:
            raise UserError(
                "demon_adam is a rule for Adam and AdamW; on SGD without dampening Demon is beta_decay_only."
            )
        if group["nesterov"]:
            raise UserError(
                "Nesterov's step weighs the newest gradient by lr (1 + momentum), for which no rule is published; use nesterov=False."
            )
        if dampening not in (0, beta):
            raise UserError(
                f"momentum rules know SGD without dampening and SGD whose dampening equals its momentum ({beta:g}), not {dampening:g}."
            )
        return rule

    def step(self, lr_factor: float = 1.0) -> None:
        """Prepare the next optimizer step; ``lr_factor`` multiplies the learning rate (warm-up, annealing)."""
        tau, count = self.taken / self.total_steps, self.taken + 1
        for i, (group, base) in enumerate(zip(self.optimizer.param_groups, self._base, strict=True)):
            beta, factor = self._rules[i](tau)
            if not self._adam:
                group["momentum"], group["lr"] = beta, base["lr"] * factor * lr_factor
                if self._rules[i].form == "average" and base["dampening"] == base["momentum"]:
                    group["dampening"] = beta
                continue
            beta, correction = self._adam_step(i, beta, count)
            group["betas"] = (beta, base["betas"][1])
            group["lr"] = base["lr"] * factor * lr_factor * correction
            if self._decoupled:
                group["weight_decay"] = base["weight_decay"] / correction
        self.taken = count

    def _adam_step(self, i: int, beta: float, count: int) -> tuple[float, float]:
        """What torch's Adam must be told as beta1, and the factor that makes its step the rule's."""
        if not self._rules[i].sums:
            self._running[i] *= beta
            return beta, (1.0 - beta**count) / (1.0 - self._running[i])
        # m = c n with c the sum of the weights in m, and n their mean: c <- 1 + beta c, n <- (1 - 1/c) n + (1/c) g. Adam keeps n.
        self._running[i] = 1.0 + beta * self._running[i]
        kept = 1.0 - 1.0 / self._running[i]
        return kept, (1.0 - self._rules[i].beta0) * self._running[i] * (1.0 - kept**count)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, beside the optimizer's own state."""
        return {"taken": self.taken, "products": list(self._running)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.taken, self._running = int(state["taken"]), [float(value) for value in state["products"]]
