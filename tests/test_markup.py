import io
from html import unescape

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from consistency_lab.markup import markdown, percent, spreadsheet_cell
from consistency_lab.store.results import csv_text

NAMES = [
    "=1+1", "=HYPERLINK(\"http://a\",\"b\")", "+a", "-a", "- a", "@SUM(A1)", "\tx", "$x$", "<b>bold</b>", "a|b", "`code`", "*a* _b_",
    "# head", "> quote", "===", "--- a", "~~~", "[a](b)", "![a](b)", "a_b", "&amp;", "&lt", "\\n", "unet-s0 (lr=0.001)", "<2>", "a < b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name):
    """As a paragraph, in a list and in a table, by another library's reading of Markdown."""
    name, reader = name.strip(), MarkdownIt("commonmark").enable("table")
    for before, after, text in (
        ("<p>", "</p>", markdown(name)),
        ("<li>", "</li>", f"- {markdown(name)}"),
        ("<td>", "</td>", f"| a | b |\n|---|---|\n| {markdown(name)} | c |"),
    ):
        page = reader.render(text)
        shown = page.partition(before)[2].partition(after)[0]
        assert unescape(shown) == name
        assert "<" not in shown


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_csv_is_a_formula_and_the_text_comes_back(name):
    frame = pd.DataFrame({"model": [name], name: [1.5]}).set_index("model")
    back = pd.read_csv(io.StringIO(csv_text(frame)))
    for cell in (back.columns[1], back["model"][0]):
        assert cell[0] not in "=+-@\t\r" or cell == name == "==="[: len(name)]
        assert cell.removeprefix("'") == name
    assert back.iloc[0, 1] == 1.5


def test_numbers_and_signs_alone_are_no_formulas():
    assert [spreadsheet_cell(text) for text in ("-0.5", "+1e-3", "-inf", "-", "–", "", "a=b")] == [
        "-0.5", "+1e-3", "-inf", "-", "–", "", "a=b",
    ]  # fmt: skip
    frame = pd.DataFrame({"x": [-0.5, None], "text": ["-1", None], "flag": [True, False]})
    assert csv_text(frame) == frame.to_csv(index=False)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0 %"),
        (0.00003, "under 0.01 %"),
        (0.0005, "0.05 %"),
        (0.003, "0.3 %"),
        (0.05, "5 %"),
        (0.0512, "5.1 %"),
        (0.0996, "10 %"),
        (0.238, "24 %"),
        (0.994, "99 %"),
        (0.9999, "over 99 %"),
        (1.0, "100 %"),
    ],
)
def test_shares_are_written_as_a_person_would(share, words):
    assert percent(share) == words
