import numpy as np
import pytest
import torch
import xarray as xr
from mpl_toolkits.mplot3d import Axes3D
from torch import nn

from consistency_lab.errors import UserError
from consistency_lab.kinds.base import Facts
from consistency_lab.kinds.landscapes import Landscape
from consistency_lab.kinds.registry import figures_of
from consistency_lab.plots import curvature, landscapes, surface
from consistency_lab.probes.curvature import curvature_spectrum
from consistency_lab.probes.frozen import FrozenBatch
from consistency_lab.probes.landscape import line_landscape
from consistency_lab.probes.plane import plane_landscape
from consistency_lab.probes.subject import Split, Subject
from consistency_lab.reports.html import report
from consistency_lab.reports.svg import inline_svg
from consistency_lab.store.results import load_result, save_result


def subject(seed=0, levels=3):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    x, y = torch.randn(8 * levels, 4), torch.randn(8 * levels, 2)
    times = torch.linspace(0.1, 0.9, levels) if levels > 1 else None
    split = Split(lambda m, x, y: m(x) - y, lambda out, x, y: out.pow(2).mean(1))
    loss = lambda m, x, y: (m(x) - y).pow(2).mean(1)  # noqa: E731
    return Subject(f"m{seed}", module, loss, FrozenBatch([x, y]), "squared error", times, split)


@pytest.fixture(scope="module")
def spectrum():
    return curvature_spectrum(subject(), eigenvalues=2, probes=3, steps=10, products=12)


def test_gradients_pass_through_the_model(results):
    ds = line_landscape(subject(), points=5)
    cosine, change = landscapes.gradients(ds).axes
    assert 1.0 in cosine.lines[0].get_ydata()
    assert 0.0 in change.lines[0].get_ydata()
    assert (np.diff(cosine.lines[0].get_xdata()) > 0).all()
    with pytest.raises(UserError, match="gradient_cosine"):
        landscapes.gradients(results.landscape().drop_vars("gradient_cosine"))


def test_a_plane_is_drawn_over_the_loss_at_the_model(tmp_path):
    ds = plane_landscape(subject(), points=5)
    table = landscapes.plane_frame(ds)
    assert (table[(table["x"] == 0) & (table["y"] == 0)]["relative"] == 1).all()
    assert set(table["name"]) == {"mean", "t = 0.1", "t = 0.5", "t = 0.9"}
    figure = landscapes.plane(ds, most=2)
    assert [ax.get_title(loc="left") for ax in figure.axes[:3]] == ["all timesteps", "t = 0.1", "t = 0.9"]
    figure.savefig(tmp_path / "plane.png")


def test_a_plane_is_raised_to_a_surface_of_the_same_values(monkeypatch):
    drawn = []
    draw = Axes3D.plot_surface
    monkeypatch.setattr(Axes3D, "plot_surface", lambda ax, *xyz, **look: drawn.extend(xyz) or draw(ax, *xyz, **look))
    ds = plane_landscape(subject(), through=[subject(1), subject(2)], points=7)
    relative = ds["loss"].transpose("y", "x").values / float(ds["loss"].sel(x=0.0, y=0.0))
    heights = np.log10(relative) if relative.max() > 10 * relative.min() else relative
    ax = surface.surface(ds).axes[0]
    x, y, z = drawn
    np.testing.assert_array_equal(x[0], ds["x"])
    np.testing.assert_array_equal(y[:, 0], ds["y"])
    np.testing.assert_allclose(z, heights)
    dots = [tuple(float(end[0]) for end in line.get_data_3d()) for line in ax.lines if line.get_marker() == "o"]
    assert [dot[:2] for dot in dots] == list(zip(ds["corner_x"].values, ds["corner_y"].values, strict=True))
    assert dots[0][2] == pytest.approx(0.0 if heights is not relative else 1.0)  # the loss at the model over itself


def test_a_surface_of_many_points_stays_small():
    plane = plane_landscape(subject(), points=5)
    fine = np.linspace(-1, 1, 91)
    bowl = xr.DataArray(1 + fine[:, None] ** 2 + fine[None] ** 2, {"y": fine, "x": fine}, ("y", "x"))
    ds = plane.drop_vars([name for name in plane.variables if not name.startswith("corner")])
    ds = ds.assign(loss=bowl.assign_coords(x=fine.round(9), y=fine.round(9))).assign_attrs({**plane.attrs, "shape": ""})
    assert len(inline_svg(surface.surface(ds), "surface", "a bowl")) < 900_000


def test_a_plane_that_is_not_positive_says_so():
    ds = plane_landscape(subject(), points=5)
    ds["loss"] = ds["loss"] - ds["loss"].min()
    assert "not positive" in surface.surface(ds).axes[0].texts[0].get_text()


