"""What a test that holds for everything registered is run with."""

from inspect import Parameter

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
