"""The Brownian motion that stochastic samplers draw from: one path for every number of steps, made where it is asked for.

The unit of time has `CELLS` cells, in a tree: each span is cut into two or five equal parts (`_CUTS`), down to single cells. The motion
over the unit is one normal; that over the first j parts of a span follows from that over the whole span by j draws of the Brownian bridge
(Levy's construction), each keyed by span and part. So every value of the path is a function of its noise and its time alone, whatever
was asked before, and a solver of n equal steps costs about n draws where n divides 1000, rather than one for every cell.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

_CUTS = (2, 5, 5, 2, 5, 2)  # 50 and 100 equal steps end on spans of one level
CELLS = 1000
_LENGTHS = [CELLS // parts for parts in accumulate(_CUTS, mul, initial=1)]  # of the spans of each level, in cells
_FIRST = [0, *accumulate(CELLS // length for length in _LENGTHS)]  # the key of each level's first span


class BrownianPath:
    """W at any cell of the unit interval, W(0) = 0, with variance one a cell.

    Args:
        normals: the independent standard normals of a key: a tensor of any shape, always the same for a key. The unit's own is key 0.
    """

    def __init__(self, normals: Callable[[int], Tensor]):
        self._normals = normals
        self._spans: dict[
            tuple[int, int], list[Tensor]
        ] = {}  # of the spans on the way to the last cell, W at their first parts' ends

    def at(self, cell: int) -> Tensor:
        """W at the start of that cell; `CELLS` is the end of the last."""
        level, start = 0, 0
        before, after = torch.zeros((), dtype=torch.float32, device="cpu"), self._whole()
        kept: dict[tuple[int, int], list[Tensor]] = {(-1, 0): [after]}
        while cell not in (start, start + _LENGTHS[level]):
            ends = kept[level, start] = self._spans.get((level, start), [])
            part = (cell - start) // _LENGTHS[level + 1]
            # The end of the part that holds the cell, and of those before it; the last part ends where the span does.
            while len(ends) < min(part + 1, _CUTS[level] - 1):
                ends.append(self._next(level, start, len(ends), ends[-1] if ends else before, after))
            before, after = ends[part - 1] if part else before, ends[part] if part < len(ends) else after
            level, start = level + 1, start + part * _LENGTHS[level + 1]
        self._spans = kept  # the next cell asked for is mostly a neighbour
        return before if cell == start else after

    def _whole(self) -> Tensor:
        known = self._spans.get((-1, 0))
        return known[0] if known else self._normals(0) * CELLS**0.5

    def _next(self, level: int, start: int, part: int, before: Tensor, after: Tensor) -> Tensor:
        """W at the end of a part, from W at its start and at the end of the span: a bridge over the ``left`` parts of ``length`` cells."""
        left, length = _CUTS[level] - part, _LENGTHS[level + 1]
        normal = self._normals(_FIRST[level + 1] + start // length + part)
        return before + (after - before) / left + normal * (length * (left - 1) / left) ** 0.5
