"""One notation for everything that is chosen by name: ``"unet"``, ``"clts(center=0.3, width=0.2)"``.

The same text works in Python, in a settings file and on the command line. A `Registry` turns it into the object, and says
what exists when a name or an option does not.
"""

from __future__ import annotations

import ast
import fnmatch
import inspect
import numbers
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from consistency_lab.errors import UserError, short, unknown_name

T = TypeVar("T")


def printable(text: str) -> str:
    """The text as one line that every file and picture can hold: control characters and lone surrogates as backslash escapes."""
    if text.isprintable():  # almost always, and it is asked of every name of every figure
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in text
    )


def whole(what: str, value: object, least: int = 0, most: int | None = None) -> int:
    """A whole number of Python's or numpy's, as an int.

    Raises:
        UserError: anything else, 8.0 and True included, or a number outside ``least`` to ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        near = f"; write {int(value)}" if isinstance(value, float) and value.is_integer() else ""
        raise UserError(f"{what} is a whole number, not {short(value)}{near}.")
    number = int(value)
    if number < least or (most is not None and number > most):
        bound = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise UserError(f"{what} is a whole number {bound}, not {short(value)}.")
    return number


def height_and_width(size: object) -> tuple[int, int]:
    """Two whole numbers of at least 1, or one for both. Raises `UserError` for anything else."""
    sides = list(size) if isinstance(size, tuple | list) else [size, size]
    if len(sides) != 2:
        raise UserError(f"size={short(size)} is not height and width; write size=512,512.")
    return whole("height", sides[0], 1), whole("width", sides[1], 1)


def require_positive(**options: object) -> None:
    """Raise a `UserError` that names the first option that is not a whole number of at least 1."""
    for name, value in options.items():
        whole(name, value, 1)


def above_zero(what: str, value: object) -> float:
    """A finite number above 0, as a float. Raises `UserError`, "{what} above 0, not ...", for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < float("inf"):
        raise UserError(f"{what} above 0, not {short(value)}.")
    return float(value)


class Choice:
    """A name with options: frozen, and equal to each choice (and text) that prints alike.

    It prints as the text that it is written as. In JSON it is that text, or `facts`, where its options are values of their own.

    >>> choice = Choice.parse("clts(width=0.2, center=0.3)")
    >>> choice.name, choice.options["center"], str(choice)
    ('clts', 0.3, 'clts(center=0.3, width=0.2)')
    """

    name: str
    options: Mapping[str, Any]

    def __init__(self, name: str, options: Mapping[str, Any] | None = None):
        self.__dict__.update(name=name, options=MappingProxyType(dict(options or {})))

    @classmethod
    def parse(cls, text: str | Choice | Mapping[str, Any]) -> Choice:
        """Read ``name`` or ``name(option=literal, ...)``, or the `facts` of a choice. Raises `UserError` on anything else."""
        if isinstance(text, Choice):
            return text
        if isinstance(text, Mapping) and isinstance(text.get("name"), str):
            return cls(text["name"], {key: value for key, value in text.items() if key != "name"})
        if not isinstance(text, str):
            raise UserError(
                f"what is chosen by name is given as text, not as a {type(text).__name__}; write a name such as 'unet'."
            )
        if "(" not in text:
            # Names may hold characters that Python identifiers may not ("squeeze-rounded"), so a bare name is not parsed.
            if not text.strip():
                raise UserError("an empty name was given; write a name such as 'unet' or 'unet(width=32)'.")
            return cls(text.strip())
        name, _, inside = text.strip().partition("(")
        try:
            call = ast.parse(f"_({inside}", mode="eval").body
            if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
                raise SyntaxError
            options = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            raise UserError(
                f"cannot read {short(text)}: write it as name(option=value, ...) with text in quotes, for example "
                "clts(center=0.3) or cifar10(split='test')."
            ) from None
        return cls(name.strip(), options)

    @property
    def facts(self) -> dict[str, Any]:
        """Name and options side by side, as a spec has them; read by `parse`."""
        return {"name": self.name, **self.options}

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in sorted(self.options.items()))})"

    def __repr__(self) -> str:
        return repr(str(self))

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Choice | str) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a choice is not changed; make another, Choice({self.name!r}, ...).")

    def __reduce__(self) -> tuple[Any, ...]:
        return Choice, (self.name, dict(self.options))


class Names(ABC):
    """What can be chosen by name, and with which options.

    Args:
        kind: what it is, for messages ("network").
    """

    def __init__(self, kind: str):
        self.kind = kind

    @abstractmethod
    def _known(self) -> Collection[str]: ...

    @abstractmethod
    def options(self, name: str) -> dict[str, Any]:
        """The options of a name with their defaults (`inspect.Parameter.empty` where one is required)."""

    def names(self, pattern: str = "*") -> list[str]:
        """The names that match a shell pattern, sorted."""
        return sorted(fnmatch.filter(self._known(), pattern))

    def describe(self, name: str) -> str:
        """The name as it would be written with all its options at their defaults; required ones as ``...``."""
        options = {
            key: "..." if value is inspect.Parameter.empty else repr(value) for key, value in self.options(name).items()
        }
        return f"{name}({', '.join(f'{key}={value}' for key, value in options.items())})" if options else name


