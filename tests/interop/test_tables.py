"""Tables that are given for alphas_cumprod: the right ones pass, whatever their family, and others are named."""

import numpy as np
import pytest

from consistency_lab.errors import UserError
from consistency_lab.interop.tables import check_table

T = 1000
LINE = np.linspace(0, 1, T)
BETAS = {
    "ddpm": 1e-4 + LINE * (0.02 - 1e-4),
    "half": 1e-4 + LINE * (0.01 - 1e-4),
    "scaled": (0.00085**0.5 + LINE * (0.012**0.5 - 0.00085**0.5)) ** 2,
    "sigmoid": 1e-4 + (0.02 - 1e-4) / (1 + np.exp(6 - 12 * LINE)),
    "hundred": np.linspace(1e-3, 0.2, 100),
}
TABLES = {name: np.cumprod(1 - betas) for name, betas in BETAS.items()}
LEVEL = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
TABLES["cosine"] = np.cumprod(1 - np.minimum(1 - LEVEL[1:] / LEVEL[:-1], 0.999))


def rescaled():
    """Zero terminal SNR (Lin et al. 2305.08891, algorithm 1), its end raised as diffusers does."""
    root = np.sqrt(TABLES["scaled"])
    table = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    table[-1] = 2**-24
    return table


EDM = (0.002 ** (1 / 7) + LINE * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
OTHERS = {
    "rescaled": rescaled(),
    "edm": 1 / (1 + EDM**2),
    "geometric": 1 / (1 + np.geomspace(0.01, 50, T) ** 2),
    "flow": (1 - LINE[1:-1]) ** 2 / ((1 - LINE[1:-1]) ** 2 + LINE[1:-1] ** 2),
    "line": np.linspace(0.999, 0.01, 20),
    "two": np.array([0.9, 0.4]),
    "not quite noise": np.cumprod(1 - np.linspace(1e-4, 0.02, 250)),
}


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*TABLES, *OTHERS])
def test_every_alphas_cumprod_passes(name, precision):
    check_table({**TABLES, **OTHERS}[name].astype(precision).astype(np.float64))


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", TABLES)
def test_the_square_root_is_named(name, precision):
    root = np.sqrt(TABLES[name].astype(precision)).astype(np.float64)
    with pytest.raises(UserError, match=r"square root of .*sqrt\(alphas_cumprod\), probably; give its square"):
        check_table(root)


@pytest.mark.parametrize("name", BETAS)
def test_what_else_it_may_be_is_named(name):
    betas, table = BETAS[name], TABLES[name]
    for other, said in [
        (betas, "betas, probably"),
        (1 - betas, "alphas = 1 - betas"),
        (np.sqrt(1 / table - 1), "noise scales"),
        (np.log(table), "logarithms"),
        (table[::-1], "from noise to data, probably"),
        (np.sqrt(1 - table), "rises"),
    ]:
        with pytest.raises(UserError, match=said):
            check_table(other)


def test_a_table_that_ends_before_the_noise():
    with pytest.raises(UserError, match="give the whole table"):
        check_table(np.linspace(0.999, 0.97, 5))


def test_the_end_without_signal_has_a_way_out():
    table = TABLES["scaled"].copy()
    table[-1] = 0
    with pytest.raises(UserError, match=r"2\*\*-24"):
        check_table(table)
    table[-1] = 2**-24
    check_table(table)
