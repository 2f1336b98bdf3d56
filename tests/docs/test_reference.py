"""The reference is made from docstrings: it is up to date, and every public name says what it takes."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import consistency_lab as cl
from consistency_lab.choices import Registry

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(maker):
    assert maker.PAGE.read_text("utf-8") == maker.page(), "run: python docs/make_reference.py"


def test_what_the_command_line_lists_is_up_to_date(maker):
    assert maker.names.FILE.read_text("utf-8") == maker.listed(), "run: python docs/make_reference.py"


@pytest.mark.parametrize("name", cl.__all__)
def test_every_public_name_explains_its_arguments(name, maker):
    thing = getattr(cl, name)
    if isinstance(thing, Registry):
        undocumented = [
            each for each in thing.names() if not inspect.getdoc(thing.builder(each)) and each not in ("ddim",)
        ]
        assert undocumented == []
        return
    said = inspect.getdoc(thing) or ""
    assert len(said) > 20
    if inspect.isclass(thing):
        said += "".join(f"\n{field}: {text}" for field, text in maker.field_texts(thing).items())
        if issubclass(thing, BaseException):
            return
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        assert re.search(rf"\b{parameter.name}\b", said), f"{name} does not explain {parameter.name}"


@pytest.mark.parametrize("name", [name for name in cl.__all__ if inspect.isclass(getattr(cl, name))])
def test_every_public_method_has_a_docstring(name, maker):
    thing = getattr(cl, name)
    assert [method for method, function in maker.methods(thing) if not inspect.getdoc(function)] == []


def test_sections_become_lists_and_markup_is_escaped(maker):
    def function(a, *, b=1):
        """Do it under <root>.

        Args:
            a: first,
                continued.
            b: second; see `c<d>`.

        Raises:
            UserError: never.

        >>> function(1)
        2
        """

    lines = "\n".join(maker.docstring(function))
    assert "under &lt;root>." in lines
    assert "**Args**\n\n* `a`: first,\n    continued.\n* `b`: second; see `c<d>`." in lines
    assert "* `UserError`: never." in lines
    assert "```text\n>>> function(1)\n2\n```" in lines
    assert maker.signature(function) == "(a, *, b = 1)"