class Registry(Names, Generic[T]):
    """Builders by name. The keyword-only parameters of a builder are the options that a `Choice` may set.

    Args:
        kind: what is registered, for messages ("network").
        builders: name -> class or function.
        elsewhere: what others call it, in lower case with hyphens -> the name here, for the message about an unknown name.
    """

    def __init__(self, kind: str, builders: Mapping[str, Callable[..., T]], elsewhere: Mapping[str, str] | None = None):
        super().__init__(kind)
        self._builders, self._elsewhere = dict(builders), elsewhere

    def _known(self) -> Collection[str]:
        return self._builders

    def register(self, name: str, builder: Callable[..., T]) -> None:
        """Add a builder. Raises `UserError` if the name is taken."""
        if name in self._builders:
            raise UserError(f"the {self.kind} {name!r} exists already; choose another name.")
        self._builders[name] = builder

    def builder(self, name: str) -> Callable[..., T]:
        """The builder of that name. Raises `UserError` with the nearest name."""
        if not isinstance(name, str) or name not in self._builders:
            raise unknown_name(self.kind, str(name), self._builders, elsewhere=self._elsewhere)
        return self._builders[name]

    def options(self, name: str) -> dict[str, Any]:
        """The options of a builder with their defaults (`inspect.Parameter.empty` where one is required).

        ``trust`` is none of them: a text may come from whoever wrote the file that it names (see `trust.trusting`).
        """
        parameters = inspect.signature(self.builder(name)).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "trust"}

    def resolve(self, text: str | Choice) -> Choice:
        """The choice with every default filled in: what a spec's hash must cover.

        Raises `UserError` for an unknown name or option, a value of another type than the builder's annotation says, and for a
        required option that is missing.
        """
        choice = Choice.parse(text)
        options = self.options(choice.name)
        parameters = inspect.signature(self.builder(choice.name)).parameters
        for key in choice.options:
            if key not in options:
                raise unknown_name(f"option of the {self.kind} {choice.name!r}", key, options)
            _check_type(self.kind, choice.name, parameters[key], choice.options[key])
        merged = {**options, **choice.options}
        missing = [key for key, value in merged.items() if value is inspect.Parameter.empty]
        if missing:
            raise UserError(
                f"the {self.kind} {choice.name!r} needs {', '.join(missing)}: write {choice.name}({missing[0]}=...)."
            )
        return Choice(choice.name, merged)

    def build(self, text: str | Choice, *args: Any) -> T:
        """Make the object: ``args`` are the builder's positional arguments, the choice gives its options."""
        choice = self.resolve(text)
        return self.builder(choice.name)(*args, **choice.options)


def chosen(default: str, home: str) -> Any:
    """A field of a settings dataclass that holds a `Choice`. What it is given is parsed and looked up once, when the settings are made.

    Args:
        default: as text.
        home: room and name of its registry, ``"networks.registry:NETWORKS"``. It is imported when something else than the default is
            given, because ``--help`` must not wait for torch.
    """
    return ChosenField(default, home)


class ChosenField:
    """What `chosen` gives: a descriptor, which a dataclass takes for the field's default."""

    def __init__(self, default: str, home: str):
        self.default, self.home = Choice.parse(default), home

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def registry(self) -> Registry[Any]:
        module, _, name = self.home.partition(":")
        return getattr(import_module(f"consistency_lab.{module}"), name)

    def __get__(self, settings: object, owner: type | None = None) -> Choice:
        return self.default if settings is None else settings.__dict__[self.name]

    def __set__(self, settings: object, value: str | Choice | Mapping[str, Any]) -> None:
        choice = Choice.parse(value)
        if choice != self.default:
            self.registry.resolve(choice)
        settings.__dict__[self.name] = choice


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (numbers.Integral,),
    "float": (numbers.Real,),
    "str": (str, os.PathLike),
    "bool": (bool,),
    "None": (type(None),),
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "True or False",
    "None": "None",
}


def _check_type(kind: str, name: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raise `UserError` for a value that the annotation of a builder's option rules out; other annotations than plain types say nothing."""
    annotation = parameter.annotation
    said = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    wanted = [part.strip() for part in said.split("|")]
    if not all(part in _TYPES for part in wanted):
        return
    allowed = {each for part in wanted for each in _TYPES[part]}
    if not isinstance(value, tuple(allowed)) or (isinstance(value, bool) and bool not in allowed):
        words = " or ".join(_WORDS[part] for part in wanted)
        raise UserError(f"{parameter.name}={short(value)} of the {kind} {name!r} is not usable; give {words}.")
