"""Is a table really of alphas_cumprod? What else it could be is tried, and named where it fits.

Loops keep several tables: betas, alphas, alphas_cumprod, its square root, sqrt(1 - alphas_cumprod), sigmas. Most are recognised by where
they begin and end. The square root of alphas_cumprod is not: it falls from 1 to 0 too. But its square has betas that somebody chose, on a
line or a cosine with round ends, and the table itself has none; that is what tells the two apart.
"""

from __future__ import annotations

import math

import numpy as np

from consistency_lab.errors import UserError

_FIT = 2e-3  # relative, of betas that were rounded to float32 on the way
_NOISE = 0.5  # most of the signal's variance that may be left at the end
_COSINE = "a cosine"
_WAY_OUT = "(or, if it is meant as it stands, give TableVP(np.log(table)) of consistency_lab.diffusion.schedule)"


def check_table(table: np.ndarray) -> None:
    """Raise `UserError`, naming the guess, unless ``(T,)`` float64 may be alphas_cumprod: what it should have been, and how to make it.

    Tables that end at any level up to half the variance pass, and so do those of schedules that nobody has named.
    """
    if table.ndim != 1 or len(table) < 2 or not np.isfinite(table).all():
        raise UserError(
            "a table of alphas_cumprod must be a list of two or more finite numbers, one a timestep; give such a list."
        )
    if table[-1] == 0 and (table[:-1] > 0).all() and (np.diff(table) < 0).all():
        raise UserError(
            "the table of alphas_cumprod ends at 0 (a terminal signal-to-noise ratio of zero), where eps does not tell x0; for a model "
            "that predicts v or x0 give 2**-24 in its place, as diffusers does."
        )
    guess = _guess(table)
    if guess:
        raise UserError(f"a table of alphas_cumprod was expected, and this one {guess}.")


def _guess(table: np.ndarray) -> str:
    rises, falls = bool((np.diff(table) > 0).all()), bool((np.diff(table) < 0).all())
    ends = f"({table[0]:.4g} to {table[-1]:.4g})"
    if table.max() > 1:
        return f"has values above 1 {ends}: noise scales (sigmas), probably; with noise added to clean images give 1 / (1 + sigmas**2)"
    if table.min() <= 0:
        if table.max() <= 0:
            return f"is not positive {ends}: logarithms, probably; give their exponentials"
        return f"is not positive {ends}; give alphas_cumprod itself"
    if rises:
        return _risen(table, ends)
    if not falls:
        return f"does not fall strictly from below 1 {ends}; give alphas_cumprod itself, one number per timestep"
    if table[-1] > _NOISE:
        if np.prod(table) < 0.1:
            return f"falls only {ends}: alphas = 1 - betas, probably; give their cumulative product, alphas.cumprod(0)"
        return f"ends at {table[-1]:.3g}, where images are hardly noisy, and sampling starts from noise; give the whole table"
    if not _known(table):
        if name := _known(table**2):
            return f"is the square root of {name}: sqrt(alphas_cumprod), probably; give its square {_WAY_OUT}"
        if _known(np.cumprod(table)) == _COSINE:  # the alphas of the others end above a half
            return f"is alphas = 1 - betas of {_COSINE}, probably; give their cumulative product, alphas.cumprod(0) {_WAY_OUT}"
    return ""


def _risen(table: np.ndarray, ends: str) -> str:
    """A table that rises."""
    others = {
        "betas, probably; give (1 - betas).cumprod(0)": np.cumprod(1 - table) if table[-1] < 1 else table,
        "alphas_cumprod from noise to data, probably; give it from the least noise to the most, reversed": table[::-1],
        "1 - alphas_cumprod, probably; give alphas_cumprod": 1 - table,
        "sqrt(1 - alphas_cumprod), probably; give alphas_cumprod": 1 - table**2,
        "sqrt(alphas_cumprod) from noise to data, probably; give alphas_cumprod, from the least noise to the most": table[
            ::-1
        ]
        ** 2,
    }
    for words, other in others.items():
        if (other > 0).all() and _known(other):
            return f"rises {ends}: {words}"
    if table[-1] < _NOISE:
        return f"rises {ends}: betas, probably; give (1 - betas).cumprod(0)"
    return (
        f"rises {ends}, where alphas_cumprod falls from near 1 to near 0: it is in the other order, or 1 - alphas_cumprod, or that one's "
        "root; give alphas_cumprod from the least noise to the most"
    )


def _known(alpha_bar: np.ndarray) -> str:
    """The name of the family whose betas these are, with round numbers; empty for none."""
    steps = len(alpha_bar)
    with np.errstate(divide="ignore", invalid="ignore"):
        betas = 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    if steps < 8 or not ((betas > 0) & (betas < 1)).all():
        return ""
    line = np.linspace(0, 1, steps)
    families = {
        "linear": (betas, line, 1),
        "scaled-linear": (np.sqrt(betas), line, 2),
        "sigmoid": (betas, 1 / (1 + np.exp(6 - 12 * line)), 1),
    }
    for name, (values, course, power) in families.items():
        if ends := _round_ends(values, course, power):
            return f"{name} betas from {ends[0]:g} to {ends[1]:g}"
    level = np.cos(((np.arange(steps) + 1) / steps + 0.008) / 1.008 * (math.pi / 2)) ** 2
    level /= np.cos(0.008 / 1.008 * (math.pi / 2)) ** 2
    # The last beta is capped.
    return _COSINE if np.abs(alpha_bar - level)[:-1].max() < 1e-4 else ""


def _round_ends(values: np.ndarray, course: np.ndarray, power: int) -> tuple[float, float] | None:
    """First and last beta of values that go ``first + (last - first) course``, where these are round numbers."""
    slope, first = np.polyfit(course, values, 1)
    # alpha-bar was float32, perhaps: a beta near 1e-4 then errs by 1e-7.
    if slope <= 0 or first <= 0 or np.abs(first + slope * course - values).max() > _FIT * values[-1]:
        return None
    ends = [float(x) ** power for x in (first, first + slope)]
    rounded = [float(f"{x:.2g}") for x in ends]
    near = all(abs(a - b) <= _FIT * b for a, b in zip(ends, rounded, strict=True))
    return (rounded[0], rounded[1]) if near else None
