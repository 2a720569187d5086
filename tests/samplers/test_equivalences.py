"""Samplers that are the same method under two names, and the weights that they share."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, simpson

from scoresde import grid
from scoresde.exact import GaussianMixture
from scoresde.noise import SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    IPNDM,
    Ancestral,
    AngularAdams,
    DPMSolverMultistep,
    DPMSolverSinglestep,
    ExponentialAB,
    RungeKutta,
    SASolver,
    UniPC,
    sample,
)
from scoresde.samplers.weights import interval, lagrange_weights, phi
from scoresde.sde import VE, VP

PAIRS = {
    "DPM-Solver-1 is DDIM": (DPMSolverSinglestep(1, "eps"), DDIM()),
    "DPM-Solver++ 1S is DDIM": (DPMSolverSinglestep(1, "x0"), DDIM()),
    "DPM-Solver++ 1M is DDIM": (DPMSolverMultistep(1), DDIM()),
    "SDE-DPM-Solver++ 1 is ancestral": (DPMSolverMultistep(1, eta=1.0), Ancestral("beta_tilde")),
    "UniPC-1 without corrector is DDIM": (UniPC(1, corrector=False), DDIM()),
    "UniPC-2 without corrector and with B2 is 2M": (
        UniPC(2, "B2", corrector=False),
        DPMSolverMultistep(2),
    ),
    "exponential AB of order 1 is DDIM": (ExponentialAB(1), DDIM()),
    "iPNDM of order 1 is DDIM": (IPNDM(1), DDIM()),
    "SA-Solver at η = 0 is exponential AB in x0": (
        SASolver(4, 0, eta=0.0, lower_order_final=False),
        ExponentialAB(4, "x0"),
    ),
    "Euler's method in σ/α is DDIM": (RungeKutta("euler", "sigma"), DDIM()),
    "Heun's method in σ/α is EDM": (RungeKutta("heun2", "sigma"), EDM()),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.by_default("VE", "Linear")
def test_two_names_of_one_solver(mixture, sde, pair):
    x = torch.tensor([[0.7, -1.1], [2.0, 0.1]], dtype=torch.float64) * sde.prior_std
    for ts in (grid.uniform(sde, 9), grid.log_snr(sde, 9), grid.karras(sde, 3)):
        with torch.no_grad():
            a, b = (
                sampler.run(mixture(sde), x, ts, SampleNoise(3, [0, 1])).state for sampler in pair
            )
        # rounding of weights of up to α_s/α_t = 150, extrapolated over 9 steps
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-11)


def _rows(solver, sde, ts):
    return solver.rows(sde, sde.nodes(ts))


def test_dpm_solver_3m_is_exponential_adams_bashforth_from_the_third_step(sde):
    """So is UniPC-3's predictor for every B. The second steps differ: ½ is not the exact φ₂."""
    ts = grid.uniform(sde, 9, t_min=0.01)
    for prediction in ("x0", "eps"):
        exact = _rows(ExponentialAB(3, prediction), sde, ts)[2:]
        for solver in (
            DPMSolverMultistep(3, prediction),
            UniPC(3, "B1", corrector=False, prediction=prediction),
            UniPC(3, "B2", prediction=prediction),
        ):
            for row, expected in zip(_rows(solver, sde, ts)[2:], exact, strict=True):
                assert row.carry == pytest.approx(expected.carry, rel=1e-14)
                size = max(map(abs, expected.weights))
                assert row.weights == pytest.approx(expected.weights, abs=1e-11 * size)


def test_unipc_solves_for_the_same_corrector_whatever_b(sde):
    ts = grid.log_snr(sde, 6)
    for one, two in zip(
        *(_rows(UniPC(3, variant), sde, ts)[1:-1] for variant in ("B1", "B2")),
        strict=True,
    ):
        assert one.corrector == pytest.approx(two.corrector, rel=1e-9)


def test_adams_bashforth_in_sigma_over_alpha_on_equal_steps_is_ipndm(sde):
    """DEIS ρAB is iPNDM for variable steps, so that they agree where steps in σ/α are equal."""
    sigma_hat = torch.linspace(9.0, 1.0, 9, dtype=torch.float64)
    ts = sde.t_of_lam(-sigma_hat.log())
    for order in (1, 2, 3, 4):
        a, b = (
            _rows(solver, sde, ts)
            for solver in (ExponentialAB(order, "eps", "sigma"), IPNDM(order))
        )
        for row, expected in zip(a, b, strict=True):
            assert row.weights == pytest.approx(expected.weights, rel=1e-8)