def test_the_models_of_a_plane_are_marked():
    three = plane_landscape(subject(), through=[subject(1), subject(2)], points=7)
    ax = landscapes.plane(three).axes[0]
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines]
    assert marks == list(zip(three["corner_x"].values, three["corner_y"].values, strict=True))
    assert [text.get_text() for text in ax.texts] == ["m0", "m1", "m2"]


def test_a_flat_plane_still_has_contours(tmp_path):
    flat = subject(levels=1)
    figure = landscapes.plane(plane_landscape(flat, points=5, span=1e-4))
    figure.savefig(tmp_path / "flat.png")
    assert len(figure.axes) == 2  # one plane and its colours
    assert len(figure.axes[1].get_yticks()) >= 4
    constant = landscapes.plane(plane_landscape(flat, points=5).assign(loss=lambda ds: 0 * ds["loss"] + 1))
    assert constant.axes[0].texts[0].get_text() == "the loss does not change"


def test_models_stand_on_one_axis():
    lines = [line_landscape(subject(seed, levels), points=5) for seed, levels in ((0, 3), (1, 1))]
    table = landscapes.smoothness_frame(lines)
    assert set(table["quantity"]) == set(landscapes.NUMBERS)
    assert (table["low"] <= table["value"]).all()
    # What depends on how far one looks stands at several reaches, the others once.
    counts = table.groupby("quantity")["reach"].agg(lambda reach: tuple(reach.dropna().round(3).unique()))
    assert counts["roughness"] == (0.1, 0.3, 1.0)
    assert set(counts["predictiveness"]) == {0.1, 0.25, 0.5}
    assert counts["relative_curvature"] == ()
    figure = landscapes.smoothness(lines)
    assert all(1.0 in line.get_ydata() for line in figure.axes[0].lines)
    with pytest.raises(UserError, match="at least one"):
        landscapes.smoothness([])


def test_an_older_result_is_shown_with_the_span_it_had_and_marked():
    line = line_landscape(subject(0, 3), points=5, span=0.5)
    old = line.drop_vars([name for name in line.variables if name.startswith(("roughness_on", "predictiveness_at"))])
    old = old.drop_vars(["span", "distance", "roughness_span", "predictiveness_distance"])
    assert landscapes.reach_of(old, "roughness") == landscapes.reach_of(line, "roughness") == 0.5
    assert landscapes.reach_of(old, "predictiveness") == landscapes.reach_of(line, "predictiveness") == 0.05
    assert not landscapes.reach_frame(old)["said"].any()
    facts = [next(part for part in Landscape().section(ds).parts if isinstance(part, Facts)) for ds in (line, old)]
    titles = [[title for title, _ in each.rows] for each in facts]
    assert [t for t in titles[0] if "rough" in t] == ["roughness on ±0.05", "roughness on ±0.15", "roughness on ±0.5"]
    assert [t for t in titles[1] if "rough" in t] == ["roughness on ±0.5 (an older result: on this span alone)"]


def test_a_spectrum_shows_its_ends_and_what_did_not_converge(spectrum):
    figure = curvature.spectrum(spectrum)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Hessian, all samples", "Gauss-Newton, all samples"]
    spectrum = spectrum.copy(deep=True)
    spectrum["converged"].loc[{"operator": "hessian", "part": "all", "end": "top", "rank": 1}] = 0.0
    largest = curvature.by_level(spectrum).axes[0]
    hollow = [line for line in largest.lines if line.get_markerfacecolor() == "none"]
    assert sum(len(line.get_xdata()) for line in hollow) == 1
    # Noise at the left.
    assert [text.get_text() for text in largest.get_xticklabels()] == ["all", "0.9", "0.5", "0.1"]


def test_results_survive_the_disk_and_make_a_page(spectrum, tmp_path):
    given = [line_landscape(subject(), points=5), plane_landscape(subject(), points=5), spectrum]
    for i, ds in enumerate(given):
        save_result(ds, tmp_path / f"{i}.nc")
        assert load_result(tmp_path / f"{i}.nc").identical(ds)
    assert [name for ds in given for name, *_ in figures_of(ds)] == [
        "line",
        "gradients",
        "plane",
        "surface",
        "density",
        "numbers",
    ]
    page = report(given, tmp_path / "page.html").read_text()
    for text in ("Loss landscape", "Curvature: m0", "95 % intervals over its images", "gradient predictiveness"):
        assert text in page
    markdown = (tmp_path / "page.md").read_text()
    assert "- hessian, top 1: " in markdown
    assert "- barrier: undefined: a barrier needs two models" in markdown
    assert '"roughness_low"' in (tmp_path / "page.json").read_text()
