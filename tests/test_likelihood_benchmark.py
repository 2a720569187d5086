"""The benchmark of likelihoods: its truth, units and errors agree with direct computation."""

import importlib
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from scoresde.likelihood import ExactTrace, Hutchinson, Ode, log_likelihood
from scoresde.likelihood import Path as PathMethod
from scoresde.score import FunctionScore
from scoresde.sde import VP

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = (
    *("likelihood", "likelihood_methods", "likelihood_problems", "likelihood_report"),
    *("paired", "script"),
)


@pytest.fixture(scope="module")
def benchmark():
    """benchmark(name): a module of benchmarks/, which are scripts and import one another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def problem(benchmark):
    """24 points of the mixture in 16 dimensions."""
    return benchmark("likelihood_problems").exact_problem(False, 0, 24, 1e-5, tolerance=1e-5)


def row(report, label, units, rms, bias=0.0, **others):
    known = {"path_bias": 0.0, "path_bias_error": 0.0} | others
    return report.Row(label, report.PATH, 10, 10, units, 3, rms, bias, 1e-4, math.nan, **known)


def test_the_truth_is_what_another_route_gives(problem):
    """Densities at both ends of the path agree with dopri5 and the integral of the divergence."""
    some = problem.first(2)
    method = Ode(rtol=1e-4, atol=1e-4, trace="exact", t_min=some.t_min)
    done = log_likelihood(some.model, some.x, method)
    # the tolerance over some tens of steps; a wrong term would be of the order of 1 nat
    torch.testing.assert_close(some.truth, done.log_prob, rtol=0, atol=5e-3)
    assert problem.bits == pytest.approx(1 / (16 * math.log(2)))


def test_modes_are_far_apart(benchmark):
    model = benchmark("likelihood_problems")._modes(0)
    gaps = torch.cdist(model.means, model.means) + 1e9 * torch.eye(4, dtype=torch.float64)
    assert model.means.shape == (4, 32)
    # in standard deviations of the widest direction of either
    assert float(gaps.min() / model.variances.max().sqrt()) > 8


def test_a_row_says_what_the_estimates_say(benchmark, problem):
    methods = benchmark("likelihood_methods")
    path = PathMethod(steps=6, nodes=4, trace=Hutchinson(probes=2), t_min=problem.t_min)
    found = methods.measure(problem, methods.by_path(path, False), [3, 4])
    runs = [log_likelihood(problem.model, problem.x, path, seed=s) for s in (3, 4)]
    errors = [(run.log_prob - problem.truth) / (16 * math.log(2)) for run in runs]
    bias = sum(float(e.mean()) for e in errors) / 2
    assert found.bias == pytest.approx(bias, abs=1e-12)
    assert found.rms**2 == pytest.approx(sum(float((e**2).mean()) for e in errors) / 2)
    # two seeds of each point: (difference)²/2 estimates its variance
    variance = float((errors[0] - errors[1]).square().mean()) / 2
    assert found.bias_error == pytest.approx(math.sqrt(variance / (2 * 24)))
    inside = [float(((r.log_prob - problem.truth).abs() <= r.half_width()).sum()) for r in runs]
    assert found.cover == pytest.approx(sum(inside) / 48)
    # by hand: 7 points of the path, then 4 nodes with 2 probes
    assert (found.nfe, found.passes) == (7 + 4, 4 * 2)
    assert found.units == pytest.approx(11 + 0.97 * 8)
    assert found.bare_bias != found.bias


def test_the_standard_costs_a_pass_at_every_evaluation(benchmark, problem):
    methods = benchmark("likelihood_methods")
    standard = methods.standards(problem)[0]
    found = methods.measure(problem, standard, [1])
    method = Ode(rtol=1e-5, atol=1e-5, trace=Hutchinson(), t_min=problem.t_min)
    done = log_likelihood(problem.model, problem.x, method, seed=1)
    error = float((done.log_prob - problem.truth).square().mean().sqrt())
    assert found.rms == pytest.approx(error * problem.bits)
    assert found.nfe == found.passes == done.nfe
    assert math.isnan(found.stated)  # a single probe cannot tell
    assert math.isnan(found.bias_error)  # nor can a single seed


def test_the_truths_own_error_is_taken_off(benchmark, problem):
    methods = benchmark("likelihood_methods")
    nats = torch.full_like(problem.truth, 3 / problem.bits)
    noisy = replace(problem, truth_error=nats)
    errors = torch.tensor([[5.0] * 24, [-5.0] * 24], dtype=torch.float64)
    found = methods.accuracy(noisy, errors)
    assert found["rms"] == pytest.approx(4.0)
    # over 24 points: 50 is the variance between the two seeds
    assert found["bias_error"] == pytest.approx(math.sqrt((50 / 2 + 9) / 24))


@pytest.mark.slow
def test_path_bias_is_that_of_the_steps(benchmark, problem):
    methods = benchmark("likelihood_methods")
    bias = methods.PathBias(problem, [1, 2])

    def of(controlled=True, **settings):
        return bias.of(methods.by_path(PathMethod(**settings), controlled))

    assert of(steps=methods.FINE) == (0.0, 0.0)
    mean, error = of(steps=16)
    # the correction leaves nothing where the score is exact
    assert abs(mean) < 4 * error + 1e-4
    held = len(bias.held)
    assert of(steps=16, nodes=7, trace=ExactTrace()) == (mean, error)
    assert len(bias.held) == held
    # the control sets the scale of the path
    assert of(controlled=False, steps=16) != (mean, error)


def test_verdict(benchmark):
    report = benchmark("likelihood_report")
    rows = [
        row(report, "standard", 100.0, 0.2, path_bias=math.nan),
        row(report, "noisy", 5.0, 0.3),
        row(report, "biased path", 6.0, 0.1, path_bias=2e-3),
        row(report, "biased", 7.0, 0.1, bias=-2e-3),
        row(report, "cheap", 9.0, 0.19),
        row(report, "better", 18.0, 0.1),
        row(report, "dear", 50.0, 0.01),
    ]
    assert [r.label for r in report.winners(rows).values()] == ["cheap", "better", "cheap"]
    _, cheapest, fifth, tenth = report.verdict(rows).splitlines()
    assert "cheap: 1/11.1 of the cost" in cheapest
    assert "better: 1/5.6" in fifth
    assert "cheap: 1/11.1" in tenth
    assert report.verdict(rows[:4]).count("none") == 3
    lines = report.table(rows).splitlines()
    assert len(lines) == 8
    assert lines[5].split()[:5] == ["cheap", "10", "10", "9.0", "1/11.1"]


def test_luck_does_not_win(benchmark, monkeypatch):
    likelihood, report = benchmark("likelihood"), benchmark("likelihood_report")
    rows = [
        row(report, "standard", 100.0, 0.2, path_bias=math.nan),
        row(report, "lucky", 9.0, 0.1),
        row(report, "cheap", 9.5, 0.15),
    ]
    truth = {"lucky": 0.21, "cheap": 0.16}

    def measure(problem, name, seeds):
        # other seeds than the first three
        assert list(seeds) == list(range(4, 28))
        return replace(row(report, name, 9.0, truth[name]), draws=len(seeds))

    monkeypatch.setattr(likelihood, "measure", measure)
    likelihood.confirm(None, rows, {name: name for name in truth}, draws=3)
    assert [r.rms for r in rows] == [0.2, 0.21, 0.16]
    assert {r.label for r in report.winners(rows).values()} == {"cheap"}


def test_the_truth_is_kept_for_its_key_alone(benchmark, tmp_path):
    cached = benchmark("likelihood_problems")._cached
    known = torch.tensor([0.1, -2.5], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    file = tmp_path / "truth.json"
    assert cached(file, ["net", 1], lambda: known) == known
    truth, error = cached(file, ["net", 1], lambda: pytest.fail("solved again"))
    assert torch.equal(truth, known[0])
    assert torch.equal(error, known[1])
    with pytest.raises(ValueError, match="holds the truth of"):
        cached(file, ["net", 2], lambda: known)


def test_a_derivative_pass_is_timed_in_forward_passes(benchmark):
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            time.sleep(0.02)
            return 2 * x

        @staticmethod
        def backward(ctx, v):
            time.sleep(0.06)
            return 2 * v

    model = FunctionScore(VP(), lambda x, t: Slow.apply(x))
    cost = benchmark("likelihood_problems").pass_cost(model, torch.ones(2, 3), repeats=3)
    # 60 ms on 20 ms; what is not asleep takes a millisecond, or ten on a busy machine
    assert 2 < cost < 4


@pytest.mark.slow
def test_command(benchmark, problem, monkeypatch, tmp_path):
    likelihood, methods = benchmark("likelihood"), benchmark("likelihood_methods")
    monkeypatch.setattr(likelihood, "exact_problem", lambda *settings: problem.first(6))
    monkeypatch.setattr(methods, "FINE", 24)
    monkeypatch.setattr(likelihood, "standards", lambda p: methods.standards(p)[:2])
    monkeypatch.setattr(likelihood, "GRID", ((16,), (4, 9), (Hutchinson(),), (0.25,)))
    threads = torch.get_num_threads()
    out, picture = tmp_path / "r.json", tmp_path / "r.png"
    options = ["--draws", "2", "--pilot", "4", "--nodes", "4", "--json", str(out)]
    done = CliRunner().invoke(likelihood.main, [*options, "--figure", str(picture)])
    torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    assert "verdict: RMS ≤" in done.stdout
    assert "were tried on 4 points" in done.stdout
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    labels = [r["label"] for r in rows]
    assert labels[0].startswith("standard")
    assert sum("path 16+4" in label for label in labels) >= 1
    default = next(r for r in rows if r["label"].startswith("default"))
    known = PathMethod()
    assert default["nfe"] == known.steps + 1 + known.nodes
    assert default["passes"] == 2 * known.nodes
    assert picture.read_bytes().startswith(b"\x89PNG")
