"""Deterministic equivalents against closed forms, sum rules, and simulated linear denoisers."""

from functools import cache

import numpy as np
import pytest

from consistency_lab.data.sources import load_images
from consistency_lab.diffusion.equivalents import about_same_states, along_trajectories, renormalised


def power_law(d, exponent):
    return np.arange(1, d + 1) ** -float(exponent)


@cache
def digits():
    """Variances of the digits' 64 components, three of which have none."""
    flat = load_images("digits").all().double().flatten(1)
    found = np.linalg.eigvalsh(np.cov(flat.T.numpy(), ddof=0))[::-1]
    return np.where(found > 1e-12, found, 0.0)


SPECTRA = {"flat": np.ones(40), "power law": power_law(40, 1), "spike": power_law(40, 3)}


@pytest.mark.parametrize("name", [*SPECTRA, "digits"])
@pytest.mark.parametrize("n", [2, 7, 41, 62, 500])
def test_the_renormalised_noise_solves_its_equation(name, n):
    variances = digits() if name == "digits" else SPECTRA[name]
    levels = np.array([0.0, 1e-3, 0.3, 1.0, 20.0, 157.0])
    kappa = renormalised(variances, n, levels)
    total = variances + kappa[:, None]
    freedom = np.divide(variances, total, out=np.zeros_like(total), where=total > 0).sum(1)
    np.testing.assert_allclose(kappa * (n - 1 - freedom), n * levels**2, rtol=1e-9, atol=1e-12 * n)
    assert (kappa >= levels**2).all()
    assert (np.diff(kappa) > 0).all()
    # Without noise it vanishes once the covariance has full rank, and not before.
    assert (kappa[0] > 1e-9) == (n - 1 < (variances > 0).sum())


@pytest.mark.parametrize("n", [11, 41, 401])
def test_of_a_flat_spectrum_it_solves_a_quadratic(n):
    """K (n - 1 - d / (1 + K)) = n s^2."""
    d, s = 40, 0.7
    root = np.roots([n - 1, n - 1 - d - n * s**2, -n * s**2]).max()
    assert renormalised(np.ones(d), n, np.array([s]))[0] == pytest.approx(root, rel=1e-12)


@pytest.mark.parametrize("ratio", [0.25, 0.8, 2.5])
@pytest.mark.parametrize("s", [0.0, 0.5])
def test_of_a_flat_spectrum_gains_are_integrals_over_the_law_of_marchenko_and_pastur(ratio, s):
    d = 2000
    n = round(d / ratio) + 1
    # Eigenvalues of S are (n - 1) / n times those of a Wishart matrix over its n - 1 degrees of freedom, whose law this is.
    y, shrunk = d / (n - 1), (n - 1) / n
    low, high = (1 - np.sqrt(y)) ** 2, (1 + np.sqrt(y)) ** 2
    angle = (
        (np.arange(4000) + 0.5) * np.pi / 4000
    )  # x = middle - half cos(angle), which takes the roots at the ends off the density
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    mass = ((high - low) / 2 * np.sin(angle)) ** 2 / (2 * np.pi * y * x) * np.pi / 4000
    assert mass.sum() == pytest.approx(min(1.0, 1 / y), rel=1e-9)
    x = x * shrunk

    own = along_trajectories(np.ones(d), n, s)
    gain = (mass * x / np.sqrt(x + s**2)).sum()
    square = (mass * x**2 / (x + s**2)).sum() + 1 / n
    np.testing.assert_allclose(own.gain, gain, rtol=1e-5)
    np.testing.assert_allclose(own.square, square, rtol=1e-5)
    np.testing.assert_allclose(own.spread, square - gain**2, rtol=2 / d)
    if s:
        same = about_same_states(np.ones(d), n, s)
        gain = (mass * x / (x + s**2)).sum()
        spread = (mass * (x / (x + s**2)) ** 2).sum() * (1 + s**2) - gain**2 * (1 + s**2)
        spread += (s**4 / n) * ((mass / (x + s**2) ** 2).sum() + max(0.0, 1 - 1 / y) / s**4)
        np.testing.assert_allclose(same.gain, gain, rtol=1e-6)
        np.testing.assert_allclose(same.spread, spread, rtol=4 / d)


