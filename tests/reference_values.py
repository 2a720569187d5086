"""The source of the numbers pinned in tests: NumPy and SciPy alone, nothing of scoresde.

Formulas are those of the papers that the tests name. `tests/test_reference_values.py` compares the
pinned tables with what these functions return. The data are a mixture of three Gaussians in the
plane, and N(0.3, 0.5²).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

MEAN, STD = 0.3, 0.5
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-1.0, 0.5], [0.8, -0.6], [0.3, 1.2]])
COVS = np.array([[[0.20, 0.05], [0.05, 0.10]], [[0.08, -0.03], [-0.03, 0.15]], 0.05 * np.eye(2)])
POINTS = np.array([[0, 0], [-1, 0.5], [0.8, -0.6], [0.3, 1.2], [2, -1.5], [-3, 2]], dtype=float)
FIRST, LAST = 1.0, 1e-3


class Schedule(NamedTuple):
    """α, σ, f and g² as functions of t, and the deviation of the prior."""

    alpha: Callable
    sigma: Callable
    f: Callable
    g2: Callable
    prior_std: float

    def lam(self, t):
        return np.log(self.alpha(t) / self.sigma(t))


def beta(t):
    """β(t) of VP and SubVP, from 0.1 to 20."""
    return 0.1 + 19.9 * t


def log_alpha(t):
    return -0.25 * 19.9 * t * t - 0.05 * t


VP = Schedule(
    lambda t: np.exp(log_alpha(t)),
    lambda t: np.sqrt(-np.expm1(2 * log_alpha(t))),
    lambda t: -0.5 * beta(t),
    beta,
    1.0,
)
SUB_VP = Schedule(
    VP.alpha,
    lambda t: -np.expm1(2 * log_alpha(t)),
    VP.f,
    lambda t: -beta(t) * np.expm1(4 * log_alpha(t)),
    1.0,
)
VE = Schedule(
    lambda t: 1.0 + 0 * t,
    lambda t: 0.01 * 5000**t,
    lambda t: 0 * t,
    lambda t: 2 * math.log(5000) * (0.01 * 5000**t) ** 2,
    50.0,
)
SCHEDULES = {"VP": VP, "SubVP": SUB_VP, "VE": VE}


def vp_time(lam):
    """t at λ under VP: log α is a quadratic in t."""
    b = np.logaddexp(0, -2 * lam)
    return 2 * b / (np.sqrt(0.1**2 + 2 * 19.9 * b) + 0.1)


def schedule_row(t):
    """t, VP's α, σ, λ, SubVP's σ, g², VE's σ, g."""
    sub = SUB_VP.sigma(t), SUB_VP.g2(t)
    return (t, VP.alpha(t), VP.sigma(t), VP.lam(t), *sub, VE.sigma(t), math.sqrt(VE.g2(t)))


def linear_betas():
    """DDPM's, of 1,000 steps."""
    return np.linspace(1e-4, 0.02, 1000)


def cosine_betas():
    """Nichol and Dhariwal's, of 1,000 steps, clipped at 0.999."""
    bars = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - bars[1:] / bars[:-1], 0.999)


def discrete_chain(betas):
    """ᾱ and the posterior variance β̃ of every step."""
    bars = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], bars[:-1]])
    return bars, betas * (1 - before) / (1 - bars)


def mixture_terms(x, a, s):
    """log(w_k N_k) and ∇ log N_k at each point, and the inverse covariances."""
    inverses = np.linalg.inv(a * a * COVS + s * s * np.eye(2))
    gaps = x[:, None] - a * MEANS
    slopes = -np.einsum("kij,nkj->nki", inverses, gaps)
    squares = -np.einsum("nki,nki->nk", gaps, slopes)
    scales = np.log(WEIGHTS) + 0.5 * np.log(np.linalg.det(inverses)) - math.log(2 * math.pi)
    return scales - 0.5 * squares, slopes, inverses


def mixture_log_prob(x, a=1.0, s=0.0):
    return np.logaddexp.reduce(mixture_terms(x, a, s)[0], axis=1)


def mixture_score(x, a, s):
    """Score and its divergence."""
    logs, slopes, inverses = mixture_terms(x, a, s)
    share = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
    score = np.einsum("nk,nki->ni", share, slopes)
    inner = (slopes**2).sum(2) - np.trace(inverses, axis1=1, axis2=2)
    return score, (share * inner).sum(1) - (score**2).sum(1)


