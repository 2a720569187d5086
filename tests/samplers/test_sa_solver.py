"""SA-Solver: special cases, exactness for polynomials, and orders."""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad

from scoresde import grid
from scoresde.noise import BrownianNoise, SampleNoise
from scoresde.samplers import DDIM, Ancestral, SASolver, sample
from scoresde.samplers.exponential_adams import ExponentialAB
from scoresde.sde import VE, VP

START = torch.tensor([[0.7, -1.1], [2.0, 0.1]], dtype=torch.float64)


def run(model, sampler, x, ts, seed=3):
    with torch.no_grad():
        return sampler.run(model, x, ts, SampleNoise(seed, range(len(x)))).state


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.by_default("VE", "Linear")
def test_without_noise_it_is_the_exponential_adams_method(mixture, sde, order, lower):
    model, x, ts = mixture(sde), START * sde.prior_std, grid.karras(sde, 9)
    got = run(model, SASolver(order, 0, 0.0, lower_order_final=lower), x, ts)
    expected = run(
        model,
        ExponentialAB(order=order, prediction="x0", variable="lam", lower_order_final=lower),
        x,
        ts,
    )
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12 * sde.prior_std)


def test_order_one_is_ddim_at_both_ends_of_eta(mixture, sde):
    """η = 1 without corrector is ancestral sampling, η = 0 the deterministic DDIM."""
    model, x = mixture(sde), START * sde.prior_std
    for ts in (grid.uniform(sde, 9), grid.log_snr(sde, 9)):
        ancestral = run(model, SASolver(1, 0, 1.0), x, ts)
        for same in (DDIM(eta=1.0), Ancestral("beta_tilde")):
            expected = run(model, same, x, ts)
            assert torch.allclose(ancestral, expected, rtol=1e-12, atol=1e-12 * sde.prior_std)
        deterministic = run(model, SASolver(1, 0, 0.0), x, ts)
        expected = run(model, DDIM(), x, ts)
        assert torch.allclose(deterministic, expected, rtol=1e-12, atol=1e-12 * sde.prior_std)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.7])
def test_a_polynomial_x0_is_integrated_exactly(eta):
    """In each step, for every degree below the number of values, against SciPy's quadrature."""
    sde, total = VP(), 1 + eta**2
    nodes = sde.nodes(grid.karras(sde, 7, t_min=0.05))
    lam = [node.lam for node in nodes]
    rows = SASolver(3, 4, eta, lower_order_final=False).rows(sde, nodes)
    assert [len(row.weights) for row in rows] == [1, 2, 3, 3, 3, 3, 3]
    assert [len(row.corrector) for row in rows] == [2, 3, 4, 4, 4, 4, 0]
    for i, row in enumerate(rows):
        t, s = nodes[i : i + 2]
        for newest, weights in ((i, row.weights), (i + 1, row.corrector)):
            for degree in range(len(weights)):

                def x0(at, t=t, s=s, degree=degree):
                    return ((at - t.lam) / (s.lam - t.lam)) ** degree

                def integrand(at, s=s, x0=x0):
                    return math.exp(-total * (s.lam - at)) * x0(at)

                exact = s.alpha * total * quad(integrand, t.lam, s.lam, epsabs=1e-13)[0]
                got = sum(w * x0(lam[newest - j]) for j, w in enumerate(weights))
                # weights of both signs, times powers of up to 2, cancel a few digits
                assert got == pytest.approx(exact, rel=1e-10, abs=1e-13)


def moment_errors(gaussian, moments, sampler, spacing=grid.log_snr, steps=(160, 320)):
    """Errors of mean and standard deviation, from a start three deviations off the mean."""
    sde = VP()
    a, s = float(sde.alpha(1.0)), float(sde.sigma(1.0))
    start = math.sqrt(0.25 * a**2 + s**2)
    means, stds = [], []
    for n in steps:
        ts = spacing(sde, n)
        mean, std = moments(gaussian(sde), sampler, ts, 0.3 * a + 3 * start, start)
        end, a_end = float(sde.sigma(ts[-1])), float(sde.alpha(ts[-1]))
        target = math.sqrt(0.25 * a_end**2 + end**2)
        # the mean obeys y' = (v'/v (1 + η²)/2 − η² f) y about that of p_t
        power = sampler.eta**2
        gap = 3 * start * (target / start) ** (1 + power) * (a / a_end) ** power
        means.append(abs(mean - 0.3 * a_end - gap))
        stds.append(abs(std - target))
    return means, stds


