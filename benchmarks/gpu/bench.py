"""How fast is it on this device? One JSON line per variant as it ends, in falling order of what it is worth.

python bench.py --out out --data cifar.npz --lpips squeeze.pth --seconds 390
python bench.py --device cpu --quick            (a rehearsal)
python bench.py --only sampling                 (only the steps whose name contains this)
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import count as counted

import torch
import torch.nn.functional as F
from common import Journal, arguments, captured, timed, wait

import consistency_lab as cl
from consistency_lab.data.imageset import ImageSet
from consistency_lab.devices import measuring
from consistency_lab.diffusion.denoiser import NetworkDenoiser
from consistency_lab.diffusion.sampling import sample_path, start_state
from consistency_lab.metrics.perceptual import FeatureDistance, random_network
from consistency_lab.networks.diffusers_keys import diffusers_config, to_diffusers_state
from consistency_lab.networks.stacked import StackedNetwork
from consistency_lab.probes.operators import OPERATORS
from consistency_lab.similarity.statistics import pair_score
from consistency_lab.training.lockstep import Lockstep, LockstepLoop, placed
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.train import DenoisingBatches, build_denoiser, training_spec

CHOSEN = arguments(__doc__, seconds=390, data="", lpips="")
DEVICE, QUICK, JOURNAL = CHOSEN.device, CHOSEN.quick, Journal(CHOSEN, "bench")
WARM, COUNT, BATCH = (1, 2, 8) if QUICK else (20, 50, 128)
NOISE, COLOUR = cl.SharedNoise(0), (3, 16, 16) if QUICK else (3, 32, 32)
DIGITS = cl.load_images("digits")
PIXELS = torch.randint(0, 256, (512, *COLOUR), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
COLOURS = cl.load_images(CHOSEN.data) if CHOSEN.data and not QUICK else ImageSet("made-up", PIXELS)
BIG, WIDE = ("unet-ddpm(width=8, groups=4)", "dit(depth=2)") if QUICK else ("unet-ddpm", "dit-s2")
CASES = {"unet": DIGITS, "dit": DIGITS, "mlp": DIGITS, BIG: COLOURS, WIDE: COLOURS}
clock = partial(timed, device=DEVICE, warm=WARM, count=COUNT)


def half(precision: str):
    """bfloat16 as training has it. The cache of casts is off: a CUDA graph must not hold on to it."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def switches(precision: str, **cudnn):
    """float32 as it comes (TF32 in convolutions), strict, tf32 everywhere, or bfloat16 by autocast."""
    stack = ExitStack()
    if precision == "strict":
        stack.enter_context(measuring())
    elif precision == "tf32" or cudnn:
        stack.enter_context(
            torch.backends.cudnn.flags(
                enabled=True, allow_tf32=True, **{"benchmark": False, "deterministic": False} | cudnn
            )
        )
    if precision == "tf32":
        stack.callback(setattr, torch.backends.cuda.matmul, "allow_tf32", torch.backends.cuda.matmul.allow_tf32)
        torch.backends.cuda.matmul.allow_tf32 = True
    return stack


def loop_of(network, images, precision="float32", prepare=lambda denoiser: None, adam=None, seed=0):
    """The package's own loop; ``prepare`` changes the denoiser before the loop is made, ``adam`` the options of its optimizer."""
    precision = precision if precision == "bfloat16" else "float32"
    settings = cl.TrainingSettings(network=network, steps=100_000, batch=BATCH, precision=precision, lr=2e-4, seed=seed)
    denoiser = build_denoiser(training_spec(images, settings, DEVICE)).to(DEVICE)
    prepare(denoiser)
    loop = TrainingLoop(denoiser, cl.denoising_loss, DenoisingBatches(images, settings, DEVICE), settings, DEVICE)
    for group in loop.descent.optimizer.param_groups:
        group.update(adam or {})
    return loop


def training(network, images, precision, cudnn=None, ahead=False, **changes) -> dict:
    with switches(precision, **(cudnn or {})):
        loop = loop_of(network, images, precision, **changes)
        if ahead:  # what would be left if making batches cost nothing
            made = [loop.source.batch(step) for step in range(8)]
            loop.source.batch = lambda step: made[step % 8]
        steps = iter(loop)
        return clock(lambda: next(steps), trace=not (cudnn or ahead or changes))


