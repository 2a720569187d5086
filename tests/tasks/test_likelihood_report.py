"""`scoresde.likelihood_report`: the command's likelihood for any model and array."""

import numpy as np
import pytest
import torch

import scoresde
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.sde import VP

PARAMETERS = ([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], [0.1, 0.2])
SDE = VP(beta_max=40.0)  # whose p_1 differs from N(0, I) by less than 1e-4 nats
QUICK = {"measured": 2, "progress": False}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    for name in ("save_budget", "extremes"):
        monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{name}", lambda path, *_: None)


@pytest.fixture
def model():
    return GaussianMixture(SDE, *PARAMETERS)


def test_log_densities_are_exact_and_found_again(model, tmp_path, monkeypatch):
    x = model.sample(20, seed=1)
    found = scoresde.likelihood_report(model, x, n=6, out=tmp_path / "out", **QUICK)
    rows = np.load(tmp_path / "out" / "per_image.npz")
    exact = model.log_prob(x[rows["row"]].double())
    assert np.allclose(rows["log_prob"], exact, atol=1e-3)
    assert found["mean"] == pytest.approx(-float(exact.mean()) / 2, abs=1e-3)
    assert (found["unit"], found["n"], found["of"]) == ("nats/dim", 6, 20)
    monkeypatch.setattr("scoresde.tasks.likelihood.scoring.make_method", None)  # runs nothing
    again = scoresde.likelihood_report(model, x.numpy(), n=6, out=tmp_path / "out", **QUICK)
    assert again == found
    with pytest.raises(ValueError, match="results made from other data"):
        scoresde.likelihood_report(model, x + 0.1, n=6, out=tmp_path / "out", **QUICK)


def test_a_checkpoint_gives_the_number_of_the_command(tmp_path):
    """By name, and loaded; both use the test split of the digits."""
    options = {"n": 2, "steps": 4, "nodes": 4, "trace": "hutchinson", **QUICK}
    by_name = scoresde.likelihood_report("digits-vp", out=tmp_path / "name", **options)
    loaded = scoresde.load("digits-vp")
    in_memory = scoresde.likelihood_report(loaded, out=tmp_path / "loaded", **options)
    assert by_name["mean"] == in_memory["mean"]
    assert by_name["unit"] == "bits/dim"


def test_conditions_follow_their_data(tmp_path):
    """Under ε = σ (x − α y) the data are N(y, I)."""
    y = torch.tensor([[0.0], [2.0], [-1.0], [4.0]])

    def eps(x, t, y):
        alpha, sigma = (f(t).to(x) for f in (SDE.alpha, SDE.sigma))
        return (x - alpha.reshape(-1, 1) * y.to(x)) * sigma.reshape(-1, 1)

    model = scoresde.FunctionScore(SDE, eps)
    x = y + torch.tensor([[0.5], [0.0], [1.0], [-2.0]])
    scoresde.likelihood_report(model, x, y=y, out=tmp_path / "out", **QUICK)
    rows = np.load(tmp_path / "out" / "per_image.npz")
    exact = torch.distributions.Normal(y, 1.0).log_prob(x).sum(1)[rows["row"]]
    assert np.allclose(rows["log_prob"], exact, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (None, {}, "shape must be given: neither the model"),
        (torch.rand(5, 2), {"n": 6}, "--n: 6 is more than the 5 of x"),
        (torch.rand(5, 2), {"protocol": "pf-ode/uniform"}, "but the data are continuous"),
        (torch.rand(5, 2), {"method": "rk4"}, "'rk4' is unknown"),
        (torch.full((5, 2), torch.nan), {}, "x: data must be finite"),
        (torch.rand(5, 2), {"y": torch.ones(3)}, "y must have leading dimension 5"),
        (torch.rand(5, 2), {"y": torch.ones(5)}, "y must be None"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(model, tmp_path, x, options, message):
    with pytest.raises(ValueError, match=message):
        scoresde.likelihood_report(model, x, out=tmp_path / "out", **QUICK, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_knows_its_data_takes_levels(tmp_path):
    model = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [0.1])
    model.data = DataSpec((2,), -1.0, 1.0, levels=8)
    k = torch.randint(0, 8, (6, 2), generator=torch.Generator().manual_seed(0))
    found = scoresde.likelihood_report(model, k, draws=2, out=tmp_path / "out", **QUICK)
    assert (found["unit"], found["protocol"]) == ("bits/dim", "pf-ode/uniform")
