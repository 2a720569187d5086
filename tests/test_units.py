"""The user's units around a model: samples, log p, latent codes and comparisons."""

import json
import math

import numpy as np
import pytest
import torch

import scoresde
from scoresde.data import Affine, Dataset, DataSpec, Log, Standardize, parse_transforms
from scoresde.exact import GaussianMixture
from scoresde.likelihood import ContinuousVLB, Ode, Path, decode, encode, interpolate, round_trip
from scoresde.likelihood.budget import likelihood_budget
from scoresde.score.units import in_model_scale
from scoresde.sde import VP

MEAN, STD = torch.tensor([-2.0, 3.0]).double(), torch.tensor([1.5, 0.25]).double()
CHAIN = (Log(), Standardize(tuple(MEAN.tolist()), tuple(STD.tolist())))
TIGHT = Ode(rtol=1e-6, atol=1e-6)


@pytest.fixture
def model():
    """Independent standard normal z at the model's scale: log-normal data in units."""
    found = GaussianMixture(VP(), [1.0], torch.zeros(1, 2), torch.eye(2)[None])
    found.data = DataSpec((2,), -4, 4, transform=CHAIN)
    return found


def units(z):
    """The closed form of the inverse."""
    return torch.exp(MEAN + STD * z)


def test_log_p_in_units_is_the_closed_form_of_log_normal_data(model):
    x = units(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double())
    found = scoresde.log_likelihood(model, x, TIGHT, seed=0)
    exact = torch.distributions.LogNormal(MEAN, STD).log_prob(x).sum(1)
    # N(0, I) stays N(0, I) under VP at every time, so only the solver's tolerance is left
    assert torch.allclose(found.log_prob, exact, atol=1e-5)
    inside = scoresde.log_likelihood(in_model_scale(model), (x.log() - MEAN) / STD, TIGHT, seed=0)
    assert torch.equal(found.latent, inside.latent)


def test_the_density_in_units_integrates_to_one():
    model = GaussianMixture(VP(), [0.4, 0.6], [[-1.0], [1.2]], [[[0.3]], [[0.5]]])
    model.data = DataSpec((1,), -4, 4, transform=(Log(), Affine(2.0, -1.0)))
    x = torch.linspace(-4, 4, 200).double().exp()[:, None]
    p = scoresde.log_likelihood(model, x, Ode(rtol=1e-6, atol=1e-6), seed=0).log_prob.exp()
    # 1e-5: the tails beyond e^±4, at z = −9 and 7, are smaller; the trapezoidal rule is exact
    # for so smooth a density in log x, so that p's own error of 1e-6 relative remains
    assert abs(float(torch.trapezoid(p * x[:, 0], x[:, 0].log())) - 1) < 1e-5


def test_samples_are_in_units_and_their_scaled_copies_at_the_model_scale(model):
    found = scoresde.sample(model, n=6, nfe=5, seed=1, dtype=torch.float64)
    same = scoresde.sample(in_model_scale(model), n=6, nfe=5, seed=1, dtype=torch.float64)
    assert torch.equal(found.scaled, same.x)
    assert same.scaled is same.x
    assert torch.allclose(found.x, units(found.scaled), rtol=1e-14)
    again = scoresde.sample(model, x_init=found.x_init, nfe=5, seed=1)
    assert torch.equal(again.scaled, found.scaled)


def test_scored_samples_have_the_log_density_of_their_units(model):
    drawn = scoresde.sample_with_log_prob(model, (4, 2), TIGHT, seed=0, dtype=torch.float64)
    assert torch.allclose(drawn.x, units(drawn.scaled), rtol=1e-14)
    exact = torch.distributions.LogNormal(MEAN, STD).log_prob(drawn.x).sum(1)
    assert torch.allclose(drawn.log_prob, exact, atol=1e-5)  # ten times the solver's tolerance


def test_codes_are_states_and_their_data_are_in_units(model):
    x = units(torch.randn(4, 2, generator=torch.Generator().manual_seed(2)).double())
    there = encode(model, x, TIGHT)
    assert torch.equal(there.x, x)
    # the flow of N(0, I) under VP is the identity; 1e-5: ten times the tolerance of the solver
    assert torch.allclose(there.latent, (x.log() - MEAN) / STD, atol=1e-5)
    assert torch.allclose(decode(model, there.latent, TIGHT).x, x, rtol=1e-4)
    trip = round_trip(model, x, TIGHT)
    assert torch.allclose(trip.decoded, x, rtol=1e-4)
    assert float(trip.error.max()) < 1e-5
    paths = interpolate(model, x[:2], x[2:], 3, TIGHT)
    assert torch.allclose(paths.x[:, [0, 2]], torch.stack([x[:2], x[2:]], 1), rtol=1e-4)
    assert float(paths.error.max()) < 1e-5


