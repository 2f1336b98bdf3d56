import base64

import numpy as np
import pytest

from consistency_lab.kinds.gallery import extremes, gallery


def image(shown, row, time, column, channels):
    """The pixels as the page's script finds them."""
    data = np.frombuffer(base64.b64decode(shown.payload["bytes"]), np.uint8)
    size = shown.height * shown.width * channels
    entry = shown.payload["rows"][row]
    start = entry["offset"] + (min(time, entry["times"] - 1) * entry["columns"] + column) * size
    return data[start : start + size].reshape(shown.height, shown.width, channels).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bytes_hold_every_image_where_the_page_looks(results, channels):
    ds = results.comparison(3, samples=12, channels=channels)
    shown = gallery(ds)
    assert [row.group for row in shown.rows] == ["model"] * 3 + ["reference"] * 3 + ["nearest"] * 3 + ["extreme"] * 3
    np.testing.assert_array_equal(image(shown, 1, 4, 5, channels), ds["images"].isel(model=1, t=4, shown=5))
    np.testing.assert_array_equal(
        image(shown, 5, 10, 7, channels), ds["reference_images"].isel(reference=2, t=10, shown=7)
    )
    np.testing.assert_array_equal(image(shown, 8, 3, 2, channels), ds["nearest_images"].isel(model=2, shown=2))
    np.testing.assert_array_equal(image(shown, 10, 0, 7, channels), ds["extreme_images"].isel(model=1, extreme=7))


def test_times_are_left_out_evenly_and_both_ends_stay(results):
    ds = results.comparison(2, samples=12, times=11, nearest=False, references=False)
    shown = gallery(ds, budget=2 * 8 * 64 * 6)
    assert len(shown.payload["times"]) == 6
    assert shown.payload["times"][0].startswith("t = 1.00")
    assert shown.payload["times"][-1] == "t = 0.00, log-SNR = ∞, the final image"
    assert len(base64.b64decode(shown.payload["bytes"])) == 2 * 64 * (8 * 6 + ds.sizes["extreme"])
    np.testing.assert_array_equal(image(shown, 1, 5, 0, 1), ds["images"].isel(model=1, t=-1, shown=0))


def test_no_images_no_gallery(results):
    assert gallery(results.comparison(2, samples=12).drop_vars("images")) is None


@pytest.mark.parametrize("metric", ["mse", "psnr"])
def test_extremes_are_those_of_all_samples_in_the_metrics_direction(results, metric):
    ds = results.comparison(3, samples=48)
    mean = ds["distance"].isel(t=-1).sel(metric=metric).mean("pair").values
    order = np.argsort(-mean if metric == "psnr" else mean)
    found = extremes(ds, metric, count=2)
    if metric == "mse":  # the builder carries the images of the ends in MSE
        assert [number for _, number, _ in found["most"]] == order[:2].tolist()
        assert [number for _, number, _ in found["least"]] == order[::-1][:2].tolist()
    for column, number, value in found["most"] + found["least"]:
        assert ds["extreme"].values[column] == number
        assert value == pytest.approx(mean[number])
    signs = [value * (-1 if metric == "psnr" else 1) for _, _, value in found["most"] + found["least"][::-1]]
    assert signs == sorted(signs)


def test_without_their_images_extremes_are_those_of_the_shown(results):
    ds = results.comparison(3, samples=12).drop_vars(["extreme_images", "extreme"])
    ds = ds.assign_coords(shown=[11, 3, 5, 7, 0, 1, 2, 4])
    values = ds["distance"].isel(t=-1).sel(metric="mse").mean("pair").values[[11, 3, 5, 7, 0, 1, 2, 4]]
    found = extremes(ds, "mse", count=2)
    assert [column for column, _, _ in found["most"]] == list(np.argsort(values)[:2])
    assert [column for column, _, _ in found["least"]] == list(np.argsort(values)[::-1][:2])
    np.testing.assert_array_equal(image(gallery(ds), 10, 0, 2, 1), ds["images"].isel(model=1, t=-1, shown=2))


def test_samples_that_were_left_out_keep_the_numbers_of_the_others(results):
    ds = results.comparison(2, samples=12, nearest=False, references=False).assign_coords(
        sample=[*range(3), *range(4, 13)]
    )
    ds = ds.assign_coords(extreme=[number + (number > 2) for number in ds["extreme"].values])
    assert gallery(ds).samples == tuple("01245678")
    found = extremes(ds, "mse")
    last = ds["distance"].isel(t=-1).sel(metric="mse").mean("pair")
    for _, number, value in found["most"] + found["least"]:
        assert value == pytest.approx(float(last.sel(sample=number)))
