import numpy as np
import pytest
import torch
from registered import entries

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.loss import denoising_loss
from consistency_lab.diffusion.prediction import UNITS
from consistency_lab.diffusion.references import closed_form
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import DenoisingBatches, measured, train, training_spec
from consistency_lab.training.weighting import WEIGHTINGS, Weighting, error_factor

CHOICES = entries(WEIGHTINGS, ["p2", "p2(gamma=0.5)", "edm(sigma_data=0.5)"])
TINY = {"network": "mlp(width=16, depth=1)", "steps": 20, "batch": 32, "lr_warmup": 5, "snapshots": 0}


def times(schedule, n=64):
    return torch.linspace(schedule.t_min, schedule.t_max, n, dtype=torch.float64)


@pytest.fixture(scope="module")
def images():
    return load_images("digits").take(range(200), "some digits")


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("units", UNITS)
def test_errors_in_two_units_differ_by_the_stated_factor(images, name, units):
    schedule = SCHEDULES.build(name)
    denoiser = closed_form("gaussian", images.all().double(), schedule)
    t = torch.linspace(schedule.t_min + 0.05, schedule.t_max - 0.05, 16, dtype=torch.float64)
    x0, eps = images.all()[:16].double(), torch.randn(16, *images.shape, dtype=torch.float64)
    ratio = denoising_loss(denoiser, x0, t, eps, units=units) / denoising_loss(denoiser, x0, t, eps, units="eps")
    torch.testing.assert_close(ratio, error_factor(schedule, t, units) ** 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("units", UNITS)
def test_the_weighted_error_is_the_same_in_all_units(choice, units):
    schedule, weighting = SCHEDULES.build("linear"), WEIGHTINGS.build(choice)
    t = times(schedule)
    if weighting.eps(schedule, t) is None:  # 1 in whatever units
        assert weighting.weights(schedule, t, units) is None
        return
    converted = weighting.weights(schedule, t, units) * error_factor(schedule, t, units) ** 2
    torch.testing.assert_close(converted, weighting.eps(schedule, t))
    assert (converted > 0).all()


def test_published_forms():
    schedule = SCHEDULES.build("linear")
    t = times(schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    snr = alpha**2 / sigma**2
    clipped, weighting = snr.clamp_max(5.0), WEIGHTINGS.build("min-snr")  # 2303.09556: eps, v and x0 losses
    torch.testing.assert_close(weighting.weights(schedule, t, "eps"), clipped / snr)
    torch.testing.assert_close(weighting.weights(schedule, t, "v"), clipped / (snr + 1))
    torch.testing.assert_close(weighting.weights(schedule, t, "x0"), clipped)
    torch.testing.assert_close(WEIGHTINGS.build("p2").weights(schedule, t, "eps"), 1 / (1 + snr))
    s, d = sigma / alpha, 0.5  # 2206.00364, table 1: lambda(sigma) of the error in x0
    edm = WEIGHTINGS.build("edm(sigma_data=0.5)").weights(schedule, t, "x0")
    torch.testing.assert_close(edm, (s**2 + d**2) / (s * d) ** 2)


def test_speed_follows_the_growth_of_the_noise_variance():
    schedule, weighting = SCHEDULES.build("linear"), WEIGHTINGS.build("speed")
    t = times(schedule, 201)
    weight = weighting.eps(schedule, t).numpy()
    assert weight.min() == pytest.approx(0.4, abs=1e-3)
    assert weight.max() == pytest.approx(0.6, abs=1e-3)
    growth = np.gradient(-(schedule.alpha(t).numpy() ** 2), t.numpy())
    assert abs(int(weight.argmax()) - int(growth.argmax())) <= 1


def test_no_weighting_leaves_a_batch_as_it_is(images):
    plain = DenoisingBatches(images, TrainingSettings(**TINY), torch.device("cpu")).batch(3)
    assert torch.equal(plain.weight, torch.ones(32))
    chosen = TrainingSettings(**TINY, weighting="min-snr", objective="v")
    weighted = DenoisingBatches(images, chosen, torch.device("cpu")).batch(3)
    assert all(torch.equal(a, b) for a, b in zip(plain.data, weighted.data, strict=True))
    schedule = SCHEDULES.build("linear")
    expected = WEIGHTINGS.build("min-snr").weights(schedule, weighted.data[1], "v")
    torch.testing.assert_close(weighted.weight, expected.float())


def test_a_weighted_run_does_not_depend_on_the_units_of_its_objective(images):
    """The same run, its weighted error taken in eps and in x0: steps agree up to rounding."""
    settings = TrainingSettings(**TINY, optimizer="sgd(momentum=0.0)", clip_norm=0.0, lr=1e-4)
    first, second = (
        train(images, settings=settings.replace(objective=units, weighting="p2")) for units in ("eps", "x0")
    )
    for a, b in zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_objective_changes_what_is_learnt(images):
    first, second = (train(images, **TINY, predicts="x0", objective=units) for units in ("eps", "x0"))
    pairs = zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True)
    assert any(not torch.allclose(a, b) for a, b in pairs)


def test_sigma_data_is_measured_and_part_of_the_spec(images):
    spec = training_spec(images, TrainingSettings(weighting="edm"), torch.device("cpu"))
    deviation = round(float(images.all().double().std()), 4)
    assert spec["settings"]["weighting"] == {"name": "edm", "sigma_data": deviation}
    assert measured("weighting", "edm(sigma_data=0.3)", images).options == {"sigma_data": 0.3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min-snr(gamma=0)", "gamma above 0"),
        ("p2(k=0)", "k above 0"),
        ("edm(sigma_data=-1)", "standard deviation"),
        ("speed(lam=1.5)", r"\[0.5, 1\]"),
        ("minsnr", "Did you mean 'min-snr'"),
    ],
)
def test_weightings_that_mean_nothing_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        WEIGHTINGS.build(text)


def test_speed_needs_a_schedule_whose_signal_fades():
    schedule = SCHEDULES.build("edm")
    with pytest.raises(UserError, match="constant"):
        WEIGHTINGS.build("speed").eps(schedule, times(schedule))


def test_an_objective_that_does_not_exist_is_refused(images):
    with pytest.raises(UserError, match="objective"):
        TrainingSettings.of(objective="noise")
    with pytest.raises(UserError, match="unknown objective"):
        WEIGHTINGS.build("p2").weights(SCHEDULES.build("linear"), torch.ones(1, dtype=torch.float64), "noise")


@pytest.mark.parametrize(
    ("weigh", "message"),
    [
        (
            lambda t: torch.where(t > 0.9, torch.nan, 1.0),
            "Own gave [0-9]+ of 32 samples a weight that is negative or not finite",
        ),
        (lambda t: -t, "Own gave 32 of 32 samples"),
        (lambda t: 1 / (0 * t), "negative or not finite"),
        (lambda t: t[:, None], r"one weight per time, a tensor of shape \(32,\), not \(32, 1\)"),
        (lambda t: t.mean(), r"not \(\)"),
        (lambda t: 1.0, "not float"),
    ],
)
def test_a_users_weighting_gives_one_weight_of_0_or_more_a_time(images, monkeypatch, tmp_path, weigh, message):
    class Own(Weighting):
        def eps(self, schedule, t):
            return weigh(t)

    monkeypatch.setitem(WEIGHTINGS._builders, "own", Own)
    with pytest.raises(UserError, match=message):
        train(images, **TINY, weighting="own", store=tmp_path)
    assert list(tmp_path.iterdir()) == []
