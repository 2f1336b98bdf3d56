import pytest
import torch
from torch import nn

from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.probes.directions import as_filters, dot, norm, plane_through, random_axes


def network():
    return build_network("unet", (1, 8, 8), seed=0)


def test_directions_have_the_models_filter_norms():
    model = network()
    direction = random_axes(model, seed=1).axes[0]
    for parameter, d in zip(model.parameters(), direction, strict=True):
        if parameter.dim() <= 1:
            assert (d == 0).all()
        else:
            assert torch.allclose(d.flatten(1).norm(dim=1), parameter.detach().flatten(1).norm(dim=1), rtol=1e-5)
    again, other = (random_axes(model, seed=seed).axes[0] for seed in (1, 2))
    assert all(torch.equal(x, y) for x, y in zip(direction, again, strict=True))
    assert abs(dot(direction, other) / norm(direction) / norm(other)) < 0.1
    values = torch.cat([d.flatten() for d in direction if d.dim() > 1])
    assert abs(float((values > 0).float().mean()) - 0.5) < 0.02  # Gaussian, not the positive numbers of loss-landscapes


def test_two_axes_are_orthogonal_and_normalised_in_every_filter_at_once():
    model = network().double()
    first, second = random_axes(model, 1, 2).axes
    for parameter, a, b in zip(model.parameters(), first, second, strict=True):
        if parameter.dim() > 1:
            norms = as_filters(parameter.detach()).norm(dim=1)
            for axis in (a, b):
                torch.testing.assert_close(as_filters(axis).norm(dim=1), norms, rtol=1e-12, atol=0)
            products = (as_filters(a) * as_filters(b)).sum(1).abs()
            assert (products <= 1e-12 * norms**2).all()
    assert all(torch.equal(x, y) for x, y in zip(first, random_axes(model, 1).axes[0], strict=True))


def test_what_has_no_direction_or_no_scale_is_left_out_and_counted():
    model = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 4), nn.LayerNorm(4))
    with torch.no_grad():
        model[1].weight[2] = 0
    found = random_axes(model, 0, 2)
    assert found.left_out == {"one_dimensional": 4, "single_element": 3, "zero": 1}
    assert found.filters == 3
    for axis in found.axes:
        assert all(torch.isfinite(d).all() for d in axis)
        assert (axis[0] == 0).all()
        assert (axis[2][2] == 0).all()


def test_one_dimensional_parameters_move_as_one_filter_each_when_asked():
    model = nn.Linear(3, 4)
    weight, bias = random_axes(model, 0, one_dimensional=True).axes[0]
    torch.testing.assert_close(bias.norm(), model.bias.detach().norm())
    assert not torch.allclose(bias.abs(), model.bias.detach().abs())  # not +-|b| for each element
    assert torch.equal(weight, random_axes(model, 0).axes[0][0])


def test_a_plane_goes_through_its_models():
    models = [nn.Linear(4, 3).double() for _ in range(3)]
    axes, corners = plane_through(*models)
    assert norm(axes[0]) == pytest.approx(norm(axes[1]))
    assert abs(dot(*axes)) < 1e-12
    for model, (x, y) in zip(models, corners, strict=True):
        for i, p in enumerate(models[0].parameters()):
            there = p.detach() + x * axes[0][i] + y * axes[1][i]
            torch.testing.assert_close(there, list(model.parameters())[i].detach(), rtol=1e-10, atol=1e-12)
    with pytest.raises(UserError, match="on one line"):
        plane_through(models[0], models[1], models[1])
    with pytest.raises(UserError, match="on one line"):
        plane_through(models[0], models[0], models[1])
