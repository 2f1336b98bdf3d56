import pytest
import torch
from torch import nn

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.loss import denoising_loss, noisy_state
from consistency_lab.diffusion.prediction import UNITS, Prediction, per_sample
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError


class Echo(nn.Module):
    """Answers with a stored tensor."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, x, t, cond):
        return self.answer


def case(name, dtype, n=64):
    generator = torch.Generator().manual_seed(1)
    schedule = SCHEDULES.build(name)
    t = torch.linspace(schedule.t_min, schedule.t_max, n, dtype=torch.float64)
    x0, eps = (torch.randn(n, 1, 4, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    alpha, sigma = per_sample(schedule.alpha(t), x0), per_sample(schedule.sigma(t), x0)
    return schedule, t, x0, eps, alpha, sigma


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("units", UNITS)
def test_conversions_round_trip_in_float64(name, units):
    _, _, x0, eps, alpha, sigma = case(name, torch.float64)
    x_t = alpha * x0 + sigma * eps
    target = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}[units]
    prediction = Prediction.of(x_t, target, units, alpha, sigma)
    # Dividing by alpha or sigma multiplies the rounding of x_t.
    assert ((prediction.x0 - x0) * alpha / sigma.clamp_min(1)).abs().max() < 1e-10
    assert ((prediction.eps - eps) * sigma).abs().max() < 1e-10
    for other in UNITS:
        back = Prediction.of(x_t, prediction.in_units(other), other, alpha, sigma)
        assert ((back.in_units(units) - target) * torch.minimum(alpha, sigma) / sigma.clamp_min(1)).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
@pytest.mark.parametrize("units", UNITS)
def test_conversions_round_trip_in_float32_relative_to_alpha_and_sigma(name, units):
    _, _, x0, eps, alpha, sigma = case(name, torch.float32)
    target = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}[units]
    prediction = Prediction.of(alpha * x0 + sigma * eps, target, units, alpha, sigma)
    assert ((prediction.x0 - x0) * alpha).abs().max() < 1e-5
    assert ((prediction.eps - eps) * sigma).abs().max() < 1e-5


def test_score_is_the_gradient_of_the_log_density():
    *_, x0, eps, alpha, sigma = case("linear", torch.float64)
    x_t = (alpha * x0 + sigma * eps).requires_grad_()
    log_density = -((x_t - alpha * x0) ** 2 / (2 * sigma**2)).sum()  # of q(x_t | x0)
    (score,) = torch.autograd.grad(log_density, x_t)
    assert torch.allclose(Prediction.of(x_t.detach(), eps, "eps", alpha, sigma).score, score, rtol=1e-8)


@pytest.mark.parametrize("predicts", UNITS)
@pytest.mark.parametrize("units", UNITS)
def test_loss_is_the_mean_squared_error_in_the_named_units(predicts, units):
    schedule, t, x0, eps, alpha, sigma = case("cosine", torch.float64, n=16)
    t = t.clamp(0.2, 0.8)
    alpha, sigma = per_sample(schedule.alpha(t), x0), per_sample(schedule.sigma(t), x0)
    off = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}
    denoiser = NetworkDenoiser(Echo(target[predicts] + off), schedule, (1, 4, 4), predicts)
    loss = denoising_loss(denoiser, x0, t, eps, units=units)
    # An error e in eps is -sigma / alpha e in x0: both sides in closed form.
    from_x0 = {
        "x0": torch.ones_like(alpha),
        "eps": -alpha / sigma,
        "v": -(alpha**2 + sigma**2) / sigma,
        "flow": -(alpha + sigma) / sigma,
    }
    expected = (off / from_x0[predicts] * from_x0[units]).pow(2).mean((1, 2, 3))
    assert loss.shape == (16,)
    assert torch.allclose(loss, expected, rtol=1e-9)


def test_loss_of_a_sample_does_not_depend_on_its_batch():
    schedule, t, x0, eps, *_ = case("linear", torch.float64, n=8)
    network = nn.Conv2d(1, 1, 3, padding=1).double()
    denoiser = NetworkDenoiser(Wrap(network), schedule, (1, 4, 4))
    whole = denoising_loss(denoiser, x0, t, eps)
    order = torch.tensor([5, 0, 7, 2, 1, 3, 6, 4])
    assert torch.allclose(whole[order], denoising_loss(denoiser, x0[order], t[order], eps[order]), rtol=1e-12)
    alone = torch.cat([denoising_loss(denoiser, x0[i : i + 1], t[i : i + 1], eps[i : i + 1]) for i in range(8)])
    assert torch.allclose(whole, alone, rtol=1e-9)


class Wrap(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t, cond):
        return self.network(x)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_the_loss_asks_about_the_noisy_state(name):
    schedule, t, x0, eps, *_ = case(name, torch.float32)
    denoiser = NetworkDenoiser(Echo(torch.zeros_like(x0)), schedule, (1, 4, 4), "x0")
    asked = denoiser(noisy_state(schedule, x0, t, eps), t)
    loss = denoising_loss(denoiser, x0, t, eps, units="flow")
    assert torch.equal(loss, (asked.flow - (eps - x0)).pow(2).flatten(1).mean(1))
    with pytest.raises(UserError, match="to a denoiser of"):
        denoising_loss(denoiser, x0[:, :, :3], t, eps[:, :, :3])


def test_bad_questions_are_refused():
    schedule = SCHEDULES.build("linear")
    denoiser = NetworkDenoiser(Wrap(nn.Conv2d(1, 1, 1)), schedule, (1, 4, 4))
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(UserError, match="shape"):
        denoiser(torch.zeros(2, 3, 4, 4), 0.5)
    with pytest.raises(UserError, match="leaves"):
        denoiser(x, 0.0)
    with pytest.raises(UserError, match="It is called 'eps' here"):
        NetworkDenoiser(nn.Identity(), schedule, (1, 4, 4), "epsilon")
    with pytest.raises(UserError, match="unknown prediction"):
        denoising_loss(denoiser, x, torch.full((2,), 0.5), x, units="noise")


def test_noisy_state_broadcasts_one_time_per_image():
    schedule = SCHEDULES.build("flow")
    x0, eps = torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 5.0)
    state = noisy_state(schedule, x0, torch.tensor([0.1, 0.5, 0.9]), eps)
    assert torch.allclose(state[:, 0, 0, 0], torch.tensor([1.4, 3.0, 4.6]))


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_edm_preconditioning_is_table_one(name):
    schedule, t, x0, eps, alpha, sigma = case(name, torch.float64)
    d, output = 0.6, torch.randn(x0.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    seen = []

    class Record(Echo):
        def forward(self, x, t, cond):
            seen.append(x)
            return self.answer

    denoiser = NetworkDenoiser(Record(output), schedule, (1, 4, 4), f"edm(sigma_data={d})")
    prediction = denoiser(alpha * x0 + sigma * eps, t)
    y, s = x0 + sigma / alpha * eps, sigma / alpha
    skip, out, scale = d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt(), 1 / (s**2 + d**2).sqrt()
    assert torch.allclose(seen[0], scale * y, rtol=1e-8)
    assert torch.allclose(prediction.x0, skip * y + out * output, rtol=1e-6, atol=1e-8)
    assert torch.allclose(alpha * prediction.x0 + sigma * prediction.eps, prediction.x_t, atol=1e-8)
    with pytest.raises(UserError, match="standard deviation"):
        NetworkDenoiser(nn.Identity(), schedule, (1, 4, 4), "edm")


def test_a_network_on_the_edm_schedule_sees_the_state_of_the_vp_schedule():
    edm, vp = SCHEDULES.build("edm"), SCHEDULES.build("linear")
    t = torch.tensor([0.5, 0.7])
    level = edm.log_snr(t)
    x0, eps = torch.randn(2, 2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = []

    class Record(nn.Module):
        def forward(self, x, t, cond):
            seen.append(x)
            return x

    for schedule in (edm, vp):
        at = schedule.time_from_log_snr(level)
        NetworkDenoiser(Record(), schedule, (1, 4, 4))(noisy_state(schedule, x0, at, eps), at)
    assert torch.allclose(seen[0], seen[1], atol=1e-9)
