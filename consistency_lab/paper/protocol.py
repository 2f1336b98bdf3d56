"""How the models of a table are compared and measured: the same for every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.diffusion.model import GenerativeModel
from consistency_lab.diffusion.noise import SharedNoise
from consistency_lab.diffusion.references import DEFAULT_REFERENCES
from consistency_lab.diffusion.sampling import Sampler
from consistency_lab.metrics.classifier import SmallClassifier
from consistency_lab.metrics.distances import METRICS, Distance
from consistency_lab.similarity.compare import compare
from consistency_lab.similarity.quality import classifier_spec, set_classifier
from consistency_lab.similarity.trajectories import WalkCache
from consistency_lab.store.runs import Store
from consistency_lab.store.spec import MEASURES_VERSION


class Classifier(NamedTuple):
    """What measures quality: the spec of a classifier, and a function that makes it when it is first needed."""

    spec: Any
    make: Callable[[], SmallClassifier]

    @classmethod
    def of(cls, images: ImageSet, store: Store) -> Classifier:
        """The small classifier of a data set, kept in a store. Raises `UserError` for a set without labels."""
        return cls(classifier_spec(images), partial(set_classifier, images, store))


@dataclass(frozen=True)
class Protocol:
    """How models are compared and measured, the same for every row of a table.

    Attributes:
        metrics: distances, by name or as objects.
        count: samples of a comparison.
        quality_count: samples of the quality.
        sampler: of diffusion models; ``quality_sampler`` where their quality is measured.
        seed: of the shared noise of the comparison; quality uses the next one.
        levels: noise levels at which diffusion models are compared.
        references: closed-form denoisers of the training set that stand beside them.
    """

    metrics: tuple[str | Distance, ...] = ("mse", "cosine")
    count: int = 256
    quality_count: int = 1000
    sampler: Sampler = field(default_factory=Sampler)
    quality_sampler: Sampler = field(default_factory=lambda: Sampler("dpm++2m", 20))
    seed: int = 0
    levels: int = 14
    references: tuple[str, ...] = DEFAULT_REFERENCES
    known: WalkCache = field(default_factory=WalkCache, repr=False, compare=False)

    @cached_property
    def distances(self) -> list[Distance]:
        """The metrics as objects."""
        return [metric if isinstance(metric, Distance) else METRICS.build(metric) for metric in self.metrics]

    @property
    def names(self) -> list[str]:
        """What the metrics are called in results."""
        return [distance.name for distance in self.distances]

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the numbers of a comparison; of a metric with weights, what its note says of them."""
        metrics = [f"{each.name} ({each.note})" if each.note else each.name for each in self.distances]
        own: dict[str, Any] = {"metrics": metrics, "count": self.count, "seed": self.seed, "levels": self.levels}
        own["measures_version"] = MEASURES_VERSION
        if self.references != DEFAULT_REFERENCES:
            own["references"] = list(self.references)
        return {**own, "sampler": self.sampler.facts}

    def evaluations(self, diffusion: bool = True) -> int:
        """Evaluations of the network that a model costs in a table: each is walked once, whatever it is compared with."""
        if not diffusion:
            return self.count + self.quality_count
        walks = self.sampler.evaluations() + self.sampler.evaluations(2 * self.sampler.steps)
        return self.count * walks + self.quality_count * self.quality_sampler.evaluations()

    def compare(
        self, models: Sequence[GenerativeModel], images: ImageSet | None = None, ceiling: bool = False
    ) -> xr.Dataset:
        return compare(
            models,
            SharedNoise(self.seed),
            count=self.count,
            metrics=self.distances,
            sampler=self.sampler,
            images=images,
            levels=self.levels,
            references=self.references,
            ceiling=ceiling,
            known=self.known,
        )
