"""Initial weights that are a function of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from consistency_lab.devices import plain_defaults


@contextmanager
def initialised(seed: int) -> Iterator[None]:
    """Modules that are made inside are float32 and on the CPU, with initial weights of this seed; the global random state is left as
    it was."""
    # The default CPU generator is seeded directly: torch.manual_seed would reset the generators of every GPU as well.
    with torch.random.fork_rng(devices=[]), plain_defaults():
        torch.default_generator.manual_seed(seed)
        yield
