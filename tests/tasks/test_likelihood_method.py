"""The method of a request, and the trace rule that is chosen for an error."""

import math

import pytest
import torch

from scoresde.data import Dataset, DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    DDPMVLB,
    ContinuousVLB,
    Dequantized,
    ExactTrace,
    Hutchinson,
    Ode,
    Path,
    fit_gaussian,
    likelihood_budget,
)
from scoresde.sde import VP, TabulatedVP
from scoresde.tasks.likelihood.method import (
    FEWEST_NODES,
    MOST_NODES,
    choose_quadrature,
    described,
    make_method,
)
from scoresde.tasks.likelihood.request import PROTOCOLS
from scoresde.tasks.likelihood.scoring import ScoreRequest, score_data

DOUBLE = torch.float64


def correlated(dims=32):
    """A Gaussian with correlated dimensions, for which probes have a large variance."""
    root = torch.randn(dims, dims, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    cov = root @ root.T / dims + 0.05 * torch.eye(dims, dtype=DOUBLE)
    return GaussianMixture(VP(), [1.0], torch.zeros(1, dims, dtype=DOUBLE), cov[None])


def data_of(spec, n=5):
    """A few made-up training data, levels or points as the spec says."""
    x = torch.arange(n * 2).reshape(n, 2) % 4
    return Dataset("made up", x if spec.levels else x.float(), None, spec)


@pytest.mark.parametrize("method", [ContinuousVLB, DDPMVLB])
def test_draws_of_a_bound_have_a_degree_less_than_their_number(method):
    """4 draws have Student's t with 3 degrees; 1.96 of a normal would cover too seldom."""
    model = GaussianMixture(VP(), [1.0], [[0.1, 0.0]], [0.04])
    k, spec = torch.tensor([[3, 4], [1, 6], [7, 0]]), DataSpec((2,), -1.0, 1.0, levels=8)
    times = {} if method is ContinuousVLB else {"times": 10}
    bound = method(**times, spec=spec, draws=4, strata=8, dtype=DOUBLE)
    found = likelihood_budget(model, k, bound, seed=0)
    assert found.dof.tolist() == [3.0] * 3
    # stats.t.ppf(0.975, 3) from a table
    torch.testing.assert_close(found.half_width(), 3.182446 * found.std_error, rtol=1e-6, atol=0)


class TestChoice:
    def choose(self, model, error, n=8):
        return choose_quadrature(model, model.sample(n, seed=1), 1e-5, error, seed=0)

    def test_half_the_error_is_four_times_the_nodes(self):
        """This holds where the number of nodes is inside its limits and the rule is the same."""
        (rule, few), (same, many) = (self.choose(correlated(), error) for error in (0.2, 0.1))
        assert rule == same
        assert FEWEST_NODES < few < many < MOST_NODES
        assert many / few == pytest.approx(4, rel=2 / few)  # whole numbers

    def test_less_error_is_never_cheaper(self):
        costs = []
        for error in (3.0, 0.5, 0.1):
            rule, nodes = self.choose(correlated(), error)
            costs.append(nodes * (1 + rule.cost(32)))
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]

    def test_within_its_limits(self):
        assert self.choose(correlated(), 1e6)[1] == FEWEST_NODES
        assert self.choose(correlated(), 1e-6)[1] == MOST_NODES

    def test_rules_know_their_own_error(self):
        for error in (0.5, 0.1):
            assert self.choose(correlated(), error)[0].columns >= 2

    def test_an_exact_trace_where_it_is_cheap(self):
        for dims, exact in ((16, True), (17, False)):
            rule, _ = self.choose(correlated(dims), 0.01)
            assert (rule == ExactTrace()) == exact

    @pytest.mark.parametrize("error", [1.0, 0.5, 0.25])
    @pytest.mark.by_default("0.5")
    def test_the_error_is_reached(self, error):
        """The choice is measured on 8 data; the RMS error of 64 is within a factor 1.5."""
        model = correlated()
        rule, nodes = self.choose(model, error)
        found = likelihood_budget(model, model.sample(64, seed=2), Path(32, nodes, rule), seed=0)
        reached = float(found.std_error.square().mean().sqrt())
        assert error / 1.5 < reached < 1.5 * error

    @pytest.mark.parametrize("dims", [2, 3, 5])
    def test_no_more_colours_than_dimensions(self, gaussian, dims):
        rule, nodes = self.choose(gaussian(VP(), dims), 0.1)
        assert rule.cost(dims) <= 2 * dims
        assert nodes >= FEWEST_NODES

    @pytest.mark.slow
    @pytest.mark.parametrize("error", [0.03, 0.02])
    def test_on_the_digits(self, tmp_path, error):
        """per_image.csv states the error that --image-error asks for, within a factor 1.5."""
        request = ScoreRequest("digits-vp", n=64, image_error=error, measured=0)
        found = score_data(request, tmp_path / "out")
        stated = found["budget"]["probe_error"] * math.sqrt(64)
        assert error / 1.5 < stated < 1.5 * error


