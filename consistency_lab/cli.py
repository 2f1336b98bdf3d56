"""The command line: it parses, calls and prints. torch is imported by the commands that need it, never by ``--help``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro

from consistency_lab.errors import UserError
from consistency_lab.training.settings import TrainingSettings

if TYPE_CHECKING:
    import xarray as xr

    from consistency_lab.store.run import Run
    from consistency_lab.store.runs import Store


@dataclass(frozen=True)
class Common:
    """What every command that computes understands."""

    device: str | None = None
    """cpu, cuda, cuda:1, ...; by default a GPU where there is one"""
    dry_run: bool = False
    """print what would be done, and stop"""
    force: bool = False
    """do it again although the store has it"""
    quiet: bool = False
    """no progress bars"""

    @property
    def progress(self) -> bool | None:
        return False if self.quiet else None


@dataclass(frozen=True)
class Demo(Common):
    """Train four models on real images, compare them under shared noise, ask why, and write a report.

    Example: consistency-lab demo --out demo
    """

    preset: str = "digits"
    """what to train and compare"""
    seed: int = 0
    """seed of the shared noise"""
    out: Path = Path("demo")
    """folder for report, figures, results and (in its runs/) the trained models"""

    def run(self) -> None:
        from consistency_lab.presets import demo_plan
        from consistency_lab.store.runs import Store
        from consistency_lab.studies.demo import run_demo

        plan, store = demo_plan(self.preset), Store(self.out / "runs")
        if self.dry_run:
            _print_json({"out": str(self.out), "seed": self.seed, **dataclasses.asdict(plan)})
            return
        store.check()
        options: dict[str, Any] = {
            "seed": self.seed,
            "device": self.device,
            "force": self.force,
            "progress": self.progress,
        }
        done = run_demo(plan, store, say=lambda line: print(line, flush=True), **options)
        print("writing results, figures and the report", flush=True)
        _write(done.results, self.out, f"Same noise, same image? Preset {self.preset}")
        _print_headline(done.results["comparison"])
        print("\nRecipe from the findings:")
        print(done.recipe)


@dataclass(frozen=True)
class Train(Common):
    """Train one model, or one per seed.

    Example: consistency-lab train --network mlp --steps 500 --seeds 0-3
    """

    settings: TrainingSettings = field(default_factory=TrainingSettings)
    config: Path | None = None
    """JSON file with training settings; options given here override it"""
    data: str = "digits"
    """training set"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    name: str | None = None
    """how tables call the model; NETWORK-sSEED by default"""
    seeds: str | None = None
    """several models: 0-3,7"""
    out: Path = Path("runs")
    """the store"""

    def run(self) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.devices import resolve_device
        from consistency_lab.store.runs import Store
        from consistency_lab.training.train import KIND, build_denoiser, model_name, train, training_spec

        seeds = [self.settings.seed] if self.seeds is None else parse_seeds(self.seeds)
        jobs = [self.settings.replace(seed=seed) for seed in seeds]
        names = [
            f"{self.name}-s{job.seed}" if self.name and len(jobs) > 1 else self.name or model_name(job) for job in jobs
        ]
        images, store = load_images(self.data, data_dir=self.data_dir), Store(self.out)
        store.check()
        if self.dry_run:
            place = resolve_device(self.device)
            for name, job in zip(names, jobs, strict=True):
                run = store.run(KIND, name, training_spec(images, job, place))
                parameters = sum(p.numel() for p in build_denoiser(run.spec).parameters())
                _print_json(
                    {"name": name, "folder": str(run.folder), "done": run.done, "parameters": parameters, **run.spec}
                )
            return
        for name, job in zip(names, jobs, strict=True):
            options: dict[str, Any] = {"device": self.device, "force": self.force, "progress": self.progress}
            model = train(images, settings=job, name=name, store=store, **options)
            print(f"{model.name}: {model.folder}")


