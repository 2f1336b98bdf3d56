"""Do images tell how a model should have been wrapped? By name where it was wrong, in silence where it was right or learned little."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from consistency_lab.contrast.gan import train_gan
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES, linear_vp
from consistency_lab.errors import UserError
from consistency_lab.interop import wrapping
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.wrapping import check_wrapping, wrapping_sentences
from consistency_lab.similarity.compare import compare
from consistency_lab.training.train import train


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(scope="module")
def half(digits):
    """A network that was trained with betas up to .01, and well enough to have a schedule."""
    options = {"network": "mlp(width=128)", "steps": 500, "batch": 64, "device": "cpu", "progress": False}
    return train(digits, schedule="linear(beta_end=0.01)", lr=0.004, seed=0, **options)


def wrapped(model, **told):
    """As a stranger would: a module that is given the timestep."""
    options = {"schedule": "linear(beta_end=0.01)", "predicts": "eps", "time": "index", **told}
    return wrap_module(
        model.denoiser.network,
        shape=(1, 8, 8),
        name="theirs",
        call=lambda module, x, index: module(x, (index.reshape(-1) + 1) / 1000),
        **options,
    )


def test_a_schedule_with_another_end_of_betas_is_named(half, digits):
    right, wrong = check_wrapping(wrapped(half), digits), check_wrapping(wrapped(half, schedule="linear"), digits)
    assert not right.suspect
    assert wrong.wrong == ("schedule",)
    assert wrong.instead == f"schedule={linear_vp(beta_end=0.01).spec!r}"
    assert wrong.error_instead == pytest.approx(right.error, rel=1e-3)
    over = [np.log(np.array(c.error) / c.gaussian).mean() for c in (right, wrong)]
    assert over[0] + 0.1 < over[1]


@pytest.mark.parametrize(
    ("told", "kinds"),
    [
        ({"predicts": "-eps"}, ("sign",)),
        ({"predicts": "v"}, ("prediction",)),
        ({"predicts": "x0"}, ("prediction",)),
        ({"time": "unit"}, ("time",)),
        ({"value_range": (0, 1)}, ("range",)),
        ({"schedule": "flow"}, ("schedule",)),
    ],
)
@pytest.mark.filterwarnings("ignore:theirs")
def test_each_kind_of_mistake_is_named(half, digits, told, kinds):
    found = check_wrapping(wrapped(half, **told), digits)
    assert (found.wrong, found.suspect) == (kinds, True)
    argument = {
        "sign": "predicts='eps'",
        "prediction": "predicts='eps'",
        "time": "time='index'",
        "range": "value_range=(-1, 1)",
        "schedule": f"schedule={linear_vp(beta_end=0.01).spec!r}",
    }[kinds[0]]
    assert found.instead == argument
    assert f"theirs: probably told wrongly what it is ({kinds[0]})" in str(found)


def test_no_model_of_the_package_is_accused_whatever_it_learnt(digits):
    few = {"device": "cpu", "progress": False, "seed": 0, "batch": 32}
    for options in (
        {"network": "mlp(width=64)", "steps": 200},
        {"network": "mlp(width=16, depth=1)", "steps": 5},
        {"network": "unet(width=8)", "steps": 8},
        {"network": "mlp(width=64)", "steps": 60, "schedule": "edm", "predicts": "edm"},
        {"network": "mlp(width=64)", "steps": 60, "schedule": "flow", "predicts": "flow"},
        {"network": "mlp(width=64)", "steps": 60, "predicts": "x0"},
        {"network": "mlp(width=64)", "steps": 60, "conditional": True},
    ):
        found = check_wrapping(train(digits, **options, **few), digits, count=16)
        assert not found.suspect, (options, found.sentence)


def test_references_and_other_things(digits):
    schedule = SCHEDULES.build("linear")
    exact = DiffusionModel("gaussian", GaussianDenoiser.fit(digits.all(), schedule))
    found = check_wrapping(exact, digits, count=512)
    # The closed form of the yardstick is what the Gaussian denoiser itself scores.
    assert found.error == pytest.approx(found.gaussian, rel=0.05)
    assert not found.suspect
    with pytest.raises(UserError, match="no diffusion model"):
        check_wrapping(train_gan(digits, steps=1, batch=8, device="cpu", progress=False), digits)
    with pytest.raises(UserError, match="makes images of"):
        check_wrapping(exact, load_images("digits(size=16)"))


def test_the_yardstick_of_images_with_more_pixels_than_there_are_images(digits, monkeypatch):
    few = digits.take(range(20), "few")
    spectrum = wrapping._spectrum(few)
    flat = few.all().flatten(1).double()
    exact = torch.linalg.eigvalsh(torch.cov(flat.T, correction=0)).clamp_min(0)
    assert sorted(spectrum.tolist()) == pytest.approx(exact.tolist(), abs=1e-9)
    s2 = math.exp(-2.0)
    assert wrapping._gaussian(spectrum, [2.0]) == pytest.approx((float((exact / (exact + s2)).mean()),))


def test_compare_says_it_beside_the_score(half, digits):
    wrong = wrapped(half, schedule="linear")
    options = {"count": 4, "sampler": Sampler(steps=3), "metrics": ["mse"], "ceiling": False, "references": ["mean"]}
    result = compare([wrong, half], SharedNoise(0), images=digits, **options)
    said = [sentence for sentence in json.loads(result.attrs["warnings"]) if "told wrongly" in sentence]
    assert len(said) == 1
    assert said[0].startswith("theirs: probably told wrongly what it is (schedule)")
    assert wrapping_sentences([wrapped(half), half], digits) == []


@pytest.mark.filterwarnings("ignore:theirs")
def test_without_images_noise_tells(half):
    turned = wrapped(half, predicts="-eps")
    assert ["predicts='eps'" in said for said in wrapping_sentences([turned, half], None)] == [True]
    guided = replace(turned, classes=1).guided(2.0)  # looked at without its guidance
    assert len(wrapping_sentences([guided], None)) == 1
