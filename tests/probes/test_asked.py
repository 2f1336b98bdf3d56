from functools import partial

import pytest
import torch
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import GuidedDenoiser, NetworkDenoiser
from consistency_lab.diffusion.loss import DenoisingLoss, denoising_error, denoising_loss, noisy_state, truth
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.prediction import UNITS
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.probes.directions import random_axes
from consistency_lab.probes.frozen import FrozenBatch, frozen_grid
from consistency_lab.probes.per_sample import gradients_per_sample
from consistency_lab.probes.subject import diffusion_subject
from consistency_lab.probes.weight_space import at_points, losses_along, losses_between, mean_gradients

IMAGES = load_images("digits")


def denoiser_of(seed=0, schedule="linear", predicts="eps", classes=0):
    network = build_network("mlp(width=12, depth=1)", IMAGES.shape, classes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return NetworkDenoiser(network, SCHEDULES.build(schedule), IMAGES.shape, predicts).eval()


def batch_for(denoiser, classes=0, chunk=7):
    batch, _ = frozen_grid(IMAGES, DiffusionModel("m", denoiser, classes=classes), count=6, bins=3)
    return FrozenBatch(batch.tensors, chunk)


def by_hand(denoiser, x0, t, eps, cond=None, units="eps"):
    prediction = denoiser(noisy_state(denoiser.schedule, x0, t, eps), t, cond)
    return (prediction.in_units(units) - truth(prediction, x0, eps).in_units(units)).pow(2).flatten(1).mean(1)


def moved(denoiser, by):
    with torch.no_grad():
        for p in denoiser.parameters():
            p.mul_(by)


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize(
    ("schedule", "predicts", "classes"),
    [("linear", "eps", 0), ("edm", "edm(sigma_data=0.5)", 0), ("flow", "flow", 10), ("cosine", "v", 0)],
)
def test_what_is_made_once_gives_the_loss_to_the_bit_wherever_the_weights_go(units, schedule, predicts, classes):
    denoiser = denoiser_of(0, schedule, predicts, classes)
    batch, loss = batch_for(denoiser, classes), DenoisingLoss(units)
    with torch.no_grad():
        asked, seen = batch.asked(denoiser, loss), []
        for _ in range(3):
            expected = batch.losses(denoiser, partial(by_hand, units=units))
            assert torch.equal(asked(), expected)
            assert torch.equal(batch.losses(denoiser, loss), expected)
            assert torch.equal(batch.losses(denoiser, partial(denoising_loss, units=units)), expected)
            squares = batch.losses(
                denoiser, lambda *given: denoising_error(*given, units=units).pow(2).flatten(1).mean(1)
            )
            assert torch.equal(squares, expected)
            seen.append(expected)
            moved(denoiser, 1.1)
    assert not torch.equal(seen[0], seen[2])


def test_a_guided_denoiser_is_asked_the_same():
    guided = GuidedDenoiser(denoiser_of(classes=10), 2.0)
    batch = batch_for(guided, 10)
    with torch.no_grad():
        asked = batch.asked(guided, DenoisingLoss())
        moved(guided, 1.1)
        assert torch.equal(asked(), batch.losses(guided, by_hand))


def test_levels_are_made_once_for_all_points_of_a_line(monkeypatch):
    denoiser, calls = denoiser_of(), []
    levels = type(denoiser).levels
    monkeypatch.setattr(type(denoiser), "levels", lambda *given: calls.append(1) or levels(*given))
    batch, (direction,) = batch_for(denoiser, chunk=9), random_axes(denoiser).axes
    line = [-1.0, -0.5, 0.0, 0.5, 1.0]
    once = losses_along(denoiser, DenoisingLoss(), batch, direction, line)
    assert len(calls) == 2  # the chunks
    every = losses_along(denoiser, denoising_loss, batch, direction, line)
    assert len(calls) == 2 + 2 * len(line)
    assert torch.equal(once, every)


def test_the_way_between_two_models_is_that_of_a_loss_in_one_step():
    a, b = denoiser_of(0), denoiser_of(1)
    batch = batch_for(a)
    found = [losses_between(a, b, loss, batch, 4) for loss in (DenoisingLoss("v"), partial(by_hand, units="v"))]
    assert torch.equal(*found)


def test_gradients_do_not_depend_on_the_steps_of_a_loss():
    denoiser = denoiser_of(predicts="v")
    batch = batch_for(denoiser)
    whole, stepped = (
        next(mean_gradients(denoiser, loss, [batch])) for loss in (partial(by_hand, units="x0"), DenoisingLoss("x0"))
    )
    assert all(torch.equal(a, b) for a, b in zip(whole, stepped, strict=True))
    weights = list(denoiser.parameters())
    rows = [
        gradients_per_sample(denoiser, loss, batch.tensors, weights)
        for loss in (partial(by_hand, units="x0"), DenoisingLoss("x0"))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*rows, strict=True))


def test_a_loss_of_a_users_own_is_asked_in_full_at_every_point():
    line, x = nn.Linear(3, 1, bias=False), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    batch = FrozenBatch([x], chunk=3)
    asked = batch.asked(line, lambda m, x: m(x).square().squeeze(1))
    moved(line, 2.0)
    with torch.no_grad():
        assert torch.equal(asked(), batch.losses(line, lambda m, x: m(x).square().squeeze(1)))
        with pytest.raises(UserError, match="one value per sample"):
            batch.asked(line, lambda m, x: m(x).mean())()


def test_losses_in_other_units_have_no_path():
    a, b = (DiffusionModel(f"m{seed}", denoiser_of(seed)) for seed in (0, 1))
    first, second = diffusion_subject(a, IMAGES, count=4, bins=2), diffusion_subject(b, IMAGES, count=4, bins=2)
    assert first.joined(second).loss == first.loss
    other = diffusion_subject(b, IMAGES, count=4, bins=2, units="x0")
    with pytest.raises(UserError, match=r"differ in units of their loss \('eps' against 'x0'\)"):
        first.joined(other)


@pytest.mark.parametrize("one_dimensional", [False, True])
def test_points_are_the_weights_plus_their_axes_to_the_bit(one_dimensional):
    module = denoiser_of()
    axes = random_axes(module, 0, 2, one_dimensional=one_dimensional).axes
    start, points = [p.detach().clone() for p in module.parameters()], [[0.0, 0.0], [0.3, -0.7], [0.0, 1.0], [0, 0]]
    for index in at_points(module, axes, points):
        for i, (parameter, origin) in enumerate(zip(module.parameters(), start, strict=True)):
            expected = origin.clone()
            for position, axis in zip(points[index], axes, strict=True):
                if position:
                    expected.add_(axis[i], alpha=position)
            assert torch.equal(parameter, expected)


def test_a_way_of_length_0_stays_where_it_is():
    module = denoiser_of()
    batch, nowhere = batch_for(module), [torch.zeros_like(p) for p in module.parameters()]
    losses = losses_along(module, DenoisingLoss(), batch, nowhere, [-1.0, 0.0, 1.0])
    assert torch.equal(losses, losses[:1].expand(3, -1))
    assert (
        losses_along(nn.Identity(), lambda m, x: m(x), FrozenBatch([torch.ones(2)]), [], [0.0, 1.0]).tolist()
        == [[1.0, 1.0]] * 2
    )
