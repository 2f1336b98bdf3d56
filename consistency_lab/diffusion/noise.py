"""Noise that is shared between models: image i is a function of (seed, i) alone.

Each draw is keyed by (seed, index, stream, step) through the counter-based generator Philox4x64-10 (Salmon et al., SC 2011). It is made on
the CPU in float32 and then moved, so neither batch size, order, device nor process can change it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import whole
from consistency_lab.errors import UserError

# Streams: draws of one image that must not repeat each other. Their numbers are part of the noise's definition.
STREAMS = {"initial": 0, "path": 1, "probe": 2}
PATH_CELLS = 1000  # resolution in t of the Brownian grid on which path noise lives
_LARGEST = 2**64 - 1


def standard_normal(seed: int, index: int, stream: int, step: int, count: int) -> np.ndarray:
    """``count`` independent normals, float32, that depend on the four keys alone.

    Raw Philox words are turned into normals by Box and Muller's transform here: numpy promises that the words never
    change between its versions, and does not promise it for its own normals (NEP 19).
    """
    key = np.array([seed, index], dtype=np.uint64)  # of a list with one number of 2^63 or more numpy makes floats
    words = np.random.Philox(key=key, counter=[0, 0, stream, step]).random_raw(2 * ((count + 1) // 2))
    uniform = ((words >> np.uint64(11)) + 0.5) * 2.0**-53  # strictly inside (0, 1): the logarithm is finite
    radius, angle = np.sqrt(-2.0 * np.log(uniform[0::2])), 2.0 * np.pi * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count].astype(np.float32)


class SharedNoise:
    """The noise of one experiment, asked for by image index.

    Args:
        seed: 0 to 2^64 - 1. (seed 0, image 1) is not (seed 1, image 0).

    >>> noise = SharedNoise(0)
    >>> bool((noise.initial([7], (1, 8, 8))[0] == noise.initial(range(10), (1, 8, 8))[7]).all())
    True
    """

    def __init__(self, seed: int = 0):
        self.seed = whole("the seed of shared noise", seed, most=_LARGEST)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedNoise) and self.seed == other.seed

    def __hash__(self) -> int:
        return hash((SharedNoise, self.seed))

    def draw(
        self,
        indices: Sequence[int] | Tensor,
        shape: Sequence[int],
        *,
        stream: str,
        step: int = 0,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Standard normal noise ``(len(indices), *shape)``, float32, on ``device``.

        Args:
            indices: image numbers, each 0 or more.
            shape: shape of one image.
            stream: ``"initial"``, ``"path"`` or ``"probe"``.
            step: number of the draw within its stream.
        """
        if isinstance(shape, str) or not isinstance(shape, Sequence):
            raise UserError(f"the shape of an image is (channels, height, width), not {shape!r}.")
        size = math.prod(whole("each side of an image", side) for side in shape)
        given = indices.tolist() if isinstance(indices, Tensor) else indices
        if not isinstance(given, Iterable):
            raise UserError(f"image indices are given as a list or range, not as {given!r}; write [{given!r}].")
        numbers = [whole("each of the image indices of shared noise", i, most=_LARGEST) for i in given]
        rows = [standard_normal(self.seed, i, STREAMS[stream], step, size) for i in numbers]
        noise = np.stack(rows) if rows else np.empty((0, size), np.float32)
        return torch.from_numpy(noise).reshape(len(numbers), *shape).to(device)

    def initial(
        self, indices: Sequence[int] | Tensor, shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> Tensor:
        """The noise that sampling starts from."""
        return self.draw(indices, shape, stream="initial", device=device)

    def increment(
        self,
        indices: Sequence[int] | Tensor,
        shape: Sequence[int],
        start: float,
        end: float,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The normalised Brownian increment between two times: standard normal, shared between solvers of any step count.

        The path is a Brownian motion in t on a grid of `PATH_CELLS` cells. One step of a coarse solver sees the sum of what
        the small steps of a fine solver see, so both follow the same path.

        Raises:
            UserError: the times fall into the same cell of the grid.
        """
        first, last = sorted((round(start * PATH_CELLS), round(end * PATH_CELLS)))
        if first == last:
            raise UserError(
                f"t = {start:g} and {end:g} lie in one cell of the noise path; stochastic samplers take at most {PATH_CELLS} equal steps."
            )
        total = torch.zeros(len(indices), *shape, dtype=torch.float32, device="cpu")
        for cell in range(first, last):
            total += self.draw(indices, shape, stream="path", step=cell)
        return (total / (last - first) ** 0.5).to(device)

    def __repr__(self) -> str:
        return f"SharedNoise({self.seed})"


def check_noise(noise: object) -> None:
    """Raise `UserError` for anything but `SharedNoise`, or None, which stands for the default."""
    if noise is not None and not isinstance(noise, SharedNoise):
        given = repr(noise) if isinstance(noise, int) else "0"
        raise UserError(f"the noise is a SharedNoise, not {type(noise).__name__}; write SharedNoise({given}).")