@dataclass(frozen=True)
class Compare(Common):
    """Compare trained models under shared noise, against the null and the closed-form references.

    Example: consistency-lab compare unet-s0 unet-s1 --out comparison
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of runs in the store, run folders, diffusers:DIR, torchscript:FILE?schedule=...&..."""
    store: Path = Path("runs")
    """where names are looked up"""
    seed: int = 0
    """seed of the shared noise"""
    count: int = 256
    """samples"""
    metrics: tuple[str, ...] = ("mse", "psnr", "cosine")
    """distances"""
    lpips_weights: Path | None = None
    """file with the trunk's weights, for metrics such as lpips-squeeze"""
    sampler: str = "ddim"
    """ddim, heun, dpm++2m or ancestral"""
    sampler_steps: int = 50
    """steps of the sampler"""
    guidance: float | None = None
    """scale of classifier-free guidance, for the class-conditional models among them"""
    data: str | None = None
    """training set, for the references and the nearest training images"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    out: Path = Path("comparison")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.similarity.compare import compare

        sampler = Sampler(self.sampler, self.sampler_steps)
        if not self.metrics:
            raise UserError("--metrics needs at least one name, for example mse; see `consistency-lab list metrics`.")
        found = _find(self.models, self.store)
        if self.dry_run:
            evaluations = len(found) * self.count * (sampler.evaluations() + sampler.evaluations(2 * sampler.steps))
            _print_json(
                {
                    "models": found,
                    "samples": self.count,
                    "network_evaluations": evaluations,
                    "out": str(self.out),
                }
            )
            return
        _check_writable(self.out)
        models = _load(self.models, self.store, self.device)
        if self.guidance is not None:
            models = _guided(models, self.guidance)
        images = _training_images(self.data, self.data_dir)
        metrics = _with_weights(self.metrics, self.lpips_weights)
        result = compare(
            models, SharedNoise(self.seed), count=self.count, metrics=metrics, sampler=sampler, images=images
        )
        _write({"comparison": result}, self.out, "Comparison of " + ", ".join(model.name for model in models))
        _print_headline(result)


@dataclass(frozen=True)
class Probe(Common):
    """Ask models why: how hard each noise level is, which of them decides the image, the loss around a model or between two, its curvature.

    Example: consistency-lab probe difficulty unet-s0 --data digits
    """

    what: tyro.conf.Positional[Literal["difficulty", "structure", "landscape", "curvature", "connectivity"]] = (
        "difficulty"
    )
    """difficulty (one model), structure (one or more), landscape (one, or two to go between), curvature (one), connectivity (two; it
    trains a curve)"""
    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of runs in the store, run folders, diffusers:DIR, torchscript:FILE?schedule=...&..."""
    store: Path = Path("runs")
    """where names are looked up"""
    data: str = "digits"
    """images that the loss is taken on; for connectivity a tenth of them, the curve being trained on the others"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    training_data: str | None = None
    """training set that the references of difficulty are fitted to; the same images by default"""
    seed: int = 0
    """seed of the noise and of random directions"""
    count: int | None = None
    """images or samples; 256 for difficulty, 32 for a plane or curvature, 64 for the others"""
    plane: bool = False
    """landscape: a plane; with three models the one through them"""
    player: str | None = None
    """landscape or curvature of a GAN: generator or discriminator"""
    out: Path = Path("probe")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.data.sources import load_images

        self._check()
        found = _find(self.models, self.store)
        if self.dry_run:
            _print_json(
                {
                    "probe": self.what,
                    "models": found,
                    "data": self.data,
                    "out": str(self.out),
                }
            )
            return
        _check_writable(self.out)
        images = load_images(self.data, data_dir=self.data_dir)
        result = self._landscape(images) if self.what in ("landscape", "curvature") else self._probe(images)
        kind, title = result.attrs["kind"], f"{self.what.capitalize()} of {', '.join(self.models)}"
        _write({f"{kind}-{result.attrs.get('model', self.models[0])}": result}, self.out, title)
        if self.what == "difficulty":
            from consistency_lab.probes.profiles import difficulty_table

            shown = ["definition", "peak_t", "peak_from", "peak_to", "share_below", "share_low", "share_high"]
            print(difficulty_table(result)[shown].to_string(index=False, float_format=lambda x: f"{x:.3f}"))

    def _check(self) -> None:
        if self.plane and self.what != "landscape":
            raise UserError("--plane belongs to probe landscape.")
        if self.player and self.what not in ("landscape", "curvature"):
            raise UserError("--player belongs to probe landscape and probe curvature.")
        allowed, said = _PROBED["plane" if self.plane else self.what]
        if len(self.models) not in allowed:
            name = f"probe {self.what}{' --plane' if self.plane else ''}"
            raise UserError(f"{name} takes {said}, not {len(self.models)}.")

    def _probe(self, images: Any) -> xr.Dataset:
        """What is asked of diffusion models alone."""
        from consistency_lab.diffusion.model import DiffusionModel
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.probes.difficulty import probe_difficulty
        from consistency_lab.probes.structure import probe_structure
        from consistency_lab.studies.connectivity import probe_connectivity

        models = _load(self.models, self.store, self.device)
        for model in models:
            if not isinstance(model, DiffusionModel):
                raise UserError(
                    f"probe {self.what} asks diffusion models, and {model.name!r} is a {model.facts['kind']}."
                )
        noise, seed = SharedNoise(self.seed), self.seed
        if self.what == "difficulty":
            count, fitted = min(self.count or 256, len(images)), _training_images(self.training_data, self.data_dir)
            return probe_difficulty(models[0], images, count=count, seed=seed, training_images=fitted)
        if self.what == "structure":
            return probe_structure(models, images, noise, count=self.count or 64)
        kept = max(1, len(images) // 10)
        fitted, held_out = images.split(len(images) - kept, kept, seed=0)
        count = min(self.count or 64, kept)
        first, second = models
        return probe_connectivity(first, second, fitted, held_out, noise=noise, count=count, seed=seed)

    def _landscape(self, images: Any) -> xr.Dataset:
        """A line, a plane or a spectrum of diffusion models, or of a player of GANs or VAEs."""
        from consistency_lab.probes.curvature import curvature_spectrum
        from consistency_lab.probes.landscape import line_landscape
        from consistency_lab.probes.plane import plane_landscape
        from consistency_lab.studies.players import named_subject

        small = self.plane or self.what == "curvature"
        count, bins = min(self.count or (32 if small else 64), len(images)), 4 if small else 10
        options: dict[str, Any] = {"player": self.player, "count": count, "bins": bins, "seed": self.seed}
        first, *others = (
            named_subject(text, images, store=self.store, device=self.device, **options) for text in self.models
        )
        if self.what == "curvature":
            return curvature_spectrum(first, seed=self.seed)
        if self.plane:
            return plane_landscape(first, through=others or None, seed=self.seed)
        return line_landscape(first, towards=others[0] if others else None, seed=self.seed)


# How many models a probe takes, and the same in words.
_PROBED = {
    "difficulty": (range(1, 2), "one model"),
    "structure": (range(1, 17), "one model or more, at most 16"),
    "landscape": (range(1, 3), "one or two models"),
    "plane": ((1, 3), "one or three models"),
    "curvature": (range(1, 2), "one model"),
    "connectivity": (range(2, 3), "two models"),
}


@dataclass(frozen=True)
class Study(Common):
    """Train what a table needs and make the table. Rows are kept as they are finished, and a stopped study goes on.

    Example: consistency-lab study likeness --preset digits --dry-run
    """

    what: tyro.conf.Positional[
        Literal["likeness", "parametrisation", "streams", "origins", "sizes", "emergence", "perceptual", "why"]
    ] = "likeness"
    """likeness: consistency within and between families, and quality; parametrisation, streams: the same where only these differ;
    origins: what closed-form denoisers explain; sizes: against the size of the training set; emergence: over training;
    perceptual: LPIPS at the images' own size; why: all probes on the models of likeness"""
    preset: str = "digits"
    """which models on which data"""
    seed: int = 0
    """seed of the shared noise"""
    count: int | None = None
    """samples of a comparison; the plan's own number by default"""
    lpips_weights: Path | None = None
    """file with the trunk's weights, for LPIPS"""
    workers: int = 1
    """processes that train side by side"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    store: Path = Path("runs")
    """where models are kept"""
    out: Path = Path("figures")
    """folder for PRESET/STUDY.jsonl, the rows that are finished, and PRESET/STUDY.csv, the table"""

    def run(self) -> None:
        from consistency_lab.devices import resolve_device
        from consistency_lab.store.runs import Store
        from consistency_lab.studies.rows import Rows

        store, place = Store(self.store), resolve_device(self.device)
        rows = Rows(self.out / self.preset / f"{self.what}.jsonl")
        if not self.dry_run:
            _check_writable(self.out / self.preset)
        (self._sizes if self.what == "sizes" else self._families)(store, rows, place)

    def _families(self, store: Store, rows: Any, place: Any) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.presets import TABLES
        from consistency_lab.studies.cost import fleet_cost
        from consistency_lab.studies.emergence import emergence_table
        from consistency_lab.studies.fleet import Fleet
        from consistency_lab.studies.likeness import Classifier, Ruler, likeness_table
        from consistency_lab.studies.quality import classifier_spec, set_classifier
        from consistency_lab.studies.why import Why
        from consistency_lab.training.kept import snapshot_steps

        plan = TABLES[self.what](self.preset)
        whole = load_images(plan.data, data_dir=self.data_dir)
        images, held_out = whole.split(len(whole) - plan.held_out, plan.held_out, seed=0)
        if len(held_out) > plan.most_held_out:
            held_out = held_out.take(range(plan.most_held_out), f"{held_out.name}, first {plan.most_held_out}")
        metrics = _with_weights(plan.metrics, self.lpips_weights)
        ruler = Ruler(
            metrics,
            self.count or plan.count,
            plan.quality_count,
            Sampler(steps=plan.sampler_steps),
            self.seed,
            references=plan.references,
        )
        members = {
            name: names for name, names in plan.members.items() if self.what != "emergence" or name in plan.emergence
        }
        jobs = {name: plan.jobs[name] for names in members.values() for name in names}
        if self.dry_run:
            partners = len(members) - 1 if plan.crosses else 0
            evaluations = dict.fromkeys(jobs, ruler.evaluations(partners))
            _print_cost(fleet_cost(images, jobs, store, place, evaluations))
            return
        fleet = Fleet(images, jobs, store, device=place, workers=self.workers, say=print)
        families = [fleet.family(name, names) for name, names in members.items()]
        if self.what == "emergence":
            steps = {name: snapshot_steps(jobs[names[0]]) for name, names in members.items()}
            self._finish(emergence_table(families, steps, images, rows, ruler, say=print))
            return
        if self.what == "why":
            self._finish(Why(images, held_out, store, rows, seed=self.seed, say=print).table(families))
            return
        classifier = Classifier(classifier_spec(whole), lambda: set_classifier(whole, store)) if plan.quality else None
        options: dict[str, Any] = {"classifier": classifier, "crosses": plan.crosses, "say": print}
        self._finish(likeness_table(families, images, held_out, rows, ruler, **options))

    def _sizes(self, store: Store, rows: Any, place: Any) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.presets import sizes_plan
        from consistency_lab.studies.cost import seconds_per_step
        from consistency_lab.studies.sizes import SEEDS, size_sweep

        plan = sizes_plan(self.preset)
        images = load_images(plan.data, data_dir=self.data_dir)
        if self.dry_run:
            each = seconds_per_step(images, plan.settings, place) * plan.settings.steps
            _print_cost({f"size {size}, {2 * SEEDS} models": (2 * SEEDS * each, 0.0) for size in plan.sizes})
            return
        count = self.count or 256
        options: dict[str, Any] = {"count": count, "noise_seed": self.seed, "workers": self.workers, "say": print}
        self._finish(size_sweep(images, plan.sizes, plan.settings, store, rows, **options))

    def _finish(self, table: Any) -> None:
        from consistency_lab.store.results import save_frame

        nested = [name for name in table if table[name].map(lambda x: isinstance(x, list | dict)).any()]
        numbers = table.drop(columns=nested)  # curves stay in the rows
        save_frame(numbers, self.out / self.preset / f"{self.what}.csv")
        keys = {"probe", "family", "models", "size", "step", "frechet", "covered", "fit", "p_any"}
        shown = [n for n in numbers if n in keys or n.startswith(("between", "within", "copies", *_SHOWN))]
        print(numbers[shown].to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}"))


_SHOWN = (
    *(f"{metric}_{end}" for metric in ("mse", "lpips") for end in ("score", "low", "high")),
    *("relative_curvature", "roughness", "relative_barrier", "hessian_relative_trace", "handoff_t", "barrier_"),
)


@dataclass(frozen=True)
class MakeRecipe:
    """Derive training settings from findings: a difficulty result, and landscapes or a curvature of the same model.

    Example: consistency-lab recipe probe/results/difficulty-unet-s0.nc --out recipe.json
    """

    findings: tyro.conf.Positional[tuple[Path, ...]] = ()
    """.nc files: one difficulty, any number of landscapes, at most one curvature; none for the paper's own recipe"""
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    draws: Literal["objective", "importance"] = "objective"
    """objective: hard times count for more. importance: draws are weighted back to the uniform objective"""
    exponent: float = 1.0
    """the root second moment is raised to it"""
    out: Path = Path("recipe.json")
    """the recipe, for --recipe of a race and Recipe.load"""
    dry_run: bool = False
    """print the recipe, and write nothing"""

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
        if not results:
            recipe = Recipe.paper()
        elif len(by_kind["difficulty"]) != 1 or len(by_kind["curvature"]) > 1:
            raise UserError("a recipe needs one difficulty result and at most one curvature.")
        else:
            curvature = by_kind["curvature"][0] if by_kind["curvature"] else None
            options: dict[str, Any] = {
                "weighting": self.draws,
                "exponent": self.exponent,
                "settings": self.settings,
            }
            recipe = Recipe.from_findings(
                by_kind["difficulty"][0], by_kind["landscape"] or None, curvature=curvature, **options
            )
        print(recipe)
        _print_json(recipe.changes)
        if not self.dry_run:
            recipe.save(self.out)
            print(self.out)