class TestMethods:
    SPEC = DataSpec((2,), -1.0, 1.0, 4)
    CONTINUOUS = DataSpec((2,), -1.0, 1.0)

    def made(self, model, protocol, **settings):
        """The method for a protocol, and the Gaussian."""
        spec = self.CONTINUOUS if protocol == "pf-ode/continuous" else self.SPEC
        request = ScoreRequest("any", protocol=protocol, t_min=0.01, **settings)
        training = data_of(spec) if request.of_flow else None
        return make_method(request, spec, model, training)

    @pytest.mark.parametrize(
        "name", [n for n in PROTOCOLS if n.startswith("pf-ode") and n != "pf-ode/autoencoder"]
    )
    def test_a_path(self, gaussian, name):
        given = {"steps": 4, "nodes": 8, "trace": "hutchinson:probes=2", "draws": 2}
        method, control = self.made(gaussian(VP(), 2), name, method="path", **given)
        path = Path(4, 8, Hutchinson(probes=2), control=control, t_min=0.01)
        spec = self.CONTINUOUS if name == "pf-ode/continuous" else self.SPEC
        assert method == Dequantized(spec, path, PROTOCOLS[name], draws=2)
        assert method.name == name

    def test_a_solver_has_no_control(self, gaussian):
        """The Gaussian is still fitted, for the prior mismatch."""
        given = {"method": "dop853", "rtol": 1e-3, "atol": 1e-4, "trace": "exact"}
        method, control = self.made(gaussian(VP(), 2), "pf-ode/uniform", dtype="float64", **given)
        solver = Ode("dop853", 1e-3, 1e-4, trace=ExactTrace(), t_min=0.01)
        assert method == Dequantized(self.SPEC, solver, dtype=DOUBLE)
        assert isinstance(control, GaussianMixture)

    def test_the_gaussian_is_that_of_the_training_data(self, gaussian):
        model = gaussian(VP(), 2)
        _, control = self.made(model, "pf-ode/continuous", method="dopri5")
        known = fit_gaussian(model.sde, data_of(self.CONTINUOUS).x.double())
        assert torch.equal(control.means, known.means)
        assert torch.equal(control.variances, known.variances)

    def test_bounds(self, gaussian):
        model = gaussian(VP(), 2)
        method, control = self.made(model, "vlb-continuous", nodes=5, draws=6)
        assert (method, control) == (ContinuousVLB(self.SPEC, 0.01, strata=5, draws=6), None)
        method, control = self.made(model, "vlb-ddpm", steps=5)
        assert len(method.times) == 6
        assert method.times[-1] == 0.01
        known = DDPMVLB(method.times, self.SPEC, "beta_tilde", strata=64, draws=4)
        assert (method, control) == (known, None)

    def test_a_ladder_is_the_chain(self, gaussian):
        """A model with a table of 50 β has a chain of 50 times."""
        method, _ = self.made(gaussian(TabulatedVP(VP().ddpm_betas(50)), 2), "vlb-ddpm")
        assert method.times == 50

    def test_described(self, gaussian):
        method, _ = self.made(gaussian(VP(), 2), "vlb-ddpm", steps=7, nodes=3)
        words = {"method": "3 strata, chain of 7 steps, variance beta_tilde", "trace": "none"}
        assert described(method) == words
        assert described(ContinuousVLB(strata=3)) == {"method": "3 strata", "trace": "none"}
        solver = Ode("dop853", 1e-3, 1e-4, t_min=1e-5)
        assert described(Dequantized(self.CONTINUOUS, solver)) == {
            "method": "dop853, rtol 0.001, atol 0.0001, a step size per sample",
            "trace": "auto",
        }
        path = Path(steps=9, nodes=7, trace="exact")
        assert described(Dequantized(self.CONTINUOUS, path)) == {
            "method": "path of 9 steps, corrected; divergence at 7 nodes",
            "trace": "ExactTrace()",
        }
