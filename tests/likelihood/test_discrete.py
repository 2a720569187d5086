"""Bits/dim by the probability-flow ODE against exact probabilities of levels."""

import math

import pytest
import torch
from calls import split

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    Continuous,
    Dequantized,
    Hutchinson,
    Ode,
    Path,
    TruncatedNormalDequantization,
    UniformDequantization,
    log_likelihood,
)
from scoresde.likelihood.method import Likelihood
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP

DOUBLE = torch.float64
EIGHT = DataSpec((1,), -1.0, 1.0, levels=8)
THREE = DataSpec((3,), -1.0, 1.0, levels=8)
LOOSE = {"rtol": 1e-4, "atol": 1e-4}


def discrete(model, k, spec, **arguments):
    """`log_likelihood` by a `Dequantized` `Ode`, with the arguments of all three mixed."""
    call, settings = split(arguments, ("seed", "noise", "y", "batch"))
    protocol, settings = split(settings, ("dequantization", "draws", "dtype"))
    return log_likelihood(model, k, Dequantized(spec, Ode(**settings), **protocol), **call)


def per_draw(out):
    """log p of each draw, shape (draws, B)."""
    return torch.stack([part.log_prob for part in out.parts])


def cdf(x):
    return torch.special.ndtr((x - 0.1) / 0.5)


def cell_probabilities():
    """∫ N(x; 0.1, 0.5²) over each of the eight cells of [−1, 1]."""
    edges = torch.linspace(-1, 1, 9, dtype=DOUBLE)
    return cdf(edges[1:]) - cdf(edges[:-1])


def normal(*shape):
    mean = torch.full((1, *shape), 0.1, dtype=DOUBLE)
    return GaussianMixture(VP(), [1.0], mean, [0.25])


