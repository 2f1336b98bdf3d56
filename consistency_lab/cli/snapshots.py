"""The command `snapshots`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from consistency_lab.cli.common import (
    Common,
    claim_folder,
    find,
    load_models,
    print_table,
    training_images,
    write_results,
)
from consistency_lab.errors import UserError


@dataclass(frozen=True)
class Snapshots(Common):
    """When in training do the images become what they end as, and when do runs begin to agree? By training step.

    Example: consistency-lab snapshots unet-s0 unet-s1 --data digits
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """one or more: names of runs in the store, or run folders"""
    store: Path = Path("runs")
    """where names are looked up"""
    data: str | None = None
    """training set, for the closed-form references"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    seed: int = 0
    """seed of the shared noise"""
    count: int = 64
    """samples of each snapshot"""
    metrics: tuple[str, ...] = ("mse", "cosine")
    """distances"""
    sampler: str = "ddim(steps=50)"
    """ddim, heun, dpm++2m or ancestral, with its options"""
    out: Path = Path("snapshots")
    """folder for the result, its figures and its report"""

    def run(self) -> None:
        from consistency_lab.diffusion.model import check_diffusion
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.plots.snapshots import snapshot_frame
        from consistency_lab.similarity.snapshots import compare_snapshots
        from consistency_lab.training.train import kept_steps

        if not self.models:
            raise UserError("name a run or more, for example: consistency-lab snapshots unet-s0 unet-s1")
        found, sampler = find(self.models, self.store), Sampler.parse(self.sampler)
        models = load_models(self.models, self.store, self.device)
        for model in models:
            check_diffusion(model)
        if self.dry_run:
            snapshots = sum(len(kept_steps(model)) for model in models)
            evaluations = snapshots * self.count * sampler.evaluations()
            self.say(
                {"models": found, "snapshots": snapshots, "network_evaluations": evaluations, "out": str(self.out)}
            )
            return
        claim_folder(self.out, self.force)
        images = training_images(self.data, self.data_dir)
        result = compare_snapshots(
            models, SharedNoise(self.seed), images=images, count=self.count, metrics=self.metrics, sampler=sampler
        )
        write_results({"snapshots": result}, self.out, "Over training: " + ", ".join(model.name for model in models))
        print_table(result, snapshot_frame(result))
