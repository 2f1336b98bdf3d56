import numpy as np
import pytest
import torch
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.intervals import mean_interval
from consistency_lab.probes.frozen import FrozenBatch, frozen_grid
from consistency_lab.store.results import load_result, save_result
from consistency_lab.studies.alignment import aligned, match_weights, permuted
from consistency_lab.studies.connectivity import ALIGNED, CURVE, LINE, barrier_interval, probe_connectivity
from consistency_lab.studies.curves import losses_on, on_curve, on_line, train_middle, weights_of
from consistency_lab.training.loop import Batch
from consistency_lab.training.train import train

TINY = {"network": "mlp(width=24, depth=1)", "batch": 64, "device": "cpu", "progress": False}
QUICK = {"count": 12, "bins": 3, "points": 5, "samples": 8, "sampler": Sampler("ddim", 4)}


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").split(1500, 200, seed=0)


@pytest.fixture(scope="module")
def pair(digits):
    return [train(digits[0], seed=seed, steps=400, **TINY) for seed in (0, 1)]


def ring(x, y):
    """Two weights whose loss is 0 on the unit circle."""
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[x, y]]))
    return module


def ring_loss(module, sample):
    return (module.weight.pow(2).sum() - 1).pow(2) + 0 * sample


def ring_curve(seed=0, steps=400):
    batches = lambda step: Batch((torch.zeros(1),), torch.ones(1))  # noqa: E731
    return list(train_middle(ring(1, 0), ring(0, 1), ring_loss, batches, steps=steps, lr=0.05, seed=seed))


def test_the_ends_of_every_path_are_the_models_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    a, b, c = ([torch.randn(7, generator=generator)] for _ in range(3))
    for path in (lambda s: on_line(a, c, s), lambda s: on_curve(a, b, c, s)):
        assert torch.equal(path(0.0)[0], a[0])
        assert torch.equal(path(1.0)[0], c[0])
    assert torch.allclose(on_curve(a, b, c, 0.5)[0], 0.25 * a[0] + 0.5 * b[0] + 0.25 * c[0])
    half = [0.5 * (a[0] + c[0])]
    assert torch.allclose(on_curve(a, half, c, 0.3)[0], on_line(a, c, 0.3)[0])  # a straight curve


def test_a_trained_curve_goes_round_what_the_line_runs_into():
    start, end = ring(1, 0), ring(0, 1)
    a, b, middle = weights_of(start), weights_of(end), ring_curve()[-1][0]
    batch, line = FrozenBatch([torch.zeros(3)]), np.linspace(0, 1, 21)
    straight = losses_on(start, ring_loss, batch, lambda s: on_line(a, b, s), line)
    curved = losses_on(start, ring_loss, batch, lambda s: on_curve(a, middle, b, s), line)
    assert barrier_interval(line, straight).estimate == pytest.approx(0.25)  # at (1/2, 1/2)
    # The best parabola through the two points leaves the circle by little.
    assert barrier_interval(line, curved).estimate < 0.01
    assert torch.equal(start.weight, ring(1, 0).weight)


