import base64

import numpy as np
import pytest

from consistency_lab.reports.gallery import extremes, gallery


def image(shown, row, time, column, channels):
    """The pixels as the page's script finds them."""
    data = np.frombuffer(base64.b64decode(shown.payload["bytes"]), np.uint8)
    size = shown.height * shown.width * channels
    entry = shown.payload["rows"][row]
    start = entry["offset"] + (min(time, entry["times"] - 1) * shown.payload["columns"] + column) * size
    return data[start : start + size].reshape(shown.height, shown.width, channels).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bytes_hold_every_image_where_the_page_looks(results, channels):
    ds = results.comparison(3, samples=12, channels=channels)
    shown = gallery(ds)
    assert [row.group for row in shown.rows] == ["model"] * 3 + ["reference"] * 3 + ["nearest"] * 3
    np.testing.assert_array_equal(image(shown, 1, 4, 5, channels), ds["images"].isel(model=1, t=4, shown=5))
    np.testing.assert_array_equal(
        image(shown, 5, 10, 7, channels), ds["reference_images"].isel(reference=2, t=10, shown=7)
    )
    np.testing.assert_array_equal(image(shown, 8, 3, 2, channels), ds["nearest_images"].isel(model=2, shown=2))


def test_times_are_left_out_evenly_and_both_ends_stay(results):
    ds = results.comparison(2, samples=12, times=11, nearest=False, references=False)
    shown = gallery(ds, budget=2 * 8 * 64 * 6)
    assert len(shown.payload["times"]) == 6
    assert shown.payload["times"][0].startswith("t = 1.00")
    assert shown.payload["times"][-1] == "t = 0.00, log-SNR = ∞, the final image"
    assert len(base64.b64decode(shown.payload["bytes"])) == 2 * 8 * 64 * 6
    np.testing.assert_array_equal(image(shown, 1, 5, 0, 1), ds["images"].isel(model=1, t=-1, shown=0))


def test_no_images_no_gallery(results):
    assert gallery(results.comparison(2, samples=12).drop_vars("images")) is None


def test_extremes_are_ranked_among_the_shown_and_in_the_metrics_direction(results):
    ds = results.comparison(3, samples=12).assign_coords(shown=[11, 3, 5, 7, 0, 1, 2, 4])
    mean = ds["distance"].isel(t=-1).mean("pair")
    most, least = extremes(ds, "mse", count=2)
    values = mean.sel(metric="mse").values[[11, 3, 5, 7, 0, 1, 2, 4]]
    assert [column for column, _ in most] == list(np.argsort(values)[:2])
    assert [column for column, _ in least] == list(np.argsort(values)[::-1][:2])
    assert most[0][1] == pytest.approx(values.min())
    alike, _ = extremes(ds, "psnr", count=1)
    assert alike[0][1] == pytest.approx(mean.sel(metric="psnr").values[[11, 3, 5, 7, 0, 1, 2, 4]].max())
