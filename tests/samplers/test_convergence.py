"""Deterministic samplers: known end points, and results that do not depend on the SDE.

Orders are measured by the claims of `scoresde verify`, in `tests/verification/test_verify.py`.
"""

import itertools
import math

import pytest
import torch

from scoresde import grid
from scoresde.noise import SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    IPNDM,
    Ancestral,
    AngularAdams,
    AnnealedLangevin,
    DPMSolverMultistep,
    DPMSolverSinglestep,
    EulerMaruyama,
    ExponentialAB,
    RungeKutta,
    UniPC,
    sample,
)
from scoresde.sde import VE, VP, SubVP


def _run(model, sampler, x, ts):
    with torch.no_grad():
        return sampler.run(model, x.double(), ts, None).state


# Sampler, grid, N and the end point for N(0.3, 0.5²) from x_T = 1
END_POINTS = [
    (DDIM(), grid.log_snr, 10, 0.692854200483634),
    (DPMSolverMultistep(), grid.log_snr, 10, 0.815423069448523),
    (DPMSolverMultistep(lower_order_final=True), grid.log_snr, 10, 0.810242367326881),
    (DPMSolverMultistep(lower_order_final=True), grid.log_snr, 20, 0.805457355145114),
    (DPMSolverMultistep(3), grid.log_snr, 10, 0.825905874053201),
    (DPMSolverMultistep(3, copied=True), grid.log_snr, 10, 0.830941085096932),
    (DPMSolverSinglestep(2, "x0"), grid.log_snr, 10, 0.775775383237527),
    (DPMSolverSinglestep(2, "eps"), grid.log_snr, 10, 0.832325463590463),
    (DPMSolverSinglestep(3, "eps"), grid.log_snr, 10, 0.800040072214823),
    (DDIM(), grid.uniform, 10, 0.673616489983783),
    (DDIM(), grid.uniform, 50, 0.771679653873266),
]


@pytest.mark.parametrize(("sampler", "spacing", "steps", "expected"), END_POINTS)
def test_end_points_for_gaussian_data(gaussian, sampler, spacing, steps, expected):
    x = _run(gaussian(VP()), sampler, torch.ones(1, 1), spacing(VP(), steps))
    assert float(x) == pytest.approx(expected, abs=1e-12)  # rounding of 10 to 50 steps


# Of the mixture, for N = 10 on equal steps in λ
MIXTURE_STARTS = [[0.5, -1.0], [-1.2, 0.3], [2.0, 1.5]]
MIXTURE_END_POINTS = {
    DPMSolverMultistep(): [
        [0.82294415640022, -0.78130438267047],
        [-1.38849749032382, 0.54106738229259],
        [0.74609442017213, 1.45204898172343],
    ],
    DDIM(): [
        [0.62697943293628, -0.53432639873580],
        [-1.16063200627992, 0.53339507226880],
        [0.60793372471712, 1.25287543059809],
    ],
}


@pytest.mark.parametrize(("sampler", "expected"), MIXTURE_END_POINTS.items())
def test_end_points_for_a_mixture(mixture, sampler, expected):
    start = torch.tensor(MIXTURE_STARTS, dtype=torch.float64)
    x = _run(mixture(VP()), sampler, start, grid.log_snr(VP(), 10))
    exact = torch.tensor(expected, dtype=torch.float64)
    assert torch.allclose(x, exact, rtol=0, atol=1e-12)


def test_euler_and_heun_errors_on_uniform_t(mixture, points, exact_ode, rms):
    model, ts = mixture(VP()), grid.uniform(VP(), 100)
    exact = exact_ode(model, points, 1e-3)
    for sampler, expected in (
        (EulerMaruyama(eta=0.0), 3.950e-3),
        (RungeKutta("euler"), 3.950e-3),
        (RungeKutta("heun2"), 4.405e-4),
    ):
        error = rms(_run(model, sampler, points, ts), exact)
        assert error == pytest.approx(expected, rel=1e-3)  # four digits are printed


# Levels, and where Heun's method on Karras et al.'s own grid takes x = 80, for N(0.3, 0.5²)
EDM_EXACT = 0.798115271281114
EDM_END_POINTS = [
    (9, 0.936663533541716),
    (18, 0.825646044612293),
    (36, 0.804199227773896),
    (72, 0.799545280142346),
    (144, 0.798459464389472),
]


