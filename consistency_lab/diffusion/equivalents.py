"""Two linear denoisers that were fitted to different images of one population: what each answers on average, and how far apart they are.

The best linear denoiser of n images has their mean m and covariance S (`GaussianDenoiser.fit`; S divides by n). Everything here is of the
eigenvalues v_k of the population's covariance V, in whose eigenvectors all averages over sets of images are diagonal.

**One denoiser.** R(s) = s^2 (S + s^2)^-1 has the deterministic equivalent K (V + K)^-1 with the renormalised noise variance K(s) > s^2,

    K (n - 1 - tr V (V + K)^-1) = n s^2                                                         (1)

(Wang, Zavatone-Veth & Pehlevan 2602.02908; n S is a Wishart matrix of n - 1 degrees of freedom, because the mean is fitted too). So the
average denoiser shrinks component k by v_k / (v_k + K), more than the v_k / (v_k + s^2) of infinitely many images.

**Two denoisers.** Of independent sets, they differ by twice the covariance of R over sets. For two noise levels a and b,

    cov(R_ij(a), R_kl(b)) = K_a K_b (T_il T_jk + T_ik T_jl) / (n - 1 - tr V T),       T = (V + K_a)^-1 V (V + K_b)^-1          (2)

The first term is the two-point equivalent (Bach 2303.01372; Atanasov, Zavatone-Veth & Pehlevan 2405.00592; tr V T is df2 for a = b). The
second is what the symmetry of R, R_kl = R_lk, makes of it: smaller by 1/d in a flat spectrum, but equal to the first where one component
holds most of the variance, as it may for images.

**Samples.** The probability-flow ODE of a linear denoiser (2311.10892, equation 11) leads from noise e that hides the data, s_T = infinity,
to an x0 estimate m + h(S) e at level s, with h(x) = x / sqrt(x + s^2); at s = 0 that is the image, and h(x) = sqrt(x). By

    x / sqrt(x + s^2) = 2 / pi * integral over w > 0 of [1 - R(sqrt(s^2 + w^2))] dw                                            (3)

its mean is an integral of (1) and its covariance a double integral of (2), both taken by the trapezoid rule in ln w: the integrand is
analytic in a strip of width pi / 2 on either side, so that the error falls as exp(-pi^2 / step).

**Which sets.** Take the fluctuations of h(S) as Gaussian: by (2) the entries of its upper triangle are then independent. That gives the
variances, over pairs of sets, of distance and agreement averaged over noise. (For the same states more is needed: there K itself
fluctuates as much, and no interval is given.)

Formulas hold to a relative 1/n for Gaussian images; of other ones they use mean and covariance alone, as linear denoisers do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from consistency_lab.intervals import Array

_STEP = 0.5  # of ln w: an error of exp(-pi^2 / 0.5) = 3e-9
_BEYOND = 1e6  # how far the integral reaches below and above the scale of the data
_HALVINGS = 200  # of the distance to a root, at most: Newton's method needs a few, unless the root is 0 and double


class Moments(NamedTuple):
    """Averages over sets of n images, by component, each ``(d,)``; sums over components are those of whole images.

    Attributes:
        gain: what the average denoiser makes of an input along that component.
        spread: expected square of what one set's output differs from the average over sets.
        square: expected square of one set's output, the population's mean taken off.
        weight: what ``spread`` owes to each component of the input: an input u has the spread, summed over the output's components, of
            ``(weight * u^2).sum()`` and the fluctuation of the fitted mean.
        deviation: a number, NaN for the same states: the standard deviation over pairs of sets of ln(distance / agreement), both of whole
            outputs and averaged over noise; the distance is ``2 * spread.sum()``, the agreement what twice the square has beyond it.
    """

    gain: Array
    spread: Array
    square: Array
    weight: Array
    deviation: float


def renormalised(variances: Array, n: int, level: Array) -> Array:
    """K of equation (1) for each noise level ``s`` ``(L,)``: what of s^2 a denoiser of n images acts like. ``(L,)``, >= s^2.

    At s = 0 it is 0 for as many images as components or more, and positive for fewer. ``variances``: ``(d,)``, >= 0.
    """
    freedom, floor = n - 1, n / (n - 1) * np.square(level)
    # (1), divided by n - 1, is convex in K, and K is below this: Newton's method comes down to the largest root and never passes it.
    kappa = floor + variances.sum() / freedom
    for _ in range(_HALVINGS):
        share = _shares(variances, kappa)
        value, slope = kappa * (1 - share.sum(1) / freedom) - floor, 1 - np.square(share).sum(1) / freedom
        step = np.divide(value, slope, out=np.zeros_like(value), where=value > 0)
        kappa = np.maximum(kappa - step, floor)
        if (step <= 1e-10 * kappa).all():  # the next one would be the square of that
            break
    return kappa


def along_trajectories(variances: Array, n: int, level: float) -> Moments:
    """Of x0 estimates at a noise level ``s`` that two denoisers reach from the same standard normal noise; s = 0: of their images."""
    top = np.sqrt(variances.max(initial=0.0)) or 1.0
    start, end = np.log(top / _BEYOND), np.log(_BEYOND * np.hypot(top, level))
    nodes = np.exp(np.arange(start, end, _STEP))
    levels, weights, inputs = np.hypot(level, nodes), 2 / np.pi * _STEP * nodes, np.ones_like(variances)
    gain, spread, weight = _moments(variances, n, levels, weights, inputs)
    # E h^2 needs no integral: x^2 / (x + s^2) = x - s^2 [1 - R(s)], and E S = (1 - 1/n) V. The mean m brings V / n.
    kappa = renormalised(variances, n, np.array([level]))
    square = _shares(variances, kappa)[0] * (variances + kappa - level**2)
    found = Moments(gain, spread + variances / n, square, weight, np.nan)
    # Twice the step is fine enough here, and a quarter of the work.
    entries = _entries(variances, n, levels[::2], 2 * weights[::2])
    return found._replace(deviation=_deviation(found, entries, variances / n))


def about_same_states(variances: Array, n: int, level: float) -> Moments:
    """Of the answers to images of the population (others than either set's) with noise of variance s^2; s = 0 is the limit s -> 0."""
    # The denoiser sees x - m, and m is one of n images' mean: variance V / n more.
    seen = variances * (1 + 1 / n) + level**2
    gain, spread, weight = _moments(variances, n, np.array([level]), np.ones(1), seen)
    spread = spread + (1 - gain) ** 2 * variances / n
    return Moments(gain, spread, gain**2 * (variances + level**2) + spread, weight, np.nan)


def _shares(variances: Array, kappa: Array) -> Array:
    """v / (v + K), ``(L, d)``; of no variance 0, also where K is 0."""
    total = variances + kappa[:, None]
    return np.divide(variances, total, out=np.zeros_like(total), where=total > 0)


def _moments(variances: Array, n: int, levels: Array, weights: Array, inputs: Array) -> tuple[Array, Array, Array]:
    """Of the sum over levels of weight * [1 - R(level)]: gain; spread for inputs of variances ``inputs``; weight of each input component.

    The covariance (2), summed over pairs of levels with weights W_ab, spreads an input u over component k by
    sum_ab W_ab (T_kk sum_j T_jj u_j^2 + (T_kk u_k)^2) with T_kk = v_k / ((v_k + K_a) (v_k + K_b)).
    """
    inverse, kept, scale = _pairs_of_levels(variances, n, levels, weights)

    def summed(pairs: Array, factor: Array) -> Array:
        return np.asarray(((pairs @ factor) * factor).sum(0))

    own = variances**2 * summed(scale, inverse**2)
    towards = variances * summed(scale * ((kept * inputs) @ inverse.T), inverse)  # from all inputs to each output
    weight = variances * summed(scale * (kept @ inverse.T), inverse) + own  # from each input to all outputs
    return weights @ kept, towards + own * inputs, weight


def _entries(variances: Array, n: int, levels: Array, weights: Array) -> Array:
    """The variance of entry ij of the same sum, ``(d, d)``, C_ij = sum_ab W_ab T_ii T_jj; entry ii has twice that."""
    inverse, _, scale = _pairs_of_levels(variances, n, levels, weights)
    both = (inverse[:, None] * inverse * variances).reshape(-1, len(variances))
    return np.asarray((both * scale.reshape(-1, 1)).T @ both)


def _deviation(found: Moments, entries: Array, mean: Array) -> float:
    """`Moments.deviation`, by the delta method; ``mean`` are the variances of what the fitted mean brings.

    With the fluctuations A and B of the two maps and their gain G, the distance is tr (A - B)^2 and that of the means, and the agreement is
    2 tr (G + A) (G + B).
    """
    crossed = 2 * np.square(entries).sum() + 2 * np.square(np.diagonal(entries)).sum()  # the variance of tr A B
    distance = 2 * found.spread.sum()
    agreement = 2 * found.square.sum() - distance
    if not (distance > 0 and agreement > 0):
        return np.nan
    of_distance = 8 * crossed + 8 * np.square(mean).sum()
    of_agreement = 4 * crossed + 16 * (np.square(found.gain) @ np.diagonal(entries))
    squared = of_distance / distance**2 + of_agreement / agreement**2 + 8 * crossed / (distance * agreement)
    return float(np.sqrt(squared))


def _pairs_of_levels(variances: Array, n: int, levels: Array, weights: Array) -> tuple[Array, Array, Array]:
    """1 / (v + K) and v / (v + K), ``(L, d)`` each, and W_ab = weights K_a K_b / (n - 1 - tr V T) ``(L, L)``; 0 of no variance."""
    kappa = renormalised(variances, n, levels)
    total = variances + kappa[:, None]
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=variances > 0)
    kept = variances * inverse
    return inverse, kept, np.multiply.outer(weights * kappa, weights * kappa) / (n - 1 - kept @ kept.T)