@dataclass(frozen=True)
class Race(Common):
    """Race training settings to a target that is fixed beforehand, with every control that a speed-up needs. A stopped race goes on.

    Example: consistency-lab race --preset digits --dry-run
    """

    preset: str = "digits"
    """data, network and seeds: digits, fashion"""
    contestants: Literal["standard", "centers"] = "standard"
    """standard: controls, published methods, the paper's recipe and ours. centers: the paper's ablation over the center of CLTS"""
    recipe: tuple[Path, ...] = ()
    """recipes from findings on another set, such as the recipe-*.json that its race writes: they cost no pilot here"""
    consistency: bool = False
    """no race: does the recipe change what is learnt, or only when? Consistency within and between uniform and recipe-trained models"""
    store: Path = Path("runs")
    """where the classifier is kept, and the models of --consistency"""
    workers: int = 1
    """processes that run side by side, each with its share of the CPU's threads"""
    out: Path = Path("figures")
    """folder for PRESET/race.jsonl, the rows that are finished, and PRESET/CONTESTANTS-*, tables and figures, renewed every round"""

    def run(self) -> None:
        from consistency_lab.devices import resolve_device
        from consistency_lab.presets import race_plan
        from consistency_lab.recipe import Recipe
        from consistency_lab.store.runs import Store
        from consistency_lab.studies.race.study import race_dry_run, race_recipe, run_race
        from consistency_lab.studies.rows import Rows

        if self.force:
            raise UserError("a race has no --force: its rows are committed. Remove those that are to be run again.")
        plan, folder = race_plan(self.preset), self.out / self.preset
        store, rows = Store(self.store), Rows(folder / "race.jsonl")
        foreign = {f"recipe from {path.stem.removeprefix('recipe-')}": Recipe.load(path) for path in self.recipe}
        options: dict[str, Any] = {
            "field": self.contestants,
            "foreign": foreign,
            "device": resolve_device(self.device),
        }
        if self.dry_run:
            _print_cost(race_dry_run(plan, store, rows, **options))
            return
        store.check()
        _check_writable(folder)
        if self.consistency:
            self._consistency(plan, store, rows, options["device"])
            return
        told: Any = (lambda line: None) if self.quiet else (lambda line: print(line, flush=True))
        _print_race(run_race(plan, store, rows, workers=self.workers, live=self._write, say=told, **options))
        if self.contestants == "standard":
            race_recipe(plan, rows, options["device"]).save(folder / f"recipe-{self.preset}.json")

    def _consistency(self, plan: Any, store: Store, rows: Any, device: Any) -> None:
        from consistency_lab.store.results import save_frame
        from consistency_lab.studies.race.learnt import what_is_learnt

        table = what_is_learnt(plan, store, rows, device=device, say=print)
        save_frame(table, self.out / self.preset / "race-consistency.csv")
        shown = ["family", "models", *(f"mse_{key}" for key in ("score", "low", "high")), "frechet"]
        print(table[shown].to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}"))

    def _write(self, result: xr.Dataset) -> None:
        from consistency_lab.plots.figures import figures_of
        from consistency_lab.plots.save import save_figure
        from consistency_lab.store.results import save_frame, save_result
        from consistency_lab.studies.race.table import finals_table, race_table

        start = self.out / self.preset / f"race-{self.contestants}"
        save_result(result, start.with_name(f"{start.name}.nc"))
        save_frame(race_table(result), start.with_name(f"{start.name}.csv"))
        save_frame(finals_table(result), start.with_name(f"{start.name}-finals.csv"))
        for name, figure, frame in figures_of(result):
            save_figure(figure, start.with_name(f"{start.name}-{name}"), frame)


