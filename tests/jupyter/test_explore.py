"""`explore` and `show` on results of every kind: what they draw, what they say, what they refuse."""

import builtins
import re
from html import escape
from importlib.metadata import version

import numpy as np
import pytest
import xarray as xr

import consistency_lab as cl
from consistency_lab.intervals import interval_of
from consistency_lab.jupyter.still import Still
from consistency_lab.kinds.registry import kind_of
from consistency_lab.kinds.sample_view import sample_sentence, sample_view
from consistency_lab.kinds.views import ALL
from consistency_lab.store.shapes import shape_of


@pytest.fixture(scope="module")
def subject():
    """A linear denoiser on a few digits: every probe of it takes no time."""
    images = cl.load_images("digits").take(range(40), "a few digits")
    return cl.train(images, network="mlp(width=8, depth=1)", steps=1, batch=8, device="cpu", progress=False), images


@pytest.fixture
def no_widgets(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "ipywidgets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def test_moving_a_control_changes_picture_and_sentence(results):
    box = cl.explore(results.comparison(models=3))
    t, sample, metric, picture = box.children
    assert (t.description, sample.description, metric.description) == ("t", "sample", "metric")
    assert (t.value, metric.value) == (0.0, "mse")
    seen = [picture.value]
    t.value = t.options[3][1]
    seen.append(picture.value)
    assert f"t = {t.value:.2f}" in picture.value
    sample.value = 2
    seen.append(picture.value)
    metric.value = "psnr"
    seen.append(picture.value)
    assert "shown, never scored" in picture.value
    assert len(set(seen)) == 4
    assert all(re.search('<img alt="sample [^"]+at t', html) for html in seen)


def test_the_start_is_where_it_is_asked_for(results):
    ds = results.comparison(models=2)
    t, sample, metric, _ = cl.explore(ds, t=0.52, sample=3, metric="cosine").children
    assert t.value == min(ds["t"].values, key=lambda each: abs(each - 0.52))
    assert (sample.value, metric.value) == (3, "cosine")


def test_without_ipywidgets_there_is_a_still_figure(results, no_widgets):
    still = cl.explore(results.comparison(models=2), t=1.0, metric="cosine")
    assert isinstance(still, Still)
    assert "t = 1.00" in still.sentence
    assert "pip install ipywidgets" in still.hint
    assert 'src="data:image/png;base64,' in still._repr_html_()
    assert repr(still) == still.sentence


def test_a_moment_draws_the_sample_and_its_distance(results):
    ds = results.comparison(models=3)
    figure = sample_view(ds, float(ds["t"][4]), 5, "mse")
    *pictures, curves = figure.axes
    names = [*ds["model"].values, "Gaussian denoiser", "optimal denoiser", "data mean"]
    assert [ax.get_title(loc="center") for ax in pictures] == names
    shown = ds["images"].isel(t=4, shown=5, channel=0).values
    for ax, image in zip(pictures, shown, strict=False):
        assert np.array_equal(ax.images[0].get_array(), image)
    own = ds["distance"].sel(metric="mse").isel(sample=5).mean("pair").values
    assert any(np.allclose(line.get_ydata(), own) for line in curves.lines if len(line.get_xdata()) == len(own))
    assert len(curves.collections) == 2  # the bands of both means


def test_images_of_chosen_samples_are_matched_with_their_distances(results):
    ds = results.comparison(models=2).assign_coords(shown=np.arange(8) + 20)
    sentence = sample_sentence(ds, 0.0, 23, "mse")
    assert f"{float(ds['distance'].sel(metric='mse').isel(t=-1, sample=23).mean()):.3g}" in sentence
    left_out = ds.isel(sample=np.arange(10, 48)).assign_coords(sample=np.arange(10, 48), shown=np.arange(8))
    left_out.attrs["shape"] = shape_of(left_out)  # as a comparison without its first ten samples says
    assert [value for _, value in cl.explore(left_out).children[1].options] == list(range(10, 18))


def test_a_comparison_without_images_is_curves_alone(results):
    ds = results.comparison(models=2, samples=5).drop_vars(["images", "reference_images", "nearest_images"])
    assert len(sample_view(ds, 0.0, 4, "mse").axes) == 1


def test_a_comparison_of_final_images_alone_has_points_with_intervals(subject):
    class Other:
        name, noise_shape, facts = "other", (1, 8, 8), {}

        def generate(self, noise, indices):
            return noise.initial(indices, self.noise_shape).tanh()

    found = cl.compare([subject[0], Other()], count=4, sampler=cl.Sampler(steps=2), metrics=("mse",))
    assert found.sizes["t"] == 1
    *pictures, points = sample_view(found, 0.0, 1, "mse").axes
    assert len(pictures) == 2
    assert [label.get_text() for label in points.get_yticklabels()] == [
        "sample 1",
        "same noise, mean",
        "other noise (null), mean",
    ]
    assert float(points.lines[0].get_xdata()[0]) == float(found["distance"].isel(t=-1, sample=1).mean())
    assert cl.explore(found).children[0].options[0][1] == 0.0


def test_a_sentence_has_the_score_and_interval_of_the_result(results):
    ds = results.comparison(models=4)
    t = float(ds["t"][6])
    value, low, high = interval_of(ds.sel(metric="mse").isel(t=6), "family_score")
    assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in sample_sentence(ds, t, 0, "mse")


def test_difficulty_with_and_without_definitions(results, subject):
    bare = results.difficulty().drop_dims("definition")
    measure, _, picture = cl.explore(bare).children
    assert [value for _, value in measure.options] == ["eps error", "x0 error", "v error"]
    _, low, high = interval_of(bare.sel(units="eps").isel(t=8), "error_mean")
    assert f"[{low:.3g}, {high:.3g}]" in picture.value
    found = cl.probe_difficulty(*subject, count=4, bins=3, detail=2)
    assert "KL rate" in [value for _, value in cl.explore(found).children[0].options]


def test_a_landscape_at_one_level_has_that_levels_loss_and_interval(subject):
    found = cl.probe_landscape(*subject, count=4, bins=3, points=5)
    view = kind_of(found).view(found)
    level = view.controls[0].options[2]
    figure, sentence = view.draw(level=level)
    line = next(x for x in figure.axes[0].lines if len(x.get_xdata()) == found.sizes["position"])
    assert np.array_equal(line.get_ydata(), found["loss_by_t"].sel(t=level).values)
    assert f"{float(found['curvature_by_t_low'].sel(t=level)):.3g}".replace("-", "−") in sentence
    assert len(view.draw(level=ALL)[0].axes) == 3  # all levels, each, and the bar of their colours


@pytest.mark.parametrize("kind", ["plane", "curvature", "structure", "connectivity"])
def test_other_probes_can_be_walked_through(subject, kind):
    model, images = subject
    if kind == "plane":
        found = cl.probe_plane(model, images, count=4, bins=2, points=5)
    elif kind == "curvature":
        found = cl.probe_curvature(model, images, count=4, bins=2, eigenvalues=1, probes=2, steps=4, products=6)
    elif kind == "structure":
        found = cl.probe_structure([model], images, count=4, levels=4, sampler=cl.Sampler(steps=4))
    else:
        other = cl.train(
            images, network="mlp(width=8, depth=1)", seed=1, steps=1, batch=8, device="cpu", progress=False
        )
        tiny = {"count": 4, "bins": 2, "points": 3, "steps": 2, "samples": 4, "sampler": cl.Sampler(steps=3)}
        found = cl.probe_connectivity(model, other, images, images, **tiny)
    knob, picture = cl.explore(found).children
    before = picture.value
    knob.value = next(value for _, value in knob.options if value != knob.value)
    assert picture.value != before
    card = cl.show(found)
    assert escape(card.sentence) in card._repr_html_()


def test_results_without_an_axis_offer_their_figures(results):
    for ds in (results.training(), results.recipe()):
        menu, picture = cl.explore(ds).children
        assert len(menu.options) == 1
        assert "<img" in picture.value


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"tt": 0.5}, "unknown control of this result 'tt'. Did you mean 't'"),
        ({"t": 1.5}, "t=1.5 is outside this result's 0 to 1"),
        ({"metric": "msee"}, "unknown value of metric 'msee'. Did you mean 'mse'"),
        ({"sample": "first"}, "unknown value of sample 'first'"),
    ],
)
def test_a_bad_start_is_one_sentence(results, start, said):
    with pytest.raises(cl.UserError, match=re.escape(said)):
        cl.explore(results.comparison(models=2), **start)


