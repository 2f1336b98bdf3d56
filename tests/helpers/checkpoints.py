"""Checkpoints as the libraries themselves make them: trained for a few steps by their own loops and saved by them.

Each function returns what opens the file here and the library's own sampler: the state after each of its steps, from a state at its start.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SIZE = 8
STEPS = 10


@dataclass(frozen=True)
class Theirs:
    """A checkpoint, its address, and what the library makes of a noise ``(B, C, H, W)`` in `STEPS` steps.

    ``x0(x, i)`` is its estimate of the image at a timestep, not clipped, where the library offers that.
    """

    address: str
    sample: Callable[[Tensor], Tensor]
    x0: Callable[[Tensor, int], Tensor] | None = None


def digits() -> Tensor:
    """``(N, 1, 8, 8)`` in [-1, 1]."""
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().images[:256] / 8 - 1, dtype=torch.float32)[:, None]


def quiet() -> Any:
    return contextlib.redirect_stderr(io.StringIO())


def ddpm_pytorch(folder: Path, **told: Any) -> Theirs:
    """denoising-diffusion-pytorch: Trainer.train() and Trainer.save(), DDIM of its GaussianDiffusion."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
    from PIL import Image

    images = folder / "images"
    images.mkdir()
    for i, image in enumerate(digits()[:120]):
        Image.fromarray(((image[0] + 1) * 127.5).byte().numpy()).save(images / f"{i}.png")
    torch.manual_seed(0)
    unet = Unet(dim=8, dim_mults=(1, 2), channels=1, attn_heads=2, attn_dim_head=4, full_attn=(False, True))
    diffusion = GaussianDiffusion(unet, image_size=SIZE, timesteps=100, sampling_timesteps=STEPS, **told)
    with quiet():
        trainer = Trainer(
            diffusion, str(images), train_batch_size=16, train_num_steps=8, train_lr=1e-3, ema_update_every=2, ema_decay=0.5,
            num_samples=1, save_and_sample_every=8, results_folder=str(folder / "results"), calculate_fid=False,
        )  # fmt: skip
        trainer.train()  # saves model-1.pt at its end

    def sample(noise: Tensor) -> Tensor:
        model = trainer.ema.ema_model.cpu().eval()
        with given_noise(noise), quiet():
            return model.ddim_sample(tuple(noise.shape)) * 2 - 1

    def x0(x: Tensor, i: int) -> Tensor:
        with torch.no_grad():
            predicted = trainer.ema.ema_model.cpu().eval().model_predictions(x, torch.full((len(x),), i))
        return predicted.pred_x_start

    return Theirs(f"ddpm-pytorch:{folder}/results/model-1.pt?size={SIZE}", sample, x0)


@contextlib.contextmanager
def given_noise(noise: Tensor) -> Any:
    """The first call of torch.randn gives that noise."""
    drawn, first = torch.randn, [noise]
    torch.randn = lambda *a, **k: first.pop() if first else drawn(*a, **k)
    try:
        yield
    finally:
        torch.randn = drawn


def small(folder: Path, kind: str = "Unet", wrap: str = "", **options: Any) -> Theirs:
    """smalldiffusion: its training_loop, the state dict of its model, its samples()."""
    import smalldiffusion as sd
    from accelerate import Accelerator

    torch.manual_seed(0)
    network = {"Unet": sd.Unet, "DiT": sd.DiT}[kind]
    for name in ("Scaled", *filter(None, [wrap])) if wrap != "PredFlow" else (wrap,):
        network = getattr(sd, name)(network)
    if kind == "Unet":
        model = network(
            SIZE, 1, 1, ch=32, ch_mult=(1, 2), attn_resolutions=(4,), num_res_blocks=1, dropout=0.1, **options
        )
    else:
        model = network(in_dim=SIZE, channels=1, patch_size=2, depth=2, head_dim=8, num_heads=4, **options)
    flow = wrap == "PredFlow"
    schedule = sd.ScheduleFlow(N=100) if flow else sd.ScheduleLogLinear(N=100, sigma_min=0.02, sigma_max=10)
    loader = torch.utils.data.DataLoader(list(digits()[:64]), batch_size=16)
    with quiet():
        for _ in sd.training_loop(loader, model, schedule, Accelerator(cpu=True), epochs=2, lr=1e-3):
            pass
    file = folder / "model.pt"
    torch.save(model.state_dict(), file)
    says = {"": "eps", "PredX0": "x0", "PredV": "v", "PredFlow": "flow"}[wrap]
    how = "" if flow else "&scaled=True&schedule=ScheduleLogLinear(N=100, sigma_min=0.02, sigma_max=10)"
    address = f"smalldiffusion:{file}?predicts={says}{how}" + (f"&size={SIZE}" if kind == "Unet" else "&heads=4")

    def sample(noise: Tensor) -> Tensor:
        sigmas = schedule.sample_sigmas(STEPS)
        if flow:
            sigmas = flow_grid()
        states = list(sd.samples(model.eval(), sigmas, xt=noise * sigmas[0].float(), accelerator=Accelerator(cpu=True)))
        return states[-1]

    return Theirs(address, sample)


