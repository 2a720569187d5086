"""The reverse SDE with a step size per sample: law, batches, cost and Brownian path."""

import math

import pytest
import torch
from scipy.stats import kstest

from scoresde import grid
from scoresde.ivp import SolverError, Status
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import AdaptiveSDE, ProbabilityFlowODE, sample
from scoresde.samplers.adaptive_sde import _Increments
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP, TabulatedVP

DOUBLE = torch.float64
T_MIN = 1e-3


def run(model, sampler, n, seed=0, **options):
    ts = grid.uniform(model.sde, 1, T_MIN)
    shape = (n, *model.shape)
    return sample(
        model, sampler, ts, shape, noise=BatchNoise(seed), dtype=DOUBLE, denoise=False, **options
    )


@pytest.mark.parametrize(
    ("tolerance", "bias", "n"),
    [(0.1, 0.02, 2500), pytest.param(0.02, 0.005, 10_000, marks=pytest.mark.slow)],
)
@pytest.mark.by_default("VP", "Linear")
def test_mean_and_spread_of_a_gaussian(gaussian, sde, tolerance, bias, n):
    """In one dimension a quarter of the steps is rejected. Their noise must be used again.

    New noise would make the standard deviation 0.09 and 0.13 too large under VP. The bounds on it
    are 0.048 and 0.019.
    """
    out = run(gaussian(sde), AdaptiveSDE(tolerance, tolerance), n)
    alpha, sigma = float(sde.alpha(T_MIN)), float(sde.sigma(T_MIN))
    std = math.sqrt(0.25 * alpha**2 + sigma**2)
    # 4 standard errors, and the bias of finite steps, which goes down with the tolerance
    assert float(out.x.mean()) == pytest.approx(0.3 * alpha, abs=4 * std / n**0.5 + bias)
    assert float(out.x.std()) == pytest.approx(std, abs=4 * std / (2 * n) ** 0.5 + bias)
    assert int(out.counts.rejected.sum()) > 0.1 * int(out.counts.accepted.sum())


@pytest.mark.slow
def test_weights_of_a_mixture(mixture):
    n = 4000
    out = run(mixture(VP()), AdaptiveSDE(0.05, 0.05), n)
    # left of −0.2 there is little but the first component
    exact = mixture(VP()).sample(200_000, T_MIN, seed=1)
    share = float((exact[:, 0] < -0.2).double().mean())
    assert float((out.x[:, 0] < -0.2).double().mean()) == pytest.approx(
        share, abs=4 * (share * (1 - share) / n) ** 0.5 + 0.01
    )


@pytest.mark.slow
def test_the_bias_shrinks_with_the_tolerance_and_the_cost_grows(gaussian):
    """All runs have the same noise, so that they differ by their bias alone."""
    model = gaussian(VP(), 16)
    coarse, middle, fine = (run(model, AdaptiveSDE(tol, tol), 500) for tol in (0.5, 0.05, 0.005))
    target = math.sqrt(0.25 * float(VP().alpha(T_MIN)) ** 2 + float(VP().sigma(T_MIN)) ** 2)
    gaps = [abs(float(out.x.std()) - target) for out in (coarse, fine)]
    assert gaps[1] < 0.5 * gaps[0]
    costs = [float(out.counts.evaluations.double().mean()) for out in (coarse, middle, fine)]
    # E ∝ h^1.5, so that steps ∝ tolerance^(2/3): 4.6 times as many for a tenth
    assert costs[1] / costs[0] > 2
    assert 3 < costs[2] / costs[1] < 7


def test_without_noise_it_solves_the_probability_flow_ode(gaussian):
    model = gaussian(VP(), 2)
    start = torch.linspace(-2, 2, 10, dtype=DOUBLE).reshape(5, 2)
    exact = run(model, ProbabilityFlowODE("dopri8", 1e-10, 1e-10), 5, x_init=start).x
    errors = []
    for tolerance in (1e-3, 1e-5):
        out = run(model, AdaptiveSDE(tolerance, tolerance, eta=0.0), 5, x_init=start)
        errors.append(float((out.x - exact).abs().max()))
    # Heun's error is an order below the one that is controlled, the difference to Euler's
    assert errors[0] < 1e-3
    assert errors[1] < 1e-5


@pytest.mark.parametrize(
    "sde",
    [
        pytest.param(VE(), id="VE"),
        pytest.param(TabulatedVP(VP().ddpm_betas(1000)), id="table", marks=pytest.mark.slow),
    ],
)
def test_a_sample_does_not_depend_on_its_batch(mixture, sde):
    """Alone, permuted or in chunks it gives the same result to rounding and the same counts.

    Of all SDEs, VE has the largest states, and a table has kinks in f.
    """
    model, sampler = mixture(sde), AdaptiveSDE(0.1, 0.1)
    ts = grid.uniform(sde, 1, T_MIN)
    whole = sample(model, sampler, ts, (7, 2), seed=3, dtype=DOUBLE)
    assert len(set(whole.counts.evaluations.tolist())) > 1  # else nobody would have left early
    assert int(whole.counts.rejected.sum()) > 0
    for order in ([5], [6, 2, 0]):
        noise = SampleNoise(3, order)
        part = sample(model, sampler, ts, (len(order), 2), noise=noise, dtype=DOUBLE)
        assert torch.allclose(part.x, whole.x[order], rtol=1e-10, atol=1e-10)
        assert torch.equal(part.counts.evaluations, whole.counts.evaluations[order])
    parts = sample(model, sampler, ts, (7, 2), seed=3, dtype=DOUBLE, batch=3)
    assert torch.allclose(parts.x, whole.x, rtol=1e-10, atol=1e-10)


