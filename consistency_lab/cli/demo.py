"""The command `demo`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consistency_lab.cli.common import Common, claim_folder, print_headline, write_results
from consistency_lab.errors import UserError


@dataclass(frozen=True)
class Demo(Common):
    """Train four models on real images, compare them under shared noise, ask why, and write a report.

    With --quick nothing is trained: models that ship with the package are compared, which takes seconds.

    Example: consistency-lab demo --out demo
    """

    quick: bool = False
    """compare trained models of the package's zoo instead, on Fashion-MNIST at 28x28"""
    data_dir: Path | None = None
    """with --quick: folder with the files of Fashion-MNIST, for the closed-form references; data/ by default"""
    preset: str = "digits"
    """what to train and compare"""
    seed: int = 0
    """seed of the shared noise"""
    out: Path = Path("demo")
    """folder for report, figures, results and (in its runs/) the trained models"""

    def run(self) -> None:
        if self.quick:
            self._quick()
            return
        if self.data_dir is not None:
            raise UserError("--data-dir is of demo --quick; the data of this preset come with the package.")
        from consistency_lab.presets import demo_plan
        from consistency_lab.store.runs import Store
        from consistency_lab.studies.demo import run_demo

        plan, store = demo_plan(self.preset), Store(self.out / "runs")
        if self.dry_run:
            self.say({"out": str(self.out), "seed": self.seed, **dataclasses.asdict(plan)})
            return
        claim_folder(self.out, self.force or self._made_here(list(plan.runs)))
        store.check()
        options: dict[str, Any] = {
            "seed": self.seed,
            "device": self.device,
            "force": self.force,
            "progress": self.progress,
        }
        done = run_demo(plan, store, say=say, **options)
        say("writing results, figures and the report")
        write_results(done.results, self.out, f"Same noise, same image? Preset {self.preset}")
        print_headline(done.results["comparison"])
        print("\nRecipe from the findings:")
        print(done.recipe)

    def _made_here(self, names: list[str]) -> bool:
        """Whether the results that the folder holds are of this demo, which then goes on: of its own models, under the same noise."""
        from consistency_lab.store.results import load_result, provenance

        held = self.out / "results" / "comparison.nc"
        if not held.is_file() or not (self.out / "runs").is_dir():
            return False
        made = provenance(load_result(held))
        return [model["name"] for model in made["models"]] == names and made["noise_seed"] == self.seed

    def _quick(self) -> None:
        if self.preset != type(self).preset:
            raise UserError("demo --quick has no preset: its models are those of the zoo; leave out --preset.")
        from consistency_lab.presets import quick_plan

        plan = quick_plan()
        if self.dry_run:
            self.say({"out": str(self.out), "seed": self.seed, **dataclasses.asdict(plan)})
            return
        from consistency_lab.studies.demo import run_quick

        claim_folder(self.out, self.force)
        results = run_quick(plan, seed=self.seed, data_dir=self.data_dir, device=self.device, say=say)
        say("writing results and the report")
        write_results(results, self.out, "Same noise, same image? Models of the zoo", figures=False)
        for result in results.values():
            print_headline(result)


def say(line: str) -> None:
    print(line, flush=True)
