"""From the words of a command line to the command that they ask for, or to a sentence that says what was meant."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from consistency_lab.choices import Choice
from consistency_lab.cli.commands import COMMANDS
from consistency_lab.errors import UserError, unknown_name

PROGRAM = "consistency-lab"
_HELP = """How alike are the images that different generative models make from the same noise, why, and what does that buy?

Begin with: consistency-lab demo"""
_SHAPE = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for.

    Raises:
        UserError: a command, or what it is of, that does not exist; settings that are refused.
        SystemExit: help was asked for (status 0), or an option does not exist or cannot be read (2), and it was said.
    """
    name, *rest = arguments or ["--help"]
    if not name.startswith("-"):
        if name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        return _asked(name, rest)
    kinds = tuple(
        Annotated[kind, tyro.conf.subcommand(name=name, default=kind())] for name, kind in COMMANDS.items()
    )  # of all, for the help and for a shell that completes
    with _constructors():
        return tyro.cli(Union[kinds], prog=PROGRAM, description=_HELP, args=arguments, config=_SHAPE)  # type: ignore[call-overload]  # noqa: UP007


def _asked(name: str, words: Sequence[str]) -> Any:
    """One command. What gives the defaults of what trains (a file, a model) is looked for first."""
    kind, said = COMMANDS[name], io.StringIO()
    default = kind.default(_early(words)) if hasattr(kind, "default") else kind()
    try:
        with contextlib.redirect_stderr(said), _constructors():
            return tyro.cli(kind, prog=f"{PROGRAM} {name}", default=default, args=words, config=_SHAPE)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        # A value that the settings refuse has a sentence of its own, which the parser wraps in a box with a name of its own making.
        error: BaseException | None = stopped
        while error is not None and not isinstance(error, UserError):
            error = error.__cause__ or error.__context__
        if error is not None:
            raise error from None
        _check_subject(name, kind, words)
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def _early(words: Sequence[str]) -> dict[str, str | None]:
    """What the words say of the options that other options' defaults depend on."""
    found: dict[str, str | None] = dict.fromkeys(("config", "start", "store"))
    for place, word in enumerate(words):
        option, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and option in found:
            found[option] = value if equals else next(iter(words[place + 1 :]), None)
    return found


def _check_subject(name: str, kind: type[Any], words: Sequence[str]) -> None:
    """Raise `UserError` where a command is of something (`probe difficulty`) and its first word is none of those."""
    for field, hint in get_type_hints(kind).items():
        if field == "what" and get_origin(hint) is Literal and words and not words[0].startswith("-"):
            known = get_args(hint)
            if words[0] not in known:
                raise unknown_name(f"subject of {name}", words[0], known)


@contextlib.contextmanager
def _constructors() -> Iterator[None]:
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_choice)
    registry.struct_rule(_settings)
    with registry:
        yield


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


def _settings(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
    """Settings are given without their seed: commands ask for ``--seeds``, of one model or of several."""
    kind: Any = info.type
    if "order_seed" not in getattr(kind, "__dataclass_fields__", ()):
        return None
    default, hints, said = info.default, get_type_hints(kind), _said_of_fields(kind)
    hidden: Any = tyro.conf.Suppress
    fields = tuple(
        tyro.constructors.StructFieldSpec(
            name=field.name,
            type=hidden[hints[field.name]] if field.name == "seed" else hints[field.name],
            default=getattr(default if isinstance(default, kind) else kind(), field.name),
            helptext=said.get(field.name),
        )
        for field in dataclasses.fields(kind)
    )
    return tyro.constructors.StructConstructorSpec(instantiate=kind, fields=fields)


def _said_of_fields(kind: type[Any]) -> dict[str, str]:
    """The texts under the fields of a dataclass and of those that it extends, each in one line."""
    said: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    said[name] = " ".join(words.split())
    return said