def test_counts_and_nfe(gaussian):
    out = run(gaussian(VP(), 3), AdaptiveSDE(0.1, 0.1), 6)
    counts = out.counts
    assert counts.status.tolist() == [Status.DONE] * 6
    assert torch.equal(counts.evaluations, 2 * (counts.accepted + counts.rejected))
    assert out.nfe == int(counts.evaluations.max())


def test_it_ends_on_the_last_time_exactly(elementwise):
    model, times, reached = elementwise(VE()), [], []
    inner = model.function
    model.function = lambda x, t: times.extend(t.tolist()) or inner(x, t)
    ts = grid.uniform(VE(), 3, 1e-5, 0.9)
    sample(
        model,
        AdaptiveSDE(0.5, 0.5),
        ts,
        (4, 2),
        denoise=False,
        on_step=lambda i, t, x: reached.append(t),
    )
    assert (min(times), max(times)) == (1e-5, 0.9)
    assert reached[-1] == 1e-5
    assert reached == sorted(reached, reverse=True)


def test_the_cap_on_steps(gaussian):
    model = gaussian(VP(), 2)
    counts = run(model, AdaptiveSDE(0.1, 0.1), 4).counts
    steps = int(counts.evaluations.max()) // 2
    run(model, AdaptiveSDE(0.1, 0.1, max_steps=steps), 4)
    with pytest.raises(SolverError, match="AdaptiveSDE gave up on .* of 4 samples.*at t=0") as bad:
        run(model, AdaptiveSDE(0.1, 0.1, max_steps=steps - 1), 4)
    assert int(bad.value.counts.evaluations.max()) == 2 * (steps - 1)


def test_a_solution_that_explodes_is_an_error():
    model = FunctionScore(VP(), lambda x, t: -1e3 * x**3)
    with pytest.raises(RuntimeError, match="AdaptiveSDE gave up|non-finite"):
        sample(model, AdaptiveSDE(), grid.uniform(VP(), 1), (2, 2), seed=0)


def test_the_path_is_brownian_however_it_is_divided():
    """W_1 ~ N(0, 1) where steps are refused for their increments and shortened, as in the solver.

    If a refused increment were drawn anew, nearly all increments would be below 0.15.
    """
    generator = torch.Generator().manual_seed(0)
    n, passed = 5000, []
    t = torch.full((n,), 1.0, dtype=DOUBLE)
    path, total = _Increments(torch.zeros(n, 1, dtype=DOUBLE)), torch.zeros(n, dtype=DOUBLE)
    wish = torch.full((n,), 0.3, dtype=DOUBLE)
    for _ in range(1000):
        t_new = path.target(t, (t - wish).clamp(min=0.0))
        assert bool((t_new >= (t - wish) * (1 - 1e-15) - 1e-15).all())
        z = torch.randn(n, 1, dtype=DOUBLE, generator=generator)
        w = path.increment(t, t_new, z)[:, 0]
        running = t > 0
        taken = running & ((w.abs() < 0.15) | (t - t_new < 0.02))
        total += torch.where(taken, w, 0.0)
        wish = torch.where(taken, 2 * (t - t_new), 0.4 * (t - t_new)).clamp(min=1e-3)
        t = torch.where(taken, t_new, t)
        path.forget(taken)
        going = t > 0
        passed.append(total[~going])
        path.keep(going)
        t, total, wish = t[going], total[going], wish[going]
        n = len(t)
        if n == 0:
            break
    end = torch.cat(passed)
    assert len(end) == 5000
    # one false alarm in 10,000 seeds
    assert kstest(end.numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rtol": 0.0}, ValueError, "rtol must be greater than 0"),
        ({"rtol": 1.0}, ValueError, "rtol must be less than 1"),
        ({"atol": 0.0}, ValueError, "atol must be greater than 0"),
        ({"eta": -0.1}, ValueError, "eta must be at least 0"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1"),
        ({"max_steps": 1.5}, TypeError, "max_steps must be an integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        AdaptiveSDE(**arguments)


def test_rtol_below_float32_is_refused_before_the_network_is_called():
    def never(x, t):
        raise AssertionError("called")

    with pytest.raises(ValueError, match="rtol must be at least 1e-07 in float32, got 1e-09"):
        sample(FunctionScore(VP(), never), AdaptiveSDE(1e-9), grid.uniform(VP(), 1), (1, 1), seed=0)
