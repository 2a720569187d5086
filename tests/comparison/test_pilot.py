"""The evaluations of the reference solution are known from a short run on few samples."""

import pytest

from scoresde.comparison import pilot
from scoresde.comparison.draw import DrawSettings
from scoresde.comparison.pilot import solution_evaluations
from scoresde.comparison.reference import Reference
from scoresde.exact import GaussianMixture
from scoresde.sde import VP

ONE_STEP = 13  # evaluations of a step of dopri8


def solver(n=8):
    return Reference(1e-5, DrawSettings((2,), n=n, seed=0, t_min=1e-3, batch=16))


def test_a_run_on_few_samples_tells_the_evaluations_of_all(monkeypatch):
    """Narrow peaks are dearer than N(0, 1), and the default factor does not know by how much."""
    model = GaussianMixture(VP(), [0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], [0.02, 0.05])
    monkeypatch.setattr(pilot, "NUMBERS", 16)
    one = solver(n=16)
    taken = sum(one.solution(model, tolerance).nfe for tolerance in (1e-5, 1e-4))
    assert taken > 1.2 * one.counted_evaluations(VP())
    # eight samples against sixteen
    assert solution_evaluations(one, model, 60) == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("n", [8, 160])
def test_on_the_model_of_the_count_it_is_the_count(n):
    """Of 160 samples a tenth is solved again for the error."""
    free, one = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [1.0]), solver(n)
    found = solution_evaluations(one, free, 60)
    assert found == pytest.approx(one.counted_evaluations(VP()), rel=0.15)  # one step more or less


def test_the_rest_of_a_run_that_is_stopped_is_an_estimate():
    model = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [1.0])
    one, whole = solver(), solver().counted_evaluations(VP())
    # after one step the rest is taken for √2 times as dear as it is
    assert whole < solution_evaluations(one, model, 0) < 1.5 * whole + ONE_STEP
