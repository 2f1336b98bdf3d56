import math

import pytest
import torch
from registered import entries
from torch.optim import lr_scheduler

from consistency_lab.errors import UserError
from consistency_lab.training.momentum import MOMENTUM_RULES, MomentumSchedule, demon

BETA0, LR0, STEPS = 0.9, 0.05, 40


def test_demon_is_the_table_of_its_paper():
    expected = {0: 0.9, 0.25: 0.8710, 0.5: 0.8182, 0.75: 0.6923, 0.9: 0.4737, 1: 0.0}
    for tau, beta in expected.items():
        assert demon(tau, 0.9) == pytest.approx(beta, abs=5e-5)
    assert demon(1.7, 0.9) == 0.0


def test_mdlrc_is_a_linear_decay_of_the_learning_rate():
    rule = MOMENTUM_RULES.build("mdlrc", BETA0)
    for k in range(101):
        beta, factor = rule(k / 100)
        assert factor == pytest.approx(1 - BETA0 * k / 100, rel=1e-12)
        assert factor * (1 - beta) == pytest.approx(1 - BETA0)  # the weight of the newest gradient
    beta, factor = MOMENTUM_RULES.build("effective_lr", BETA0)(0.5)
    assert factor / (1 - beta) == pytest.approx(1 / (1 - BETA0))


def test_floor_and_start():
    rule = MOMENTUM_RULES.build("mdlrc(floor=0.6, start=0.2)", BETA0)
    assert [rule(tau)[0] for tau in (0, 0.1, 0.2)] == [BETA0] * 3
    assert rule(0.6)[0] == pytest.approx(demon(0.5, BETA0))
    assert rule(1.0) == rule(5.0)
    assert rule(1.0) == pytest.approx((0.6, (1 - BETA0) / 0.4))
    assert MOMENTUM_RULES.resolve("constant").options == {}  # runs in stores were made with this spec