@pytest.mark.parametrize("look", [cl.explore, cl.show])
def test_what_is_no_result_is_refused(look):
    with pytest.raises(cl.UserError, match="not a list"):
        look([1])
    with pytest.raises(cl.UserError, match="unknown kind of result ''"):
        look(xr.Dataset({"a": 1}))


def test_a_card_says_headline_numbers_provenance_and_data(results):
    card = cl.show(results.comparison(models=4))
    html = card._repr_html_()
    assert card.sentence.startswith("consistency score (mse) 0.")
    assert card.sentence in html
    assert f"torch {version('torch')}" in html
    assert "xr-wrap" in html  # xarray's own, for what the card leaves out
    line = cl.show(results.landscape().assign(curvature=0.8, curvature_low=0.7, curvature_high=0.9))
    assert "0.8 [0.7, 0.9]" in line._repr_html_()


def test_the_figure_of_a_card_can_be_for_a_paper(results):
    card = cl.show(results.training(2), style="paper", width="column", palette=["navy", "olive"])
    assert card.figure.get_size_inches()[0] == 3.25
    assert "#000080" in {line.get_color() for line in card.figure.axes[0].lines}
    with pytest.raises(cl.UserError, match="unknown palette"):
        cl.show(results.comparison(models=4), palette="Drak2")


def test_a_card_shows_what_is_held_against_a_score(results):
    ds = results.comparison(models=2).assign_attrs(warnings='["many pixels <leave> the range."]')
    assert "Warning: many pixels &lt;leave&gt; the range." in cl.show(ds)._repr_html_()