FUSED = {"fused": True, "foreach": False}
CAPTURABLE = {"capturable": True} if DEVICE.type == "cuda" else {}


def graphed(network, images, precision) -> dict:
    """Loss, gradients, clipping, Adam and average as one CUDA graph: alone, and with batches made as they are now and copied in."""
    loop = loop_of(network, images, precision, adam=FUSED | CAPTURABLE)
    optimizer, batch = loop.descent.optimizer, loop.source.batch(0)
    live = [p.detach() for p in loop.module.parameters()]
    kept = [value.clone() for value in live]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with half(precision):
            losses = cl.denoising_loss(loop.module, *batch.data).float()
        (batch.weight * losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(loop.descent.parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(kept, live, 0.001)  # a rate of its own at each step would be a tensor

    replay, number = captured(step, DEVICE), counted(1)

    def fed() -> None:
        fresh = loop.source.batch(next(number))
        for old, new in zip((*batch.data, batch.weight), (*fresh.data, fresh.weight), strict=True):
            old.copy_(new)
        replay()

    return {"graph_alone": clock(replay), **clock(fed, trace=True)}


def lockstep(network, images, seeds, precision="float32") -> dict:
    """So many seeds of one network, trained at once by the package's own lock-step."""
    settings = [
        cl.TrainingSettings(network=network, steps=100_000, batch=BATCH, precision=precision, lr=2e-4, seed=seed)
        for seed in range(seeds)
    ]
    loops = []
    for each in placed(settings):
        denoiser = build_denoiser(training_spec(images, each, DEVICE)).to(DEVICE)
        loops.append(LockstepLoop(denoiser, cl.denoising_loss, DenoisingBatches(images, each, DEVICE), each, DEVICE))
    group, walks = Lockstep(loops), [iter(loop) for loop in loops]

    def step() -> None:
        group.differentiate(loops)
        for walk in walks:
            next(walk)

    found = clock(step, trace=True)
    return {**found, "ms_a_seed": round(found["ms"] / seeds, 4)}


def twin(network):
    """diffusers' own module with the same weights."""
    from diffusers import UNet2DModel

    other = UNet2DModel.from_config(diffusers_config(network))
    other.load_state_dict(to_diffusers_state(network))
    return other.to(DEVICE)


def diffusers_training(precision: str) -> dict:
    """The loop of diffusers' unconditional example: its scheduler, its average, its loss; the same clipping and Adam."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    loop = loop_of(BIG, COLOURS)
    model, scheduler = twin(loop.module.network), DDPMScheduler(1000, beta_schedule="linear")
    average, optimizer = EMAModel(model.parameters()), torch.optim.Adam(model.parameters(), lr=2e-4)
    images = COLOURS.batch(torch.arange(min(len(COLOURS), 1024))).to(DEVICE)

    def step() -> None:
        clean = images[torch.randint(len(images), (BATCH,), device=DEVICE)]
        noise, t = torch.randn_like(clean), torch.randint(0, 1000, (BATCH,), device=DEVICE)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16"):
            predicted = model(scheduler.add_noise(clean, noise, t), t).sample
            loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(model.parameters())

    return clock(step)


MODELS: list[
    cl.DiffusionModel
] = []  # two that were trained a little: what an untrained network draws shows no difference
TRUTH: dict[str, torch.Tensor] = {}  # their strict images
FEW, MANY, STEPS = (4, 8, 4) if QUICK else (256, 1024, 50)


def a_little() -> dict:
    for seed in (0, 1):
        loop, start = loop_of(BIG, COLOURS, "bfloat16", seed=seed), time.monotonic()
        steps = iter(loop)
        while time.monotonic() - start < (1 if QUICK else 15):
            taken = next(steps)
        loop.module.load_state_dict(loop.average.weights)
        MODELS.append(cl.DiffusionModel(f"s{seed}", loop.module.eval()))
    return {"steps_of_the_last": taken.step, "loss": float(taken.loss)}


def walked(denoiser, precision, images, steps):
    """Our sampler with other switches than those that measurements have."""
    start = start_state(denoiser, NOISE.initial(range(images), denoiser.shape, DEVICE))
    with switches(precision), half(precision):
        for step in sample_path(denoiser, start, cl.Sampler(steps=steps)):
            last = step
    wait(DEVICE)
    return last.x_t.float()


def once(work) -> tuple[float, torch.Tensor]:
    wait(DEVICE)
    start = time.perf_counter()
    found = work()
    wait(DEVICE)
    return 1e3 * (time.perf_counter() - start), found


def sampling(precision: str) -> dict:
    """ms an image and evaluation in chunks of 256 and 1024; the largest pixel difference to strict; the pair's score."""
    walked(MODELS[0].denoiser, precision, FEW, 2)
    spent, images = once(lambda: torch.stack([walked(m.denoiser, precision, FEW, STEPS) for m in MODELS]))
    TRUTH.setdefault(precision, images)
    metric = cl.METRICS.build("mse")
    a, b = (metric.embed(x.cpu()) for x in images)
    long, _ = once(lambda: walked(MODELS[0].denoiser, precision, MANY, STEPS // 4))
    score = pair_score(metric.between(a, b).cpu().numpy(), metric.null(a, b).cpu().numpy())
    return {
        f"ms_chunk_{FEW}": spent / (2 * FEW * STEPS),
        f"ms_chunk_{MANY}": long / (MANY * (STEPS // 4)),
        "largest_difference": float((images - TRUTH["strict"]).abs().max()),
        "score": float(score.estimate),
    }


@torch.no_grad()
def diffusers_sampling(precision: str) -> dict:
    """diffusers' DDIM on the same weights and noise; ``trailing`` visits our times."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(1000, beta_schedule="linear", clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(STEPS)
    model, start = twin(MODELS[0].denoiser.network).eval(), NOISE.initial(range(FEW), COLOUR, DEVICE)

    def walk():
        x = start * float(MODELS[0].denoiser.schedule.sigma(1.0))
        with switches(precision), half(precision):
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t).sample.float(), t, x).prev_sample
        return x

    model(start[:2], 10)
    spent, images = once(walk)
    return {
        f"ms_chunk_{FEW}": spent / (FEW * STEPS),
        "largest_difference": float((images - TRUTH["strict"][0]).abs().max()),
    }


@torch.no_grad()
def stacked_sampling(seeds: int) -> dict:
    """K digit U-Nets sampled one after another, and at once with their networks stacked."""
    modules = [loop_of("unet", DIGITS, seed=seed).module.eval() for seed in range(seeds)]
    for module in modules:  # conv_out begins at 0: without this all would give the same
        torch.nn.init.normal_(module.network.conv_out.weight, std=0.02)
    start = start_state(modules[0], NOISE.initial(range(FEW), modules[0].shape, DEVICE))
    sampler, base = cl.Sampler(steps=STEPS), modules[0]

    def one_after_another():
        with measuring():
            return torch.cat([list(sample_path(m, start, sampler))[-1].x_t for m in modules])

    one_after_another()
    apart, sequence = once(one_after_another)
    stacked = NetworkDenoiser(StackedNetwork([m.network for m in modules]), base.schedule, base.shape, base.predicts)

    def at_once():
        with measuring():
            return list(sample_path(stacked, start.repeat(seeds, 1, 1, 1), sampler))[-1].x_t

    at_once()
    together, images = once(at_once)
    return {
        "ms_in_sequence": apart,
        "ms_stacked": together,
        "largest_difference": float((images - sequence).abs().max()),
    }


def metric_on(name: str, device: torch.device) -> dict:
    x, y = (
        torch.rand(FEW, *COLOUR, generator=torch.Generator().manual_seed(k)).mul(2).sub(1).to(device) for k in (0, 1)
    )
    if name == "lpips-squeeze":  # the same work with random weights
        metric = FeatureDistance(random_network("squeeze"), "squeeze", "random", "random")
        if CHOSEN.lpips:
            metric = cl.METRICS.build(f"lpips-squeeze(weights={CHOSEN.lpips!r}, rounded=True)")
    else:
        metric = cl.METRICS.build(name)

    def whole():
        a, b = metric.embed(x), metric.embed(y)
        return metric.between(a, b).mean() + metric.null(a, b).mean()

    found = timed(whole, device, 2, 2 if QUICK else 8)
    return {**found, "images": 2 * FEW, "value": float(whole())}


def products(network, images, few: int, columns: int) -> dict:
    """ms of one Hessian-vector product when so many are taken as one block."""
    module = loop_of(network, images).module.eval()
    torch.nn.init.normal_(module.network.conv_out.weight, std=0.02)
    operator = OPERATORS["hessian"](cl.diffusion_subject(cl.DiffusionModel("m", module), images, count=few, bins=2))
    block = torch.randn(operator.size, columns, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    found = timed(lambda: operator @ block, DEVICE, 1, 2 if QUICK else 5)
    return {**found, "ms_a_product": round(found["ms"] / columns, 4)}


def path_noise() -> dict:
    """The shared noise of one ancestral step of 50, and of a start; drawn on the CPU whatever the device."""
    start, _ = once(lambda: NOISE.initial(range(FEW), COLOUR, DEVICE))
    step, _ = once(lambda: NOISE.increment(range(FEW), COLOUR, 0.50, 0.48, DEVICE))
    return {"ms_start": start, "ms_step_of_50": step, "seconds_of_50_steps": 50 * step / 1e3, "images": FEW}


def compile_network(denoiser) -> None:
    torch._dynamo.reset()
    denoiser.network.compile(dynamic=False)


def main() -> int:
    go = JOURNAL.attempt
    nets = list(CASES.items())
    base = {
        name: "bfloat16" if name in (BIG, WIDE) else "float32" for name in CASES
    }  # what changes are measured against
    for precision in ("float32", "strict", "bfloat16"):
        for name, images in nets:
            go(f"train {name} {precision}", 20, partial(training, name, images, precision))
    for name, images in nets:
        go(f"train {name} {base[name]} + graph", 25, partial(graphed, name, images, base[name]))
    changes = {
        "batches ahead": {"ahead": True},
        "fused": {"adam": FUSED},
        "benchmark": {"cudnn": {"benchmark": True}},
        "deterministic": {"cudnn": {"deterministic": True}},
        "contiguous": {"prepare": lambda denoiser: denoiser.to(memory_format=torch.contiguous_format)},
    }
    for change, options in changes.items():
        for name, images in nets:
            if change in ("batches ahead", "fused") or name in (
                "unet",
                BIG,
            ):  # the others have no convolutions to speak of
                go(f"train {name} {base[name]} + {change}", 20, partial(training, name, images, base[name], **options))
    for seeds in (1, 2) if QUICK else (1, 2, 4, 8, 16):
        for name in ("unet", "mlp", "dit"):
            go(f"lockstep {name} K={seeds}", 20, partial(lockstep, name, DIGITS, seeds))
    go(f"lockstep {BIG} K=2 bfloat16", 30, partial(lockstep, BIG, COLOURS, 2, "bfloat16"))
    for precision in ("float32", "bfloat16"):
        go(f"train diffusers' loop {precision}", 25, partial(diffusers_training, precision))
    go("sampling: two trained a little", 60, a_little)
    for precision in ("strict", "tf32", "bfloat16"):
        go(f"sampling ours {precision}", 60, partial(sampling, precision))
        go(f"sampling diffusers {precision}", 40, partial(diffusers_sampling, precision))
    go("sampling 8 stacked", 30, partial(stacked_sampling, 2 if QUICK else 8))
    go("path noise", 30, path_noise)
    for metric in ("mse", "cosine", "ssim", "lpips-squeeze"):
        for device in dict.fromkeys((torch.device("cpu"), DEVICE)):
            go(f"metric {metric} on {device.type}", 20, partial(metric_on, metric, device))
    for columns in (1, 2) if QUICK else (1, 4, 16):
        go(f"hessian unet k={columns}", 20, partial(products, "unet", DIGITS, 4 if QUICK else 32, columns))
    go(f"hessian {BIG} k=2", 30, partial(products, BIG, COLOURS, 2 if QUICK else 8, 2))
    # Compiling takes a minute for a large network: last, so that nothing else waits for it.
    for name, images in (
        [("mlp", DIGITS)]
        if QUICK
        else [("unet", DIGITS), ("mlp", DIGITS), (BIG, COLOURS), ("dit", DIGITS), (WIDE, COLOURS)]
    ):
        go(
            f"train {name} {base[name]} + compile",
            90,
            partial(training, name, images, base[name], prepare=compile_network),
        )
    JOURNAL.write({"step": "end", "failed": JOURNAL.failed})
    return 0


if __name__ == "__main__":
    sys.exit(main())
