"""The adaptive solver: accuracy, its end, batch mates, and that it fails with an exception."""

import math
import re
import subprocess
import sys

import pytest
import torch

from scoresde.likelihood.solver import METHODS, Adaptive

DOUBLE = torch.float64


def rotation(y, t):
    """(x, l)' with x on a circle of angular speed 20 t, and l = ∫ 3 t² dt."""
    x1, x2 = y[:, :1], y[:, 1:2]
    w = 20 * t
    return torch.cat([-w * x2, w * x1, torch.full_like(x1, 3 * t * t)], dim=1)


START = torch.tensor([[1.0, 0.0, 0.0]], dtype=DOUBLE)
END = torch.tensor([[math.cos(10), math.sin(10), 1.0]], dtype=DOUBLE)  # at t = 1


@pytest.mark.parametrize("method", METHODS)
def test_accuracy(method):
    tolerance = 1e-4
    solution = Adaptive(method, tolerance, tolerance).solve(rotation, START, 0.0, 1.0, dims=2)
    # the tolerance holds for each of up to 500 steps; few of their errors point the same way
    assert float((solution.state - END).abs().max()) < 50 * tolerance
    assert solution.accepted > 3


def test_error_follows_the_tolerance():
    def error(tolerance):
        solver = Adaptive("dopri5", tolerance, tolerance)
        return float((solver.solve(rotation, START, 0.0, 1.0, dims=2).state - END).abs().max())

    # order 5 with steps ∝ tolerance^{1/5} up to the safety factor: two decades per two decades
    assert 20 < error(1e-5) / error(1e-7) < 500


def test_never_asks_beyond_the_ends():
    asked = []

    def slow(y, t):
        asked.append(t)
        return torch.zeros_like(y)

    Adaptive().solve(slow, START, 0.25, 1.0, dims=2)
    assert min(asked) == 0.25
    assert max(asked) <= 1.0
    assert len(asked) < 60  # steps may grow tenfold each


def test_a_step_is_good_enough_for_every_sample():
    """A hard sample among easy ones is as accurate as alone, unlike under a batch-mean norm."""

    def decay(y, t):
        return -rate[:, None] * (y - math.sin(10 * t))

    rate = torch.tensor([60.0] + [0.01] * 255, dtype=DOUBLE)
    start, solver = torch.ones(256, 1, dtype=DOUBLE), Adaptive("dopri5", 1e-4, 1e-4)
    together = solver.solve(decay, start, 0.0, 1.0, dims=1)
    rate = rate[:1]
    alone = solver.solve(decay, start[:1], 0.0, 1.0, dims=1)
    fine = Adaptive("dopri8", 1e-12, 1e-12).solve(decay, start[:1], 0.0, 1.0, dims=1)
    error_alone = float((alone.state - fine.state).abs())
    error_together = float((together.state[:1] - fine.state).abs())
    assert together.accepted >= alone.accepted
    assert error_together < 2 * error_alone + 1e-6


def test_steps_are_counted():
    def kink(y, t):
        return torch.full_like(y, 1.0 if t < 0.7 else -50.0)

    solution = Adaptive().solve(kink, START, 0.0, 1.0, dims=2)
    assert solution.rejected > 0
    # the kink is met within the tolerance of one step
    assert float(solution.state[0, 2]) == pytest.approx(0.7 - 15.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rk4"}, "method must be one of dopri8, dopri5"),
        ({"rtol": 0}, "rtol must be greater than 0"),
        ({"rtol": -1e-3}, "rtol must be greater than 0"),
        ({"rtol": math.nan}, "rtol must be finite"),
        ({"rtol": 1.0}, "rtol must be less than 1"),
        ({"atol": 0.0}, "atol must be greater than 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(**arguments)


def not_a_number(y, t):
    return y / 0.0 if t > 0.75 else y


def test_a_step_that_cannot_be_taken_is_an_error():
    # steps of up to the rest of the way: the last good time is not sharp
    with pytest.raises(RuntimeError, match=r"dopri5 gave up at t=0\.[567].*loosen rtol"):
        Adaptive().solve(not_a_number, torch.zeros(1, 1, dtype=DOUBLE), 0.5, 1.0, dims=1)


@pytest.mark.slow  # imports torch without its asserts: compiled anew if nobody did before
def test_a_step_that_cannot_be_taken_is_an_error_when_asserts_are_off():
    """Where torchdiffeq's own check vanishes, and it would loop for ever."""
    program = """
import torch
from scoresde.likelihood.solver import Adaptive

def rate(y, t):
    return y / 0.0 if t > 0.75 else y

Adaptive().solve(rate, torch.zeros(1, 1, dtype=torch.float64), 0.5, 1.0, dims=1)
"""
    run = subprocess.run(
        [sys.executable, "-O", "-c", program], capture_output=True, text=True, timeout=180
    )
    assert run.returncode == 1
    assert re.search(r"RuntimeError: dopri5 gave up at t=0\.[567]", run.stderr)
