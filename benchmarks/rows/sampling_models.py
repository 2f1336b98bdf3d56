from _images import numbers
from _models import models

TITLE = "sampling K = 8 models of one architecture at once: a trial, not built"
PEER = "this package: one model after the other"
CASES = (
    "MLP, 256 images of 1x8x8",
    "DiT, 256 images of 1x8x8",
    "U-Net, 256 images of 1x8x8",
    "MLP, 16 images of 1x8x8",
    "U-Net, 16 images of 1x8x8",
)
GOALS = {"": 1.3}
TOLERANCE = 1e-4
NOTE = (
    "The trial: weights stacked, torch.func.vmap over them, DDIM of 5 steps. vmap makes grouped convolutions of convolutions, and "
    "unfused attention, which the processor computes slower than one model's, and K times the activations leave its cache. It pays "
    "only where a batch is so small that calls cost more than numbers; 256 images are computed together. A U-Net's images then differ"
    " in the last bits from those of the model alone, so that a model's images would depend on its company. So models are sampled one"
    " after the other."
)
K, STEPS = 8, 5


def _case(case):
    count, *shape = numbers(case)
    return models({"M": "mlp", "D": "dit", "U": "unet"}[case[0]], tuple(shape), K), range(count)


def ours(case):
    """All models in one evaluation: weights stacked, `torch.func.vmap` over them."""
    import copy
    from dataclasses import replace

    import torch
    from torch import nn
    from torch.func import functional_call, stack_module_state, vmap

    from consistency_lab.devices import measuring
    from consistency_lab.diffusion.noise import SharedNoise
    from consistency_lab.diffusion.sampling import sample_path, start_state

    alone, indices = _case(case)
    weights, buffers = stack_module_state([each.denoiser.network for each in alone])
    bare = copy.deepcopy(alone[0].denoiser.network)

    class Stacked(nn.Module):
        """(K B, C, H, W), the models' states one after the other."""

        def __init__(self):
            super().__init__()
            self.kept = nn.ParameterList(weights.values())

        def forward(self, x, t, cond=None):
            def one(weights, buffers, x):
                return functional_call(bare, (weights, buffers), (x, t[: len(x)]))

            return vmap(one)(weights, buffers, x.unflatten(0, (K, -1))).flatten(0, 1)

    together = copy.copy(alone[0].denoiser)
    together._modules = {"network": Stacked()}
    model, noise = replace(alone[0], denoiser=together), SharedNoise(0)

    def work():
        start = start_state(model.denoiser, noise.initial(indices, model.noise_shape)).repeat(K, 1, 1, 1)
        with measuring():
            *_, last = sample_path(model.denoiser, start, f"ddim(steps={STEPS})")
        return {"images": torch.Tensor(last.x_t.float()).unflatten(0, (K, -1))}

    return work


def theirs(case):
    import torch

    from consistency_lab.diffusion.noise import SharedNoise

    alone, indices = _case(case)
    noise = SharedNoise(0)
    return lambda: {"images": torch.stack([each.generate(noise, indices, f"ddim(steps={STEPS})") for each in alone])}
