"""The commands `recipe` and `race`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro

from consistency_lab.cli.common import SideBySide, cost_facts, training_images
from consistency_lab.cli.live import Say, live
from consistency_lab.cli.plans import DryRun
from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings

if TYPE_CHECKING:
    import xarray as xr

    from consistency_lab.store.runs import Store


@dataclass(frozen=True)
class MakeRecipe(DryRun):
    """Derive training settings from findings: a difficulty result, and landscapes or a curvature of the same model.

    Example: consistency-lab recipe probe/results/difficulty-unet-s0.nc --out recipe.json
    """

    answers: ClassVar[bool] = True
    findings: tyro.conf.Positional[tuple[Path, ...]] = ()
    """.nc files: one difficulty, any number of landscapes, at most one curvature; none for the paper's own recipe, or one from --data"""
    data: str | None = None
    """without findings: the training set that the recipe follows; no pilot is needed"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    draws: Literal["importance", "objective"] = "importance"
    """importance: draws are weighted back to the uniform objective. objective: hard times count for more"""
    density: Literal["fixed", "followed"] = "fixed"
    """fixed: that of the findings. followed: by the losses of the run that is trained, as the findings say that gradients go with them"""
    exponent: float = 1.0
    """the root second moment is raised to it"""
    measured_momentum: bool = False
    """also the momentum that the curvature asks for (by itself that of the settings is kept, which raced faster)"""
    out: Path = Path("recipe.json")
    """the recipe, for --recipe of train, --recipes of race, and Recipe.load"""

    def run(self) -> None:
        from consistency_lab.recipe import Recipe
        from consistency_lab.store.results import load_result

        results = [load_result(path) for path in self.findings]
        by_kind: dict[str, list[xr.Dataset]] = {"difficulty": [], "landscape": [], "curvature": []}
        for path, result in zip(self.findings, results, strict=True):
            if (kind := str(result.attrs.get("kind"))) not in by_kind:
                raise UserError(
                    f"{path} is a result of kind {kind!r}; a recipe follows difficulty, landscape and curvature."
                )
            by_kind[kind].append(result)
        options: dict[str, Any] = {
            "draws": self.draws,
            "density": self.density,
            "exponent": self.exponent,
            "measured_momentum": self.measured_momentum,
        }
        if not results and (given := [name for name, value in options.items() if value != getattr(type(self), name)]):
            named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UserError(
                f"{named}: that is for findings of a pilot, and there are none; give their files, or leave it out."
            )
        images = training_images(self.data, self.data_dir)
        if results and images is not None:
            raise UserError("a recipe follows findings of a pilot, or --data; leave one of the two out.")
        if images is not None:
            recipe = Recipe.from_images(images, settings=self.settings)
        elif not results:
            recipe = Recipe.paper()
        elif len(by_kind["difficulty"]) != 1 or len(by_kind["curvature"]) > 1:
            raise UserError("a recipe needs one difficulty result and at most one curvature.")
        else:
            curvature = by_kind["curvature"][0] if by_kind["curvature"] else None
            recipe = Recipe.from_findings(
                by_kind["difficulty"][0],
                by_kind["landscape"] or None,
                curvature=curvature,
                settings=self.settings,
                **options,
            )
        self.say({"reasons": list(recipe.reasons), "changes": recipe.changes, "out": self.out})
        if not self.dry_run:
            recipe.save(self.out)


@dataclass(frozen=True)
class Race(SideBySide):
    """Race training settings to a target that is fixed beforehand, with every control that a speed-up needs. A stopped race goes on.

    Example: consistency-lab race --preset digits --dry-run
    """

    preset: str = "digits"
    """data, network and seeds: digits, fashion-16 (Fashion-MNIST at 16x16), fashion (at 28x28)"""
    contestants: Literal["standard", "pilot-free", "fresh-seeds", "centers"] = "standard"
    """standard: controls, published methods, the paper's recipe and ours from a pilot. pilot-free: a recipe from the images of
    the set, its ablations, and a matched control of each. fresh-seeds: of that race the recipe and the fastest control of each kind
    again, on seeds that nothing was chosen on. centers: the paper's ablation over the center of CLTS"""
    recipes: tuple[Path, ...] = ()
    """recipes from findings on another set, such as the recipe-*.json that its race writes: they cost no pilot here"""
    consistency: bool = False
    """no race: does the recipe change what is learned, or only when? Consistency within and between uniform and recipe-trained models"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    store: Path = Path("runs")
    """where the classifier is kept, and the models of --consistency"""
    out: Path = Path("figures")
    """folder for PRESET/race-CONTESTANTS.jsonl, the rows that are finished, and PRESET/race-CONTESTANTS*, tables and figures, renewed every
    round"""

    def run(self) -> None:
        from consistency_lab.devices import resolve_device
        from consistency_lab.paper.race.dry_run import race_dry_run
        from consistency_lab.paper.race.recipe_consistency import what_is_learnt_cost
        from consistency_lab.paper.race.study import race_recipes, run_race
        from consistency_lab.paper.rows import Rows
        from consistency_lab.presets import race_plan
        from consistency_lab.recipe import Recipe
        from consistency_lab.store.atomic import ensure_writable
        from consistency_lab.store.runs import Store

        if self.force:
            raise UserError("a race has no --force: its rows are committed. Remove those that are to be run again.")
        plan, folder = replace(race_plan(self.preset), data_dir=self.data_dir), self.out / self.preset
        what = "consistency" if self.consistency else self.contestants
        # What races on fresh seeds was chosen by the rows of the race without a pilot, whose target and rates it has.
        kept = {"fresh-seeds": "pilot-free"}.get(what, what)
        store, rows, where = Store(self.store), Rows(folder / f"race-{kept}.jsonl"), self.where
        foreign = {f"recipe from {path.stem.removeprefix('recipe-')}": Recipe.load(path) for path in self.recipes}
        options: dict[str, Any] = {
            "contestant_set": self.contestants,
            "foreign": foreign,
            "device": resolve_device(self.device),
        }
        if self.consistency and (self.contestants != "standard" or self.recipes):
            raise UserError("--consistency is no race: it takes neither --contestants nor --recipes; leave them out.")
        if self.dry_run:
            if self.consistency:
                cost = what_is_learnt_cost(plan, store, rows, device=options["device"])
            else:
                cost = race_dry_run(plan, store, rows, **options)
            self.say(cost_facts(cost))
            return
        store.check()
        ensure_writable(folder)
        if self.consistency:
            self._consistency(plan, store, rows, options["device"])
            return
        with self._shown(folder, self.contestants) as say:
            found = run_race(plan, store, rows, executor=where, live=self._write, say=say, **options)
        _print_race(found)
        if self.contestants == "standard":
            for use, recipe in race_recipes(plan, rows, options["device"]).items():
                recipe.save(folder / f"recipe-{self.preset}-{use}.json")

    def _consistency(self, plan: Any, store: Store, rows: Any, device: Any) -> None:
        from consistency_lab.intervals import interval_names
        from consistency_lab.paper.race.recipe_consistency import what_is_learnt
        from consistency_lab.store.results import save_frame

        with self._shown(self.out / self.preset, "consistency") as say:
            table = what_is_learnt(plan, store, rows, device=device, executor=self.where, say=say)
        save_frame(table, self.out / self.preset / "race-consistency.csv")
        shown = ["family", "models", *interval_names("mse_score"), "frechet"]
        print(table[shown].to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}"))

    def _shown(self, folder: Path, what: str) -> AbstractContextManager[Say]:
        return live(f"Race of {self.preset}: {what}", folder / f"race-{what}-progress.html", self.quiet)

    def _write(self, result: xr.Dataset) -> None:
        from consistency_lab.paper import kinds
        from consistency_lab.paper.race.table import finals_table, race_table
        from consistency_lab.plots.save import save_figure
        from consistency_lab.store.atomic import file_name
        from consistency_lab.store.results import save_frame, save_result

        start = self.out / self.preset / f"race-{self.contestants}"
        save_result(result, start.with_name(f"{start.name}.nc"))
        save_frame(race_table(result), start.with_name(f"{start.name}.csv"))
        save_frame(finals_table(result), start.with_name(f"{start.name}-finals.csv"))
        for each in kinds.Race().figures(result):
            save_figure(each.figure, start.with_name(file_name(f"{start.name}-{each.name}")), each.frame)


def _print_race(result: xr.Dataset) -> None:
    from consistency_lab.intervals import interval_names
    from consistency_lab.paper.race.table import finals_table, race_table

    for metric, good in zip(result["metric"].values, result["qualified"].values, strict=True):
        print(f"{metric}: {'qualified as a target' if good else 'NOT qualified: what needs no training is as good'}")
    table = race_table(result)
    fastest = table[table["fastest"]]
    names = [
        "contestant",
        "control",
        *interval_names("speedup"),
        "bound",
        "seconds_speedup",
        "pilot_speedup",
        "censored",
    ]
    print(fastest[names].to_string(index=False, na_rep="", float_format=lambda x: f"{x:.2f}"))
    print(finals_table(result).to_string(index=False, na_rep="", float_format=lambda x: f"{x:.4f}"))
