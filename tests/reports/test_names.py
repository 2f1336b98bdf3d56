"""Whatever a model is called and however many channels its images have, pictures and pages show it as it is."""

import csv
import io
import re
from html import unescape

import numpy as np
import pytest

import consistency_lab as cl
from consistency_lab.plots import landscapes, probes, similarity
from consistency_lab.plots.gallery import gallery
from consistency_lab.plots.save import save_figure
from consistency_lab.plots.theme import SAME
from consistency_lab.reports.html import report
from consistency_lab.reports.svg import inline_svg
from consistency_lab.store.results import load_result, save_result

NAMES = ["$\\alpha_$", "a$b$", "x_{", "<b>&amp;", "=1+1", f'{SAME} id="a"', "|a|b|"]


def named(results, name, **options):
    ds = results.comparison(2, samples=6, shown=2, times=3, nearest=False, **options)
    return ds.assign_coords(model=[name, "other"], pair=[f"{name} | other"]).sel(metric=["mse"])


@pytest.mark.parametrize("name", NAMES)
def test_pictures_show_a_name_literally(results, name):
    ds = named(results, name)
    figure = similarity.heatmap(ds, "mse")
    svg = unescape(inline_svg(figure, "a", "b"))
    assert svg.count(f">{name}<") == 2  # both axes


@pytest.mark.parametrize(("name", "shown"), [("two\nlines", "two\\nlines"), ("low\udcff", "low\\udcff")])
def test_what_no_file_holds_on_one_line_is_written_as_an_escape(results, tmp_path, name, shown):
    ds = named(results, name)
    page = report([ds], tmp_path / "r.html")
    assert shown in page.read_text("utf-8")
    assert shown.replace("\\", "\\\\") in page.with_suffix(".json").read_text("utf-8")
    save_result(ds, tmp_path / "r.nc")
    assert cl.show(load_result(tmp_path / "r.nc")).sentence == cl.show(ds).sentence
    frame = similarity.frames.matches(ds, "mse")
    save_figure(similarity.heatmap(ds, "mse"), tmp_path / "h", frame)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "h.csv").read_text("utf-8"))))
    assert {row["model"] for row in rows} == {shown, "other"}


def test_markdown_tables_keep_their_columns(results, tmp_path):
    ds = results.training(2).assign_coords(model=["a|b `$x$", "<b>c"])
    text = report([ds], tmp_path / "r.html").with_suffix(".md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "loss" not in line]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [4, 4]  # the times are known of other names
    assert rows[0].startswith(r"| a\|b \`\$x\$ |")
    assert rows[1].startswith(r"| \<b>c |")


def test_long_names_are_shortened_in_pictures_alone(results):
    ds = named(results, "n" * 300 + "1")
    labels = [text.get_text() for text in similarity.heatmap(ds, "mse").axes[0].get_yticklabels()]
    assert labels == ["n" * 23 + "…" + "n" * 7 + "1", "other"]
    assert "n" * 300 + "1" in set(similarity.frames.matches(ds, "mse")["model"])
    first = similarity.frames.overview(ds, "mse")
    assert any("n" * 300 in name for name in first["name"])


def test_long_names_that_begin_and_end_alike_stay_apart(results):
    names = [f"{'n' * 40}{i}{'m' * 40}" for i in range(2)]
    ds = results.comparison(2, samples=6, times=3).assign_coords(model=names, pair=[" | ".join(names)])
    labels = [text.get_text() for text in similarity.heatmap(ds, "mse").axes[0].get_yticklabels()]
    assert len(set(labels)) == 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels(results, channels, tmp_path):
    ds = named(results, "model", channels=channels)
    if channels > 1:
        ds["images"][:, :, :, 1:] = 0
    drawn = gallery(ds).axes[0].images[0].get_array()
    pixels = ds["images"].isel(model=0, shown=0, t=-1).transpose("row", "column", "channel").values
    assert np.array_equal(drawn, pixels if channels == 3 else pixels.mean(-1))
    text = report([ds.isel(reference=[0])], tmp_path / "r.html").read_text("utf-8")
    assert (f"Of the {channels} channels the mean is shown." in text) == (channels not in (1, 3))


def test_a_logarithmic_axis_has_powers_of_ten(results):
    ds = results.landscape()
    ds["loss_by_t"] = ds["loss_by_t"] * np.linspace(1, 1e4, ds.sizes["position"])[:, None]
    figure = probes.landscape(ds)
    figure.draw_without_rendering()
    labels = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert "10²" in labels
    assert not any("$" in label for label in labels)


def test_infinite_values_have_no_place_on_an_axis_and_stay_in_tables(results):
    ds = results.comparison(2, samples=6, times=3)
    ds["distance"][0, :, 0, 2] = np.inf
    assert similarity.distribution(ds, "psnr").axes
    assert np.isinf(similarity.frames.distribution(ds, "psnr").iloc[0, 0])
    assert cl.explore(ds, metric="psnr", sample=0).children[-1].value
    line = results.landscape(between=False)
    line["loss"][3] = np.inf
    assert landscapes.smoothness([line, line]).axes