def test_a_constant_or_polynomial_output_is_integrated_exactly(sde):
    """Σ_j w_j p(u_j) = ∫ kernel p(u(λ)) dλ for every polynomial p that the order promises."""
    ts = torch.tensor([0.9, 0.7, 0.6, 0.35, 0.3, 0.1], dtype=torch.float64)
    nodes = sde.nodes(ts)
    t, s = nodes[-2:]
    for prediction in ("eps", "x0"):
        to = interval(t, s, prediction)
        for variable, u in (
            ("lam", lambda lam: lam),
            ("sigma", lambda lam: np.exp(-lam)),
            ("t", lambda lam: sde.t_of_lam(torch.as_tensor(lam)).numpy()),
        ):
            row = ExponentialAB(4, prediction, variable).rows(sde, nodes)[-1]
            known = u(np.array([node.lam for node in nodes[-2:-6:-1]]))
            for power in range(4):
                got = sum(
                    w * (v / known[0]) ** power for w, v in zip(row.weights, known, strict=True)
                )
                lam = np.linspace(t.lam, s.lam, 4001)
                values = u(lam) / known[0]
                exact = simpson(np.exp(-to.rate * (s.lam - lam)) * values**power, x=lam)
                # cubics of a tabulated schedule have joints, which both quadratures see
                assert got == pytest.approx(
                    to.gain * exact, rel=3e-6 if _joints(sde, variable) else 1e-9
                )


def _joints(sde, variable):
    return variable == "t" and hasattr(sde, "betas")


@pytest.mark.parametrize("d", [1.0, 3.0])
def test_angular_weights_integrate_polynomials_in_the_angle(sde, d):
    nodes = sde.nodes(torch.tensor([0.9, 0.7, 0.6, 0.35, 0.3, 0.1], dtype=torch.float64))
    size = [math.hypot(d * node.alpha, node.sigma) for node in nodes]
    theta = [math.atan2(node.sigma, d * node.alpha) for node in nodes]
    rows = AngularAdams(4, data_std=d).rows(sde, nodes)
    for weights, newest in ((rows[-1].weights, 4), (rows[-2].corrector, 4)):
        begin, end = (4, 5) if weights is rows[-1].weights else (3, 4)
        for power in range(len(weights)):
            used = range(newest, newest - len(weights), -1)
            # v = n θ^k makes v/n a polynomial
            got = sum(w * size[j] * theta[j] ** power for w, j in zip(weights, used, strict=True))
            exact = (theta[end] ** (power + 1) - theta[begin] ** (power + 1)) / (power + 1)
            assert got == pytest.approx(size[end] * exact, rel=1e-10)


def test_an_angular_step_is_exact_for_a_gaussian_of_the_standard_deviation_it_assumes(sde):
    """v is 0 for N(0, d² I), so that x/n is constant down to σ = 0."""
    d = 2.5
    model = GaussianMixture(sde, [1.0], torch.zeros(1, 3), [d**2])
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = sample(model, AngularAdams(data_std=d, to_data=True), [1.0, 0.4], x_init=x, seed=0)
    first = sde.nodes([1.0])[0]
    torch.testing.assert_close(out.x, d * x / math.hypot(d * first.alpha, first.sigma))


def test_an_assumed_standard_deviation_is_a_unit_of_length():
    """Data d y under VE(d a, d b) give d times the samples of y under VE(a, b)."""
    d, ts = 4.0, [1.0, 0.8, 0.5, 0.3, 0.1]
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ends = []
    for unit in (1.0, d):
        means = unit * torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
        model = GaussianMixture(VE(unit * 0.1, unit * 5), [0.4, 0.6], means, [0.1 * unit**2] * 2)
        sampler = AngularAdams(2, data_std=unit)
        ends.append(sample(model, sampler, ts, (6, 2), x_init=5 * unit * x, seed=0).x / unit)
    torch.testing.assert_close(*ends)


