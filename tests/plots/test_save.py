import pandas as pd
import pytest

from consistency_lab.errors import StoreError
from consistency_lab.plots import frames, probes, save


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
