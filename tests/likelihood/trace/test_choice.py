"""choose_trace: its variances against closed forms, and its choice in known cases."""

import math

import pytest
import torch
from calls import split

from scoresde.exact import GaussianMixture
from scoresde.likelihood.trace.choice import TraceSearch, choose_trace, trace_candidates
from scoresde.likelihood.trace.probing import Probing
from scoresde.likelihood.trace.rules import ExactTrace, Hutchinson
from scoresde.likelihood.trace.sketch import XTrace
from scoresde.score import FunctionScore, wrap
from scoresde.sde import VE, VP, TabulatedVP

DOUBLE = torch.float64


def linear(sde, matrix):
    """ε(x, t) = J x/σ: σ ∂ε/∂x is J at every time and point."""

    def eps(x, t):
        return (x.flatten(1) @ matrix.T).reshape(x.shape) / sde.sigma(t)

    return FunctionScore(sde, eps)


def matrix(dims):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(dims, dims, generator=generator, dtype=DOUBLE)


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["VP", "VE"])
def test_variance_of_known_matrices(sde):
    """Λ² 2 Σ_{i≠j} S_ij² for signs, a K-th part for K of them, without a bias."""
    s = (matrix(6) + matrix(6).T) / 2
    expected = 2 * float((s**2).sum() - (s.diagonal() ** 2).sum())
    width = float(sde.lam(1e-3) - sde.lam(1.0))
    rules = [Hutchinson(), Hutchinson(probes=3)]
    search = TraceSearch(rules, std_error=1.0, repeats=20)
    x = torch.zeros(20, 6, dtype=DOUBLE)
    chosen = choose_trace(linear(sde, matrix(6)), x, search, seed=0, t_min=1e-3)
    by_rule = {row.rule: row for row in chosen.table}
    # a variance from 20 · 19 · 6 degrees of freedom of a law with heavy tails: 5 %
    for rule, row in by_rule.items():
        assert row.variance == pytest.approx(width**2 * expected / rule.probes, rel=0.2)
        assert row.evaluations == max(32, math.ceil(row.variance))
        assert row.total == pytest.approx(row.evaluations * (1 + 0.97 * rule.probes))
    assert [row.total for row in chosen.table] == sorted(row.total for row in chosen.table)
    assert chosen.rule == chosen.table[0].rule


def test_exact_where_a_few_passes_give_it():
    x = torch.zeros(4, 3, dtype=DOUBLE)
    assert choose_trace(linear(VP(), matrix(3)), x, seed=0).rule == ExactTrace()


def test_probing_where_pixels_know_their_neighbours_only():
    """An image's Jacobian with nearest neighbours: two colours leave no variance."""
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    near = matrix(64) * ((places[:, None] - places).square().sum(-1) <= 1)
    x = torch.zeros(3, 1, 8, 8, dtype=DOUBLE)
    chosen = choose_trace(linear(VP(), near), x, seed=0)
    assert chosen.rule == Probing(2)
    # the best of them needs no more evaluations than the integral itself
    assert chosen.table[0].evaluations == 32
    assert chosen.table[0].variance < 1e-20


def test_the_control_is_used_where_it_helps():
    dims = 20
    model = GaussianMixture(VP(), [1.0], torch.zeros(1, dims), _covariance(dims)[None])
    x = model.sample(4, seed=0)
    chosen = choose_trace(model, x, TraceSearch([Hutchinson()]), seed=0, control=model)
    assert chosen.controlled
    assert [row.controlled for row in chosen.table] == [True, False]
    assert chosen.table[0].variance < 1e-18 < 1e-2 < chosen.table[1].variance


def _covariance(dims):
    root = matrix(dims)
    return root @ root.T / dims


def test_a_seed_fixes_the_table(mixture, rng_untouched):
    x = torch.zeros(2, 2, dtype=DOUBLE)
    search = TraceSearch([Hutchinson(), XTrace(2)])
    one, again, other = (choose_trace(mixture(VP()), x, search, seed=s) for s in (1, 1, 2))
    assert one == again != other


def test_candidates_fit_the_dimension():
    assert trace_candidates(2) == (ExactTrace(), Hutchinson())
    assert Probing(4) in trace_candidates(5)
    assert XTrace(12) in trace_candidates(784)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(0, 2)}, ValueError, "x must have shape"),
        ({"t_min": 0}, ValueError, "t_min must be greater than 0"),
        ({"std_error": 0}, ValueError, "std_error must be greater than 0"),
        ({"repeats": 1}, ValueError, "repeats must be at least 2, got 1"),
        ({"times": 0}, ValueError, "times must be at least 1, got 0"),
        ({"evaluations": 1.5}, TypeError, "evaluations must be an integer"),
        ({"pass_cost": -1}, ValueError, "pass_cost must be at least 0"),
        ({"candidates": ()}, ValueError, "candidates must hold at least one rule"),
        ({"control": 1}, TypeError, "control must be a GaussianMixture"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_bad_arguments(mixture, change, error, message):
    names = ("x", "seed", "t_min", "control")
    call, settings = split({"x": torch.zeros(2, 2), "seed": 0, **change}, names)
    with pytest.raises(error, match=message):
        choose_trace(mixture(VP()), search=TraceSearch(**settings), **call)


def test_rounded_labels_are_refused():
    sde = TabulatedVP(VP().ddpm_betas(100))
    rounded = wrap(lambda x, t: x, sde, "eps", label="rounded_index")
    with pytest.raises(ValueError, match="rounded labels"):
        choose_trace(rounded, torch.zeros(2, 3), seed=0)
