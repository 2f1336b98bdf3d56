import loss_landscapes
import numpy as np
import pytest
import torch
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.probes.directions import difference, norm, random_direction
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.landscape import probe_landscape
from consistency_lab.probes.smoothness import barrier, curvature, roughness
from consistency_lab.probes.walk import losses_along

SHAPE = (1, 8, 8)


def network_model(seed, name="mlp(width=16, depth=1)"):
    network = build_network(name, SHAPE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return DiffusionModel(f"m{seed}", NetworkDenoiser(network, SCHEDULES.build("linear"), SHAPE).eval())


def linear_case():
    """loss = |x w|^2 per sample: a quadratic in the weights w with a Hessian in closed form."""
    model = nn.Linear(5, 1, bias=False).double()
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return model, FrozenBatch([x]), lambda m, x: m(x).pow(2).squeeze(1), 2 * x.T @ x / len(x)


def test_a_quadratic_is_its_formula():
    model, batch, loss, hessian = linear_case()
    direction = [torch.randn(1, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)]
    line = np.linspace(-1, 1, 21)
    values = losses_along(model, loss, batch, direction, line.tolist()).mean(1).numpy()
    w, d = model.weight.detach().flatten(), direction[0].flatten()
    expected = [float(0.5 * (w + a * d) @ hessian @ (w + a * d)) for a in line]
    assert np.allclose(values, expected, rtol=1e-10)
    assert curvature(line, values) == pytest.approx(float(d @ hessian @ d), rel=1e-8)
    assert roughness(line, values) < 1e-12


def test_a_symmetric_quadratic_is_a_symmetric_bowl():
    model, batch, loss, _ = linear_case()
    with torch.no_grad():
        model.weight.zero_()
    values = losses_along(
        model, loss, batch, [torch.ones(1, 5, dtype=torch.float64)], np.linspace(-1, 1, 11).tolist()
    ).mean(1)
    assert torch.allclose(values, values.flip(0), rtol=1e-12)
    assert values.argmin() == 5


def test_the_centre_is_the_loss_itself_to_the_bit():
    model, images = network_model(0), load_images("digits")
    result = probe_landscape(model, images, points=7, count=8, bins=3)
    from consistency_lab.probes.frozen import frozen_grid

    batch, _ = frozen_grid(images, model, 8, 3)
    with torch.no_grad():
        own = batch.losses(model.denoiser, denoising_loss).double().numpy().reshape(3, 8)
    centre = result.sel(position=0.0)
    assert np.array_equal(centre["loss_by_t"].values, own.mean(1))
    assert float(centre["loss"]) == pytest.approx(own.mean(), rel=1e-12)


def test_linear_interpolation_equals_loss_landscapes_where_it_is_right():
    # Its points are 1/n ... 1; the start is never evaluated.
    a, b, images = network_model(0), network_model(1), load_images("digits")
    from consistency_lab.probes.frozen import frozen_grid

    batch, _ = frozen_grid(images, a, 8, 3)

    def metric(wrapper):
        with torch.no_grad():
            return float(batch.losses(wrapper.modules[0], denoising_loss).mean())

    theirs = loss_landscapes.linear_interpolation(a.denoiser, b.denoiser, metric, steps=5, deepcopy_model=True)
    ours = losses_along(
        a.denoiser, denoising_loss, batch, difference(a.denoiser, b.denoiser), [0.2, 0.4, 0.6, 0.8, 1.0]
    ).mean(1)
    assert np.allclose(theirs, ours, rtol=1e-4)


def test_a_line_between_models_ends_at_both():
    a, b, images = network_model(0), network_model(1), load_images("digits")
    there, back = (probe_landscape(x, images, towards=y, points=13, count=8, bins=3) for x, y in ((a, b), (b, a)))
    inside = slice(0.0, 1.0)
    assert np.allclose(there["loss"].sel(position=inside), back["loss"].sel(position=inside)[::-1], rtol=1e-4)
    assert {0.0, 1.0} <= set(there["position"].values.tolist())
    assert there["position"].values[0] == -0.5
    assert there.attrs["barrier"] == pytest.approx(back.attrs["barrier"], rel=1e-3)


def test_the_split_by_noise_level_adds_up():
    result = probe_landscape(network_model(0), load_images("digits"), points=5, count=8, bins=4)
    assert np.allclose(result["loss_by_t"].mean("t"), result["loss"], rtol=1e-12)


def test_directions_have_the_models_filter_norms():
    network = build_network("unet", SHAPE, seed=0)
    direction = random_direction(network, seed=1)
    for parameter, d in zip(network.parameters(), direction, strict=True):
        if parameter.dim() <= 1:
            assert (d == 0).all()
        else:
            assert torch.allclose(d.flatten(1).norm(dim=1), parameter.detach().flatten(1).norm(dim=1), rtol=1e-5)
    again, other = random_direction(network, seed=1), random_direction(network, seed=2)
    assert all(torch.equal(x, y) for x, y in zip(direction, again, strict=True))
    cosine = sum(float((x * y).sum()) for x, y in zip(direction, other, strict=True)) / norm(direction) / norm(other)
    assert abs(cosine) < 0.1
    values = torch.cat([d.flatten() for d in direction if d.dim() > 1])
    assert abs(float((values > 0).float().mean()) - 0.5) < 0.02  # Gaussian, not the positive numbers of loss-landscapes


def test_the_model_is_left_as_it_was():
    model, images = network_model(0), load_images("digits")
    before = [p.detach().clone() for p in model.denoiser.parameters()]
    probe_landscape(model, images, points=5, count=4, bins=2)
    assert all(torch.equal(x, y) for x, y in zip(before, model.denoiser.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in model.denoiser.parameters())


def test_barriers_and_roughness_of_known_curves():
    line = np.linspace(-0.5, 1.5, 41)
    hill = np.where((line > 0) & (line < 1), 1.0, 0.0) + line
    assert barrier(line, hill) == pytest.approx(1.0)
    assert barrier(line, line**2) <= 0.0
    assert roughness(line, line**2 + 0.1 * np.where(np.arange(41) % 2, 1, -1)) == pytest.approx(0.1 / 2.45, rel=0.1)
    assert np.isnan(roughness(line, np.ones(41)))


def test_bad_requests_are_refused():
    images = load_images("digits")
    with pytest.raises(UserError, match="different parameters"):
        probe_landscape(network_model(0), images, towards=network_model(1, "mlp(width=24, depth=1)"))
    with pytest.raises(UserError, match="at least 5 points"):
        probe_landscape(network_model(0), images, points=2)