WRITTEN = ["constant", "beta_decay_only", "mdlrc", "effective_lr", "demon_adam"]
WRITTEN += ["mdlrc(floor=0.5, start=0.25)", "demon_adam(floor=0.3, start=0.1)"]
RULES = entries(MOMENTUM_RULES, WRITTEN)
GRADIENTS = torch.randn(STEPS, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
WEIGHT_DECAY = 0.1


def by_schedule(optimizer, rule, **options):
    theta = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    stock = optimizer([theta], lr=LR0, weight_decay=WEIGHT_DECAY, **options)
    schedule = MomentumSchedule(stock, rule, STEPS)
    path = []
    for k, gradient in enumerate(GRADIENTS):
        theta.grad = torch.tensor([gradient], dtype=torch.float64)
        schedule.step(1.0 - k / 100)
        stock.step()
        path.append(theta.item())
    return path


def beta_and_rate(rule, k, form="average"):
    """Demon's beta of step k, MDLRC's and the inverse compensation, all written out; a rule that is not is asked itself."""
    if rule not in WRITTEN:
        return MOMENTUM_RULES.build(rule, BETA0, form)(k / STEPS)
    options = {"floor=0.5, start=0.25": (0.5, 0.25), "floor=0.3, start=0.1": (0.3, 0.1)}
    floor, start = options.get(rule.partition("(")[2].rstrip(")"), (0.0, 0.0))
    tau = max(0.0, (k / STEPS - start) / (1 - start))
    beta = max(floor, BETA0 * (1 - tau) / ((1 - BETA0) + BETA0 * (1 - tau)))
    rate = {"mdlrc": (1 - BETA0) / (1 - beta), "effective_lr": (1 - beta) / (1 - BETA0)}
    return (BETA0, 1.0) if rule == "constant" else (beta, rate.get(rule.partition("(")[0], 1.0))


def sums(rule):
    return MOMENTUM_RULES.build(rule, BETA0).sums


def adam(rule, decoupled):
    """Adam by hand in Python floats: momentum averaged with its bias corrected by the running product, or summed as in Demon-Adam."""
    theta, m, v, product = 1.5, 0.0, 0.0, 1.0
    path = []
    for k, gradient in enumerate(GRADIENTS):
        beta, factor = beta_and_rate(rule, k)
        lr = LR0 * factor * (1.0 - k / 100)
        if decoupled:
            theta -= lr * WEIGHT_DECAY * theta
        else:
            gradient = gradient + WEIGHT_DECAY * theta
        v = 0.999 * v + 0.001 * gradient**2
        root = math.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8
        if sums(rule):
            m = gradient + beta * m
            theta -= lr * (1 - BETA0) * m / root
        else:
            product *= beta
            m = beta * m + (1 - beta) * gradient
            theta -= lr * m / (1 - product) / root
        path.append(theta)
    return path


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_every_rule_on_adam_equals_a_loop_by_hand_with_weight_decay_on(rule, optimizer):
    path = by_schedule(optimizer, rule, betas=(BETA0, 0.999))
    assert path == pytest.approx(adam(rule, optimizer is torch.optim.AdamW), rel=1e-9)


def sgd(rule, averaging):
    """Heavy-ball SGD by hand. Without dampening MDLRC keeps the rate, because the newest gradient weighs lr alone."""
    theta, m = 1.5, None
    path = []
    for k, gradient in enumerate(GRADIENTS):
        beta, factor = beta_and_rate(rule, k, "average" if averaging else "sum")
        if rule.startswith("mdlrc") and not averaging:
            factor = 1.0
        gradient = gradient + WEIGHT_DECAY * theta
        m = gradient if m is None else beta * m + ((1 - beta) if averaging else 1.0) * gradient
        theta -= LR0 * factor * (1.0 - k / 100) * m
        path.append(theta)
    return path


@pytest.mark.parametrize("averaging", [False, True])
@pytest.mark.parametrize("rule", [rule for rule in RULES if not sums(rule)])
def test_every_rule_on_sgd_equals_a_loop_by_hand_with_weight_decay_on(rule, averaging):
    path = by_schedule(torch.optim.SGD, rule, momentum=BETA0, dampening=BETA0 if averaging else 0.0)
    assert path == pytest.approx(sgd(rule, averaging), rel=1e-9)


def test_constant_momentum_leaves_an_unusual_sgd_as_it_is():
    stock = torch.optim.SGD(parameters(), lr=0.1, momentum=0.9, dampening=0.5)
    MomentumSchedule(stock, "constant", 10).step(0.5)
    seen = []
    stock.register_step_pre_hook(lambda stepped, *_: seen.append(dict(stepped.param_groups[0])))
    stock.step()
    (group,) = seen
    assert (group["lr"], group["momentum"], group["dampening"]) == (0.05, 0.9, 0.5)


def test_demon_adam_is_mdlrc_to_first_order_and_the_control_is_not():
    # Once m has filled, with gradients that do not change sign: the sum of weights is 1 / (1 - beta) where beta changes slowly.
    def path(rule):
        theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        stock = torch.optim.Adam([theta], lr=1e-3)
        schedule = MomentumSchedule(stock, rule, 4000)
        steps = []
        for _ in range(3600):
            before = theta.item()
            theta.grad = torch.ones(1, dtype=torch.float64)
            schedule.step()
            stock.step()
            steps.append(before - theta.item())
        return torch.tensor(steps[200:])

    mdlrc = path("mdlrc")
    assert torch.allclose(path("demon_adam"), mdlrc, rtol=0.02)
    assert path("beta_decay_only")[-1] > 4 * mdlrc[-1]


def test_groups_keep_their_own_rates_and_a_schedule_resumes():
    def make():
        a, b = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
        stock = torch.optim.Adam([{"params": [a]}, {"params": [b], "lr": 1.0, "betas": (0.5, 0.9)}], lr=0.1)
        return a, b, stock, MomentumSchedule(stock, "mdlrc", 10)

    def advance(a, b, stock, schedule, n):
        for _ in range(n):
            a.grad, b.grad = torch.ones_like(a), -torch.ones_like(b)
            schedule.step()
            stock.step()

    a, b, stock, schedule = make()
    advance(a, b, stock, schedule, 8)
    assert schedule.used[1].momentum == pytest.approx(demon(0.7, 0.5))
    assert stock.param_groups[1]["betas"] == (0.5, 0.9)  # between steps the optimizer is as it was made
    c, d, other, second = make()
    advance(c, d, other, second, 3)
    e, f, fresh, third = make()
    fresh.load_state_dict(other.state_dict())
    third.load_state_dict(second.state_dict())
    with torch.no_grad():
        e.copy_(c), f.copy_(d)
    advance(e, f, fresh, third, 5)
    assert torch.equal(a, e)
    assert torch.equal(b, f)


def test_a_summing_rule_resumes():
    def make():
        theta = torch.ones(1, dtype=torch.float64, requires_grad=True)
        stock = torch.optim.AdamW([theta], lr=0.1)
        return theta, stock, MomentumSchedule(stock, "demon_adam", 10)

    def advance(theta, stock, schedule, n):
        for _ in range(n):
            theta.grad = theta.detach().clone()
            schedule.step()
            stock.step()

    whole, first, second = make(), make(), make()
    advance(*whole, 9)
    advance(*first, 4)
    second[1].load_state_dict(first[1].state_dict())
    second[2].load_state_dict(first[2].state_dict())
    with torch.no_grad():
        second[0].copy_(first[0])
    advance(*second, 5)
    assert torch.equal(whole[0], second[0])


def parameters():
    return [torch.ones(1, requires_grad=True)]


@pytest.mark.parametrize(
    ("optimizer", "rule", "message"),
    [
        (lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9), "mdlrc", "what RMSprop does with its gradients"),
        (lambda p: torch.optim.Adagrad(p), "constant", "Use one of those three"),
        (lambda p: torch.optim.SGD(p, lr=0.1), "mdlrc", "momentum 0, which cannot decay"),
        (lambda p: torch.optim.Adam(p, betas=(0.0, 0.9)), "beta_decay_only", "momentum 0"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "demon_adam", "rule for Adam"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "mdlrc", "Nesterov"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5), "mdlrc", "dampening equals"),
        (torch.optim.Adam, "mdlrc(floor=0.95)", "floor of momentum"),
        (torch.optim.Adam, "mdlrc(start=1.0)", "fraction of the run"),
        (torch.optim.Adam, "mdrlc", "Did you mean 'mdlrc'"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(optimizer, rule, message):
    with pytest.raises(UserError, match=message):
        MomentumSchedule(optimizer(parameters()), rule, 10)


SCHEDULERS = {
    "warm-up": lambda stock: lr_scheduler.LinearLR(stock, start_factor=1e-3, total_iters=10),
    "from 0": lambda stock: lr_scheduler.LambdaLR(stock, lambda k: min(1.0, k / 10)),
    "cosine": lambda stock: lr_scheduler.CosineAnnealingLR(stock, T_max=STEPS),
    "one cycle": lambda stock: lr_scheduler.OneCycleLR(stock, max_lr=LR0, total_steps=STEPS + 1, cycle_momentum=False),
    "sequence": lambda stock: lr_scheduler.SequentialLR(
        stock,
        [lr_scheduler.LinearLR(stock, 0.1, total_iters=8), lr_scheduler.ExponentialLR(stock, 0.97)],
        milestones=[8],
    ),
    "plateau": lambda stock: lr_scheduler.ReduceLROnPlateau(stock, factor=0.5, patience=3),
    "none": lambda stock: None,
}


def advance_scheduler(scheduler):
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(1.0)  # never better: it halves the rate every few steps
    elif scheduler is not None:
        scheduler.step()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("rule", ["mdlrc", "demon_adam", "effective_lr(floor=0.3)"])
@pytest.mark.parametrize("order", ["before", "after", "stepped in between"])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_rule_multiplies_what_a_scheduler_says_in_any_order(scheduler, rule, order):
    def make(with_rule):
        theta = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
        stock = torch.optim.AdamW([theta], lr=LR0, weight_decay=WEIGHT_DECAY, betas=(BETA0, 0.999))
        if not with_rule:
            return theta, stock, SCHEDULERS[scheduler](stock), None
        if order == "before":
            schedule = MomentumSchedule(stock, rule, STEPS)
            return theta, stock, SCHEDULERS[scheduler](stock), schedule
        return theta, stock, SCHEDULERS[scheduler](stock), MomentumSchedule(stock, rule, STEPS)

    _, twin, alone, _ = make(False)
    theta, stock, beside, schedule = make(True)
    # The reference is by hand: the rate of a twin that has the scheduler alone, times the rule's compensation.
    value, m, v, product = 1.5, 0.0, 0.0, 1.0
    floor = 0.3 if "floor" in rule else 0.0
    for k, gradient in enumerate(GRADIENTS):
        theta.grad = torch.tensor([gradient], dtype=torch.float64)
        twin.param_groups[0]["params"][0].grad = theta.grad.clone()
        schedule.step(1.0 - k / 100)
        if order == "stepped in between":
            advance_scheduler(beside)
            advance_scheduler(alone)
        scheduled = twin.param_groups[0]["lr"]
        stock.step()
        twin.step()
        if order != "stepped in between":
            advance_scheduler(beside)
            advance_scheduler(alone)
        beta = max(floor, demon(k / STEPS, BETA0))
        compensation = {"m": (1 - BETA0) / (1 - beta), "e": (1 - beta) / (1 - BETA0), "d": 1.0}[rule[0]]
        rate = scheduled * compensation * (1.0 - k / 100)
        value -= rate * WEIGHT_DECAY * value
        v = 0.999 * v + 0.001 * gradient**2
        root = math.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8
        if rule == "demon_adam":
            m = gradient + beta * m
            value -= rate * (1 - BETA0) * m / root
        else:
            product *= beta
            m = beta * m + (1 - beta) * gradient
            value -= rate * m / (1 - product) / root
            correction = (1 - beta ** (k + 1)) / (1 - product)
            assert schedule.used[0].lr == pytest.approx(rate * correction, rel=1e-12, abs=1e-15)
        assert theta.item() == pytest.approx(value, rel=1e-9), k
        assert stock.param_groups[0]["lr"] == twin.param_groups[0]["lr"]


def test_a_step_that_is_left_out_counts_for_nothing():
    # A gradient scaler steps neither the optimizer nor its count where a gradient overflowed.
    def run(steps, skipped=()):
        theta = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
        stock = torch.optim.Adam([theta], lr=LR0)
        schedule = MomentumSchedule(stock, "mdlrc", 10)
        for k in range(steps):
            theta.grad = torch.ones_like(theta)
            schedule.step()
            if k not in skipped:
                stock.step()
        return theta.item(), schedule.taken

    assert run(6, skipped=(2, 3)) == run(4)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("rule", ["constant", "mdlrc"])
@pytest.mark.parametrize(
    "cycle",
    [
        lambda stock: lr_scheduler.OneCycleLR(stock, max_lr=0.1, total_steps=20),
        lambda stock: lr_scheduler.CyclicLR(stock, base_lr=0.01, max_lr=0.1, step_size_up=5),
    ],
)
def test_a_scheduler_that_sets_momentum_itself_is_refused(cycle, rule, first):
    stock = torch.optim.SGD(parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(
        UserError, match=r"'(constant|mdlrc)' is not alone: .*OneCycleLR and CyclicLR cycle_momentum=False"
    ):
        scheduler = cycle(stock) if first else None
        MomentumSchedule(stock, rule, 20)
        scheduler = scheduler or cycle(stock)
        for _ in range(2):
            stock.step()
            scheduler.step()


def test_two_rules_on_one_optimizer_are_refused():
    stock = torch.optim.Adam(parameters())
    for _ in range(2):
        MomentumSchedule(stock, "mdlrc", 20)
    stock.step()
    with pytest.raises(UserError, match="is not alone"):
        stock.step()


@pytest.mark.parametrize("rule", ["mdlrc", "demon_adam", "constant"])
def test_a_group_that_is_added_later_has_a_bias_correction_of_its_own(rule):
    def adam_from(k0):
        value, m, v, product = 1.5, 0.0, 0.0, 1.0
        for k in range(k0, STEPS):
            gradient = GRADIENTS[k]
            beta, factor = beta_and_rate(rule, k)
            v = 0.999 * v + 0.001 * gradient**2
            root = math.sqrt(v / (1 - 0.999 ** (k - k0 + 1))) + 1e-8
            if rule == "demon_adam":
                m = gradient + beta * m
                value -= LR0 * (1 - BETA0) * m / root
            else:
                product *= beta
                m = beta * m + (1 - beta) * gradient
                value -= LR0 * factor * m / (1 - product) / root
        return value

    def make():
        a, b = (torch.tensor([1.5], dtype=torch.float64, requires_grad=True) for _ in range(2))
        stock = torch.optim.Adam([a], lr=LR0, betas=(BETA0, 0.999))
        return a, b, stock, MomentumSchedule(stock, rule, STEPS)

    def advance(a, b, stock, schedule, steps):
        for k in steps:
            a.grad = torch.tensor([GRADIENTS[k]], dtype=torch.float64)
            b.grad = a.grad.clone()
            stock.step()

    a, b, stock, schedule = make()
    advance(a, b, stock, schedule, range(15))
    stock.add_param_group({"params": [b]})
    advance(a, b, stock, schedule, range(15, 30))
    # Stopped and gone on, with the groups made again before the states are loaded.
    c, d, other, second = make()
    with pytest.raises(UserError, match="2 parameter groups, and this one has 1"):
        second.load_state_dict(schedule.state_dict())
    other.add_param_group({"params": [d]})
    other.load_state_dict(stock.state_dict())
    second.load_state_dict(schedule.state_dict())
    with torch.no_grad():
        c.copy_(a), d.copy_(b)
    advance(c, d, other, second, range(30, STEPS))
    assert c.item() == pytest.approx(adam_from(0), rel=1e-9)
    assert d.item() == pytest.approx(adam_from(15), rel=1e-9)


def test_a_run_of_no_steps_and_a_stepped_optimizer_are_refused():
    stock = torch.optim.Adam(parameters())
    for steps, message in ((0, "at least 1 step"), (8.0, r"whole number, not 8\.0; write 8")):
        with pytest.raises(UserError, match=message):
            MomentumSchedule(stock, "mdlrc", steps)
    stock.param_groups[0]["params"][0].grad = torch.ones(1)
    stock.step()
    with pytest.raises(UserError, match="has been stepped"):
        MomentumSchedule(stock, "mdlrc", 10)
