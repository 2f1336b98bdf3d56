"""Sliders through a result where ipywidgets is installed, one still figure where it is not."""

from __future__ import annotations

from html import escape
from typing import Any

import xarray as xr

from consistency_lab.jupyter.still import Still, figure_html
from consistency_lab.kinds.registry import kind_of
from consistency_lab.kinds.views import Control, View
from consistency_lab.plots.reading import shown

NO_WIDGETS = "For sliders: pip install ipywidgets. Another view: explore(result, {})."


def explore(result: xr.Dataset, **start: Any) -> Any:
    """Look into a result, one view at a time.

    A comparison has sliders over t and sample and a choice of metric; landscapes, planes and curvatures one over the noise level;
    difficulty and structure one over t; the others a choice of figure or path. Nothing is computed again: every view is drawn from what
    the result holds.

    Args:
        result: of any kind (`KINDS`).
        **start: where the controls stand first, for example ``t=0.5, metric="mse"``; a number goes to the nearest one that there is.

    Returns:
        An ipywidgets box; without ipywidgets a `Still`, the figure at the start with its sentence.

    Raises:
        UserError: something that is no result or holds no numbers, a control that it does not have, or a value that one cannot take.
    """
    result = shown(result)
    view = kind_of(result).view(result)
    chosen = view.settled(start)
    try:
        import ipywidgets
    except ImportError:
        return Still(*view.draw(**chosen), hint=_hint(view))
    return _box(ipywidgets, view, chosen)


def _hint(view: View) -> str:
    return NO_WIDGETS.format(", ".join(f"{each.name}=..." for each in view.controls)) if view.controls else ""


def _box(ipywidgets: Any, view: View, chosen: dict[str, Any]) -> Any:
    knobs = {each.name: _knob(ipywidgets, each, chosen[each.name]) for each in view.controls}
    picture = ipywidgets.HTML()

    def draw(_: Any = None) -> None:
        figure, sentence = view.draw(**{name: knob.value for name, knob in knobs.items()})
        picture.value = f"{figure_html(figure, sentence)}<p>{escape(sentence)}</p>"

    for knob in knobs.values():
        knob.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([*knobs.values(), picture])


def _knob(ipywidgets: Any, control: Control, value: Any) -> Any:
    """A slider for what has an order, a menu for what has names."""
    kind = ipywidgets.SelectionSlider if control.ordered else ipywidgets.Dropdown
    # Drawn when the slider is let go: a figure takes longer than a slider moves.
    more = {"continuous_update": False} if control.ordered else {}
    return kind(options=control.labelled(), value=value, description=control.title, **more)
