import loss_landscapes
import numpy as np
import pytest
import torch
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.plane import plane_landscape, probe_plane
from consistency_lab.probes.subject import Subject, diffusion_subject
from consistency_lab.probes.weight_space import losses_at


def bowl():
    """loss = |w|^2, with no preferred direction."""
    return Subject(
        "bowl", nn.Linear(6, 2, bias=False).double(), square, FrozenBatch([torch.ones(3, 1)]), "squared weight"
    )


def square(module, x):
    return module.weight.pow(2).sum() * x.flatten(1).mean(1).double()


def asymmetry(table):
    """How far a table is from the symmetric bowl that it should be: the curvature along an odd column, of neighbours across columns."""
    return max(np.abs(table - flipped).max() for flipped in (table[::-1], table[:, ::-1], table.T)) / table.max()


def test_a_symmetric_quadratic_is_a_symmetric_bowl_and_that_of_loss_landscapes_is_not():
    end = bowl()
    steps = 8
    # Around the minimum, so that the bowl is symmetric: weights 0, axes orthogonal and of one length.
    with torch.no_grad():
        end.module.weight.zero_()
    axes = [[torch.zeros(2, 6).double()], [torch.zeros(2, 6).double()]]
    axes[0][0][0, 0] = axes[1][0][1, 3] = 1.0
    ticks = np.linspace(-1, 1, steps)
    points = [[x, y] for y in ticks for x in ticks]
    ours = losses_at(end.module, end.loss, end.batch, axes, points).mean(1).reshape(steps, steps).numpy()
    assert asymmetry(ours) < 1e-12
    np.testing.assert_allclose(ours, ticks[:, None] ** 2 + ticks**2, rtol=1e-12)
    # The same plane from loss-landscapes, between three modules; its corner is (-1, -1), its steps 2 / steps.
    modules = [nn.Linear(6, 2, bias=False).double() for _ in range(3)]
    for module, (x, y) in zip(modules, [(-1, -1), (1, -1), (-1, 1)], strict=True):
        with torch.no_grad():
            module.weight.copy_(x * axes[0][0] + y * axes[1][0])
    metric = lambda wrapper: float(square(wrapper.modules[0], torch.ones(3, 1)).mean())  # noqa: E731
    theirs = loss_landscapes.planar_interpolation(*modules, metric, steps, deepcopy_model=True)
    # Even columns are right where they are: rows 1 ... n. Odd ones hold the rows 0 ... n - 1.
    at = -1 + 2 * np.arange(steps + 1) / steps
    right = at[:-1, None] ** 2 + at[1:] ** 2
    np.testing.assert_allclose(theirs[::2], right[::2], rtol=1e-10)
    assert np.abs(theirs[1::2] - right[1::2]).max() > 0.1
    # No shift of the coordinates makes theirs symmetric along the other axis.
    assert asymmetry(theirs[1:, :-1]) > 0.1


def test_a_random_plane_of_a_round_bowl_is_round():
    result = plane_landscape(bowl(), points=7, span=0.5)
    x, y = result["x"].values, result["y"].values
    level = float(result["loss"].sel(x=0, y=0))
    # |w + x a + y b|^2 with |a| = |b| = |w| and a, b orthogonal, but for what is linear in x and y.
    table = result["loss"].values
    even = (table + table[::-1, ::-1]) / 2
    np.testing.assert_allclose(even, level * (1 + x**2 + y[:, None] ** 2), rtol=1e-10)
    assert float(result["curvature_x"]) == pytest.approx(2 * level)
    assert float(result["relative_curvature_y"]) == pytest.approx(2)
    assert float(result["roughness"]) < 1e-12
    assert abs(float(result["axes_cosine"])) < 1e-12


def model(seed, name="mlp(width=16, depth=1)"):
    network = build_network(name, (1, 8, 8), seed=seed)
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(31 * seed + i)))
    return DiffusionModel(f"m{seed}", NetworkDenoiser(network, SCHEDULES.build("linear"), (1, 8, 8)).eval())


def test_the_centre_is_the_loss_to_the_bit_and_the_split_by_t_adds_up():
    images, a = load_images("digits"), model(0)
    before = [p.detach().clone() for p in a.denoiser.parameters()]
    result = probe_plane(a, images, points=5, count=6, bins=3)
    own = diffusion_subject(a, images, count=6, bins=3).losses().numpy()
    assert np.array_equal(result["loss_by_t"].sel(x=0, y=0), own.mean(1))
    assert np.array_equal(result["corner_loss"], [own.mean(0).mean()])
    np.testing.assert_allclose(result["loss_by_t"].mean("t"), result["loss"], rtol=1e-12)
    assert all(torch.equal(x, y) for x, y in zip(before, a.denoiser.parameters(), strict=True))


def test_a_plane_through_three_models_holds_their_losses():
    images, (a, b, c) = load_images("digits"), (model(i) for i in range(3))
    result = probe_plane(a, images, through=[b, c], points=9, count=6, bins=2)
    for name, each in (("m0", a), ("m1", b), ("m2", c)):
        own = float(diffusion_subject(each, images, count=6, bins=2).losses().mean())
        assert float(result["corner_loss"].sel(corner=name)) == pytest.approx(own, rel=1e-4)
    assert float(result["loss"].sel(x=0, y=0)) == float(result["corner_loss"][0])
    assert float(result["loss"].sel(x=1, y=0)) == pytest.approx(float(result["corner_loss"][1]), rel=1e-5)
    assert result["x"][0] <= min(0.0, float(result["corner_x"][2]))
    assert result["y"][-1] >= float(result["corner_y"][2])
    assert max(result.sizes["x"], result.sizes["y"]) <= 9
    with pytest.raises(UserError, match="name two more, not 1"):
        probe_plane(a, images, through=[b], count=4, bins=2)
    with pytest.raises(UserError, match="different parameters"):
        probe_plane(a, images, through=[b, model(2, "mlp(width=24, depth=1)")], count=4, bins=2)
    with pytest.raises(UserError, match="at least 5 points"):
        probe_plane(a, images, points=3, count=4, bins=2)