@dataclass(frozen=True)
class Report:
    """Make one page out of results (.nc files, or folders that hold them).

    Example: consistency-lab report comparison between --out report.html
    """

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """.nc files, or folders that hold some, themselves or in their results/"""
    title: str | None = None
    """heading of the page"""
    out: Path = Path("report.html")
    """the page; .json and .md are written beside it"""
    dry_run: bool = False
    """print which results would be read, and stop"""

    def run(self) -> None:
        from consistency_lab.reports.html import report
        from consistency_lab.store.results import load_result

        paths = [path for given in self.results for path in _results_in(given)]
        if not paths:
            raise UserError("there is nothing to report: name .nc files or a folder that holds some.")
        if self.dry_run:
            _print_json({"results": [str(path) for path in paths], "out": str(self.out)})
            return
        print(report([load_result(path) for path in paths], self.out, title=self.title))


@dataclass(frozen=True)
class Status:
    """List the runs of a store, with the data and the settings that are not at their defaults.

    Example: consistency-lab status --store demo/runs
    """

    store: Path = Path("runs")
    """where runs are kept"""

    def run(self) -> None:
        runs = _store(self.store).runs()
        if not runs:
            print(f"no runs in {self.store}")
        for run in runs:
            state = "stale" if run.stale else "done" if run.done else "unfinished"
            said = ", ".join([str(run.spec.get("data", {}).get("name", "")), *_changed(run)]).strip(", ")
            print(f"{state:<10}  {run.kind:<8}  {run.name:<24}  {run.folder.name}  {said}".rstrip())


