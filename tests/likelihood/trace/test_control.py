"""The Gaussian control variate: its Jacobian, its reduction of variance, and absence of bias."""

import math

import pytest
import torch
from calls import by_ode
from torch.autograd.functional import jacobian

from scoresde.exact import GaussianMixture
from scoresde.likelihood.trace.control import drift_control, fit_gaussian, gaussian_control
from scoresde.likelihood.trace.rules import ExactTrace, Hutchinson
from scoresde.score import reverse_drift
from scoresde.sde import VP

DOUBLE = torch.float64


def correlated(sde, dims, shape=None):
    root = torch.randn(dims, dims, generator=torch.Generator().manual_seed(dims), dtype=DOUBLE)
    cov = root @ root.T / dims + 0.05 * torch.eye(dims, dtype=DOUBLE)
    mean = torch.linspace(-1, 1, dims, dtype=DOUBLE).reshape(1, *(shape or (dims,)))
    return GaussianMixture(sde, [1.0], mean, cov[None])


def matrix_of(known, shape, row):
    """The known matrix of one sample, from its products with the unit vectors."""
    dims = math.prod(shape)
    eye = torch.eye(dims, dtype=DOUBLE).reshape(dims, 1, *shape)
    return torch.stack([known.vjp(e.expand(2, *shape))[row].flatten() for e in eye])


class TestJacobian:
    @pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
    @pytest.mark.parametrize("t", [1e-3, 0.4, 1.0])
    def test_is_that_of_the_model(self, sde, shape, t):
        """By autograd, of ε and of the flow's drift, where J is the same at every x."""
        model = correlated(sde, math.prod(shape), shape)
        x = torch.zeros(2, *shape, dtype=DOUBLE)
        node = sde.at(t, x)
        for field, known in (
            (lambda x: model.eps(x, node), gaussian_control(model, node, x)),
            (lambda x: reverse_drift(model, x, node, eta=0.0), drift_control(model, node, x)),
        ):
            whole = jacobian(lambda p, f=field: f(p[None])[0], x[0] + 0.7)
            whole = whole.reshape(math.prod(shape), -1)
            scale = float(whole.abs().max())
            # where f x and ε cancel, the rounding is that of each of them
            found = matrix_of(known, shape, 1)
            torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-11 * (1 + scale))
            torch.testing.assert_close(known.trace, found.trace().expand(2), rtol=1e-9, atol=1e-9)

    def test_times_per_sample(self):
        model, x = correlated(VP(), 3), torch.zeros(2, 3, dtype=DOUBLE)
        times = torch.tensor([0.1, 0.6], dtype=DOUBLE)
        both = drift_control(model, VP().at(times, x), x)
        for row, t in enumerate(times.tolist()):
            one = drift_control(model, VP().at(t, x), x)
            torch.testing.assert_close(matrix_of(both, (3,), row), matrix_of(one, (3,), row))
            torch.testing.assert_close(both.trace[row], one.trace[row])

    def test_a_diagonal_covariance(self, gaussian):
        model, x = gaussian(VP(), 3), torch.zeros(2, 3, dtype=DOUBLE)
        node = VP().at(0.3, x)
        known = gaussian_control(model, node, x)
        value = node.sigma / (0.25 * node.alpha**2 + node.sigma**2)
        torch.testing.assert_close(matrix_of(known, (3,), 0), value * torch.eye(3, dtype=DOUBLE))


class TestFit:
    def test_mean_and_covariance(self):
        x = correlated(VP(), 4, (1, 2, 2)).sample(50, seed=0).float()
        fitted = fit_gaussian(VP(), x)
        rows = x.double().flatten(1)
        assert fitted.shape == (1, 2, 2)
        torch.testing.assert_close(fitted.mean().flatten(), rows.mean(0))
        expected = torch.cov(rows.T, correction=0)
        torch.testing.assert_close(fitted.cov(), expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize(("n", "dims"), [(1, 3), (5, 1)])
    def test_diagonal_where_a_covariance_makes_no_sense(self, n, dims):
        x = torch.arange(n * dims, dtype=DOUBLE).reshape(n, dims)
        fitted = fit_gaussian(VP(), x)
        assert fitted.axes is None
        torch.testing.assert_close(fitted.variances[0], x.var(0, correction=0))

    @pytest.mark.parametrize("x", [torch.zeros(0, 3), torch.zeros(()), torch.zeros(3, 0)])
    def test_no_data(self, x):
        with pytest.raises(ValueError, match="x must have shape"):
            fit_gaussian(VP(), x)


class TestLikelihood:
    @pytest.mark.by_default("VE", "Linear")
    def test_no_variance_for_gaussian_data(self, sde):
        """The control is the whole Jacobian, and every probe gives the exact trace."""
        self.check_no_variance(sde, "rademacher", per_sample=True)

    def test_no_variance_with_other_probes_and_one_step_size(self):
        self.check_no_variance(VP(), "gaussian", per_sample=False)

    def check_no_variance(self, sde, probe, per_sample):
        model = correlated(sde, 4)
        x = model.sample(3, seed=0)
        # the same steps of both solves, whatever their error
        settings = {"rtol": 1e-2, "atol": 1e-2, "per_sample": per_sample}
        rule = Hutchinson(probe, 2)
        out = by_ode(model, x, trace=rule, control=model, seed=0, **settings)
        exact = by_ode(model, x, trace=ExactTrace(), **settings)
        assert float(out.std_error.max()) < 1e-9
        torch.testing.assert_close(out.log_prob, exact.log_prob, rtol=0, atol=1e-9)

    def test_less_variance_and_no_bias_on_a_mixture(self, mixture):
        model = mixture(VP())
        fitted = fit_gaussian(VP(), model.sample(500, seed=1))
        x = torch.tensor([[0.3, 1.2]], dtype=DOUBLE).expand(200, 2)
        settings = {"trace": Hutchinson("gaussian", 2), "seed": 0, "rtol": 1e-5, "atol": 1e-5}
        plain = by_ode(model, x, **settings)
        controlled = by_ode(model, x, control=fitted, **settings)
        exact = by_ode(model, x[:1], rtol=1e-5, atol=1e-5).log_prob
        assert float(controlled.log_prob.std()) < 0.9 * float(plain.log_prob.std())
        error = float(controlled.log_prob.std()) / 200**0.5
        # and the tolerance of the solver, whose steps the probes change
        assert abs(float(controlled.log_prob.mean() - exact)) < 4 * error + 1e-4

    def test_an_exact_trace_needs_no_control(self, mixture):
        model, x = mixture(VP()), torch.zeros(1, 2, dtype=DOUBLE)
        fitted = fit_gaussian(VP(), model.sample(9, seed=1))
        plain, controlled = (by_ode(model, x, rtol=1e-3, control=c) for c in (None, fitted))
        assert torch.equal(plain.log_prob, controlled.log_prob)

    def test_bad_controls(self, mixture, gaussian):
        x, model = torch.zeros(1, 2), mixture(VP())
        with pytest.raises(ValueError, match="control must be one Gaussian, got a mixture of 3"):
            by_ode(model, x, control=model)
        with pytest.raises(ValueError, match=r"shape of the data \(2,\), got \(3,\)"):
            by_ode(model, x, control=gaussian(VP(), 3))
        assert model.nfe.forward == 0
