"""Objects show themselves in a notebook, and `%load_ext consistency_lab` does it for results."""

import base64
import io
import re

import numpy as np
import pytest
import torch
import xarray as xr
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

import consistency_lab as cl
from consistency_lab.contrast.gan import train_gan
from consistency_lab.data.thumbnails import strip
from consistency_lab.markup import fact_rows, table
from consistency_lab.store.results import with_provenance


@pytest.fixture
def shell():
    made = InteractiveShell()
    yield made
    made.run_line_magic("unload_ext", "consistency_lab")


def html(shell, thing):
    return shell.display_formatter.format(thing)[0].get("text/html", "")


def test_results_show_themselves_where_it_was_asked_for(shell, results):
    ds, other = results.comparison(models=2), xr.Dataset({"a": 1})
    plain = html(shell, ds)
    assert "consistency score" not in plain
    shell.run_line_magic("load_ext", "consistency_lab")
    assert "consistency score (mse)" in html(shell, ds)
    assert html(shell, other).startswith("<div><svg")
    assert html(shell, other.assign_attrs(kind="somebody else's")).startswith("<div><svg")
    assert "mine: a along" in html(shell, with_provenance(xr.Dataset({"a": ("b", [1, 2])}), "mine"))
    assert "consistency score" not in html(shell, ds.drop_vars("null"))  # a part without a card is xarray's
    shell.run_line_magic("unload_ext", "consistency_lab")
    assert "consistency score" not in html(shell, ds)


def test_text_is_escaped_and_facts_are_flat():
    said = table("a <b>", [("x", "<script>")], ("k", "v"))
    assert "<script>" not in said
    assert "&lt;script&gt;" in said
    rows = dict(
        fact_rows({"data": {"name": "digits", "classes": 10}, "seeds": {"init": 0, "order": 1}, "n": 1797, "no": None})
    )
    assert rows == {"data": "digits", "seeds": "init 0, order 1", "n": "1,797"}


def test_models_recipes_sets_and_stores_show_themselves(tmp_path):
    images = cl.load_images("digits").take(range(40), "a few digits")
    model = cl.train(
        images, network="mlp(width=8, depth=1)", steps=1, batch=8, device="cpu", progress=False, store=tmp_path
    )
    shown = model._repr_html_()
    assert "mlp-s0" in shown
    assert "a few digits" in shown
    assert f"{model.facts['parameters']:,}" in shown
    gan = train_gan(images, steps=1, batch=8, device="cpu", progress=False)
    assert f"GAN {gan.name}" in gan._repr_html_()
    recipe = cl.Recipe.paper()
    assert "mdlrc" in recipe._repr_html_()
    assert recipe.reasons[1] in recipe._repr_html_()
    listed = cl.Store(tmp_path)._repr_html_()
    assert "1 runs" in listed
    assert re.search("done.*mlp-s0", listed)
    assert "the first 12 images of a few digits" in images._repr_html_()
    four = cl.ImageSet("four channels", torch.zeros(2, 4, 3, 3))
    assert "<img" not in four._repr_html_()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_shows_the_pixels(channels):
    images = torch.rand(3, channels, 8, 8) * 2 - 1
    read = np.asarray(Image.open(io.BytesIO(strip(images))))
    assert read.shape[:2] == (50, 150)
    second = read[1:49:6, 51:99:6].reshape(8, 8, channels)
    assert np.array_equal(second, ((images[1] + 1) * 127.5).round().numpy().transpose(1, 2, 0))


def test_an_image_set_draws_its_own_first_images():
    images = cl.load_images("digits").take(range(12), "twelve")
    data = re.search('base64,([^"]+)', images._repr_html_())[1]
    assert base64.b64decode(data) == strip(images.all())
