"""How much memory a comparison will take, told before anything is computed.

It is of one block of samples (`blocks`) and of what is kept of every sample until scores are made (`merging`). Models, images, torch and
the program itself come on top. Measured peaks lie within a fifth of it (`tests/similarity/test_memory.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from consistency_lab.diffusion.model import CHUNK
from consistency_lab.metrics.distances import Distance
from consistency_lab.similarity.blocks import embedding_bytes, fitting
from consistency_lab.similarity.controls import walked_twice
from consistency_lab.similarity.pairwise import SHIFTS
from consistency_lab.similarity.statistics import MANY

_PIXELS = 2**20  # of each model that are kept where samples come in blocks, see `measuring`
# Times what is kept of all samples, while blocks become one and scores are made: where a jackknife leaves out one sample at a time
# (measured at 10,000 samples of 8 models), and where it leaves out one block (at 50,000).
_SCORES, _SCORES_OF_BLOCKS = 4.8, 2.2
_WALK = 8  # arrays of float64 that a sampler's step holds of a chunk: state, estimates, the network's own


class Memory(NamedTuple):
    """What a comparison takes.

    Attributes:
        peak: bytes, beside the program, its models and its images.
        block: samples that are held at a time.
        blocks: how many of these there are.
    """

    peak: int
    block: int
    blocks: int

    def __str__(self) -> str:
        held = f", {self.block} samples at a time" if self.blocks > 1 else ""
        size = f"{self.peak / 2**30:.1f} GiB" if self.peak >= 2**30 else f"{self.peak / 2**20:.0f} MiB"
        return f"{size} beside the program, models and images{held}"


def expected_memory(
    shape: tuple[int, ...],
    count: int,
    models: int,
    distances: Sequence[Distance],
    *,
    walks: int | None = None,
    levels: int = 14,
    labelled: bool = False,
    ceiling: bool = True,
    references: int = 0,
    data: int = 0,
    block: int | None = None,
) -> Memory:
    """The largest memory that `compare` will hold at once.

    Args:
        shape: (C, H, W) of an image.
        count: samples.
        models: how many.
        distances: the metrics.
        walks: of all models; more than these where their schedules differ (see `trajectories.meetings`).
        levels: noise levels that are kept; 1 for models that make an image in one go.
        labelled: whether samples have labels, whose plain null stands beside the null within them.
        ceiling: whether a quarter of the samples is walked again.
        references: closed-form denoisers.
        data: images of the training set; 0 without one.
        block: what the caller wants; None: by memory.
    """
    pixels, walks = int(np.prod(shape)), walks or models
    held = min(count, fitting(count, shape, models, levels, distances, block))
    several = held < count
    # Estimates, those of the references, the second runs, and the walk that is being joined, float32.
    twice = len(walked_twice(held)) if ceiling else 0
    walked = (
        4 * pixels * levels * (held * (walks * (1 if not references else 1 + references / models) + 1) + models * twice)
    )
    # Then either the embeddings of a noise level, or the final images as float64: as they are, stacked, squared, and what is sorted.
    embedding = (models + 1) * held * embedding_bytes(distances, shape)
    final = (5 if several else 4) * models * held * pixels * 8
    steps = _WALK * min(CHUNK, held) * pixels * 8
    fitted = data * pixels * 4 * (1 + references) + (8 * min(pixels, 4096) ** 2 if references else 0)
    pairs = models * (models - 1) // 2
    each = 8 * len(distances) * (levels * ((3 if labelled else 2) * pairs + models * bool(ceiling)) + 2 * models)
    each += 8 * len(distances) * levels * 2 * models * references
    each += (4 if several else 8) * 2 * SHIFTS * pairs * len(distances)
    seen = 8 * models * min(_PIXELS, count * pixels) if several else 0  # of one block they are among the final images
    kept = each * count + seen
    # Scores are made when no block is held any more, of all that is kept: results in float32, what is sorted, what a jackknife leaves out.
    blocks = -(-count // held)
    scores = (_SCORES_OF_BLOCKS if blocks >= MANY else _SCORES) * kept
    return Memory(int(max(walked + max(embedding, final) + steps + fitted + kept + seen, scores)), held, blocks)
