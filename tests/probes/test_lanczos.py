import numpy as np
import pytest
import torch

from consistency_lab.errors import UserError
from consistency_lab.probes.lanczos import Quadrature, extreme_eigenpairs, lanczos, quadrature
from consistency_lab.probes.trace import trace


class Matrix:
    """A dense matrix that counts the columns it is multiplied with."""

    def __init__(self, matrix):
        self.matrix, self.size, self.columns = matrix, len(matrix), 0
        self.dtype, self.device = matrix.dtype, matrix.device

    def __matmul__(self, vectors):
        self.columns += vectors.shape[1] if vectors.dim() > 1 else 1
        return self.matrix @ vectors.to(self.dtype)


def with_spectrum(values, dtype=torch.float64, seed=0):
    n = len(values)
    basis = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return Matrix(((basis * torch.as_tensor(values, dtype=torch.float64)) @ basis.T).to(dtype))


# Like a network's: a bulk at zero, a few large, some negative.
SPECTRUM = np.concatenate([np.linspace(-0.1, 0.3, 190), [-2.0, -1.5, -1.0, -0.7, 4.0, 5.0, 7.0, 8.0, 12.0, 30.0]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_extreme_pairs_are_those_of_the_matrix(dtype):
    matrix = with_spectrum(SPECTRUM, dtype)
    top, bottom = extreme_eigenpairs(matrix, 4, steps=60, tolerance=1e-4)
    np.testing.assert_allclose(top.values, [30, 12, 8, 7], rtol=1e-5)
    np.testing.assert_allclose(bottom.values, [-2, -1.5, -1, -0.7], rtol=1e-3)
    assert top.converged.all()
    assert bottom.converged.all()
    off = matrix @ top.vectors - top.vectors * torch.from_numpy(top.values)
    np.testing.assert_allclose(top.residuals, off.norm(dim=0), rtol=1e-3, atol=1e-9)


# Beside an outlier of 2.5e7: hundreds, ones, and a bulk at 0.
STEEP = np.concatenate([np.linspace(-0.01, 0.05, 190), [2.5e7, 245.0, 230.0, 3.0, 1.0, -0.5, -2.0, -60.0]])


def test_values_beside_a_huge_one_are_those_of_numpy():
    matrix = with_spectrum(STEEP)
    exact = np.linalg.eigvalsh(matrix.matrix.numpy())
    top, bottom = extreme_eigenpairs(matrix, 4, steps=80)
    np.testing.assert_allclose(top.values, exact[::-1][:4], rtol=1e-5)
    np.testing.assert_allclose(bottom.values[:3], exact[:3], rtol=1e-5)
    np.testing.assert_allclose([*top.values, *bottom.values[:3]], [2.5e7, 245, 230, 3, -60, -2, -0.5], rtol=1e-5)
    assert top.converged.all()
    assert bottom.converged[:3].all()


def test_float32_products_beside_a_huge_value_are_good_or_said_not_to_be():
    matrix = with_spectrum(STEEP, torch.float32)
    exact = np.linalg.eigvalsh(
        matrix.matrix.double().numpy()
    )  # rounded entries: other small eigenvalues than in float64
    top, bottom = extreme_eigenpairs(matrix, 3, steps=80)
    np.testing.assert_allclose(top.values, exact[::-1][:3], rtol=1e-2)
    np.testing.assert_allclose(bottom.values[0], exact[0], rtol=1e-2)
    assert top.converged[0]
    for pairs in (top, bottom):
        off = np.abs(pairs.values[:, None] - exact).min(1)
        assert (off[pairs.converged] <= 2e-3 * np.abs(pairs.values[pairs.converged])).all()
        assert (pairs.residuals[~pairs.converged] > 1e-3 * np.abs(pairs.values[~pairs.converged])).all()


def test_a_value_is_as_far_off_as_its_residual_says():
    for steps in (10, 14, 20, 30):
        for pairs in extreme_eigenpairs(with_spectrum(STEEP), 4, steps=steps):
            nearest = np.abs(pairs.values[:, None] - STEEP).min(1)
            assert (nearest <= pairs.residuals * (1 + 1e-6) + 1e-6).all()
            assert (nearest[pairs.converged] <= 1e-3 * np.abs(pairs.values[pairs.converged])).all()


def test_values_that_occur_several_times_are_all_found():
    values = np.concatenate([np.linspace(0, 1, 40), [5.0, 5.0, 5.0, 3.0, 3.0]])
    top, _ = extreme_eigenpairs(with_spectrum(values), 5, steps=45)
    np.testing.assert_allclose(top.values, [5, 5, 5, 3, 3], rtol=1e-6)
    top, bottom = extreme_eigenpairs(with_spectrum(np.full(6, 2.0)), 4)
    np.testing.assert_allclose([*top.values, *bottom.values], 2.0)


def test_what_has_not_converged_says_so():
    top, _ = extreme_eigenpairs(with_spectrum(np.linspace(0, 1, 300)), 4, steps=8)
    assert not top.converged.all()
    assert (top.values < 1 + 1e-9).all()
    with pytest.raises(UserError, match="at least 8 Lanczos steps"):
        extreme_eigenpairs(with_spectrum(SPECTRUM), 4, steps=5)
    with pytest.raises(UserError, match="the matrix has 3"):
        extreme_eigenpairs(with_spectrum([1.0, 2.0, 3.0]), 4)


def test_bases_stay_orthonormal():
    (run,) = lanczos(with_spectrum(SPECTRUM, torch.float32), torch.ones(200, 1), 100)
    assert float((run.basis.T @ run.basis - torch.eye(100)).abs().max()) < 1e-5


def test_a_full_run_is_the_whole_spectrum():
    values = np.sort(SPECTRUM)[::5]
    start = torch.randn(len(values), 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for run in lanczos(with_spectrum(values), start, 1000):
        np.testing.assert_allclose(run.ritz()[0], values, atol=1e-9)


def test_density_integrates_to_one_and_has_the_matrix_moments():
    nodes = quadrature(with_spectrum(SPECTRUM), probes=60, steps=40)
    np.testing.assert_allclose(nodes.moments(0), 1.0, rtol=1e-9)
    for power in (1, 2):
        estimates, exact = nodes.moments(power), (SPECTRUM**power).mean()
        error = estimates.std(ddof=1) / 60**0.5
        assert abs(estimates.mean() - exact) < 3 * error
        assert error < 0.3 * exact
    width = 0.1
    grid = nodes.grid(4000, width)
    density = nodes.density(grid, width).mean(0)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
    assert np.trapezoid(density * grid, grid) == pytest.approx(nodes.moments(1).mean(), rel=1e-6)
    assert np.trapezoid(density * grid**2, grid) == pytest.approx(nodes.moments(2).mean() + width**2, rel=1e-6)


def test_nodes_resolve_a_bulk_that_is_narrow_beside_the_spectrum():
    """1000 eigenvalues evenly in +-0.01 and three far away: a hundredth of the spectrum is ten times the bulk."""
    values = np.concatenate([np.linspace(-0.01, 0.01, 1000), [1.0, 3.0, 10.0]])
    nodes = quadrature(with_spectrum(values), probes=3, steps=25)
    low, high, apart = nodes.middle(0.9)
    np.testing.assert_allclose([low, high], [-0.009, 0.009], atol=0.001)
    assert 0.0005 < apart < 0.002
    inside = nodes.density(np.linspace(-0.006, 0.006, 50), apart).mean(0)
    np.testing.assert_allclose(inside, 1000 / 1003 / 0.02, rtol=0.2)
    assert nodes.density(np.array([-0.02, 0.02]), apart).max() < 1


def test_the_middle_is_between_quantiles_of_the_weights():
    nodes = Quadrature(
        np.array([[1.0, 2.0, 3.0, np.nan], [0.0, 2.0, 4.0, 9.0]]),
        np.array([[0.2, 0.6, 0.2, np.nan], [0.1, 0.4, 0.4, 0.1]]),
    )
    # In order 0, 1, 2, 2, 3, 4, 9 with .05, .15, .65, .75, .95, 1 of the weight up to there (rounded).
    assert nodes.middle(0.8) == (1.0, 4.0, pytest.approx(3.0 * 2 / 5))
    assert nodes.middle(1.0)[:2] == (0.0, 9.0)


def test_runs_side_by_side_are_the_runs_alone(monkeypatch):
    together = quadrature(with_spectrum(SPECTRUM), probes=3, steps=20)
    monkeypatch.setattr("consistency_lab.probes.lanczos.MEMORY", 1)
    alone = quadrature(with_spectrum(SPECTRUM), probes=3, steps=20)
    np.testing.assert_allclose(together.moments(2), alone.moments(2), rtol=1e-9)


def test_the_trace_is_right_within_its_error():
    matrix = with_spectrum(SPECTRUM)
    found = [trace([matrix], [1.0], products=30, seed=seed) for seed in range(60)]
    exact = SPECTRUM.sum()
    z = np.array([(f.value - exact) / f.error for f in found])
    assert np.mean(np.abs(z) < 2.26) > 0.85  # t with 9 degrees of freedom: 0.95
    assert np.std([f.value for f in found]) < 0.1 * exact
    assert matrix.columns == 60 * 30


def test_a_trace_of_parts_is_that_of_their_mean():
    a, b = with_spectrum(SPECTRUM, seed=1), with_spectrum(2 * SPECTRUM, seed=2)
    found = trace([a, b], [0.25, 0.75], products=30)
    whole = trace([Matrix(0.25 * a.matrix + 0.75 * b.matrix)], [1.0], products=30)
    assert found.value == pytest.approx(whole.value, rel=1e-9)
    assert found.error == pytest.approx(whole.error, rel=1e-9)
    assert found.parts @ [0.25, 0.75] == pytest.approx(found.value)


def test_the_trace_of_a_small_matrix_is_exact():
    found = trace([with_spectrum([1.0, 2.0, 5.0])], [1.0], products=12)
    assert found.value == pytest.approx(8.0, rel=1e-12)
    assert found.error < 1e-12
    with pytest.raises(UserError, match="at least 6 products"):
        trace([with_spectrum([1.0])], [1.0], products=3)
