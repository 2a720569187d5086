"""Log-density along paths between data, against closed forms."""

import pytest
import torch

from scoresde import ConditionalMixture
from scoresde.likelihood import (
    ExactTrace,
    Hutchinson,
    Ode,
    interpolate,
    interpolate_with_log_prob,
    log_likelihood,
)
from scoresde.score import count_nfe
from scoresde.sde import VP

# Not near the data, where a solve takes most of its evaluations.
METHOD = Ode(rtol=1e-4, atol=1e-4, t_min=0.05)


def ends(model):
    return model.sample(2, seed=0), model.sample(2, seed=1)


def test_it_is_the_exact_log_density_of_the_decoded_points(mixture):
    model = mixture(VP())
    with count_nfe(model) as counted:
        out = interpolate_with_log_prob(model, *ends(model), 3, METHOD)
    assert (out.nfe, out.nfe_derivative) == (counted.forward, counted.derivative)
    assert out.log_prob.shape == out.std_error.shape == (2, 3)
    assert isinstance(out.method.trace, ExactTrace)
    assert float(out.std_error.max()) == 0
    exact = model.log_prob(out.x.flatten(0, 1), 0.05).reshape(2, 3)
    # The prior N(0, I) is not p(1): α(1) = 0.007 times a mean of 1 at codes of up to 3 deviations.
    torch.testing.assert_close(out.log_prob, exact, rtol=0, atol=0.03)
    again = log_likelihood(model, out.x.flatten(0, 1), METHOD)
    torch.testing.assert_close(out.log_prob.flatten(), again.log_prob, rtol=0, atol=2e-3)
    plain = interpolate(model, *ends(model), 3, METHOD)
    torch.testing.assert_close(out.x, plain.x, rtol=0, atol=1e-3)
    torch.testing.assert_close(out.latent, plain.latent, rtol=0, atol=0)


@pytest.mark.slow  # four SDEs
def test_every_sde_and_any_batch(sde, mixture):
    model, method = mixture(sde), Ode(rtol=1e-4, atol=1e-4, t_min=1e-2)
    out = interpolate_with_log_prob(model, *ends(model), 3, method, batch=4)
    exact = model.log_prob(out.x.flatten(0, 1), 1e-2).reshape(2, 3)
    # As above; under VE the prior of standard deviation 50 leaves out the data's own variance.
    torch.testing.assert_close(out.log_prob, exact, rtol=0, atol=0.05)


def test_probes_need_a_seed_and_have_an_error(mixture):
    model = mixture(VP())
    method = Ode(rtol=1e-2, atol=1e-2, t_min=0.1, trace=Hutchinson(probes=3))
    with pytest.raises(ValueError, match="seed must be given for the probes"):
        interpolate_with_log_prob(model, *ends(model), 2, method)
    assert model.nfe.forward == 0
    out = interpolate_with_log_prob(model, *ends(model), 2, method, seed=1)
    assert float(out.std_error.max()) > 0
    assert out.nfe_derivative == 3 * out.likelihood.nfe


def test_each_path_has_its_condition():
    model = ConditionalMixture(
        VP(), [0.5, 0.5], [[-1.0], [1.5]], [0.2, 0.4], shares=[[1.0, 0.0], [0.0, 1.0]]
    )
    a, b = torch.tensor([[-1.2], [1.2]]).double(), torch.tensor([[-0.5], [2.0]]).double()
    out = interpolate_with_log_prob(model, a, b, 3, METHOD, y=torch.tensor([0, 1]))
    for i, (mean, variance) in enumerate(((-1.0, 0.2), (1.5, 0.4))):
        node = model.sde.nodes([METHOD.t_min])[0]
        std = (node.alpha**2 * variance + node.sigma**2) ** 0.5
        law = torch.distributions.Normal(node.alpha * mean, std)
        torch.testing.assert_close(out.log_prob[i], law.log_prob(out.x[i, :, 0]), rtol=0, atol=0.02)
