"""Presets name specs: what to train, compare and probe on a data set, sized for a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from consistency_lab.contrast.settings import GANSettings, VAESettings
from consistency_lab.errors import unknown_name
from consistency_lab.paper.plans import LikenessPlan, SizesPlan
from consistency_lab.training.settings import LoopSettings, TrainingSettings

if TYPE_CHECKING:
    from consistency_lab.paper.race.plan import RacePlan
    from consistency_lab.studies.demo import DemoPlan, QuickPlan

T = TypeVar("T")
_FAMILY = 4  # models a family: an interval over models wants four or more
_UNET = TrainingSettings.of(network="unet", steps=1500)
_DIT = TrainingSettings.of(network="dit", steps=1500)
_MLP = TrainingSettings.of(network="mlp", steps=1500)


# Families that meet no other, so that no permutation needs four, and whose models take the longest.
_FEWER = {("fashion", "gan"): 3}


def _seeds(settings: LoopSettings, models: int = _FAMILY) -> tuple[LoopSettings, ...]:
    return tuple(settings.replace(seed=seed) for seed in range(models))


_ANNEALED = TrainingSettings(lr_final=0.1)
# Preconditioned (Karras et al. 2206.00364), so that few pixels leave the range of an image after short runs too.
_EDM = TrainingSettings.of(
    predicts="edm", weighting="edm", schedule="edm", timesteps="edm_lognormal", lr_final=0.02, lr_warmup=200
)
_GAN = GANSettings(batch=64, snapshots=0)
_IMAGE_GAN = _GAN.replace(generator="image(network='unet')")
_DATA: dict[str, tuple[str, int | str]] = {
    "digits": ("digits", 297),
    "fashion": ("fashion-mnist", "fashion-mnist(split='test')"),
    "paper": ("cifar10", 5000),
}
# The paper's CIFAR-10 at 32x32. Its networks and settings could not be read; these are DDPM's (Ho, Jain & Abbeel 2020, appendix B), in
# bfloat16, and a DiT, a GAN and a VAE beside them.
_PAPER = TrainingSettings.of(
    network="unet-ddpm", steps=800_000, batch=128, lr=2e-4, lr_warmup=5000, precision="bfloat16"
)
_SSIM = {
    "digits": "ssim(sigma=0.8)",
    "fashion": "ssim",
    "paper": "ssim",
}  # the usual window of 11 pixels is wider than a digit


def _main_families(preset: str) -> dict[str, LoopSettings]:
    if preset == "digits":
        return {
            "unet": _ANNEALED.replace(network="unet", steps=2000),
            "dit": _ANNEALED.replace(network="dit", steps=2000),
            "mlp": _ANNEALED.replace(network="mlp", steps=3000),
            "gan": _GAN,
            "gan-image": _IMAGE_GAN.replace(steps=2500),
            "vae": VAESettings.of(autoencoder="conv(width=16)", steps=2000, lr_final=0.1, snapshots=0),
        }
    if preset == "paper":
        gan = _GAN.replace(steps=200_000, discriminator="conv(width=64)", lr=2e-4)
        return {
            "unet": _PAPER,
            "dit": _PAPER.replace(network="dit-s2"),
            "gan": gan.replace(generator="latent(latent=128, width=64)"),
            "vae": VAESettings.of(
                autoencoder="conv(latent=128, width=64)", steps=200_000, batch=128, lr=2e-4, snapshots=0
            ),
        }
    gan = GANSettings.of(
        generator="latent(latent=64, width=16)",
        discriminator="conv(width=16)",
        penalty_every=4,
        batch=64,
        lr=5e-4,
        lr_final=0.1,
        steps=6000,
        snapshots=0,
    )
    vae = VAESettings.of(
        autoencoder="conv(latent=16, width=16)", beta=1.0, batch=64, lr=1e-3, lr_final=0.02, snapshots=0
    )
    return {
        "unet": _EDM.replace(network="unet(multipliers=(1,2,4))", batch=32, steps=2000),
        "dit": _EDM.replace(network="dit(width=96, depth=4, patch=4)", batch=32, steps=3000, lr=1e-3),
        # Its hidden layers are narrower than an image and cannot hand noise through, as preconditioning asks: it predicts x0.
        "mlp": _EDM.replace(
            network="mlp(width=256, depth=2)", predicts="x0", objective="x0", weighting="none", steps=10_000, lr=1e-3
        ),
        "gan": gan,
        "vae": vae.replace(steps=1000),
    }


# The zoo holds models of the main families, most trained for longer than four of each can be in a session of two cores.
_ZOO: dict[str, dict[str, int]] = {
    "unet": {"batch": 64, "steps": 8000},
    "dit": {"batch": 64, "steps": 10_000},
    "mlp": {"steps": 30_000},
    "gan": {},  # after fewer steps GANs of this size are no evidence
    "vae": {"steps": 3000},
}


# What models are trained on for one question alone, and the small U-Net of Fashion-MNIST that they are.
_STUDIED = {preset: _DATA[preset] for preset in ("digits", "fashion")}
_SMALL = {"network": "unet(width=8, multipliers=(1,2,4))", "batch": 32, "steps": 1500, "lr": 4e-3, "snapshots": 0}


def _studied(preset: str) -> TrainingSettings:
    """One small network that predicts eps, in runs that are short enough for many families: what varies is varied from it."""
    mlp = {"network": "mlp", "steps": 1500, "snapshots": 0}
    return _ANNEALED.replace(**{"digits": mlp, "fashion": _SMALL}[preset])


def likeness_plan(preset: str) -> LikenessPlan:
    """The main table of a preset: diffusion models of up to three architectures, GANs and a VAE, four models each (three of
    Fashion-MNIST's GANs).

    Raises `UserError` for a preset that does not exist.
    """
    data, held_out = _known(preset, _DATA)
    families = {
        name: _seeds(each, _FEWER.get((preset, name), _FAMILY)) for name, each in _main_families(preset).items()
    }
    emergence = tuple(name for name in ("unet", "dit", "mlp") if name in families)
    metrics = ("mse", "cosine", _SSIM[preset])
    probed = 64 if preset == "digits" else 32  # larger networks, the same hours
    return LikenessPlan(data, held_out, families, metrics=metrics, probed=probed, emergence=emergence)


def parametrisation_plan(preset: str) -> LikenessPlan:
    """One network, other parametrisations and objectives. Raises `UserError` for a preset that does not exist.

    ``eps/x0`` is mean prediction with an outer skip: the network's output is an eps, and the error that is minimised is that of
    x0 = (x_t - sigma eps) / alpha.
    """
    data, held_out = _known(preset, _STUDIED)
    base = _studied(preset)
    ways = {
        "eps": base,
        "x0": base.replace(predicts="x0", objective="x0"),
        "x0/eps": base.replace(predicts="x0", objective="eps"),
        "eps/x0": base.replace(predicts="eps", objective="x0"),
        "v": base.replace(predicts="v", objective="v"),
        "edm": base.replace(predicts="edm", weighting="edm"),
        "flow": base.replace(predicts="flow", objective="flow", schedule="flow"),
    }
    return LikenessPlan(data, held_out, {name: _seeds(each) for name, each in ways.items()})


def streams_plan(preset: str) -> LikenessPlan:
    """Families in which one stream of random numbers varies alone. Raises `UserError` for a preset that does not exist."""
    data, held_out = _known(preset, _STUDIED)
    base = _studied(preset)
    if preset == "fashion":  # preconditioned, so that few pixels leave the range of an image
        base = base.replace(predicts="edm", weighting="edm")
    families = {"all three": _seeds(base)}
    for stream, name in (
        ("init_seed", "initialisation"),
        ("order_seed", "data order"),
        ("noise_seed", "training noise"),
    ):
        families[name] = tuple(base.replace(**{stream: seed}) for seed in range(_FAMILY))
    return LikenessPlan(data, held_out, families, crosses=False)


def origins_plan(preset: str) -> LikenessPlan:
    """How much of the consistency of the main diffusion families each closed-form denoiser explains, the local one among them.

    Raises `UserError` for a preset that does not exist.
    """
    main = likeness_plan(preset)
    families = {name: main.families[name] for name in main.emergence}
    local = {
        "digits": "local(window=3)",
        "fashion": "local(window=5, most=1000)",
        "paper": "local(window=5, most=1000)",
    }[preset]
    few = {"digits": 128, "fashion": 64, "paper": 64}[preset]
    references = ("gaussian", local, "optimal")
    return replace(
        main,
        families=families,
        metrics=("mse",),
        count=few,
        sampler_steps=25,
        quality=False,
        crosses=False,
        references=references,
    )


def guidance_plan(preset: str) -> LikenessPlan:
    """Class-conditional models over scales of guidance, beside unconditional ones. Raises `UserError` for an unknown preset."""
    data, held_out = _known(preset, _STUDIED)
    names = ("unet", "mlp") if preset == "digits" else ("unet",)
    families = {name: _main_families(preset)[name] for name in names}
    families |= {f"{name}, labels": each.replace(conditional=True, snapshots=0) for name, each in families.items()}
    models = {name: _seeds(each) for name, each in families.items()}
    plan = LikenessPlan(data, held_out, models, crosses=False, scales=(1.0, 2.0, 4.0))
    return plan if preset == "digits" else replace(plan, count=128, quality_count=500)


def sampling_plan(preset: str) -> LikenessPlan:
    """What the main diffusion families agree on under stochastic sampling. Raises `UserError` for a preset that does not exist."""
    return replace(likeness_plan(preset), metrics=("mse", "cosine"), count=128, sampler_steps=50)


def perceptual_plan(preset: str) -> LikenessPlan:
    """LPIPS beside the squared error, per noise level, at the images' own size. Raises `UserError` for an unknown preset."""
    data, held_out = _known(preset, {"fashion": _DATA["fashion"], "cifar10": ("cifar10(split='test')", 1000)})
    small = _EDM.replace(network="unet", batch=32, steps=2000, snapshots=0)
    models = _main_families(preset)["unet"] if preset in _DATA else small
    return LikenessPlan(
        data, held_out, {"unet": _seeds(models)}, metrics=("mse", "lpips-squeeze"), count=128, quality=False
    )


def _known(preset: str, plans: Mapping[str, T]) -> T:
    if preset not in plans:
        raise unknown_name("preset of this study", preset, plans)
    return plans[preset]


def sizes_plan(preset: str) -> SizesPlan:
    """The size sweep of a preset. Raises `UserError` for one that does not exist."""
    networks = tuple(each.replace(snapshots=0) for each in (_MLP, _UNET, _DIT))
    plans = {
        "digits": SizesPlan("digits", (8, 32, 128, 400, 898), networks),
        "fashion": SizesPlan("fashion-mnist", (64, 512, 4096, 30_000), (_EDM.replace(**_SMALL),)),
    }
    return _known(preset, plans)


def demo_plan(preset: str) -> DemoPlan:
    """The demo of a preset. Raises `UserError` for one that does not exist."""
    from consistency_lab.studies.demo import DemoPlan  # imports torch, which --help must not wait for

    runs = {
        "unet-s0": _UNET,
        "unet-s1": _UNET.replace(seed=1),
        "dit-s2": _DIT.replace(seed=2),
        "mlp-s3": _MLP.replace(seed=3),
    }
    plans = {"digits": lambda: DemoPlan(data="digits", held_out=297, runs=runs, pilot="mlp-s3", count=256)}
    if preset not in plans:
        raise unknown_name("preset", preset, plans)
    return plans[preset]()


def zoo_plan() -> dict[str, LoopSettings]:
    """The models that ship with the package, by name: two of each main family of Fashion-MNIST but one (see `zoo`)."""
    families = _main_families("fashion")
    return {
        f"fashion-{name}-s{seed}": families[name].replace(seed=seed, **longer)
        for name, longer in _ZOO.items()
        for seed in (0, 1)
    }


def _shipped() -> dict[str, tuple[str, ...]]:
    """Family -> names of the zoo's models."""
    families: dict[str, tuple[str, ...]] = {}
    for name in zoo_plan():
        kind = name.split("-")[1]
        families[kind] = (*families.get(kind, ()), name)
    return families


def shipped_plan(preset: str) -> LikenessPlan:
    """The models that ship with the package, two a family: trained for longer, so that GANs are as good as diffusion models.

    Raises `UserError` for a preset of which none ships.
    """
    data, held_out = _known(preset, {"fashion": _DATA["fashion"]})
    metrics = ("mse", "cosine", _SSIM[preset])
    return LikenessPlan(data, held_out, {}, metrics=metrics, crosses=False, shipped=_shipped())


def quick_plan() -> QuickPlan:
    """The demo that trains nothing: the zoo's diffusion models of three architectures, and its GANs and VAEs for contrast."""
    from consistency_lab.studies.demo import QuickPlan  # imports torch, which --help must not wait for

    names = _shipped()
    families = {
        "comparison": (*names["unet"], *names["dit"], *names["mlp"]),
        "comparison-gan": names["gan"],
        "comparison-vae": names["vae"],
    }
    return QuickPlan(families, "fashion-mnist", ("mse",), count=32, sampler={"method": "dpm++2m", "steps": 12})


TABLES: dict[str, Callable[[str], LikenessPlan]] = {
    "likeness": likeness_plan,
    "emergence": likeness_plan,
    "parametrisation": parametrisation_plan,
    "streams": streams_plan,
    "origins": origins_plan,
    "why": likeness_plan,
    "perceptual": perceptual_plan,
    "sampling": sampling_plan,
    "guidance": guidance_plan,
    "zoo": shipped_plan,
}


def race_plan(preset: str) -> RacePlan:
    """The race of a preset. Raises `UserError` for one that does not exist."""
    from consistency_lab.paper.race.plan import RacePlan  # imports torch, which --help must not wait for

    # The average's half-life is 5 % of the steps so far at every step, see paper/race/race.py.
    base = _MLP.replace(steps=1200, snapshots=0, ema_half_life=0.05)
    fashion = RacePlan(
        "fashion-mnist",
        held_out=1000,
        # An MLP of this size needs thousands of steps to get below the loss of the best linear denoiser, and no target above it counts.
        # The rate is the best of .002, .004 and .008 for the control at 16x16, in runs of a seed that no race has (3000).
        base=base.replace(network="unet(width=8)", batch=32, steps=600, lr=8e-3),
        horizons=(0.5, 0.75, 1.0),
        length=1.0,
        seeds=3,
        pilot_steps=200,
        images=10_000,
        every=20,
    )
    plans = {
        "digits": lambda: RacePlan(
            "digits",
            held_out=297,
            base=base.replace(steps=1500),
            seeds=5,
            pilot_steps=200,
            every=20,
        ),
        "fashion-16": lambda: replace(fashion, data="fashion-mnist(size=16)"),
        "fashion": lambda: fashion,
        "paper": lambda: RacePlan(
            "cifar10",
            held_out=5000,
            base=_PAPER.replace(snapshots=0, ema_half_life=0.05),
            seeds=3,
            pilot_steps=80_000,
            every=2000,
        ),
    }
    if preset not in plans:
        raise unknown_name("preset", preset, plans)
    return plans[preset]()