@cache
def mixture_log_likelihoods(name, t_min):
    """Likelihoods by the probability-flow ODE at `POINTS`, solved by DOP853 at 1e-12."""
    sde = SCHEDULES[name]

    def rate(t, y):
        score, divergence = mixture_score(y[None, :2], sde.alpha(t), sde.sigma(t))
        drift = sde.f(t) * y[:2] - 0.5 * sde.g2(t) * score[0]
        return [*drift, 2 * sde.f(t) - 0.5 * sde.g2(t) * divergence[0]]

    out = []
    for x in POINTS:
        end = solve_ivp(rate, (t_min, 1.0), [*x, 0.0], "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        prior = -math.log(2 * math.pi * sde.prior_std**2)
        out.append(prior - 0.5 * (end[:2] ** 2).sum() / sde.prior_std**2 + end[2])
    return out


def irreducible_losses(t):
    """D − σ² E|∇ log p_t|² of the mixture under VP and under VE, and of N(0.3, 0.5²) under VP.

    Of the mixture by Gauss–Hermite quadrature.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    share = np.outer(weights, weights).ravel() / (2 * math.pi)
    out = []
    for sde in (VP, VE):
        a, s = sde.alpha(t), sde.sigma(t)
        roots = np.linalg.cholesky(a * a * COVS + s * s * np.eye(2))
        squares = [
            share @ (mixture_score(a * m + z @ root.T, a, s)[0] ** 2).sum(1)
            for m, root in zip(MEANS, roots, strict=True)
        ]
        out.append(2 - s * s * (WEIGHTS @ squares))
    signal = (STD * VP.alpha(t)) ** 2
    return (*out, signal / (signal + VP.sigma(t) ** 2))


def gaussian_x0(x, t):
    """E[x_0 | x_t = x] for N(0.3, 0.5²) under VP."""
    a, s = VP.alpha(t), VP.sigma(t)
    return MEAN + a * STD**2 / ((a * STD) ** 2 + s * s) * (x - a * MEAN)


def mixture_x0(x, t):
    a, s = VP.alpha(t), VP.sigma(t)
    return (x + s * s * mixture_score(x, a, s)[0]) / a


def uniform_times(steps):
    return np.linspace(FIRST, LAST, steps + 1)


def log_snr_times(steps):
    return vp_time(np.linspace(VP.lam(FIRST), VP.lam(LAST), steps + 1))


def multistep_end(x, x0, ts, order, factor=2.0, last_of_order_one=False):
    """DPM-Solver++ 1, 2M and 3M under VP, in the form of the paper's appendix B.

    `factor` of the second derivative: 1 in the authors' code, where order 3 is lost.
    """
    outputs, lengths = [], []
    for i, (t, s) in enumerate(zip(ts, ts[1:], strict=False)):
        h = VP.lam(s) - VP.lam(t)
        outputs.insert(0, x0(x, t))
        this = 1 if last_of_order_one and i == len(ts) - 2 else min(order, i + 1)
        e = math.expm1(-h)
        change = -e * outputs[0]
        if this > 1:
            r0 = lengths[0] / h
            slope = (outputs[0] - outputs[1]) / r0
        if this == 2:
            change = -e * (outputs[0] + 0.5 * slope)
        if this == 3:
            r1 = lengths[1] / h
            before = (outputs[1] - outputs[2]) / r1
            second = (slope - before) / (r0 + r1)
            change = change + (e / h + 1) * (slope + r0 * second)
            change = change - factor * ((e + h) / h**2 - 0.5) * second
        x = VP.sigma(s) / VP.sigma(t) * x + VP.alpha(s) * change
        lengths.insert(0, h)
    return x


def singlestep_end(x, x0, ts, method):
    """DPM-Solver++ 2S ("2S"), DPM-Solver-2 and -3 ("2", "3") under VP."""

    def eps(x, t):
        return (x - VP.alpha(t) * x0(x, t)) / VP.sigma(t)

    def moved(x, t, s, first, change=0.0, weight=0.0):
        """(α_s/α_t) x − σ_s ((e^h − 1) ε + weight ((e^h − 1)/h − 1) Δε)."""
        h = VP.lam(s) - VP.lam(t)
        inner = math.expm1(h) * first + weight * (math.expm1(h) / h - 1) * change
        return VP.alpha(s) / VP.alpha(t) * x - VP.sigma(s) * inner

    for t, s in zip(ts, ts[1:], strict=False):
        lam, h = VP.lam(t), VP.lam(s) - VP.lam(t)
        if method == "2S":
            middle = vp_time(lam + h / 2)
            u = VP.sigma(middle) / VP.sigma(t) * x
            u = u - VP.alpha(middle) * math.expm1(-h / 2) * x0(x, t)
            ratio = VP.sigma(s) / VP.sigma(t)
            x = ratio * x - VP.alpha(s) * math.expm1(-h) * x0(u, middle)
        elif method == "2":
            middle = vp_time(lam + h / 2)
            x = moved(x, t, s, eps(moved(x, t, middle, eps(x, t)), middle))
        else:
            one, two, first = vp_time(lam + h / 3), vp_time(lam + 2 * h / 3), eps(x, t)
            change = eps(moved(x, t, one, first), one) - first
            u = moved(x, t, two, first, change, 2.0)
            x = moved(x, t, s, first, eps(u, two) - first, 1.5)
    return x


def output_moments(kind, steps):
    """Mean and deviation of a stochastic sampler's output for N(0.3, 0.5²) from N(0, 1) under VP.

    Each step is affine in x for these data: x_s = slope x_t + shift + std z.
    """
    mean, variance = 0.0, 1.0
    for t, s in zip(uniform_times(steps), uniform_times(steps)[1:], strict=False):
        a, sigma, a_s, sigma_s = VP.alpha(t), VP.sigma(t), VP.alpha(s), VP.sigma(s)
        total = (a * STD) ** 2 + sigma**2
        if kind == "euler-maruyama":
            k = beta(t) * (t - s)
            slope, shift, noise = 1 + 0.5 * k - k / total, k * a * MEAN / total, k
        else:
            ratio = a / a_s
            step = sigma**2 - (ratio * sigma_s) ** 2  # σ²_{t|s}
            gain = a * STD**2 / total  # x̂_0 = gain x + rest
            rest = MEAN - gain * a * MEAN
            if kind == "reverse-diffusion":
                slope, shift, noise = 2 - ratio - step / total, step * a * MEAN / total, step
            elif kind == "beta":
                weight = a_s * step / sigma**2
                slope = ratio * (sigma_s / sigma) ** 2 + weight * gain
                shift, noise = weight * rest, step
            else:
                eta = float(kind)
                noise = eta**2 * (sigma_s / sigma) ** 2 * step
                along = math.sqrt(sigma_s**2 - noise)
                weight = a_s - along * a / sigma
                slope, shift = along / sigma + weight * gain, weight * rest
        mean, variance = slope * mean + shift, slope**2 * variance + noise
    return mean, math.sqrt(variance)


def edm_sigmas(levels):
    """Karras et al.'s: from 80 to 0.002, ρ = 7."""
    ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
    return np.linspace(*ends, levels) ** 7


def edm_heun_end(levels):
    """Their algorithm 1 from x = 80 for N(0.3, 0.5²), down to σ = 0."""

    def slope(x, sigma):
        return sigma * (x - MEAN) / (STD**2 + sigma**2)

    x, sigmas = 80.0, [*edm_sigmas(levels), 0.0]
    for now, then in zip(sigmas, sigmas[1:], strict=False):
        first = slope(x, now)
        guess = x + (then - now) * first
        x = guess if then == 0 else x + 0.5 * (then - now) * (first + slope(guess, then))
    return x


def vlb_terms(variance, decoder):
    """Reconstruction and diffusion part of DDPM's bound for N(0.3, 0.5²), optimal predictor."""
    betas = linear_betas()
    bars, posterior = discrete_chain(betas)
    before = np.concatenate([[1.0], bars[:-1]])
    posterior[0] = posterior[1]  # the first is 0, and no variance for a decoder
    spread = STD**2 * (1 - bars) / (bars * STD**2 + 1 - bars)  # of x_0 given x_t
    errors = (np.sqrt(before) * betas / (1 - bars)) ** 2 * spread
    v = {"beta": betas, "beta_tilde": posterior}[variance]
    terms = 0.5 * (errors / v + posterior / v - 1 - np.log(posterior / v))
    last = {"beta": betas, "beta_tilde": posterior}[decoder][0]
    return 0.5 * math.log(2 * math.pi * last) + 0.5 * spread[0] / last, terms[1:].sum()
