import json

import numpy as np
import pytest
import torch
import xarray as xr

from consistency_lab.data.sources import load_images
from consistency_lab.similarity.soundness import add_soundness, warnings_of
from consistency_lab.similarity.trajectories import Trajectories


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").take(range(300), "some digits")


def sound(images, *samples, models=None):
    names = [f"m{k}" for k in range(len(samples))]
    result = xr.Dataset(coords={"model": names})
    walked = [Trajectories(name, x[None]) for name, x in zip(names, samples, strict=True)]
    add_soundness(result, walked, images)
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
