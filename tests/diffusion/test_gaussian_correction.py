"""A network that corrects the closed-form denoiser of its set's mean and covariance."""

import dataclasses
import weakref

import pytest
import torch
from torch import nn

import consistency_lab as cl
from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.moments import WithMoments, axes_of, moments_of, principal_axes
from consistency_lab.diffusion.parametrisation import PREDICTIONS
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network
from consistency_lab.training.lockstep import in_lockstep
from consistency_lab.training.settings import TrainingSettings

SHAPE = (1, 8, 8)
SCHEDULE = SCHEDULES.build("linear")


class Answer(nn.Module):
    """A network that answers with the same two images whatever it is shown."""

    def __init__(self, correction, gate):
        super().__init__()
        self.values = torch.tensor([correction, gate])

    def forward(self, x, t, cond=None):
        self.shown = x
        return self.values.reshape(1, 2, 1, 1).expand_as(x)


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(300), "some digits")


def denoiser_of(network, moments, components=256, shape=SHAPE):
    around = PREDICTIONS.build(f"gaussian(components={components})").around(network, shape)
    around.measure(*axes_of(*moments))
    return NetworkDenoiser(around, SCHEDULE, shape, f"gaussian(components={components})")


def noisy(images, count=6):
    t = torch.linspace(0.02, 0.98, count, dtype=torch.float64)
    x0, eps = images.all()[:count], torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))
    alpha, sigma = (each.float().reshape(-1, 1, 1, 1) for each in SCHEDULE.alpha_sigma(t))
    return alpha * x0 + sigma * eps, t


