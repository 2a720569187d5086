"""The probability-flow ODE by adaptive methods: accuracy, its own steps, and its failures.

The claims of `scoresde verify` about tolerances are tested in `tests/verification/`.
"""

import subprocess
import sys
import textwrap

import pytest
import torch

from scoresde import grid
from scoresde.ivp import WHOLE_BATCH_METHODS
from scoresde.samplers import ProbabilityFlowODE, RungeKutta, sample
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP


def _exploding(x, t):
    """A field whose solution goes to infinity in finite time."""
    return -torch.exp(x.abs().clamp(max=80)) * torch.sign(x)


@pytest.mark.parametrize("method", WHOLE_BATCH_METHODS)
@pytest.mark.by_default("dopri5", "bosh3")
def test_adaptive_methods_meet_a_tolerance(mixture, points, exact_ode, rms, method):
    model, start = mixture(VP()), points[::6]
    tol = 1e-6 if method == "fehlberg2" else 1e-4
    with torch.no_grad():
        solver = ProbabilityFlowODE(method, tol, tol)
        out = solver.run(model, start, grid.uniform(VP(), 1), None).state
    # local errors of 1e-4 add up over some tens of steps
    assert rms(out, exact_ode(model, start, 1e-3)) <= 5e-3


@pytest.mark.by_default("VE", "Linear")
def test_dopri5_on_every_sde(mixture, points, exact_ode, rms, sde):
    model, start, t_min = mixture(sde), points[::6] * sde.prior_std, 1e-5
    with torch.no_grad():
        out = ProbabilityFlowODE().run(model, start, grid.uniform(sde, 1, t_min), None).state
    assert rms(out, exact_ode(model, start, t_min)) <= 20 * 1e-5


@pytest.mark.slow
def test_prior_to_data_map(mixture):
    """Known end points of the mixture's ODE under VP and VE."""
    z = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    for sde, t_min, expected in (
        (VP(), 1e-3, [0.762553415481, -0.728997177382]),
        (VE(), 1e-5, [0.764308958873, -0.731680759010]),
    ):
        out = sample(
            mixture(sde),
            ProbabilityFlowODE("dopri8", 1e-10, 1e-10),
            grid.uniform(sde, 1, t_min),
            (1, 2),
            seed=0,
            x_init=z * sde.prior_std,
            dtype=torch.float64,
            denoise=False,
        )
        expected = torch.tensor([expected], dtype=torch.float64)
        assert torch.allclose(out.x, expected, rtol=0, atol=1e-8)  # 20 times the tolerance


def test_adaptive_methods_use_only_the_ends_of_the_grid(mixture, points):
    results = [
        ProbabilityFlowODE().run(mixture(VP()), points, ts, None).state
        for ts in (grid.uniform(VP(), 1), grid.log_snr(VP(), 30))
    ]
    assert torch.equal(*results)


def test_a_runge_kutta_method_takes_exactly_the_grid_s_steps(elementwise):
    ts, times = grid.quadratic(VP(), 7), []
    model = elementwise(VP())
    inner = model.function
    model.function = lambda x, t: times.append(float(t)) or inner(x, t)
    reported = []
    RungeKutta("euler").run(
        model,
        torch.ones(2, 3, dtype=torch.float64),
        ts,
        None,
        lambda i, t, x: reported.append((i, t)),
    )
    assert times == ts[:-1].tolist()
    assert reported == list(enumerate(ts[1:].tolist(), start=1))


def test_no_time_outside_the_grid_is_evaluated(elementwise, any_sampler):
    """An adaptive solver steps past its end, and its first trial step may have any size."""
    # float32 rounds the times that an adaptive solver chooses; those of a grid are given
    for dtype in (torch.float32, torch.float64)[any_sampler.nfe is not None :]:
        model, times = elementwise(VE()), []
        inner = model.function
        model.function = lambda x, t, f=inner, seen=times: (
            seen.extend(t.flatten().tolist()) or f(x, t)
        )
        ts = grid.uniform(VE(), 3, t_min=1e-5, t_max=0.9)
        sample(model, any_sampler.sampler, ts, (2, 1), seed=0, dtype=dtype)
        # churn alone goes up, by at most a factor √2 of σ
        assert max(times) <= 0.95
        assert min(times) >= 1e-5


