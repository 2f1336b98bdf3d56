"""The command line: it parses, calls and prints. torch is imported by the commands that need it, never by ``--help``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence

from consistency_lab.choices import printable
from consistency_lab.cli.commands import COMMANDS
from consistency_lab.cli.common import Common, release_folders
from consistency_lab.cli.parsing import parse
from consistency_lab.cli.plans import DryRun
from consistency_lab.cli.terminal import spell_out
from consistency_lab.data.download import WouldFetchError, nothing_fetched
from consistency_lab.errors import ShapeError, UserError
from consistency_lab.training.processes import refuse_several, started
from consistency_lab.trust import trusting

__all__ = ["COMMANDS", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Returns:
        0, or what a command decided (`gate`: 1 or 3; `verify`: 1), 2 for input that cannot be used, 130 after Ctrl-C.
    """
    spell_out()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"consistency-lab {version('consistency-lab')}")
        return 0
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    number, command = 0, None
    try:
        _, number = started()
        command = parse(arguments)
        if isinstance(command, DryRun):
            command.check_json()
        if isinstance(command, Common):
            _check_lasting(getattr(command, "store", None))
        if not getattr(command, "shared", False):
            refuse_several(f"{arguments[0]} runs")
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere if number else sys.stdout),
            trusting(getattr(command, "trust", False)),
            nothing_fetched() if getattr(command, "dry_run", False) else contextlib.nullcontext(),
            contextlib.ExitStack() as ending,
        ):
            ending.callback(release_folders)
            return command.run() or 0
    except WouldFetchError as missing:
        assert isinstance(command, DryRun)  # nothing else is kept from fetching
        command.say(
            {
                "would_fetch_first": f"{missing.remote.name}, and what else of its set is missing",
                "from": missing.remote.mirrors[0],
                "into": str(missing.folder),
                "then": "not known before that is there; a dry run fetches nothing",
            }
        )
        return 0
    except UserError as error:
        print("consistency-lab:", "\n".join(map(printable, _sentence(error, command).split("\n"))), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        if not number:  # of several processes the first one says it
            print(f"consistency-lab: {str(stopped) or 'stopped.'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough (`... --help | head`)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it on its way out
        return 0


def _check_lasting(store: object) -> None:
    """Raise `UserError` for a store that ends with the command: what it trained would be lost."""
    from consistency_lab.store.mirror import url_of

    if (url := url_of(store) or "").startswith("memory:"):
        raise UserError(
            f"the store {url} is in the memory of this command and would be lost with it; name a folder, or a URL such as s3://bucket/runs."
        )


def _sentence(error: UserError, command: object) -> str:
    """What the error says, and of images of another shape than the model's the option that names the set."""
    data = getattr(command, "data", None)
    if not isinstance(error, ShapeError) or data is None:
        return str(error)
    default = " (the default)" if data == getattr(type(command), "data", None) else ""
    return f"{error} --data is {data!r}{default}; give --data with the set that the model was trained on."