def _changed(run: Run) -> list[str]:
    """The settings of a run that are not at their defaults; none for a kind that has no settings."""
    if run.kind not in SETTINGS or "settings" not in run.spec:
        return []
    from consistency_lab.training.describing import changed_settings

    module, name, choices = SETTINGS[run.kind]
    registries = {key: _named(*place) for key, place in {**CHOICES, **choices}.items()}
    return changed_settings(run.spec["settings"], _named(module, name)(), registries)


def _named(module: str, name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(f"consistency_lab.{module}"), name)


LISTS = {
    "networks": ("networks.registry", "NETWORKS"),
    "datasets": ("data.sources", "DATASETS"),
    "metrics": ("metrics.distances", "METRICS"),
    "samplers": ("diffusion.sampling", "SAMPLERS"),
    "schedules": ("diffusion.schedule", "SCHEDULES"),
    "predictions": ("diffusion.denoiser", "PREDICTIONS"),
    "timesteps": ("training.timesteps", "TIMESTEPS"),
    "weightings": ("training.weighting", "WEIGHTINGS"),
    "momentum": ("training.momentum", "MOMENTUM_RULES"),
    "optimizers": ("training.loop", "OPTIMIZERS"),
}
CHOICES = {"schedule": LISTS["schedules"], "predicts": LISTS["predictions"], "optimizer": LISTS["optimizers"]} | {
    key: LISTS[key] for key in ("timesteps", "momentum")
}
SETTINGS: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {
    "model": ("training.settings", "TrainingSettings", {"network": LISTS["networks"]}),
    "gan": (
        "contrast.settings",
        "GANSettings",
        {"generator": ("contrast.networks", "GENERATORS"), "discriminator": ("contrast.networks", "DISCRIMINATORS")},
    ),
    "vae": ("contrast.settings", "VAESettings", {"autoencoder": ("contrast.networks", "AUTOENCODERS")}),
}


