import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import consistency_lab
from consistency_lab.intervals import (
    Interval,
    add_interval,
    as_columns,
    interval_names,
    interval_of,
    jackknife,
    mean_interval,
)


def test_the_mean_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=(3, 20))
    interval = mean_interval(values)
    for row in range(3):
        expected = stats.ttest_1samp(values[row], 0.0).confidence_interval(0.95)
        assert (interval.low[row], interval.high[row]) == pytest.approx((expected.low, expected.high))


def test_the_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(1).normal(size=15)
    replicates = (values.sum() - values) / 14
    left, right = jackknife(values.mean(), replicates), mean_interval(values)
    assert (left.low, left.high) == pytest.approx((right.low, right.high))


def test_one_value_has_no_interval():
    interval = mean_interval(np.array([[2.0]]))
    assert interval.estimate == 2.0
    assert np.isnan(interval.low)


def test_an_interval_is_read_as_it_was_written():
    ds = xr.Dataset(coords={"t": [0.0, 1.0]})
    add_interval(ds, "score", ("t",), Interval(np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.array([2.0, 3.0])))
    assert list(ds.data_vars) == interval_names("score") == ["score", "score_low", "score_high"]
    for whole in (ds, ds.to_dataframe()):
        np.testing.assert_array_equal(interval_of(whole, "score"), [[1, 2], [0, 1], [2, 3]])
    row = ds.to_dataframe().iloc[1]
    for one in (ds.isel(t=1), row, row.to_dict()):
        assert interval_of(one, "score") == (2.0, 1.0, 3.0)
        assert as_columns("score", interval_of(one, "score")) == row.to_dict()


def test_bounds_that_are_not_there_are_undefined_and_an_estimate_that_is_not_is_refused():
    for row in ({"x": 1.0}, {"x": 1.0, "x_low": None, "x_high": None}, pd.Series({"x": 1.0})):
        estimate, *bounds = interval_of(row, "x")
        assert estimate == 1.0
        assert np.isnan(bounds).all()
        with pytest.raises(KeyError):
            interval_of(row, "y")
        assert np.isnan(interval_of(row, "y", np.nan)).all()


def test_the_ends_of_intervals_are_named_in_one_place():
    """Texts that end or begin with the suffix of a bound are written nowhere else; the migration names the old ones."""
    root, found = Path(consistency_lab.__file__).parent, []
    scripts = sorted((root.parent / "analyses").glob("*.py"))
    for path in [*sorted(root.rglob("*.py")), *scripts]:
        tree = ast.parse(path.read_text("utf-8"))
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
                suffix = re.fullmatch(r"_(low|high)" if path in scripts else r"\w*_(low|high)", node.value)
                if suffix and path.name not in ("intervals.py", "migration.py"):
                    found.append(f"{path.name}:{node.lineno} {node.value!r}")
    assert not found
