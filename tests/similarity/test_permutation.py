from itertools import combinations, permutations

import numpy as np
import pytest
import xarray as xr

from consistency_lab.errors import UserError
from consistency_lab.similarity.permutation import family_test, label_permutation, square


def matrix(points):
    """Squared distances of points ``(models, *grid)``."""
    return (points[:, None] - points[None]) ** 2


def exchangeable(rng, models=8, grid=(5,)):
    return matrix(rng.normal(size=(models, *grid)))


def test_families_apart_get_the_smallest_p_there_is():
    rng = np.random.default_rng(0)
    points = rng.normal(scale=0.1, size=(8, 3))
    points[:4, 1] += 5.0
    found = label_permutation(matrix(points), 4, 4)
    assert found.assignments == 35
    assert found.p_any == pytest.approx(1 / 35)
    assert found.p[1] == pytest.approx(1 / 35)
    assert found.statistic[1] == pytest.approx(25, rel=0.1)


def test_p_is_the_share_over_all_orders_of_the_models():
    """Brute force: every order of eight models, of which many give the same families."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(8, 2))
    points[:4, 0] += 0.8
    distance = matrix(points)

    def statistic(order):
        d = distance[np.ix_(order, order)]
        between = d[:4, 4:].mean((0, 1))
        upper = [d[i, j] for block in (range(4), range(4, 8)) for i in block for j in block if i < j]
        return between - np.mean(upper, axis=0)

    some = np.array([statistic(order) for order in permutations(range(8)) if order[0] == 0])
    standard = (some - some.mean(0)) / some.std(0)
    brute = (standard.max(1)[:, None] >= standard[0] - 1e-9).mean(0)
    assert np.allclose(label_permutation(distance, 4, 4).p, brute)


def test_the_test_holds_its_level_over_the_whole_grid():
    rng = np.random.default_rng(2)
    p = np.array([label_permutation(exchangeable(rng), 4, 4).p_any for _ in range(1500)])
    for level in (1 / 35, 2 / 35, 5 / 35):  # exact up to ties: a p at or below the level in that share of trials
        assert abs((p <= level + 1e-9).mean() - level) < 3 * (level * (1 - level) / 1500) ** 0.5


def test_cells_without_correction_would_exceed_it():
    rng = np.random.default_rng(3)
    uncorrected = []
    for _ in range(400):
        d = exchangeable(rng, grid=(20,))
        uncorrected.append(min(label_permutation(d[..., [k]], 4, 4).p_any for k in range(20)))
    assert (np.array(uncorrected) <= 2 / 35 + 1e-9).mean() > 0.3


def test_orders_within_a_family_and_constant_cells_do_not_matter():
    rng = np.random.default_rng(4)
    d = exchangeable(rng, 9)
    order = [2, 0, 1, 3, 8, 6, 5, 4, 7]
    first, second = label_permutation(d, 4, 5), label_permutation(d[np.ix_(order, order)], 4, 5)
    assert np.allclose(first.p, second.p)
    assert first.assignments == 126
    d[..., 0] = 1.0 - np.eye(9)
    assert label_permutation(d, 4, 5).p[0] == 1.0


@pytest.mark.parametrize(("first", "second"), [(4, 4), (4, 6), (5, 4)])
def test_all_assignments_at_once_are_those_one_by_one(first, second, monkeypatch):
    distance, models = exchangeable(np.random.default_rng(5), first + second, (3, 2)), first + second
    rows, columns = np.triu_indices(models, 1)
    statistics = []
    for members in combinations(range(models), first):
        if first != second or 0 in members:
            inside = np.isin(np.arange(models), members)
            between = inside[rows] != inside[columns]
            pairs = distance[rows, columns]
            statistics.append(pairs[between].mean(0) - pairs[~between].mean(0))
    standard = (statistics - np.mean(statistics, 0)) / np.std(statistics, 0)
    p = (standard.max((1, 2))[:, None, None] >= standard[0] - 1e-9).mean(0)
    for together in (7, 2**14):
        monkeypatch.setattr("consistency_lab.similarity.permutation._TOGETHER", together)
        found = label_permutation(distance, first, second)
        assert np.array_equal(found.p, p)
        assert np.allclose(found.statistic, statistics[0], rtol=0, atol=1e-13)
        assert found.assignments == len(statistics)


def test_a_cell_that_is_infinite_leaves_the_others_as_they_are():
    # Two models that made one image alike: its PSNR is infinite.
    distance = exchangeable(np.random.default_rng(6), 8, (3,))
    expected = label_permutation(distance[..., :2], 4, 4)
    distance[0, 1, 2] = distance[1, 0, 2] = np.inf
    found = label_permutation(distance, 4, 4)
    assert np.array_equal(found.p[:2], expected.p)
    assert found.p[2] == 1.0


def test_small_families_are_refused():
    with pytest.raises(UserError, match="4 \\+ 4 models"):
        label_permutation(exchangeable(np.random.default_rng(0), 7), 3, 4)


def test_a_comparison_is_read_by_names():
    rng = np.random.default_rng(5)
    names = [f"{family}{i}" for i in range(4) for family in "ab"]  # interleaved
    points = rng.normal(scale=0.1, size=(8, 1, 2)) + np.array([0.0, 3.0] * 4)[:, None, None]
    full = matrix(points)
    first, second = np.triu_indices(8, 1)
    comparison = xr.Dataset(
        {"distance": (("pair", "t", "sample", "metric"), full[first, second][:, :, None, :])},
        coords={
            "model": names,
            "first": ("pair", first),
            "second": ("pair", second),
            "t": [0.0],
            "metric": ["mse", "psnr"],
        },
    )
    assert np.allclose(square(comparison).mean(2), full)
    found = family_test(comparison, [name for name in names if name[0] == "a"])
    assert float(found["p"].sel(metric="mse")[0]) == pytest.approx(1 / 35)
    assert float(found["p"].sel(metric="psnr")[0]) > 0.5  # there more is alike
    with pytest.raises(UserError, match="'c0' is not one of the models"):
        family_test(comparison, ["c0"])
