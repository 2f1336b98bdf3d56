from pathlib import Path

import numpy as np
import pytest

from consistency_lab.choices import Choice, Registry
from consistency_lab.errors import UserError


def make(size, *, width=3, name="x"):
    return (size, width, name)


def needs(size, *, width):
    return width


REGISTRY = Registry("thing", {"make": make, "needs": needs})


@pytest.mark.parametrize(
    "text", ["make", "make(width=4)", "make(name='a, b=(c)', width=-1.5)", "make(width=[1, (2, None)])"]
)
def test_text_and_choice_round_trip(text):
    choice = Choice.parse(text)
    assert Choice.parse(str(choice)) == choice
    assert Choice.parse(choice) is choice


def test_options_and_defaults():
    assert REGISTRY.build("make(width=4)", 7) == (7, 4, "x")
    assert REGISTRY.resolve("make").options == {"width": 3, "name": "x"}
    assert REGISTRY.names("m*") == ["make"]
    with pytest.raises(UserError, match="exists already"):
        REGISTRY.register("make", make)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mke", "Did you mean 'make'"),
        ("zzz", "Known: make, needs"),
        ("make(widht=4)", "Did you mean 'width'"),
        ("make(4)", "cannot read"),
        ("make(width=__import__('os'))", "cannot read"),
        ("make(width=", "cannot read"),
        ("make() + 1", "cannot read"),
        ("needs", "needs width"),
        ("", "empty name"),
        ("make(**{'width': 3})", "cannot read"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        REGISTRY.build(text, 7)


def typed(*, width: int = 3, rate: "float | None" = None, name: str = "x", deep: bool = False, any_kind: list = ()):
    return width, rate, name, deep, any_kind


TYPED = Registry("thing", {"typed": typed})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("typed(width='a')", "width='a' of the thing 'typed' is not usable; give a whole number"),
        ("typed(width=1.5)", "give a whole number"),
        ("typed(width=True)", "give a whole number"),
        ("typed(rate='fast')", "give a number or None"),
        ("typed(name=3)", "give text in quotes"),
        ("typed(deep=1)", "give True or False"),
        ("typed(name=squeeze)", "text in quotes"),
    ],
)
def test_a_value_of_another_type_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        TYPED.resolve(text)


def test_values_of_the_right_type_pass():
    for text in ("typed(rate=1)", "typed(rate=None, deep=True)", "typed(any_kind=3)", "typed(name='squeeze')"):
        TYPED.resolve(text)
    TYPED.resolve(Choice("typed", {"width": np.int64(4), "rate": np.float32(0.5), "name": Path("a")}))
