"""The sets of contestants: every contestant with the controls that its claim needs.

All share one annealing, the recipe's: a linear decay to where the measured curvature sees no further gain, at the usual momentum. What
remains is told apart one by one: densities, weightings, curricula beside their static twins, momentum rules beside the linear decay to
.1 that equals MDLRC's, and the measured momentum beside the same recipe without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from consistency_lab.paper.race.contestants import Contestant, at_horizons, static_twins
from consistency_lab.paper.race.findings import Findings
from consistency_lab.recipe import Recipe
from consistency_lab.training.settings import TrainingSettings

ANNEALED_TO = 0.1  # where MDLRC's rate ends too, so that linear decay is its matched control
CENTERS = (0.1, 0.3, 0.5, 0.7, 0.9)
BASE, CLOSED_FORM, EDM, MUON = "base", "closed form", "EDM", "Muon"
POSTERIOR = "posterior targets"
FOLLOWING, FIXED = "recipe, followed density", "recipe, fixed density"
MEASURED, CONSTANT, SHUFFLED = f"{FOLLOWING}, measured momentum", f"{FOLLOWING}, constant rate", "shuffled findings"
# The exponent of the followed density was chosen on three seeds of the digits that no race has (3000 to 3002): the target fell after 326
# steps at 1, the least gradient noise, 302 at 1.5, 295 at 2, 308 at 2.5.
OURS: Mapping[str, Mapping[str, object]] = {
    FOLLOWING: {"density": "followed", "exponent": 1.5},
    FIXED: {},
    f"{FOLLOWING}, exponent 1": {"density": "followed"},
    "recipe, other objective, exponent 0.5": {"draws": "objective", "exponent": 0.5},
    "recipe, other objective, exponent 1": {"draws": "objective"},
}
CELLS = "loss second moment, 50 cells"  # the density of others that was fastest on both sets
_SEVERAL = (FOLLOWING, FIXED, CELLS)

_DENSITIES: Mapping[str, Mapping[str, object]] = {
    "EDM log-normal": {"timesteps": "edm_lognormal"},
    "logit-normal": {"timesteps": "logit_normal"},
    "SpeeD": {"timesteps": "speed", "weighting": "speed"},
    "loss second moment": {"timesteps": "loss_second_moment"},
    CELLS: {"timesteps": "loss_second_moment(cells=50, floor=0.1)"},
    "min-SNR": {"weighting": "min-snr"},
    "P2": {"weighting": "p2"},
}


def recipes_of(found: Findings, base: TrainingSettings) -> dict[str, Recipe]:
    """The recipes that race: uses of one density at one annealing, and the first with the momentum that the curvature asks for."""
    made = {name: found.recipe(base, **options) for name, options in OURS.items()}
    return {**made, MEASURED: found.recipe(base, measured_momentum=True, **OURS[FOLLOWING])}


def standard_contestants(
    base: TrainingSettings,
    found: Findings,
    *,
    pilot_steps: int,
    foreign: Mapping[str, Recipe] | None = None,
    horizons: Sequence[float] = (0.3, 0.45, 0.5, 1.0),
    length: float = 0.5,
) -> list[Contestant]:
    """Controls, published methods with the same annealing, the paper's recipe, ours, and ours from shuffled findings.

    Args:
        base: uniform times at a constant rate.
        found: findings on the same set; they cost ``pilot_steps`` steps and their own seconds.
        pilot_steps: of the pilot that the findings are of.
        foreign: name -> recipe from findings on another set, which cost nothing here.
        horizons: lengths of run, as fractions, of uniform times with annealing; its fastest counts.
        length: of everything else that anneals; the leading recipes and published density also run at the shortest horizon.
    """
    ours = recipes_of(found, base)
    annealing = {key: value for key, value in ours[FOLLOWING].changes.items() if key != "timesteps"}
    annealed = base.replace(**annealing)
    at, several = [length], sorted({min(*horizons, length), length})
    cost = {"pilot_steps": pilot_steps, "pilot_seconds": sum(found.seconds)}
    contestants = [Contestant("uniform", base, "control"), *_annealed(base, annealed, horizons, length)]
    for name, rule in {
        "MDLRC": "mdlrc",
        "beta decay only": "beta_decay_only",
        "Demon-Adam": "demon_adam",
        "effective rate": "effective_lr",
    }.items():
        contestants += at_horizons(Contestant(f"uniform + {name}", base.replace(momentum=rule), "momentum"), at)
    (clts,) = at_horizons(Contestant("CLTS + annealing", annealed.replace(timesteps="clts"), "curriculum"), at)
    contestants += [clts, *static_twins(clts)]
    for name, changes in _DENSITIES.items():
        each = Contestant(f"{name} + annealing", annealed.replace(**changes), "density")
        contestants += at_horizons(each, several if name in _SEVERAL else at)
    contestants += at_horizons(Contestant("paper: CLTS + MDLRC", Recipe.paper().apply(base), "paper"), at)
    for name, recipe in ours.items():
        each = Contestant(name, recipe.apply(base), "recipe", **cost)  # type: ignore[arg-type]
        contestants += at_horizons(each, several if name in _SEVERAL else at)
    constant = ours[FOLLOWING].apply(base).replace(lr_final=base.lr_final)
    contestants += at_horizons(Contestant(CONSTANT, constant, "recipe", **cost), at)  # type: ignore[arg-type]
    for name, recipe in (foreign or {}).items():
        contestants += at_horizons(Contestant(name, recipe.apply(base), "recipe"), several)
    # A followed density looks at the losses of its own run, so that there is nothing to shuffle.
    blind = found.shuffled(0).recipe(base, **OURS[FIXED])
    contestants += at_horizons(Contestant(SHUFFLED, blind.apply(base), "shuffled", **cost), at)  # type: ignore[arg-type]
    return contestants


def _annealed(
    base: TrainingSettings, annealed: TrainingSettings, horizons: Sequence[float], length: float
) -> list[Contestant]:
    """Uniform times with both annealings, at several lengths: the fastest of these counts."""
    decay = base.replace(lr_final=ANNEALED_TO)
    return [
        *at_horizons(Contestant("uniform + annealing", annealed, "annealed"), horizons),
        *at_horizons(Contestant("uniform + decay to .1", decay, "annealed"), sorted({length, 1.0})),
    ]


def families_of(free: Recipe) -> dict[str, dict[str, object]]:
    """What a rate is looked for, besides the base as it is: optimizers and preconditionings, with uniform times at a constant rate.

    Muon is among them where the recipe takes it: elsewhere a step with it takes several times as long.
    """
    closed = {"predicts": free.changes["predicts"]}
    families: dict[str, dict[str, object]] = {CLOSED_FORM: closed, EDM: {"predicts": "edm"}}
    if "optimizer" in free.changes:
        muon = {"optimizer": free.changes["optimizer"]}
        families |= {MUON: muon, f"{MUON}, {CLOSED_FORM}": {**muon, **closed}}
    return families


def pilot_free_contestants(
    base: TrainingSettings,
    free: Recipe,
    rates: Mapping[str, float],
    *,
    horizons: Sequence[float] = (0.3, 0.45, 0.5, 1.0),
    length: float = 0.5,
    seconds: float = 0.0,
) -> list[Contestant]:
    """A recipe from the images of the set alone, and what each of its parts is worth.

    Every optimizer and preconditioning runs with the recipe's draws and, as their matched control, with uniform times; the draws also run
    without either. Matched controls with the recipe's preconditioning run as often as the other controls: at all lengths, and at a constant
    rate. The draws of others
    that were fastest run with the recipe's preconditioning and without. Targets of less noise are tried with its preconditioning and draws
    where the recipe has none; where it has them its matched control has them too, and they also run without the preconditioning. Whoever
    anneals or draws otherwise without it runs at the base's own rate as well. All share the recipe's annealing where nothing else is said.

    Args:
        base: uniform times at a constant rate.
        free: `Recipe.from_images` of the set, for ``base``.
        rates: of `BASE` and `families_of`, name -> learning rate; the base's own where a name is not there.
        horizons, length: as in `standard_contestants`.
        seconds: that it takes to make the recipe.
    """
    draws, annealing = ({key: free.changes[key]} for key in ("timesteps", "lr_final"))
    cells, at = _DENSITIES[CELLS], [length]
    tuned = base.replace(lr=rates.get(BASE, base.lr))
    contestants = [Contestant("uniform", tuned, "control")]
    # The best rate is that of runs at a constant one: who anneals or draws otherwise may bear more.
    for at_rate in dict.fromkeys([tuned, base]):
        its = at_rate.replace(**annealing)
        made = _annealed(at_rate, its, horizons, length)
        made += at_horizons(Contestant("followed draws", its.replace(**draws), "ablation"), at)
        made += at_horizons(Contestant(f"{CELLS} + annealing", its.replace(**cells), "density"), at)
        if "target" in free.changes:
            quiet = its.replace(target=free.changes["target"])
            made += at_horizons(Contestant(f"uniform + {POSTERIOR}", quiet, "ablation"), at)
            made += at_horizons(Contestant(f"followed draws + {POSTERIOR}", quiet.replace(**draws), "ablation"), at)
        contestants += made if at_rate == tuned else [replace(c, name=f"{c.name}, rate {base.lr:g}") for c in made]
    families = families_of(free)
    leading = list(families)[-1] if "optimizer" in free.changes else CLOSED_FORM
    for name, changes in families.items():
        own = base.replace(**annealing, **changes, lr=rates.get(name, base.lr))
        if CLOSED_FORM in name:
            contestants += _of_closed_form(name, base, free, own, horizons, length, leads=name == leading)
        else:
            both = Contestant(f"{name} + followed draws", own.replace(**draws), "ablation", matched=f"{name}, uniform")
            contestants += at_horizons(both, at) + at_horizons(Contestant(both.matched, own, "matched"), at)
        if name == CLOSED_FORM:
            contestants += _ablations(base, free, own, at)
    return [replace(each, pilot_seconds=seconds) if each.role == "recipe" else each for each in contestants]


def _of_closed_form(
    name: str,
    base: TrainingSettings,
    free: Recipe,
    own: TrainingSettings,
    horizons: Sequence[float],
    length: float,
    *,
    leads: bool,
) -> list[Contestant]:
    """With one optimizer and the recipe's preconditioning: its draws, and its target if it has one, each beside its matched control.

    Args:
        name: of the two.
        own: their settings with uniform times.
        leads: it is the optimizer that the recipe takes, so that this is the recipe.
    """
    several, made = sorted({min(*horizons, length), length}), []
    targets = {"": {}, f" + {POSTERIOR}": {"target": free.changes["target"]}} if "target" in free.changes else {"": {}}
    for what, target in targets.items():
        uniform = Contestant(f"{name}, uniform{what}", own.replace(**target), "matched")
        # At as many lengths as the other controls, and at a constant rate, where the length is of no matter.
        constant = uniform.settings.replace(lr_final=base.lr_final)
        made += at_horizons(uniform, sorted({*horizons, length}))
        made += [replace(uniform, name=f"{uniform.name}, constant rate", settings=constant)]
        drawn = uniform.settings.replace(timesteps=free.changes["timesteps"])
        role = "recipe" if leads and what == list(targets)[-1] else "ablation"
        made += at_horizons(Contestant(f"{name} + followed draws{what}", drawn, role, matched=uniform.entry), several)
    return made


def _ablations(base: TrainingSettings, free: Recipe, own: TrainingSettings, at: Sequence[float]) -> list[Contestant]:
    """With Adam and the recipe's preconditioning, ``own`` with uniform times: what other draws, targets and annealings are worth."""
    both, plain = f"{CLOSED_FORM} + followed draws", own.replace(timesteps=free.changes["timesteps"])
    others = {
        f"{CLOSED_FORM} + {CELLS}": (own.replace(**_DENSITIES[CELLS]), "density"),
        f"{both}, constant rate": (plain.replace(lr_final=base.lr_final), "ablation"),
        f"{both}, MDLRC": (plain.replace(momentum="mdlrc", lr_final=base.lr_final), "ablation"),
        f"{CLOSED_FORM} + CLTS": (own.replace(timesteps="clts"), "ablation"),
    }
    if "target" not in free.changes:
        others = {f"{both} + {POSTERIOR}": (plain.replace(target="posterior"), "ablation"), **others}
    return [
        each
        for name, (settings, role) in others.items()
        for each in at_horizons(Contestant(name, settings, role, matched=f"{CLOSED_FORM}, uniform"), at)
    ]


def center_contestants(base: TrainingSettings, *, centers: Sequence[float] = CENTERS) -> list[Contestant]:
    """The paper's ablation over the center of CLTS: at a constant rate, as the curriculum alone, beside uniform times."""
    return [
        Contestant("uniform", base, "control"),
        *(
            Contestant(f"CLTS, center {center:g}", base.replace(timesteps=f"clts(center={center!r})"), "curriculum")
            for center in centers
        ),
    ]
