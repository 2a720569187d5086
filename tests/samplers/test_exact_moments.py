"""Stochastic samplers: exact mean and standard deviation of the output."""

import math

import pytest
import torch

from scoresde import grid
from scoresde.exact import GaussianMixture
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    sample,
)
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP, TabulatedVP

TABLE = {
    EulerMaruyama(): {
        10: (0.317716727, 0.572108897),
        25: (0.307000613, 0.518501937),
        50: (0.303514060, 0.508188638),
        100: (0.301756088, 0.503889067),
    },
    ReverseDiffusion(): {
        10: (0.275937133, 0.663806065),
        50: (0.296536833, 0.530330822),
        100: (0.298335916, 0.515020011),
    },
    Ancestral("beta_tilde"): {
        10: (0.299980268, 0.333457823),
        25: (0.299980268, 0.406971484),
        50: (0.299980268, 0.444336116),
        100: (0.299980268, 0.468450452),
    },
    Ancestral("beta"): {
        10: (0.299980268, 0.589095478),
        25: (0.299980268, 0.535163051),
        50: (0.299980268, 0.517379167),
        100: (0.299980268, 0.508656205),
    },
    DDIM(0.0): {
        10: (0.299245444, 0.374371046),
        50: (0.299051733, 0.472627920),
        100: (0.299025047, 0.486164397),
    },
    DDIM(0.5): {
        10: (0.299659117, 0.367338152),
        50: (0.299722954, 0.466848139),
        100: (0.299734866, 0.482449280),
    },
    DDIM(1.0): {
        10: (0.299980268, 0.333457823),
        50: (0.299980268, 0.444336116),
    },
}


@pytest.mark.parametrize("sampler", TABLE, ids=str)
def test_moments_of_the_table(moments, sampler):
    """For N(0.3, 0.5²) under VP from N(0, 1), uniform t."""
    model = GaussianMixture(VP(), [1.0], [[0.3]], [0.25])
    for steps, expected in TABLE[sampler].items():
        got = moments(model, sampler, grid.uniform(VP(), steps))
        assert got == pytest.approx(expected, abs=6e-10)  # half of the last printed digit


@pytest.mark.parametrize(
    "sampler",
    [
        EulerMaruyama(),
        EulerMaruyama(0.5),
        ReverseDiffusion(),
        Ancestral("beta"),
        Ancestral("beta_tilde"),
        DDIM(0.5),
        EDM(churn=20.0),
        PredictorCorrector(Ancestral("beta"), Langevin(0.05)),
    ],
    ids=str,
)
@pytest.mark.by_default("VE", "Linear")
def test_moments_tend_to_the_marginal_under_every_sde(gaussian, moments, marginal, sde, sampler):
    """The start is p_1 itself, so that the error is the bias of the steps alone."""
    model, t_min = gaussian(sde), 1e-3

    errors = []
    for steps in (25, 75):
        mean, std = moments(model, sampler, grid.uniform(sde, steps, t_min), *marginal(sde, 1.0))
        target = marginal(sde, t_min)
        errors.append(math.hypot(mean - target[0], std - target[1]))
    assert errors[1] < 0.1
    # order 1: three times the steps leave a third of the error (2: not quite there yet at
    # N = 25), unless the corrector's own O(snr²) bias, a tenth of a percent, is reached
    assert errors[0] > 2 * errors[1] or errors[1] < 2e-3