def test_the_middle_is_pulled_by_the_curves_own_gradient():
    # One step from the middle of the line, by autograd through the curve; Adam's first step is the sign of it.
    ((middle, value),) = ring_curve(seed=3, steps=1)
    point = torch.tensor([[0.5, 0.5]], requires_grad=True)
    s = float(torch.rand((), generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    on = (1 - s) ** 2 * torch.tensor([[1.0, 0.0]]) + 2 * s * (1 - s) * point + s**2 * torch.tensor([[0.0, 1.0]])
    loss = (on.pow(2).sum() - 1).pow(2)
    (gradient,) = torch.autograd.grad(loss, point)
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    assert torch.allclose(middle[0], point.detach() - 0.05 * gradient.sign(), atol=1e-4)


def test_training_a_curve_twice_gives_the_same_bits():
    first, again, other = (ring_curve(seed, 50)[-1][0][0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_barriers_are_read_above_the_chord():
    line, rng = np.linspace(0, 1, 11), np.random.default_rng(0)
    height, tilt = 1 + 0.1 * rng.normal(size=30), rng.normal(size=30)
    losses = 4 * line[:, None] * (1 - line[:, None]) * height + tilt * line[:, None]
    found, expected = barrier_interval(line, losses), mean_interval(height)
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(float(b))  # the highest point is the same for every image: the maximum is a mean
    below = barrier_interval(line, -losses)
    assert below.estimate == pytest.approx(0.0, abs=1e-12)
    stacked = barrier_interval(line, np.stack([losses, 2 * losses]))
    assert stacked.estimate == pytest.approx([found.estimate, 2 * found.estimate])


def test_a_model_and_its_permuted_copy_share_a_basin_once_aligned(digits, pair):
    a, rng = pair[0], np.random.default_rng(0)
    identity = match_weights(a.denoiser.network, a.denoiser.network)
    network = permuted(a.denoiser.network, {unit: rng.permutation(len(order)) for unit, order in identity.items()})
    twin = aligned(a, a).denoiser  # a copy, whose network is replaced
    twin.network = network
    b = DiffusionModel("twin", twin, a.facts)
    ds = probe_connectivity(a, b, *digits, steps=5, **QUICK)
    assert float(ds["barrier"].sel(path=LINE)) > 0.01
    assert float(ds["barrier"].sel(path=ALIGNED)) == 0.0
    assert (ds["loss"].sel(path=ALIGNED) == ds["loss"].sel(path=ALIGNED)[0]).all()
    assert float(ds["aligned_weight_distance"]) == 0.0
    assert float(ds["consistency"]) == pytest.approx(1.0, abs=1e-4)


def test_two_seeds_are_joined_by_a_lower_curve_and_left_as_they_were(digits, pair, tmp_path):
    before = [{k: v.clone() for k, v in m.denoiser.state_dict().items()} for m in pair]
    ds = probe_connectivity(*pair, *digits, steps=150, **QUICK)
    for model, old in zip(pair, before, strict=True):
        assert all(torch.equal(v, old[k]) for k, v in model.denoiser.state_dict().items())
    assert list(ds["path"].values) == [LINE, CURVE, ALIGNED]
    straight, curve, after = ds["barrier"].values
    assert curve < straight
    assert after < straight
    assert (ds["barrier_low"] <= ds["barrier"]).all()
    batch, _ = frozen_grid(digits[1], pair[0], 12, 3, 0)
    for end, model in ((0, pair[0]), (-1, pair[1])):
        own = float(batch.losses(model.denoiser, denoising_loss).double().mean())
        np.testing.assert_allclose(ds["loss"].sel(path=[LINE, CURVE])[:, end], own, rtol=1e-12)
    np.testing.assert_allclose(ds["loss_by_t"].mean("t"), ds["loss"])
    assert ds["mean_loss_low"] < ds["mean_loss"] < ds["mean_loss_high"]
    assert ds["consistency_low"] <= ds["consistency"] <= ds["consistency_high"]
    save_result(ds, tmp_path / "c.nc")
    assert load_result(tmp_path / "c.nc").identical(ds)
    again = probe_connectivity(*pair, *digits, steps=150, **QUICK)
    assert again.drop_attrs().identical(ds.drop_attrs())


def test_without_an_alignment_the_result_says_why(digits):
    settings = {**TINY, "network": "unet(width=8, groups=4)", "batch": 16}
    pair = [train(digits[0], seed=seed, steps=2, **settings) for seed in (0, 1)]
    ds = probe_connectivity(*pair, *digits, steps=2, **QUICK)
    assert list(ds["path"].values) == [LINE, CURVE]
    assert "defined for the MLP, not for UNet" in ds.attrs["alignment"]


def test_models_that_no_path_joins_are_refused(digits, pair):
    wide = train(digits[0], seed=0, steps=2, **{**TINY, "network": "mlp(width=16, depth=1)"})
    with pytest.raises(UserError, match="different parameters"):
        probe_connectivity(pair[0], wide, *digits)
    other = train(digits[0], seed=0, steps=2, predicts="v", **TINY)
    with pytest.raises(UserError, match="differ in predicts"):
        probe_connectivity(pair[0], other, *digits)
    with pytest.raises(UserError, match="this package trained"):
        probe_connectivity(pair[0], DiffusionModel("foreign", pair[1].denoiser), *digits)
    with pytest.raises(UserError, match="3 points"):
        probe_connectivity(*pair, *digits, points=2)


def test_the_interval_of_a_barrier_covers_the_truth():
    rng, line, hits = np.random.default_rng(0), np.linspace(0, 1, 11), []
    for _ in range(500):
        height = 1 + 0.3 * rng.normal(size=48)
        losses = 4 * (line * (1 - line))[:, None] * height + 0.05 * rng.normal(size=(11, 48))
        ends = barrier_interval(line, losses)
        hits.append(ends.low <= 1 <= ends.high)
    assert 0.92 < np.mean(hits) < 0.98