def flow_grid() -> Tensor:
    """The times that our sampler visits on straight paths: from .999, where both x0 and eps can be told, to 0."""
    return torch.cat([torch.linspace(0.999, 0, STEPS + 1, dtype=torch.float64)])


def k_diffusion(folder: Path, kind: str = "image_v1") -> Theirs:
    """k-diffusion: the loop and the file of its train.py (which is in its repository and not in its package), its Euler sampler."""
    import copy

    import k_diffusion as K

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "type": kind,
        "input_channels": 1,
        "input_size": [SIZE, SIZE],
        "sigma_data": 0.6,
        "sigma_min": 0.01,
    }
    sizes |= {"sigma_max": 80, "sigma_sample_density": {"type": "lognormal", "mean": -1.2, "std": 1.2}}
    if kind == "image_v1":
        sizes |= {"mapping_out": 16, "depths": [1, 1], "channels": [16, 16], "self_attn_depths": [False, False]}
        classes = 0
    else:
        sizes |= {"patch_size": [2, 2], "depth": 1, "width": 64}
        classes = 10
    config = K.config.load_config(
        {"model": sizes, "dataset": {"type": "imagefolder", "location": "-", "num_classes": classes}}
    )
    inner = K.config.make_model(config)
    model = K.config.make_denoiser_wrapper(config)(inner)
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(inner.param_groups(1e-3) if kind == "image_v1" else inner.parameters(), lr=1e-3)
    density = K.config.make_sample_density(config["model"])
    schedule = K.utils.EMAWarmup(power=0.6667, max_value=0.9999)
    x = digits()
    for step in range(6):
        reals = x[16 * step : 16 * step + 16]
        extra = {"aug_cond": torch.zeros(len(reals), 9)}
        if classes:
            extra = {"class_cond": torch.arange(len(reals)) % classes}
        loss = model.loss(reals, torch.randn_like(reals), density([len(reals)]), **extra).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        K.utils.ema_update(model, average, schedule.get_value())
        schedule.step()
    file = folder / "model_00000006.pth"
    torch.save(
        {
            "config": config,
            "model": model.inner_model.state_dict(),
            "model_ema": average.inner_model.state_dict(),
            "opt": optimizer.state_dict(),
            "sched": {},
            "ema_sched": schedule.state_dict(),
            "epoch": 0,
            "step": 6,
            "gns_stats": None,
        },
        file,
    )

    def sample(noise: Tensor) -> Tensor:
        sigmas = K.sampling.get_sigmas_karras(STEPS, 0.01, 80, rho=7.0)
        extra = {"class_cond": torch.arange(len(noise)) % classes} if classes else {}
        return K.sampling.sample_euler(average.eval(), noise * sigmas[0], sigmas, disable=True, extra_args=extra)

    return Theirs(f"k-diffusion:{file}", sample)


