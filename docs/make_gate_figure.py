"""Makes figures/gate.png and prints the table of docs/did-my-optimisation-change-the-images.md: `python docs/make_gate_figure.py`."""

from __future__ import annotations

import copy
import io
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch

import consistency_lab as cl
from consistency_lab.gates.decision import OPEN
from consistency_lab.plots.gate import draw_looks
from consistency_lab.plots.theme import STYLE, new_figure
from consistency_lab.store.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[1]
SCORES = (0.999, 0.99, 0.97, 0.96, 0.93, 0.90, 0.80)
BOUND = 0.95


def rounded(model: cl.DiffusionModel, bits: int) -> cl.DiffusionModel:
    """The model with its weights rounded to so many bits, with a scale for each output."""
    denoiser = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        for weight in (each for each in denoiser.parameters() if each.ndim > 1):
            step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            weight.copy_((weight / step).round() * step)
    return cl.DiffusionModel(f"{bits} bits", denoiser, model.facts)


def figure() -> None:
    """Weights of 8, 5 and 4 bits against those of 32."""
    images = cl.load_images("digits")
    options = {"network": "mlp(width=128)", "steps": 2000, "device": "cpu"}
    with tempfile.TemporaryDirectory() as store:
        reference = cl.train(images, seed=0, store=store, **options)
    with matplotlib.rc_context(STYLE):
        drawn, axes = new_figure(10.5, 2.9, 1, 3)
        for ax, bits in zip(axes[0], (8, 5, 4), strict=True):
            result = cl.gate(
                reference, rounded(reference, bits), at_least=BOUND, sampler="ddim(steps=20, clip=True)", count=256
            )
            draw_looks(ax, result, "mse")
            ax.set_title(f"{bits} bits: {result.attrs['decision']}")
            print(
                f"{bits} bits: {result.attrs['decision']} after {result.sizes['sample']} samples, {float(result['score'][-1, 0]):.4f}"
            )
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    atomic_write(ROOT / "figures" / "gate.png", buffer.getvalue())


def samples_needed(score: float, count: int = 1000, units: int = 1024, seed: int = 0) -> tuple[float, float, float]:
    """The median and the 90th percentile of samples at which a gate stops, and the share that has not stopped at 4,096."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from gate_laws import gates

    decisions, samples = gates("log-normal", 1 - score, 1 - BOUND, count, units, seed=seed, step=8)
    told = np.where(decisions == OPEN, np.inf, samples)
    median, tenth = np.quantile(told, (0.5, 0.9), method="inverted_cdf")
    return float(median), float(tenth), float((decisions == OPEN).mean())


def row(score: float) -> str:
    median, tenth, still = samples_needed(score)
    shown = [f"{value:,.0f}" if np.isfinite(value) else "more than 4,096" for value in (median, tenth)]
    return f"| {score:g} | {'pass' if score > BOUND else 'fail'} | {shown[0]} | {shown[1]} |  ({still:.3f} open)"


if __name__ == "__main__":
    for score in SCORES:
        print(row(score))
    figure()
