"""Noise that is shared between models: image i is a function of (seed, i) alone.

Each draw is keyed by (seed, index, stream, step) through the counter-based generator Philox4x64-10 (Salmon et al., SC 2011). It is made on
the CPU in float32 and then moved, so neither batch size, order, device nor process can change it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from consistency_lab.choices import whole
from consistency_lab.devices import sent
from consistency_lab.diffusion.brownian import CELLS, BrownianPath
from consistency_lab.errors import UserError, short

# Streams: draws of one image that must not repeat each other. Their numbers are part of the noise's definition.
STREAMS = {"initial": 0, "path": 1, "probe": 2}
_LARGEST = 2**64 - 1
_KEPT = 2**28  # bytes of noise that one experiment holds on to
_TOGETHER = 2**15  # normals that are turned together: what fits into the processor's cache


def standard_normal(seed: int, index: int, stream: int, step: int, count: int) -> np.ndarray:
    """``count`` independent normals, float32, that depend on the four keys alone."""
    return standard_normals([(seed, index, stream, step)], count)[0]


def standard_normals(keys: Sequence[tuple[int, int, int, int]], count: int) -> np.ndarray:
    """``count`` independent normals for each (seed, index, stream, step), float32 ``(len(keys), count)``; a row depends on its key alone.

    Raw Philox words are turned into normals by Box and Muller's transform here: numpy promises that the words never
    change between its versions, and does not promise it for its own normals (NEP 19).
    """
    out = torch.empty(len(keys), count, dtype=torch.float32, device="cpu")
    pairs = (count + 1) // 2
    rows = max(1, min(len(keys), _TOGETHER // max(count, 1)))
    words = np.empty((rows, pairs, 2), np.uint64)
    kept = torch.empty(
        3, rows, pairs, dtype=torch.float64, device="cpu"
    )  # new memory would cost as much as what is computed in it
    for first in range(0, len(keys), rows):
        part = out[first : first + rows]
        bits = torch.from_numpy(_fill(words[: len(part)], keys[first : first + rows]).view(np.int64))
        radius, angle, sine = kept[:, : len(part)]
        radius.copy_(bits[..., 0]).add_(0.5).mul_(2.0**-53)  # strictly inside (0, 1): the logarithm is finite
        radius.log_().mul_(-2.0).sqrt_()
        angle.copy_(bits[..., 1]).add_(0.5).mul_(2.0**-53 * 2.0 * np.pi)
        torch.sin(angle, out=sine)
        torch.mul(angle.cos_(), radius, out=part[:, 0::2])
        torch.mul(sine[:, : count // 2], radius[:, : count // 2], out=part[:, 1::2])
    return out.numpy()


def _fill(words: np.ndarray, keys: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    """The upper 53 bits of Philox's words for each key, into ``(len(keys), pairs, 2)`` uint64."""
    philox = np.random.Philox(0)
    state: Any = philox.state
    # Setting the state is ten times as fast as a new generator. Of a list with one number of 2^63 or more numpy would make floats.
    counter, key = state["state"]["counter"], state["state"]["key"] = np.zeros(4, np.uint64), np.zeros(2, np.uint64)
    for row, (seed, index, stream, step) in zip(words, keys, strict=True):
        counter[2], counter[3], key[0], key[1] = stream, step, seed, index
        philox.state = state
        row.reshape(-1)[:] = philox.random_raw(row.size)
    words >>= np.uint64(11)
    return words


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
        self._made: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._path: tuple[Hashable, BrownianPath] | None = None

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
        numbers, sides = _numbers(indices), _sides(shape)
        return sent(
            self._kept((stream, step, numbers, sides), lambda: self._drawn(numbers, sides, stream, step)), device
        )

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

        The path is a Brownian motion in t on a grid of `CELLS` cells (see `brownian`). One step of a coarse solver sees the sum of what
        the small steps of a fine solver see, so both follow the same path.

        Raises:
            UserError: the times fall into the same cell of the grid.
        """
        first, last = sorted((round(start * CELLS), round(end * CELLS)))
        if first == last:
            raise UserError(
                f"t = {start:g} and {end:g} lie in one cell of the noise path; stochastic samplers take at most {CELLS} equal steps."
            )
        numbers, sides = _numbers(indices), _sides(shape)

        def make() -> Tensor:
            if self._path is None or self._path[0] != (numbers, sides):
                self._path = (numbers, sides), BrownianPath(lambda key: self._drawn(numbers, sides, "path", key))
            path = self._path[1]
            return (path.at(last) - path.at(first)) / (last - first) ** 0.5

        return sent(self._kept(("increment", first, last, numbers, sides), make), device)

    def _drawn(self, numbers: tuple[int, ...], sides: tuple[int, ...], stream: str, step: int) -> Tensor:
        noise = standard_normals([(self.seed, i, STREAMS[stream], step) for i in numbers], math.prod(sides))
        return torch.from_numpy(noise).reshape(len(numbers), *sides)

    def _kept(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What was made lately, for the models that meet the same noise one after the other; a copy, that callers may write into."""
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key].clone()
        made = make()
        if made.nbytes > _KEPT:
            return made
        self._made[key] = made
        while sum(each.nbytes for each in self._made.values()) > _KEPT:
            self._made.popitem(last=False)
        return made.clone()

    def __reduce__(self) -> tuple[type[SharedNoise], tuple[int]]:
        return SharedNoise, (self.seed,)

    def __repr__(self) -> str:
        return f"SharedNoise({self.seed})"


def _numbers(indices: object) -> tuple[int, ...]:
    given = indices.tolist() if isinstance(indices, Tensor) else indices
    if not isinstance(given, Iterable):
        raise UserError(f"image indices are given as a list or range, not as {given!r}; write [{given!r}].")
    return tuple(whole("each of the image indices of shared noise", i, most=_LARGEST) for i in given)


def _sides(shape: object) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise UserError(f"the shape of an image is (channels, height, width), not {short(shape)}.")
    return tuple(whole("each side of an image", side) for side in shape)


def check_noise(noise: object) -> None:
    """Raise `UserError` for anything but `SharedNoise`, or None, which stands for the default."""
    if noise is not None and not isinstance(noise, SharedNoise):
        given = repr(noise) if isinstance(noise, int) else "0"
        raise UserError(f"the noise is a SharedNoise, not {type(noise).__name__}; write SharedNoise({given}).")
