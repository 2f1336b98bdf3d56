"""A denoiser and samplers that are written here, as docs/adding.md says, are the built-in ones to the bit."""

import inspect

import pytest
import torch

import consistency_lab as cl

SCHEDULE = cl.SCHEDULES.build("cosine")
START = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NOISE = (cl.SharedNoise(3), range(3))


class Constant(cl.Denoiser):
    """The best denoiser of one image."""

    def __init__(self, image, schedule):
        super().__init__()
        self.schedule, self.shape = schedule, tuple(image.shape)
        self.register_buffer("image", image)

    def predict(self, x_t, t, alpha, sigma, cond):
        return cl.Prediction.of(x_t, self.image.to(x_t).expand_as(x_t), "x0", alpha, sigma)


def gaussian():
    return cl.GaussianDenoiser.fit(torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(1)), SCHEDULE)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    monkeypatch.setattr(cl.SAMPLERS, "_builders", dict(cl.SAMPLERS._builders))


def walked(sampler, denoiser=None):
    return torch.stack([step.x_t for step in cl.sample_path(denoiser or gaussian(), START, sampler, path_noise=NOISE)])


def ddim(here, to):
    return to.alpha * (here.x0 + to.s * here.eps)


def heun(here, to):
    if to.s == 0:
        return to.alpha * here.x0
    there = to.evaluate(ddim(here, to))
    return to.alpha * (here.x0 + here.s * here.eps + (to.s - here.s) * (0.5 * (here.eps + there.eps)))


def remembering(here, to):
    if to.previous is None or to.s == 0:
        return ddim(here, to)
    share = 0.5 * torch.log(here.s / to.s) / torch.log(to.previous.s / here.s)
    x0, ratio = here.x0 + share * (here.x0 - to.previous.x0), to.s / here.s
    return to.alpha * (ratio * (here.x0 + here.s * here.eps) + (1 - ratio) * x0)


def ancestral(here, to):
    share = to.s**2 / here.s
    x0 = here.x0 + share * here.eps
    return to.alpha * (x0 + torch.sqrt(to.s**2 - share**2) * to.path() if to.s > 0 else x0)


@pytest.mark.parametrize(
    ("step", "said", "built_in"),
    [
        (ddim, {}, "ddim"),
        (heun, {"evaluations": 2}, "heun"),
        (remembering, {"memory": True}, "dpm++2m"),
        (ancestral, {"stochastic": True}, "ancestral"),
    ],
)
def test_a_sampler_of_ones_own_is_the_built_in_one_to_the_bit(step, said, built_in):
    cl.SAMPLERS.register("mine", step, **said)
    assert torch.equal(walked("mine(steps=6)"), walked(f"{built_in}(steps=6)"))
    mine, theirs = cl.Sampler("mine", 7), cl.Sampler(built_in, 7)
    assert mine.evaluations() == theirs.evaluations()
    assert (mine.stochastic, mine.memory) == (theirs.stochastic, theirs.memory)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (ancestral, "draws noise; register it with stochastic=True"),
        (lambda here, to: here.x0.mean(), r"returned \(\); return the next state, \(3, 1, 4, 4\)"),
        (lambda here, to: (here.x0, to.s), "returned a tuple"),
    ],
)
def test_a_step_that_is_none_is_refused(step, message):
    cl.SAMPLERS.register("mine", step)
    with pytest.raises(cl.UserError, match=message):
        walked("mine")


def test_a_sampler_that_cannot_be_registered_is_refused():
    with pytest.raises(cl.UserError, match="exists already"):
        cl.SAMPLERS.register("ddim", ddim)
    with pytest.raises(cl.UserError, match="a function of"):
        cl.SAMPLERS.register("mine", "ddim")


def test_a_step_without_memory_is_shown_none(monkeypatch):
    seen = []
    cl.SAMPLERS.register("mine", lambda here, to: seen.append(to.previous) or ddim(here, to))
    walked("mine(steps=3)")
    assert seen == [None] * 3


def test_a_denoiser_of_ones_own_is_sampled_compared_and_probed_like_any_other():
    image = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 4, 4)
    mine = cl.DiffusionModel("mine", Constant(image, SCHEDULE), sampler="heun(steps=3)")
    assert mine.sampler == cl.Sampler("heun", 3)
    made = mine.generate(cl.SharedNoise(0), range(2))
    assert torch.allclose(made, image.float().expand(2, -1, -1, -1), atol=1e-6)
    # Of a Gaussian without variance, the closed form says the same.
    flat = cl.GaussianDenoiser(image, torch.zeros(16, 16), SCHEDULE)
    assert torch.allclose(walked("ddim(steps=4)", Constant(image, SCHEDULE)), walked("ddim(steps=4)", flat), atol=1e-12)
    two = cl.compare([mine, cl.DiffusionModel("flat", flat)], count=4, sampler="ddim(steps=3)", metrics=("mse",))
    assert float(two["distance"].isel(t=-1).max()) < 1e-12


def test_text_stands_for_a_sampler_wherever_one_is_taken():
    things = [getattr(cl, name) for name in cl.__all__]
    takers = [x for x in things if inspect.isfunction(x)]
    takers += [method for x in things if inspect.isclass(x) for _, method in inspect.getmembers(x, inspect.isfunction)]
    found = {
        f.__qualname__: inspect.signature(f).parameters["sampler"]
        for f in takers
        if "sampler" in inspect.signature(f).parameters
    }
    assert {"compare", "sample_path", "probe_structure", "probe_connectivity", "DiffusionModel.generate"} < set(found)
    assert [name for name, parameter in found.items() if "str" not in str(parameter.annotation)] == []


def test_a_model_moves_as_a_module_does():
    model = cl.DiffusionModel("gaussian", gaussian())
    assert model.to("cpu") is model
    assert model.to("meta").device.type == "meta"
    with pytest.raises(cl.UserError, match="cannot be used here"):
        model.to("cuda:77")
