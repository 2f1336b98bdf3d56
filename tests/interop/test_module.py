import doctest

import pytest
import torch
from torch import nn

from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.diffusion.schedule import SCHEDULES, linear_vp
from consistency_lab.errors import UserError
from consistency_lab.interop.module import wrap_module
from consistency_lab.interop.times import timestep_index

SHAPE = (1, 4, 4)


class Spy(nn.Module):
    """Returns what it is told to, and keeps what it was given."""

    def __init__(self, answer=lambda x: x):
        super().__init__()
        self.answer = answer

    def forward(self, *given):
        self.given = given
        return self.answer(given[0])


def wrap(module, **options):
    settings = {"schedule": "linear", "predicts": "eps", "shape": SHAPE, "name": "spy", "time": "unit"}
    return wrap_module(module, **{**settings, **options})


def test_the_example_of_the_documentation_runs():
    found = [test for test in doctest.DocTestFinder().find(wrap_module, "wrap_module", globs={}) if test.examples]
    assert len(found) == 1
    code = [line for example in found[0].examples[1:] for line in example.source.strip().splitlines()]
    assert len(code) <= 11
    results = doctest.DocTestRunner().run(found[0])
    assert (results.failed, results.attempted) == (0, len(found[0].examples))


def test_the_module_is_given_the_time_that_was_asked_for():
    for time, wanted in {"unit": 0.5, "index": 499.0, "sigma": float(linear_vp().sigma(0.5))}.items():
        spy = Spy()
        wrap(spy, time=time).denoiser(torch.zeros(3, *SHAPE), 0.5)
        assert spy.given[1].shape == (3,)
        assert spy.given[1].tolist() == pytest.approx([wanted] * 3, rel=1e-6)
    spy = Spy()
    wrap(spy, time=lambda t: (1000 * t).long()).denoiser(torch.zeros(3, *SHAPE), 0.25)
    assert spy.given[1].tolist() == [250] * 3
    assert spy.given[1].dtype == torch.int64


def test_timesteps_are_exact_in_float32():
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.equal(timestep_index(t.float(), 1000), torch.arange(1000.0))
    assert timestep_index(torch.tensor([0.12345]), 1000).item() == pytest.approx(122.45)


def test_edm_networks_see_the_state_itself_and_sigma():
    """``net(x, sigma) -> denoised`` for data that is N(0, 0.25): x0 = x 0.25 / (0.25 + sigma^2)."""

    class Net(nn.Module):
        def forward(self, x, sigma):
            return x * 0.25 / (0.25 + sigma[:, None, None, None] ** 2)

    model = wrap(Net(), schedule="edm", predicts="x0", time="sigma", name="edm")
    x = 5 * torch.randn(2, *SHAPE, dtype=torch.float64)
    sigma = model.denoiser.schedule.sigma(0.6)
    torch.testing.assert_close(model.denoiser(x, 0.6).x0, x * 0.25 / (0.25 + sigma**2))
    images = model.generate(SharedNoise(0), range(64), Sampler("heun", 160))
    # The exact flow is the scaling by 0.5 / sqrt(0.25 + 80^2).
    exact = 80 * SharedNoise(0).initial(range(64), SHAPE, "cpu") * 0.5 / (0.25 + 80**2) ** 0.5
    torch.testing.assert_close(
        images, exact, atol=0, rtol=1e-3
    )  # 160 steps, and the error falls by 4 with every doubling


@pytest.mark.parametrize("schedule", [*SCHEDULES.names(), "a table"])
def test_every_schedule_can_be_named(schedule):
    table = torch.linspace(0.999, 0.01, 20)
    model = wrap(Spy(lambda x: 0 * x), schedule=table if schedule == "a table" else schedule)
    assert model.generate(SharedNoise(0), range(2), Sampler(steps=4)).isfinite().all()
    assert model.facts["schedule"] == model.denoiser.schedule.spec


def test_labels_and_the_label_that_means_none():
    spy = Spy()
    model = wrap(spy, classes=3, null_label=3)
    model.denoiser(torch.zeros(2, *SHAPE), 0.5)
    assert spy.given[2].tolist() == [3, 3]
    model.generate(SharedNoise(0), range(4), Sampler(steps=1))
    assert spy.given[2].tolist() == [0, 1, 2, 0]
    with pytest.raises(UserError, match="no label"):
        wrap(Spy(), classes=3).denoiser(torch.zeros(2, *SHAPE), 0.5)
    with pytest.raises(UserError, match="without classes"):
        wrap(Spy()).denoiser(torch.zeros(2, *SHAPE), 0.5, torch.tensor([0, 1]))


def test_the_variance_half_is_dropped_when_it_is_announced():
    double = Spy(lambda x: torch.cat([2 * x, 7 * x], dim=1))
    model = wrap(double, learned_variance=True)
    torch.testing.assert_close(model.denoiser(torch.ones(2, *SHAPE), 0.5).eps, 2 * torch.ones(2, *SHAPE))
    assert model.facts["learned_variance"] == "dropped"
    with pytest.raises(UserError, match=r"gave \(2, 2, 4, 4\) where \(2, 1, 4, 4\) was expected"):
        wrap(double).denoiser(torch.ones(2, *SHAPE), 0.5)


def test_tuples_are_unpacked_and_other_things_refused():
    wrap(Spy(lambda x: (x, "more"))).denoiser(torch.ones(2, *SHAPE), 0.5)
    with pytest.raises(UserError, match="gave a dict"):
        wrap(Spy(lambda x: {"x": x})).denoiser(torch.ones(2, *SHAPE), 0.5)


def test_the_module_is_not_copied_and_is_in_eval_mode():
    spy = Spy()
    assert wrap(spy).denoiser.network.module is spy
    assert not spy.training


def test_a_module_without_weights_tells_where_it_is():
    model = wrap(Spy())
    assert model.device.type == "cpu"
    model.denoiser.to("meta")
    assert model.device.type == "meta"
    assert not model.denoiser.state_dict()


def test_what_cannot_be_wrapped():
    half = nn.Linear(2, 2).half()
    for options, said in [
        ({"schedule": "liner"}, "Did you mean 'linear'"),
        ({"predicts": "epsilon"}, "unknown prediction"),
        ({"time": "indx"}, "Did you mean 'index'"),
        ({"shape": 32}, "channels, height, width"),
        ({"module": half}, "half precision"),
    ]:
        with pytest.raises(UserError, match=said):
            wrap(options.pop("module", Spy()), **options)