def torchcfm(folder: Path, classes: int = 0) -> Theirs:
    """torchcfm: the loop, EMA and file of its CIFAR-10 example with its matcher, Euler of torchdiffeq as there."""
    import copy

    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher
    from torchcfm.models.unet.unet import UNetModelWrapper
    from torchdiffeq import odeint

    torch.manual_seed(0)
    options: dict[str, Any] = {"class_cond": True, "num_classes": classes} if classes else {}
    net = UNetModelWrapper(
        (1, SIZE, SIZE), num_channels=32, num_res_blocks=1, channel_mult=[1, 2], attention_resolutions="4", num_heads=4,
        num_head_channels=16, dropout=0.1, use_scale_shift_norm=bool(classes), resblock_updown=bool(classes), **options,
    )  # fmt: skip
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    x = digits()
    for step in range(6):
        x1 = x[16 * step : 16 * step + 16]
        t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        labels = (torch.arange(len(x1)) % classes,) if classes else ()
        ((net(t, xt, *labels) - ut) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for a, b in zip(average.parameters(), net.parameters(), strict=True):
                a.lerp_(b, 0.5)
    file = folder / "otcfm_weights_step_6.pt"
    wrapped = {f"module.{key}": value for key, value in net.state_dict().items()}  # as under its DataParallel
    torch.save(
        {"net_model": wrapped, "ema_model": average.state_dict(), "optim": optimizer.state_dict(), "step": 6}, file
    )

    def sample(noise: Tensor) -> Tensor:
        labels = (torch.arange(len(noise)) % classes,) if classes else ()
        grid = (1 - flow_grid()).float()
        start = noise * 0.999  # what a state at our first time is
        with torch.no_grad():
            return odeint(lambda t, y: average.eval()(t, y, *labels), start, grid, method="euler")[-1]

    return Theirs(f"torchcfm:{file}?size={SIZE}&head_channels=16", sample)


def ema_pytorch(folder: Path) -> Theirs:
    """ema-pytorch around a network of smalldiffusion: the state dict of its EMA, both networks in it."""
    from ema_pytorch import EMA

    theirs = small(folder)
    file = folder / "model.pt"
    import smalldiffusion as sd

    model = sd.Scaled(sd.Unet)(SIZE, 1, 1, ch=32, ch_mult=(1, 2), attn_resolutions=(4,), num_res_blocks=1)
    model.load_state_dict(torch.load(file, weights_only=True))
    average = EMA(model, beta=0.5, update_after_step=0, update_every=1)
    average.update()  # takes the weights over
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))  # the online network goes on, and is another one
    torch.save(average.state_dict(), file)
    return theirs


class Backbone(torch.nn.Module):
    """A network of one's own: ``(x, t)`` or, for torchcfm's order, ``(t, x)``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(
            torch.nn.Linear(SIZE * SIZE + 1, 64), torch.nn.SiLU(), torch.nn.Linear(64, SIZE * SIZE)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner(torch.cat([x.flatten(1), t.reshape(-1, 1).expand(len(x), 1)], 1)).view_as(x)


def azula(folder: Path) -> Theirs:
    """azula: the loss of its KarrasDenoiser on a network of one's own, its state dict, its DDIM sampler down to t = 0, sigma = 1e-3."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    torch.manual_seed(0)
    denoiser = KarrasDenoiser(Backbone(), VPSchedule())
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    for _ in range(20):
        x = digits()[torch.randint(256, (32,))]
        denoiser.loss(x, torch.rand(len(x))).backward()
        optimizer.step()
        optimizer.zero_grad()
    file = folder / "denoiser.pt"
    torch.save(denoiser.state_dict(), file)

    def sample(noise: Tensor) -> Tensor:
        sampler = DDIMSampler(denoiser.eval(), steps=STEPS, silent=True, dtype=torch.float64)
        return sampler(noise * float(denoiser.schedule(torch.ones(()))[1]))

    return Theirs(str(file), sample)


def flow_matching(folder: Path) -> Theirs:
    """flow_matching: its CondOTProbPath and ODESolver on a network of one's own, saved as its image example does."""
    import argparse

    from flow_matching.path import CondOTProbPath
    from flow_matching.solver import ODESolver

    torch.manual_seed(0)
    net, path = Backbone(), CondOTProbPath()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(20):
        x1 = digits()[torch.randint(256, (32,))]
        sample_ = path.sample(x_0=torch.randn_like(x1), x_1=x1, t=torch.rand(len(x1)))
        ((net(sample_.x_t, sample_.t) - sample_.dx_t) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    file = folder / "checkpoint-0.pth"
    optimizers = {"optimizer": optimizer.state_dict(), "lr_schedule": {}, "scaler": {}}
    torch.save({"model": net.state_dict(), **optimizers, "epoch": 0, "args": argparse.Namespace(lr=1e-3)}, file)

    def sample(noise: Tensor) -> Tensor:
        grid = (1 - flow_grid()).float()
        with torch.no_grad():
            return ODESolver(net.eval()).sample(x_init=noise * 0.999, step_size=None, method="euler", time_grid=grid)

    return Theirs(str(file), sample)
