import copy

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.model import DiffusionModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.optimal import OptimalDenoiser
from consistency_lab.diffusion.references import GaussianDenoiser
from consistency_lab.diffusion.sampling import SAMPLERS, Sampler, sample_path, start_state
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import UserError
from consistency_lab.networks.registry import build_network

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def denoiser():
    network = build_network("unet", SHAPE, seed=0)
    with torch.no_grad():  # the last layer begins at zero; give the network something to say
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return NetworkDenoiser(network.double(), SCHEDULES.build("linear"), SHAPE).eval()


def noise(n=4):
    return SharedNoise(0).initial(range(n), SHAPE)


@pytest.mark.parametrize("predicts", ["eps", "v", "x0"])
@pytest.mark.parametrize("steps", [1, 10, 50, 250])
def test_ddim_equals_diffusers_where_diffusers_is_right(denoiser, predicts, steps):
    # Right: trailing spacing with a step count that divides 1000, and no clipping.
    names = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
    ours = NetworkDenoiser(denoiser.network, denoiser.schedule, SHAPE, predicts)
    theirs = DDIMScheduler(timestep_spacing="trailing", clip_sample=False, prediction_type=names[predicts])
    theirs.set_timesteps(steps)
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    x = start_state(ours, noise())
    path = list(sample_path(ours, x, Sampler("ddim", steps)))
    with torch.no_grad():
        for step, index in zip(path[:-1], theirs.timesteps, strict=True):
            assert round(step.t * 1000) == int(index) + 1
            out = theirs.step(denoiser.network(x, (index.double() + 1).expand(4) / 1000, None), index, x)
            # diffusers' table is a float32 product
            assert torch.allclose(step.x0, out.pred_original_sample, rtol=1e-4, atol=1e-4)
            x = out.prev_sample
    assert torch.allclose(path[-1].x_t, x, rtol=1e-4, atol=1e-4)


def test_ancestral_sampling_has_diffusers_ddpm_mean_and_variance(denoiser):
    theirs = DDPMScheduler(clip_sample=False, variance_type="fixed_small", timestep_spacing="trailing")
    theirs.set_timesteps(1000)
    schedule = denoiser.schedule
    times = torch.tensor([0.5, 0.499, 0.0], dtype=torch.float64)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shared = SharedNoise(3)
    _, second, _ = sample_path(denoiser, x, Sampler("ancestral"), times=times, path_noise=(shared, range(4)))
    with torch.no_grad():
        eps = denoiser.network(x, torch.full((4,), 0.5, dtype=torch.float64), None)
    fresh = (second.x_t - _mean(theirs, eps, x)) / theirs._get_variance(499).double().sqrt()
    assert torch.allclose(fresh, shared.increment(range(4), SHAPE, 0.5, 0.499).double(), atol=2e-3)
    assert schedule.t_max == 1.0


