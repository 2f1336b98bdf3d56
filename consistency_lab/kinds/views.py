"""What of a result can be moved in a notebook: its controls, and the figure and sentence at a setting of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from consistency_lab.errors import UserError, unknown_name

Drawn = tuple[Figure, str]
ALL = "all"  # the value of a noise level that means: over all of them


@dataclass(frozen=True)
class Control:
    """Something that can be set.

    Attributes:
        name: as a keyword of `explore`.
        title: beside the slider or menu.
        options: the values that it can take, in order: numbers, or texts.
        first: where it stands unless told.
    """

    name: str
    title: str
    options: tuple[Any, ...]
    first: Any

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers (after, perhaps, the text `ALL`): then it is a slider."""
        return isinstance(self.options[-1], int | float)

    def labelled(self) -> list[tuple[str, Any]]:
        """(text, value) of each option."""
        return [(f"{value:.3g}" if isinstance(value, float) else str(value), value) for value in self.options]

    def settle(self, value: Any) -> Any:
        """The option that is meant. Raises `UserError` for a text that is none, or a number beyond the options."""
        numbers = [each for each in self.options if isinstance(each, int | float)]
        if isinstance(value, int | float) and not isinstance(value, bool) and numbers:
            if not min(numbers) <= value <= max(numbers):
                raise UserError(f"{self.name}={value!r} is outside this result's {min(numbers):g} to {max(numbers):g}.")
            return min(numbers, key=lambda each: abs(each - value))
        if value in self.options:
            return value
        raise unknown_name(f"value of {self.name}", str(value), map(str, self.options))


@dataclass(frozen=True)
class View:
    """The controls of a result, and what draws it: keywords named as the controls -> figure and sentence."""

    controls: tuple[Control, ...]
    draw: Callable[..., Drawn]

    def settled(self, start: Mapping[str, Any]) -> dict[str, Any]:
        """A value for every control. Raises `UserError` for a control that does not exist."""
        known = [each.name for each in self.controls]
        for name in start:
            if name not in known:
                raise unknown_name("control of this result", name, known)
        return {
            each.name: each.settle(start[each.name]) if each.name in start else each.first for each in self.controls
        }