def test_a_tiny_drift_does_not_throw_the_solver_out_of_range():
    """Torchdiffeq's first step is |x|/|f|, here some 1e4 times the interval."""
    model = FunctionScore(VE(), lambda x, t: 1e-9 * torch.ones_like(x))
    out = sample(model, ProbabilityFlowODE(), grid.uniform(VE(), 1, 1e-5), (2, 1), seed=0)
    assert torch.allclose(out.x, out.x_init, rtol=1e-5)


def test_adaptive_progress_ends_at_the_end_of_the_grid(elementwise):
    seen = []
    out = sample(
        elementwise(VP()),
        ProbabilityFlowODE(),
        grid.uniform(VP(), 5),
        (2, 1),
        seed=0,
        on_step=lambda i, t, x: seen.append((i, t, x)),
        denoise=False,
    )
    assert [i for i, _, _ in seen] == list(range(1, len(seen) + 1))
    times = [t for _, t, _ in seen]
    assert times == sorted(times, reverse=True)
    assert times[-1] == pytest.approx(1e-3, rel=1e-12)
    assert torch.equal(seen[-1][2], out.x)


def test_float32_is_float64_to_the_tolerance(mixture, points):
    ts = grid.uniform(VP(), 1)
    a, b = (
        ProbabilityFlowODE("dopri5", 1e-5, 1e-5).run(mixture(VP()), points.to(d), ts, None).state
        for d in (torch.float32, torch.float64)
    )
    assert a.dtype == torch.float32
    assert torch.allclose(a.double(), b, rtol=0, atol=2e-4)  # 20 times the tolerance


def test_rtol_below_float32_is_refused_before_the_network_is_called():
    def network(x, t):
        raise AssertionError("called")

    with pytest.raises(ValueError, match="rtol must be at least 1e-07 in float32, got 1e-12"):
        sample(
            FunctionScore(VP(), network),
            ProbabilityFlowODE(rtol=1e-12),
            grid.uniform(VP(), 1),
            (1, 1),
            seed=0,
        )


@pytest.mark.slow
def test_a_solution_that_explodes_is_an_error():
    model = FunctionScore(VP(), _exploding)
    with pytest.raises(RuntimeError, match="dopri5 gave up at t=0.9.*loosen rtol and atol"):
        sample(model, ProbabilityFlowODE(), grid.uniform(VP(), 1), (2, 2), seed=0)


def test_too_many_steps_is_an_error(elementwise):
    with pytest.raises(RuntimeError, match="dopri5 gave up at t=.*3 steps did not.*max_steps"):
        sample(
            elementwise(VP()),
            ProbabilityFlowODE(max_steps=3),
            grid.uniform(VP(), 1),
            (2, 2),
            seed=0,
        )


@pytest.mark.slow  # imports torch without its asserts: compiled anew if nobody did before
def test_failures_are_errors_without_assertions_too():
    """Torchdiffeq's own checks are asserts: under `python -O` it would run for ever."""
    program = """
        import torch
        from scoresde import grid
        from scoresde.samplers import ProbabilityFlowODE, sample
        from scoresde.score import FunctionScore
        from scoresde.sde import VP
        assert False, "asserts must be off"
        fields = (
            lambda x, t: x * float("nan"),
            lambda x, t: -torch.exp(x.abs().clamp(max=80)) * torch.sign(x),
        )
        for field in fields:
            model = FunctionScore(VP(), field)
            try:
                ts, x = grid.uniform(VP(), 1), torch.ones(2, 2)
                sample(model, ProbabilityFlowODE(), ts, (2, 2), seed=0, x_init=x)
            except RuntimeError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-O", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    nan, exploded = done.stdout.splitlines()
    assert "network output at t=1: 4 non-finite values of 4" in nan
    assert "dopri5 gave up at t=0.97" in exploded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rk5"}, "method with .* must be one of dopri8, .*, got 'rk5'"),
        ({"method": "dop853"}, "method with per_sample=False must be one of dopri8"),
        (
            {"method": "dopri8", "per_sample": True},
            "method with per_sample=True must be one of dop853, dopri5, bosh3, got 'dopri8'",
        ),
        ({"rtol": 0.0}, "rtol must be greater than 0"),
        ({"rtol": -1e-3}, "rtol must be greater than 0"),
        ({"rtol": 1.0}, "rtol must be less than 1"),
        ({"rtol": float("nan")}, "rtol must be finite"),
        ({"atol": 0.0}, "atol must be greater than 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProbabilityFlowODE(**arguments)
