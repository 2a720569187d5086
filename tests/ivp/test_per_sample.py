"""The per-sample solver: accuracy, independence of the batch, counts, and its failures."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from scoresde.ivp import (
    PER_SAMPLE_METHODS,
    AdaptivePerSample,
    Counts,
    SolverError,
    Status,
    error_norm,
)

DOUBLE = torch.float64
SCIPY = {"dop853": "DOP853", "dopri5": "RK45", "bosh3": "RK23"}
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def decay(y, t, rows):
    """y' = −k (y − sin 10 t), k of four decades over the batch."""
    k = STIFFNESS[rows][:, None].to(y)
    return -k * (y - torch.sin(10 * t)[:, None].to(y))


STIFFNESS = torch.logspace(-2, 2, 9, dtype=DOUBLE)
ONES = torch.ones(9, 2, dtype=DOUBLE)


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
@pytest.mark.by_default("dop853", "dopri5")
def test_accuracy_in_both_directions(rotation, method):
    solver = AdaptivePerSample(method, 1e-6, 1e-6)
    there = solver.solve(rotation.rate, rotation.start, 0.0, 1.0, dims=2)
    back = solver.solve(rotation.rate, rotation.end, 1.0, 0.0, dims=2)
    # the tolerance holds for each of up to 200 steps; few of their errors point the same way
    assert float((there.state - rotation.end).abs().max()) < 50 * 1e-6
    assert float((back.state - rotation.start).abs().max()) < 50 * 1e-6


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
def test_as_good_as_scipy_for_the_same_cost(rotation, method):
    """The tableaus are the same. The step control differs at the end and at repeated rejections."""
    tolerance = 1e-6
    out = AdaptivePerSample(method, tolerance, tolerance).solve(
        rotation.rate, rotation.start, 0.0, 1.0
    )
    theirs = solve_ivp(
        lambda t, y: rotation.rate(torch.from_numpy(y)[None], t)[0].numpy(),
        (0, 1),
        rotation.start[0].numpy(),
        SCIPY[method],
        rtol=tolerance,
        atol=tolerance,
    )
    assert int(out.counts.evaluations) == pytest.approx(theirs.nfev, rel=0.1)
    error = float((out.state - rotation.end).abs().max())
    assert error < 2 * abs(theirs.y[:, -1] - rotation.end[0].numpy()).max() + tolerance


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
@pytest.mark.by_default("dopri5")
def test_a_sample_is_the_same_in_any_batch(method):
    """Values to the rounding of sums, and counts exactly, though the costs differ tenfold."""
    solver = AdaptivePerSample(method, 1e-6, 1e-6)
    whole = solver.solve(decay, ONES, 0.0, 1.0)
    evaluations = whole.counts.evaluations
    assert int(evaluations.max()) > 3 * int(evaluations.min())
    for order in ([3], [8, 0, 5], [7, 6, 5, 4, 3, 2, 1, 0, 8]):
        chosen = torch.tensor(order)

        def rate(y, t, rows, chosen=chosen):
            return decay(y, t, chosen[rows])

        part = solver.solve(rate, ONES[: len(order)], 0.0, 1.0)
        assert torch.allclose(part.state, whole.state[chosen], rtol=1e-12, atol=1e-13)
        for name in ("status", "accepted", "rejected", "evaluations"):
            ours, theirs = getattr(part.counts, name), getattr(whole.counts, name)
            assert torch.equal(ours, theirs[chosen])


def test_each_sample_is_accurate():
    """Each is as accurate as alone: the error norm is not a mean over the batch."""
    out = AdaptivePerSample("dopri5", 1e-6, 1e-6).solve(decay, ONES, 0.0, 1.0)
    fine = AdaptivePerSample("dop853", 1e-12, 1e-12).solve(decay, ONES, 0.0, 1.0)
    assert float((out.state - fine.state).abs().max()) < 20 * 1e-6