@dataclass(frozen=True)
class List:
    """List what can be chosen by name, with its options.

    Example: consistency-lab list networks "unet*"
    """

    what: tyro.conf.Positional[
        Literal[
            "networks",
            "datasets",
            "metrics",
            "samplers",
            "schedules",
            "predictions",
            "timesteps",
            "weightings",
            "momentum",
            "optimizers",
        ]
    ] = "networks"
    """what to list"""
    pattern: tyro.conf.Positional[str] = "*"
    """shell pattern that names must match"""

    def run(self) -> None:
        registry = _named(*LISTS[self.what])
        names = registry.names(self.pattern)
        if not names:
            raise UserError(f"no {self.what} match {self.pattern!r}; there are {', '.join(registry.names())}.")
        for entry in names:
            print(registry.describe(entry))


@dataclass(frozen=True)
class Export:
    """Write a trained model in the layout of diffusers.

    Example: consistency-lab export unet-s0 unet-for-diffusers
    """

    model: tyro.conf.Positional[str] = ""
    """name of a run in the store, or a run folder"""
    out: tyro.conf.Positional[Path] = Path("exported")
    """folder to make; it must not exist or be empty"""
    store: Path = Path("runs")
    """where names are looked up"""

    def run(self) -> None:
        from consistency_lab.interop.export import export_diffusers

        (model,) = _load([self.model], self.store, "cpu")
        print(export_diffusers(model, self.out))


