"""Figures for paper: exact widths, text that can be read, fonts that printers take, palettes; and nothing of the caller's is touched."""

import io
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

from consistency_lab.errors import UserError
from consistency_lab.intervals import Interval
from consistency_lab.plots import (
    colours,
    curvature,
    definitions,
    difficulty,
    gallery,
    landscapes,
    probes,
    similarity,
    training,
)
from consistency_lab.plots.cells import cell, named
from consistency_lab.plots.fitting import balanced, note_below
from consistency_lab.plots.look import WIDTHS, look
from consistency_lab.plots.save import save_figure
from consistency_lab.plots.theme import NULL, SAME, contrast, new_figure, themed


def pdf_of(figure, **options):
    written = io.BytesIO()
    figure.savefig(written, format="pdf", **options)
    return written.getvalue()


def fonts_of(pdf):
    """The kinds of the fonts in a PDF, and how many TrueType programs are embedded."""
    return set(re.findall(rb"/Subtype /(Type[0-9]\w*|TrueType|CIDFontType[0-9])\b", pdf)), pdf.count(b"/FontFile2")


def width_of(pdf):
    return float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)[1]) / 72


PLOTS = {
    "scores": lambda r, **o: similarity.scores(r.comparison(3, samples=12), "mse", **o),
    "heatmap": lambda r, **o: similarity.heatmap(r.comparison(5, samples=6), "mse", **o),
    "curves": lambda r, **o: similarity.curves(r.comparison(2, samples=6), "mse", **o),
    "distribution": lambda r, **o: similarity.distribution(r.comparison(3, samples=12), "mse", **o),
    "gallery": lambda r, **o: gallery.gallery(r.comparison(2, samples=6, shown=4), **o),
    "landscape": lambda r, **o: probes.landscape(r.landscape(), **o),
    "difficulty": lambda r, **o: difficulty.difficulty([r.difficulty()], **o),
    "training": lambda r, **o: training.loss(r.training(2), **o),
    "smoothness": lambda r, **o: landscapes.smoothness([r.landscape()], **o),
    "spectrum": lambda r, **o: curvature.spectrum(r.curvature(), **o),
    "definitions": lambda r, **o: definitions.definitions([r.difficulty()], **o),
    "agreement": lambda r, **o: definitions.agreement(r.difficulty(), **o),
}


@pytest.mark.parametrize("width", list(WIDTHS))
@pytest.mark.parametrize("name", list(PLOTS))
def test_a_figure_for_paper_has_its_width_and_no_text_that_is_small_or_cut_off(results, name, width):
    figure = PLOTS[name](results, style="paper", width=width)
    pdf = pdf_of(figure)
    assert width_of(pdf) == WIDTHS[width]
    kinds, programs = fonts_of(pdf)
    assert kinds == {b"Type0", b"CIDFontType2"}
    assert programs >= 1
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert min(text.get_fontsize() for text in shown) >= 6
    figure.set_dpi(300)
    figure.draw_without_rendering()  # letters are not equally wide in all resolutions: laid out for the one that is measured
    drawn, (wide, high) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, wide - drawn.x1, high - drawn.y1) >= 0


def test_fonts_are_truetype_however_a_figure_is_saved(results, tmp_path):
    figure = probes.landscape(results.landscape())
    with matplotlib.rc_context({"pdf.fonttype": 3}):
        figure.savefig(tmp_path / "path.pdf")
        figure.savefig(tmp_path / "format", format="pdf")
        save_figure(figure, tmp_path / "saved", results_frame(results))
        assert matplotlib.rcParams["pdf.fonttype"] == 3
        with look(), PdfPages(tmp_path / "pages.pdf") as pages:
            pages.savefig(figure)
    for name in ("path.pdf", "format", "saved.pdf", "pages.pdf"):
        assert fonts_of((tmp_path / name).read_bytes())[0] == {b"Type0", b"CIDFontType2"}, name


def results_frame(results):
    from consistency_lab.plots import frames

    return frames.landscape(results.landscape())


def test_a_page_among_others_has_the_fonts_of_the_whole(results, tmp_path):
    """Fonts of pages are written when the file is closed: glyphs of another kind could not be read."""
    with matplotlib.rc_context({"pdf.fonttype": 3}), PdfPages(tmp_path / "pages.pdf") as pages:
        pages.savefig(probes.landscape(results.landscape()))
    assert fonts_of((tmp_path / "pages.pdf").read_bytes())[0] == {b"Type3"}


@pytest.mark.parametrize("form", ["pdf", "svg", "png"])
def test_the_same_data_give_the_same_bytes(results, form):
    made = []
    for _ in range(2):
        written = io.BytesIO()
        figure = probes.landscape(results.landscape(), style="paper", width=3.25, palette="Dark2")
        figure.savefig(written, format=form)
        made.append(written.getvalue())
    assert made[0] == made[1]


def test_settings_of_the_caller_are_left_alone(results):
    before = dict(matplotlib.rcParams)
    figure = similarity.curves(results.comparison(2, samples=6), "mse", style="paper", palette="deep")
    pdf_of(figure)
    with pytest.raises(UserError), look("paper", "column"):
        probes.landscape(results.landscape(), palette="no such palette")
    assert dict(matplotlib.rcParams) == before
    with look() as now:
        assert (now.style, now.palette) == ("screen", None)


