"""What Muon would cost in a training step: counted and not timed, so that the answer is the same on every machine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from consistency_lab.data.imageset import ImageSet
from consistency_lab.training.settings import TrainingSettings
from consistency_lab.training.train import build_denoiser, training_spec

ITERATIONS = 5  # of Newton and Schulz, in a step of torch's Muon
BACKWARD = 2  # passes forward that the gradients cost: one product for the weights, one for what came in


class StepArithmetic(NamedTuple):
    """Floating-point operations of one step of training, each addition and each multiplication one.

    Attributes:
        network: forward and backward, of matrix products and convolutions, which are nearly all.
        muon: Muon's iterations on all weights that it steps.
    """

    network: int
    muon: int

    @property
    def muon_share(self) -> float:
        """The iterations over the rest of the step."""
        return self.muon / self.network


def step_arithmetic(images: ImageSet, settings: TrainingSettings) -> StepArithmetic:
    """Count a step of the settings' network and batch on images of that shape: the operations for one image, times the batch.

    Raises:
        UserError: a network of the user's own, which settings cannot build.
    """
    denoiser = build_denoiser(training_spec(images, settings, torch.device("cpu")))
    x, t = torch.zeros(1, *images.shape, dtype=torch.float32), torch.full((1,), 0.5, dtype=torch.float32)
    cond = torch.zeros(1, dtype=torch.int64) if settings.conditional else None
    # Attention as the products that it is: the counter does not know the kernel that a CPU would take for it (torch 2.14).
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(x, t, cond)
    forward = settings.batch * counter.get_total_flops()
    shapes = [(len(p), p[0].numel()) for p in denoiser.parameters() if p.ndim > 1]
    return StepArithmetic((1 + BACKWARD) * forward, sum(iterations_of(*shape) for shape in shapes))


def iterations_of(rows: int, columns: int) -> int:
    """Of one matrix, with m the shorter of its sides and n the longer: X X' (m, m), its square and its product with X."""
    m, n = sorted((rows, columns))
    return ITERATIONS * (2 * m * m * n + 2 * m**3 + 2 * m * m * n)
