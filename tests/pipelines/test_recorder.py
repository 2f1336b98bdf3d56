"""The recorder: noise levels and x0 of every scheduler, and what a pipeline did, to the bit."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

import consistency_lab as cl  # noqa: E402
from consistency_lab.errors import UserError  # noqa: E402
from consistency_lab.pipelines.noise_levels import _KNOWN, _MIDPOINT, family, level_of, reading, x0_of  # noqa: E402

X0, EPS = (torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))


def unet_pipeline(seed=0, scheduler=None):
    torch.manual_seed(seed)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        **blocks,
    )
    pipe = diffusers.DDIMPipeline(unet.eval(), scheduler or diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generators(first, count):
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


@pytest.mark.parametrize("name", _KNOWN)
@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_levels_and_x0_are_the_scheduler_s_own(name, predicts):
    kind = getattr(diffusers, f"{name}Scheduler")
    flow = name.startswith("FlowMatch")
    takes = "prediction_type" in kind().config
    if (not takes and predicts != "epsilon") or (name.startswith("EDM") and predicts != "epsilon"):
        pytest.skip("it predicts one thing only")
    scheduler = kind(prediction_type=predicts) if takes else kind()
    scheduler.set_timesteps(7)
    for place, timestep in list(enumerate(scheduler.timesteps))[:-1]:
        level = level_of(scheduler, timestep, place)
        if flow:
            scheduler._step_index = None  # scale_noise stays where it was asked first
        x_t = scheduler.scale_noise(X0, timestep[None], EPS) if flow else scheduler.add_noise(X0, EPS, timestep[None])
        if place and scheduler.timesteps[place] == scheduler.timesteps[place - 1]:
            continue  # two stages of one level; add_noise knows the first
        if place % 2 and name in _MIDPOINT:
            continue  # add_noise knows whole steps alone; see the next test
        assert torch.allclose(x_t, level.alpha * X0 + level.sigma * EPS, atol=2e-5, rtol=1e-4), place
        assert level.t is None or 0 <= level.t <= 1
        if not level.alpha:
            continue  # pure noise has no x0
        if name.startswith("EDM"):
            skip = scheduler.config.sigma_data**2 / (level.sigma**2 + scheduler.config.sigma_data**2)
            out = level.sigma * scheduler.config.sigma_data / (level.sigma**2 + scheduler.config.sigma_data**2) ** 0.5
            output = (X0 - skip * x_t) / out
        elif name.startswith("CM"):
            skip, out = scheduler.get_scalings_for_boundary_condition(level.sigma)
            output = (X0 - skip * x_t) / out
        elif reading(scheduler) == "flow matching":
            output = EPS - X0
        else:
            norm = (level.alpha**2 + level.sigma**2) ** 0.5
            output = {"epsilon": EPS, "sample": X0, "v_prediction": (level.alpha * EPS - level.sigma * X0) / norm}[
                predicts
            ]
        assert torch.allclose(
            x0_of(scheduler, output, x_t, level), X0, atol=1e-3 * max(1, level.sigma / level.alpha)
        ), place


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize(
    "name", ["EulerDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE"]
)
def test_levels_along_a_run_are_those_that_inputs_are_scaled_by(name, karras):
    """At every evaluation, those between two steps among them: the network's input is the sample over the root of 1 + sigma squared."""
    if name == "DPMSolverSDE":
        pytest.importorskip("torchsde")
    scheduler = getattr(diffusers, f"{name}Scheduler")(use_karras_sigmas=karras)
    recorder = cl.Recorder(type("Pipe", (), {"scheduler": scheduler})())
    scheduler.set_timesteps(5)
    sample, expected = X0 * scheduler.init_noise_sigma, []
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, t)
        expected.append(float((sample / scaled).square().mean() - 1))
        sample = scheduler.step(torch.tanh(scaled), t, sample).prev_sample
    found = recorder.tensors()
    assert torch.allclose(found["log_snr"][:-1], -torch.tensor(expected, dtype=torch.float64).log(), atol=2e-3)
    assert found["log_snr"].diff().min() >= 0


