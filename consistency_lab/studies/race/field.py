"""The fields of races: every contestant with the controls that its claim needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from consistency_lab.recipe import Recipe
from consistency_lab.studies.race.contestants import Contestant, at_horizons, static_twins
from consistency_lab.training.settings import TrainingSettings

ANNEALED_TO = 0.1  # where MDLRC's rate ends too, so that linear decay is its matched control
CENTERS = (0.1, 0.3, 0.5, 0.7, 0.9)

_DENSITIES = {
    "EDM log-normal": "edm_lognormal",
    "logit-normal": "logit_normal",
    "SpeeD": "speed",
    "loss second moment": "loss_second_moment",
}


def standard_field(
    base: TrainingSettings,
    recipes: Mapping[str, Recipe],
    shuffled: Recipe,
    *,
    pilot_steps: int,
    foreign: Mapping[str, Recipe] | None = None,
    horizons: Sequence[float] = (0.25, 0.5, 1.0),
) -> list[Contestant]:
    """Controls, published methods with the same annealing, the paper's recipe, ours, and ours from shuffled findings.

    Args:
        base: uniform times at a constant rate.
        recipes: name -> recipe from findings on the same set, which cost ``pilot_steps`` steps.
        shuffled: the recipe from the same findings with their times permuted.
        pilot_steps: of the pilot that the findings are of.
        foreign: name -> recipe from findings on another set, which cost nothing here.
        horizons: lengths of run, as fractions, of the entries that may choose theirs.
    """
    decay = base.replace(lr_final=ANNEALED_TO)
    clts = Contestant("CLTS + decay", decay.replace(timesteps="clts"), "curriculum")
    field = [
        Contestant("uniform", base, "control"),
        *at_horizons(Contestant("uniform + decay", decay, "annealed"), horizons),
        Contestant("uniform + MDLRC", base.replace(momentum="mdlrc"), "momentum"),
        Contestant("uniform + beta decay only", base.replace(momentum="beta_decay_only"), "momentum"),
        Contestant("uniform + Demon-Adam", base.replace(momentum="demon_adam"), "momentum"),
        Contestant("CLTS", base.replace(timesteps="clts"), "curriculum"),
        clts,
        *static_twins(clts),
        Contestant("clusters + decay", decay.replace(timesteps="clusters"), "curriculum"),
        Contestant("stratified + decay", decay.replace(timesteps="stratified"), "density"),
    ]
    for name, text in _DENSITIES.items():
        each = Contestant(f"{name} + decay", decay.replace(timesteps=text), "density")
        # The density that led a trial may choose its length too.
        field += at_horizons(each, horizons if text == "edm_lognormal" else (1.0,))
    field.append(Contestant("paper: CLTS + MDLRC", Recipe.paper().apply(base), "paper"))
    ours = {name: (recipe, pilot_steps) for name, recipe in recipes.items()}
    ours |= {name: (recipe, 0) for name, recipe in (foreign or {}).items()}
    for name, (recipe, cost) in ours.items():
        field += at_horizons(Contestant(name, recipe.apply(base), "recipe", pilot_steps=cost), horizons)
        field += _annealing_of(name, recipe.apply(base), field, horizons)
    field.append(Contestant("shuffled findings", shuffled.apply(base), "shuffled", pilot_steps=pilot_steps))
    return field


def center_field(base: TrainingSettings, *, centers: Sequence[float] = CENTERS) -> list[Contestant]:
    """The paper's ablation over the center of CLTS: at a constant rate, as the curriculum alone, beside uniform times."""
    return [
        Contestant("uniform", base, "control"),
        *(
            Contestant(f"CLTS, center {center:g}", base.replace(timesteps=f"clts(center={center!r})"), "curriculum")
            for center in centers
        ),
    ]


def _annealing_of(
    name: str, settings: TrainingSettings, field: Sequence[Contestant], horizons: Sequence[float]
) -> list[Contestant]:
    """Uniform times with everything else of a recipe, unless the field has them as controls."""
    matched = settings.replace(timesteps="uniform")
    present = [each.settings for each in field if each.role in ("control", "annealed")]
    control = Contestant(f"uniform + annealing of {name}", matched, "annealed")
    return [each for each in at_horizons(control, horizons) if each.settings not in present]