def orders(errors):
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (SASolver(1, 0, 1.0), 1),
        pytest.param(*(SASolver(1, 1, 1.0), 1), marks=pytest.mark.slow),
        pytest.param(*(SASolver(1, 2, 1.0), 2), marks=pytest.mark.slow),
        (SASolver(2, 0, 1.0), 2),
        pytest.param(*(SASolver(2, 0, 0.5), 2), marks=pytest.mark.slow),
        pytest.param(*(SASolver(3, 0, 1.0, lower_order_final=False), 2), marks=pytest.mark.slow),
        pytest.param(*(SASolver(4, 0, 1.0, lower_order_final=False), 2), marks=pytest.mark.slow),
        (SASolver(3, 4, 1.0, lower_order_final=False), 2),
        pytest.param(*(SASolver(3, 4, 2.0, lower_order_final=False), 2), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_weak_order_for_gaussian_data(gaussian, moments, sampler, order):
    """The standard deviation has order 2 with two values, and no more with three or four."""
    _, stds = moment_errors(gaussian, moments, sampler)
    assert orders(stds)[-1] == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (SASolver(2, 0, 0.5, lower_order_final=False), 2),
        (SASolver(3, 4, 0.0, lower_order_final=False), 4),
        pytest.param(SASolver(1, 2, 0.0), 2, marks=pytest.mark.slow),
        *(
            pytest.param(SASolver(p, 0, 0.5, lower_order_final=False), p, marks=pytest.mark.slow)
            for p in (1, 3)
        ),
    ],
    ids=str,
)
def test_the_mean_has_the_order_of_the_adams_method(gaussian, moments, sampler, order):
    """The mean follows an ODE. Its order is the number of values of predictor or corrector."""
    means, _ = moment_errors(gaussian, moments, sampler, steps=(320, 640))
    assert orders(means)[-1] == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("spacing", grid.GRIDS.values(), ids=grid.GRIDS)
@pytest.mark.parametrize("sampler", [SASolver(1, 0), SASolver(), SASolver(3, 4)], ids=str)
def test_at_eta_one_the_mean_is_exact(gaussian, moments, sampler, spacing):
    """x0(x_t, t) is a martingale of the reverse SDE, so that extrapolations keep its mean."""
    means, _ = moment_errors(gaussian, moments, sampler, spacing, steps=(3, 10))
    assert means == pytest.approx([0.0, 0.0], abs=1e-12)


@pytest.mark.by_default("VE", "Linear")
def test_output_tends_to_the_marginal_under_every_sde(gaussian, moments, marginal, sde):
    for sampler in (SASolver(), SASolver(2, 2, 0.5), SASolver(3, 4, 1.0, 0.05, 5.0)):
        got = moments(gaussian(sde), sampler, grid.log_snr(sde, 160), *marginal(sde, 1.0))
        assert math.dist(got, marginal(sde, 1e-3)) < 1e-3


def test_noise_only_inside_its_range(elementwise):
    times = []

    class Recorded(SampleNoise):
        def increment(self, x, t, s):
            times.append(t)
            return super().increment(x, t, s)

    sde = VE(0.01, 50.0)
    ts = grid.uniform(sde, 20, t_min=0.0)
    x = torch.zeros(1, 1, dtype=torch.float64)
    SASolver(s_min=0.1, s_max=10.0).run(elementwise(sde), x, ts, Recorded(0, [0]))
    expected = [float(t) for t in ts[:-1] if 0.1 <= float(sde.sigma(t)) <= 10.0]
    assert times == expected
    outside = SASolver(s_min=1e6, s_max=2e6)
    none, deterministic = (run(elementwise(sde), s, x, ts) for s in (outside, SASolver(eta=0.0)))
    assert torch.equal(none, deterministic)


@pytest.mark.slow
def test_the_corrector_has_the_predictor_s_noise(gaussian):
    """With other noise it would correct another step, and x would leave the path."""
    model, sde = gaussian(VP()), VP()
    ends = [
        sample(
            model,
            SASolver(2, corrector, lower_order_final=False),
            grid.log_snr(sde, 400),
            (200, 1),
            noise=BrownianNoise(1, depth=30),
            dtype=torch.float64,
        ).x
        for corrector in (0, 2)
    ]
    # of order 1/400 of λ's span 12, and of the data's spread 0.5
    assert float((ends[0] - ends[1]).square().mean().sqrt()) < 0.02


def test_it_is_the_same_under_every_sde(mixture, sde):
    """At equal σ/α it gives the same x/α as under VE, of which each SDE is a rescaling."""
    flat = VE(1e-3, 500.0)
    ts = grid.uniform(sde, 7, t_min=0.01, t_max=0.9)
    x = run(mixture(sde), SASolver(), START * sde.alpha(ts[0]), ts)
    flat_x = run(mixture(flat), SASolver(), START, flat.t_of_lam(sde.lam(ts)))
    # λ goes through its inverse, which is worth some 1e-13 relative in σ; states grow as σ/α
    scale = float(torch.exp(-sde.lam(ts[0])))
    assert torch.allclose(x / sde.alpha(ts[-1]), flat_x, rtol=1e-9, atol=1e-11 * max(1, scale))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"predictor_order": 0}, ValueError, "predictor_order must be at least 1, got 0"),
        ({"predictor_order": 5}, ValueError, "predictor_order must be at most 4, got 5"),
        ({"predictor_order": 1.0}, TypeError, "predictor_order must be an integer"),
        ({"corrector_order": -1}, ValueError, "corrector_order must be at least 0, got -1"),
        ({"corrector_order": 5}, ValueError, "corrector_order must be at most 4, got 5"),
        ({"eta": -0.1}, ValueError, "eta must be at least 0, got -0.1"),
        ({"s_min": -1.0}, ValueError, "s_min must be at least 0"),
        ({"s_min": 2.0, "s_max": 1.0}, ValueError, "s_max must be at least 2.0, got 1.0"),
        ({"s_max": math.nan}, ValueError, "s_max must be finite"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        SASolver(**arguments)
