"""The whole-batch solver: accuracy, its end, dependence on the batch, and its errors."""

import math
import re
import subprocess
import sys

import pytest
import torch

from scoresde.ivp import WHOLE_BATCH_METHODS, Adaptive, SolverError, Status

DOUBLE = torch.float64


@pytest.mark.parametrize("method", [name for name in WHOLE_BATCH_METHODS if name != "fehlberg2"])
@pytest.mark.by_default("dopri5", "fehlberg2")
def test_accuracy_in_both_directions(rotation, method):
    solver = Adaptive(method, 1e-4, 1e-4)
    there = solver.solve(rotation.rate, rotation.start, 0.0, 1.0, dims=2)
    back = solver.solve(rotation.rate, rotation.end, 1.0, 0.0, dims=2)
    # the tolerance holds for each of up to 500 steps; few of their errors point the same way
    assert float((there.state - rotation.end).abs().max()) < 50 * 1e-4
    assert float((back.state - rotation.start).abs().max()) < 50 * 1e-4
    assert int(there.counts.accepted) > 3


def test_error_follows_the_tolerance(rotation):
    def error(tolerance):
        solver = Adaptive("dopri5", tolerance, tolerance)
        out = solver.solve(rotation.rate, rotation.start, 0.0, 1.0, dims=2)
        return float((out.state - rotation.end).abs().max())

    # order 5 with steps ∝ tolerance^{1/5} up to the safety factor: two decades per two decades
    assert 20 < error(1e-5) / error(1e-7) < 500


@pytest.mark.parametrize(("t_start", "t_end"), [(0.25, 1.0), (1.0, 0.25)])
def test_never_asks_beyond_the_ends(t_start, t_end):
    asked = []

    def slow(y, t):
        asked.append(t)
        return torch.zeros_like(y)

    out = Adaptive().solve(slow, torch.ones(2, 3, dtype=DOUBLE), t_start, t_end, dims=2)
    assert 0.25 <= min(asked) <= 0.25 * (1 + 1e-15)  # torchdiffeq stops a rounding short
    assert 1 - 1e-15 <= max(asked) <= 1
    assert len(asked) < 60  # steps may grow tenfold each
    assert out.counts.evaluations.tolist() == [len(asked)] * 2


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
    assert int(together.counts.accepted[0]) >= int(alone.counts.accepted)
    assert error_together < 2 * error_alone + 1e-6


def test_steps_are_counted():
    def kink(y, t):
        return torch.full_like(y, 1.0 if t < 0.7 else -50.0)

    start = torch.tensor([[1.0, 0.0, 0.0]], dtype=DOUBLE)
    solution = Adaptive().solve(kink, start, 0.0, 1.0, dims=2)
    assert int(solution.counts.status) == Status.DONE
    assert int(solution.counts.rejected) > 0
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
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(**arguments)


def not_a_number(y, t):
    return y / 0.0 if t > 0.75 else y


def test_a_step_that_cannot_be_taken_is_an_error():
    # steps of up to the rest of the way: the last good time is not sharp
    with pytest.raises(SolverError, match=r"dopri5 gave up at t=0\.[567].*loosen rtol") as caught:
        Adaptive().solve(not_a_number, torch.zeros(2, 1, dtype=DOUBLE), 0.5, 1.0, dims=1)
    assert caught.value.counts.status.tolist() == [Status.UNDERFLOW] * 2


@pytest.mark.slow  # imports torch without its asserts: compiled anew if nobody did before
def test_failures_are_errors_when_asserts_are_off():
    """Torchdiffeq's own checks are asserts. Without them it would loop for ever."""
    program = """
import torch
from scoresde.ivp import Adaptive, AdaptivePerSample

def rate(y, t, rows=None):
    return y / 0.0 if float(torch.as_tensor(t).max()) > 0.75 else y

for solver in (Adaptive(), AdaptivePerSample()):
    try:
        solver.solve(rate, torch.zeros(1, 1, dtype=torch.float64), 0.5, 1.0, dims=1)
    except RuntimeError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-O", "-c", program], capture_output=True, text=True, timeout=180
    )
    whole, each = run.stdout.splitlines()
    assert re.match(r"dopri5 gave up at t=0\.[567]", whole)
    assert re.match(r"dopri5 gave up on 1 of 1 samples, first on sample 0 at t=0\.75 ", each)
