"""A comparison goes over its samples in blocks: a block's images are made, measured and dropped before the next one's.

So the memory does not grow with the number of samples. The null of a sample is then the mean over the other samples of its own block.
Samples of shared noise are exchangeable, and folders of images are shuffled, so the mean of these nulls is the null over all i != j. What
fits into the budget is one block, in which nothing of that matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from consistency_lab.choices import whole
from consistency_lab.diffusion.model import CHUNK, DiffusionModel, GenerativeModel
from consistency_lab.errors import UserError
from consistency_lab.metrics.distances import Distance
from consistency_lab.pipelines.folders import FolderModel
from consistency_lab.similarity.pairwise import embedded

BUDGET = 2**29  # bytes that the estimates of a comparison may take while all is one block
FEATURES = 2**30  # bytes that the embeddings of one metric may take beside them while all is one block
BLOCK = 2**28  # bytes of both in one block out of several
LEAST = 4  # samples of a block
FEW = 32  # samples of a block that are so few because their images are large
_SMALL = 2**23  # bytes of images of which no embedding is too large


def samples_in_a_block(
    count: int,
    models: Sequence[GenerativeModel],
    levels: int,
    distances: Sequence[Distance],
    block: int | None = None,
) -> int:
    """How many samples are held at a time.

    Args:
        count: samples of the comparison.
        models: of which each holds its estimates, float32.
        levels: noise levels of these.
        distances: the metrics, of which one at a time holds an embedding of every image of a noise level.
        block: what the caller wants; None: by memory.

    Raises:
        UserError: ``block`` is no whole number of `LEAST` or more.
    """
    return fitting(count, image_shape(models), len(models), levels, distances, block)


def fitting(
    count: int,
    shape: tuple[int, ...] | None,
    models: int,
    levels: int,
    distances: Sequence[Distance],
    block: int | None,
) -> int:
    """The same of so many models, whose images are of that shape; None: of no known one, all samples are held."""
    if block is not None:
        return min(count, whole("block", block, LEAST))
    if shape is None:
        return count
    pixels = 4 * models * int(np.prod(shape))
    if count * pixels <= _SMALL and count * pixels * levels <= BUDGET:
        return count
    embedding = models * embedding_bytes(distances, shape)
    if count * pixels * levels <= BUDGET and count * embedding <= FEATURES:
        return count
    size = max(LEAST, BLOCK // (pixels * levels + embedding))
    return min(count, size - size % CHUNK if size > CHUNK else size)


def embedding_bytes(distances: Sequence[Distance], shape: tuple[int, ...]) -> int:
    """Bytes of the largest embedding of one image."""
    one = torch.zeros(1, *shape)
    features = [embedded(metric, [one])[0] for metric in distances]
    return max(each.numel() * each.element_size() for each in features)


def certain_shape(model: GenerativeModel) -> tuple[int, ...] | None:
    """(C, H, W) of the images where the model says it; None of a generator whose noise may be shaped otherwise."""
    told = model.noise_shape if isinstance(model, DiffusionModel | FolderModel) else None
    shape = getattr(model, "shape", getattr(getattr(model, "module", None), "shape", told))
    return tuple(shape) if isinstance(shape, tuple) else None


def image_shape(models: Sequence[GenerativeModel]) -> tuple[int, ...] | None:
    """(C, H, W) of the images, as the models say or as their noise is shaped; None where neither is an image's."""
    said = [certain_shape(model) or model.noise_shape for model in models]
    return max((tuple(shape) for shape in said if len(shape) == 3), key=np.prod, default=None)


def blocks_of(count: int, size: int, labels: np.ndarray | None = None) -> list[np.ndarray]:
    """The samples of each block, every sample once, in their order.

    Args:
        count: samples.
        size: of a block; blocks are of about that size, so that none is too small for a null.
        labels: of each sample ``(N,)``: each label is dealt to so many blocks that it has two samples or more in each.
    """
    if size >= count:
        return [np.arange(count)]
    if labels is not None:
        return _dealt(labels, -(-count // size))
    if size % CHUNK == 0:  # images are made so many at a time, and are to be the same as in one block
        return np.split(np.arange(count), range(size, count - FEW + 1, size))
    return np.array_split(np.arange(count), max(1, min(-(-count // size), count // LEAST)))


def _dealt(labels: np.ndarray, blocks: int) -> list[np.ndarray]:
    hands: list[list[int]] = [[] for _ in range(blocks)]
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        fewest = sorted(range(blocks), key=lambda block: len(hands[block]))[: max(1, min(blocks, len(own) // 2))]
        for block, part in zip(fewest, np.array_split(own, len(fewest)), strict=True):
            hands[block] += part.tolist()
    return [np.array(sorted(hand)) for hand in hands if hand]


def with_partners(samples: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Those samples of a block that have another one, of their label, in it."""
    if labels is None:
        return samples if len(samples) > 1 else samples[:0]
    there, counts = np.unique(labels[samples], return_counts=True)
    return samples[np.isin(labels[samples], there[counts > 1])]


def plain_over_all(plain: np.ndarray, null: np.ndarray, labels: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The null whatever the label, from that within blocks: there a label has another share of the samples than among all of them.

    Of the m - 1 others in the block, c - 1 have the sample's label; of the N - 1 others in all, n - 1. The mean over others of another
    label follows from both nulls, and is weighed as among all.

    Args:
        plain, null: within blocks, whatever the label and under the same one, ``(pair, t, sample, metric)``.
        labels, blocks: of each sample ``(N,)``.
    """

    def counted(*keys: np.ndarray) -> np.ndarray:
        _, place, counts = np.unique(np.stack(keys), axis=1, return_inverse=True, return_counts=True)
        return (counts[place.reshape(-1)] - 1.0)[:, None]

    same, others, of_label = counted(labels, blocks), counted(blocks), counted(labels)
    if (others == same).any():
        raise UserError(
            "a block of samples holds one label alone, so that no null over all labels can be had; raise block."
        )
    other_labels = (others * plain - same * null) / (others - same)
    share = of_label / (len(labels) - 1)
    return share * null + (1 - share) * other_labels
