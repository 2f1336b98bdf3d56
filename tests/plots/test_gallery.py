import numpy as np
import pytest

from consistency_lab.errors import UserError
from consistency_lab.plots.gallery import gallery


@pytest.mark.parametrize("channels", [1, 3])
def test_gallery_shows_the_images_of_a_time(results, channels):
    ds = results.comparison(3, channels=channels, samples=12)
    figure = gallery(ds, t=0.5, columns=4)
    assert len(figure.axes) == (3 + 3) * 4
    assert figure.axes[0].get_ylabel() == "unet seed 0"
    nearest = int(np.abs(ds["t"].values - 0.5).argmin())
    expected = ds["images"].isel(model=1, shown=2, t=nearest).values
    shown = np.asarray(figure.axes[4 + 2].images[0].get_array())
    np.testing.assert_array_equal(shown, expected[0] if channels == 1 else expected.transpose(1, 2, 0))


def test_a_gallery_needs_images(results):
    with pytest.raises(UserError, match="lacks images"):
        gallery(results.comparison(3, samples=12).drop_vars("images"))
