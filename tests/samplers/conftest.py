"""Every sampler, and the exact mean and standard deviation of what one puts out."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import norm

from scoresde.noise import Noise
from scoresde.samplers import (
    DDIM,
    EDM,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP2M,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
    ReverseDiffusion,
    Sampler,
)
from scoresde.score import FunctionScore
from scoresde.sde import Node


class Case(NamedTuple):
    """A sampler, what is promised of it, and its evaluations on a grid of N steps.

    `nfe` is None for an adaptive solver. `alone` says whether sample i is the same in any batch.
    """

    sampler: Sampler
    nfe: Callable[[int], int] | None
    stochastic: bool = False
    alone: bool = True


def _pc(predictor, nfe, **langevin):
    steps = langevin.get("steps", 1)
    alone = langevin.get("norm") != "batch"
    sampler = PredictorCorrector(predictor, Langevin(**langevin))
    return Case(sampler, lambda n: n * (nfe + steps), stochastic=True, alone=alone)


ALL_SAMPLERS = {
    "ddim": Case(DDIM(), lambda n: n),
    "ddim-0.5": Case(DDIM(0.5), lambda n: n, stochastic=True),
    "ddim-1": Case(DDIM(1.0), lambda n: n, stochastic=True),
    "2m": Case(DPMSolverPP2M(), lambda n: n),
    "2m-lower": Case(DPMSolverPP2M(lower_order_final=True), lambda n: n),
    "ancestral-beta": Case(Ancestral("beta"), lambda n: n, stochastic=True),
    "ancestral-beta_tilde": Case(Ancestral("beta_tilde"), lambda n: n, stochastic=True),
    "em": Case(EulerMaruyama(), lambda n: n, stochastic=True),
    "em-0": Case(EulerMaruyama(eta=0.0), lambda n: n),
    "reverse": Case(ReverseDiffusion(), lambda n: n, stochastic=True),
    "annealed": Case(AnnealedLangevin(3, 1.0), lambda n: 3 * (n + 1), stochastic=True),
    "pc": _pc(ReverseDiffusion(), 1),
    "pc-2": _pc(EDM(churn=1.0), 2, steps=2),
    "pc-batch": _pc(Ancestral(), 1, norm="batch"),
    "edm": Case(EDM(), lambda n: 2 * n),
    "edm-churn": Case(EDM(churn=4.0, s_noise=1.003), lambda n: 2 * n, stochastic=True),
    "ode-euler": Case(ProbabilityFlowODE("euler"), lambda n: n),
    "ode-midpoint": Case(ProbabilityFlowODE("midpoint"), lambda n: 2 * n),
    "ode-heun2": Case(ProbabilityFlowODE("heun2"), lambda n: 2 * n),
    "ode-heun3": Case(ProbabilityFlowODE("heun3"), lambda n: 3 * n),
    "ode-rk4": Case(ProbabilityFlowODE("rk4"), lambda n: 4 * n),
    **{
        f"ode-{method}": Case(ProbabilityFlowODE(method, tol, tol), None, alone=False)
        for method, tol in (
            ("dopri8", 1e-3),
            ("dopri5", 1e-3),
            ("bosh3", 1e-3),
            ("fehlberg2", 1e-5),
            ("adaptive_heun", 1e-3),
        )
    },
}


def _some(wanted):
    names = [name for name, case in ALL_SAMPLERS.items() if wanted(case)]
    return {"params": [ALL_SAMPLERS[name] for name in names], "ids": names}


@pytest.fixture(**_some(lambda case: True))
def any_sampler(request):
    """Each sampler in turn; a new one joins `ALL_SAMPLERS` and every law applies to it."""
    return request.param


@pytest.fixture(**_some(lambda case: case.nfe is not None))
def grid_case(request):
    """Each sampler that takes the grid's steps."""
    return request.param


@pytest.fixture(**_some(lambda case: case.alone))
def alone_case(request):
    """Each sampler of which sample i is the same alone and in any batch."""
    return request.param


@pytest.fixture(**_some(lambda case: case.nfe is not None and not case.stochastic))
def deterministic_case(request):
    """Each deterministic sampler on a grid."""
    return request.param


@pytest.fixture
def elementwise():
    """elementwise(sde): the score of N(0.3, 0.5² I) in any shape, cheap and in the dtype of x."""

    def make(sde):
        @functools.cache
        def numbers(t):
            return float(sde.alpha(t)), float(sde.sigma(t))

        def eps(x, t):
            a, s = numbers(float(t))
            return (x - 0.3 * a) * (s / (0.25 * a**2 + s**2))

        return FunctionScore(sde, eps)

    return make


class _Impulse(Noise):
    """Row k + 2 gets a unit at the k-th draw, everything else 0."""

    def __init__(self):
        self.draws = 0

    def _normal(self, shape, purpose):
        z = torch.zeros(shape, dtype=torch.float64)
        if self.draws + 2 < shape[0]:
            z[self.draws + 2] = 1.0
        self.draws += 1
        return z


@pytest.fixture(scope="session")
def moments():
    """moments(model, sampler, ts, mean, std): exact mean and std of the output, no Monte Carlo.

    For one-dimensional Gaussian data every step is affine in x and in each draw, so one batch of
    unit impulses (row 0: nothing, row 1: the start, then one row per draw) gives all coefficients.
    """

    def run(model, sampler, ts, mean=0.0, std=1.0, denoise=False):
        counter = _Impulse()
        with torch.no_grad():
            free = FunctionScore(model.sde, lambda x, t: x)
            sampler.run(free, torch.zeros(1, 1, dtype=torch.float64), ts, counter)
            x = torch.zeros(counter.draws + 2, 1, dtype=torch.float64)
            x[1] = 1.0
            x = sampler.run(model, x, ts, _Impulse())
            if denoise:
                x = model.x0(x, float(ts[-1]))
        offset, coefficients = x[0, 0], x[1:, 0] - x[0, 0]
        shift = mean * coefficients[0]
        coefficients[0] *= std
        return float(offset + shift), float(coefficients.square().sum().sqrt())

    return run


@pytest.fixture
def points():
    """49 fixed x_T: the 7 × 7 grid of normal quantiles at (i − 1/2)/7."""
    q = torch.tensor(norm.ppf((np.arange(7) + 0.5) / 7))
    return torch.cartesian_prod(q, q)


@pytest.fixture(scope="session")
def exact_ode():
    """exact_ode(model, x, t_min): the mixture's probability-flow ODE from t = 1, by SciPy at 1e-12.

    Solved in λ, where d(x/α)/dλ = −(σ/α) ε: this knows nothing of f and g.
    """
    known = {}

    def solve(model, x, t_min):
        def rhs(lam, y):
            node = Node(0.0, 1.0, math.exp(-lam), lam, 0.0, 0.0)
            return -node.sigma * model.eps(torch.from_numpy(y).reshape(x.shape), node).flatten()

        first, last = model.sde.nodes(torch.tensor([1.0, t_min], dtype=torch.float64))
        key = (first, last, x.numpy().tobytes())
        if key not in known:
            start = (x / first.alpha).flatten().numpy()
            span = (first.lam, last.lam)
            known[key] = solve_ivp(rhs, span, start, "DOP853", rtol=1e-12, atol=1e-12)
            assert known[key].success
        return torch.from_numpy(known[key].y[:, -1]).reshape(x.shape) * last.alpha

    return solve


@pytest.fixture
def rms():
    """rms(a, b): root mean square over the batch of the Euclidean distance."""
    return lambda a, b: math.sqrt(float((a - b).square().sum(1).mean()))