def pairings(variances, n, s):
    """Both terms of equation (2), ``(d,)`` each, by a plain loop over a finer and wider grid: what they add to the weight of an input."""
    nodes = np.exp(np.arange(np.log(1e-7), np.log(1e7), 0.25))
    levels, weights = np.sqrt(s**2 + nodes**2), 2 / np.pi * 0.25 * nodes
    kappa = renormalised(variances, n, levels)
    total, first, second = variances + kappa[:, None], np.zeros_like(variances), np.zeros_like(variances)
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=variances > 0)
    for a in range(len(nodes)):
        t = variances * inverse[a] * inverse
        scale = weights[a] * weights * kappa[a] * kappa / (n - 1 - t @ variances)
        first += (scale * t.sum(1)) @ t
        second += scale @ t**2
    return first, second


@pytest.mark.parametrize("name", [*SPECTRA, "digits"])
@pytest.mark.parametrize("n", [5, 300])
def test_the_double_integral_agrees_with_the_trace_that_needs_none(name, n):
    """E tr h(S)^2 is known without an integral; to leading order it is the mean gain squared and the first pairing, summed."""
    variances = digits() if name == "digits" else SPECTRA[name]
    for s in (0.0, 0.1, 1.0):
        own, (first, second) = along_trajectories(variances, n, s), pairings(variances, n, s)
        np.testing.assert_allclose(own.weight, first + second, rtol=2e-5, atol=1e-9)
        known = (own.square - variances / n).sum()
        np.testing.assert_allclose((own.gain**2).sum() + first.sum(), known, rtol=2e-5)


def simulated(variances, n, s, sets, rng):
    """Means over sets, and their standard errors, of what `Moments` are, by brute force on Gaussian data in its own axes.

    Returns (own, same): each (gain, spread, square, errors of these), of which the first is by component and the others are summed over.
    """
    d, own, same = len(variances), [], []
    for _ in range(sets):
        x = rng.normal(size=(n, d)) * np.sqrt(variances)
        mean = x.mean(0)
        values, axes = np.linalg.eigh((x - mean).T @ (x - mean) / n)
        values = values.clip(1e-12)
        own.append(((axes * values / np.sqrt(values + s**2)) @ axes.T, mean))
        kept = (axes * values / (values + s**2)) @ axes.T
        same.append((kept, mean - kept @ mean))
    return [_summary(*map(np.array, zip(*each, strict=True)), inputs)
            for each, inputs in ((own, np.ones(d)), (same, variances + s**2))]  # fmt: skip


def _summary(maps, offsets, inputs):
    sets, average = len(maps), maps.mean(0)
    apart = (((maps - average) ** 2) @ inputs).sum(1) * sets / (sets - 1) + (offsets**2).sum(1)
    square = ((maps**2) @ inputs).sum(1) + (offsets**2).sum(1)
    return [(np.diagonal(maps, axis1=1, axis2=2)).mean(0)] + [
        (part.mean(), part.std(ddof=1) / np.sqrt(sets)) for part in (apart, square)
    ]


@pytest.mark.parametrize("name", [*SPECTRA, "digits"])
@pytest.mark.parametrize(("n", "s"), [(10, 0.0), (10, 0.5), (40, 0.2), (150, 0.0), (150, 1.0)])
def test_they_are_what_simulated_denoisers_do(name, n, s):
    """Within three standard errors of the simulation and a relative 1/n (the formulas' own error is of the order 1/n)."""
    variances = digits() if name == "digits" else SPECTRA[name]
    found = simulated(variances, n, s, 150, np.random.default_rng(n))
    predicted = [along_trajectories(variances, n, s)]
    predicted += [about_same_states(variances, n, s)] if s else []
    for theory, (gain, spread, square) in zip(predicted, found, strict=False):
        assert np.abs(theory.gain - gain).max() < (1 / n + 0.03) * gain.max()
        for value, (mean, error) in ((theory.spread.sum(), spread), (theory.square.sum(), square)):
            assert abs(value - mean) < 3 * error + mean / n


