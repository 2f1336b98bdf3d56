"""Colours of the page: the contrast that the Web Content Accessibility Guidelines ask for, computed from the style sheet itself."""

import re

import pytest

from consistency_lab.plots.theme import PALETTE, contrast
from consistency_lab.reports.html import HERE

CSS = (HERE / "style.css").read_text(encoding="utf-8")
DARK = CSS[CSS.index("@media screen and (prefers-color-scheme: dark)") :]
BACKGROUNDS = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", text)) for text in (CSS[: CSS.index("@media")], DARK)]
# Every colour that the style sheet gives to text.
TEXT = sorted(set(re.findall(r"[ {;]color: var\(--([\w-]+)\)", CSS)))


def test_text_has_colours_of_the_palette_alone():
    assert {"ink", "muted", "same", "null"} == set(TEXT)
    assert set(TEXT) <= set(PALETTE)
    assert not re.search(r"[ {;]color: (?!var)", CSS)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("behind", ["page", "card"])
@pytest.mark.parametrize("name", [name for name in PALETTE if name != "grid"])
def test_text_and_lines_can_be_read_on_page_and_card(name, behind, scheme):
    # Names of lines are written in the lines' colours, so 4.5 is asked of them as well.
    assert contrast(PALETTE[name][scheme], BACKGROUNDS[scheme][behind]) >= 4.5


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_controls_and_the_focus_are_seen(scheme):
    border = re.search(r"button {[^}]*border: 1px solid var\(--(\w+)\)", CSS)[1]
    focus = re.search(r":focus-visible {[^}]*solid var\(--(\w+)\)", CSS)[1]
    accent = re.search(r"accent-color: var\(--(\w+)\)", CSS)[1]
    for name in (border, focus, accent):
        assert contrast(PALETTE[name][scheme], BACKGROUNDS[scheme]["card"]) >= 3
