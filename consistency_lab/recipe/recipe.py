"""The recipe: changes to settings with their reasons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from consistency_lab.choices import Choice
from consistency_lab.data.imageset import ImageSet, check_set
from consistency_lab.diffusion.schedule import SCHEDULES
from consistency_lab.errors import DamagedError, UserError
from consistency_lab.inputs import check_file
from consistency_lab.json_text import parsed
from consistency_lab.markup import bullets, table
from consistency_lab.recipe.closed_form import POWER, closed_form_of
from consistency_lab.recipe.derivation import (
    UNIFORM_SHARE,
    Curvature,
    Draws,
    Rough,
    Use,
    at_knots,
    density_pairs,
    density_profile,
    followed_exponent,
    from_curvature,
    from_roughness,
    of_kind,
    optimizer_of,
    pilot_of,
    preconditioning_of,
    quarters,
    read_curvature,
    target_of,
)
from consistency_lab.store.atomic import as_path, atomic_write, unreadable
from consistency_lab.store.checksums import checked, with_checksum
from consistency_lab.store.results import with_provenance
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.timesteps import TIMESTEPS


@dataclass(frozen=True)
class Recipe:
    """Changes to training settings, and why.

    Attributes:
        changes: fields of `TrainingSettings` with their new values; what is chosen by name is a `Choice`.
        reasons: one sentence per change, with the numbers that it follows from.
        density: (t, value) pairs of the density over t, for figures; of a curriculum the one at its end.
        draws: ``"importance"`` if draws are weighted back to the uniform objective, ``"objective"`` if the density changes it.
    """

    changes: dict[str, object]
    reasons: tuple[str, ...]
    density: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    draws: Draws = "objective"

    def __post_init__(self) -> None:
        chosen = TrainingSettings.registries()
        changes = {key: Choice.parse(value) if key in chosen else value for key, value in self.changes.items()}  # type: ignore[arg-type]
        object.__setattr__(self, "changes", changes)

    @classmethod
    def from_findings(
        cls,
        difficulty: xr.Dataset,
        landscape: xr.Dataset | Sequence[xr.Dataset] | None = None,
        *,
        curvature: Curvature | xr.Dataset | None = None,
        draws: Draws = "importance",
        density: Use = "fixed",
        exponent: float = 1.0,
        measured_momentum: bool = False,
        settings: TrainingSettings | None = None,
    ) -> Recipe:
        """Derive a recipe. The package's text has the derivation.

        Args:
            difficulty: of a pilot model, on images of the kind to be trained on.
            landscape: one or several of the same pilot: whether its loss is near a quadratic.
            curvature: of the same pilot. Without landscape and curvature momentum and learning rate stay as they are.
            draws: ``"importance"``: draws are weighted back to the uniform objective; ``"objective"``: hard times count for more.
            density: ``"fixed"``, that of the findings; or ``"followed"``, which goes with the losses of the run itself.
            exponent: the root second moment is raised to it.
            measured_momentum: also the momentum that the curvature asks for, and without one MDLRC where the landscape is smooth, as the
                paper proposes. By itself that of the settings stays, so that density and annealing alone change, which raced faster.
            settings: what is to be trained: its optimizer, learning rate and steps enter where there is a curvature.

        Raises:
            UserError: a result of another kind, or one without finite numbers.
        """
        difficulty = of_kind(difficulty, "difficulty")
        several = isinstance(landscape, Sequence) and not isinstance(landscape, str)
        given = [] if landscape is None else list(landscape) if several else [landscape]
        landscapes = [of_kind(each, "landscape") for each in given]
        if isinstance(curvature, xr.Dataset):
            curvature = read_curvature(of_kind(curvature, "curvature"))
        if draws not in ("objective", "importance") or not exponent > 0:
            raise UserError(
                f"the draws of a recipe are for the objective or importance and its exponent above 0, not {draws!r}, {exponent!r}."
            )
        if not isinstance(measured_momentum, bool):
            raise UserError(f"measured_momentum is True or False, not {measured_momentum!r}.")
        if density not in ("fixed", "followed") or (density == "followed" and draws != "importance"):
            raise UserError(
                f"the density of a recipe is fixed, or followed with importance weights, not {density!r} with {draws!r}."
            )
        settings = settings or TrainingSettings()
        adam = settings.optimizer.name in ("adam", "adamw")
        t, values, reason = density_profile(difficulty, draws, exponent, adam)
        options: dict[str, object] = {"floor": UNIFORM_SHARE, "values": [round(float(v), 4) for v in at_knots(values)]}
        if draws == "importance":
            options["weighted"] = True
        chosen, reasons = Choice("density", options), [reason]
        if density == "followed":
            power, follow = followed_exponent(difficulty, exponent, adam)
            chosen, reasons = Choice("loss_root", {"exponent": power, "floor": UNIFORM_SHARE}), [reason, follow]
        changes: dict[str, object] = {"timesteps": chosen}
        lines = [x for x in landscapes if "roughness_span" in x]
        rough = Rough([float(x["roughness"]) for x in landscapes], [float(x["roughness_span"]) for x in lines])
        more: dict[str, object] = {}
        why: list[str] = []
        if curvature is None and landscapes and measured_momentum:
            more, why = from_roughness(rough)
        elif curvature is not None or landscapes:
            more, why = from_curvature(curvature, rough, settings, measured_momentum)
        return cls({**changes, **more}, (*reasons, *why), density_pairs(t, values), draws)

    @classmethod
    def from_images(cls, images: ImageSet, *, settings: TrainingSettings | None = None) -> Recipe:
        """Derive a recipe from the images to be trained on, their mean and covariance and how alike they are: no pilot, seconds of time.

        Args:
            images: the training set.
            settings: what is to be trained: its schedule, whether images are mirrored, for the optimizer its network and batch, and for
                the annealing its optimizer and steps.

        Raises:
            UserError: a set whose images are all the same.
        """
        check_set(images)
        settings = settings or TrainingSettings()
        found = closed_form_of(images, SCHEDULES.build(settings.schedule), settings.flip)
        predicts, preconditioning = preconditioning_of(found, images.name)
        values = found.losses**POWER / (found.losses**POWER).max()
        timesteps = Choice("loss_root", {"exponent": POWER, "floor": UNIFORM_SHARE})
        draws = (
            f"Times are drawn in proportion to the {POWER:g}th power of the mean loss of the run itself at each t, with a uniform share of "
            f"{UNIFORM_SHARE:g}, and weighted back to the uniform objective: the root of the expected squared gradient norm, which goes "
            "with the loss where the Jacobian of the network is of one size at all t, raised to 1.5. Of the closed form's loss that is: "
            f"{quarters(found.t, values)}."
        )
        target, noise = target_of(found, images.name)
        if settings.conditional:
            target, noise = {}, "A conditional model's target is the noise of the sample."
        optimizer, stepped = optimizer_of(images, settings)
        changes: dict[str, object] = {"predicts": predicts, **target, "timesteps": timesteps, **optimizer}
        more, annealing = from_curvature(None, Rough(()), settings, measured_momentum=False)
        reasons = (preconditioning, noise, draws, stepped, *annealing)
        return cls({**changes, **more}, reasons, density_pairs(found.t, values), "importance")

    @classmethod
    def paper(cls, *, center: float = 0.3, width: float = 0.2) -> Recipe:
        """What 2404.07946 trains with: CLTS and MDLRC. It publishes the center; the width is ours."""
        clts = Choice("clts", {"center": center, "width": width})
        sampler = TIMESTEPS.build(clts, SCHEDULES.build("linear"), 1)
        t = np.linspace(0.0, 1.0, 101)[1:]
        reasons = (
            f"Timesteps go from uniform to a Gaussian around t = {center:g} (2404.07946 finds the times there the hardest); "
            f"its width, {width:g}, is not published.",
            "Momentum decays with learning-rate compensation (MDLRC), as the paper proposes for smooth landscapes.",
        )
        density = tuple(zip(t.tolist(), sampler.pdf(t, 10).tolist(), strict=True))
        return cls({"timesteps": clts, "momentum": "mdlrc"}, reasons, density)

    def apply(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings with the recipe's changes."""
        return settings.replace(**self.changes)

    def to_dataset(self, title: str = "recipe") -> xr.Dataset:
        """The recipe as a result that figures and reports read."""
        t, density = zip(*self.density, strict=True)
        result = xr.Dataset({"density": ("t", np.array(density))}, coords={"t": np.array(t)})
        result.attrs.update(
            title=title, reasons=json.dumps(self.reasons), settings=json.dumps(self.changes, default=str)
        )
        facts = {"changes": self.changes, "reasons": list(self.reasons), "draws": self.draws}
        return with_provenance(result, "recipe", choices=(), **facts)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, its density an array there. Raises `StoreError` if that cannot be done."""
        changes = {key: value.facts if isinstance(value, Choice) else value for key, value in self.changes.items()}
        content = {"kind": "recipe", **asdict(self), "changes": changes}
        atomic_write(path, json.dumps(with_checksum(content), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read what `save` wrote. Raises `UserError` for anything else, and for a file that was changed since or cannot be read."""
        path = as_path(path)
        check_file(path)
        try:
            content = parsed(path.read_text("utf-8"))
            content = checked(
                content, path, "restore it from a copy, or take its line 'checksum' out if the change is yours"
            )
            if content.pop("kind") != "recipe":
                raise ValueError
            density = tuple((float(t), float(value)) for t, value in content.pop("density"))
            reasons = content.pop("reasons")
            sound = isinstance(content["changes"], dict) and isinstance(reasons, list)
            if "weighting" in content:  # what files of the race before called it
                content["draws"] = content.pop("weighting")
            sound &= content.get("draws", "objective") in ("objective", "importance")
            if not sound or not all(0 <= t <= 1 and 0 <= value < np.inf for t, value in density):
                raise ValueError
            return cls(reasons=tuple(reasons), density=density, **content)
        except FileNotFoundError:
            raise UserError(f"there is no recipe {path}; give a file that `consistency-lab recipe` wrote.") from None
        except OSError as error:
            raise unreadable(path, error) from None
        except DamagedError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path} is not a recipe; make one with `consistency-lab recipe DIFFICULTY.nc --out {path}`."
            ) from None

    def __str__(self) -> str:
        return "\n".join(self.reasons)

    def _repr_html_(self) -> str:
        changes = [(name, str(value)) for name, value in self.changes.items()]
        return table("Recipe", changes, ("setting", "new value")) + bullets(self.reasons)


def shuffled(difficulty: xr.Dataset, seed: int) -> xr.Dataset:
    """The findings with their times permuted: a control that has the same values and tells nothing about t.

    The permutation is the same for every variable along t. What is not along t stays.
    """
    order = np.random.default_rng(seed).permutation(difficulty.sizes["t"])
    kept = difficulty["t"].values
    return difficulty.isel(t=order).assign_coords(t=kept).assign_attrs(model=f"shuffled {pilot_of(difficulty)}")
