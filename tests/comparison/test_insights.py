"""Errors along the trajectory and by noise level, against other computations of the same."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scoresde._condition import ConditionSpec
from scoresde.comparison import noise_levels, trajectory
from scoresde.comparison.insights import Insights
from scoresde.comparison.limit import NO_LIMIT, TimeLimit
from scoresde.comparison.noise_levels import NoiseLevels
from scoresde.comparison.plan import likely_evaluations
from scoresde.comparison.trajectory import Trajectories
from scoresde.exact import GaussianMixture
from scoresde.metrics import Estimate
from scoresde.samplers import DDIM, ProbabilityFlowODE, sample
from scoresde.score import FunctionScore
from scoresde.sde import VP

from .conftest import planar_data

WHOLE = SimpleNamespace(condition=ConditionSpec(), snapped=False)  # a model without a condition


def test_errors_along_the_trajectory_are_those_of_samplers_that_stop_there(sweep, tmp_path):
    one = sweep(samplers=("ancestral", "ddim", "dopri5", "dpmpp-2m"), quality=False)
    trajectory.measure(one, tmp_path)
    found = Trajectories.read(tmp_path)
    assert (found.budget, found.n, found.names) == (4, 24, ["ddim", "dpmpp-2m"])
    cell = next(c for c in one.cells if c.label == "ddim" and c.budget == 4)
    for step in (1, 3):
        ts, same = cell.ts[: step + 1], {"seed": 5, "denoise": False, "dtype": torch.float64}
        exact = ProbabilityFlowODE("dopri8", 1e-8, 1e-8)
        x = sample(one.model, DDIM(), ts, (24, 2), **same).x
        solved = sample(one.model, exact, [1.0, float(ts[-1])], (24, 2), **same).x
        alpha, sigma = one.model.sde.alpha(ts[-1]), one.model.sde.sigma(ts[-1])
        error = ((x - solved).square().mean() / (alpha**2 + sigma**2)).sqrt()
        assert found.levels[0][step - 1] == pytest.approx(float(sigma / alpha))
        assert found.errors[0][step - 1] == pytest.approx(float(error), rel=1e-3)


def test_half_of_the_error_is_there_after_the_last_step_below_half(tmp_path):
    """An early peak does not count, because it has gone again."""
    found = Trajectories(5, 8, ["a"], [np.array([9.0, 3, 1, 0.3])], [np.array([0.9, 0.1, 0.6, 1])])
    assert found.text == "Half of the last error has arisen by σ/α = 1 (a)."


def gaussian(sde=None):
    """N(0, s² I) with s = 0.6 in the plane."""
    return GaussianMixture(sde or VP(), [1.0], [[0.0, 0.0]], [0.36])


def test_the_error_of_an_exact_gaussian_is_its_closed_form(sweep, tmp_path):
    """ε̂ = σ x/(α² s² + σ²), whose error is α² s²/(α² s² + σ²)."""
    one = sweep(model=gaussian(), samplers=("ddim",), quality=False)
    data = {"training": planar_data(gaussian(), "train", 400)}
    noise_levels.measure(one, WHOLE, data, tmp_path)
    found = NoiseLevels.read(tmp_path)
    expected = 0.36 / (0.36 + found.levels**2)
    for error, value in zip(found.errors["training"], expected, strict=True):
        assert abs(error.value - value) < 4 * error.std_error + 1e-6
    assert found.levels[0] > 100 > 0.1 > found.levels[-1]
    assert found.text == "The error is nowhere above 1, as is normal."


def test_a_wrong_network_is_named(sweep, tmp_path):
    exact = gaussian()
    wrong = FunctionScore(VP(), lambda x, t: -exact.eps(x, t))
    one = sweep(model=wrong, samplers=("ddim",), quality=False)
    data = {s: planar_data(exact, s, 100) for s in ("training", "held-out")}
    noise_levels.measure(one, WHOLE, data, tmp_path)
    text = NoiseLevels.read(tmp_path).text
    assert text.startswith("The error is above 1 at σ/α = ")
    assert text.endswith("on held-out data: no sign of overfitting.")


def test_a_gap_between_the_splits_is_called_overfitting():
    def means(gap):
        seen = {"training": Estimate(0.3, 0.01, (64,), "error")}
        return seen | {"held-out": Estimate(0.3 + gap, 0.01, (64,), "error")}

    assert NoiseLevels(64, np.ones(1), {}, means(0.05)).text.endswith(": a sign of overfitting.")
    assert NoiseLevels(64, np.ones(1), {}, means(0.04)).text.endswith(": no sign of overfitting.")


def test_they_are_measured_once_if_there_is_time(sweep, tmp_path, monkeypatch):
    one = sweep(samplers=("ddim", "ancestral"), quality=False, n=256)
    train = planar_data(one.model, "train", 300)
    made = Insights(one, WHOLE, SimpleNamespace(train=train, test=None))
    made.measure(tmp_path, [], TimeLimit(0.0))
    assert not any(tmp_path.iterdir())
    first, second = tmp_path / "a", tmp_path / "b"
    made.measure(first, [], NO_LIMIT)
    assert {path.name for path in first.iterdir()} == {*made.wanted}
    for module in (trajectory, noise_levels):
        monkeypatch.setattr(module, "measure", None)
    made.measure(second, [first], NO_LIMIT)
    for name in made.wanted:
        assert (second / name).read_bytes() == (first / name).read_bytes()
    other = Insights(replace(one, model_sha256="other"), WHOLE, made.data)
    assert other.missing([first])
    assert not made.missing([first])


@pytest.mark.slow
def test_they_cost_less_than_a_tenth_of_the_usual_comparison(sweep):
    """In evaluations; in the plane more samples are taken than of images."""
    names = ("ddim", "dpmpp-2m", "heun", "ancestral", "euler-maruyama", "dopri5")
    one = sweep(samplers=names, quality=False, budgets=(5, 10, 20, 50), n=256)
    rest = one.solver.likely_evaluations(one.model.sde) + sum(map(likely_evaluations, one.cells))
    for shape, share in (((2,), 0.1), ((1, 8, 8), 0.05)):
        of_shape = replace(one, spec=replace(one.spec, shape=shape))
        train = replace(planar_data(one.model, "train", 300), spec=of_shape.spec)
        made = Insights(of_shape, WHOLE, SimpleNamespace(train=train, test=train))
        assert 0 < made.evaluations < share * rest


def test_a_damaged_file_is_refused_by_name(tmp_path):
    for name, kind in ((trajectory.TRAJECTORY, Trajectories), ("noise_levels.npz", NoiseLevels)):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.warns(UserWarning, match="damaged"), pytest.raises(ValueError, match=name):
            kind.read(tmp_path)


def test_data_that_do_not_say_the_condition_are_left_out(sweep):
    one = sweep(quality=False, samplers=("ddim",))
    asked = replace(one, settings=replace(one.settings, y=torch.zeros(24)))
    data = {"training": planar_data(one.model, "train", 50)}
    assert noise_levels.usable(asked, WHOLE, data) == {}
    assert len(noise_levels.usable(one, WHOLE, data)["training"]) == 50