def parse_seeds(text: str) -> list[int]:
    """``"0-3,7"`` -> [0, 1, 2, 3, 7]. Raises `UserError` for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UserError(f"cannot read the seeds {text!r}: write numbers and rising ranges, for example 0-3,7.")
        seeds.extend(range(int(first), int(last or first) + 1))
    if len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds {text!r} name one seed twice.")
    return seeds


def _results_in(given: Path) -> list[Path]:
    """The file itself, or the results in a folder and in its results/."""
    if not given.is_dir():
        return [given]
    found = [*sorted(given.glob("*.nc")), *sorted((given / "results").glob("*.nc"))]
    if not found:
        raise UserError(
            f"there are no results (.nc files) in {given} or {given / 'results'}; name a folder that holds some."
        )
    return found


def _store(root: Path) -> Store:
    from consistency_lab.store.runs import Store

    return Store(root)


def _find(texts: Sequence[str], store: Path) -> list[str]:
    """What each text means, for a dry run: the run's folder, or the foreign address itself. Nothing is loaded."""
    from consistency_lab.interop.load import is_foreign
    from consistency_lab.loading import find_run

    return [text if is_foreign(text) else str(find_run(text, store).folder) for text in texts]


def _load(texts: Sequence[str], store: Path, device: str | None) -> list[Any]:
    from consistency_lab.loading import load_all

    return load_all(texts, store=store, device=device)


def _guided(models: list[Any], scale: float) -> list[Any]:
    """The models with guidance where they have labels; those that have none are named."""
    labelled = [bool(getattr(model, "classes", 0)) for model in models]  # a GAN or VAE has none
    without = ", ".join(model.name for model, has in zip(models, labelled, strict=True) if not has)
    if not any(labelled):
        raise UserError(f"--guidance needs class-conditional models, and {without} know no labels; leave it out.")
    if without:
        print(f"consistency-lab: no guidance for {without}, trained without labels.", file=sys.stderr)
    return [model.guided(scale) if has else model for model, has in zip(models, labelled, strict=True)]


def _training_images(data: str | None, data_dir: Path | None) -> Any:
    from consistency_lab.data.sources import load_images

    return None if data is None else load_images(data, data_dir=data_dir)


