"""Small pieces of HTML by which objects show themselves in a notebook (escaped; nothing is loaded from elsewhere), and shares.

What a user has named is to be read as text wherever it is shown. For each place there is one function: `html.escape`, of which jinja makes
use, for pages; `markdown` for Markdown; `spreadsheet_cell` for CSV; `choices.printable` for terminals and figures, which draw no
mathematics (`plots.theme.STYLE`); `store.atomic.file_name` for the names of files.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

# What begins markup in Markdown, mathematics included; an underscore or a bracket only where it does, and what makes a line a heading, a
# quotation or a list only where the text begins.
_MARKDOWN = re.compile(r"[\\`*|$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|\](?=\()|^[#>~=]|^[-+](?=[-\s])")
_FORMULA = re.compile(r"[=+\-@\t\r](?!\s*$)")
_CELL = "text-align:left;vertical-align:top"


def percent(share: float) -> str:
    """A share as a person would write it: ``24 %``, ``0.3 %``, ``under 0.01 %``, never ``1e+02 %`` nor a 100 that is less.

    >>> percent(0.238), percent(0.00312), percent(0.9987), percent(1.0)
    ('24 %', '0.3 %', 'over 99 %', '100 %')
    """
    value = 100 * share
    if 0 < value < 0.01:
        return "under 0.01 %"
    if 99.5 <= value < 100:
        return "over 99 %"
    digits = 0 if value >= 9.95 else 1 if value >= 0.095 else 2
    return f"{f'{value:.{digits}f}'.removesuffix('.0')} %" if value else "0 %"


def markdown(text: str) -> str:
    """The text as Markdown shows it, in a table too."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def spreadsheet_cell(text: str) -> str:
    """The text, with an apostrophe before it where a spreadsheet would take it for a formula; a number is none.

    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("-0.5"), spreadsheet_cell("unet")
    ("'=1+1", '-0.5', 'unet')
    """
    if not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def table(title: str, rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    """A titled table of texts.

    Args:
        title: above the table. rows: texts, as many in each row. head: names of the columns, if they need any.
    """
    top = f"<thead><tr>{_cells('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<div><strong>{escape(title)}</strong><table>{top}<tbody>{body}</tbody></table></div>"


def _cells(tag: str, texts: tuple[str, ...]) -> str:
    return "".join(f'<{tag} style="{_CELL}">{escape(text)}</{tag}>' for text in texts)


def bullets(texts: Iterable[str]) -> str:
    """Sentences, one under the other."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def image(png: bytes, alt: str, style: str = "max-width:100%") -> str:
    """A PNG inside the page, with the words for a reader who cannot see it."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{data}">'


def fact_rows(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of a model as rows of a table: nested facts in one line, a data set by its name."""
    return [(key, _said(value)) for key, value in known.items() if value is not None]


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value["name"]) if "name" in value else ", ".join(f"{key} {inner}" for key, inner in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
