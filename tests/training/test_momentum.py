import math

import pytest
import torch

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


def reference(rule, gradients, weight_decay, decoupled):
    """Adam with a varying beta1, written out by hand in Python floats: bias correction by the running product."""
    rule = MOMENTUM_RULES.build(rule, BETA0)
    theta, m, v, product = 1.5, 0.0, 0.0, 1.0
    path = []
    for k, gradient in enumerate(gradients):
        beta, factor = rule(k / STEPS)
        lr = LR0 * factor
        if decoupled:
            theta -= lr * weight_decay * theta
        else:
            gradient = gradient + weight_decay * theta
        product *= beta
        m, v = beta * m + (1 - beta) * gradient, 0.999 * v + 0.001 * gradient**2
        theta -= lr * (m / (1 - product)) / (math.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
        path.append(theta)
    return path


@pytest.mark.parametrize("rule", MOMENTUM_RULES.names())
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_every_rule_equals_a_loop_by_hand_with_weight_decay_on(rule, optimizer):
    gradients = torch.randn(STEPS, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    theta = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    stock = optimizer([theta], lr=LR0, betas=(BETA0, 0.999), weight_decay=0.1)
    schedule = MomentumSchedule(stock, rule, STEPS)
    path = []
    for gradient in gradients:
        theta.grad = torch.tensor([gradient], dtype=torch.float64)
        schedule.step()
        stock.step()
        path.append(theta.item())
    assert path == pytest.approx(reference(rule, gradients, 0.1, optimizer is torch.optim.AdamW), rel=1e-9)


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
    assert stock.param_groups[1]["betas"][0] == pytest.approx(demon(0.7, 0.5))
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


def test_optimizers_without_beta1_are_refused():
    with pytest.raises(UserError, match="SGD has no beta1"):
        MomentumSchedule(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), "mdlrc", 10)
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    with pytest.raises(UserError, match="at least 1 step"):
        MomentumSchedule(adam, "mdlrc", 0)
    with pytest.raises(UserError, match="Did you mean 'mdlrc'"):
        MomentumSchedule(adam, "mdrlc", 10)
