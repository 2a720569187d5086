"""The bound through an autoencoder as a protocol of `log_likelihood`."""

import pytest
import torch

from scoresde import (
    VP,
    DataSpec,
    Dequantized,
    GaussianMixture,
    LatentDecoder,
    Ode,
    ThroughAutoencoder,
    latent_log_likelihood_bound,
    log_likelihood,
    probabilistic_pca,
)
from scoresde.autoencoder import linear_autoencoder
from scoresde.data.transforms import parse_transforms

POINTS = DataSpec((3,), -9.0, 9.0)
TIGHT = Ode("dop853", rtol=1e-8, atol=1e-8)
LOOSE = Ode("bosh3", rtol=3e-2, atol=3e-2)


def normal():
    """The score model of latents N(0, I), which is exact at every time."""
    return GaussianMixture(VP(), [1.0], torch.zeros(1, 2), torch.ones(1))


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(3, 3, generator=g, dtype=torch.float64)
    return torch.randn(400, 3, generator=g, dtype=torch.float64) @ mixing + 1


def marginal(made):
    """x ~ N(c, W Wᵀ + s² I) of a linear-Gaussian model."""
    w = made.decoder.weight.detach()
    covariance = w @ w.mT + made.noise_std.detach().square() * torch.eye(3).double()
    return torch.distributions.MultivariateNormal(made.decoder.bias.detach(), covariance)


def test_it_is_log_p_in_units_where_the_posterior_is_exact(data):
    """Linear-Gaussian data behind a standardization, whose density is known in closed form."""
    spec = POINTS.fitted(parse_transforms("standardize"), lambda: [(data, None)])
    made = probabilistic_pca(spec.to_model(data), POINTS, 2)
    model = normal().decoded_by(LatentDecoder(made, spec))
    x = data[:2]
    method = Dequantized(spec, TIGHT, ThroughAutoencoder(), draws=2, dtype=torch.float64)
    assert method.name == "pf-ode/autoencoder"
    found = log_likelihood(model, x, method, seed=0)
    exact = marginal(made).log_prob(spec.to_model(x)) + spec.log_det(x)
    # The tolerance of the solver and rounding.
    torch.testing.assert_close(found.log_prob, exact, atol=1e-6, rtol=0)
    assert float(found.std_error.max()) < 1e-6


def test_it_is_the_bound_of_the_function_for_levels():
    """Both take the same draws, and the probabilities of the cells."""
    spec = DataSpec((3,), -1.0, 1.0, levels=5)
    torch.manual_seed(0)
    made = linear_autoencoder(spec, 2)
    k = torch.randint(0, 5, (2, 3), generator=torch.Generator().manual_seed(1))
    model = normal().decoded_by(LatentDecoder(made))
    method = Dequantized(spec, LOOSE, ThroughAutoencoder(), draws=2)
    found = log_likelihood(model, k, method, seed=4)
    other = latent_log_likelihood_bound(made, normal(), k, seed=4, draws=2, method=LOOSE)
    # float32 latents, whose rounding the narrow q amplifies
    torch.testing.assert_close(found.log_prob, other.log_prob, rtol=1e-5, atol=1e-4)
    assert found.method.of_levels


def test_other_models_are_refused_before_an_evaluation(data):
    method = Dequantized(POINTS, LOOSE, ThroughAutoencoder())
    model = normal()
    with pytest.raises(ValueError, match="model must be one of latents"):
        log_likelihood(model, data[:2], method, seed=0)
    made = probabilistic_pca(data, POINTS, 2)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3\), got \(2, 2\)"):
        log_likelihood(model.decoded_by(LatentDecoder(made)), data[:2, :2], method, seed=0)
    with pytest.raises(ValueError, match="not differentiable"):
        log_likelihood(model.decoded_by(LatentDecoder(made)), data[:2], method, seed=0, grad=True)
    assert model.nfe.forward == 0
