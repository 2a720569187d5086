"""Restart: its steps, its cost, and its effect on errors."""

import itertools
import math

import pytest
import torch

from scoresde import grid
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    Langevin,
    PredictorCorrector,
    Restart,
    RestartInterval,
    SASolver,
    sample,
)
from scoresde.sde import VE, VP

MULTISTEP = SASolver(2, 0, 0.0, lower_order_final=False)


@pytest.mark.parametrize(
    ("inner", "gain", "band"), [(EDM(), 4.0, 0.5), (DDIM(), 2.0, 0.2), (MULTISTEP, None, None)]
)
@pytest.mark.parametrize("sde", [VP(), VE()], ids=["VP", "VE"])
@pytest.mark.by_default("VE")
def test_the_output_tends_to_the_marginal(gaussian, moments, sde, inner, gain, band, marginal):
    """The order is that of the inner sampler, where the error keeps its sign."""
    model, errors = gaussian(sde), []
    for k in (2, 4, 8):
        sampler = Restart(
            inner, [RestartInterval(1.0, 4.0, 4 * k, 1), RestartInterval(steps=4 * k)]
        )
        mean, std = moments(
            model, sampler, grid.log_snr(sde, 16 * k), *marginal(sde, sde.t_regular)
        )
        target = marginal(sde, 1e-3)
        errors.append(math.hypot(mean - target[0], std - target[1]))
    if gain is not None:
        assert errors[1] / errors[2] == pytest.approx(gain, abs=band)
    assert errors[2] < (1e-3 if gain != 2.0 else 0.02)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.by_default("VE", "Linear")
def test_a_restart_contracts_the_error_of_the_variance(gaussian, moments, sde, repeats, marginal):
    """By (v + low²)/(v + high²) each time, v = 1/4, from the exact ODE map and fresh noise."""
    low, high = 1.0, 4.0
    ts = torch.tensor([sde.t_regular, float(sde.t_of_lam(-math.log(low)))]).double()
    sampler = Restart(EDM(), [RestartInterval(low, high, 60, repeats)])
    mean, std = marginal(sde, sde.t_regular)
    right, wrong = (
        # one step to `low` makes an error of its own, the same for both
        [
            moments(gaussian(sde), s, ts, mean, start)[1] ** 2 / float(sde.alpha(ts[-1])) ** 2
            for s in (EDM(), sampler)
        ]
        for start in (std, 1.5 * std)
    )
    factor = (0.25 + low**2) / (0.25 + high**2)
    contraction = (wrong[1] - right[1]) / (wrong[0] - right[0])
    # 60 steps of Heun's method are off by some 1e-4 relative, each time
    assert contraction == pytest.approx(factor**repeats, rel=1e-3 * repeats)