@pytest.mark.parametrize("network", ["unet(width=8)", "mlp(width=8, depth=1)", "dit(width=16, depth=1, heads=2)"])
def test_a_network_that_has_learnt_nothing_is_the_closed_form(images, network):
    built = build_network(network, (2, 8, 8), 0, 0)
    mine = denoiser_of(built, moments_of(images.all()))
    x_t, t = noisy(images)
    closed = GaussianDenoiser.fit(images.all(), SCHEDULE)(x_t, t)
    found = mine(x_t, t)
    torch.testing.assert_close(found.eps, closed.eps, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(found.x0, closed.x0, rtol=1e-3, atol=2e-3)


def test_directions_that_are_left_out_have_their_mean_variance(images):
    mean, covariance = moments_of(images.all())
    variances, axes = torch.linalg.eigh(covariance)
    spread = torch.cat([variances[:-10].mean().expand(54), variances[-10:]])
    x_t, t = noisy(images)
    closed = GaussianDenoiser(mean.reshape(SHAPE), axes @ torch.diag(spread) @ axes.T, SCHEDULE)(x_t, t)
    found = denoiser_of(Answer(0.0, 0.0), (mean, covariance), 10)(x_t, t)
    torch.testing.assert_close(found.eps, closed.eps, rtol=1e-3, atol=2e-4)


def test_a_gate_of_minus_one_closes_and_a_correction_is_in_units_of_the_closed_forms_error(images):
    x_t, t = noisy(images)
    moments = moments_of(images.all())
    assert denoiser_of(Answer(0.0, -1.0), moments)(x_t, t).eps.abs().max() == 0
    of_one = denoiser_of(Answer(1.0, -1.0), moments)(x_t, t).eps
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    for row, a, s in zip(of_one, alpha, sigma, strict=True):
        explained = a**2 * moments[1] @ torch.linalg.inv(a**2 * moments[1] + s**2 * torch.eye(64))
        assert row.std() < 1e-6
        assert float(row.mean()) == pytest.approx(float((explained.trace() / 64).sqrt()), rel=1e-3)


def test_the_error_of_the_closed_form_is_what_gaussian_data_have():
    made = torch.Generator().manual_seed(1)
    root = torch.randn(64, 64, generator=made, dtype=torch.float64) / 8
    mean = torch.linspace(-0.5, 0.5, 64, dtype=torch.float64)
    x0 = (mean + torch.randn(20_000, 64, generator=made, dtype=torch.float64) @ root.T).float().view(-1, *SHAPE)
    eps = torch.randn(20_000, *SHAPE, generator=made)
    network = denoiser_of(Answer(1.0, 0.0), (mean, root @ root.T))
    for time in (0.1, 0.5, 0.9):
        t = torch.full((20_000,), time, dtype=torch.float64)
        a, s = (float(each[0]) for each in SCHEDULE.alpha_sigma(t))
        told = network.network.gaussian(
            a * x0 + s * eps, torch.full((20_000, 1, 1, 1), a), torch.full((20_000, 1, 1, 1), s)
        )
        measured = (told.eps - eps).pow(2).mean().sqrt()
        assert float(measured) == pytest.approx(float(told.error[0]), rel=0.01)


def test_what_the_network_is_shown_is_of_size_one_and_holds_the_clean_image_of_the_closed_form(images):
    network = Answer(0.0, 0.0)
    denoiser = denoiser_of(network, moments_of(images.all()))
    x0 = images.all()
    closed = GaussianDenoiser.fit(x0, SCHEDULE)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    for time in (0.05, 0.6):
        t = torch.full((len(x0),), time, dtype=torch.float64)
        alpha, sigma = (each.float().reshape(-1, 1, 1, 1) for each in SCHEDULE.alpha_sigma(t))
        x_t = alpha * x0 + sigma * eps
        denoiser(x_t, t)
        state, clean = network.shown.chunk(2, 1)
        centred = state - (alpha * x0.mean(0)) / (alpha**2 * denoiser.network.variance + sigma**2).sqrt()
        assert float(centred.pow(2).mean()) == pytest.approx(1.0, abs=0.05)
        right = (closed(x_t, t).x0 - x0.mean(0)) / denoiser.network.variance.sqrt()
        torch.testing.assert_close(clean, right, rtol=1e-3, atol=3e-3)


SETTINGS = TrainingSettings.of(network="mlp(width=16, depth=1)", predicts="gaussian", steps=8, batch=16, snapshots=2)


def test_it_is_trained_kept_and_loaded_with_the_moments_of_its_set(images, tmp_path):
    model = cl.train(images, settings=SETTINGS, store=tmp_path, device="cpu", progress=False)
    unkept = cl.train(images, settings=SETTINGS, device="cpu", progress=False)
    x_t, t = noisy(images)
    assert torch.equal(model.denoiser(x_t, t).eps, unkept.denoiser(x_t, t).eps)
    assert str(SETTINGS.predicts) == "gaussian"
    around = model.denoiser.network
    assert isinstance(around, WithMoments)
    fresh = WithMoments(nn.Identity(), SHAPE, 256)
    fresh.measure(*axes_of(*moments_of(images.all())))
    for name in ("mean", "axes", "variances", "rest"):  # to the bit: neither trained nor averaged
        assert torch.equal(getattr(around, name), getattr(fresh, name))
    assert [step for step, _ in cl.load_snapshots(model)][-1] == 8


def test_its_loss_begins_at_the_closed_forms(images):
    model = cl.train(images, settings=SETTINGS.replace(steps=1, lr=1e-9), device="cpu", progress=False)
    x_t, t = noisy(images)
    closed = GaussianDenoiser.fit(images.all(), SCHEDULE)(x_t, t)
    torch.testing.assert_close(model.denoiser(x_t, t).eps, closed.eps, rtol=1e-3, atol=2e-4)


def test_the_axes_of_a_set_are_found_once_and_go_with_it(images):
    again = dataclasses.replace(images)
    first, mirrored = principal_axes(images), principal_axes(images, flip=True)
    assert principal_axes(images) is first
    assert principal_axes(again) is not first
    assert torch.equal(principal_axes(again).axes, first.axes)
    assert not torch.equal(mirrored.variances, first.variances)
    covariance = first.axes @ torch.diag(first.variances) @ first.axes.T
    assert torch.allclose(covariance, torch.cov(images.all().flatten(1).double().T, correction=0), atol=1e-12)
    gone = weakref.ref(first.axes)
    del first, again
    assert gone() is not None  # of a set that is still here
    some = images.take(range(50), "few")
    gone = weakref.ref(principal_axes(some).axes)
    del some
    assert gone() is None


def test_flipped_images_have_the_moments_of_both(images):
    model = cl.train(images, settings=SETTINGS.replace(flip=True, steps=1), device="cpu", progress=False)
    mean = model.denoiser.network.mean.view(8, 8)
    torch.testing.assert_close(mean, mean.flip(-1))


def test_a_model_that_is_gone_on_from_brings_its_moments(images):
    first = cl.train(images, settings=SETTINGS, device="cpu", progress=False)
    other = cl.load_images("digits").take(range(500, 700), "others")
    second = cl.train(other, start=first, steps=2, device="cpu", progress=False)
    assert torch.equal(second.denoiser.network.mean, first.denoiser.network.mean)


def test_a_network_of_ones_own_is_asked_about_stacks(images):
    class Own(nn.Module):
        def __init__(self, shape, classes):
            super().__init__()
            self.seen = shape
            self.conv = nn.Conv2d(shape[0], shape[0], 3, padding=1)

        def forward(self, x, t, cond=None):
            return self.conv(x)

    model = cl.train(images, network=Own, predicts="gaussian", steps=2, batch=16, device="cpu", progress=False)
    assert model.denoiser.network.network.seen == (2, 8, 8)
    with pytest.raises(UserError, match=r"called as network\(x, t, cond\) with images \(2, 2, 8, 8\)"):
        cl.train(images, network=nn.Conv2d(1, 1, 3), predicts="gaussian", steps=2, batch=16, device="cpu")


def test_half_precision_leaves_the_closed_form_alone(images):
    model = cl.train(images, settings=SETTINGS.replace(precision="bfloat16"), device="cpu", progress=False)
    x_t, t = noisy(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = denoiser_of(Answer(0.0, 0.0), moments_of(images.all()))(x_t, t).eps
    assert torch.equal(rough, denoiser_of(Answer(0.0, 0.0), moments_of(images.all()))(x_t, t).eps)
    assert model.denoiser(x_t, t).eps.isfinite().all()


def test_it_is_trained_beside_others_and_in_no_lock_step(images):
    jobs = {f"{seed}": SETTINGS.replace(seed=seed) for seed in range(2)}
    assert in_lockstep(jobs, SHAPE, torch.device("cpu"), most=2) == jobs
    with pytest.raises(UserError, match="beside its weights"):
        cl.train(images, settings=SETTINGS.replace(lockstep="1/1"), device="cpu", progress=False)


def test_what_it_cannot_be():
    with pytest.raises(UserError, match="needs the moments of the training set, which Conv2d does not hold"):
        NetworkDenoiser(nn.Conv2d(1, 1, 3), SCHEDULE, SHAPE, "gaussian")
    with pytest.raises(UserError, match="needs the moments of the training set"):
        cl.wrap_module(nn.Conv2d(1, 1, 3), schedule="linear", predicts="gaussian", shape=SHAPE, time="unit", name="m")
    grey = ImageSet("grey", torch.full((20, 1, 8, 8), 0.25))
    with pytest.raises(UserError, match="all images of the set are the same"):
        cl.train(grey, settings=SETTINGS.replace(batch=4), device="cpu")
    with pytest.raises(UserError, match="components"):
        PREDICTIONS.build("gaussian(components=0)")
