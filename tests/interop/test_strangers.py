"""Checkpoints as strangers make them: each trained by its own loop, wrapped in the lines of docs/your-own-model.md, and sampled from the
same noise by its own rule and by ours on the same grid."""

import itertools

import pytest
import torch
from torch import nn

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.errors import UserError
from consistency_lab.interop.module import wrap_module
from consistency_lab.loading import load

SHAPE, COUNT, STEPS = (1, 8, 8), 6, 25
NOISE = SharedNoise(3).initial(range(COUNT), SHAPE)


class Net(nn.Module):
    """A small network that is told one number beside the image."""

    def __init__(self, told=lambda t: t):
        super().__init__()
        self.told = told
        self.layers = nn.Sequential(nn.Linear(65, 96), nn.SiLU(), nn.Linear(96, 64))

    def forward(self, x, t):
        return self.layers(torch.cat([x.flatten(1), self.told(t)[:, None]], 1)).view_as(x)


def fit(net, loss, steps=150):
    """A plain loop over digits in [-1, 1]."""
    data, generator = load_images("digits").all(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (64,), generator=generator)]
        eps, u = torch.randn(x0.shape, generator=generator), torch.rand(64, generator=generator)
        optimizer.zero_grad()
        loss(x0, eps, u).backward()
        optimizer.step()
    return net


def wide(values):
    return values[:, None, None, None]


@pytest.fixture(scope="module")
def flow_matching():
    """t = 0 is noise, t = 1 data, and the velocity is data - noise, as in torchcfm and flow_matching."""
    torch.manual_seed(0)
    net = Net()
    return fit(net, lambda x, e, t: (net(wide(t) * x + (1 - wide(t)) * e, t) - (x - e)).pow(2).mean())


SIGMAS = (0.02, 20.0)


@pytest.fixture(scope="module")
def score_network():
    """Variance exploding, on images in [0, 1]: it is given sigma and answers the score -eps / sigma (Song & Ermon 2019)."""
    torch.manual_seed(1)

    class Score(Net):
        def forward(self, x, sigma):
            return super().forward(x / wide(1 + sigma), sigma) / wide(sigma)

    net = Score(torch.log)

    def loss(x0, eps, u):
        sigma = SIGMAS[0] * (SIGMAS[1] / SIGMAS[0]) ** u
        x = (x0 + 1) / 2 + wide(sigma) * eps
        return (wide(sigma) * net(x, sigma) + eps).pow(2).mean()

    return fit(net, loss)


def generate(model, steps=STEPS):
    return model.generate(SharedNoise(3), range(COUNT), Sampler(steps=steps))


@torch.no_grad()
def test_a_flow_with_time_and_sign_reversed_equals_its_own_euler(flow_matching):
    model = wrap_module(flow_matching, schedule="flow", predicts="-flow", time="reversed", shape=SHAPE, name="fm")
    # Their rule: dx/dt = v from noise to data. Our grid begins at t_max = .999, which is their .001, with .999 of the noise.
    grid = 1 - model.denoiser.schedule.grid(STEPS)
    x = (1 - grid[0]).float() * NOISE
    for t, after in itertools.pairwise(grid):
        x = x + (after - t).float() * flow_matching(x, t.float().expand(COUNT))
    assert float((generate(model) - x).abs().max()) < 1e-4
    assert float(x.std()) > 0.3  # and they are no flat images


@torch.no_grad()
def test_a_score_network_on_images_from_0_to_1_equals_its_own_euler(score_network):
    low, high = SIGMAS
    model = wrap_module(
        score_network,
        schedule=f"edm(sigma_min={low}, sigma_max={high})",
        predicts="score",
        time="sigma",
        value_range=(0, 1),
        shape=SHAPE,
        name="ncsn",
    )
    # Their rule in their units: x = sigma_max z, then dx/dsigma = -sigma score down to 0.
    sigmas = model.denoiser.told.schedule.sigma(model.denoiser.schedule.grid(STEPS)).float()
    assert (float(sigmas[0]), float(sigmas[-1])) == (20.0, 0.0)
    x = sigmas[0] * NOISE
    for sigma, after in itertools.pairwise(sigmas):
        x = x + (after - sigma) * -sigma * score_network(x, sigma.expand(COUNT))
    assert float(((generate(model) + 1) / 2 - x).abs().max()) < 1e-4
    assert float(x.std()) > 0.15
    assert model.facts["value_range"] == [0, 1]


