"""From images to a GAN: generator and discriminator in turn, stored like any training run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from consistency_lab.choices import Choice
from consistency_lab.contrast.batches import NoisedBatches
from consistency_lab.contrast.kind import ContrastKind
from consistency_lab.contrast.losses import discriminator_loss, generator_loss
from consistency_lab.contrast.model import ContrastModel
from consistency_lab.contrast.networks import DISCRIMINATORS, GAN, GENERATORS
from consistency_lab.contrast.settings import GANSettings
from consistency_lab.data.imageset import ImageSet
from consistency_lab.networks.initialising import initialised
from consistency_lab.networks.registry import NETWORKS
from consistency_lab.store.runs import Store
from consistency_lab.training.ema import WeightAverage
from consistency_lab.training.loop import BatchSource, Descent, TrainingStep, steps_of


class AdversarialLoop:
    """Trains a GAN: each step moves the discriminator, then the generator against it. Of the shape of `TrainingLoop`.

    Args:
        module: generator and discriminator.
        source: of ``(x0, noise for the discriminator's turn, noise for the generator's)``.
        settings: steps, optimizer, penalty, averaging, precision.
        device: where it happens; the module must be there already.

    Raises:
        UserError: an optimizer or momentum rule that does not exist, or the two do not go together.
    """

    def __init__(self, module: GAN, source: BatchSource, settings: GANSettings, device: torch.device):
        self.module, self.source, self.settings, self.device = module, source, settings, device
        # Both networks are averaged: a probe of one wants the opponent that it has at that average.
        self.average = WeightAverage(module, settings.ema_half_life * settings.steps)
        self.descents = {
            "discriminator": Descent(module.discriminator, settings, settings.lr * settings.lr_ratio),
            "generator": Descent(module.generator, settings),
        }
        self.step, self.sharing = 0, 1

    def __iter__(self) -> Iterator[TrainingStep]:
        """Train from where the loop stands to the last step."""
        return steps_of(self, self._advance)

    def _advance(self) -> TrainingStep:
        self.module.train()
        generator, discriminator = self.module.generator, self.module.discriminator
        x0, first, second = self.source.batch(self.step).data
        half = torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bfloat16", cache_enabled=False
        )
        every = self.settings.penalty_every
        penalty = every * self.settings.penalty if self.step % every == 0 else 0.0
        with half, _fixed(generator):
            critic = discriminator_loss(discriminator, x0, first, opponent=generator, penalty=penalty).float()
        self.descents["discriminator"].take(critic.mean(), self.step)
        with _fixed(discriminator):
            with half:
                loss = generator_loss(generator, x0, second, opponent=discriminator).float()
            self.descents["generator"].take(loss.mean(), self.step)
        self.step += 1
        self.average.update(self.step)
        parts = {"discriminator_loss": critic.detach().mean()}
        return TrainingStep(self.step, loss.detach().mean(), *self.descents["generator"].rates, parts)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; together with the settings and the data it gives that step bit for bit."""
        return {
            "step": self.step,
            "module": self.module.state_dict(),
            "average": self.average.weights,
            "descents": {part: descent.state_dict() for part, descent in self.descents.items()},
            "source": self.source.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.average.load(state["average"])
        for part, descent in self.descents.items():
            descent.load_state_dict(state["descents"][part])
        self.source.load_state_dict(state["source"])
        self.step = int(state["step"])


@contextmanager
def _fixed(module: nn.Module) -> Iterator[None]:
    """No gradients for these weights: none is computed for the network whose turn it is not."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


class _GANKind(ContrastKind[GANSettings, GAN]):
    name, settings, main = "gan", GANSettings, "generator"

    def fitted(self, settings: GANSettings, images: ImageSet) -> GANSettings:
        """With a choice within the generator's choice made whole: its defaults are part of the spec too."""
        generator = GENERATORS.resolve(settings.generator)
        if "network" not in generator.options:
            return settings
        inner = str(NETWORKS.resolve(generator.options["network"]))
        return settings.replace(generator=Choice(generator.name, {**generator.options, "network": inner}))

    def build(self, spec: Mapping[str, Any]) -> GAN:
        settings = GANSettings.from_spec(spec["settings"])
        channels, height, width = spec["data"]["shape"]
        shape = (channels, height, width)
        with initialised(settings.seeds["init"]):
            return GAN(GENERATORS.build(settings.generator, shape), DISCRIMINATORS.build(settings.discriminator, shape))

    def loop(self, module: GAN, images: ImageSet, settings: GANSettings, device: torch.device) -> AdversarialLoop:
        source = NoisedBatches(images, settings, module.noise_shape, 2, device)
        return AdversarialLoop(module, source, settings, device)


GAN_KIND = _GANKind()


def train_gan(
    images: ImageSet,
    *,
    name: str | None = None,
    store: Store | str | Path | None = None,
    device: str | torch.device | None = None,
    force: bool = False,
    progress: bool | None = None,
    settings: GANSettings | None = None,
    **changes: Any,
) -> ContrastModel:
    """Train one GAN: relativistic pairing loss, R1 and R2, averaged weights.

    Args:
        images: the training set; height and width multiples of 4.
        name: how tables call the model; ``gan-GENERATOR-sSEED`` by default.
        store: where runs are stored; with one, the same spec is never trained twice and a stopped run resumes. Without, nothing is stored.
        device: ``"cpu"``, ``"cuda"``, ...; by default a GPU where there is one.
        force: train again; what the store has of the run is set aside.
        progress: show a progress bar; by default on a terminal only.
        settings: where to start from; ``GANSettings()`` by default.
        **changes: any field of `GANSettings`.

    Returns:
        The model with its averaged (EMA) weights.

    Raises:
        UserError: settings that do not exist or do not fit the images, or a loss that diverges.
        StoreError: the store cannot be written or read, or without ``force`` holds weights and nothing that they could be made from.

    >>> model = train_gan(load_images("digits"), generator="image(network='unet')", seed=1)
    """
    options: dict[str, Any] = {"store": store, "device": device, "force": force, "progress": progress}
    return GAN_KIND.train(images, name=name, settings=settings, **options, **changes)