def test_each_component_and_each_noise_has_its_own_spread():
    """A power law of strong anisotropy, where the second pairing of equation (2) is as large as the first in the leading component."""
    variances, n, s, sets = power_law(12, 2), 60, 0.3, 3000
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sets, n, 12)) * np.sqrt(variances)
    mean = x.mean(1, keepdims=True)
    values, axes = np.linalg.eigh((x - mean).swapaxes(1, 2) @ (x - mean) / n)
    values = values.clip(1e-12)
    maps = (axes * (values / np.sqrt(values + s**2))[:, None]) @ axes.swapaxes(1, 2)
    apart = maps - maps.mean(0)
    theory = along_trajectories(variances, n, s)
    by_component = (apart**2).sum(2).mean(0) + variances / n
    np.testing.assert_allclose(theory.spread, by_component, rtol=0.08)
    by_input = (apart**2).sum(1).mean(0)  # of noise along one component alone
    np.testing.assert_allclose(theory.weight, by_input, rtol=0.08)
    kept = (axes * (values / (values + s**2))[:, None]) @ axes.swapaxes(1, 2)
    offset = mean[:, 0] - (kept @ mean.swapaxes(1, 2))[..., 0]
    by_component = ((kept - kept.mean(0)) ** 2 @ (variances + s**2)).mean(0) + (offset**2).mean(0)
    np.testing.assert_allclose(about_same_states(variances, n, s).spread, by_component, rtol=0.08)


@pytest.mark.parametrize("name", [*SPECTRA, "digits"])
@pytest.mark.parametrize(("n", "s"), [(20, 0.3), (60, 0.0), (60, 2.0)])
def test_pairs_of_sets_scatter_as_predicted(name, n, s):
    """Over 300 pairs, 95 % of them (more for few images) lie within 1.96 deviations of ln(distance / agreement)."""
    variances, sets = digits() if name == "digits" else SPECTRA[name], 600
    d, rng = len(variances), np.random.default_rng(1)
    x = rng.normal(size=(sets, n, d)) * np.sqrt(variances)
    mean = x.mean(1)
    x -= mean[:, None]
    values, axes = np.linalg.eigh(x.swapaxes(1, 2) @ x / n)
    values = values.clip(1e-12)
    maps = (axes * (values / np.sqrt(values + s**2))[:, None]) @ axes.swapaxes(1, 2)
    distance = ((maps[::2] - maps[1::2]) ** 2).sum((1, 2)) + ((mean[::2] - mean[1::2]) ** 2).sum(1)
    found = np.log(distance / (2 * (maps[::2] * maps[1::2]).sum((1, 2))))
    theory = along_trajectories(variances, n, s)
    expected = np.log(theory.spread.sum() / (theory.square - theory.spread).sum())
    assert 0.8 < found.std() / theory.deviation < 1.1 if n > 20 else found.std() < 1.1 * theory.deviation
    assert (np.abs(found - expected) < 1.96 * theory.deviation).mean() >= 0.92
    assert np.isnan(about_same_states(variances, n, s).deviation)


def test_many_images_leave_the_denoiser_of_the_population():
    variances, s = power_law(20, 1), 0.4
    for of, power in ((along_trajectories, 0.5), (about_same_states, 1.0)):
        few, many = of(variances, 10**5, s), of(variances, 10**7, s)
        np.testing.assert_allclose(many.gain, variances / (variances + s**2) ** power, rtol=1e-5)
        np.testing.assert_allclose(few.spread / many.spread, 100, rtol=1e-2)  # the spread falls as 1/n


def test_two_images_share_next_to_nothing():
    own = along_trajectories(np.ones(400), 2, 0.0)
    assert 1 - own.spread.sum() / own.square.sum() < 0.01


def test_scale_and_order_of_components_do_not_matter():
    variances = power_law(15, 1)
    for of in (along_trajectories, about_same_states):
        one, scaled, turned = of(variances, 9, 0.3), of(4 * variances, 9, 0.6), of(variances[::-1], 9, 0.3)
        np.testing.assert_allclose(scaled.spread, 4 * one.spread, rtol=1e-6)
        np.testing.assert_allclose(turned.spread[::-1], one.spread, rtol=1e-9)
