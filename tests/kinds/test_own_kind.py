"""A probe of one's own, written as CONTRIBUTING.md says: every door shows it at once; a registered kind says it better."""

import json
import tomllib
import warnings
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import consistency_lab as cl
from consistency_lab.cli import main
from consistency_lab.intervals import add_interval, mean_interval
from consistency_lab.kinds import registry
from consistency_lab.kinds.base import Drawing, Facts, Section
from consistency_lab.kinds.registry import figures_of, kind_of
from consistency_lab.kinds.views import Control, View
from consistency_lab.paper.kinds import Race
from consistency_lab.plots import generic
from consistency_lab.plots.theme import contrast, new_figure
from consistency_lab.probes.frozen import check_deterministic, frozen_grid, untouched
from consistency_lab.reports.folder import write_folder
from consistency_lab.store.results import load_result, save_result, with_provenance
from consistency_lab.store.runs import Store


def probe_brightness(model, images, count=6, bins=3, seed=0):
    """How bright the estimate of the final image is, by noise level and row of the image."""
    batch, times = frozen_grid(images, model, count, bins, seed)

    with untouched(model.denoiser), torch.no_grad():
        check_deterministic(model.denoiser, brightness_of, batch)
        values = batch.losses(model.denoiser, brightness_of).double().reshape(bins, count)
    result = xr.Dataset(coords={"t": times.numpy()}, attrs={"model": model.name})
    add_interval(result, "brightness", ("t",), mean_interval(values.numpy()))
    add_interval(result, "overall", (), mean_interval(values.mean(0).numpy()))
    return with_provenance(result, "brightness", choices=("t",), samples=count, noise_seed=seed)


def brightness_of(denoiser, x0, t, eps):
    alpha, sigma = (
        part.to(x0)[:, None, None, None] for part in (denoiser.schedule.alpha(t), denoiser.schedule.sigma(t))
    )
    return denoiser(alpha * x0 + sigma * eps, t).x0.mean((1, 2, 3))


@pytest.fixture(scope="module")
def probed():
    images = cl.load_images("digits").take(range(40), "a few digits")
    model = cl.train(images, network="mlp(width=8, depth=1)", steps=1, batch=8, device="cpu", progress=False)
    return probe_brightness(model, images)


@pytest.fixture
def brightness(monkeypatch):
    """A kind that is known as long as a test lasts."""
    monkeypatch.setattr(cl.KINDS, "_builders", dict(cl.KINDS._builders))

    class Brightness(cl.Kind):
        place = 15

        def figures(self, ds):
            figure, axes = new_figure(4, 3)
            axes[0, 0].plot(ds["t"], ds["brightness"])
            yield Drawing(
                "own", figure, pd.DataFrame({"t": ds["t"].values}), "Brightness along t.", "Mean over images."
            )

        def sentence(self, ds):
            return f"brightness {float(ds['overall']):.3g}"

        def numbers(self, ds):
            return {"overall": float(ds["overall"])}

        def section(self, ds):
            return Section("How bright?", ["In one word.", *self.figures(ds), Facts([("overall", "bright")])])

        def view(self, ds):
            times = tuple(ds["t"].values.tolist())
            control = Control("t", "time", times, times[0])
            return View((control,), lambda t: (next(self.figures(ds)).figure, f"at {t:.2f}"))

    cl.KINDS.register("brightness", Brightness)
    return Brightness


