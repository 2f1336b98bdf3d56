"""The command `demo`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consistency_lab.cli.common import Common, print_headline, write_results


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
            self.say({"out": str(self.out), "seed": self.seed, **dataclasses.asdict(plan)})
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
        write_results(done.results, self.out, f"Same noise, same image? Preset {self.preset}")
        print_headline(done.results["comparison"])
        print("\nRecipe from the findings:")
        print(done.recipe)
