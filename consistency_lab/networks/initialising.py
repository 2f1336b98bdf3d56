"""Initial weights that are a function of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from consistency_lab.devices import plain_defaults, random_state


@contextmanager
def initialised(seed: int) -> Iterator[None]:
    """Modules that are made inside are float32 and on the CPU, with initial weights of this seed; the global random state is left as
    it was, and threads that make modules at once take turns."""
    with random_state(seed), plain_defaults():
        yield
