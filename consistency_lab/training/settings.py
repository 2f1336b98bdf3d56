"""What a training run is made of. This module imports no torch, so that the command line can read it at once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import cattrs

from consistency_lab.choices import Choice, ChosenField, Registry, chosen
from consistency_lab.errors import UserError, unknown_name
from consistency_lab.inputs import check_file
from consistency_lab.json_text import parsed


@dataclass(frozen=True)
class DiffusionSettings:
    """What a diffusion model is, and what it is trained to do."""

    network: Choice = chosen("unet", "networks.registry:NETWORKS")
    """network, for example 'unet', 'dit(depth=3)', 'mlp(width=512)'"""
    predicts: Choice = chosen("eps", "diffusion.parametrisation:PREDICTIONS")
    """what the network predicts: eps, x0, v, flow, edm (preconditioned; its sigma_data is measured on the set) or gaussian (a correction of
    the closed-form denoiser of the set's mean and covariance)"""
    conditional: bool = False
    """give the network the labels of the images"""
    label_dropout: float = 0.1
    """share of labels that a conditional model is not shown, for guidance"""
    schedule: Choice = chosen("linear", "diffusion.schedule:SCHEDULES")
    """noise schedule: linear (the paper's), cosine, edm, flow"""
    timesteps: Choice = chosen("uniform", "training.timesteps:TIMESTEPS")
    """density of training times: uniform, stratified, 'clts(center=0.3, width=0.2)', 'beta(a=2.0, b=2.0)', logit_normal, edm_lognormal,
    'density(values=(1.0, 2.0))', loss_second_moment, loss_root, clusters, speed"""
    objective: Literal["eps", "x0", "v", "flow"] = "eps"
    """units of the squared error that is minimised, whatever the network predicts"""
    weighting: Choice = chosen("none", "training.weighting:WEIGHTINGS")
    """weight of the error over time: none (1 in the units of the objective), 'min-snr(gamma=5.0)', p2, edm, speed"""
    target: Choice = chosen("sample", "training.targets:TARGETS")
    """what is to be said of a noisy image: sample, the image and noise that made it; or 'posterior(images=1024)', their mean over so many
    training images that could have, a target of less noise and the same mean"""


_LARGEST_SEED = 2**64 - 1
_LATER: dict[str, Any] = {"flip": False, "lockstep": "", "target": Choice("sample")}


# Words of other libraries, and what they are here.
_ELSEWHERE = {
    "learning_rate": "the peak learning rate is lr, as in torch.optim",
    "batch_size": "images a step are batch",
    "weight_decay": "write optimizer='adamw(weight_decay=0.01)'",
    "betas": "write optimizer='adam(beta1=0.9, beta2=0.999)'",
    "epochs": "the length of a run is steps; an epoch is len(images) // batch of them",
    "num_epochs": "the length of a run is steps; an epoch is len(images) // batch of them",
    "max_steps": "the length of a run is steps",
    "warmup_steps": "warm-up is lr_warmup, in steps",
    "grad_clip": "the norm that gradients are scaled down to is clip_norm",
    "model": "a network of your own is network=..., and a model to go on from is start=...",
}


@dataclass(frozen=True)
class LoopSettings:
    """How any model is trained: the part of the settings that is the same for all kinds of models."""

    steps: int = 1500
    """optimizer steps"""
    batch: int = 128
    """images per step"""
    flip: bool = False
    """mirror each image of a step left to right with probability one half: the data are taken to be as likely mirrored"""
    optimizer: Choice = chosen("adam", "training.optimizers:OPTIMIZERS")
    """adam, 'adamw(weight_decay=0.01)', 'sgd(momentum=0.9)' or 'muon(momentum=0.95)'"""
    lr: float = 2e-3
    """peak learning rate"""
    lr_warmup: int = 50
    """steps over which the learning rate rises linearly from 0"""
    lr_final: float = 1.0
    """learning rate at the end as a fraction of the peak, reached linearly (1: constant)"""
    momentum: Choice = chosen("constant", "training.momentum:MOMENTUM_RULES")
    """momentum rule: constant, mdlrc, beta_decay_only, effective_lr, demon_adam"""
    clip_norm: float = 1.0
    """gradients are scaled down to this norm; 0: never"""
    ema_half_life: float = 0.03
    """half-life of the weight average as a fraction of the run"""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """of training, whatever torch is set to: float32; tf32 in a GPU's products; bfloat16 by autocast (measurements are in float32)"""
    snapshots: int = 8
    """weights kept along the run, at log-spaced steps"""
    seed: int = 0
    """seed of all three streams that are not set below"""
    init_seed: int | None = None
    """initialisation of the network"""
    order_seed: int | None = None
    """order of the data"""
    noise_seed: int | None = None
    """training times and noise"""

    def __post_init__(self) -> None:
        positive = {"steps": self.steps, "batch": self.batch, "lr": self.lr, "ema_half_life": self.ema_half_life}
        for key, value in positive.items():
            if not value > 0:
                raise UserError(f"{key} must be above 0, not {value!r}.")
        for key in ("lr_warmup", "clip_norm", "snapshots", "seed", "init_seed", "order_seed", "noise_seed", "lr_final"):
            if (value := getattr(self, key)) is not None and not value >= 0:
                raise UserError(f"{key} must be 0 or more, not {value!r}.")
        for key in ("seed", "init_seed", "order_seed", "noise_seed"):
            if (seed := getattr(self, key)) is not None and seed > _LARGEST_SEED:
                raise UserError(f"{key} must be a whole number from 0 to 2^64 - 1, not {seed!r}.")

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """From keywords. Raises `UserError` for an unknown key, with the nearest, or a value of the wrong type."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in settings:
            if key in _ELSEWHERE and key not in known:
                raise UserError(f"there is no training setting {key!r}; {_ELSEWHERE[key]}.")
            if key not in known:
                raise unknown_name("training setting", key, known)
        try:
            return _CONVERTER.structure(settings, cls)
        except cattrs.BaseValidationError as group:
            if refused := group.subgroup(UserError):  # by __post_init__, in its own sentence
                raise refused.exceptions[0] from None
            wrong = (text.rpartition(" @ $.") for text in cattrs.transform_error(group, format_exception=_reason))
            raise UserError(f"training settings: {'; '.join(f'{key}: {what}' for what, _, key in wrong)}.") from None

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """From a JSON file with the same keys."""
        check_file(path)
        try:
            content = parsed(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the settings file {path}: {error}.") from None
        if not isinstance(content, dict):
            raise UserError(f"the settings file {path} must hold one JSON object with training settings.")
        try:
            return cls.of(**content)
        except UserError as error:
            raise UserError(f"the settings file {path} cannot be used: {error}") from None

    @property
    def seeds(self) -> dict[str, int]:
        """The three streams, resolved."""
        chosen = {"init": self.init_seed, "order": self.order_seed, "noise": self.noise_seed}
        return {name: self.seed if value is None else value for name, value in chosen.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked like `of`."""
        return self.of(**{**self.values, **changes})

    @property
    def values(self) -> dict[str, Any]:
        """Setting -> value, in order."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def texts(self) -> dict[str, Any]:
        """The same as JSON takes it: what is chosen by name as text, and what was added later left out at its default, as in `spec`."""
        return {key: str(value) if isinstance(value, Choice) else value for key, value in self._told.items()}

    @property
    def _told(self) -> dict[str, Any]:
        """The values without settings that were added later and are at their defaults: hashes of what is older stay as they were."""
        return {key: value for key, value in self.values.items() if key not in _LATER or value != _LATER[key]}

    @classmethod
    def _chosen(cls) -> dict[str, ChosenField]:
        fields = ((field.name, inspect.getattr_static(cls, field.name, None)) for field in dataclasses.fields(cls))
        return {name: declared for name, declared in fields if isinstance(declared, ChosenField)}

    @classmethod
    def registries(cls) -> dict[str, Registry[Any]]:
        """Setting -> where its choice is looked up, for each that is chosen by name."""
        return {name: declared.registry for name, declared in cls._chosen().items()}

    @classmethod
    def homes(cls) -> dict[str, str]:
        """Setting -> room and name of that registry, ``"networks.registry:NETWORKS"``; nothing is imported."""
        return {name: declared.home for name, declared in cls._chosen().items()}

    def spec(self) -> dict[str, Any]:
        """The settings as a spec has them: every choice a dict with all its options, seeds resolved. Undone by `from_spec`."""
        seeds = ("seed", "init_seed", "order_seed", "noise_seed")
        facts = {key: value for key, value in self._told.items() if key not in seeds}
        facts |= {
            key: registry.resolve(facts[key]).facts for key, registry in self.registries().items() if key in facts
        }
        return {**facts, "seeds": self.seeds}

    @classmethod
    def from_spec(cls, facts: Mapping[str, Any]) -> Self:
        """The settings that `spec` was made from, their seeds resolved."""
        settings = {key: value for key, value in facts.items() if key != "seeds"}
        return cls.of(**settings, **{f"{stream}_seed": seed for stream, seed in facts["seeds"].items()})

    def with_one_seed(self) -> Self:
        """The same settings with ``seed`` in the place of three streams that are alike, so that another ``seed`` means what it says."""
        if len(seeds := set(self.seeds.values())) > 1:
            return self
        return self.replace(seed=seeds.pop(), init_seed=None, order_seed=None, noise_seed=None)


@dataclass(frozen=True)
class TrainingSettings(LoopSettings, DiffusionSettings):
    """The settings of one training run; together with the data they decide its result.

    Anything that is chosen by name is written ``name`` or ``name(option=value)``, in a JSON file also ``{"name": name, "option": value}``.
    """

    lockstep: str = ""
    """'2/8': the second of 8 networks that are computed at once in training, on which its last bits depend; empty: by itself"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_dropout <= 1:
            raise UserError(f"label_dropout is a share, from 0 to 1, not {self.label_dropout!r}.")
        self.place  # noqa: B018  (refuses what is none)

    @property
    def place(self) -> tuple[int, int]:
        """The place, from 0, among how many networks that are computed at once; (0, 1) by itself."""
        number, slash, size = (self.lockstep or "1/1").partition("/")
        if not (slash and number.isdecimal() and size.isdecimal() and 1 <= int(number) <= int(size)):
            raise UserError(
                f"lockstep is a place among networks that are computed at once, such as '2/8', not {self.lockstep!r}."
            )
        return int(number) - 1, int(size)


def _strict(value: Any, kind: type) -> Any:
    """A number may be given for a float, and one of numpy's for Python's; nothing is converted otherwise: "10" steps is a mistake."""
    value = value.item() if hasattr(value, "item") else value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{value!r} is not {_WORDS[kind]} (expected {kind.__name__})")
    return value


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}


def _reason(error: BaseException, kind: type | None) -> str:
    """What `_strict` said, or cattrs of other errors."""
    return str(error) if isinstance(error, ValueError) else cattrs.v.format_exception(error, kind)


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
for _kind in (int, float, str, bool):
    _CONVERTER.register_structure_hook(_kind, _strict)


def _text(value: Any, kind: type) -> Any:
    if not isinstance(value, str | Choice | Mapping):
        raise ValueError(f"{value!r} is not text (expected str)")
    return value


_CONVERTER.register_structure_hook(Choice, _text)
