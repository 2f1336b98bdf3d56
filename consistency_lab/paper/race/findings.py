"""What recipes of a race follow: a short uniform run on the same images, probed, with the time that all of it took."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from consistency_lab.data.imageset import ImageSet
from consistency_lab.paper.race.parallel_runs import as_one_of
from consistency_lab.paper.rows import Rows
from consistency_lab.probes.curvature import probe_curvature
from consistency_lab.probes.difficulty import probe_difficulty
from consistency_lab.probes.landscape import probe_landscape
from consistency_lab.recipe import Curvature, Recipe, read_curvature, shuffled
from consistency_lab.studies.executors import Executor, executor_of
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import train, training_spec

# Their time is part of a recipe's: as few samples as still tell times and curvatures apart.
DIFFICULTY = {"count": 64, "bins": 20, "detail": 8}
LANDSCAPE = {"points": 9, "count": 16, "bins": 8}
CURVATURE = {
    "count": 16,
    "bins": 8,  # one level would be the curvature of t = 1/2 alone
    "operators": ("gauss_newton",),
    "eigenvalues": 1,
    "probes": 2,
    "steps": 30,
    "products": 10,
    "by_t": False,
}
PILOT = "race-pilot"
GRADIENTS = ("gradient norm", "gradient noise")


class Findings(NamedTuple):
    """Of one pilot.

    Attributes:
        difficulty: its second moment of the eps-loss, and mean and noise of its gradients, over t.
        landscape: the roughness of one line through it.
        curvature: of the Gauss-Newton part of its Hessian.
        seconds: of its training and of the probes, each.
    """

    difficulty: xr.Dataset
    landscape: xr.Dataset
    curvature: Curvature
    seconds: tuple[float, float] = (0.0, 0.0)

    def recipe(self, settings: TrainingSettings, **options: Any) -> Recipe:
        """`Recipe.from_findings` of them."""
        return Recipe.from_findings(
            self.difficulty, self.landscape, curvature=self.curvature, settings=settings, **options
        )

    def shuffled(self, seed: int) -> Findings:
        """With the times of the difficulty permuted, and nothing else."""
        return self._replace(difficulty=shuffled(self.difficulty, seed))


def findings_spec(images: ImageSet, pilot: TrainingSettings, device: torch.device) -> dict[str, Any]:
    """The spec of the row of findings."""
    probes = {"difficulty": DIFFICULTY, "landscape": LANDSCAPE, "curvature": CURVATURE, "metric": "adam"}
    return {"row": "findings", "run": training_spec(images, pilot, device), "probes": probes}


def findings(
    images: ImageSet, pilot: TrainingSettings, rows: Rows, device: torch.device, executor: str | Executor = "local"
) -> Findings:
    """From the rows, or found now: the numbers that recipes follow are a row, so that a race resumes without the pilot.

    Args:
        images: the training images.
        pilot: its settings.
        rows: of the race.
        device: where it happens.
        executor: the race's: the pilot is trained, probed and timed where one of its runs would be, with as many threads.
    """
    where = executor_of(executor)

    def compute() -> dict[str, Any]:
        with as_one_of(where, device):  # a single job may be done in this process
            ((_, found),) = where.run(_found, {PILOT: (pilot,)}, (images,), device)
        return dict(found)

    return from_row(rows.row(findings_spec(images, pilot, device), compute))


def _found(images: ImageSet, settings: TrainingSettings, device: torch.device) -> dict[str, Any]:
    began = _clocks()
    pilot = train(images, name=PILOT, settings=settings, device=device, progress=False)
    trained = _clocks()
    difficulty = probe_difficulty(pilot, images, **DIFFICULTY)  # type: ignore[arg-type]
    landscape = probe_landscape(pilot, images, **LANDSCAPE)  # type: ignore[arg-type]
    curvature = read_curvature(probe_curvature(pilot, images, **CURVATURE))  # type: ignore[arg-type]
    moment = (difficulty["error"].sel(units="eps").values.astype(np.float64) ** 2).mean(1)
    return {
        "t": difficulty["t"].values.tolist(),
        "loss_second_moment": moment.tolist(),
        "gradients": difficulty["profile"].sel(definition=list(GRADIENTS)).values.tolist(),
        "adam_second_moment": difficulty["adam_second_moment"].values.tolist(),
        "roughness": float(landscape["roughness"]),
        "roughness_span": float(landscape["roughness_span"]),
        "curvature": list(curvature),
        "seconds": [_between(began, trained), _between(trained, _clocks())],
    }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _between(start: tuple[float, float], end: tuple[float, float]) -> float:
    """Seconds that passed, or those that this process computed where they are fewer: then other programs had the machine."""
    return min(b - a for a, b in zip(start, end, strict=True))


def from_row(row: dict[str, Any]) -> Findings:
    """Findings from the values of their row."""
    error = np.sqrt(np.array(row["loss_second_moment"]))[None, :, None]
    difficulty = xr.Dataset(
        {
            "error": (("units", "t", "sample"), error),
            "profile": (("definition", "t"), np.array(row["gradients"])),
            "adam_second_moment": ("t", np.array(row["adam_second_moment"])),
        },
        {"units": ["eps"], "t": row["t"], "definition": list(GRADIENTS)},
        {"kind": "difficulty", "model": "the pilot"},
    )
    # Rows of before the span was kept are of lines from -1 to 1.
    rough = {"roughness": row["roughness"], "roughness_span": row.get("roughness_span", 1.0)}
    landscape = xr.Dataset(attrs={"kind": "landscape", **rough})
    return Findings(difficulty, landscape, Curvature(*row["curvature"]), tuple(row["seconds"]))


def unknown() -> Findings:
    """What stands in for findings before there are any: every time as hard as every other."""
    flat = [1.0] * 20
    row = {"t": ((np.arange(20) + 0.5) / 20).tolist(), "loss_second_moment": flat, "gradients": [flat] * 2}
    row["adam_second_moment"] = flat
    return from_row({**row, "roughness": 0.0, "curvature": (1.0, 1.0, 1000), "seconds": (0.0, 0.0)})
