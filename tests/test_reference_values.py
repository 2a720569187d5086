"""The tables pinned in tests are those that `reference_values.py` makes without scoresde."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from scoresde import grid
from scoresde.samplers import (
    DDIM,
    Ancestral,
    DPMSolverMultistep,
    DPMSolverSinglestep,
    EulerMaruyama,
    ReverseDiffusion,
)

TESTS = Path(__file__).parent


def load(path):
    """A module of tests. The folder is no package, so it is loaded from its file."""
    name = f"pinned_{path.replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{path}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


reference = load("reference_values")


def test_schedules():
    pinned = load("test_sde")
    for row in pinned.SCHEDULES:
        # 12 digits are pinned of λ, the others are of full precision
        np.testing.assert_allclose(reference.schedule_row(row[0]), row, rtol=1e-11)
    for table, betas in (
        (pinned.DDPM_LINEAR, reference.linear_betas()),
        (pinned.DDPM_COSINE, reference.cosine_betas()),
    ):
        bars, posterior = reference.discrete_chain(betas)
        for i, bar, variance in table:
            assert bars[i] == pytest.approx(bar, rel=1e-10)
            assert variance is None or posterior[i] == pytest.approx(variance, rel=1e-10)


def test_densities_and_scores_of_the_mixture():
    pinned = load("test_exact")
    points = reference.POINTS
    np.testing.assert_allclose(reference.mixture_log_prob(points), pinned.LOG_DENSITIES, rtol=1e-13)
    for (name, t), (at_0, trace_0, at_4, trace_4) in pinned.SCORES.items():
        sde = reference.SCHEDULES[name]
        score, trace = reference.mixture_score(points[[0, 4]], sde.alpha(t), sde.sigma(t))
        np.testing.assert_allclose(score, [at_0, at_4], rtol=1e-11)
        np.testing.assert_allclose(trace, [trace_0, trace_4], rtol=1e-11)


@pytest.mark.slow
def test_irreducible_losses():
    for t, *losses in load("test_exact").IRREDUCIBLE:
        # half of the last digit that is pinned
        np.testing.assert_allclose(reference.irreducible_losses(t), losses, rtol=1e-5, atol=6e-10)


@pytest.mark.slow
def test_likelihoods_of_the_mixture():
    for path in ("test_log_likelihood", "test_per_sample_likelihood"):
        for (kind, t_min), values in load(f"likelihood/{path}").REFERENCE.items():
            found = reference.mixture_log_likelihoods(kind.__name__, t_min)
            np.testing.assert_allclose(found, values, rtol=0, atol=1e-10)  # the solver's 1e-12


def end_point(sampler, x, x0, ts):
    if isinstance(sampler, DPMSolverSinglestep):
        method = "2S" if sampler.prediction == "x0" else str(sampler.order)
        return reference.singlestep_end(x, x0, ts, method)
    order = 1 if isinstance(sampler, DDIM) else sampler.order
    factor = 1.0 if getattr(sampler, "copied", False) else 2.0
    last = getattr(sampler, "lower_order_final", False)
    return reference.multistep_end(x, x0, ts, order, factor, last)


def test_end_points_of_solvers():
    pinned = load("samplers/test_convergence")
    times = {grid.uniform: reference.uniform_times, grid.log_snr: reference.log_snr_times}
    for sampler, spacing, steps, expected in pinned.END_POINTS:
        found = end_point(sampler, 1.0, reference.gaussian_x0, times[spacing](steps))
        assert float(found) == pytest.approx(expected, abs=1e-11)
    starts, ts = np.array(pinned.MIXTURE_STARTS), reference.log_snr_times(10)
    for sampler, expected in pinned.MIXTURE_END_POINTS.items():
        found = end_point(sampler, starts, reference.mixture_x0, ts)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    assert isinstance(next(iter(pinned.MIXTURE_END_POINTS)), DPMSolverMultistep)


def test_moments_of_stochastic_samplers():
    kinds = {
        EulerMaruyama(): "euler-maruyama",
        ReverseDiffusion(): "reverse-diffusion",
        Ancestral("beta"): "beta",
        Ancestral("beta_tilde"): "1",
        DDIM(0.0): "0",
        DDIM(0.5): "0.5",
        DDIM(1.0): "1",
    }
    for sampler, rows in load("samplers/test_exact_moments").TABLE.items():
        for steps, expected in rows.items():
            found = reference.output_moments(kinds[sampler], steps)
            assert found == pytest.approx(expected, abs=6e-10)  # half of the last pinned digit


def test_edm():
    np.testing.assert_allclose(reference.edm_sigmas(18), load("test_grid").EDM_SIGMAS, rtol=1e-13)
    exact = reference.MEAN + 0.5 / math.hypot(0.5, 80) * (80 - reference.MEAN)
    assert exact == pytest.approx(load("samplers/test_convergence").EDM_EXACT, abs=1e-13)
    for levels, expected in load("samplers/test_convergence").EDM_END_POINTS:
        assert reference.edm_heun_end(levels) == pytest.approx(expected, abs=1e-11)


def test_variational_bounds():
    for (variance, decoder), parts in load("likelihood/vlb/test_bound").TABLE.items():
        assert reference.vlb_terms(variance, decoder) == pytest.approx(parts, abs=1e-10)
