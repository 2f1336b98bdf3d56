"""The command `predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from consistency_lab.cli.common import claim_folder, print_table, training_images, write_results
from consistency_lab.cli.plans import DryRun
from consistency_lab.errors import UserError


@dataclass(frozen=True)
class Predict(DryRun):
    """How alike would linear denoisers of two disjoint sets of n images be? In closed form: nothing is trained.

    Example: consistency-lab predict 128 400 898 --data digits
    """

    n: tyro.conf.Positional[tuple[int, ...]] = ()
    """images in each of the two sets: one number or several"""
    data: str = "digits"
    """images whose mean and covariance the population has"""
    data_dir: Path | None = None
    """folder with the files of published sets; data/ by default"""
    schedule: str = "linear"
    """whose times the noise levels are told in"""
    seed: int = 0
    """seed of the noise of the samples"""
    count: int = 256
    """samples whose distance is predicted one by one"""
    out: Path = Path("prediction")
    """folder for the result, its figures and its report"""
    force: bool = False
    """write over results that are there"""

    def run(self) -> None:
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.intervals import interval_names
        from consistency_lab.similarity.prediction import predict_consistency

        if not self.n:
            raise UserError("name a number of images or more, for example: consistency-lab predict 128 898")
        if self.dry_run:
            self.say({"images_a_set": self.n, "data": self.data, "network_evaluations": 0, "out": str(self.out)})
            return
        images = training_images(self.data, self.data_dir)
        claim_folder(self.out, self.force)
        result = predict_consistency(
            images, self.n, schedule=self.schedule, noise=SharedNoise(self.seed), count=self.count
        )
        write_results({"prediction": result}, self.out, f"What linear denoisers of {images.name} would agree on")
        at = result.isel(t=-1, drop=True).sel(states="own trajectories", drop=True)
        print_table(result, at[[*interval_names("score"), "distance", "null"]].to_dataframe().reset_index())
