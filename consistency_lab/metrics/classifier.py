"""A small classifier of one data set: its features measure the quality of images that Inception was never made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consistency_lab.devices import measuring, plain_defaults, random_state, sent
from consistency_lab.errors import UserError
from consistency_lab.metrics.base import check_range, displayed

_ROWS = 512  # images that pass at a time


class SmallClassifier(nn.Module):
    """A convolutional classifier; the penultimate layer's activations are the features of an image.

    The scale of its features is its own: distances of features compare between sets of samples, never between classifiers.

    Args:
        shape: (C, H, W) of the images.
        classes: number of labels.
        data: what the data set is called; features are "<data> classifier features".
        width: channels of the first layer, doubled at the second and at the third.
        length: number of features.

    Attributes:
        facts: what `train_classifier` found: seed, steps, accuracy on held-out images and their number. Empty before.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, data: str, *, width: int = 32, length: int = 64):
        super().__init__()
        if classes < 2 or width < 1 or length < 1:
            raise UserError(
                f"a classifier needs 2 classes, a width and a length of at least 1, not {classes}, {width}, {length}."
            )
        self.options = {"shape": list(shape), "classes": classes, "data": data, "width": width, "length": length}
        self.shape, self.classes, self.data = tuple(shape), classes, data
        self.facts: dict[str, Any] = {}
        channels, rows, columns = shape
        layers: list[nn.Module] = []
        for depth, halved in enumerate(_plan(min(rows, columns))):
            wide = width * 2 ** min(2, depth)
            layers += [
                nn.Conv2d(channels, wide, 3, 2 if halved else 1, 1),
                nn.GroupNorm(1, wide),
                nn.GELU(),
            ]
            channels = wide
            if halved:
                rows, columns = (rows + 1) // 2, (columns + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * rows * columns, length), nn.GELU())
        self.head = nn.Linear(length, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)``."""
        return self.head(self.body(images))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.head.weight.device

    @property
    def feature_name(self) -> str:
        """What results call the features."""
        return f"{self.data} classifier features"

    def features(self, images: Tensor) -> Tensor:
        """Features ``(N, length)`` float32 of images ``(N, C, H, W)``, clamped to [-1, 1]. Each image on its own, whatever the batch.

        Raises:
            UserError: images of another shape, or values that are not finite.
        """
        return self._chunked(self.body, images)

    def predict(self, images: Tensor) -> Tensor:
        """The likeliest label of each image, ``(N,)`` int64. Raises `UserError` as `features`."""
        return self._chunked(self, images).argmax(1)

    def _chunked(self, network: nn.Module, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.shape:
            raise UserError(
                f"the classifier of {self.data} reads images of {self.shape}, not {tuple(images.shape[1:])}."
            )
        with torch.no_grad(), measuring():
            return torch.cat([network(sent(part, self.device)) for part in displayed(images).float().split(_ROWS)])

    def to_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and a JSON object, for ``save_tensors``."""
        return dict(self.state_dict()), {"options": self.options, "facts": self.facts}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> SmallClassifier:
        """What `to_state` gave. Raises `UserError` if it does not fit together."""
        try:
            options = dict(metadata["options"])
            made = cls(tuple(options.pop("shape")), options.pop("classes"), options.pop("data"), **options)
            made.load_state_dict(dict(tensors))
            made.facts = dict(metadata["facts"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise UserError(f"these weights are no small classifier ({error}); train it again.") from error
        return made.eval().requires_grad_(False)


def _plan(side: int) -> list[bool]:
    """Whether each layer halves the sides: one that does not, then halvings until the shorter side is 4 to 7."""
    plan = [False]
    while side >= 8:
        plan.append(True)
        side = (side + 1) // 2
    return plan if len(plan) > 1 else [False, False]


@plain_defaults()
def train_classifier(
    images: Tensor,
    labels: Tensor,
    data: str,
    *,
    seed: int = 0,
    steps: int = 1000,
    batch: int = 128,
    rate: float = 2e-3,
    held_out: float = 0.1,
    width: int = 32,
    length: int = 64,
    device: str | torch.device = "cpu",
) -> SmallClassifier:
    """Train a `SmallClassifier`; a function of its arguments (bit for bit on one machine, at one thread count).

    Args:
        images: ``(N, C, H, W)`` float32 in [-1, 1].
        labels: ``(N,)`` int64 from 0.
        data: what the data set is called.
        seed: of initialisation, of the held-out images and of the order.
        steps, batch, rate: of AdamW under a one-cycle rate with this peak.
        held_out: share of the images that is kept out of training and on which `facts` report the accuracy.
        width, length: of `SmallClassifier`.

    Returns:
        the trained classifier on ``device``, its parameters frozen.

    Raises:
        UserError: no labels for the images, one class, too few images, images out of range, or steps, batch or share out of range.
    """
    check_range(images, f"the images of {data}")
    if (
        labels.shape != (len(images),)
        or labels.dtype != torch.int64
        or len(labels.unique()) < 2
        or int(labels.min()) < 0
    ):
        raise UserError(f"a classifier of {data} needs one label (int64, from 0) per image and two classes or more.")
    count = round(held_out * len(images))
    if steps < 1 or batch < 1 or not 0 < held_out < 1 or not 1 <= count < len(images) - 1:
        raise UserError(
            f"a classifier of {data} needs steps and batch of at least 1 and a held-out share that leaves images on both sides, "
            f"not steps={steps}, batch={batch}, held_out={held_out:g} of {len(images)} images."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator, device="cpu")
    test, train = order[:count], order[count:]
    with random_state(seed):
        network = SmallClassifier(_shape(images), int(labels.max()) + 1, data, width=width, length=length).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    # A one-cycle rate wants a step or more on each side of its peak.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 10))
    with measuring():
        for indices in _batches(train, batch, steps, generator):
            x, y = (sent(whole[sent(indices, whole.device)], device) for whole in (images, labels))
            loss = F.cross_entropy(network(x.float()), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)
    right = network.predict(images[test.to(images.device)]).cpu() == labels[test.to(labels.device)].cpu()
    network.facts = {"seed": seed, "steps": steps, "held_out": count, "accuracy": float(right.double().mean())}
    return network


def _shape(images: Tensor) -> tuple[int, int, int]:
    channels, height, width = images.shape[1:]
    return channels, height, width


def _batches(train: Tensor, batch: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """The indices of every step, in shuffled epochs; the last batch of an epoch is left out where it is not full."""
    size = min(batch, len(train))
    made: list[Tensor] = []
    while len(made) < steps:
        epoch = train[torch.randperm(len(train), generator=generator)]
        made += [part for part in epoch.split(size) if len(part) == size]
    return made[:steps]


def classes_covered(labels: Tensor, classes: int, least: float = 0.1) -> int:
    """How many classes have at least ``least`` of an equal share among predicted labels ``(N,)``."""
    share = torch.bincount(labels.flatten().cpu(), minlength=classes) / max(1, labels.numel())
    return int((share >= least / classes).sum())
