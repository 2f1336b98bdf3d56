import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from consistency_lab.choices import Choice, Registry, whole
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


@pytest.mark.parametrize("value", [8, np.int64(8), np.uint8(8)])
def test_a_whole_number_is_pythons_or_numpys(value):
    assert type(whole("count", value)) is int
    assert whole("count", value, 8, 8) == 8


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (8.0, r"count is a whole number, not 8\.0; write 8\."),
        (8.5, r"not 8\.5\."),
        (np.float64(8), "whole number"),
        (True, "not True"),
        ("8", "not '8'"),
        (None, "not None"),
        (0, "count is a whole number from 1 to 9, not 0"),
        (np.int64(10), "from 1 to 9"),
    ],
)
def test_anything_else_is_refused_by_name(value, message):
    with pytest.raises(UserError, match=message):
        whole("count", value, 1, 9)


def test_a_choice_is_equal_where_it_prints_alike():
    choice = Choice.parse("make(width=4, note='x')")
    assert choice == Choice("make", {"note": "x", "width": 4}) == "make(note='x', width=4)"
    assert len({choice, Choice.parse("make( note = 'x', width=4 )"), "make(note='x', width=4)"}) == 1
    # 4, 4.0 and True are three values in a spec, so they are three choices.
    assert len({Choice("make", {"width": value}) for value in (4, 4.0, True)}) == 3
    assert Choice.parse(choice.facts) == choice
    assert f"{choice!r}" == repr(str(choice))
    assert choice != 4


def test_a_choice_does_not_change():
    options = {"values": [1.0, 0.5]}
    choice = Choice("density", options)
    options["floor"] = 0.1
    assert str(choice) == "density(values=[1.0, 0.5])"
    with pytest.raises(AttributeError, match="not changed"):
        choice.name = "other"
    with pytest.raises(TypeError):
        choice.options["floor"] = 0.1
    assert pickle.loads(pickle.dumps(choice)) == copy.deepcopy(choice) == choice


@pytest.mark.parametrize("given", [{}, {"name": 3}, ["make"], None, 3])
def test_what_is_neither_text_nor_facts_is_refused(given):
    with pytest.raises(UserError, match="given as text"):
        Choice.parse(given)


@pytest.mark.parametrize("inside", ["[" * 400, "-" * 50_000 + "1", "a={[]: 1}", "a=" + "(" * 150 + "1" + ")" * 149])
def test_options_that_python_cannot_read_at_all_are_refused(inside):
    with pytest.raises(UserError, match="cannot read"):
        Choice.parse(f"unet({inside})")
