"""What a dry run says: facts as tables for people, and the same facts as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from consistency_lab.choices import printable
from consistency_lab.errors import UserError

_FEW = 6  # columns of a table that is printed whole; of a wider one, what all rows share stands below it


@dataclass(frozen=True)
class DryRun:
    """What every command understands that says beforehand what it would do."""

    answers: ClassVar[bool] = False
    """whether the command itself prints JSON, and not its dry run alone"""
    dry_run: bool = False
    """print what would be done, and stop"""
    json: bool = False
    """print JSON for programs in the place of the tables of --dry-run"""

    def check_json(self) -> None:
        """Raise `UserError` where JSON is asked of what prints none."""
        if self.json and not self.dry_run and not self.answers:
            raise UserError("--json is of --dry-run; what a command finds lies in its --out, in files for programs.")

    def say(self, facts: Mapping[str, Any]) -> None:
        """Print what would be done."""
        if self.json:
            print_json(facts)
        else:
            print(facts_text(facts))


def print_json(facts: Mapping[str, Any]) -> None:
    print(json.dumps(facts, indent=2, default=str))


def facts_text(facts: Mapping[str, Any]) -> str:
    """Facts as a reader wants them: a line for each, and a table for each list of rows (or mapping of them)."""
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    rows = {name: _rows(name, value) for name, value in plain.items()}
    lines = _lines(_flat({name: value for name, value in plain.items() if rows[name] is None}))
    tables = [_titled(name, found) for name, found in rows.items() if found]
    return "\n\n".join(part for part in ("\n".join(lines), *tables) if part)


def _rows(name: str, value: Any) -> list[dict[str, Any]] | None:
    """The rows of a table, where the value is one: a list of mappings, or a mapping of these under the names of their rows."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return [_flat(row) for row in value]
    if isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
        return [{name.removesuffix("s"): key, **_flat(row)} for key, row in value.items()]
    return None


def _flat(facts: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Facts within facts by their way: ``settings.network``."""
    found: dict[str, Any] = {}
    for key, value in facts.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return found


def _titled(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    shared = {
        key: rows[0][key]
        for key in keys[1:]
        if all(key in row and _cell(row[key]) == _cell(rows[0][key]) for row in rows)
    }
    if len(keys) <= _FEW:
        shared = {}
    shown = [key for key in keys if key not in shared]
    cells = [shown, *([_cell(row.get(key, "")) for key in shown] for row in rows)]
    right = [all(type(row.get(key)) in (int, float) for row in rows) for key in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    table = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
    table.insert(1, "  ".join("-" * width for width in widths))
    below = [f"of {'all' if len(rows) > 1 else 'it'}:", *_lines(shared)] if shared else []
    return "\n".join([f"{name}:", *table, *(["", *below] if below else [])])


def _lines(facts: Mapping[str, Any]) -> list[str]:
    width = max(map(len, facts), default=0)
    return [f"{key:<{width}}  {_cell(value)}".rstrip() for key, value in facts.items()]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "none"
    words = {None: "none", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    return "none" if value == {} else printable(str(value))