def test_noise_of_a_model_of_half_the_range_counts_twice(score_network):
    """log-SNR is that of images in [-1, 1]: theirs have half the spread, so their sigma is ours halved."""
    model = wrap_module(
        score_network, schedule="edm", predicts="score", time="sigma", value_range=(0, 1), shape=SHAPE, name="ncsn"
    )
    schedule, own = model.denoiser.schedule, model.denoiser.told.schedule
    t = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    torch.testing.assert_close(schedule.sigma(t), 2 * own.sigma(t))
    torch.testing.assert_close(schedule.time_from_log_snr(schedule.log_snr(t)), t)
    # One state, in both units: they see x + sigma eps in [0, 1].
    x0, eps = torch.rand(3, *SHAPE).double() * 2 - 1, torch.randn(3, *SHAPE).double()
    state = x0 + wide(schedule.sigma(t)) * eps
    torch.testing.assert_close(model.denoiser.shown(state, t), (x0 + 1) / 2 + wide(own.sigma(t)) * eps)
    prediction = model.denoiser(state, t)
    theirs = score_network(((state + 1) / 2).float(), own.sigma(t).float())
    torch.testing.assert_close(prediction.eps, -wide(own.sigma(t)) * theirs.double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prediction.x0, state - wide(schedule.sigma(t)) * prediction.eps)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-0.5, 0.5), (0.0, 255.0)])
@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow", "score"])
@pytest.mark.parametrize("schedule", ["linear", "flow", "edm"])
def test_the_exact_denoiser_of_a_gaussian_is_itself_in_every_range(value_range, predicts, schedule):
    """Pixels N(m, d^2) in the module's units: its exact answer, in any prediction, is the exact denoiser in ours."""
    from consistency_lab.diffusion.prediction import Prediction
    from consistency_lab.diffusion.schedule import SCHEDULES

    low, high = value_range
    half, centre = (high - low) / 2, (high + low) / 2
    ours_mean, ours_d = 0.2, 0.4
    m, d, own = centre + half * ours_mean, half * ours_d, SCHEDULES.build(schedule)

    class Exact(nn.Module):
        def forward(self, w, t):
            a, s = wide(own.alpha(t)), wide(own.sigma(t))
            z = m + a * d**2 / (a**2 * d**2 + s**2) * (w - a * m)
            read = Prediction.of(w, z, "x0", a, s)
            return read.score if predicts == "score" else read.in_units(predicts)

    model = wrap_module(
        Exact(), schedule=schedule, predicts=predicts, time="unit", value_range=value_range, shape=SHAPE, name="exact"
    )
    t = torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64)
    a, s = wide(model.denoiser.schedule.alpha(t)), wide(model.denoiser.schedule.sigma(t))
    x_t = a * 0.1 + s * torch.randn(3, *SHAPE).double()
    exact = ours_mean + a * ours_d**2 / (a**2 * ours_d**2 + s**2) * (x_t - a * ours_mean)
    torch.testing.assert_close(model.denoiser(x_t, t).x0, exact, rtol=1e-7, atol=1e-7)


@torch.no_grad()
def test_averaged_weights_under_a_prefix_are_named_and_equal_their_own_ddim(tmp_path, monkeypatch):
    torch.manual_seed(2)
    monkeypatch.chdir(tmp_path)
    alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)

    def told(index):
        return index / 1000

    net = Net(told)

    def loss(x0, eps, u):
        index = (1000 * u).long()
        bar = wide(alphas_cumprod[index].float())
        return (net(bar.sqrt() * x0 + (1 - bar).sqrt() * eps, index.float()) - eps).pow(2).mean()

    with torch.enable_grad():
        fit(net, loss)
    averaged = {f"module.{key}": value for key, value in net.state_dict().items()}
    raw = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    torch.save({"model": raw, "ema": averaged, "optimizer": {"state": {}, "lr": 1e-3}, "step": 150}, "theirs.pt")

    with pytest.raises(UserError) as caught:
        load("theirs.pt")
    said = str(caught.value)
    assert "averaged weights under ['ema'], names beginning with 'module.': 4 tensors" in said
    assert "module.layers.0.weight (96, 65)" in said

    # The lines of the message, with what only their author knows.
    lines = "\n".join(line.strip() for line in said.splitlines()[1:])
    lines = lines.replace("MyNetwork(...)", "Net(told)").replace("shape=...", "shape=SHAPE")
    lines = lines.replace("schedule=...", "schedule=alphas_cumprod").replace("predicts=...", "predicts='eps'")
    names = {"Net": Net, "told": told, "SHAPE": SHAPE, "alphas_cumprod": alphas_cumprod}
    exec(lines.replace("time=...", "time='index'"), names)
    model = names["model"]

    # DDIM as its paper writes it (2010.02502, equation 12, eta = 0), from timestep 999 in strides of 40.
    x, bars = NOISE.double() * (1 - alphas_cumprod[-1]).sqrt(), torch.cat([torch.ones(1).double(), alphas_cumprod])
    for index in range(999, -1, -40):
        bar, before = bars[index + 1], bars[index + 1 - 40]
        eps = net(x.float(), torch.full((COUNT,), float(index))).double()
        x = before.sqrt() * (x - (1 - bar).sqrt() * eps) / bar.sqrt() + (1 - before).sqrt() * eps
    assert float((generate(model) - x).abs().max()) < 1e-4
