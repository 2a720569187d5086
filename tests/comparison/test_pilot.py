"""The evaluations of the reference solution are known from a short run on few samples."""

import pytest

from scoresde.comparison import pilot
from scoresde.comparison.draw import DrawSettings
from scoresde.comparison.pilot import solution_evaluations
from scoresde.comparison.reference import Reference
from scoresde.exact import GaussianMixture
from scoresde.sde import VP


def solver(n):
    return Reference(1e-5, DrawSettings((2,), n=n, seed=0, t_min=1e-3, batch=16))


def test_a_run_on_few_samples_tells_the_evaluations_of_all(monkeypatch):
    """Eight of sixteen samples; narrow peaks are dearer than N(0, 1)."""
    model = GaussianMixture(VP(), [0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], [0.02, 0.05])
    monkeypatch.setattr(pilot, "NUMBERS", 16)
    one = solver(n=16)
    taken = sum(one.solution(model, tolerance).nfe for tolerance in (1e-5, 1e-4))
    assert taken > 0.6 * one.likely_evaluations(VP())
    assert solution_evaluations(one, model, 60) == pytest.approx(taken, rel=0.15)


def test_the_check_of_the_error_is_that_of_few_samples():
    """16 of 160 samples are solved again, at ten times the tolerance."""
    model, one = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [1.5]), solver(n=160)
    nfe, check = (one.solution(model, tol, 16).nfe for tol in (1e-5, 1e-4))
    found = solution_evaluations(one, model, 60)
    assert found == pytest.approx(nfe + check / 10, rel=0.15)  # a step more or less


def test_the_rest_of_a_run_that_is_stopped_is_an_estimate():
    """After one step the rest is taken for √2 times as dear as on N(0, 1)."""
    free, one = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [1.0]), solver(n=8)
    whole, stopped = (solution_evaluations(one, free, seconds) for seconds in (60, 0))
    assert 1.2 < stopped / whole < 2**0.5
