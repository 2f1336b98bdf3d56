"""Momentum that decays over a run, and what happens to the learning rate meanwhile.

Demon (Chen et al. 1910.04952, equation 3): with tau = step / total steps and beta0 the first momentum,

    beta(tau) = beta0 (1 - tau) / ((1 - beta0) + beta0 (1 - tau)).

MDLRC, momentum decay with learning-rate compensation (2404.07946, section 4.3), scales the learning rate so that the weight of the newest
gradient stays constant. What that means depends on how an optimizer keeps its gradients:

* averaging, m <- beta m + (1 - beta) g (Adam, AdamW, SGD with dampening = momentum): the newest gradient weighs lr (1 - beta), so
  lr(tau) = lr0 (1 - beta0) / (1 - beta(tau)). By substitution that is lr0 (1 - beta0 tau): a linear decay. Any claim for MDLRC therefore
  needs a control with that decay and constant momentum.
* summing, m <- beta m + g (SGD without dampening): the newest gradient weighs lr itself, so the rate stays constant, and MDLRC is
  Demon as it is.

Demon-Adam as published sums in Adam as well, m <- g + beta(tau) m at a constant rate: to first order that is MDLRC. Demon's beta at a
constant rate in torch's averaging Adam is not it. Both are here, under their own names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from consistency_lab.choices import Choice, Registry, whole
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


_STEERED = ("lr", "betas", "momentum", "dampening", "weight_decay")


@dataclass
class _Group:
    """What is remembered of a parameter group: its rule, its steps, and the product of beta over them (for a summing rule the sum of the
    weights of all gradients in m)."""

    rule: MomentumRule
    running: float
    count: int = 0


class Used(NamedTuple):
    """Learning rate and beta1 (SGD: momentum) that an optimizer step was taken with."""

    lr: float
    momentum: float


class MomentumSchedule:
    """Gives every step of a torch Adam, AdamW or SGD the momentum of a rule, and multiplies its learning rate by the rule's compensation.

    The learning rate and the weight decay that it multiplies are those that the optimizer's groups have when it is stepped, so any
    `torch.optim.lr_scheduler` says what they are, made before or after this. They are put back after the step; schedulers read them.

    Adam divides by 1 - beta1^k, which is right only for a constant beta1; with a varying one the mean of k gradients has the weight
    1 - prod(beta1). The difference is put into the learning rate, and for AdamW taken out of the weight decay again, which torch
    multiplies by the same learning rate. SGD corrects no bias: torch starts its buffer with the first gradient itself.

    >>> network = torch.nn.Linear(2, 2)
    >>> optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    >>> schedule = MomentumSchedule(optimizer, "mdlrc(floor=0.5)", total_steps=1000)
    >>> schedule.step(0.1)  # where no scheduler anneals: a factor of the learning rate, before optimizer.step()

    Args:
        optimizer: torch.optim.Adam, AdamW or SGD, not yet stepped. A stopped run loads the states of both after this. Parameter groups
            may be added later: their momentum begins where the rule then is.
        rule: ``"constant"``, ``"mdlrc"``, ``"beta_decay_only"``, ``"demon_adam"`` or ``"effective_lr"``, with options.
        total_steps: length of the run in optimizer steps; beyond it the last values stay.

    Attributes:
        used: learning rate and momentum of the last step, of each parameter group.

    Raises:
        UserError: another optimizer or one that has been stepped, an unknown rule, a run of no steps, or a rule that has no meaning there.
            When the optimizer is stepped: something else has set its momentum (OneCycleLR and CyclicLR do unless told not to).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rule: str | Choice, total_steps: int):
        self._adam = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
        if not self._adam and not isinstance(optimizer, torch.optim.SGD):
            raise UserError(
                f"momentum rules are defined for Adam, AdamW and SGD; what {type(optimizer).__name__} does with its gradients between "
                "steps is not what they compensate for. Use one of those three."
            )
        if whole("the number of steps of a momentum rule's run", total_steps) < 1:
            raise UserError(f"a momentum rule needs a run of at least 1 step, not {total_steps}.")
        if optimizer.state:
            raise UserError(
                "the optimizer has been stepped; put the momentum rule on a new one, and load the states of a stopped run after that."
            )
        self.optimizer, self.rule, self.total_steps, self.taken = optimizer, rule, total_steps, 0
        self.used: list[Used] = []
        self._factor = 1.0
        self._groups: list[_Group] = []
        self._own: list[dict[str, Any]] = []  # the groups' own values, while a step is under way
        self._decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(
            optimizer.defaults.get("decoupled_weight_decay", False)
        )
        self._meet_groups()
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def step(self, lr_factor: float = 1.0) -> None:
        """Say what the next optimizer step multiplies its learning rate by (warm-up, annealing); 1 where this is not called."""
        self._factor = lr_factor

    def _meet_groups(self) -> None:
        """Take in groups that are new, and see that no group's momentum is steered by somebody else."""
        groups = self.optimizer.param_groups
        for group in groups[len(self._groups) :]:
            rule = self._rule(group)
            self._groups.append(_Group(rule, 0.0 if rule.sums else 1.0))
        for group, mine in zip(groups, self._groups, strict=True):
            momentum = self._momentum(group)
            if momentum != mine.rule.beta0 or "max_momentum" in group:
                raise UserError(
                    f"the momentum rule {self.rule!r} is not alone: something else sets the optimizer's momentum (to {momentum:g}; it was "
                    f"{mine.rule.beta0:g}). Give OneCycleLR and CyclicLR cycle_momentum=False, or use no momentum rule."
                )

    def _momentum(self, group: dict[str, Any]) -> float:
        return group["betas"][0] if self._adam else group["momentum"]

    def _rule(self, group: dict[str, Any]) -> MomentumRule:
        beta = self._momentum(group)
        if self._adam:
            return MOMENTUM_RULES.build(self.rule, beta)
        dampening = group["dampening"]
        rule = MOMENTUM_RULES.build(self.rule, beta, "average" if dampening else "sum")
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

    def _before(self, *_: Any) -> None:
        """Give the groups what this step is to be taken with."""
        self._put_back()  # after a step that failed
        self._meet_groups()
        groups = self.optimizer.param_groups
        self._own = [{key: group[key] for key in _STEERED if key in group} for group in groups]
        for group, mine in zip(groups, self._groups, strict=True):
            beta, factor = mine.rule(self.taken / self.total_steps)
            mine.count += 1
            group["lr"] = group["lr"] * factor * self._factor
            if self._adam:
                beta, correction = self._adam_step(mine, beta)
                group["betas"] = (beta, group["betas"][1])
                group["lr"] = group["lr"] * correction
                if self._decoupled:
                    group["weight_decay"] = group["weight_decay"] / correction
            else:
                if mine.rule.form == "average" and group["dampening"] == group["momentum"]:
                    group["dampening"] = beta
                group["momentum"] = beta
        self.used = [Used(group["lr"], self._momentum(group)) for group in groups]
        self.taken, self._factor = self.taken + 1, 1.0

    def _after(self, *_: Any) -> None:
        self._put_back()

    def _put_back(self) -> None:
        for group, own in zip(self.optimizer.param_groups, self._own, strict=False):
            group.update(own)
        self._own = []

    @staticmethod
    def _adam_step(mine: _Group, beta: float) -> tuple[float, float]:
        """What torch's Adam must be told as beta1, and the factor that makes its step the rule's."""
        if not mine.rule.sums:
            mine.running *= beta
            return beta, (1.0 - beta**mine.count) / (1.0 - mine.running)
        # m = c n with c the sum of the weights in m, and n their mean: c <- 1 + beta c, n <- (1 - 1/c) n + (1/c) g. Adam keeps n.
        mine.running = 1.0 + beta * mine.running
        kept = 1.0 - 1.0 / mine.running
        return kept, (1.0 - mine.rule.beta0) * mine.running * (1.0 - kept**mine.count)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of it, besides the optimizer's own state."""
        groups = self._groups
        return {"taken": self.taken, "products": [g.running for g in groups], "counts": [g.count for g in groups]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises `UserError` if the optimizer has other parameter groups."""
        self._meet_groups()
        if len(state["products"]) != len(self._groups):
            raise UserError(
                f"this state is of an optimizer with {len(state['products'])} parameter groups, and this one has {len(self._groups)}; "
                "make the same groups before it is loaded."
            )
        self.taken = int(state["taken"])
        counts = state.get("counts", [self.taken] * len(self._groups))  # older states: no group came later
        for mine, running, count in zip(self._groups, state["products"], counts, strict=True):
            mine.running, mine.count = float(running), int(count)
