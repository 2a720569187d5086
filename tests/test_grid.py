"""Laws of the time grids: exact ends, strict order, and what each one spaces equally."""

import math

import numpy as np
import pytest
import torch

from scoresde import grid
from scoresde.sde import VE, VP, SubVP

STEPS = [1, 2, 3, 5, 10, 18, 19, 20, 21, 37, 999, 1000, 1001]

# σ of Karras et al.'s grid for N = 18, σ from 0.002 to 80, ρ = 7, computed in numpy; the last
# of the paper's values is the 0 of the final denoise.
EDM_SIGMAS = [
    80, 57.58598472124816, 40.78557379650796, 28.37458460415684, 19.35245298032522,
    12.91008238075732, 8.400935309099816, 5.315194521796382, 3.256821519765537,
    1.923339837040052, 1.088170636545279, 0.5853481231945422, 0.2964422844791573,
    0.1395164687310168, 0.05994731123547159, 0.02293451837233338, 7.528019962784078e-3,
    2.000000000000003e-3,
]  # fmt: skip


@pytest.mark.parametrize("name", grid.GRIDS)
@pytest.mark.parametrize(("t_min", "t_max"), [(1e-3, 1.0), (1e-5, 0.7)])
def test_ends_are_exact_and_times_decrease(sde, name, t_min, t_max):
    for steps in STEPS:
        ts = grid.GRIDS[name](sde, steps, t_min, t_max)
        assert ts.shape == (steps + 1,)
        assert ts.dtype == torch.float64
        assert float(ts[0]) == t_max
        assert float(ts[-1]) == t_min
        assert bool((ts.diff() < 0).all())


@pytest.mark.parametrize(
    ("name", "coordinate"),
    [
        ("uniform", lambda sde, t: t),
        ("quadratic", lambda sde, t: torch.sqrt(t)),
        ("log_snr", lambda sde, t: sde.lam(t)),
        ("karras", lambda sde, t: (sde.sigma(t) / sde.alpha(t)) ** (1 / 7)),
    ],
)
def test_each_grid_spaces_its_coordinate_equally(sde, name, coordinate):
    values = coordinate(sde, grid.GRIDS[name](sde, 100, 1e-4))
    steps = values.diff()
    # λ near t = 1 has lost up to 9 of 16 digits to 1 − σ (TabulatedVP, CosineVP: λ of t)
    torch.testing.assert_close(steps, steps.mean().expand(100), rtol=1e-9, atol=0)


def test_karras_is_the_edm_grid():
    """EDM's grid is VE's: x/α and σ/α are x and σ."""
    sde = VE(sigma_min=0.002, sigma_max=80.0)
    sigmas = sde.sigma(grid.karras(sde, 17, t_min=0.0))
    np.testing.assert_allclose(sigmas, EDM_SIGMAS, rtol=1e-13)


def test_rho_moves_karras_from_equal_sigma_to_equal_log_sigma():
    sde = VE()
    linear = sde.sigma(grid.karras(sde, 50, rho=1.0))
    torch.testing.assert_close(linear.diff(), linear.diff()[:1].expand(50), rtol=1e-9, atol=0)
    # (σ^{1/ρ} − 1) ρ → log σ, with an error of (log σ_max/σ_min)²/ρ = 73/ρ in log σ
    geometric = grid.karras(sde, 50, rho=1e5)
    torch.testing.assert_close(geometric, grid.log_snr(sde, 50), rtol=0, atol=1e-3)


def test_a_grid_from_a_list():
    ts = [1.0, 0.5, 0.25]
    for given in (ts, tuple(ts), torch.tensor(ts), np.array(ts)):
        got = grid.from_list(given)
        assert got.dtype == torch.float64
        assert got.tolist() == ts
    assert grid.check_grid(torch.tensor([1, 0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        ([1.0], r"must have shape \(N \+ 1,\) with N ≥ 1, got \(1,\)"),
        ([[1.0, 0.5]], r"must have shape \(N \+ 1,\) with N ≥ 1, got \(1, 2\)"),
        ([1.0, math.nan], r"must lie in \[0, 1\]"),
        ([1.1, 0.5], r"must lie in \[0, 1\]"),
        ([1.0, -0.1], r"must lie in \[0, 1\]"),
        ([1.0, 0.5, 0.5, 0.1], r"must decrease strictly, got t\[1\] = 0.5 and t\[2\] = 0.5"),
        ([0.1, 0.5], r"must decrease strictly, got t\[0\] = 0.1 and t\[1\] = 0.5"),
    ],
)
def test_bad_lists_are_refused(ts, message):
    with pytest.raises(ValueError, match=message):
        grid.from_list(ts)


@pytest.mark.parametrize("name", grid.GRIDS)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": -5}, ValueError, "steps must be at least 1, got -5"),
        ({"steps": 1.5}, TypeError, "steps must be an integer, got 1.5"),
        ({"steps": True}, TypeError, "steps must be an integer, got True"),
        ({"t_min": 1.0}, ValueError, "t_min must be less than 1.0, got 1.0"),
        ({"t_min": -1e-3}, ValueError, "t_min must be at least 0, got -0.001"),
        ({"t_min": math.nan}, ValueError, "t_min must be finite, got nan"),
        ({"t_max": 1.5}, ValueError, "t_max must be at most 1, got 1.5"),
        ({"t_min": 0.5, "t_max": 0.5}, ValueError, "t_min must be less than 0.5, got 0.5"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, error, message):
    with pytest.raises(error, match=message):
        grid.GRIDS[name](VP(), **({"steps": 10} | arguments))


@pytest.mark.parametrize("make", [grid.log_snr, grid.karras])
@pytest.mark.parametrize("sde", [VP(), SubVP()], ids=["VP", "SubVP"])
def test_grids_in_lam_need_noise_at_their_end(make, sde):
    with pytest.raises(ValueError, match="t_min must be greater than 0 for"):
        make(sde, 10, t_min=0.0)


@pytest.mark.parametrize("rho", [0, -1.0, math.nan])
def test_rho_must_be_positive(rho):
    with pytest.raises(ValueError, match="rho must be"):
        grid.karras(VP(), 10, rho=rho)
