import json

import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.data.sources import load_images
from consistency_lab.similarity.checks import add_sanity_checks, sanity_measured, warnings_of
from consistency_lab.similarity.trajectories import Trajectories


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(300), "some digits")


def sound(images, *samples, models=None):
    names = [f"m{k}" for k in range(len(samples))]
    result = xr.Dataset(coords={"model": names})
    walked = [Trajectories(name, x[None]) for name, x in zip(names, samples, strict=True)]
    add_sanity_checks(result, sanity_measured(walked), images)
    return result, json.loads(warnings_of(result, models or [{"name": name} for name in names], images))


def test_samples_like_the_data_are_not_warned_of(digits):
    result, said = sound(digits, digits.all()[:64], 1.05 * digits.all()[64:128])
    assert said == []
    assert float(result["spread"][0]) == pytest.approx(float(digits.all()[:64].double().std(correction=0)), rel=1e-9)
    assert float(result["data_spread"]) == pytest.approx(float(digits.all().double().std()), rel=1e-9)
    assert (result["spread_low"] < result["spread"]).all()
    assert (result["spread"] < result["spread_high"]).all()


def test_exploded_and_collapsed_samples_are_named_with_their_numbers(digits):
    good, flat = digits.all()[:64], 0.1 * digits.all()[:64]
    result, said = sound(digits, good, 40 * good, flat)
    share = float((40 * good.abs() > 1.5).double().mean())
    assert float(result["outside"].sel(model="m1").mean()) == pytest.approx(share, rel=1e-6)
    assert [sentence.split(":")[0] for sentence in said] == ["m1", "m1", "m2"]
    assert f"{100 * share:.2g} % of the pixels" in said[0]
    assert "do not look like the data" in said[2]
    # Without data only the range is known.
    _, said = sound(None, good, 40 * good, flat)
    assert [sentence.split(":")[0] for sentence in said] == ["m1"]


def test_the_interval_of_the_spread_is_that_of_leaving_out_a_sample_and_computing_again(digits):
    x = digits.all()[:20].double()
    result, _ = sound(digits, x.float())
    spreads = np.array([float(x[torch.arange(20) != i].std(correction=0)) for i in range(20)])
    half = 2.093024 * np.sqrt(19 / 20 * ((spreads - spreads.mean()) ** 2).sum())
    assert float(result["spread_high"][0] - result["spread"][0]) == pytest.approx(half, rel=1e-5)


def test_another_training_set_than_the_models_is_said(digits):
    x = digits.all()[:8]
    models = [
        {"name": "m0", "data": {"fingerprint": digits.fingerprint}},
        {"name": "m1", "data": {"fingerprint": "f" * 64}},
        {"name": "m2"},  # from elsewhere: its training set is not known
    ]
    _, said = sound(digits, x, x, x, models=models)
    assert len(said) == 1
    assert said[0].startswith("m1: trained on other images than 'some digits'")


def test_samples_in_another_range_are_named_with_the_range(digits):
    """Against the data where there is any, else against the other models, else against what images are here."""
    x = digits.all()
    moved = [(x[:64] + 1) / 2, x[64:128] / 2, (x[128:192] + 1) * 127.5]
    for images in (digits, None):
        _, said = sound(images, x[192:256], *moved)
        named = [sentence for sentence in said if "value_range=" in sentence]
        assert [sentence[:3] for sentence in named] == ["m1:", "m2:", "m3:"]
        for sentence, given in zip(named, ("(0, 1)", "(-0.5, 0.5)", "(0, 255)"), strict=True):
            assert f"value_range={given}" in sentence
    _, said = sound(None, moved[0], moved[0].flip(0))  # no other model to be held against
    assert ["value_range=(0, 1)" in sentence for sentence in said] == [True, True]


def test_samples_that_overshoot_their_range_are_named_too(digits):
    """As those of a trained network do: in [-1.2, 1.3] and so, in the other range, in [-.1, 1.15]."""
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = 1.15 * digits.all()[:64] + 0.12 * noise
    for images in (digits, None):
        assert not any("value_range=" in sentence for sentence in sound(images, samples, samples.flip(0))[1])
        _, said = sound(images, samples, (samples.flip(0) + 1) / 2)
        assert [sentence[:3] for sentence in said if "value_range=(0, 1)" in sentence] == ["m1:"]


def test_flat_exploded_and_bright_samples_are_no_other_range(digits):
    x = digits.all()
    bright = load_images("digits").take(range(300), "bright")
    bright = type(bright)("bright", (bright.all() + 3) / 4)  # all above .5, and so is the model
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not any("value_range" in s for s in sound(bright, bright.all()[:64])[1])
    for samples in (40 * x[:64], 0.05 * x[:64], 30 * noise, 1.2 * x[:64], x.mean(0).expand(64, -1, -1, -1)):
        for images in (digits, None):
            assert not any("value_range" in s for s in sound(images, x[64:128], samples)[1])


def test_the_warning_of_exploded_samples_names_clipping_and_its_price(digits):
    _, said = sound(None, digits.all()[:64], 1e4 * (digits.all()[:64] + 0.001))
    assert "over 99 % of the pixels" in said[0] or "100 % of the pixels" in said[0]
    assert "'ddim(clip=True)' (--sampler)" in said[0]
    assert "clipping makes models more alike" in said[0]


def test_a_model_of_one_constant_is_named_and_blames_nobody_else(digits):
    """Black images are what a pipeline makes of values that are not finite."""
    good = digits.all()[:64]
    _, said = sound(None, 0.7 * good, torch.full_like(good, -1.0))
    assert len(said) == 1
    assert said[0].startswith("m1: almost all pixels of its samples have one and the same value, -1;")