def test_edm_on_its_own_grid(gaussian):
    sde = VE(0.002, 80.0)
    errors = []
    for levels, expected in EDM_END_POINTS:
        out = sample(
            gaussian(sde),
            EDM(),
            grid.karras(sde, levels - 1, t_min=0.0),
            (1, 1),
            seed=0,
            x_init=torch.full((1, 1), 80.0),
            dtype=torch.float64,
        )
        assert out.nfe == 2 * levels - 1
        assert float(out.x) == pytest.approx(expected, abs=1e-11)
        errors.append(float(out.x) - EDM_EXACT)
    ratios = [a / b for a, b in itertools.pairwise(errors[2:])]
    assert ratios == pytest.approx([4.0, 4.0], abs=0.4)  # order 2 per doubling, from N = 36


@pytest.mark.parametrize("sde", [SubVP(), VE()], ids=["SubVP", "VE"])
@pytest.mark.by_default("VE")
def test_more_evaluations_make_a_smaller_error(
    mixture, points, exact_ode, rms, sde, deterministic_case
):
    """Under two SDEs with α² + σ² ≠ 1; the slow claims of `verify` have them all."""
    model, start = mixture(sde), points[::6] * sde.prior_std
    exact = exact_ode(model, start, 1e-3)
    coarse, fine = (
        rms(_run(model, deterministic_case.sampler, start, grid.uniform(sde, n)), exact)
        for n in (15, 45)
    )
    assert fine < 0.6 * coarse  # at least order 1/2 in what three times the steps gain


@pytest.mark.parametrize(
    "sampler",
    [DDIM(), DDIM(0.7), DDIM(1.0), EDM(), EDM(2.0), Ancestral("beta_tilde")]
    + [AnnealedLangevin(steps=2), DPMSolverMultistep(3, eta=0.5), DPMSolverSinglestep(3)]
    + [UniPC(), ExponentialAB(4), AngularAdams(), IPNDM(), RungeKutta("rk4", "sigma")],
)
@pytest.mark.by_default("VP", "Linear")
def test_what_is_said_in_sigma_over_alpha_is_the_same_under_every_sde(mixture, sde, sampler):
    """At equal σ/α they give the same x/α as under VE, of which each SDE is a rescaling."""
    flat = VE(1e-3, 500.0)
    ts = grid.uniform(sde, 7, t_min=0.01, t_max=0.9)
    flat_ts = flat.t_of_lam(sde.lam(ts))
    start = torch.tensor([[0.7, -1.1], [0.2, 0.4]], dtype=torch.float64)
    with torch.no_grad():
        x = sampler.run(mixture(sde), start * sde.alpha(ts[0]), ts, SampleNoise(1, [0, 1])).state
        flat_x = sampler.run(mixture(flat), start, flat_ts, SampleNoise(1, [0, 1])).state
    # λ goes through its inverse, which is worth some 1e-13 relative in σ; states grow as σ/α
    scale = float(torch.exp(-sde.lam(ts[0])))
    assert torch.allclose(x / sde.alpha(ts[-1]), flat_x, rtol=1e-9, atol=1e-11 * max(1, scale))


def test_ddim_is_the_formula_in_eps(mixture, sde):
    """x_s = (α_s/α_t) x − σ_s (e^h − 1) ε, DPM-Solver-1. The code computes it from x0."""
    model = mixture(sde)
    t, s = sde.nodes(torch.tensor([0.6, 0.5]))
    x = torch.tensor([[0.7, -1.1]], dtype=torch.float64)
    h = s.lam - t.lam
    expected = (s.alpha / t.alpha) * x - s.sigma * (math.exp(h) - 1) * model.eps(x, t)
    got = DDIM().step(model, x, t, s, None, None)[0]
    assert torch.allclose(got, expected, rtol=0, atol=1e-12 / t.alpha)


def test_every_step_moves_x(mixture, grid_case):
    """A repeated last time would make a step of size zero."""
    sde, states = VP(), []
    ts = grid.log_snr(sde, 6)
    start = torch.tensor([[0.7, -1.1]], dtype=torch.float64) * sde.prior_std
    with torch.no_grad():
        grid_case.sampler.run(
            mixture(sde), start, ts, SampleNoise(0, [0]), lambda i, t, x: states.append(x.clone())
        )
    assert len(states) == 6
    for before, after in itertools.pairwise([start, *states]):
        assert float((after - before).abs().max()) > 1e-6
