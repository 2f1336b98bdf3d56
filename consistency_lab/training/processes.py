"""How many processes a launcher (``accelerate launch``, ``torchrun``) has started to train one model. This module imports no torch."""

from __future__ import annotations

import os

from consistency_lab.errors import UserError


def started() -> tuple[int, int]:
    """How many processes there are, and which of them this is, from 0: the first is the one that writes. (1, 0) without a launcher.

    Raises:
        UserError: the launcher's variables make no sense.
    """
    told = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    count, index = (int(text) if text.isdecimal() else -1 for text in told)
    if not 0 <= index < count:
        raise UserError(
            f"the environment says WORLD_SIZE={told[0]} and RANK={told[1]}, which is no number of processes and one of them; start them "
            "with accelerate launch or torchrun."
        )
    return count, index


def refuse_several(what: str) -> None:
    """Raise `UserError` where a launcher has started several processes, for ``what`` happens in one ("a race is run")."""
    if (count := started()[0]) > 1:
        raise UserError(
            f"{count} processes were started, and those train one model together (cl.train, consistency-lab train); {what} in one "
            "process, without a launcher."
        )