class TestBound:
    """Against exact probabilities of eight levels."""

    @pytest.mark.parametrize(
        ("dequantization", "t_min"),
        [
            (UniformDequantization(), 1e-5),
            # σ = 0.4 is wider than a cell, and p_t flatter than p_0
            (TruncatedNormalDequantization(), 0.12),
        ],
        ids=["uniform", "truncated-normal"],
    )
    def test_toy_of_eight_levels(self, dequantization, t_min):
        """Jensen's bound lies above the exact code length, by a known gap."""
        copies = 500
        k = torch.arange(8).repeat(copies)[:, None]
        out = discrete(
            normal(1), k, EIGHT, dequantization=dequantization, t_min=t_min, seed=0, dtype=DOUBLE,
            **LOOSE,
        )  # fmt: skip
        assert out.method.name == f"pf-ode/{dequantization.name}"
        bits = out.bits_per_dim(EIGHT).reshape(copies, 8)
        p = cell_probabilities()
        if dequantization.name == "uniform":
            weights = p / p.sum()
            bound = float((bits.mean(0) * weights).sum())
            error = float((bits.var(0) / copies * weights**2).sum().sqrt())
            # besides statistics, the prior is not quite the density at t = 1 (1e-3 bits)
            assert abs(bound - 2.903046790) < 4 * error + 1e-3
            assert bound > 2.891411380 - 4 * error
        else:
            node = VP().nodes(torch.tensor([t_min], dtype=DOUBLE))[0]
            edges = node.alpha * torch.linspace(-1, 1, 9, dtype=DOUBLE)
            std = math.sqrt(node.alpha**2 / 4 + node.sigma**2)
            p = torch.special.ndtr((edges - 0.1 * node.alpha) / std).diff()
        # and level by level
        standard = bits.std(0) / copies**0.5
        assert (bits.mean(0) > -torch.log2(p) - 4 * standard - 1e-3).all()
        assert (bits.mean(0) < -torch.log2(p) + 4 * standard + 0.06).all()

    def test_draws_are_averaged_with_their_standard_error(self):
        k = torch.full((40, 1), 6)
        out = discrete(normal(1), k, EIGHT, seed=1, draws=6, dtype=DOUBLE, **LOOSE)
        log_prob, bits = per_draw(out), out.bits_per_dim(EIGHT)
        assert log_prob.shape == (6, 40)
        assert bits.shape == out.std_error.shape == (40,)
        # cells of 1/4
        torch.testing.assert_close(bits, 2 - log_prob.mean(0) / math.log(2))
        # forty estimates scatter as their errors say; a ratio of spreads, known to 15 %
        ratio = float(out.log_prob.std() / out.std_error.square().mean().sqrt())
        assert 0.6 < ratio < 1.6
        # the trace is exact, so that all of it is dequantization
        assert float(out.probe_error.abs().max()) == 0
        torch.testing.assert_close(out.draw_error, out.std_error)

    def test_errors_of_the_probes(self):
        """Their part comes from the method's standard errors of each draw."""
        spec, k = DataSpec((3,), -1.0, 1.0, levels=8), torch.tensor([[0, 4, 7], [1, 1, 2]])
        model = GaussianMixture(VP(), [1.0], torch.zeros(1, 3), torch.eye(3)[None] * 0.1 + 0.2)
        out = discrete(
            model, k, spec, seed=1, draws=2, trace=Hutchinson(probes=4), dtype=DOUBLE, **LOOSE
        )
        squares = torch.stack([part.std_error**2 for part in out.parts]).mean(0) / 2
        assert (squares > 0).all()
        torch.testing.assert_close(out.probe_error, squares.sqrt())
        assert out.probe_dof.tolist() == [6.0, 6.0]

    def test_error_of_a_single_draw_is_unknown(self):
        out = discrete(normal(1), torch.zeros(2, 1).long(), EIGHT, seed=0, **LOOSE)
        assert torch.isnan(out.std_error).all()

    def test_first_draws_stay_when_more_are_asked(self, rng_untouched):
        settings = {"seed": 3, "trace": Hutchinson(probes=2), **LOOSE}
        model, k = normal(3), torch.tensor([[0, 4, 7], [1, 1, 2]])
        one = discrete(model, k, THREE, **settings)
        two = discrete(model, k, THREE, draws=2, **settings)
        assert torch.equal(per_draw(one)[0], per_draw(two)[0])
        assert not torch.equal(*per_draw(two))
        assert two.nfe > one.nfe  # of all draws
        assert two.nfe_derivative == 2 * two.nfe
        assert (two.seed, two.t_min) == (3, 1e-5)

    def test_chunks_and_labels(self):
        k = torch.arange(8)[:, None]
        whole, chunked = (
            discrete(normal(1), k, EIGHT, seed=0, batch=b, dtype=DOUBLE, **LOOSE) for b in (None, 3)
        )
        # the step size serves the batch: 20 tolerances
        assert float((whole.log_prob - chunked.log_prob).abs().max()) < 20e-4 * 5
        seen = []

        class Recording(FunctionScore):
            def eps(self, x, t):
                seen.append(self.y.tolist())
                return super().eps(x, t)

        model = Recording(VP(), lambda x, t: x * float(VP().sigma(t)))
        discrete(model, k, EIGHT, seed=0, batch=3, y=k[:, 0], **LOOSE)
        assert {tuple(y) for y in seen} == {(0, 1, 2), (3, 4, 5), (6, 7)}

    def test_samples_on_their_own_do_not_see_their_batch(self):
        """With a step size for each sample, batches agree to rounding."""
        k = torch.arange(8)[:, None]
        whole, chunked = (
            discrete(normal(1), k, EIGHT, seed=0, batch=b, per_sample=True, dtype=DOUBLE, **LOOSE)
            for b in (None, 3)
        )
        torch.testing.assert_close(whole.log_prob, chunked.log_prob, rtol=1e-10, atol=1e-10)

    def test_empty(self):
        k = torch.zeros(0, 3).long()
        out = discrete(normal(3), k, THREE, seed=0, draws=2)
        assert out.bits_per_dim(THREE).shape == out.std_error.shape == (0,)
        assert out.log_q.shape == (0, 2)
        assert len(out.parts) == 2
        assert out.nfe == 0

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"seed": -1}, ValueError, "seed must be at least 0"),
            ({"draws": 0}, ValueError, "draws must be at least 1"),
            ({"batch": 0}, ValueError, "batch must be at least 1"),
            ({"dtype": torch.float16}, TypeError, "dtype must be float32 or float64"),
            ({"dequantization": Continuous()}, ValueError, "must be of continuous data, got 8 lev"),
        ],
    )
    def test_bad_arguments(self, change, error, message):
        arguments = {"spec": EIGHT, "seed": 0, **change}
        with pytest.raises(error, match=message):
            discrete(normal(1), torch.zeros(2, 1).long(), **arguments)