def test_ddim_with_eta_one_is_ancestral_sampling(mixture, sde):
    for ts in (grid.uniform(sde, 9), grid.log_snr(sde, 9)):
        x = torch.tensor([[0.7, -1.1], [2.0, 0.1]], dtype=torch.float64) * sde.prior_std
        with torch.no_grad():
            a, b = (
                sampler.run(mixture(sde), x, ts, SampleNoise(3, [0, 1])).state
                for sampler in (DDIM(eta=1.0), Ancestral("beta_tilde"))
            )
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_ancestral_on_the_ladder_is_ddpm(gaussian):
    """One step of Ho et al.'s algorithm 2 with their β, ᾱ and β̃, in numbers."""
    betas = (0.1, 0.2, 0.4)
    sde = TabulatedVP(betas)
    t, s = sde.nodes(sde.ladder(3))[:2]
    alpha_bar, alpha_bar_s, beta = 0.9 * 0.8 * 0.6, 0.9 * 0.8, 0.4
    eps = 0.25
    mean = (1.5 - beta / math.sqrt(1 - alpha_bar) * eps) / math.sqrt(1 - beta)
    beta_tilde = (1 - alpha_bar_s) / (1 - alpha_bar) * beta

    class Ones(SampleNoise):
        def _draw(self, shape, purpose, dtype, device):
            return torch.ones(shape, dtype=torch.float64)

    class Constant(type(gaussian(sde))):
        def _expectation(self, x, alpha, sigma, p, q):
            return p * (x - sigma * eps) / alpha + q * eps

    model = Constant(sde, [1.0], [[0.0]], [1.0])
    x = torch.full((1, 1), 1.5, dtype=torch.float64)
    for variance, v in (("beta", beta), ("beta_tilde", beta_tilde)):
        out = Ancestral(variance).step(model, x, t, s, None, Ones(0, [0]))[0]
        assert float(out) == pytest.approx(mean + math.sqrt(v), abs=1e-12)


def test_reverse_diffusion_is_finite_on_few_steps(gaussian, moments):
    """With the paper's β(t)/N it is the root of a negative number for N up to 19."""
    for steps in (1, 2, 5, 19):
        mean, std = moments(gaussian(VP()), ReverseDiffusion(), grid.uniform(VP(), steps))
        assert math.isfinite(mean)
        assert math.isfinite(std)


def test_annealed_langevin_of_ncsn(gaussian, moments):
    """Ten levels of 100 steps each. The result is biased, by a known amount."""
    sde = VE(0.01, 1.0)
    sampler = AnnealedLangevin(steps=100, step_size=0.2)
    ts = grid.uniform(sde, 9, t_min=0.0)
    got = moments(gaussian(sde), sampler, ts, 0.5, math.sqrt(1 / 12))
    assert got == pytest.approx((0.300000000262, 0.515178867361), abs=1e-11)


@pytest.mark.parametrize(
    ("sampler", "levels", "expected"),
    [
        (EDM(), 18, (0.298021407611, 0.527624637001)),
        (EDM(40, 0.05, 50, 1.003), 18, (0.299924668141, 0.564049889897)),
        (EDM(40, 0.05, 50, 1.003), 256, (0.299999999999, 0.502488209314)),
    ],
    ids=str,
)
def test_edm_moments(gaussian, moments, sampler, levels, expected):
    sde = VE(0.002, 80.0)
    ts = grid.karras(sde, levels - 1, t_min=0.0)
    got = moments(gaussian(sde), sampler, ts, 0.0, 80.0, denoise=True)
    assert got == pytest.approx(expected, abs=1e-11)


def test_churn_with_exact_noise_keeps_the_marginal(gaussian, moments):
    """With S_noise = 1 churn is the forward SDE: at many levels the output law is the data's."""
    sde = VE(0.002, 80.0)
    ts = grid.karras(sde, 255, t_min=0.0)
    _, std = moments(gaussian(sde), EDM(40), ts, 0.0, 80.0, denoise=True)
    assert std == pytest.approx(0.5, abs=1e-3)


