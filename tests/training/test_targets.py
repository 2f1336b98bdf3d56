"""Targets of less noise: the posterior mean, that it changes no gradient on average, and what training is given."""

import itertools

import pytest
import torch

import consistency_lab as cl
from consistency_lab.diffusion.optimal import OptimalDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.training.batches import DenoisingBatches
from consistency_lab.training.loop import EpochOrder
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.targets import TARGETS, posterior_means
from consistency_lab.training.train import settings_of, training_spec

CPU = torch.device("cpu")
TINY = {"network": "mlp(width=16, depth=1)", "steps": 30, "batch": 32, "snapshots": 0}


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(200), "some digits")


def levels_of(schedule, t):
    return (each.float().reshape(-1, 1, 1, 1) for each in schedule.alpha_sigma(t))


@pytest.mark.parametrize("name", ["linear", "cosine", "edm", "flow"])
def test_it_is_what_the_optimal_denoiser_of_those_images_says(images, name):
    """In float32 what that denoiser finds in float64, from the highest noise to the lowest."""
    schedule, pool = SCHEDULES.build(name), images.all()
    t = torch.linspace(schedule.t_min, schedule.t_max, 40, dtype=torch.float64)
    x0, others = pool[:40], pool[40:]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    alpha, sigma = levels_of(schedule, t)
    image, noise = posterior_means(x0, eps, alpha, sigma, others)
    expected = OptimalDenoiser(pool, schedule)(alpha * x0 + sigma * eps, t)
    torch.testing.assert_close(image, expected.x0, atol=3e-5, rtol=0)
    torch.testing.assert_close(alpha * image + sigma * noise, alpha * x0 + sigma * eps, atol=2e-5, rtol=1e-5)
    assert (image - x0).abs().max() > 0.5  # where the noise is high
    assert torch.equal(image[0], x0[0])  # where there is hardly any the own image alone counts
    assert torch.equal(noise[0], eps[0])


def test_the_order_of_the_batch_and_of_the_others_is_of_no_matter(images):
    schedule, pool = SCHEDULES.build("linear"), images.all()
    t, eps = torch.full((8,), 0.4, dtype=torch.float64), torch.randn(pool[:8].shape)
    alpha, sigma = levels_of(schedule, t)
    own = posterior_means(pool[:8], eps, alpha, sigma, pool[8:])
    turned = torch.arange(7, -1, -1)
    again = posterior_means(pool[turned], eps[turned], alpha, sigma, pool[8:].flip(0))
    for a, b in zip(own, again, strict=True):
        torch.testing.assert_close(a[turned], b, atol=1e-5, rtol=0)


def mean_products(known, draws, among):
    """Mean of g(x_t) (eps* - eps) over draws of noise, and its standard error, for functions g; ``among``: which of ``known`` x0 may be."""
    generator, sums = torch.Generator().manual_seed(1), []
    for own in among:
        x0 = known[own].expand(draws, 1, 1, 2)
        eps = torch.randn(x0.shape, generator=generator)
        alpha, sigma = (torch.full((draws, 1, 1, 1), value) for value in (0.8, 0.6))
        others = known[[i for i in range(len(known)) if i != own]]
        # One state at a time has the others beside it: the batch is not part of what it is compared with here.
        state = (alpha * x0 + sigma * eps).flatten(1)
        fits = (0.8 / 0.36) * state @ known.flatten(1).T - 0.5 * (0.64 / 0.36) * known.flatten(1).pow(2).sum(1)
        mean = (fits.softmax(1) @ known.flatten(1)).view_as(x0)
        one = posterior_means(x0[:1], eps[:1], alpha[:1], sigma[:1], others)[0]
        torch.testing.assert_close(one, mean[:1])
        gap = (0.8 / 0.6 * (x0 - mean)).flatten(1)
        functions = torch.stack([torch.ones(draws), *state.T, *state.sin().T, state.prod(1)])
        sums.append(torch.einsum("gn,nd->gdn", functions, gap))
    every = torch.cat(sums, 2)
    return every.mean(2), every.std(2) / every.shape[2] ** 0.5


def test_the_mean_gradient_is_that_of_the_sample_for_any_subset():
    """Whatever is multiplied with the error is a function of x_t alone: over images of M drawn alike nothing is left of the difference."""
    known = torch.tensor([[-1.0, 0.2], [0.5, 0.9], [0.3, -0.7], [0.4, 0.8]]).reshape(4, 1, 1, 2)
    for subset in itertools.combinations(range(4), 3):
        mean, error = mean_products(known[list(subset)], 40_000, range(3))
        assert (mean.abs() < 4.5 * error).all()
    mean, error = mean_products(known, 40_000, [0, 0, 1, 2])  # one of M more often than the others: it would be biased
    assert (mean.abs() > 10 * error).any()


