import numpy as np
import pytest
from scipy import stats

from consistency_lab.intervals import jackknife, mean_interval


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