def test_a_budget_has_log_p_in_units_and_the_terms_of_a_bound_add_up(model):
    x = units(torch.randn(3, 2, generator=torch.Generator().manual_seed(3)).double())
    exact = torch.distributions.LogNormal(MEAN, STD).log_prob(x).sum(1)
    flow = likelihood_budget(model, x, TIGHT, seed=0)
    assert torch.allclose(flow.log_prob, exact, atol=1e-5)
    bound = likelihood_budget(model, x, ContinuousVLB(strata=8, draws=4), seed=0)
    assert torch.allclose(bound.terms.sum(1), -bound.log_prob, rtol=1e-12)
    path = scoresde.log_likelihood(model, x, Path(trace="exact"), seed=0)
    assert torch.allclose(path.log_prob, exact, atol=1e-2)  # 12 nodes at random places


def test_data_outside_the_domain_are_refused_by_row_and_value(model):
    x = torch.tensor([[1.0, 1.0], [1.0, -2.0]]).double()
    with pytest.raises(ValueError, match="feature 1 must be above 0 for the transform log, got -2"):
        scoresde.log_likelihood(model, x, TIGHT, seed=0)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2\)"):
        encode(model, torch.ones(2, 3).double(), TIGHT)


def table(n=64):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, 2))
    return torch.from_numpy(np.exp(np.array([-60.0, 0.0]) + np.array([6.0, 1.0]) * z)).float()


def test_a_data_set_is_fitted_on_chosen_rows_and_scaled(model):
    x = table()
    spec = DataSpec((2,), 0, 1e9, feature_names=("mass", "flux"))
    data = Dataset("table", x, None, spec).fitted(
        parse_transforms(["log:columns=mass,flux", "standardize"]), torch.arange(40)
    )
    z = data.scaled.x
    log = x.double().log()
    expected = (log - log[:40].mean(0)) / log[:40].std(0, correction=0)
    assert torch.allclose(z.double(), expected, atol=1e-6)  # one rounding to float32
    assert data.spec.low == pytest.approx(float(expected[:40].min()), abs=1e-12)
    assert torch.equal(data.x, x)
    once = data.scaled
    assert once.spec.transform is None
    assert once.scaled is once
    other = Dataset("other", x, None, spec).in_units_of(data.spec)
    assert other.fingerprint == data.fingerprint
    exact = -log.sum(1) - log[:40].std(0, correction=0).log().sum()
    assert torch.allclose(other.log_det, exact, rtol=1e-12)
    bad = x.clone()
    bad[7, 1] = -1
    with pytest.raises(ValueError, match="other: feature 'flux' must be above 0 .* -1 in row 7"):
        Dataset("other", bad, None, spec).in_units_of(data.spec)
    wrong = DataSpec((2,), 0, 1, feature_names=("flux", "mass"))
    with pytest.raises(ValueError, match="other: feature names must be mass, flux in this order"):
        Dataset("other", x, None, wrong).in_units_of(data.spec)


@pytest.mark.slow  # a comparison with its figures takes some seconds
def test_a_comparison_is_at_the_models_scale_even_where_units_underflow(model, tmp_path):
    x = table()  # log x has mean −60 and standard deviation 6: many samples underflow in float32
    data = Dataset("table", x, None, DataSpec((2,), 0, 1e9)).fitted(
        parse_transforms(["log", "standardize"])
    )
    model.data = data.spec
    # more than one sample in ten is 0 in units: 20 standard deviations of noise around the data
    wild = Affine(1 / 20)
    model.data = DataSpec((2,), -4, 4, transform=(*data.spec.transform, wild))
    assert (scoresde.sample(model, n=100, nfe=4).x == 0).any()
    scoresde.bench(
        *(model, "ddim", [2]),
        out=tmp_path,
        data=x,
        n=8,
        metrics=("mmd2",),
        reference_tolerance=None,
        progress=False,
    )
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert all(math.isfinite(cell["metrics"]["mmd2"]["value"]) for cell in cells)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "compared at the model&#39;s scale" in page
