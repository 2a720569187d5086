"""Protocols by name, and the trace rule that an error asks for."""

import math

import pytest
import torch

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    DDPMVLB,
    ContinuousVLB,
    Dequantized,
    ExactTrace,
    Ode,
    Path,
    likelihood_budget,
    log_likelihood,
)
from scoresde.noise import SampleNoise
from scoresde.sde import VP, TabulatedVP
from scoresde.tasks.protocols import (
    DEQUANTIZATIONS,
    FEWEST_NODES,
    MOST_NODES,
    PROTOCOLS,
    Protocol,
    choose_quadrature,
)
from scoresde.tasks.scoring import ScoreRequest, score_data

DOUBLE = torch.float64


def correlated(dims=32):
    """A Gaussian whose probes have a variance worth halving."""
    root = torch.randn(dims, dims, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    cov = root @ root.T / dims + 0.05 * torch.eye(dims, dtype=DOUBLE)
    return GaussianMixture(VP(), [1.0], torch.zeros(1, dims, dtype=DOUBLE), cov[None])


@pytest.mark.parametrize("name", ["vlb-continuous", "vlb-ddpm"])
def test_draws_of_a_bound_have_a_degree_less_than_their_number(name):
    """Student's t of 3 for 4 draws: a normal's 1.96 would cover too seldom."""
    model = GaussianMixture(VP(), [1.0], [[0.1, 0.0]], [0.04])
    k, spec = torch.tensor([[3, 4], [1, 6], [7, 0]]), DataSpec((2,), -1.0, 1.0, levels=8)
    protocol = Protocol(name, spec, draws=4, steps=10, strata=8, dtype=DOUBLE)
    found = protocol.score(model, k, None, SampleNoise(0, range(3)))
    assert found.dof.tolist() == [3.0] * 3
    # stats.t.ppf(0.975, 3) from a table
    torch.testing.assert_close(found.half_width(), 3.182446 * found.std_error, rtol=1e-6, atol=0)


class TestChoice:
    def choose(self, model, error, n=8):
        return choose_quadrature(model, model.sample(n, seed=1), 1e-5, error, seed=0)

    def test_half_the_error_is_four_times_the_nodes(self):
        """Far from the fewest, where one rule is the cheapest."""
        (rule, few), (same, many) = (self.choose(correlated(), error) for error in (0.2, 0.1))
        assert rule == same
        assert FEWEST_NODES < few < many < MOST_NODES
        assert many / few == pytest.approx(4, rel=2 / few)  # whole numbers

    def test_less_error_is_never_cheaper(self):
        costs = []
        for error in (10.0, 3.0, 1.0, 0.3, 0.1):
            rule, nodes = self.choose(correlated(), error)
            costs.append(nodes * (1 + rule.cost(32)))
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]

    def test_within_its_limits(self):
        assert self.choose(correlated(), 1e6)[1] == FEWEST_NODES
        assert self.choose(correlated(), 1e-6)[1] == MOST_NODES

    def test_rules_know_their_own_error(self):
        for error in (10.0, 0.5, 0.1):
            assert self.choose(correlated(), error)[0].columns >= 2

    def test_an_exact_trace_where_it_is_cheap(self):
        for dims, exact in ((16, True), (17, False)):
            rule, _ = self.choose(correlated(dims), 0.01)
            assert (rule == ExactTrace()) == exact

    @pytest.mark.parametrize("error", [1.0, 0.5, 0.25])
    def test_the_error_is_reached(self, error):
        """A root mean square over 64 data, from a measurement on 8: within a factor 1.5."""
        model = correlated()
        rule, nodes = self.choose(model, error)
        x, path = model.sample(64, seed=2), Path(32, nodes, rule)
        method = Dequantized(DataSpec((32,), -6.0, 6.0), path, dtype=DOUBLE)
        found = likelihood_budget(model, x, method, seed=0)
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
        """What --image-error asks for is what per_image.csv states, within a factor 1.5."""
        request = ScoreRequest("digits-vp", n=64, image_error=error, measured=0)
        found = score_data(request, tmp_path / "out")
        stated = found["budget"]["probe_error"] * math.sqrt(64)
        assert error / 1.5 < stated < 1.5 * error


class TestProtocols:
    @pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "pf-ode/continuous"])
    def test_is_the_library(self, gaussian, name):
        """By its name, on 4 levels in the plane."""
        model, spec, k = gaussian(VP(), 2), DataSpec((2,), -1.0, 1.0, 4), torch.tensor([[1, 2]])
        common = {"draws": 2, "dtype": DOUBLE}
        bound = name not in DEQUANTIZATIONS
        density = None if bound else Path(4, 8, t_min=0.01)
        settings = {"strata": 4, "steps": 5, "t_min": 0.01}
        protocol = Protocol(name, spec, density, **settings, **common)
        found = protocol.score(model, k, None, SampleNoise(3, [7]))
        call = {"noise": SampleNoise(3, [7])}
        if name == "vlb-continuous":
            method = ContinuousVLB(spec, 0.01, strata=4, **common)
            wanted = log_likelihood(model, k, method, **call)
        elif name == "vlb-ddpm":
            chain = protocol._chain(model)
            assert len(chain) == 6
            assert float(chain[-1]) == 0.01
            method = DDPMVLB(chain, spec, variance="beta_tilde", strata=4, **common)
            wanted = log_likelihood(model, k, method, **call)
        else:
            method = Dequantized(spec, density, DEQUANTIZATIONS[name], **common)
            assert method.name == name
            wanted = likelihood_budget(model, k, method, **call)
        assert torch.equal(found.log_prob, wanted.log_prob)
        assert torch.equal(found.std_error, wanted.std_error)
        nfe = wanted.nfe if bound else wanted.nfe[0]
        assert found.nfe.tolist() == [float(nfe)]

    def test_a_ladder_is_the_chain(self, gaussian):
        """Of a table of 50 β, whatever `steps` says."""
        model = gaussian(TabulatedVP(VP().ddpm_betas(50)), 2)
        protocol = Protocol("vlb-ddpm", DataSpec((2,), -1.0, 1.0, 4), steps=1000)
        assert protocol._chain(model) == 50

    def test_only_a_solver_can_be_refined(self):
        spec = DataSpec((2,), -1.0, 1.0)
        assert Protocol("vlb-ddpm", spec).refined() is None
        path = Protocol("pf-ode/continuous", spec, Path(9))
        assert path.refined().density == Path(18)
        solver = Protocol("pf-ode/continuous", spec, Ode(rtol=1e-3, atol=1e-4))
        assert (solver.refined().density.rtol, solver.refined().density.atol) == (1e-4, 1e-5)

    def test_described(self):
        spec = DataSpec((2,), -1.0, 1.0)
        assert Protocol("vlb-ddpm", spec, steps=7, strata=3).described() == {
            "method": "3 strata, chain of 7 steps, variance beta_tilde",
            "trace": "none",
        }
        alone = Ode("dop853", 1e-3, 1e-4)
        assert Protocol("pf-ode/continuous", spec, alone).described() == {
            "method": "dop853, rtol 0.001, atol 0.0001, a step size per sample",
            "trace": "auto",
        }
