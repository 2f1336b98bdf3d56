import io

import matplotlib
import pandas as pd
import pytest

from consistency_lab.errors import StoreError
from consistency_lab.plots import frames, probes, save, similarity
from consistency_lab.plots.theme import STYLE


def test_three_files_and_the_data_come_back(results, tmp_path):
    ds = results.landscape()
    frame = frames.landscape(ds)
    png, pdf, csv = save.save_figure(probes.landscape(ds), tmp_path / "loss at t=0.3", frame)
    assert [path.name for path in (png, pdf, csv)] == [f"loss at t=0.3{suffix}" for suffix in (".png", ".pdf", ".csv")]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    back = pd.read_csv(csv)
    pd.testing.assert_frame_equal(back, frame, rtol=1e-5, check_dtype=False)


def test_the_same_figure_gives_the_same_pdf(results, tmp_path):
    ds = results.recipe()
    from consistency_lab.plots.training import recipe_density

    first, second = (save.save_figure(recipe_density(ds), tmp_path / name, frames.recipe(ds))[1] for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_named_index_is_kept(results):
    text = save.to_csv(frames.matrix(results.comparison(3, samples=12), "mse"))
    assert text.splitlines()[0].startswith("model,unet seed 0,")


def test_a_folder_that_is_a_file_is_one_sentence(results, tmp_path):
    (tmp_path / "figures").write_text("")
    ds = results.recipe()
    from consistency_lab.plots.training import recipe_density

    with pytest.raises(StoreError):
        save.save_figure(recipe_density(ds), tmp_path / "figures" / "density", frames.recipe(ds))


@pytest.mark.parametrize(("form", "options"), [("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 80})])
def test_a_figure_drawn_once_has_the_bytes_of_one_that_matplotlib_draws_twice(results, form, options):
    ds = results.comparison(2, samples=6, shown=2, times=3, nearest=False)
    with matplotlib.rc_context(STYLE):
        once, twice = (similarity.curves(ds, "mse") for _ in range(2))
        for _ in range(2):  # drawn again it is laid out again, which moves it a little
            written = io.BytesIO()
            twice.savefig(written, format=form, **options)
            assert save.drawn(once, form, **options) == written.getvalue()
