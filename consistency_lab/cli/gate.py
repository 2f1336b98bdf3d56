"""The command `gate`."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro

from consistency_lab.cli.common import (
    OfModels,
    claim_folder,
    find,
    load_models,
    parse_numbers,
    with_weights,
    write_results,
)
from consistency_lab.errors import UserError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Gate(OfModels):
    """Does a candidate still make its reference's images from the same noise? Exit status 0: pass, 1: fail, 3: cannot tell, 2: usage.

    Example: consistency-lab gate images:ref/ images:cand/ --at-least .95
    Example: consistency-lab gate fp16 int8 --metrics mse lpips-alex --at-least .95 --junit gate.xml
    """

    answers: ClassVar[bool] = True
    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """reference and candidate: names of runs in the store, run folders, or addresses such as images:DIR and diffusers:DIR"""
    again: str | None = None
    """a second run of the reference, for the ceiling: what the candidate is held to where there is no bound"""
    store: Path = Path("runs")
    """where names are looked up"""
    metrics: tuple[str, ...] = ("mse",)
    """distances; all must pass"""
    at_least: tuple[float, ...] = ()
    """score that must be reached, one for all metrics or one for each"""
    margin: float = 0.02
    """without a bound: how far below the ceiling the score may be"""
    baseline: Path | None = None
    """file of an earlier gate's scores, which must be reached up to its tolerance"""
    write_baseline: Path | None = None
    """write this gate's scores, of all --count samples, as a baseline, unless it fails; over another one only with --force"""
    tolerance: float = 0.01
    """of the baseline that is written"""
    seed: int = 0
    """seed of the shared noise and of the order of samples"""
    count: int | None = None
    """samples at most; by default all of a folder, 1024 of a model"""
    batch: int = 32
    """samples between two looks"""
    error: float = 0.05
    """probability that the interval ever misses the score, half at either end"""
    lpips_weights: Path | None = None
    """file with the trunk's weights, for metrics such as lpips-squeeze"""
    sampler: str = "ddim(steps=50)"
    """ddim, heun, dpm++2m or ancestral, with its options; for diffusion models"""
    labels: str | None = None
    """labels that conditional models are asked for in turn, such as 0-9 or 3,5; by default all that they know"""
    junit: Path | None = None
    """write JUnit XML: a test case for each metric"""
    markdown: Path | None = None
    """write Markdown for a pull request's comment, and the worst pairs as a PNG beside it"""
    out: Path = Path("gate")
    """folder for the result, its figures and the report"""

    def run(self) -> int:
        from consistency_lab.diffusion.noise import SharedNoise
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.gates.baseline import Baseline
        from consistency_lab.gates.decision import STATUS
        from consistency_lab.gates.gate import gate
        from consistency_lab.reports.gate import json_text, write_junit, write_markdown
        from consistency_lab.store.atomic import ensure_writable

        if len(self.models) != 2:
            raise UserError(
                f"a gate is of two, the reference and the candidate, not of {len(self.models)}: consistency-lab gate REF CAND"
            )
        texts = [*self.models, *([] if self.again is None else [self.again])]
        found, sampler = find(texts, self.store), Sampler.parse(self.sampler)
        labels = None if self.labels is None else parse_numbers(self.labels, "labels")
        baseline = None if self.baseline is None else Baseline.read(self.baseline)
        if self.dry_run:
            self.say({"models": found, "samples_at_most": self.count, "out": str(self.out)})
            return 0
        written = {write_junit: self.junit, write_markdown: self.markdown}
        if self.write_baseline is not None and self.write_baseline.exists() and not self.force:
            raise UserError(
                f"{self.write_baseline} holds a baseline already; name another file, or write over it with --force."
            )
        for path in (*written.values(), self.write_baseline):
            if path is not None:
                if os.path.isdir(path):
                    raise UserError(f"{path} is a folder; name a file in it.")
                ensure_writable(path.parent)
        claim_folder(self.out, self.force)
        models: list[Any] = load_models(texts, self.store, self.device)
        result = gate(
            *models,
            metrics=with_weights(self.metrics, self.lpips_weights),
            at_least=self.at_least or None,
            margin=self.margin,
            baseline=baseline,
            noise=SharedNoise(self.seed),
            count=self.count,
            batch=self.batch,
            error=self.error,
            early=self.write_baseline is None,
            sampler=sampler,
            labels=labels,
            progress=self.progress,
        )
        for write, path in written.items():
            if path is not None:
                write(result, path)
        try:
            if self.json:
                print(json_text(result), end="", flush=True)
            with contextlib.redirect_stdout(sys.stderr if self.json else sys.stdout):
                self._tell(result)
        except BrokenPipeError:  # nobody reads on (`... | head`); the decision must get through all the same
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it on its way out
        return STATUS[result.attrs["decision"]]

    def _tell(self, result: xr.Dataset) -> None:
        """Write the baseline and the report, and say what was decided."""
        from consistency_lab.gates.baseline import Baseline
        from consistency_lab.gates.decision import FAIL
        from consistency_lab.kinds.gate import Gate as Kind

        if self.write_baseline is not None:
            if result.attrs["decision"] == FAIL:
                print(f"{self.write_baseline} is not written: the gate fails.")
            else:
                made = Baseline.of(result, self.tolerance)
                made.save(self.write_baseline)
                for sentence in made.out_of_reach(result):
                    print(sentence)
        write_results(
            {"gate": result}, self.out, f"Gate: {result.attrs['candidate']} against {result.attrs['reference']}"
        )
        print(Kind().sentence(result), flush=True)
