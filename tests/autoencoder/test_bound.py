"""The bound through an autoencoder: exact on a linear-Gaussian one, a bound elsewhere."""

import pytest
import torch

from scoresde.autoencoder import (
    latent_log_likelihood_bound,
    probabilistic_pca,
)
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.sde import VP

POINTS = DataSpec((3,), -9.0, 9.0)
# The ODE of latents N(0, I) under VP has no drift, so that every tolerance is exact.
METHOD = "bosh3:rtol=1e-3:atol=1e-3"


def normal(size):
    """The score model of latents N(0, I), which is exact at every time."""
    return GaussianMixture(VP(), [1.0], torch.zeros(1, size), torch.ones(1))


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(3, 3, generator=g, dtype=torch.float64)
    return torch.randn(400, 3, generator=g, dtype=torch.float64) @ mixing + 1


def marginal(made):
    """x ~ N(c, W Wᵀ + s² I) of a linear-Gaussian model."""
    w = made.decoder.weight.detach()
    covariance = w @ w.mT + made.noise_std.detach().square() * torch.eye(len(w)).double()
    return torch.distributions.MultivariateNormal(made.decoder.bias.detach(), covariance)


def test_it_is_log_p_where_the_posterior_is_exact(data):
    made = probabilistic_pca(data, POINTS, 2)
    exact = marginal(made).log_prob(data[:5])
    made.fit_scale([data])
    bound = latent_log_likelihood_bound(
        made, normal(2), data[:5], seed=0, draws=2, method=METHOD, batch=3
    )
    # Rounding; the condition of the covariance is about 100.
    torch.testing.assert_close(bound.log_prob, exact, atol=1e-8, rtol=0)
    torch.testing.assert_close(bound.weighted, exact, atol=1e-8, rtol=0)
    assert float(bound.std_error.max()) < 1e-8
    torch.testing.assert_close(bound.per_unit, -bound.log_prob / 3)


def test_elsewhere_the_gap_is_the_divergence_of_the_posteriors(data):
    made = probabilistic_pca(data, POINTS, 2)
    exact, x = marginal(made).log_prob(data[:40]), data[:40]
    made.encoder.log_std.data += 0.4
    # Means agree, and both covariances are diagonal: KL of N(0, r² s²) from N(0, s²), r = e^0.4.
    gap = 2 * (0.5 * torch.tensor(0.8).exp() - 0.5 - 0.4).double()
    bound = latent_log_likelihood_bound(made, normal(2), x, seed=1, draws=8, method=METHOD)
    error = float(bound.std_error.square().sum().sqrt()) / len(x)
    # 4 standard errors.
    assert float((bound.log_prob - exact).mean() + gap) == pytest.approx(0, abs=4 * error)
    assert bool((bound.weighted >= bound.log_prob).all())  # Jensen's inequality
    assert float((bound.weighted - exact).mean().abs()) < 0.25 * float(gap)  # about gap/8


def test_quantized_data_get_the_probability_of_their_cells(data):
    levels = DataSpec((3,), -9.0, 9.0, 4000)
    k = levels.to_levels(data[:4])
    made = probabilistic_pca(data, POINTS, 2)
    run = {"seed": 0, "draws": 2, "method": METHOD}  # the same z in both
    points = latent_log_likelihood_bound(made, normal(2), levels.encode(k).double(), **run)
    made.spec = levels
    cells = latent_log_likelihood_bound(made, normal(2), k, **run)
    volume = 3 * torch.tensor(18 / 4000).double().log()
    # Cells are 0.02 of the standard deviation of the decoder wide.
    torch.testing.assert_close(cells.log_prob, points.log_prob + volume, atol=1e-3, rtol=0)
    bits = -cells.log_prob / (3 * torch.tensor(2.0).double().log())
    torch.testing.assert_close(cells.per_unit, bits)


def test_the_result_does_not_depend_on_batches_and_no_data_have_an_empty_one(data):
    made = probabilistic_pca(data, POINTS, 2)
    run = {"seed": 3, "draws": 1, "method": METHOD}
    whole = latent_log_likelihood_bound(made, normal(2), data[:3], **run)
    parts = latent_log_likelihood_bound(made, normal(2), data[:3], **run, batch=1)
    torch.testing.assert_close(whole.log_prob, parts.log_prob)
    assert bool(whole.std_error.isnan().all())
    assert len(latent_log_likelihood_bound(made, normal(2), data[:0], **run).log_prob) == 0


def test_refusals(data):
    made = probabilistic_pca(data, POINTS, 2)
    other = normal(3)
    other.data = POINTS
    with pytest.raises(ValueError, match=r"model must be one of latents of shape \(2,\)"):
        latent_log_likelihood_bound(made, other, data[:2], seed=0)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3\), got \(2, 2\)"):
        latent_log_likelihood_bound(made, normal(2), data[:2, :2], seed=0)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        latent_log_likelihood_bound(made, normal(2), data[:2], seed=0, draws=0)