def test_the_parts_of_a_restart(mixture, sde):
    """By hand: down to the time nearest to low, up by the forward SDE, down again, and onwards."""
    interval = RestartInterval(0.5, 2.0, 3, 2)
    inner = MULTISTEP
    model, ts = mixture(sde), grid.karras(sde, 8)
    x = torch.tensor([[0.7, -1.1], [0.2, 0.4]], dtype=torch.float64) * sde.prior_std
    sigma_hat = torch.exp(-sde.lam(ts))
    i = int((sigma_hat - 0.5).abs().argmin())
    t_high = float(sde.t_of_lam(-math.log(2.0)))
    with torch.no_grad():
        got = Restart(inner, [interval]).run(model, x, ts, SampleNoise(3, [0, 1])).state
        noise = SampleNoise(3, [0, 1])
        x = inner.run(model, x, ts[: i + 1], noise).state
        for _ in range(2):
            a = float(sde.alpha(t_high) / sde.alpha(ts[i]))
            b = math.sqrt(float(sde.sigma(t_high)) ** 2 - a**2 * float(sde.sigma(ts[i])) ** 2)
            x = a * x + b * noise.fresh(x)
            x = inner.run(model, x, grid.karras(sde, 3, float(ts[i]), t_high), noise).state
        x = inner.run(model, x, ts[i:], noise).state
    # rounding through λ and its inverse
    assert torch.allclose(got, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inner", [EDM(), DDIM()], ids=str)
def test_evaluations_of_restarts(elementwise, inner):
    intervals = [RestartInterval(1.0, 4.0, 3, 2), RestartInterval(0.06, 0.3, 2, 5)]
    sampler, ts = Restart(inner, intervals), grid.karras(VP(), 12)
    out, alone = (sample(elementwise(VP()), s, ts, (2, 1), seed=0) for s in (sampler, inner))
    assert out.nfe == alone.nfe + alone.nfe // 12 * (3 * 2 + 2 * 5)


def test_two_intervals_of_one_time_follow_in_their_order(gaussian, moments, marginal):
    """The later interval decides the error."""
    first, second = RestartInterval(0.5, 1.0, 1, 1), RestartInterval(0.5, 4.0, 40, 1)
    ts = grid.karras(VP(), 20, t_min=float(VP().t_of_lam(-math.log(0.5))))
    model, start = gaussian(VP()), marginal(VP(), 1.0)
    target = marginal(VP(), float(ts[-1]))[1]
    errors = [
        abs(moments(model, Restart(EDM(), pair), ts, *start)[1] - target)
        for pair in ((first, second), (second, first))
    ]
    assert errors[0] < 0.2 * errors[1]


def test_restarts_never_rise_above_the_first_time(gaussian, sde):
    times = []

    class Recorded(type(gaussian(sde))):
        def eps(self, x, t):
            times.append(t.t)
            return super().eps(x, t)

    model = Recorded(sde, [1.0], [[0.3]], [0.25])
    sampler = Restart(EDM(), [RestartInterval(1.0, 1e9, 4, 1)])
    sample(model, sampler, grid.karras(sde, 10), (2, 1), seed=0, dtype=torch.float64)
    assert max(times) == sde.t_regular
    assert times.count(sde.t_regular) == 2  # the start, and the restart


def test_a_grid_that_ends_above_an_interval_leaves_it_out(elementwise):
    ts = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    assert float(torch.exp(-VP().lam(0.1))) > 0.3
    start = torch.ones(1, 1, dtype=torch.float64)
    inner, restarted = (
        s.run(elementwise(VP()), start, ts, BatchNoise(0)).state for s in (EDM(), Restart(EDM()))
    )
    assert torch.equal(inner, restarted)


def test_restarts_are_the_same_under_every_sde(mixture, sde):
    """At equal σ/α they give the same x/α as under VE, of which each SDE is a rescaling."""
    flat = VE(1e-3, 500.0)
    ts = grid.uniform(sde, 7, t_min=0.01, t_max=0.9)
    sampler = Restart(EDM(), [RestartInterval(0.3, 1.0, 2, 2)])
    start = torch.tensor([[0.7, -1.1], [0.2, 0.4]], dtype=torch.float64)
    with torch.no_grad():
        x = sampler.run(mixture(sde), start * sde.alpha(ts[0]), ts, SampleNoise(1, [0, 1])).state
        flat_ts = flat.t_of_lam(sde.lam(ts))
        flat_x = sampler.run(mixture(flat), start, flat_ts, SampleNoise(1, [0, 1])).state
    # λ goes through its inverse, which is worth some 1e-13 relative in σ; states grow as σ/α
    scale = float(torch.exp(-sde.lam(ts[0])))
    assert torch.allclose(x / sde.alpha(ts[-1]), flat_x, rtol=1e-9, atol=1e-11 * max(1, scale))


def test_restarts_draw_no_brownian_increments(elementwise):
    purposes = set()

    class Recorded(BatchNoise):
        def _draw(self, shape, purpose, dtype, device):
            purposes.add(purpose)
            return super()._draw(shape, purpose, dtype, device)

    x = torch.zeros(2, 1, dtype=torch.float64)
    Restart(EDM()).run(elementwise(VP()), x, grid.karras(VP(), 9), Recorded(0))
    assert purposes == {"fresh"}


def test_the_inner_sampler_decides_what_a_restart_can_do(elementwise):
    steps = [Restart(s).multistep for s in (EDM(), MULTISTEP)]
    assert steps == [False, True]
    with pytest.raises(ValueError, match="predictor must be a one-step method"):
        PredictorCorrector(Restart(MULTISTEP), Langevin())
    seen = []
    sample(
        elementwise(VP()),
        Restart(EDM()),
        grid.karras(VP(), 6),
        (1, 1),
        seed=0,
        on_step=lambda i, t, x: seen.append(t),
    )
    assert len(seen) == 6
    assert all(a > b for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RestartInterval(low=0.0), ValueError, "low must be greater than 0, got 0.0"),
        (lambda: RestartInterval(0.5, 0.5), ValueError, "high must be greater than 0.5, got 0.5"),
        (lambda: RestartInterval(high=math.inf), ValueError, "high must be finite"),
        (lambda: RestartInterval(steps=0), ValueError, "steps must be at least 1, got 0"),
        (lambda: RestartInterval(repeats=0), ValueError, "repeats must be at least 1, got 0"),
        (lambda: RestartInterval(repeats=1.5), TypeError, "repeats must be an integer"),
        (lambda: Restart(Langevin()), TypeError, "inner must be a GridSampler"),
        (lambda: Restart(EDM(), []), ValueError, "intervals must hold at least 1 interval"),
        (lambda: Restart(EDM(), [(1, 2)]), TypeError, "intervals must hold RestartInterval"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
