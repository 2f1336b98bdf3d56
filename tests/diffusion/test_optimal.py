import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion import optimal
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.optimal import OptimalDenoiser
from consistency_lab.diffusion.prediction import per_sample
from consistency_lab.diffusion.sampling import Sampler, sample_path, start_state
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError

SHAPE = (1, 2, 3)
EDM = SCHEDULES.build("edm")


def drawn(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute_force(images, x, alpha, sigma):
    """All distances in float64, from the differences themselves."""
    distances = torch.stack([(x - alpha * image).pow(2).flatten(1).sum(1) for image in images.double()], 1)
    weights = torch.softmax(-distances / (2 * sigma.flatten(1) ** 2), 1)
    return torch.einsum("bn,nchw->bchw", weights, images.double())


def at(sigma):
    return float(EDM.time_from_log_snr(-2 * torch.tensor(sigma, dtype=torch.float64).log()))


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_it_equals_brute_force(name, monkeypatch):
    schedule = SCHEDULES.build(name)
    images = torch.rand(37, *SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    t = torch.linspace(schedule.t_min, schedule.t_max, 8, dtype=torch.float64)
    x = drawn(1, 8, *SHAPE)
    denoiser = OptimalDenoiser(images, schedule)
    x0 = denoiser(x, t).x0
    assert torch.allclose(
        x0, brute_force(images, x, per_sample(schedule.alpha(t), x), per_sample(schedule.sigma(t), x)), atol=1e-9
    )
    # The stream is cut into chunks for large sets: the same answer.
    monkeypatch.setattr(optimal, "_CHUNK", 6 * 5)
    assert torch.allclose(OptimalDenoiser(images, schedule)(x, t).x0, x0, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 2.0, 4.0, 80.0])
@pytest.mark.parametrize("chunk", [2**14, 2**23])
def test_many_images_are_averaged_in_float32_to_a_hundred_thousandth(sigma, chunk, monkeypatch):
    # As if the set were large: more than 20 images that matter in a chunk are many.
    monkeypatch.setattr(optimal, "_CHUNK", chunk)
    monkeypatch.setattr(optimal, "_EXACT", 20 * 192)
    images = (0.5 * drawn(0, 600, 3, 8, 8, dtype=torch.float32)).clamp(-1, 1)
    x = images[:9].double() + sigma * drawn(1, 9, 3, 8, 8)
    found = OptimalDenoiser(images, EDM)(x, at(sigma)).x0
    expected = brute_force(images, x, torch.ones(9, 1, 1, 1), torch.full((9, 1, 1, 1), sigma, dtype=torch.float64))
    assert (found - expected).abs().max() < 1e-5
    assert found.dtype == torch.float64


def test_float32_averages_only_where_its_rounding_hardly_moves_a_logit(monkeypatch):
    averaged = []
    real = optimal._average
    monkeypatch.setattr(optimal, "_EXACT", 0)
    monkeypatch.setattr(
        optimal, "_average", lambda shares, points: averaged.append(shares.dtype) or real(shares, points)
    )
    # Images that differ by a hundred-thousandth at a noise level where that decides.
    images = 0.5 + 1e-5 * drawn(0, 50, 3, 8, 8)
    x = images[:4] + 5e-5 * drawn(1, 4, 3, 8, 8)
    for sigma, off in ((0.002, 1e-9), (1.0, 1e-6)):
        found = OptimalDenoiser(images.float(), EDM)(x, at(sigma)).x0
        levels = torch.full((4, 1, 1, 1), sigma, dtype=torch.float64)
        assert (found - brute_force(images.float(), x, torch.ones(4, 1, 1, 1), levels)).abs().max() < off
    assert averaged == [torch.float64, torch.float32]


def test_images_near_each_other_are_told_apart_at_the_lowest_noise():
    # |x|^2 is 3072 and float32 resolves .0002 there, 30 nats at this level.
    first = drawn(0, 3, 32, 32)
    images = torch.stack([first, first + 1e-5 * drawn(1, 3, 32, 32), -first]).float()
    x = (images[:1].double() + images[1:2].double()) / 2 + 0.002 * drawn(2, 4, 3, 32, 32)
    levels = torch.full((4, 1, 1, 1), EDM.noise_to_signal(EDM.t_min).item(), dtype=torch.float64)
    expected = brute_force(images, x, torch.ones(4, 1, 1, 1), levels)
    found = OptimalDenoiser(images, EDM)(x, EDM.t_min).x0
    assert (found - expected).abs().max() < 1e-10
    assert (expected - images[0].double()).abs().max() > 1e-7  # both weigh


def test_a_state_does_not_depend_on_those_beside_it():
    images = (0.5 * drawn(0, 300, 3, 8, 8, dtype=torch.float32)).clamp(-1, 1)
    denoiser = OptimalDenoiser(images, EDM)
    t = torch.tensor([at(sigma) for sigma in (0.01, 0.5, 1.0, 3.0, 50.0)], dtype=torch.float64)
    x = images[:5].double() + EDM.sigma(t).reshape(-1, 1, 1, 1) * drawn(1, 5, 3, 8, 8)
    alone = torch.cat([denoiser(x[i : i + 1], t[i : i + 1]).x0 for i in range(5)])
    assert torch.allclose(denoiser(x, t).x0, alone, atol=1e-9)


def test_it_tends_to_the_nearest_image_and_to_the_mean():
    images = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    x = drawn(3, 5, *SHAPE)
    denoiser = OptimalDenoiser(images, EDM)
    nearest = torch.cdist(x.flatten(1), images.double().flatten(1)).argmin(1)
    assert torch.allclose(denoiser(x, EDM.t_min).x0, images[nearest].double(), atol=1e-6)
    assert torch.allclose(denoiser(x, 1.0).x0, images.double().mean(0).expand(5, *SHAPE), atol=2e-3)


def test_it_can_be_differentiated():
    images = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    denoiser, x = OptimalDenoiser(images, EDM), drawn(3, 2, *SHAPE).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: denoiser(x, at(0.7)).x0, x, atol=1e-5)


@pytest.mark.parametrize("steps", [20, 100])
def test_the_optimal_denoiser_lands_on_training_images(steps):
    images = load_images("digits").take(range(400), "some digits").all()
    denoiser = OptimalDenoiser(images, SCHEDULES.build("linear"))
    start = start_state(denoiser, SharedNoise(0).initial(range(32), (1, 8, 8)))
    *_, last = sample_path(denoiser, start, Sampler(steps=steps))
    to_nearest = (last.x_t[:, None] - images.double()).pow(2).flatten(2).mean(2).amin(1)
    assert to_nearest.max() < 1e-4  # digits themselves are 0.1 and more apart


def test_no_images_are_refused():
    with pytest.raises(UserError, match="at least one"):
        OptimalDenoiser(torch.zeros(0, *SHAPE), EDM)