@pytest.mark.parametrize("method", PER_SAMPLE_METHODS)
def test_counts_are_those_of_a_hand_count(method):
    seen = torch.zeros(9, dtype=torch.int64)

    def counted(y, t, rows):
        seen[rows] += 1
        return decay(y, t, rows)

    counts = AdaptivePerSample(method, 1e-5, 1e-5).solve(counted, ONES, 0.0, 1.0).counts
    assert torch.equal(counts.evaluations, seen)
    attempts = counts.accepted + counts.rejected
    assert torch.equal(counts.evaluations, 2 + PER_SAMPLE_METHODS[method] * attempts)
    assert counts.status.tolist() == [Status.DONE] * 9
    assert all(v.dtype == torch.int64 for v in (counts.accepted, counts.rejected, counts.status))


@pytest.mark.parametrize(("t_start", "t_end"), [(0.25, 0.9), (0.9, 0.25)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_asks_beyond_the_ends(t_start, t_end, dtype):
    asked = []

    def rate(y, t, rows):
        asked.extend(t.tolist())
        assert t.dtype == DOUBLE
        assert y.dtype == dtype
        return decay(y, t, rows)

    # a rate of 0 at first: the guess of the first step knows no scale
    out = AdaptivePerSample("bosh3", 1e-4, 1e-4).solve(rate, ONES.to(dtype), t_start, t_end)
    assert out.state.dtype == dtype
    assert min(asked) == min(t_start, t_end)
    assert max(asked) == max(t_start, t_end)


def test_float32_is_float64_to_the_tolerance():
    solver = AdaptivePerSample("dopri5", 1e-5, 1e-5)
    single, double = (solver.solve(decay, ONES.to(d), 0.0, 1.0) for d in (torch.float32, DOUBLE))
    assert torch.allclose(single.state.double(), double.state, rtol=0, atol=20 * 1e-5)


def test_a_constant_takes_few_steps():
    """A zero rate gives no scale for the first step. It is tiny and grows tenfold each time."""
    out = AdaptivePerSample().solve(lambda y, t, rows: torch.zeros_like(y), ONES, 0.0, 1.0)
    assert torch.equal(out.state, ONES)
    assert int(out.counts.accepted.max()) <= 8


def test_steps_over_a_kink_are_rejected():
    def kink(y, t, rows):
        return torch.where(t < 0.7, 1.0, -50.0).to(y)[:, None].expand_as(y)

    out = AdaptivePerSample().solve(kink, torch.zeros(1, 1, dtype=DOUBLE), 0.0, 1.0)
    assert int(out.counts.rejected) > 0
    # a jump in one stage weighs 1/40 to 1/20 in the estimate: so many times 1.5e-5
    assert float(out.state) == pytest.approx(0.7 - 15.0, abs=6e-4)


def test_a_trial_out_of_the_domain_is_only_a_step_too_long():
    """√y is NaN for y < 0, where the first step of y' = −√y from 1 may end."""

    def rate(y, t, rows):
        return -torch.sqrt(y)

    out = AdaptivePerSample("dopri5", 1e-8, 1e-8).solve(rate, ONES, 0.0, 1.9)
    # y = (1 − t/2)²; the steep end divides errors of the tolerance by √y = 0.05
    assert torch.allclose(out.state, torch.full_like(ONES, 0.05**2), atol=1e-7)


def test_progress_is_that_of_the_slowest():
    seen = []
    out = AdaptivePerSample().solve(
        decay, ONES, 1.0, 0.0, on_step=lambda i, t, y: seen.append((i, t, y))
    )
    times = [t for _, t, _ in seen]
    assert [i for i, _, _ in seen] == list(range(1, len(seen) + 1))
    assert times == sorted(times, reverse=True)
    assert times[-1] == 0.0
    assert all(y.shape == ONES.shape for _, _, y in seen)
    assert torch.equal(seen[-1][2], out.state)


def test_no_samples_cost_nothing():
    def never(y, t, rows):
        raise AssertionError("called")

    out = AdaptivePerSample().solve(never, torch.empty(0, 3), 0.0, 1.0)
    assert out.state.shape == (0, 3)
    assert out.counts.evaluations.shape == (0,)


def test_inputs_are_not_changed(rotation):
    start = rotation.start.clone()
    AdaptivePerSample().solve(rotation.rate, rotation.start, 0.0, 1.0)
    assert torch.equal(rotation.start, start)


def test_the_norm_of_a_point_and_of_integrals():
    error = torch.tensor([[3.0, 4.0, 1.0, -2.0], [3.0, 4.0, 9.0, 0.0]])
    rms = math.sqrt(12.5)
    assert error_norm(error, 2).tolist() == pytest.approx([rms, 9.0])
    assert error_norm(error[:, :2], 2).tolist() == pytest.approx([rms, rms])


def test_one_bad_sample_is_named_with_its_time():
    def rate(y, t, rows):
        return torch.where((rows[:, None] == 3) & (t[:, None] > 0.75), math.nan, -y)

    with pytest.raises(
        SolverError, match=r"dopri5 gave up on 1 of 9 samples, first on sample 3 at t=0\.75 \(.*NaN"
    ) as caught:
        AdaptivePerSample("dopri5", **TIGHT).solve(rate, ONES, 0.5, 1.0)
    status = caught.value.counts.status
    assert int(status[3]) == Status.NOT_FINITE
    assert Status.NOT_FINITE not in status[[0, 1, 2, 4, 5, 6, 7, 8]].tolist()


def test_nothing_finite_at_all_is_an_error_at_the_start():
    with pytest.raises(SolverError, match=r"9 of 9 samples, first on sample 0 at t=0 \("):
        AdaptivePerSample().solve(lambda y, t, rows: y * math.nan, ONES, 0.0, 1.0)


def test_a_solution_that_explodes_is_an_error():
    """y' = y², y = 1/(1 − t)."""
    with pytest.raises(
        SolverError, match=r"at t=1\.0000\d \(underflow of the step size\)"
    ) as caught:
        AdaptivePerSample("dopri5", 1e-4, 1e-4).solve(lambda y, t, rows: y * y, ONES, 0.0, 2.0)
    assert Status.UNDERFLOW in caught.value.counts.status.tolist()


def test_the_cap_on_evaluations_holds_for_each_sample():
    solver = AdaptivePerSample("dopri5", 1e-6, 1e-6)
    needed = solver.solve(decay, ONES, 0.0, 1.0).counts.evaluations
    cap = int(needed.max()) - 1
    with pytest.raises(SolverError, match="1 of 9 samples, first on sample 8.*did not suf") as bad:
        AdaptivePerSample("dopri5", 1e-6, 1e-6, cap).solve(decay, ONES, 0.0, 1.0)
    counts = bad.value.counts
    assert counts.status.tolist() == [Status.DONE] * 8 + [Status.EVALUATIONS]
    assert int(counts.evaluations.max()) <= cap
    # exactly as many as are needed are enough
    AdaptivePerSample("dopri5", 1e-6, 1e-6, cap + 1).solve(decay, ONES, 0.0, 1.0)


def test_counts_of_batches_join():
    joined = Counts.cat([Counts.fill(2, Status.DONE, 3), Counts.fill(1, Status.RUNNING, 5, 1)])
    assert joined.accepted.tolist() == [3, 3, 5]
    assert joined.rejected.tolist() == [0, 0, 1]
    assert joined.status.tolist() == [Status.DONE, Status.DONE, Status.RUNNING]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "dopri8"}, ValueError, "method must be one of dop853, dopri5, bosh3"),
        ({"rtol": 0.0}, ValueError, "rtol must be greater than 0"),
        ({"rtol": 1.0}, ValueError, "rtol must be less than 1"),
        ({"atol": 0.0}, ValueError, "atol must be greater than 0"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations must be at least 1"),
        ({"max_evaluations": 1.5}, TypeError, "max_evaluations must be an integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        AdaptivePerSample(**arguments)


def test_an_empty_interval_is_refused():
    with pytest.raises(ValueError, match=r"t_end must differ from t_start, got 0.5 for both"):
        AdaptivePerSample().solve(decay, ONES, 0.5, 0.5)
