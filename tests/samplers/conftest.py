"""Every sampler, and the exact mean and standard deviation of a sampler's output."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from scoresde._tensor import expand
from scoresde.samplers import (
    DDIM,
    EDM,
    IPNDM,
    AdaptiveSDE,
    Ancestral,
    AngularAdams,
    AnnealedLangevin,
    DPMSolverMultistep,
    DPMSolverSinglestep,
    EulerMaruyama,
    ExponentialAB,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
    Restart,
    RestartInterval,
    ReverseDiffusion,
    RungeKutta,
    Sampler,
    SASolver,
    UniPC,
)
from scoresde.score import FunctionScore
from scoresde.sde import VP
from scoresde.verification.moments import output_moments
from scoresde.verification.orders import exact_flow, rms_distance, starts


class Case(NamedTuple):
    """A sampler, its evaluations on a grid of N steps, and properties that the laws use.

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


def _times(evaluations):
    return lambda n: evaluations * n


ALL_SAMPLERS = {
    "ddim": Case(DDIM(), lambda n: n),
    "ddim-0.5": Case(DDIM(0.5), lambda n: n, stochastic=True),
    "ddim-1": Case(DDIM(1.0), lambda n: n, stochastic=True),
    "dpm-2": Case(DPMSolverSinglestep(2), _times(2)),
    "dpm-3": Case(DPMSolverSinglestep(3), _times(3)),
    "dpmpp-3s": Case(DPMSolverSinglestep(3, "x0"), _times(3)),
    "dpmpp-2m": Case(DPMSolverMultistep(2), _times(1)),
    "dpmpp-3m-lower": Case(DPMSolverMultistep(3, lower_order_final=True), _times(1)),
    "dpm-3m-copied": Case(DPMSolverMultistep(3, "eps", copied=True), _times(1)),
    "sde-dpmpp-3m": Case(DPMSolverMultistep(3, eta=1.0), _times(1), stochastic=True),
    "sde-dpm-2m": Case(DPMSolverMultistep(2, "eps", eta=0.3), _times(1), stochastic=True),
    "unipc-1": Case(UniPC(1), _times(1)),
    "unipc-2-B1": Case(UniPC(2, "B1"), _times(1)),
    "unipc-3-eps": Case(UniPC(3, prediction="eps"), _times(1)),
    "exp-ab": Case(ExponentialAB(), _times(1)),
    "exp-ab-x0": Case(ExponentialAB(2, "x0", "sigma"), _times(1)),
    "deis": Case(ExponentialAB(3, "eps", "t"), _times(1)),
    "ipndm": Case(IPNDM(), _times(1)),
    "angular": Case(AngularAdams(), _times(1)),
    "angular-4-p": Case(AngularAdams(4, corrector=False), _times(1)),
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
    "restart": Case(Restart(EDM()), lambda n: 2 * n + 2 * 2 * 2, stochastic=True),
    "restart-multistep": Case(
        Restart(SASolver(eta=0.0), [RestartInterval(1.0, 4.0, 3, 1), RestartInterval()]),
        lambda n: n + 3 + 2 * 2,
        stochastic=True,
    ),
    "sa": Case(SASolver(), lambda n: n, stochastic=True),
    "sa-0": Case(SASolver(eta=0.0), lambda n: n),
    "sa-3-4": Case(SASolver(3, 4, 0.5, 0.01, 10.0), lambda n: n, stochastic=True),
    "euler": Case(RungeKutta("euler"), _times(1)),
    "midpoint-sigma": Case(RungeKutta("midpoint", "sigma"), _times(2)),
    "heun2": Case(RungeKutta("heun2"), _times(2)),
    "heun3-lam": Case(RungeKutta("heun3", "lam"), _times(3)),
    "rk4": Case(RungeKutta("rk4"), _times(4)),
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
    **{
        f"ode-{method}-each": Case(ProbabilityFlowODE(method, 1e-3, 1e-3, per_sample=True), None)
        for method in ("dop853", "dopri5", "bosh3")
    },
    "gotta-go-fast": Case(AdaptiveSDE(0.2, 0.2), None, stochastic=True),
}


# Other methods of the same solvers, which take several times as long as a sampler on a grid.
SLOW_SAMPLERS = {
    *("ode-dopri8", "ode-bosh3", "ode-fehlberg2", "ode-adaptive_heun"),
    *("ode-dop853-each", "ode-dopri5-each"),
}


def _some(wanted):
    names = [name for name, case in ALL_SAMPLERS.items() if wanted(case)]
    slow = {name: [pytest.mark.slow] for name in SLOW_SAMPLERS}
    cases = [pytest.param(ALL_SAMPLERS[n], id=n, marks=slow.get(n, ())) for n in names]
    return {"params": cases}


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
            if t.ndim:  # a time per sample
                a, s = (expand(v(t), x).to(x) for v in (sde.alpha, sde.sigma))
            else:
                a, s = numbers(float(t))
            return (x - 0.3 * a) * (s / (0.25 * a**2 + s**2))

        return FunctionScore(sde, eps)

    return make


@pytest.fixture(scope="session")
def moments():
    """moments(model, sampler, ts, mean, std): exact mean and std of the output, no Monte Carlo."""
    return output_moments


@pytest.fixture(scope="session")
def marginal():
    """marginal(sde, t): mean and standard deviation of x_t for N(0.3, 0.5²) data."""

    def of(sde, t):
        a, s = float(sde.alpha(t)), float(sde.sigma(t))
        return 0.3 * a, math.hypot(0.5 * a, s)

    return of


@pytest.fixture
def points():
    """49 fixed x_T: the 7 × 7 grid of normal quantiles at (i − 1/2)/7."""
    return starts(VP())


@pytest.fixture(scope="session")
def exact_ode():
    """exact_ode(model, x, t_min): the probability-flow ODE from t = 1, by SciPy at 1e-12."""
    known = {}

    def solve(model, x, t_min):
        ends = model.sde.nodes(torch.tensor([1.0, t_min], dtype=torch.float64))
        key = (*ends, x.numpy().tobytes())
        if key not in known:
            known[key] = exact_flow(model, x, t_min)
        return known[key]

    return solve


@pytest.fixture
def rms():
    """rms(a, b): root mean square over the batch of the Euclidean distance."""
    return rms_distance
