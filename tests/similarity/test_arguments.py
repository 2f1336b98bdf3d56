import numpy as np
import pytest
import torch

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.references import ConstantDenoiser
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.similarity.checks import counted
from consistency_lab.similarity.compare import compare
from consistency_lab.training.train import train

A, B = (DiffusionModel(name, ConstantDenoiser(torch.zeros(1, 8, 8), SCHEDULES.build("linear"))) for name in "ab")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("unet-s0",), {}, "models are given as a list, not as str"),
        ((A,), {}, "models are given as a list, not as DiffusionModel"),
        ((["unet-s0", "unet-s1"],), {}, r"a str is no model; give what load\('unet-s0'\) returns"),
        (([A, np.zeros((4, 1, 8, 8))],), {}, "a ndarray is no model"),
        (([A, B], 1), {}, r"write SharedNoise\(1\)"),
        (([A, B],), {"metrics": "mse"}, r"write metrics=\['mse'\]"),
        (([A, B],), {"metrics": ()}, "at least one metric"),
        (([A, B],), {"images": "digits"}, r"write load_images\('digits'\)"),
        (([A, B],), {"images": np.zeros((4, 1, 8, 8))}, "not as ndarray; write ImageSet.from_array"),
    ],
)
def test_what_is_not_models_noise_metrics_or_images_is_refused_in_a_sentence(arguments, options, message):
    with pytest.raises(UserError, match=message):
        compare(*arguments, **options)


def test_training_asks_for_an_image_set_too():
    for options in ({}, {"conditional": True}, {"weighting": "edm"}):
        with pytest.raises(UserError, match=r"write load_images\('digits'\)"):
            train("digits", steps=1, **options)
    assert load_images(load_images("digits")).name == "digits"


@pytest.mark.parametrize("name", ["count", "levels", "shown"])
def test_numbers_of_samples_and_levels_are_whole(name):
    assert counted(**{name: np.int64(8)}) == [8]
    with pytest.raises(UserError, match=rf"{name} is a whole number, not 8\.0; write 8"):
        compare([A, B], **{name: 8.0})
    with pytest.raises(UserError, match=rf"{name} is a whole number of 0 or more, not -1"):
        compare([A, B], **{name: -1})