def _mean(scheduler, eps, x):
    """diffusers' step with its noise taken out again."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    out = scheduler.step(eps, 499, x, generator=generator).prev_sample
    return out - scheduler._get_variance(499).double().sqrt() * drawn


@pytest.mark.parametrize("method", SAMPLERS.names())
def test_images_do_not_depend_on_batch_or_order(denoiser, method):
    model = DiffusionModel("m", denoiser, sampler=Sampler(method, 10))
    whole = model.generate(SharedNoise(1), range(6))
    assert torch.equal(whole, model.generate(SharedNoise(1), range(6)))
    order = [3, 0, 5]
    assert torch.allclose(whole[order], model.generate(SharedNoise(1), order), atol=1e-6)
    double = [last_state(denoiser, method, [i]) for i in range(3)]
    assert torch.allclose(last_state(denoiser, method, [0, 1, 2]), torch.cat(double), atol=1e-9)


def last_state(denoiser, method, indices):
    start = start_state(denoiser, SharedNoise(1).initial(indices, SHAPE))
    *_, last = sample_path(denoiser, start, Sampler(method, 10), path_noise=(SharedNoise(1), indices))
    return last.x_t


def test_images_agree_across_chunks_in_float32(denoiser, monkeypatch):
    network = build_network("unet", SHAPE, seed=0)
    network.load_state_dict(denoiser.network.state_dict())
    model = DiffusionModel(
        "m", NetworkDenoiser(network.float(), denoiser.schedule, SHAPE).eval(), sampler=Sampler(steps=10)
    )
    whole = model.generate(SharedNoise(0), range(8))
    monkeypatch.setattr("consistency_lab.diffusion.model.CHUNK", 3)
    monkeypatch.setattr("consistency_lab.diffusion.model.chunks.__defaults__", (3,))
    assert torch.allclose(whole, model.generate(SharedNoise(0), range(8)), atol=1e-4)


def test_the_walk_is_reported_from_noise_to_image(denoiser):
    steps = list(sample_path(denoiser, start_state(denoiser, noise()), Sampler(steps=5)))
    assert [round(s.t, 10) for s in steps] == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert all(s.x_t.dtype == s.x0.dtype == torch.float64 for s in steps)
    assert torch.equal(steps[-1].x_t, steps[-1].x0)


@pytest.mark.parametrize("method", ["ddim", "heun", "dpm++2m"])
def test_deterministic_samplers_agree_when_steps_are_many(method):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, *SHAPE, generator=generator) * 0.5
    denoiser = GaussianDenoiser.fit(images, SCHEDULES.build("cosine"))
    reference = start_state(denoiser, noise())
    exact = denoiser.flow_map(reference, denoiser.schedule.t_max)
    *_, last = sample_path(denoiser, reference, Sampler(method, 500))
    assert torch.allclose(last.x_t, exact, atol=0.02)


def test_ancestral_samplers_of_two_step_counts_follow_one_path():
    generator = torch.Generator().manual_seed(0)
    denoiser = GaussianDenoiser.fit(torch.randn(500, *SHAPE, generator=generator) * 0.5, SCHEDULES.build("linear"))

    def run(steps, seed):
        start = start_state(denoiser, noise())
        *_, last = sample_path(denoiser, start, Sampler("ancestral", steps), path_noise=(SharedNoise(seed), range(4)))
        return last.x_t

    same, other = (run(50, 0) - run(100, 0)).pow(2).mean(), (run(50, 0) - run(100, 1)).pow(2).mean()
    assert same < 0.1 * other


def test_ancestral_samples_have_the_data_distribution():
    denoiser = GaussianDenoiser(torch.full((1, 4, 4), 0.3), 0.25 * torch.eye(16), SCHEDULES.build("linear"))
    indices = range(150)
    start = start_state(denoiser, SharedNoise(0).initial(indices, (1, 4, 4)))
    *_, last = sample_path(denoiser, start, Sampler("ancestral", 500), path_noise=(SharedNoise(0), indices))
    assert float(last.x_t.mean()) == pytest.approx(0.3, abs=0.04)
    assert float(last.x_t.var()) == pytest.approx(0.25, rel=0.1)


def test_clipping_clamps_the_estimates():
    denoiser = GaussianDenoiser(torch.full(SHAPE, 1.5), torch.eye(64) * 0.1, SCHEDULES.build("linear"))
    start = start_state(denoiser, noise())
    assert all(s.x0.max() <= 1 for s in list(sample_path(denoiser, start, Sampler(steps=5, clip=True)))[:-1])
    assert any(s.x0.max() > 1 for s in sample_path(denoiser, start, Sampler(steps=5)))


def test_heun_counts_its_evaluations(denoiser):
    calls = []
    hook = denoiser.network.register_forward_hook(lambda *_: calls.append(1))
    for method in ("ddim", "heun", "dpm++2m"):
        calls.clear()
        list(sample_path(denoiser, start_state(denoiser, noise()), Sampler(method, 7)))
        assert len(calls) == Sampler(method, 7).evaluations()
    hook.remove()


def test_bad_requests_are_refused(denoiser):
    with pytest.raises(UserError, match="Did you mean 'ddim'"):
        Sampler("dim")
    with pytest.raises(UserError, match="at least 1 step"):
        Sampler(steps=0)
    start = start_state(denoiser, noise())
    with pytest.raises(UserError, match="stochastic"):
        next(sample_path(denoiser, start, Sampler("ancestral")))
    with pytest.raises(UserError, match="decrease"):
        next(sample_path(denoiser, start, Sampler(), times=torch.tensor([0.5, 0.6, 0.0])))


def test_a_sampler_from_text():
    assert Sampler.parse("heun") == Sampler("heun")
    assert Sampler.parse("dpm++2m(clip=True, steps=20)") == Sampler("dpm++2m", 20, clip=True)
    for text, said in [
        ("dim", "Did you mean 'ddim'"),
        ("ddim(clp=True)", "Did you mean 'clip'"),
        ("ddim(steps=1.5)", "whole number"),
    ]:
        with pytest.raises(UserError, match=said):
            Sampler.parse(text)


def test_a_network_is_evaluated_in_the_precision_of_the_sampler(denoiser):
    """Weights and the solver's state are what they were; the network's answers are those of autocast."""
    with pytest.raises(UserError, match=r"'bfloat16' is of networks in float32, and this one is in torch\.float64"):
        next(sample_path(denoiser, start_state(denoiser, noise()), Sampler(precision="bfloat16")))
    denoiser, seen = copy.deepcopy(denoiser).float(), []
    start = start_state(denoiser, noise())
    hook = denoiser.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    full, half = (
        list(sample_path(denoiser, start, Sampler(steps=4, precision=each)))[-1].x_t for each in ("float32", "bfloat16")
    )
    hook.remove()
    assert seen == [torch.float32] * 4 + [torch.bfloat16] * 4
    assert half.dtype == torch.float64
    assert not torch.equal(full, half)
    assert (full - half).pow(2).mean() < 1e-2 * full.pow(2).mean()
    assert {p.dtype for p in denoiser.parameters()} == {torch.float32}


def test_closed_forms_have_no_other_precision():
    """Their products in float32 bound what may be left out: in bfloat16 the bound would not hold."""
    denoiser = OptimalDenoiser(noise(40).clamp(-1, 1), SCHEDULES.build("linear"))
    start = start_state(denoiser, noise())
    full, half = (
        list(sample_path(denoiser, start, Sampler(steps=4, precision=p)))[-1].x_t for p in ("float32", "bfloat16")
    )
    assert torch.equal(full, half)


def test_what_is_recorded_of_a_sampler():
    """Rows of studies are found by it: what was added later stands there where it is not the default."""
    assert Sampler("heun", 20).facts == {"method": "heun", "steps": 20, "clip": False}
    half = Sampler.parse("ddim(precision='bfloat16')")
    assert half.facts == {"method": "ddim", "steps": 50, "clip": False, "precision": "bfloat16"}
    assert Sampler(**half.facts) == half
    with pytest.raises(UserError, match="Did you mean 'bfloat16'"):
        Sampler(precision="bfloat")
