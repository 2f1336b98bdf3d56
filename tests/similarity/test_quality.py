import json

import numpy as np
import pytest
import torch

from consistency_lab.data.imageset import ImageSet
from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.interop.generator import wrap_generator
from consistency_lab.metrics.classifier import train_classifier
from consistency_lab.metrics.quality import frechet_distance, moments
from consistency_lab.similarity.quality import measure_quality


def plain(images):
    return images.flatten(1)


def generator(name, mean, deviation, shape=(1, 2, 2)):
    return wrap_generator(lambda noise: mean + deviation * noise, shape=shape, name=name)


def gaussians(count, seed=5):
    return ImageSet("gaussians", 0.1 * SharedNoise(seed).initial(range(count), (1, 2, 2)))


def test_frechet_of_gaussians_is_its_closed_form():
    # N(0, .1^2) in four pixels; the models are N(m, s^2): 4 m^2 + 4 (s - .1)^2.
    models = [generator("same", 0.0, 0.1), generator("moved", 0.3, 0.1), generator("wide", 0.0, 0.5)]
    found = measure_quality(models, gaussians(800), plain, count=400)
    frechet = found["value"].isel(measure=0)
    assert frechet.sel(row="same").item() < 2e-3
    assert frechet.sel(row="moved").item() == pytest.approx(4 * 0.3**2, rel=0.1)
    assert frechet.sel(row="wide").item() == pytest.approx(4 * 0.4**2, rel=0.1)
    assert frechet.sel(row="other real images").item() < 2e-3
    assert (found["value_low"].isel(measure=0) <= frechet).all()
    assert found["role"].values.tolist() == ["model"] * 3 + ["control"]
    assert found["samples"].values.tolist() == [400] * 4
    assert found["measure"].values[0] == "Frechet distance (plain features)"
    assert json.loads(found.attrs["warnings"]) == []


def test_numbers_are_those_of_the_samples_and_of_the_images_by_hand():
    real, model = gaussians(100), generator("m", 0.05, 0.1)
    found = measure_quality([model], real, plain, count=50)
    against, control = real.split(50, 50, seed=0)
    x = model.generate(SharedNoise(1), range(50))
    reference = moments(plain(against.all()))
    for row, images in (("m", x), ("other real images", control.all())):
        expected = frechet_distance(reference, moments(plain(images)))
        assert found["value"].sel(row=row).values[0] == pytest.approx(expected, rel=1e-9)
    assert json.loads(found.attrs["provenance"])["measured_against"]["images"] == 50
    again = measure_quality([generator("other", 0.0, 0.1), model], real, plain, count=50)
    assert again.sel(row="m").drop_attrs().identical(found.sel(row="m").drop_attrs())


def test_the_bias_of_few_samples_is_what_many_take_away():
    real, model, rounds = gaussians(200), generator("m", 0.0, 0.1), []
    against = moments(plain(real.split(100, 100, seed=0)[0].all()))
    for seed in range(20):
        found = measure_quality([model], real, plain, noise=SharedNoise(seed), count=40).sel(row="m")
        rounds.append([float(found["value"][0]), float(found["frechet_bias"])])
    value, bias = np.mean(rounds, 0)
    many = frechet_distance(against, moments(plain(model.generate(SharedNoise(99), range(20_000)))))
    assert bias == pytest.approx(value - many, rel=0.3)
    assert bias > 0.5 * value


def test_few_samples_or_controls_are_warned_of():
    wide = ImageSet("noise", SharedNoise(0).initial(range(60), (1, 8, 8)).clamp(-1, 1))
    found = measure_quality([generator("m", 0.0, 1.0, (1, 8, 8))], wide, plain, count=40)
    first, second, third = json.loads(found.attrs["warnings"])
    assert "40 samples are few for 64 features" in first
    assert "30 real images are few for 64 features" in second
    assert "the control has 30 images and each model 40" in third


def test_a_training_set_brings_the_references_and_a_classifier_its_classes():
    digits = load_images("digits")
    training, held_out = digits.split(1000, 797, seed=0)
    classifier = train_classifier(training.all(), training.labels, "digits", steps=30)
    schedule = SCHEDULES.build("linear")
    model = DiffusionModel("straw", GaussianDenoiser(torch.zeros(1, 8, 8), 0.05 * torch.eye(64), schedule))
    found = measure_quality([model], held_out, classifier, training=training, count=200, sampler="ddim(steps=5)")
    names = ["straw", "training images", "Gaussian denoiser", "data mean", "optimal denoiser"]
    assert found["row"].values.tolist() == names
    assert found["role"].values.tolist() == ["model", "control"] + ["reference"] * 3
    assert found["covered"].sel(row="training images").item() == 10
    facts = json.loads(found.attrs["provenance"])
    assert facts["samplers"]["straw"]["steps"] == 5
    assert (facts["data"]["images"], facts["measured_against"]["images"]) == (1000, 797)
    (said,) = json.loads(found.attrs["warnings"])
    assert "a Gaussian's samples come closer than those of straw" in said


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], "real", plain), {}, "one model or more"),
        ((["m"], "digits", plain), {}, "images are given as an image set"),
        ((["m"], "real", 3), {}, "given by a classifier"),
        ((["m", "m"], "real", plain), {}, "two models have one name"),
        ((["m"], "few", plain), {}, "too few to measure real images against real ones"),
        ((["m"], "digits8", plain), {}, r"'m' makes images of \(1, 2, 2\), but"),
        ((["m"], "real", plain), {"training": "digits"}, "images are given as an image set"),
    ],
)
def test_bad_input_is_one_sentence(arguments, options, message):
    models = [generator(name, 0.0, 0.1) for name in arguments[0]]
    sets = {"real": gaussians(40), "few": gaussians(3), "digits8": load_images("digits").take(range(20), "d")}
    with pytest.raises(UserError, match=message):
        measure_quality(models, sets.get(arguments[1], arguments[1]), arguments[2], count=10, **options)