@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"])
def test_x0_along_a_run_is_what_the_scheduler_makes_of_the_output(name):
    scheduler = getattr(diffusers, f"{name}Scheduler")()
    if name == "DDIM":
        scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(4)
    recorder = cl.Recorder(type("Pipe", (), {"scheduler": scheduler})())
    sample, expected = X0 * scheduler.init_noise_sigma, []
    scheduler.set_timesteps(4)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, t)
        output = torch.tanh(scaled)
        if name in ("DDIM", "EulerDiscrete"):
            made = scheduler.step(output, t, sample)
            expected.append(made.pred_original_sample)
        else:
            place = 0 if scheduler.step_index is None else scheduler.step_index
            scheduler._step_index = place
            expected.append(scheduler.convert_model_output(output, sample=sample))
            scheduler._step_index = None if place == 0 else place
            made = scheduler.step(output, t, sample)
        sample = made.prev_sample
    held = recorder.tensors()
    for mine, own in zip(held["x0"], expected, strict=False):
        assert torch.allclose(mine, own, rtol=1e-3, atol=1e-3)
    assert torch.equal(held["latents"][-1], sample)
    assert torch.equal(held["log_snr"].sort().values, held["log_snr"])
    recorder.close()
    assert "step" not in vars(scheduler)


def test_a_pipeline_is_recorded_to_the_bit_and_calls_are_appended(tmp_path):
    pipe = unet_pipeline()
    plain = [
        pipe(batch_size=2, generator=generators(s, 2), num_inference_steps=3, output_type="pt").images for s in (0, 2)
    ]
    recorder = cl.Recorder(pipe)
    for start in (0, 2):
        images = pipe(batch_size=2, generator=generators(start, 2), num_inference_steps=3, output_type="pt").images
        recorder.add_images(images)
    recorder.save(tmp_path / "a.safetensors", facts={"engine": "mine"})
    read = cl.load_recording(tmp_path / "a.safetensors")
    pixels = read.pixels().generate(cl.SharedNoise(0), range(4))
    assert torch.equal(pixels, torch.cat(plain) * 2 - 1)
    ends = read.generate(cl.SharedNoise(0), range(4))
    assert torch.equal((ends / 2 + 0.5).clamp(0, 1), torch.cat(plain))
    start = torch.cat([torch.randn(1, 3, 8, 8, generator=g) for g in generators(0, 4)])
    assert torch.equal(read.estimates(range(4), [0], "latents")[0], start)
    acp = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps].double()
    assert torch.allclose(read.log_snr[:-1], (acp / (1 - acp)).log(), rtol=1e-5)
    assert read.t[:-1].tolist() == ((pipe.scheduler.timesteps + 1).double() / 1000).tolist()
    assert read.facts["engine"] == "mine"
    assert read.facts["scheduler"] == "DDIMScheduler"


def test_calls_of_different_steps_are_no_recording(tmp_path):
    pipe = unet_pipeline()
    recorder = cl.Recorder(pipe)
    with pytest.raises(UserError, match="seen no step"):
        recorder.save(tmp_path / "a.npz")
    for steps in (2, 3):
        pipe(batch_size=1, num_inference_steps=steps, output_type="pt")
    with pytest.raises(UserError, match="differ in steps"):
        recorder.save(tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


def test_pipelines_that_cannot_be_recorded_are_refused():
    with pytest.raises(UserError, match="no scheduler"):
        cl.Recorder(object())
    with pytest.raises(UserError, match="noise levels of SCMScheduler are not known"):
        cl.Recorder(type("Pipe", (), {"scheduler": diffusers.SCMScheduler()})())
    assert family(diffusers.DDIMScheduler()) == "DDIM"