def test_the_step_to_the_data_corrects_the_state_before_it(sde):
    """A further step of no length shows the corrected state; Euler's step in θ follows."""
    model = GaussianMixture(sde, [0.3, 0.7], [[1.0, -1.0], [0.0, 2.0]], [0.1, 0.3])
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ts, last = [1.0, 0.7, 0.4, 0.2], sde.nodes([0.2])[0]
    plain = {"sampler": AngularAdams(2), "x_init": x, "seed": 0, "denoise": False}
    predicted = sample(model, ts=ts, **plain).x
    corrected = sample(model, ts=[*ts, 0.2 - 1e-12], **plain).x
    assert float((predicted - corrected).abs().max()) > 1e-3
    theta = math.atan2(last.sigma, last.alpha)
    wanted = (corrected - theta * model.v(predicted, last)) / math.hypot(last.alpha, last.sigma)
    out = sample(model, AngularAdams(2, to_data=True), ts, x_init=x, seed=0)
    torch.testing.assert_close(out.x, wanted, rtol=1e-9, atol=1e-9)
    assert out.nfe == 4


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_phi_functions_are_their_integrals(k):
    for z in (-9.0, -2.1, -1.9, -0.3, -1e-9, 0.0, 1e-5, 0.7, 2.5, 9.0):
        exact = math.exp(z)
        if k:
            exact = quad(
                lambda theta, z=z: (
                    math.exp((1 - theta) * z) * theta ** (k - 1) / math.factorial(k - 1)
                ),
                *(0, 1),
                epsabs=0,
                epsrel=1e-13,
            )[0]
        assert phi(k, z) == pytest.approx(exact, rel=3e-13)


def test_weights_are_exact_for_long_and_short_steps():
    """∫ e^{−rate (λ_s − λ)} dλ and its first moment, in closed form."""
    for h in (1e-6, 0.1, 1.0, 5.0, 10.0):
        for rate in (-1.0, 1.0, 2.0):
            one, two = lagrange_weights(np.array([0.3 - h, 0.3, 0.3 + h]), rate, [1, 2])
            assert one == pytest.approx([h * phi(1, -rate * h)], rel=1e-13)
            assert float(-two[1] * h) == pytest.approx(h**2 * phi(2, -rate * h), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPMSolverSinglestep(4), "order must be at most 3, got 4"),
        (lambda: DPMSolverMultistep(0), "order must be at least 1, got 0"),
        (lambda: DPMSolverMultistep(2, "v"), "prediction must be one of x0, eps, got 'v'"),
        (lambda: DPMSolverMultistep(2, copied=True), "copied is a form of order 3, got order 2"),
        (lambda: DPMSolverMultistep(2, eta=-1.0), "eta must be at least 0"),
        (lambda: UniPC(4), "order must be at most 3"),
        (lambda: UniPC(2, "B3"), "variant must be one of B1, B2, got 'B3'"),
        (lambda: ExponentialAB(5), "order must be at most 4, got 5"),
        (lambda: ExponentialAB(2, "eps", "rho"), "variable must be one of lam, t, sigma"),
        (lambda: IPNDM(5), "order must be at most 4"),
        (lambda: AngularAdams(0), "order must be at least 1"),
        (lambda: AngularAdams(data_std=0), "data_std must be greater than 0"),
        (lambda: RungeKutta("rk5"), "method must be one of euler, .*rk4, got 'rk5'"),
        (lambda: RungeKutta("rk4", "rho"), "variable must be one of t, lam, sigma"),
    ],
)
def test_bad_arguments_of_solvers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_orders_fall_at_the_end_if_asked():
    nodes = VP().nodes(grid.log_snr(VP(), 6))
    for solver in (
        DPMSolverMultistep(3, lower_order_final=True),
        UniPC(3, lower_order_final=True),
        ExponentialAB(3, lower_order_final=True),
    ):
        assert [len(row.weights) for row in solver.rows(VP(), nodes)] == [1, 2, 3, 3, 2, 1]


def test_unipc_corrects_all_steps_but_the_last():
    """The last step would need one more output, which is never computed."""
    for order in (1, 2, 3):
        rows = UniPC(order).rows(VP(), VP().nodes(grid.log_snr(VP(), 6)))
        corrected = [bool(row.corrector) for row in rows]
        assert corrected == [True] * 5 + [False]
