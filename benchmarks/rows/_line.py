"""What the rows of landscapes are measured on: models, and what loss-landscapes is asked of them."""

LEVELS, IMAGES = 10, 16


def subject(case):
    import torch

    from consistency_lab.data.sources import load_images
    from consistency_lab.diffusion.denoiser import NetworkDenoiser
    from consistency_lab.diffusion.model import DiffusionModel
    from consistency_lab.diffusion.schedule import SCHEDULES
    from consistency_lab.networks.registry import build_network
    from consistency_lab.probes.subject import diffusion_subject

    images = load_images("digits")
    network = build_network(case.split(",")[0], images.shape, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # its last layer starts at 0
        for p in network.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    model = DiffusionModel("model", NetworkDenoiser(network, SCHEDULES.build("linear"), images.shape))
    return diffusion_subject(model, images, count=IMAGES, bins=LEVELS)


def moved(given, steps):
    """A copy of the module, moved by ``sum_k steps[k] * axes[k]``, of ``(step, axis)``."""
    from copy import deepcopy

    import torch

    module = deepcopy(given.module).requires_grad_(False)
    with torch.no_grad():
        for step, axis in steps:
            for p, a in zip(module.parameters(), axis, strict=True):
                p.add_(a, alpha=step)
    return module


def metrics(given, case):
    """loss-landscapes' metrics: its own Loss for each noise level, or one metric for all of them."""
    import torch
    from loss_landscapes.metrics import Loss, MetricPipeline
    from loss_landscapes.metrics.metric import Metric

    from consistency_lab.diffusion.loss import noisy_state

    x0, times, eps = given.batch.tensors
    x_t = noisy_state(given.module.schedule, x0, times, eps)
    parts = zip(*(each.split(given.count) for each in (x_t, times, eps)), strict=True)
    if case.endswith("its Loss for each level"):
        mse = torch.nn.functional.mse_loss
        return MetricPipeline([Loss(mse, (x, t), e) for x, t, e in parts])

    class Levels(Metric):
        def __call__(self, wrapper):
            errors = wrapper.forward((x_t, times)) - eps
            return errors.pow(2).flatten(1).mean(1).reshape(LEVELS, -1).mean(1).numpy()

    return Levels()


def wrapped(module):
    """What a metric is given: eps of the denoiser for (x_t, t)."""
    from loss_landscapes import GeneralModelWrapper

    return GeneralModelWrapper(module, [module], lambda m, inputs: m(*inputs).eps)