def said(ds, name):
    value, low, high = (float(ds[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.3g} [{low:.3g}, {high:.3g}]".replace("-", "−")


def test_a_report_shows_a_kind_that_nobody_registered(probed, results, tmp_path):
    page = cl.report([probed, results.recipe()], tmp_path / "page.html").read_text("utf-8")
    assert page.index("Recipe: ") < page.index("Brightness: ")  # after those that are known
    assert page.count("<svg") == 3  # the recipe's, along t, single numbers
    text = (tmp_path / "page.md").read_text("utf-8")
    assert f"| overall | {said(probed, 'overall')} |" in text
    assert f"| brightness, t {float(probed['t'][1]):.3g} | {said(probed.isel(t=1), 'brightness')} |" in text
    entry = json.loads((tmp_path / "page.json").read_text("utf-8"))["results"][1]
    assert (entry["kind"], entry["model"]) == ("brightness", probed.attrs["model"])
    assert entry["numbers"]["overall"]["low"] == float(probed["overall_low"])
    assert [row["high"] for row in entry["rows"]["brightness"]] == probed["brightness_high"].values.tolist()
    assert entry["provenance"]["noise_seed"] == 0


def test_a_notebook_shows_it(probed):
    card = cl.show(probed)
    assert card.sentence.startswith("brightness: brightness along t (3), ")
    assert said(probed, "overall") in card._repr_html_()
    line = card.figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata()[::-1], probed["brightness"])  # noise first
    menu, picture = cl.explore(probed).children
    before, menu.value = picture.value, "numbers"
    assert picture.value != before
    assert "overall" in picture.value


def test_folder_and_command_line_show_it(probed, tmp_path, capsys):
    write_folder({"mine": probed}, tmp_path / "out", "Mine")
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"mine-brightness.png", "mine-brightness.csv", "mine-numbers.pdf"} <= names
    Store(tmp_path / "runs").result("brightness", "mine", {"seed": 0}, lambda: probed)
    assert main(["status", "--store", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.split()[:3] == ["done", "brightness", "mine"]
    assert main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "page.html")]) == 0
    assert "Brightness: " in (tmp_path / "page.html").read_text("utf-8")


def test_a_part_is_made_whole_or_refused_as_the_probe_said(probed, tmp_path):
    save_result(probed, tmp_path / "r.nc")
    one = load_result(tmp_path / "r.nc").isel(t=1)
    assert f"{float(one['brightness']):.3g}".replace("-", "−") in cl.show(one).sentence
    fixed = with_provenance(probed, "brightness", choices=())
    with pytest.raises(cl.UserError, match="taken over all 3 entries of 't' and it holds 1"):
        cl.show(fixed.isel(t=1))


def test_a_registered_kind_speaks_for_it(probed, brightness, tmp_path, results):
    page = cl.report([results.recipe(), probed], tmp_path / "page.html").read_text("utf-8")
    assert page.index("How bright?") < page.index("Recipe: ")  # its place is 15
    for words in ("In one word.", "Mean over images.", 'aria-label="Brightness along t."'):
        assert words in page
    entry = json.loads((tmp_path / "page.json").read_text("utf-8"))["results"][0]
    assert entry["overall"] == float(probed["overall"])
    assert cl.show(probed).sentence == f"brightness {float(probed['overall']):.3g}"
    slider, picture = cl.explore(probed, t=0.5).children
    assert slider.description == "time"
    assert "at 0.50" in picture.value
    assert [name for name, _, _ in figures_of(probed)] == ["own"]
    with pytest.raises(cl.UserError, match="exists already"):
        cl.KINDS.register("brightness", brightness)


def test_another_package_brings_its_kind(probed, monkeypatch, brightness):
    found = {"theirs": "tests_of_another_package:Theirs", "race": "consistency_lab.paper.kinds:Race"}

    def entry_points(*, group, name):
        assert group == "consistency_lab.kinds"
        return [EntryPoint(name, found[name], group)] if name in found else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(registry, "_installed", cache(registry._installed.__wrapped__))
    assert type(kind_of(xr.Dataset({"loss": 0.1}, attrs={"kind": "race"}))).__name__ == "Race"
    with pytest.warns(
        UserWarning, match="tests_of_another_package:Theirs, named for results of kind 'theirs', cannot be used"
    ):
        assert type(kind_of(xr.Dataset({"loss": 0.1}, attrs={"kind": "theirs"}))) is cl.Kind
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind_of(probed)


