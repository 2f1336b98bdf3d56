"""The recipe that follows from the images of a set alone."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.recipe.closed_form import COMPLETE, WORTH, closed_form_of, expected_loss, target_noise
from consistency_lab.recipe.step_arithmetic import iterations_of, step_arithmetic
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import build_denoiser, training_spec

LINEAR = SCHEDULES.build("linear")


def white(count=4000):
    made = torch.Generator().manual_seed(0)
    return ImageSet("white", (torch.randn(count, 1, 4, 4, generator=made) / 4).clamp(-1, 1))


def test_the_expected_loss_of_a_filter_that_believes_wrongly_is_what_samples_have():
    made = np.random.default_rng(0)
    variances, believed = np.array([4.0, 1.0, 0.2]), np.array([1.0, 1.0, 1.0])
    alpha, sigma = np.array([[0.8], [0.3]]), np.array([[0.6], [0.9]])
    x = made.standard_normal((400_000, 3)) * np.sqrt(variances)
    eps = made.standard_normal(x.shape)
    for a, s, told in zip(alpha[:, 0], sigma[:, 0], expected_loss(variances, believed, alpha, sigma), strict=True):
        said = s * (a * x + s * eps) / (a**2 * believed + s**2)
        assert told == pytest.approx(((said - eps) ** 2).mean(), rel=0.01)
    right = expected_loss(variances, variances, alpha, sigma)
    assert np.allclose(right, (alpha**2 * variances / (alpha**2 * variances + sigma**2)).mean(1))
    assert (right < expected_loss(variances, believed, alpha, sigma)).all()


def test_the_losses_are_those_of_the_closed_form_on_gaussian_data():
    digits = cl.load_images("digits")
    found = closed_form_of(digits, LINEAR)
    flat = digits.all().flatten(1).double()
    root = torch.linalg.cholesky(torch.cov(flat.T, correction=0) + 1e-9 * torch.eye(64))
    made = torch.Generator().manual_seed(0)
    x0 = (flat.mean(0) + torch.randn(20_000, 64, generator=made, dtype=torch.float64) @ root.T).view(-1, 1, 8, 8)
    denoiser = GaussianDenoiser.fit(digits.all(), LINEAR)
    eps = torch.randn(x0.shape, generator=made, dtype=torch.float64)
    for cell in (10, 50, 90):
        t = torch.full((len(x0),), float(found.t[cell]), dtype=torch.float64)
        alpha, sigma = (each.reshape(-1, 1, 1, 1) for each in LINEAR.alpha_sigma(t))
        measured = (denoiser(alpha * x0 + sigma * eps, t).eps - eps).pow(2).mean()
        assert float(measured) == pytest.approx(found.losses[cell], rel=0.02)
    assert 0.3 < found.taken_off < 0.5


def test_axes_are_left_out_as_far_as_nothing_is_lost():
    digits = cl.load_images("digits")
    found = closed_form_of(digits, LINEAR)
    variances = torch.linalg.eigvalsh(torch.cov(digits.all().flatten(1).double().T, correction=0)).flip(0).numpy()
    alpha, sigma = (each.numpy()[:, None] for each in LINEAR.alpha_sigma(torch.from_numpy(found.t)))

    def loss(kept):
        rest = variances[kept:].mean() if kept < 64 else 0.0
        return expected_loss(variances, np.append(variances[:kept], [rest] * (64 - kept)), alpha, sigma).mean()

    assert loss(found.components) <= (1 + COMPLETE) * loss(64) < loss(found.components - 1)


def test_images_with_a_covariance_are_corrected_from_the_closed_form_on_and_white_ones_are_not():
    recipe = cl.Recipe.from_images(cl.load_images("digits"), settings=TrainingSettings(steps=400))
    assert str(recipe.changes["predicts"]).startswith("gaussian(components=")
    assert str(recipe.changes["timesteps"]) == "loss_root(exponent=0.75, floor=0.1)"
    assert recipe.changes["lr_final"] == pytest.approx(1 / np.sqrt(38 * 400), abs=1e-4)
    assert "takes" in recipe.reasons[0]
    assert "the network corrects that denoiser" in str(recipe)
    plain = cl.Recipe.from_images(white())
    assert plain.changes["predicts"] == "edm"
    assert "less than the 10 %" in plain.reasons[0]
    density = np.array(recipe.density)
    assert density[:, 1].mean() * (LINEAR.t_max - LINEAR.t_min) == pytest.approx(1.0)
    assert density[0, 1] > 5 * density[-1, 1]
    with pytest.raises(UserError, match="the same"):
        cl.Recipe.from_images(ImageSet("grey", torch.full((9, 1, 4, 4), 0.5)))


def test_the_noise_of_the_target_is_the_posterior_variance():
    """Images of one pixel at -b or b: x0* = b tanh(alpha b x / sigma^2), and eps - eps* is alpha / sigma times what x0 is off by."""
    b, count = 0.4, 1000
    pool = b * torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0).reshape(-1, 1, 1, 1)
    t = np.linspace(LINEAR.t_min, LINEAR.t_max, 2001)
    alpha, sigma = (each.numpy()[:, None] for each in LINEAR.alpha_sigma(torch.from_numpy(t)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    said = np.tanh(alpha * b * (alpha * b + sigma * nodes) / sigma**2)
    expected = (((alpha * b / sigma * (1 - said)) ** 2) @ (weights / weights.sum())).mean()
    assert target_noise(pool, LINEAR) == pytest.approx(expected, rel=0.1)
    apart = 50 * torch.randn(600, 1, 4, 4, generator=torch.Generator().manual_seed(0))  # nothing in between
    assert target_noise(apart, SCHEDULES.build("cosine")) < 0.02


def test_a_target_of_less_noise_is_used_where_the_target_has_noise():
    digits = cl.load_images("digits")
    found, settings = closed_form_of(digits, LINEAR), TrainingSettings(steps=400)
    recipe = cl.Recipe.from_images(digits, settings=settings)
    assert WORTH < found.noise_share < 0.4
    assert recipe.changes["target"] == "posterior"
    assert f"{100 * found.noise_share:.0f} % of that loss is noise of the target" in str(recipe)
    assert "the network learns the mean over them" in str(recipe)
    labelled = cl.Recipe.from_images(digits, settings=settings.replace(conditional=True))
    assert "target" not in labelled.changes
    assert "conditional" in labelled.reasons[1]
    far = torch.randn(300, 1, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-2, 2) / 2
    apart = cl.Recipe.from_images(ImageSet("far apart", far), settings=settings)
    assert "target" not in apart.changes
    assert "not worth a target of less noise" in str(apart)


def test_iterations_are_counted_as_the_products_they_are():
    """What torch's counter finds in a step of its own Muon, and of a network's step."""
    for shape in ((8, 72), (16, 16), (33, 5)):
        weight = torch.nn.Parameter(torch.randn(shape))
        weight.grad = torch.randn(shape)
        optimizer = torch.optim.Muon([weight])
        with FlopCounterMode(display=False) as counter:
            optimizer.step()
        assert iterations_of(*shape) == counter.get_total_flops()
    digits, settings = cl.load_images("digits"), TrainingSettings.of(network="mlp(width=16, depth=1)", batch=7)
    denoiser = build_denoiser(training_spec(digits, settings, torch.device("cpu")))
    x, t = torch.randn(7, 1, 8, 8), torch.full((7,), 0.5)
    with FlopCounterMode(display=False) as counter:
        denoiser(x, t).eps.sum().backward()
    counted = step_arithmetic(digits, settings)
    # The first layer's input needs no gradient, so that its backward pass is one product and not two.
    assert counted.network * 0.6 < counter.get_total_flops() <= counted.network
    twice = step_arithmetic(digits, settings.replace(batch=14))
    assert (twice.network, twice.muon) == (2 * counted.network, counted.muon)


def test_the_products_of_attention_are_counted():
    """Q K' and the weights' product with V, of n tokens in each block: 4 n^2 width each forward pass."""
    digits = cl.load_images("digits")
    settings = TrainingSettings.of(network="dit", batch=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, **_: v)
        without = step_arithmetic(digits, settings).network
    assert step_arithmetic(digits, settings).network > without


def test_muon_is_taken_where_its_iterations_are_a_small_part_of_a_step(monkeypatch):
    digits = cl.load_images("digits")
    wide = TrainingSettings.of(network="mlp", steps=400)
    kept = cl.Recipe.from_images(digits, settings=wide)
    assert "optimizer" not in kept.changes
    assert "Muon's iterations are 12.5 times the arithmetic of a step of mlp on batches of 128" in str(kept)
    assert "the optimizer stays Adam" in str(kept)
    convolutions = TrainingSettings.of(network="unet(width=8)", optimizer="adam(beta1=0.8)", steps=400)
    taken = cl.Recipe.from_images(digits, settings=convolutions)
    assert str(taken.changes["optimizer"]) == "muon(beta1=0.8)"
    assert "of the arithmetic of a step of unet(width=8) on batches of 128, less than 10 %" in str(taken)
    # A batch so small that the iterations are most of its step.
    assert "optimizer" not in cl.Recipe.from_images(digits, settings=convolutions.replace(batch=8)).changes
    ruled = cl.Recipe.from_images(digits, settings=convolutions.replace(momentum="mdlrc"))
    assert "optimizer" not in ruled.changes
    assert "which the momentum rule mdlrc" in str(ruled)
    named = cl.Recipe.from_images(digits, settings=convolutions.replace(optimizer="sgd(momentum=0.5)"))
    assert "optimizer" not in named.changes
    assert "stays sgd(momentum=0.5), which the settings name" in str(named)
    monkeypatch.delattr(torch.optim, "Muon")
    assert "it came with torch 2.9" in str(cl.Recipe.from_images(digits, settings=convolutions))


def test_it_trains_and_is_saved(tmp_path):
    images = cl.load_images("digits").take(range(300), "some digits")
    settings = TrainingSettings.of(network="mlp(width=16, depth=1)", steps=4, batch=16, snapshots=0)
    recipe = cl.Recipe.from_images(images, settings=settings)
    recipe.save(tmp_path / "recipe.json")
    again = cl.Recipe.load(tmp_path / "recipe.json")
    assert again.changes == recipe.changes
    model = cl.train(images, settings=settings, recipe=again, device="cpu", progress=False)
    assert model.facts["predicts"] == "gaussian"
    assert recipe.to_dataset().attrs["kind"] == "recipe"


def test_the_command_follows_images_or_findings(tmp_path, capsys):
    out = str(tmp_path / "free.json")
    assert main(["recipe", "--data", "digits", "--steps", "300", "--out", out]) == 0
    assert "the network corrects that denoiser" in capsys.readouterr().out
    assert str(cl.Recipe.load(out).changes["predicts"]).startswith("gaussian")
    assert main(["recipe", "nowhere.nc", "--data", "digits", "--out", out]) == 2
    capsys.readouterr()
