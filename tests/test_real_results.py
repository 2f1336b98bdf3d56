"""Results with other numbers than their real ones: what the real ones do not have cannot be put into them."""

import json

import numpy as np
import pytest


def test_other_numbers_keep_the_variables_dimensions_coordinates_and_attributes(results):
    real = results.structure()
    other = results.like(real, {"fixed": [0.1, 0.2]}, {"model": ["a", "b", "c"], "t": [1.0, 0.0]})
    assert dict(other.sizes) == {**real.sizes, "model": 3, "t": 2}
    for part in ("data_vars", "coords", "attrs"):
        assert set(getattr(other, part)) == set(getattr(real, part))
    assert all(other[name].dims == real[name].dims for name in real.variables)
    assert json.loads(other.attrs["shape"])["sizes"] == dict(other.sizes)
    np.testing.assert_array_equal(other["fixed"].isel(model=2, part=0), [0.1, 0.2])
    np.testing.assert_array_equal(other["distance"].isel(model=1, t=1), real["distance"].isel(model=0, t=1))


@pytest.mark.parametrize("wrong", [({"fxied": 1.0}, {}), ({}, {"modle": ["a"]})])
def test_what_a_real_result_does_not_have_is_refused(results, wrong):
    with pytest.raises(AssertionError, match="a real structure result has no"):
        results.like(results.structure(), *wrong)
    with pytest.raises(AssertionError, match=r"no \['units'\]"):
        results.like(results.structure(), {}, {}, units="nats")
