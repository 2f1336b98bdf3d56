"""Write reference.md from the docstrings: every public name with its signature, and the methods of classes; and the file of names with
their options that the command line lists.

Run it from anywhere: python docs/make_reference.py (with --check it writes nothing, and fails if one of them is out of date)
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import consistency_lab as cl
from consistency_lab.choices import Registry
from consistency_lab.cli import names
from consistency_lab.cli.listing import LISTS

PAGE = Path(__file__).with_name("reference.md")
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
ROOMS = {
    "data": "Images",
    "training": "Training",
    "contrast": "GAN and VAE",
    "loading": "Loading",
    "interop": "Other people's models",
    "pipelines": "Whole generators of others",
    "networks": "Architectures",
    "diffusion": "Schedules, denoisers, noise, sampling",
    "similarity": "Comparing",
    "gates": "Gates",
    "metrics": "Distances between images",
    "probes": "Probes",
    "studies": "Probes of pairs, of GANs and of VAEs",
    "recipe": "Recipes",
    "store": "Store and results",
    "kinds": "Kinds of result",
    "reports": "The page",
    "jupyter": "Notebooks",
    "choices": "Names with options",
    "errors": "Errors",
}
WIDTH = 110


def page() -> str:
    """The whole page."""
    homes = {name: module.split(".")[0] for name, module in cl._HOMES.items()}
    lines = ["# Reference", "", "Made from the docstrings by `python docs/make_reference.py`; do not edit.", ""]
    for room, title in ROOMS.items():
        names = sorted((name for name in homes if homes[name] == room), key=str.lower)
        lines += [f"* {title}: {', '.join(f'[`{name}`](#{name.lower()})' for name in names)}"]
        assert names, f"the room {room} has no public name"
    assert set(homes.values()) <= set(ROOMS), "a room has no title in ROOMS"
    for room, title in ROOMS.items():
        lines += ["", f"## {title}"]
        for name in sorted((name for name in homes if homes[name] == room), key=str.lower):
            lines += ["", f"### {name}", "", *entry(name, getattr(cl, name))]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def entry(name: str, thing: Any) -> Iterator[str]:
    """The lines of one public name."""
    if isinstance(thing, Registry):
        own = type(thing).register is not Registry.register
        adds = "register" if own else "register(name, builder)"
        yield f"Every {thing.kind} by name, with its options and their defaults; `{adds}` adds one."
        yield ""
        yield from (f"* `{thing.describe(each)}`" for each in thing.names())
        if own:
            yield from ["", f"#### {name}.register", "", *code(f"register{signature(type(thing).register)}")]
            yield from docstring(type(thing).register)
    elif isinstance(thing, dict):
        module = importlib.import_module(f"consistency_lab.{cl._HOMES[name]}")
        yield f"By name: {', '.join(f'`{key}`' for key in thing)} (in `{module.__name__}`)."
    elif inspect.isclass(thing):
        if not issubclass(thing, BaseException):
            yield from code(f"{name}{signature(thing)}")
        yield from docstring(thing)
        yield from fields(thing)
        for method, function in methods(thing):
            shown = "" if isinstance(function, property) else signature(function)
            yield from ["", f"#### {name}.{method}", "", *code(f"{method}{shown}"), *docstring(function)]
        if name == "Recipe":  # the derivation is the docstring of its room
            yield from ["", *docstring(importlib.import_module("consistency_lab.recipe"))]
    else:
        yield from [*code(f"{name}{signature(thing)}"), *docstring(thing)]


def methods(thing: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class, its bases' in this package included, in the order of their names."""
    for name in sorted(set(dir(thing))):
        if name.startswith("_"):
            continue
        found: Any = inspect.getattr_static(thing, name)
        if isinstance(found, functools.cached_property):
            found = property(found.func)
        found = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        function = found.fget if isinstance(found, property) else found
        if inspect.isfunction(function) and function.__module__.startswith("consistency_lab"):
            yield name, found


def code(text: str) -> list[str]:
    return ["```text", text, "```", ""]


def signature(function: Callable[..., Any]) -> str:
    """The signature with annotations as they are written, one parameter a line where it is long."""
    known = inspect.signature(function)
    parts, keyword = [], False
    for parameter in known.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            keyword = True
            parts.append("*")
        keyword = keyword or parameter.kind is parameter.VAR_POSITIONAL
        parts.append(_parameter(parameter))
    returns = (
        "" if known.return_annotation in (known.empty, None, "None") else f" -> {_written(known.return_annotation)}"
    )
    line = f"({', '.join(parts)}){returns}"
    return line if len(line) <= WIDTH - 20 else "(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_written(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += " = " + ("..." if "factory" in repr(parameter.default) else repr(parameter.default))
    return text


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def docstring(thing: Any) -> Iterator[str]:
    """A docstring as Markdown: its sections become lists, its examples code."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    while lines:
        head = lines[0].rstrip(":")
        if lines[0].endswith(":") and head in SECTIONS:
            body = list(_indented(lines[1:]))
            del lines[: 1 + len(body)]
            yield from ["", f"**{head}**", "", *_section(body), ""]
        elif lines[0].startswith(">>>"):
            example = _example(lines)
            del lines[: len(example)]
            yield from ["```text", *example, "```"]
        elif lines[0].startswith("    "):
            body = list(_indented(lines))
            del lines[: len(body)]
            yield from ["```text", *textwrap.dedent("\n".join(body)).strip("\n").splitlines(), "```", ""]
        else:
            yield escape(lines.pop(0))


def _example(lines: list[str]) -> list[str]:
    taken = 0
    while taken < len(lines) and lines[taken].strip():
        taken += 1
    return lines[:taken]


def _indented(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line.strip() and not line.startswith("    "):
            return
        yield line


def _section(body: list[str]) -> Iterator[str]:
    """``name: text`` at the first level become items; what is indented further continues its item."""
    text = textwrap.dedent("\n".join(body)).strip("\n")
    for line in text.splitlines():
        named = re.match(r"(\*{0,2}\w[\w, ]*?): (.*)", line)
        if named:
            yield f"* {', '.join(f'`{name.strip()}`' for name in named[1].split(','))}: {escape(named[2])}"
        else:
            yield escape(line)


def escape(line: str) -> str:
    """Markdown takes ``<root>`` for markup; code between backticks is left as it is."""
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def fields(thing: type) -> Iterator[str]:
    """The texts under the fields of a dataclass, where it has any."""
    known = field_texts(thing)
    if known:
        yield from ["", "**Fields**", ""]
        yield from (f"* `{name}`: {escape(text)}" for name, text in known.items())


def field_texts(thing: type) -> dict[str, str]:
    """Field -> the string that stands under it in the source, of the class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(thing.__mro__):
        if not base.__module__.startswith("consistency_lab"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for here, after in itertools.pairwise(body):
            if (
                isinstance(here, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[here.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return found


def listed() -> str:
    """The file of what can be chosen by name."""
    homes = ((home, home.split(":")) for home in LISTS.values())
    registries = {h: getattr(importlib.import_module(f"consistency_lab.{module}"), name) for h, (module, name) in homes}
    return names.written(registries)


if __name__ == "__main__":
    for file, made in ((PAGE, page()), (names.FILE, listed())):
        if "--check" not in sys.argv:
            file.write_text(made, encoding="utf-8")
        elif not file.is_file() or file.read_text("utf-8") != made:
            sys.exit(f"{file} is out of date; run {__file__}")
