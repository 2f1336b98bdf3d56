"""What can be chosen by name, read from ``names.json`` rather than from the code that is chosen: `list` and `status` wait for no torch."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from consistency_lab.choices import Names

FILE = Path(__file__).with_name("names.json")


class Listed(Names):
    """Names as `written` put them down.

    Args:
        kind: what they are names of.
        texts: name -> option -> its default as Python writes it; None where one is required.
    """

    def __init__(self, kind: str, texts: Mapping[str, Mapping[str, str | None]]):
        super().__init__(kind)
        self._texts = texts

    def _known(self) -> Collection[str]:
        return self._texts

    def options(self, name: str) -> dict[str, Any]:
        texts = self._texts[name].items()
        return {key: inspect.Parameter.empty if text is None else ast.literal_eval(text) for key, text in texts}


def names_at(home: str) -> Names:
    """The names of a registry, ``"networks.registry:NETWORKS"``: its own where its module is loaded, else what the file says of it."""
    module, _, name = home.partition(":")
    loaded = sys.modules.get(f"consistency_lab.{module}")
    if loaded is not None:
        registry: Names = getattr(loaded, name)
        return registry
    kept = json.loads(FILE.read_text("utf-8"))[home]
    return Listed(kept["kind"], kept["names"])


def written(registries: Mapping[str, Names]) -> str:
    """The file for registries by their homes."""
    content = {
        home: {"kind": each.kind, "names": {name: _texts(each.options(name)) for name in each.names()}}
        for home, each in sorted(registries.items())
    }
    return json.dumps(content, indent=1) + "\n"


def _texts(options: Mapping[str, Any]) -> dict[str, str | None]:
    return {key: None if value is inspect.Parameter.empty else repr(value) for key, value in options.items()}