def test_the_package_names_its_race_for_others_to_find():
    settings = tomllib.loads((Path(registry.__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    named = settings["project"]["entry-points"][registry.GROUP]
    assert named == {"race": f"{Race.__module__}:{Race.__name__}"}


VALUES = {
    "along the longest": (("a", "b"), np.arange(12.0).reshape(3, 4), {"a": [1, 2, 3], "b": [1.0, 2, 3, 4]}, "b"),
    "along t": (("step", "t"), np.ones((5, 2)), {"step": range(5), "t": [0.1, 0.9]}, "t"),
    "many lines": (("sample", "step"), np.random.default_rng(0).normal(size=(40, 3)), {"step": range(3)}, "step"),
    "a table of colours": (("to", "of"), np.eye(3), {"to": list("abc"), "of": list("abc")}, None),
    "a cell is missing": (
        ("to", "of"),
        np.array([[1.0, np.nan], [0.0, 0.5]]),
        {"to": list("ab"), "of": list("cd")},
        None,
    ),
    "rows": (("who",), np.array([1.0, np.nan]), {"who": ["a", "b"]}, None),
    "a distribution": (("sample",), np.arange(90.0), {}, None),
    "nothing is known": (("t",), np.full(3, np.nan), {"t": [0.1, 0.2, 0.3]}, "t"),
    "one entry": (("t",), np.ones(1), {"t": [0.1]}, None),
    "decades": (("step",), np.array([1.0, 1e4]), {"step": [1, 2]}, "step"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_variable_of_any_form_is_drawn(case):
    dims, values, coords, along = VALUES[case]
    ds = xr.Dataset({"x": (dims, values)}, coords, {"kind": "any"})
    assert generic.main_dimension(ds, "x") == along
    ((name, figure, frame),) = figures_of(ds)
    assert (name, len(frame)) == ("x", values.size)
    figure.canvas.draw()
    ax = figure.axes[0]
    if along and np.isfinite(values).any():
        drawn = {tuple(line.get_ydata()) for line in ax.lines}
        rows = ds["x"].sortby(along, ascending=along != "t").transpose(..., along).values.reshape(-1, ds.sizes[along])
        expected = {tuple(row) for row in rows}
        assert expected <= drawn
        assert ax.get_yscale() == ("log" if case == "decades" else "linear")
    texts = [text.get_text() for text in ax.texts]
    assert texts == {
        "nothing is known": ["x is undefined everywhere"],
        "a table of colours": ["1", "0", "0", "0", "1", "0", "0", "0", "1"],
        "a cell is missing": ["1", "0", "0.5"],
    }.get(case, texts)
    if case.startswith("a "):
        cells = ax.collections[0].get_facecolors() if ax.texts else []
        colours = [cell for cell, value in zip(cells, values.ravel(), strict=False) if np.isfinite(value)]
        assert all(contrast(text.get_color(), cell) > 4.5 for text, cell in zip(ax.texts, colours, strict=True))


def test_images_are_named_and_not_drawn():
    ds = xr.Dataset(
        {"images": (("sample", "row", "column"), np.zeros((40, 30, 30))), "score": ((), 0.5)}, attrs={"kind": "any"}
    )
    assert [name for name, _, _ in figures_of(ds)] == ["numbers"]
    *_, table = kind_of(ds).section(ds).parts
    assert table.rows == [
        ("score", "0.5 (no interval)"),
        ("images", "along sample (40), row (30), column (30), 0 to 0"),
    ]


@pytest.mark.parametrize("look", [cl.show, cl.explore, lambda ds: cl.report([ds], "never.html")])
def test_what_holds_no_numbers_is_refused(look):
    with pytest.raises(cl.UserError, match=r"unknown kind of result 'recipee'\. Did you mean 'recipe'"):
        look(xr.Dataset({"text": ("a", ["b"])}, attrs={"kind": "recipee"}))
