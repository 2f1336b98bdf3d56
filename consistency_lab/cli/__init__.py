"""The command line: it parses, calls and prints. torch is imported by the commands that need it, never by ``--help``."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Union

import tyro

from consistency_lab.choices import Choice, printable
from consistency_lab.cli.common import release_folders
from consistency_lab.cli.compare import Compare
from consistency_lab.cli.demo import Demo
from consistency_lab.cli.gate import Gate
from consistency_lab.cli.layers import Layers
from consistency_lab.cli.listing import Export, List, Status
from consistency_lab.cli.probe import Probe
from consistency_lab.cli.quality import Quality
from consistency_lab.cli.race import MakeRecipe, Race
from consistency_lab.cli.report import Report
from consistency_lab.cli.reproduce import Reproduce
from consistency_lab.cli.sample import Sample
from consistency_lab.cli.snapshots import Snapshots
from consistency_lab.cli.study import Study
from consistency_lab.cli.terminal import spell_out
from consistency_lab.cli.train import Train, TrainGAN, Training, TrainVAE
from consistency_lab.cli.verify import Verify
from consistency_lab.errors import UserError
from consistency_lab.training.processes import refuse_several, started
from consistency_lab.trust import trusting

_HELP = """How alike are the images that different generative models make from the same noise, why, and what does that buy?

Begin with: consistency-lab demo"""
COMMANDS: dict[str, type[Any]] = {
    "demo": Demo,
    "train": Train,
    "train-gan": TrainGAN,
    "train-vae": TrainVAE,
    "sample": Sample,
    "compare": Compare,
    "gate": Gate,
    "layers": Layers,
    "snapshots": Snapshots,
    "quality": Quality,
    "probe": Probe,
    "study": Study,
    "recipe": MakeRecipe,
    "race": Race,
    "report": Report,
    "reproduce": Reproduce,
    "status": Status,
    "verify": Verify,
    "list": List,
    "export": Export,
}


def _choice(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A field that holds a `Choice` is given as text."""
    if info.type is not Choice:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="STR",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, Choice),
        str_from_instance=lambda value: [str(value)],
    )


def _parse(arguments: list[str]) -> Any:
    """The command that the arguments ask for. What gives the defaults of what trains (a file, a model) is looked for first."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--config", "--start", "--store"):
        early.add_argument(option)
    made: dict[str, Any] = {}
    for name in arguments[:1]:
        asked = COMMANDS.get(name, object)
        if issubclass(asked, Training):
            made[name] = asked.default(vars(early.parse_known_args(arguments[1:])[0]))
    constructors = tyro.constructors.ConstructorRegistry()
    constructors.primitive_rule(_choice)
    kinds = tuple(
        Annotated[kind, tyro.conf.subcommand(name=name, default=made.get(name, kind()))]
        for name, kind in COMMANDS.items()
    )
    shape = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), constructors:
            return tyro.cli(Union[kinds], prog="consistency-lab", description=_HELP, args=arguments, config=shape)  # type: ignore[call-overload]  # noqa: UP007
    except SystemExit as stopped:
        # A value that the settings refuse has a sentence of its own, which the parser wraps in a box with a name of its own making.
        error: BaseException | None = stopped if stopped.code else None
        while error is not None and not isinstance(error, UserError):
            error = error.__cause__ or error.__context__
        if error is not None:
            raise error from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Returns:
        0, or what a command decided (`gate`: 1 or 3; `verify`: 1), 2 for input that cannot be used, 130 after Ctrl-C.
    """
    spell_out()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"consistency-lab {version('consistency-lab')}")
        return 0
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    number = 0
    try:
        _, number = started()
        command = _parse(arguments)
        if not isinstance(command, Training):
            refuse_several(f"{arguments[0]} runs")
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere if number else sys.stdout),
            trusting(getattr(command, "trust", False)),
            contextlib.ExitStack() as ending,
        ):
            ending.callback(release_folders)
            return command.run() or 0
    except UserError as error:
        print("consistency-lab:", "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        if not number:  # of several processes the first one says it
            print(f"consistency-lab: {str(stopped) or 'stopped.'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough (`... --help | head`)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it on its way out
        return 0