class UniformData:
    """Data uniform on [−1, 1]^D:  p_t = Π (Φ((x + α)/σ) − Φ((x − α)/σ))/(2 α)."""

    def __init__(self, sde):
        self.sde = sde
        self.model = FunctionScore(sde, self.eps)

    def eps(self, x, t):
        sigma, a, b = self.standardized(x, t)
        return -(torch.exp(-0.5 * a**2) - torch.exp(-0.5 * b**2)) / self.mass(a, b)

    def log_prob(self, x, t):
        """Shape (B,)."""
        sigma, a, b = self.standardized(x, t)
        density = self.mass(a, b) / math.sqrt(2 * math.pi) / (2 * self.sde.alpha(t))
        return torch.log(density).sum(1)

    def standardized(self, x, t):
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return sigma, (x + alpha) / sigma, (x - alpha) / sigma

    def mass(self, a, b):
        half = 0.5 * math.sqrt(2 * math.pi)
        return half * (torch.erfc(-a / math.sqrt(2)) - torch.erfc(-b / math.sqrt(2)))


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["VP", "VE"])
@pytest.mark.by_default("VE")
def test_uniform_model_gives_eight_bits(sde):
    """Far from the edges, and with the prior mismatch added, the bound is exact."""
    data, spec = UniformData(sde), DataSpec((2,), -1.0, 1.0, levels=256)
    # cells of 1/128 each, and σ(t_min) at most 0.01: eight σ of the edges are ten cells
    k = torch.tensor([[128, 40], [15, 200], [77, 240]])
    out = discrete(data.model, k, spec, seed=0, rtol=1e-7, atol=1e-7, method="dopri8", dtype=DOUBLE)
    x_1 = out.parts[0].latent
    prior = torch.distributions.Normal(0.0, torch.tensor(sde.prior_std, dtype=DOUBLE))
    mismatch = prior.log_prob(x_1).sum(1) - data.log_prob(x_1, torch.tensor(1.0, dtype=DOUBLE))
    bits = out.bits_per_dim(spec) + mismatch / (2 * math.log(2))
    # p at t_min is wider than [−1, 1] by log α
    bits -= float(sde.log_alpha(1e-5)) / math.log(2)
    assert float((bits - 8).abs().max()) < 1e-7


def density(log_prob):
    """A result that holds this density of points."""
    zeros = torch.zeros_like(log_prob)
    return Likelihood(log_prob, zeros, zeros, zeros, 0, 0, 1e-5, Path())


@pytest.mark.parametrize(
    ("levels", "low", "high", "offset"),
    [(256, -1.0, 1.0, 7.0), (256, 0.0, 1.0, 8.0), (32, -1.0, 1.0, 4.0)],
)
def test_offset_comes_from_levels_and_range(levels, low, high, offset):
    """A density uniform over the range gives every level log2(levels) bits."""
    spec = DataSpec((3,), low, high, levels=levels)
    assert spec.bits_offset == offset
    log_prob = torch.tensor([-3 * math.log(high - low)], dtype=DOUBLE)
    assert float(density(log_prob).bits_per_dim(spec)) == pytest.approx(math.log2(levels))


def test_normal_at_zero():
    """N(0, 1) at 0 counted as 8-bit data on [−1, 1] has 8.325748065 bits."""
    log_prob = torch.tensor([-0.5 * math.log(2 * math.pi)], dtype=DOUBLE)
    found = density(log_prob).bits_per_dim(DataSpec((1,), -1.0, 1.0, levels=256))
    assert float(found) == pytest.approx(8.325748065, abs=1e-9)