def colours_of(figure):
    return [line.get_color() for line in figure.axes[0].lines]


@themed
def two_lines():
    figure, axes = new_figure(4, 3)
    axes[0, 0].plot([0, 1], [0, 1], color=SAME)
    axes[0, 0].plot([0, 1], [1, 0], color=NULL)
    axes[0, 0].fill_between([0, 1], 0, 1, color=SAME, alpha=0.25, lw=0)
    axes[0, 0].text(0.5, 0.5, "name", color=SAME)
    return figure


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        (None, [SAME, NULL]),
        (["#ff0000", "navy"], ["#ff0000", "#000080"]),
        ("tab10", ["#1f77b4", "#ff7f0e"]),
        ("viridis", [to_hex(matplotlib.colormaps["viridis"](i / 9)) for i in (1, 2)]),
    ],
)
def test_a_palette_takes_the_place_of_the_colours_of_series(palette, expected):
    figure = two_lines(palette=palette)
    assert [to_hex(colour) for colour in colours_of(figure)] == expected
    (band,) = figure.axes[0].collections
    np.testing.assert_allclose(band.get_facecolor()[0], [*to_rgb(expected[0]), 0.25])
    assert contrast(figure.axes[0].texts[0].get_color(), "#ffffff") >= 4.5  # the name can be read, whatever the palette


def test_palettes_of_seaborn_are_known_by_name():
    seaborn = pytest.importorskip("seaborn")
    found = [to_hex(colour) for colour in colours_of(two_lines(palette="muted"))]
    assert found == [to_hex(colour) for colour in seaborn.color_palette("muted")[:2]]
    assert len(colours.palette_of("husl")) == len(colours.SERIES)
    # By whichever library a name is found, the colours are the same.
    assert colours.palette_of("rocket") == tuple(map(to_hex, seaborn.color_palette("rocket", len(colours.SERIES))))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"palette": "Drak2"}, "unknown palette 'Drak2'. Did you mean 'Dark2'"),
        ({"palette": []}, "a palette is the name of one, or a list of colours"),
        ({"palette": ["red", "rde"]}, "'rde' is no colour"),
        ({"palette": ["red"]}, "needs a palette of 2 colours, and the one given has 1"),
        ({"style": "papr"}, "unknown style 'papr'. Did you mean 'paper'"),
        ({"width": "column"}, "give style='paper' with it"),
        ({"style": "paper", "width": "colum"}, "unknown width 'colum'. Did you mean 'column'"),
        ({"style": "paper", "width": 30}, "between 2.5 and 12 inches wide"),
    ],
)
def test_a_look_that_does_not_exist_is_one_sentence(options, words):
    with pytest.raises(UserError, match=re.escape(words)):
        two_lines(**options)


@pytest.mark.parametrize(
    ("line", "most", "expected"),
    [
        ("short", 8, "short"),
        ("uniform + annealing, 750 steps", 26, "uniform + annealing,\n750 steps"),
        ("a bb ccc dddd", 9, "a bb ccc\ndddd"),
        ("held-out unbreakable", 4, "held-out\nunbreakable"),
    ],
)
def test_lines_are_broken_between_words_into_equal_ones(line, most, expected):
    assert balanced(line, most) == expected


@pytest.mark.parametrize(
    ("inches", "expected"), [(1.0, ["0.75", "−0.50 to 0.80"]), (0.62, ["0.75", "−0.50\n0.80"]), (0.22, [])]
)
def test_an_interval_in_a_cell_without_room_has_two_lines_or_is_left_out(inches, expected):
    @themed
    def one_cell():
        figure, axes = new_figure(1, 1.2 / 0.8)
        cell(axes[0, 0], 0, 0, Interval(0.75, -0.5, 0.8), "#ffffff")
        named(axes[0, 0], [0], [""], [""])
        figure.get_layout_engine().set(rect=(0, 0, inches / WIDTHS["column"], 1))
        return figure

    texts = one_cell(style="paper", width="column").axes[0].texts
    assert [text.get_text() for text in texts if text.get_visible()] == expected


@pytest.mark.parametrize("style", ["screen", "paper"])
def test_notes_stand_below_a_figure_on_each_other(results, style):
    figure = landscapes.smoothness([results.landscape()], style=style)  # in a column its legend is below, too
    with look(style):
        note_below(figure, "first " * 80)
        note_below(figure, "second")
    figure.draw_without_rendering()
    lowest, above = (figure.texts[-2].get_window_extent(), figure.texts[-1].get_window_extent())
    axes = min(ax.get_tightbbox().y0 for ax in figure.axes)
    assert 0 <= lowest.y0 < lowest.y1 <= above.y0 < above.y1 <= axes
    assert max(lowest.x1, above.x1) <= figure.bbox.x1
    assert "\n" in figure.texts[-2].get_text()


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(colour, seen=None):
    """CIELAB (D65) of a colour as somebody sees it."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(BLIND[seen]) @ linear, 0, 1) if seen else linear
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", [None, *BLIND])
def test_the_own_palette_is_told_apart_by_the_colour_blind(seen):
    # To protans blue and purple are the closest, 11.8; a step of 2.3 is just noticed. Dashes and marks differ beside.
    first = [lab(colour, seen) for colour in colours.SERIES[:4]]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(first) for b in first[:i]]
    assert min(apart) > 4 * 2.3
