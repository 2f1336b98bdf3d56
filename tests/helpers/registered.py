"""What a test that holds for everything registered is run with, and the tests of a module that are run with an entry."""

import importlib.util
from inspect import Parameter, isfunction
from itertools import product
from pathlib import Path

from consistency_lab.choices import Choice


def entries(registry, variants=(), without=()):
    """Every name of a registry as text: those of which variants are given as these say, all others at their defaults.

    So what is added to a registry is tested without another line here. A variant is needed only where the defaults will not do: a required
    option, or a size that takes too long. ``without`` names what these tests cannot build at all.
    """
    told = {Choice.parse(text).name for text in variants}
    unknown = {*told, *without} - set(registry.names())
    assert not unknown, f"what is not registered: {unknown}"
    others = [name for name in registry.names() if name not in {*told, *without}]
    for name in others:
        needed = [option for option, default in registry.options(name).items() if default is Parameter.empty]
        assert not needed, f"the {registry.kind} {name!r} needs {needed}: give the tests of its registry a variant"
    return [*others, *variants]


def module_of(path):
    """A module of tests, executed anew: it sees what is registered now. ``path`` is below ``tests/``."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parents[1] / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked_of(module, entry):
    """Every test of a module that is parametrised with an entry, and all sets of arguments that it is run with for it."""
    for name, test in vars(module).items():
        if not name.startswith("test_") or not isfunction(test):
            continue
        marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        if not any(entry in mark.args[1] for mark in marks):
            continue
        ways = [[entry] if entry in mark.args[1] else mark.args[1] for mark in marks]
        names = [[mark.args[0]] if isinstance(mark.args[0], str) else mark.args[0] for mark in marks]
        for chosen in product(*ways):
            arguments = {}
            for keys, value in zip(names, chosen, strict=True):
                arguments.update(zip(keys, [value] if len(keys) == 1 else value, strict=True))
            yield test, arguments
