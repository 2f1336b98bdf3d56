"""The command `study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from consistency_lab.cli.common import Common, print_cost, with_weights

if TYPE_CHECKING:
    from consistency_lab.store.runs import Store


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
    data: str | None = None
    """another set than the plan's, such as "npz(path='cifar10.npz')"; rows are told apart by the images themselves"""
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
        from consistency_lab.store.atomic import ensure_writable
        from consistency_lab.store.runs import Store
        from consistency_lab.studies.rows import Rows

        store, place = Store(self.store), resolve_device(self.device)
        rows = Rows(self.out / self.preset / f"{self.what}.jsonl")
        if not self.dry_run:
            ensure_writable(self.out / self.preset)
        (self._sizes if self.what == "sizes" else self._families)(store, rows, place)

    def _families(self, store: Store, rows: Any, place: Any) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.presets import TABLES
        from consistency_lab.studies.cost import fleet_cost
        from consistency_lab.studies.emergence import emergence_table
        from consistency_lab.studies.fleet import Fleet
        from consistency_lab.studies.likeness import likeness_table
        from consistency_lab.studies.pairs import every_pair_sentence, pair_table
        from consistency_lab.studies.ruler import Classifier, Ruler
        from consistency_lab.studies.why import Why
        from consistency_lab.training.kept import snapshot_steps
        from consistency_lab.training.settings import TrainingSettings

        plan = TABLES[self.what](self.preset)
        whole = load_images(self.data or plan.data, data_dir=self.data_dir)
        images, held_out = whole.split(len(whole) - plan.held_out, plan.held_out, seed=0)
        if len(held_out) > plan.most_held_out:
            held_out = held_out.take(range(plan.most_held_out), f"{held_out.name}, first {plan.most_held_out}")
        metrics = with_weights(plan.metrics, self.lpips_weights)
        ruler = Ruler(
            metrics,
            self.count or plan.count,
            plan.quality_count,
            Sampler(steps=plan.sampler_steps),
            seed=self.seed,
            references=plan.references,
        )
        members = {
            name: names for name, names in plan.members.items() if self.what != "emergence" or name in plan.emergence
        }
        jobs = {name: plan.jobs[name] for names in members.values() for name in names}
        if self.dry_run:
            evaluations = {name: ruler.evaluations(isinstance(each, TrainingSettings)) for name, each in jobs.items()}
            print_cost(fleet_cost(images, jobs, store, place, evaluations))
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
        classifier = Classifier.of(whole, store) if plan.quality else None
        options: dict[str, Any] = {"classifier": classifier, "crosses": plan.crosses, "say": print}
        self._finish(likeness_table(families, images, held_out, rows, ruler, **options))
        if plan.crosses:
            print(every_pair_sentence(pair_table(families, images, rows, ruler)))

    def _sizes(self, store: Store, rows: Any, place: Any) -> None:
        from consistency_lab.data.sources import load_images
        from consistency_lab.presets import sizes_plan
        from consistency_lab.studies.cost import seconds_per_step
        from consistency_lab.studies.sizes import SEEDS, size_sweep

        plan = sizes_plan(self.preset)
        images = load_images(self.data or plan.data, data_dir=self.data_dir)
        if self.dry_run:
            each = seconds_per_step(images, plan.settings, place) * plan.settings.steps
            print_cost({f"size {size}, {2 * SEEDS} models": (2 * SEEDS * each, 0.0) for size in plan.sizes})
            return
        count = self.count or 256
        options: dict[str, Any] = {"count": count, "noise_seed": self.seed, "workers": self.workers, "say": print}
        self._finish(size_sweep(images, plan.sizes, plan.settings, store, rows, **options))

    def _finish(self, table: Any) -> None:
        from consistency_lab.store.results import save_frame

        nested = [name for name in table if table[name].map(lambda x: isinstance(x, list | dict)).any()]
        numbers = table.drop(columns=nested)  # curves stay in the rows
        save_frame(numbers, self.out / self.preset / f"{self.what}.csv")
        keys = {"probe", "family", "models", "size", "step", "frechet", "covered", "fit", "outside", "p_any"}
        shown = [n for n in numbers if n in keys or n.startswith(("between", "within", "copies", *_SHOWN))]
        print(numbers[shown].to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}"))


_SHOWN = (
    *(f"{metric}_{end}" for metric in ("mse", "lpips") for end in ("score", "low", "high")),
    *("relative_curvature", "roughness", "relative_barrier", "hessian_relative_trace", "handoff_t", "barrier_"),
)
