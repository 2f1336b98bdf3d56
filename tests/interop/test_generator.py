import doctest

import numpy as np
import pytest
import torch
from torch import nn

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.errors import UserError
from consistency_lab.interop.generator import wrap_generator
from consistency_lab.similarity.compare import compare

NOISE = SharedNoise(0)


def images_of(noise):
    """(B, 1, 4, 4) in [-1, 1]."""
    return noise.reshape(-1, 1, 4, 4).tanh()


def wrap(make, **options):
    return wrap_generator(make, **{"shape": (1, 4, 4), "name": "theirs", **options})


def test_the_example_of_the_documentation_runs():
    found = doctest.DocTestFinder().find(wrap_generator, "wrap_generator", globs={})
    assert doctest.DocTestRunner().run(found[0]).failed == 0


@pytest.mark.parametrize(
    ("make", "options", "tolerance"),
    [
        (images_of, {}, 0),
        (lambda z: images_of(z).numpy(), {}, 0),
        (lambda z: images_of(z).movedim(1, 3).numpy(), {"channels_last": True}, 0),
        (lambda z: images_of(z).half(), {}, 1e-3),
        (lambda z: images_of(z).bfloat16(), {}, 1e-2),
        (lambda z: images_of(z).requires_grad_(), {}, 0),
        (lambda z: (images_of(z) + 1) / 2, {"value_range": (0, 1)}, 1e-6),
        (lambda z: images_of(z) / 2, {"value_range": (-0.5, 0.5)}, 1e-6),
        (lambda z: ((images_of(z) + 1) * 127.5).round().to(torch.uint8), {"value_range": (0, 255)}, 1 / 255),
        (images_of, {"noise_shape": (16,)}, None),
    ],
)
def test_what_a_generator_gives_becomes_images_in_our_range(make, options, tolerance):
    model = wrap(make, **options)
    made = model.generate(NOISE, range(5))
    assert (made.shape, made.dtype, made.device.type, made.requires_grad) == ((5, 1, 4, 4), torch.float32, "cpu", False)
    torch.testing.assert_close(made, images_of(NOISE.initial(range(5), model.noise_shape)), rtol=0, atol=tolerance or 0)


def test_a_module_is_asked_in_eval_mode_where_it_is():
    module = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.Unflatten(1, (1, 4, 4)), nn.Tanh())
    model = wrap(module, noise_shape=(16,))
    assert (module.training, model.facts["network"]) == (False, "Sequential")


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda z: images_of(z).movedim(1, 3), {}, "declare channels_last=True"),
        (images_of, {"channels_last": True}, "leave channels_last out"),
        (lambda z: images_of(z)[:1], {}, "from 2 noises.*one image of each noise"),
        (lambda z: images_of(z)[..., :2], {}, "check shape"),
        (lambda z: images_of(z) / 0, {}, "not finite, first in image 0"),
        (lambda z: 255 * (images_of(z) + 1) / 2, {}, "value_range="),
        (lambda z: images_of(z) + torch.rand(1), {}, "other images of the same noise each time"),
        (lambda z: images_of(z) - images_of(z).mean(0), {}, "another image of a noise where another noise"),
        (lambda z: z.view(-1, 3), {}, "cannot make images of noise"),
        (lambda z: "an image", {}, "made a str"),
        ("name", {}, "cannot be called"),
        (images_of, {"shape": (4, 4)}, "channels, height, width"),
        (images_of, {"value_range": (1, 0)}, "lo, hi"),
    ],
)
def test_what_is_not_as_it_was_declared_is_named(make, options, said):
    with pytest.raises(UserError, match=said):
        wrap(make, **options)


class Bare:
    """What the protocol asks for and no more."""

    noise_shape, facts = (1, 4, 4), {"kind": "bare"}

    def __init__(self, name, give):
        self.name, self.give = name, give

    def generate(self, noise, indices):
        return self.give(images_of(noise.initial(indices, self.noise_shape)))


def test_bare_generators_may_give_arrays_and_are_told_of_the_wrong_axes():
    plain = Bare("plain", lambda x: x)
    options = {"count": 8, "metrics": ["mse"]}
    array = compare([plain, Bare("array", lambda x: x.double().numpy())], NOISE, **options)
    assert float(array["score"].squeeze()) == pytest.approx(1.0)
    for give, said in [
        (
            lambda x: x.movedim(1, 3).numpy(),
            r"'odd' makes images \(4, 4, 1\) and 'plain' \(1, 4, 4\).*channels_last=True",
        ),
        (lambda x: x[:, 0].numpy(), "where 8 images .* were expected"),
        (lambda x: x[:3], "where 8 images .* were expected"),
        (lambda x: None, "made a NoneType"),
        (lambda x: np.array(["a"]), "made a ndarray"),
    ]:
        with pytest.raises(UserError, match=said):
            compare([plain, Bare("odd", give)], NOISE, **options)