def _check_writable(folder: Path) -> None:
    from consistency_lab.store.atomic import ensure_writable

    ensure_writable(folder)


def _write(results: dict[str, xr.Dataset], out: Path, title: str) -> None:
    """Results as netCDF and CSV, their figures, and the report."""
    from consistency_lab.reports.folder import write_folder

    path = write_folder(results, out, title)
    print(f"report: {path}")


def _print_headline(comparison: xr.Dataset) -> None:
    from consistency_lab.plots.frames import overview
    from consistency_lab.reports.numbers import headline, score_text

    head = headline(comparison)
    print(f"\n{head.sentence}\n")
    for row in overview(comparison, head.metric).to_dict("records"):
        print(f"  {row['name']:<40}  {score_text(row['score'], row['score_low'], row['score_high'])}")


def _print_race(result: xr.Dataset) -> None:
    from consistency_lab.studies.race.table import finals_table, race_table

    for metric, good in zip(result["metric"].values, result["qualified"].values, strict=True):
        print(f"{metric}: {'qualified as a target' if good else 'NOT qualified: what needs no training is as good'}")
    table = race_table(result)
    fastest = table[table["fastest"]]
    names = ["contestant", "control", "speedup", "low", "high", "bound", "seconds_speedup", "pilot_speedup", "censored"]
    print(fastest[names].to_string(index=False, na_rep="", float_format=lambda x: f"{x:.2f}"))
    print(finals_table(result).to_string(index=False, na_rep="", float_format=lambda x: f"{x:.4f}"))


def _print_cost(seconds: dict[str, tuple[float, float]]) -> None:
    """Minutes of training and of evaluation of each job, on this machine with the threads that it has now."""
    keys = ("training", "evaluation")
    jobs = {name: {k: round(v / 60, 1) for k, v in zip(keys, each, strict=True)} for name, each in seconds.items()}
    total = {key: round(sum(each[i] for each in seconds.values()) / 60, 1) for i, key in enumerate(keys)}
    _print_json({"jobs": jobs, "unit": "minutes, one job after another", "total": total})


def _with_weights(metrics: Sequence[str], weights: Path | None) -> tuple[str, ...]:
    """The metrics, those of LPIPS with the file of their trunk's weights."""
    from consistency_lab.choices import Choice

    if weights is None:
        return tuple(metrics)
    chosen = [Choice.parse(metric) for metric in metrics]
    return tuple(
        str(Choice(each.name, {"weights": str(weights), **each.options}))
        if each.name.startswith("lpips")
        else str(each)
        for each in chosen
    )


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2, default=str))


_HELP = """How alike are the images that different generative models make from the same noise, why, and what does that buy?

Begin with: consistency-lab demo"""
COMMANDS = {
    "demo": Demo,
    "train": Train,
    "compare": Compare,
    "probe": Probe,
    "study": Study,
    "recipe": MakeRecipe,
    "race": Race,
    "report": Report,
    "status": Status,
    "list": List,
    "export": Export,
}


def _parse(arguments: list[str]) -> Any:
    """The command that the arguments ask for. A settings file gives the defaults of ``train``, so it is looked for first."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    config = early.parse_known_args(arguments[1:])[0].config if arguments[:1] == ["train"] else None
    made: dict[str, Any] = {"train": Train(settings=TrainingSettings.read(config))} if config else {}
    kinds = tuple(
        Annotated[kind, tyro.conf.subcommand(name=name, default=made.get(name, kind()))]
        for name, kind in COMMANDS.items()
    )
    shape = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(Union[kinds], prog="consistency-lab", description=_HELP, args=arguments, config=shape)  # type: ignore[call-overload]  # noqa: UP007
    except SystemExit as stopped:
        # A value that the settings refuse has a sentence of its own, which the parser wraps in a box with a name of its own making.
        error: BaseException | None = stopped if stopped.code else None
        while error is not None and not isinstance(error, UserError):
            error = error.__cause__ or error.__context__
        if error is not None:
            raise error from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0, 2 for input that cannot be used, or 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        command = _parse(arguments)
        command.run()
    except UserError as error:
        print(f"consistency-lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"consistency-lab: {str(stopped) or 'stopped.'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough (`... --help | head`)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it on its way out
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