def test_what_follows_on_a_batch_is_apart_from_it():
    order = EpochOrder(10, 3, seed=4, name="ten")
    for step in range(7):
        batch, others = order(step), order.following(step, 7)
        assert sorted([*batch.tolist(), *others.tolist()]) == list(range(10))
        assert torch.equal(order.following(step, 4), others[:4])
        if step % 3 < 2:  # the next batch of the epoch comes first
            assert torch.equal(others[:3], order(step + 1))
    assert not torch.equal(order.following(0, 7), order.following(3, 7))
    assert order.following(2, 0).shape == (0,)
    with pytest.raises(UserError, match="8 images do not follow on a batch of 3 of 10"):
        order.following(0, 8)


@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_makes_the_same_states_with_less_noise_in_what_is_learnt(images, flip):
    settings = TrainingSettings.of(**TINY, flip=flip)
    plain = DenoisingBatches(images, settings, CPU)
    quiet = DenoisingBatches(images, settings.replace(target="posterior(images=150)"), CPU)
    for step in (0, 4, 11):
        (x0, t, eps), weight = plain.batch(step)
        (image, times, noise), same = quiet.batch(step)
        assert torch.equal(t, times)
        assert torch.equal(weight, same)
        alpha, sigma = levels_of(quiet.schedule, t)
        torch.testing.assert_close(alpha * image + sigma * noise, alpha * x0 + sigma * eps, atol=1e-5, rtol=1e-5)
        others = quiet.shuffled.following(step, 150 - 32)
        assert len(others) == 118
        by_hand = posterior_means(x0, eps, alpha, sigma, others)
        assert torch.equal(image, by_hand[0])
        assert torch.equal(noise, by_hand[1])
        assert (image - x0).abs().max() > 0.3
    few = DenoisingBatches(
        images, settings.replace(target="posterior(images=5)"), CPU
    )  # no fewer than the batch itself
    assert torch.equal(few.batch(2).data[0], posterior_means(*_levelled(plain, 2), torch.empty(0, 1, 8, 8))[0])
    every = DenoisingBatches(images, settings.replace(target="posterior"), CPU)
    assert len(every.shuffled.following(2, 1024 - 32)) == 168  # all that there are


def _levelled(source, step):
    x0, t, eps = source.batch(step).data
    return x0, eps, *levels_of(source.schedule, t)


def test_mirror_images_of_the_others_are_drawn_apart(images):
    source = DenoisingBatches(images, TrainingSettings.of(**TINY, flip=True), CPU)
    plain = DenoisingBatches(images, TrainingSettings.of(**TINY), CPU)
    shown, as_they_are = source.shuffled.following(3, 100), plain.shuffled.following(3, 100)
    mirrored = (shown == as_they_are.flip(-1)).flatten(1).all(1)
    assert 25 < int(mirrored.sum()) < 75
    assert torch.equal(source.shuffled.following(3, 100), shown)


def test_gradients_are_less_noisy_and_a_batch_is_a_function_of_the_step(images):
    settings = TrainingSettings.of(**TINY, target="posterior")
    spec = training_spec(images, settings, CPU)
    assert spec["settings"]["target"] == {"name": "posterior", "images": 1024}
    assert settings_of(spec).target == "posterior(images=1024)"
    assert "target" not in training_spec(images, TrainingSettings.of(**TINY), CPU)["settings"]
    assert "target" not in training_spec(images, TrainingSettings.of(**TINY, target="sample"), CPU)["settings"]
    model = cl.train(images, settings=settings.replace(steps=400, network="mlp(width=64, depth=1)"), device="cpu")
    source = DenoisingBatches(images, settings, CPU)
    again = DenoisingBatches(images, settings, CPU)
    again.batch(3)
    assert all(torch.equal(a, b) for a, b in zip(source.batch(20).data, again.batch(20).data, strict=True))
    errors = []
    for text in ("sample", "posterior"):
        middle = settings.replace(target=text, timesteps="density(values=[0, 1, 1, 0, 0, 0])")
        batches, norms = DenoisingBatches(images, middle, CPU), []
        for step in range(40):
            (x0, t, eps), _ = batches.batch(step)
            alpha, sigma = levels_of(batches.schedule, t)
            estimate = model.denoiser(alpha * x0 + sigma * eps, t).eps
            loss = (estimate - eps).pow(2).mean()
            gradient = torch.autograd.grad(loss, list(model.denoiser.parameters()))
            norms.append(torch.cat([each.flatten() for each in gradient]))
        errors.append(float(torch.stack(norms).var(0).sum()))
    assert errors[1] < 0.9 * errors[0]


def test_what_cannot_be_is_refused(images):
    with pytest.raises(UserError, match="a conditional model is trained with target=sample"):
        cl.train(images, **TINY, conditional=True, target="posterior", device="cpu")
    with pytest.raises(UserError, match="images is a whole number"):
        TARGETS.build("posterior(images=0)")
    with pytest.raises(UserError, match="posterior"):
        cl.train(images, **TINY, target="posteriour", device="cpu")