def test_edm_never_churns_beyond_the_first_time(gaussian, sde):
    times = []

    class Recorded(type(gaussian(sde))):
        def eps(self, x, t):
            times.append(t.t)
            return super().eps(x, t)

    model = Recorded(sde, [1.0], [[0.3]], [0.25])
    ts = grid.log_snr(sde, 12)
    out = sample(model, EDM(churn=1e9), ts, (2, 1), seed=0, dtype=torch.float64)
    assert bool(torch.isfinite(out.x).all())
    assert times[0] == sde.t_regular
    assert max(times) <= sde.t_regular
    lams = [float(sde.lam(t)) for t in times[::2]]
    raised = [float(lam) - got for lam, got in zip(sde.lam(ts[:-1]), lams, strict=True)]
    # the cap √2 − 1 on γ, except where the first time is nearer
    assert raised[-1] == pytest.approx(0.5 * math.log(2), abs=1e-9)
    assert all(-1e-12 <= r <= 0.5 * math.log(2) + 1e-9 for r in raised)


def test_churn_only_inside_its_range():
    """The model is asked at (1 + γ) σ, off the grid, and one draw is made for each such time."""
    sde, draws, asked = VE(0.01, 50.0), [], []

    class Counted(SampleNoise):
        def fresh(self, x):
            draws.append(x)
            return super().fresh(x)

    def eps(x, t):
        asked.append(float(t))
        return x

    ts = grid.uniform(sde, 20, t_min=0.0)
    x = torch.zeros(1, 1, dtype=torch.float64)
    EDM(2.0, s_min=0.1, s_max=10.0).run(FunctionScore(sde, eps), x, ts, Counted(0, [0]))
    raised = [float(sde.sigma(t)) for t in asked if t not in ts.tolist()]
    gamma = 2.0 / 21
    expected = [(1 + gamma) * float(s) for s in sde.sigma(ts) if 0.1 <= s <= 10.0]
    assert raised == pytest.approx(expected, rel=1e-9)
    assert len(draws) == len(expected)


def test_final_denoise_shrinks_the_noise_as_the_posterior_mean_does(gaussian, sde):
    """E[x_0 | x] = m + (α s²/v)(x − α m), v = α² s² + σ²: an affine map for Gaussian data."""
    model, ts = gaussian(sde, 3), grid.log_snr(sde, 12, t_min=0.05)
    noisy, clean = (
        sample(model, Ancestral(), ts, (5, 3), seed=4, denoise=flag, dtype=torch.float64)
        for flag in (False, True)
    )
    a, s = float(sde.alpha(0.05)), float(sde.sigma(0.05))
    slope = a * 0.25 / (0.25 * a**2 + s**2)
    assert torch.allclose(clean.x, 0.3 + slope * (noisy.x - 0.3 * a), rtol=0, atol=1e-12)
    assert (noisy.nfe, clean.nfe) == (12, 13)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [EulerMaruyama(), ReverseDiffusion(), Ancestral("beta"), Ancestral("beta_tilde"), DDIM(0.5)],
    ids=str,
)
@pytest.mark.parametrize("sde", [VP(), VE()], ids=str)
def test_samples_of_the_mixture(mixture, mixture_parameters, sde, sampler):
    """Monte Carlo: sliced W2, and the share of the samples in each component's ellipse."""
    model, n = mixture(sde), 50_000
    ts = grid.log_snr(sde, 250) if isinstance(sde, VE) else grid.uniform(sde, 250)
    noise = BatchNoise(0)
    x = sample(model, sampler, ts, (n, 2), noise=noise, dtype=torch.float64).x
    y = model.sample(n, seed=1)
    angles = torch.arange(16).double() * math.pi / 16
    axes = torch.stack([angles.cos(), angles.sin()])
    gaps = (x @ axes).sort(0).values - (y @ axes).sort(0).values
    assert math.sqrt(float(gaps.square().mean())) < 0.03
    for mean, cov in zip(*mixture_parameters[1:], strict=True):
        inside = [
            float((((p - mean) @ cov.inverse()) * (p - mean)).sum(1).lt(1).double().mean())
            for p in (x, y)
        ]
        # the share in a component's ellipse: 4 standard errors of the difference of two binomial
        # shares, and 0.01 for the bias of 250 steps
        assert inside[0] == pytest.approx(inside[1], abs=4 * math.sqrt(0.5 / n) + 0.01)
