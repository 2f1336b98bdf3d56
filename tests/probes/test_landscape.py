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
from consistency_lab.probes.curvature import curvature_spectrum
from consistency_lab.probes.directions import difference
from consistency_lab.probes.frozen import FrozenBatch, frozen_grid
from consistency_lab.probes.landscape import line_landscape, probe_landscape
from consistency_lab.probes.plane import plane_landscape, probe_plane
from consistency_lab.probes.smoothness import barrier, curvature, over_images, roughness
from consistency_lab.probes.subject import Subject, diffusion_subject
from consistency_lab.probes.weight_space import losses_along

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


def test_the_centre_is_the_loss_itself_to_the_bit():
    model, images = network_model(0), load_images("digits")
    result = probe_landscape(model, images, points=7, count=8, bins=3)
    batch, _ = frozen_grid(images, model, 8, 3)
    with torch.no_grad():
        own = batch.losses(model.denoiser, denoising_loss).double().numpy().reshape(3, 8)
    centre = result.sel(position=0.0)
    assert np.array_equal(centre["loss_by_t"].values, own.mean(1))
    assert float(centre["loss"]) == pytest.approx(own.mean(), rel=1e-12)


def test_linear_interpolation_equals_loss_landscapes_where_it_is_right():
    # Its points are 1/n ... 1; the start is never evaluated.
    a, b, images = network_model(0), network_model(1), load_images("digits")
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
    assert float(there["barrier"]) == pytest.approx(float(back["barrier"]), rel=1e-3)


def test_the_split_by_noise_level_adds_up():
    result = probe_landscape(network_model(0), load_images("digits"), points=5, count=8, bins=4)
    assert np.allclose(result["loss_by_t"].mean("t"), result["loss"], rtol=1e-12)


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
    hills = hill[:, None] * np.linspace(0.5, 1.5, 30)
    found = over_images(lambda loss: barrier(line, loss), hills)
    assert found.low < found.estimate < found.high
    assert found.estimate == pytest.approx(1.0)
    assert found.high - found.estimate == pytest.approx(
        2.045 * np.linspace(0.5, 1.5, 30).std(ddof=1) / 30**0.5, rel=1e-3
    )


def test_what_lies_between_two_models_is_our_own_walk_to_rounding():
    a, b, images = network_model(0), network_model(1), load_images("digits")
    result = probe_landscape(a, images, towards=b, points=13, count=8, bins=3)
    subject = diffusion_subject(a, images, count=8, bins=3)
    direction, line = difference(a.denoiser, b.denoiser), result["position"].values
    ours = losses_along(a.denoiser, denoising_loss, subject.batch, direction, line.tolist()).mean(1)
    assert np.allclose(result["loss"], ours, rtol=1e-5)
    assert 0 < ((line > 0) & (line < 1)).sum() < len(line)


def test_every_number_has_an_interval_around_it():
    result = probe_landscape(
        network_model(0), load_images("digits"), towards=network_model(1), points=9, count=16, bins=2
    )
    for name in ("curvature", "relative_curvature", "roughness", "predictiveness"):
        assert float(result[f"{name}_low"]) < float(result[name]) < float(result[f"{name}_high"])
    for name in ("lipschitz", "relative_lipschitz", "gradient_rms"):
        assert 0 < float(result[f"{name}_low"]) < float(result[name]) < float(result[f"{name}_high"])
    # This line lies below its chord for every image, so that its highest point is an end.
    assert result["barrier_low"] == result["barrier"] == result["relative_barrier_high"] == 0.0
    assert (result["loss_by_t_low"] < result["loss_by_t"]).all()
    one = probe_landscape(network_model(0), load_images("digits"), points=5, count=1, bins=2)
    assert np.isnan(one["curvature_low"])
    assert np.isnan(one["lipschitz_low"])
    assert np.isfinite(float(one["lipschitz"]))


def test_relative_numbers_do_not_depend_on_scales():
    """A homogeneous network, its weights scaled up and down so that the function stays, and a loss in other units."""
    found = []
    for scale, unit in ((1.0, 1.0), (8.0, 100.0)):
        module = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p, factor in zip(module.parameters(), (scale, 1 / scale), strict=True):
                p.copy_(factor * torch.randn(p.shape, generator=generator))
        x = torch.randn(30, 5, generator=generator).double()
        loss = lambda m, x, unit=unit: unit * (m(x) - 1).pow(2).mean(1)  # noqa: E731
        line = line_landscape(Subject("s", module, loss, FrozenBatch([x]), "any"), points=9)
        found.append({name: float(value) for name, value in line.items() if not value.dims})
    for name in ("relative_curvature", "roughness"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-6)
        assert found[1][f"{name}_high"] == pytest.approx(found[0][f"{name}_high"], rel=1e-6)
    assert found[1]["curvature"] == pytest.approx(100 * found[0]["curvature"], rel=1e-6)


