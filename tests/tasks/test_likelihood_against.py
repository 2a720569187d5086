"""`scoresde likelihood --against`: the paired difference of two models."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import scoresde
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import Budget, Ode, budget_difference, likelihood_budget, mean_budget
from scoresde.sde import VP
from scoresde.tasks.likelihood.against_report import needed, save_difference, verdict

SDE = VP(beta_max=40.0)  # whose p_1 differs from N(0, I) by less than 1e-4 nats
QUICK = {"measured": 2, "progress": False}
COARSE = QUICK | {"rtol": 1e-4, "atol": 1e-4}


def mixture(shift=0.0, spec=None):
    model = GaussianMixture(SDE, [0.5, 0.5], [[1.0, shift], [-1.0, 0.5]], [0.1, 0.2])
    model.data = spec or DataSpec((2,), -2.0, 2.0)
    return model


@pytest.fixture
def no_figure(monkeypatch):
    name = "scoresde.tasks.likelihood.against_files.save_difference"
    monkeypatch.setattr(name, lambda path, *_: None)


def test_the_difference_of_exact_models(tmp_path, no_figure):
    """Every row and the mean are those of the closed forms; all files are written."""
    a, b, out = mixture(), mixture(0.3), tmp_path / "out"
    x = a.sample(40, seed=1)
    found = scoresde.likelihood_report(a, x, n=20, against=b, out=out, **COARSE)
    rows = np.load(out / "per_image.npz")
    points = x[rows["row"]].double()
    exact = ((b.log_prob(points) - a.log_prob(points)) / 2).numpy()
    assert np.allclose(rows["nats_per_dim_difference"], exact, atol=1e-3)
    assert np.allclose(rows["log_prob_b"], b.log_prob(points), atol=2e-3)
    assert found["difference"] == pytest.approx(exact.mean(), abs=1e-3)
    assert found["budget"]["std_error"] == pytest.approx(exact.std(ddof=1) / 20**0.5, rel=0.01)
    assert abs(found["difference"]) > found["half_width"]
    assert "is better" in found["verdict"]
    assert (out / "difference.txt").read_text().startswith(found["verdict"] + "\n")
    with (out / "per_image.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 20
    assert scoresde.likelihood_report(a, x, n=20, against=b, out=out, **COARSE) == found
    with pytest.raises(ValueError, match="model B"):
        scoresde.likelihood_report(a, x, n=20, against=mixture(0.4), out=out, **COARSE)
    with pytest.raises(ValueError, match="results with against = "):
        scoresde.likelihood_report(a, x, n=20, out=out, **COARSE)


def test_a_is_scored_as_it_is_alone(tmp_path, no_figure, monkeypatch):
    """Levels, with random points and probes: equal models give exactly 0, also if they are two."""
    for name in ("save_budget", "extremes"):
        monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{name}", lambda path, *_: None)
    spec = DataSpec((2,), -1.0, 1.0, levels=8)
    k = torch.randint(0, 8, (9, 2), generator=torch.Generator().manual_seed(0))
    options = {"trace": "hutchinson:probes=2", "rtol": 1e-3, "atol": 1e-3, "n": 3, **QUICK}
    alone = scoresde.likelihood_report(mixture(spec=spec), k, out=tmp_path / "a", **options)
    found = scoresde.likelihood_report(
        mixture(spec=spec), k, against=mixture(spec=spec), out=tmp_path / "both", **options
    )
    assert found["models"]["A"] == found["models"]["B"] == alone["budget"]
    assert (found["difference"], found["half_width"], found["unit"]) == (0, 0, "bits/dim")
    assert found["verdict"].startswith("no difference")
    assert not np.load(tmp_path / "both" / "per_image.npz")["bits_per_dim_difference"].any()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"shape": (3,)}, r"shape \(3,\)"),
        ({"low": -1.0}, "low -1.0, and GaussianMixture for data with low -2.0"),
        ({"levels": 16}, "levels 16"),
    ],
)
def test_models_of_other_data_are_refused(tmp_path, changes, word):
    spec = replace(DataSpec((2,), -2.0, 2.0), **changes)
    dims = spec.dims
    other = GaussianMixture(SDE, [1.0], [[0.0] * dims], [0.1])
    other.data = spec
    with pytest.raises(ValueError, match=f"^--against: .*{word}"):
        scoresde.likelihood_report(
            mixture(), torch.rand(5, 2), against=other, out=tmp_path / "out", **QUICK
        )
    assert list(tmp_path.iterdir()) == []


class Late(GaussianMixture):
    """A model that is known only from t = 0.01."""

    t_least = 0.01


def test_another_definition_is_refused(tmp_path):
    """A time that only one model knows, and terms of one model alone."""
    a, x = mixture(), torch.rand(5, 2)
    b = Late(SDE, [1.0], [[0.0, 0.0]], [0.1])
    b.data = a.data
    with pytest.raises(ValueError, match=r"^--t-min: must be given, .*; 0\.01 is possible"):
        scoresde.likelihood_report(a, x, against=b, out=tmp_path / "out", **QUICK)
    with pytest.raises(ValueError, match="^--plot: .* one model"):
        scoresde.likelihood_report(a, x, against=a, plot=True, out=tmp_path / "out", **QUICK)
    assert list(tmp_path.iterdir()) == []


def made_up(value, spread=0.1, n=100, solver=0.0):
    """A summary of n differences with this mean and standard deviation."""
    error = spread / math.sqrt(n)
    budget = {"value": value, "std_error": error, "solver": solver, "solver_error": None}
    names = ("set_error", "probe_error", "draw_error", "cut_off", "prior_mismatch", "rounding")
    budget |= dict.fromkeys(names) | {"solver_n": 8, "rounding_n": 0, "n": n, "nfe": 1}
    half = 1.98 * error + abs(solver)
    budget |= {"nfe_derivative": 1, "half_width": half}
    about = {"checkpoint": "x/one.safetensors", "against": "two", "unit": "bits/dim", "of": 297}
    about |= {"data": "digits", "nats_per_unit": 10.0}
    return about | {"difference": value, "half_width": half, "budget": budget}


def test_the_verdict_in_words():
    assert verdict(made_up(-0.03)) == (
        "one is better than two by 0.030 ± 0.020 bits/dim (0.30 ± 0.20 nats per datum)"
    )
    assert verdict(made_up(0.03)).startswith("two is better than one by 0.030")
    assert verdict(made_up(-0.01)) == (
        "cannot tell: one − two is -0.010 ± 0.020 bits/dim; n = 385 would, if the difference stays "
        "the same (digits has 297)"
    )
    assert "errors of solver and dtype" in verdict(made_up(-0.01, solver=0.02))
    assert "a larger --n" in verdict(made_up(0.1) | {"half_width": None})


@pytest.mark.slow
def test_the_figure_is_a_picture(tmp_path):
    a, b = torch.linspace(1, 2, 9), torch.linspace(1.1, 2, 9)
    save_difference(tmp_path / "x.png", made_up(-0.03) | {"verdict": "one is better"}, a, b)
    with Image.open(tmp_path / "x.png") as picture:
        assert min(picture.size) > 300


def test_budgets_of_other_data_have_no_difference():
    a, b = (Budget(*[torch.zeros(n)] * 10, torch.zeros(n, 0)) for n in (3, 4))
    with pytest.raises(ValueError, match="got 3 and 4 data"):
        budget_difference(a, b)


@pytest.mark.slow
def test_the_interval_covers_the_true_difference():
    """300 test sets of 50 data each; what both models share cancels."""
    a, b = mixture(), mixture(0.1)
    method = Ode("dopri5", rtol=1e-5, atol=1e-5, trace="exact")
    x = a.sample(15_000, seed=3)
    budgets = [likelihood_budget(model, x, method, seed=0) for model in (a, b)]
    found = budget_difference(*budgets)
    many = a.sample(4_000_000, seed=4).double()
    truth = float((b.log_prob(many) - a.log_prob(many)).mean()) / 2
    sets = [
        mean_budget(
            Budget(*(getattr(found, name)[i : i + 50] for name in vars(found))), 2, bits=False
        )
        for i in range(0, len(x), 50)
    ]
    covered = np.mean([abs(one.value - truth) <= one.half_width for one in sets])
    assert 0.92 <= covered <= 0.98
    whole = mean_budget(found, 2, bits=False)
    wide = mean_budget(budgets[0], 2, bits=False)
    assert whole.half_width < wide.half_width / 2
    assert needed(whole) < whole.n
