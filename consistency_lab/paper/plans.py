"""What a study is made of, named by a preset: data, models, and how they are measured. Nothing here is slow to import."""

from __future__ import annotations

from dataclasses import dataclass, field

from consistency_lab.training.settings import LoopSettings, TrainingSettings


@dataclass(frozen=True)
class LikenessPlan:
    """A table of families: the main one of a preset, or one in which only one thing differs.

    Attributes:
        data: the data set, by name.
        held_out: images that no model is trained on; quality is measured against them: how many are cut from the data set, or the name of
            a set of their own.
        families: name -> settings of its models, which differ in their seed.
        metrics: distances, by name.
        count: samples of a comparison.
        sampler_steps: of DDIM; the ceiling takes twice as many.
        quality: measure it, on a classifier of the set.
        quality_count: samples whose quality is measured.
        most_held_out: real images that they are measured against.
        probed: images of a probe.
        crosses: compare families with each other too.
        emergence: the families that are followed over training.
        references: closed-form denoisers of the training set.
        shipped: families of models that ship with the package, name -> their names in the zoo; nothing of them is trained.
        scales: of classifier-free guidance (1: none), at each of which a family of class-conditional models is a family of its own.
    """

    data: str
    held_out: int | str
    families: dict[str, tuple[LoopSettings, ...]]
    metrics: tuple[str, ...] = ("mse", "cosine")
    count: int = 256
    sampler_steps: int = 25
    quality: bool = True
    quality_count: int = 1000
    most_held_out: int = 2000
    probed: int = 64
    crosses: bool = True
    emergence: tuple[str, ...] = ()
    references: tuple[str, ...] = ("gaussian", "optimal", "mean")
    scales: tuple[float, ...] = ()
    shipped: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def members(self) -> dict[str, list[str]]:
        """Family -> names of its models."""
        return {family: [f"{family}-{k}" for k in range(len(each))] for family, each in self.families.items()}

    @property
    def jobs(self) -> dict[str, LoopSettings]:
        """Every model of every family by name."""
        return {
            name: settings
            for family, names in self.members.items()
            for name, settings in zip(names, self.families[family], strict=True)
        }


@dataclass(frozen=True)
class SizesPlan:
    """The sweep over the size of the training set: two disjoint sets of each size, settings by architecture, samples compared."""

    data: str
    sizes: tuple[int, ...]
    settings: tuple[TrainingSettings, ...]
    count: int = 256