def test_roughness_and_predictiveness_stand_beside_their_reach():
    """The loss 1 + x^2 + x^4 on a line: the further one looks, the more of the quartic there is."""
    module = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, 4.0]]))
    start = module.weight.detach().clone()

    def loss(m, x):
        way = (m.weight - start).pow(2).sum() / start.pow(2).sum()  # the position on a filter-normalised line, squared
        return (1 + way + way**2) * x.squeeze(1)

    batch = FrozenBatch([torch.linspace(0.5, 1.5, 8, dtype=torch.float64)[:, None]])
    line = line_landscape(Subject("s", module, loss, batch, ""), points=25, span=0.5)
    assert line["span"].values.tolist() == [0.05, 0.15, 0.5]
    assert float(line["roughness_span"]) == 0.5
    assert float(line["roughness_on"][-1]) == float(line["roughness"])
    for span, found in zip(line["span"].values[:2], line["roughness_on"].values[:2], strict=True):
        piece = np.linspace(-span, span, 9)
        assert found == pytest.approx(roughness(piece, 1 + piece**2 + piece**4), rel=1e-6)
    assert line["roughness_on"][0] < 0.2 * line["roughness_on"][1] < 0.2 * line["roughness_on"][2]
    assert line["distance"].values.tolist() == [0.05, 0.125, 0.25]
    assert float(line["predictiveness_distance"]) == 0.05
    between = probe_landscape(
        network_model(0), load_images("digits"), towards=network_model(1), points=5, count=4, bins=2
    )
    assert float(between["roughness_span"]) == 1.0
    assert float(between["predictiveness_at"][0]) == float(between["predictiveness"])
    cosines = between["gradient_cosine"].sel(gradient_position=[-0.5, 0.5]).mean()
    assert float(between["predictiveness_at"].sel(distance=0.5)) == pytest.approx(float(cosines), rel=1e-12)
    assert "roughness_on" not in between


def test_a_subject_without_noise_levels_has_no_split():
    model, batch, loss, _ = linear_case()
    result = line_landscape(Subject("line", model, loss, batch, "squared units"), points=5)
    assert "t" not in result.dims
    assert result.attrs["units"] == "squared units"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_module_is_left_as_it_was_after_an_error(error):
    model, batch, loss, _ = linear_case()
    model.weight.requires_grad_(False)
    before, calls = model.weight.detach().clone(), []

    def failing(m, x):
        calls.append(1)
        if len(calls) == 6:
            raise error
        return loss(m, x)

    with pytest.raises(error):
        line_landscape(Subject("s", model, failing, batch, ""), points=9)
    assert torch.equal(model.weight, before)
    assert not model.weight.requires_grad
    assert model.weight.grad is None


@pytest.mark.parametrize("probe", [line_landscape, plane_landscape, curvature_spectrum])
def test_randomness_is_refused_before_any_time_is_spent(probe):
    x = torch.ones(8, 5)
    calls = []

    def loss(m, x):
        calls.append(1)
        return m(x).pow(2).mean(1)

    def noisy(m, x):
        calls.append(1)
        return m(x + torch.randn_like(x)).pow(2).mean(1)

    dropout = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5))
    for module, each in ((dropout, loss), (nn.Linear(5, 5), noisy)):
        calls.clear()
        with pytest.raises(UserError, match="draws random numbers"):
            probe(Subject("s", module, each, FrozenBatch([x]), ""))
        assert len(calls) == 2
    norm = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
    calls.clear()
    with pytest.raises(UserError, match="batch norm in training mode"):
        probe(Subject("s", norm, loss, FrozenBatch([x]), ""))
    assert not calls


def test_bad_requests_are_refused():
    images = load_images("digits")
    with pytest.raises(UserError, match="different parameters"):
        probe_landscape(network_model(0), images, towards=network_model(1, "mlp(width=24, depth=1)"))
    for probe in (probe_landscape, probe_plane):
        with pytest.raises(UserError, match="a length above 0, not 0"):
            probe(network_model(0), images, span=0)
    with pytest.raises(UserError, match="at least 5 points"):
        probe_landscape(network_model(0), images, points=2)
