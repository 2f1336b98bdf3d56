from _images import numbers
from _models import models

TITLE = "DDIM, 50 steps, of the default U-Net"
PEER = "diffusers 0.42.1, DDIMScheduler's loop over the same network"
CASES = ("256 images of 1x8x8", "16 images of 3x32x32")
GOALS = {}
TOLERANCE = 1e-4
NOTE = (
    "No goal: both are the network's time. Our state is float64, so that two samplers differ by what they are and not by rounding; "
    "theirs is float32. Pages that activations free are kept for the next ones, which took a sixth of the time before."
)
PACKAGES = ("diffusers",)


def _shape(case):
    count, *shape = numbers(case)
    return count, tuple(shape)


def ours(case):
    from consistency_lab.diffusion.noise import SharedNoise

    count, shape = _shape(case)
    (model,), noise = models("unet", shape, 1), SharedNoise(0)
    return lambda: {"images": model.generate(noise, range(count))}


def theirs(case):
    import torch
    from diffusers import DDIMScheduler

    from consistency_lab.diffusion.noise import SharedNoise

    count, shape = _shape(case)
    network = models("unet", shape, 1)[0].denoiser.network
    start = SharedNoise(0).initial(range(count), shape)
    scheduler = DDIMScheduler(
        1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(50)

    def work():
        state = start
        with torch.no_grad():
            for index in scheduler.timesteps:
                predicted = network(state, ((index + 1) / 1000).expand(count))
                state = scheduler.step(predicted, index, state).prev_sample
        return {"images": state}

    return work
