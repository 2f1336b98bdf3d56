"""What a module is asked when it is wrapped, each time with the sentence that its user reads."""

import warnings

import pytest
import torch
from torch import nn

from consistency_lab.errors import UserError
from consistency_lab.interop.module import wrap_module

SHAPE = (1, 4, 4)


def wide(values):
    return values[:, None, None, None]


class Formula(nn.Module):
    def __init__(self, formula):
        super().__init__()
        self.formula = formula
        self.table = nn.Embedding(1000, 1)
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x, t):
        return self.formula(self, x, t)


def wrap(formula, **options):
    settings = {"schedule": "linear", "predicts": "eps", "shape": SHAPE, "name": "theirs", "time": "unit"}
    return wrap_module(Formula(formula), **{**settings, **options})


@pytest.mark.parametrize(
    ("formula", "time", "form"),
    [
        (lambda m, x, t: x * wide(m.table(t)[:, 0]), "index", "index(integer=True)"),
        (lambda m, x, sigma: x * sigma.reshape(len(x), *[1] * (sigma.dim() - 1)).expand_as(x), "sigma", None),
        (lambda m, x, sigma: x / sigma, "sigma", "sigma(broadcast=True)"),  # (2, 1, 4, 4) / (2,) fails
    ],
)
def test_the_form_in_which_a_module_wants_its_time_is_named_and_works(formula, time, form):
    if form is None:
        with pytest.raises(UserError, match="broadcast=True"):
            wrap(formula, time=time)
        return
    with pytest.raises(UserError) as caught:
        wrap(formula, time=time)
    assert f"it does so with time={form!r}" in str(caught.value)
    assert wrap(formula, time=form).denoiser(torch.ones(3, *SHAPE), 0.5).eps.isfinite().all()


def test_a_width_that_equals_the_batch_hides_nothing():
    """x (2, 1, 2, 2) / sigma (2,) runs, and divides columns by other images' sigma."""
    with pytest.raises(UserError, match=r"another answer for an image.*broadcast=True"):
        wrap(lambda m, x, sigma: x / sigma, time="sigma", shape=(1, 2, 2))


def test_integer_times_are_the_timesteps():
    seen = []

    def formula(module, x, t):
        seen.append(t)
        return x * wide(module.table(t)[:, 0])

    model = wrap(formula, time="index(integer=True)")
    model.denoiser(torch.zeros(2, *SHAPE), 0.5)
    assert (seen[-1].dtype, seen[-1].tolist()) == (torch.int64, [499, 499])


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        (lambda m, x, t: x - x.mean(0, keepdim=True) + wide(t), "another answer for an image where another image"),
        (lambda m, x, t: x + torch.rand_like(x), "differently each time"),
        (lambda m, x, t: x / wide(t - t), "not finite"),
        (lambda m, x, t: x.mul_(0.5) + wide(t), "writes into the images that it is given"),
        (lambda m, x, t: x[:, :, :2], r"gave \(2, 1, 2, 4\) where"),
        (lambda m, x, t: m.nothing, "cannot be asked.*call="),
    ],
)
def test_what_would_make_numbers_that_are_no_model_is_refused(formula, said):
    with pytest.raises(UserError, match=said):
        wrap(formula)


def test_a_module_that_is_called_otherwise():
    class Turned(nn.Module):
        def forward(self, t, x):
            return x * wide(t)

    options = {"schedule": "linear", "predicts": "eps", "shape": SHAPE, "name": "turned", "time": "unit"}
    model = wrap_module(Turned(), call=lambda module, x, t: module(t, x), **options)
    torch.testing.assert_close(model.denoiser(torch.ones(2, *SHAPE), 0.5).eps, torch.full((2, *SHAPE), 0.5))


def said_of(formula, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrap(formula, **options)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(
    ("formula", "options", "said"),
    [
        (lambda m, x, t: x + 0 * wide(t), {}, "does not depend on the time"),
        (lambda m, x, t: -x * wide(t), {}, "predicts='-eps'"),
        (lambda m, x, t: -x * wide(t), {"schedule": "flow", "predicts": "flow"}, "predicts='-flow'"),
        (
            lambda m, x, t: x * wide(1 + t),
            {"schedule": "edm", "predicts": "score", "time": "sigma"},
            "predicts='-score'",
        ),
        # It calls t = 0 noise, and answers data - noise there, as torchcfm and flow_matching do.
        (
            lambda m, x, t: torch.where(wide(t) < 0.5, -x, x.flip(3)),
            {"schedule": "flow", "predicts": "flow"},
            "time='reversed' and predicts='-flow'",
        ),
        (
            lambda m, x, t: torch.where(wide(t) < 0.5, x, x.flip(3)),
            {"schedule": "flow", "predicts": "flow"},
            "time='reversed'.",
        ),
    ],
)
def test_what_pure_noise_tells(formula, options, said):
    assert [said in sentence for sentence in said_of(formula, **options)] == [True]


def test_nothing_is_said_of_what_noise_cannot_tell():
    for formula, options in [
        (lambda m, x, t: x * wide(t), {}),
        (lambda m, x, t: -x * wide(t), {"predicts": "-eps"}),
        (lambda m, x, t: 0 * x * wide(t), {}),  # an untrained network
        (lambda m, x, t: -x * wide(t), {"predicts": "x0"}),
        (lambda m, x, t: -x / wide(t) ** 2, {"schedule": "edm", "predicts": "score", "time": "sigma"}),
        (lambda m, x, t: -x * wide(1 + t), {"schedule": "flow", "predicts": "-flow", "time": "reversed"}),
    ]:
        assert said_of(formula, **options) == []
