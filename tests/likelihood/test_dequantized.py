"""The bound on discrete toys whose probabilities are known level by level, and its errors."""

import math

import pytest
import torch
from calls import Known, dequantized

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    ContinuousVLB,
    Dequantized,
    TruncatedNormalDequantization,
    UniformDequantization,
)
from scoresde.noise import SampleNoise
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP, SubVP

DOUBLE = torch.float64
EIGHT = DataSpec((1,), -1.0, 1.0, levels=8)
UNIFORM, NORMAL = UniformDequantization(), TruncatedNormalDequantization()


def every_level(spec):
    """All possible data, shape (levels^D, D)."""
    axes = [torch.arange(spec.levels)] * spec.shape[0]
    return torch.cartesian_prod(*axes).reshape(-1, spec.shape[0])


@pytest.fixture
def expected_bound(given, exact_density, legendre):
    """E[log p − log q] of every datum, by n-point Gauss–Legendre in each direction of the cell."""

    def expected(model, spec, dequantization, t, n):
        k, dims = every_level(spec), spec.shape[0]
        nodes, weights = legendre(n)
        u = torch.cartesian_prod(*[nodes] * dims).reshape(-1, dims)
        w = torch.cartesian_prod(*[weights] * dims).reshape(-1, dims).prod(1)
        out = dequantized(
            model,
            k.repeat_interleave(len(u), 0),
            spec,
            exact_density(t),
            dequantization=dequantization,
            noise=given(torch.special.ndtri(u).repeat(len(k), 1)),
            dtype=DOUBLE,
        )
        return out.log_prob.reshape(len(k), len(u)) @ w

    return expected


def probabilities(model, spec, t, scale):
    """∫ p_t over the cells, scaled by `scale`, of a mixture of axis-parallel Gaussians."""
    node = model.sde.nodes(torch.tensor([t], dtype=DOUBLE))[0]
    low = spec.low + spec.span * every_level(spec).to(DOUBLE) / spec.levels
    std = torch.sqrt(node.alpha**2 * model.variances + node.sigma**2)[:, None]
    mean = node.alpha * model.means[:, None]

    def cdf(x):
        return 0.5 * torch.erfc(-(scale * x - mean) / std / math.sqrt(2))

    cells = (cdf(low + spec.span / spec.levels) - cdf(low)).prod(2)
    return (model.weights[:, None] * cells).sum(0)


def normal(sde):
    return GaussianMixture(sde, [1.0], [[0.1]], [0.25])


def planar(sde):
    """Two axis-parallel Gaussians inside [−1, 1]² except for 1e-3 of their mass."""
    return GaussianMixture(
        sde, [0.6, 0.4], [[-0.3, 0.2], [0.4, -0.1]], [[0.03, 0.05], [0.02, 0.04]]
    )


def centred(sde, spec, weights):
    """Data that lie at the centres of the cells."""
    centres = spec.encode(torch.arange(spec.levels)).to(DOUBLE)[:, None]
    return GaussianMixture(sde, weights, centres, [0.0] * spec.levels)


class TestToyOfEightLevels:
    """To eleven digits: at t = 1e-14 the density of VP is that of the data."""

    def test_exact_and_bound(self, expected_bound):
        model, t = normal(VP()), 1e-14
        p = probabilities(model, EIGHT, t, 1.0)
        weights = p / p.sum()
        bits = -expected_bound(model, EIGHT, UNIFORM, t, 40) / math.log(2)
        assert float(-(weights * torch.log2(p)).sum()) == pytest.approx(2.891411380031, abs=1e-11)
        assert float((weights * bits).sum()) == pytest.approx(2.903046790090, abs=1e-11)
        assert (bits > -torch.log2(p)).all()


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()], ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize(
    ("spec", "model"),
    [
        (EIGHT, normal),
        (DataSpec((1,), 0.0, 1.0, levels=17), normal),
        (DataSpec((1,), -1.0, 1.0, levels=32), normal),
        (DataSpec((1,), 0.0, 1.0, levels=256), normal),
        (DataSpec((2,), -1.0, 1.0, levels=8), planar),
    ],
    ids=["8", "17 on [0, 1]", "5-bit", "8-bit on [0, 1]", "plane"],
)
class TestEveryLevel:
    def test_probabilities_sum_to_the_mass_in_range(self, sde, spec, model):
        """The oracle below is a probability: levels and what lies outside sum to 1."""
        whole = DataSpec(spec.shape, spec.low, spec.high, levels=2)
        for scale in (1.0, 0.9):
            fine, coarse = (probabilities(model(sde), s, 0.01, scale).sum() for s in (spec, whole))
            torch.testing.assert_close(fine, coarse, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("dequantization", [UNIFORM, NORMAL], ids=lambda d: d.name)
    def test_bound_is_below_the_probability(
        self, sde, spec, model, dequantization, node_at, expected_bound
    ):
        """At each level; by 0.1 nats per dimension in the mean, unless q is much too narrow."""
        t = 0.01
        node = node_at(sde, t)
        scale = node.alpha if dequantization is NORMAL else 1.0
        p = probabilities(model(sde), spec, t, scale)
        n = 60 if spec.shape == (1,) else 16
        gap = p.log() - expected_bound(model(sde), spec, dequantization, t, n)
        # quadrature of a density that is smooth in the cell: 1e-9
        assert float(gap.min()) > -1e-9
        tau = node.alpha * spec.span / spec.levels / 2 / node.sigma
        if dequantization is UNIFORM or tau < 1:
            assert float(p @ gap / p.sum()) < 0.1 * spec.shape[0]


class TestTruncatedNormal:
    @pytest.mark.parametrize("sde", [VP(), SubVP(), VE()], ids=lambda sde: type(sde).__name__)
    def test_is_sharp_for_data_at_the_centres(self, sde, expected_bound):
        """KL(q ‖ p_t in the cell) comes from the neighbours' tails alone, 1e-3 for τ = 3."""
        weights = [0.1, 0.2, 0.05, 0.15, 0.25, 0.05, 0.1, 0.1]
        model = centred(sde, EIGHT, weights)
        t = float(sde.t_of_lam(math.log(3 * 8)))  # α h = 3 σ, h = 1/8
        scale = float(sde.alpha(t))
        p = probabilities(model, EIGHT, t, scale)
        # inside its cell q is all but the model's: 0.27 % of each lies outside
        torch.testing.assert_close(p, torch.tensor(weights, dtype=DOUBLE), rtol=0.02, atol=0)
        gap = p.log() - expected_bound(model, EIGHT, NORMAL, t, 200)
        assert float(gap.min()) > -1e-9
        assert float(gap.max()) < 0.02
        loose = probabilities(model, EIGHT, t, 1.0).log() - expected_bound(
            model, EIGHT, UNIFORM, t, 200
        )
        assert float(loose.min()) > 0.5

    def test_is_loose_by_a_known_amount_for_densities_that_fill_the_cell(
        self, node_at, expected_bound
    ):
        """log(h √2/(σ √(πe))) nats: the uniform law's entropy less that of q, for large τ."""
        model, t = normal(VP()), 1e-4
        node = node_at(model.sde, t)
        gap = probabilities(model, EIGHT, t, node.alpha).log() - expected_bound(
            model, EIGHT, NORMAL, t, 400
        )
        wanted = math.log(math.sqrt(2) / 8 / node.sigma / math.sqrt(math.pi * math.e))
        # the density's own variation over the cell, h²/6 times its curvature and slope²
        assert float((gap - wanted).abs().max()) < 0.05


class TestUniformModel:
    """A density uniform on the range gives every level log2(levels) bits."""

    @pytest.mark.parametrize(("levels", "bits"), [(256, 8.0), (32, 5.0), (17, math.log2(17))])
    @pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-3.0, 5.0)])
    def test_exactly(self, levels, bits, low, high):
        spec = DataSpec((3,), low, high, levels=levels)

        def density(model, x, noise):
            assert float(x.min()) >= low
            assert float(x.max()) <= high
            return torch.full((len(x),), -3 * math.log(high - low), dtype=DOUBLE)

        k = torch.tensor([[0, 1, levels - 1], [levels // 2, 0, 2]])
        found = dequantized(normal(VP()), k, spec, Known(density), seed=0).bits_per_dim(spec)
        torch.testing.assert_close(found, torch.full((2,), bits, dtype=DOUBLE), rtol=1e-14, atol=0)


class TestErrors:
    def noisy(self, std, known=True):
        """A density that varies by 1 over the cell and has additional noise."""

        def density(model, x, noise):
            log_prob = (4 * x - torch.floor(4 * x)).sum(1) + std * noise.probe(x)[:, 0]
            error = torch.full_like(log_prob, std if known else math.nan)
            return log_prob, error, torch.full_like(log_prob, 1e9)

        return Known(density)

    def bound(self, density, draws, n=3000):
        k = torch.randint(0, 8, (n, 1), generator=torch.Generator().manual_seed(0))
        return dequantized(normal(VP()), k, EIGHT, density, draws=draws, seed=3, dtype=DOUBLE)

    def test_parts_are_what_they_are(self):
        """u ~ U(0, 1) has variance 1/12; together they are the variance of the mean."""
        out = self.bound(self.noisy(0.1), draws=8)
        torch.testing.assert_close(out.probe_error, torch.full_like(out.probe_error, 0.1 / 8**0.5))
        # of a variance from 8 draws, averaged over 3,000 samples: within 4 %
        assert float((out.draw_error**2).mean()) == pytest.approx(1 / 12 / 8, rel=0.04)
        spread = float(out.log_prob.var())
        assert spread == pytest.approx(float((out.std_error**2).mean()), rel=0.12)
        sums = torch.maximum(out.std_error**2, out.probe_error**2)
        torch.testing.assert_close(out.probe_error**2 + out.draw_error**2, sums)

    def test_where_probes_are_all_the_rest_is_clamped(self):
        out = self.bound(self.noisy(30.0), draws=4)
        assert float((out.draw_error == 0).double().mean()) > 0.3
        assert (out.draw_error >= 0).all()

    def test_what_cannot_be_told_is_nan(self):
        single = self.bound(self.noisy(0.1), draws=1, n=5)
        assert torch.isnan(single.std_error).all()
        assert torch.isnan(single.draw_error).all()
        torch.testing.assert_close(single.probe_error, torch.full((5,), 0.1, dtype=DOUBLE))
        unknown = self.bound(self.noisy(0.1, known=False), draws=2, n=5)
        assert torch.isfinite(unknown.std_error).all()
        assert torch.isnan(unknown.probe_error).all()
        assert torch.isnan(unknown.draw_error).all()


class TestInterface:
    def test_density_is_given_rows_labels_and_streams(self):
        seen = []

        def density(model, x, noise):
            seen.append((model.y.tolist(), noise.indices, x.shape))
            return torch.zeros(len(x), dtype=DOUBLE)

        k = torch.arange(5)[:, None]
        model = FunctionScore(VP(), lambda x, t, y: x)
        method = Known(density)
        out = dequantized(model, k, EIGHT, method, y=10 + k[:, 0], seed=0, batch=2, draws=2)
        assert (
            seen[::2]
            == seen[1::2]
            == [
                ([10, 11], [0, 1], (2, 1)),
                ([12, 13], [2, 3], (2, 1)),
                ([14], [4], (1, 1)),
            ]
        )
        assert [part.log_prob.shape for part in out.parts] == [(5,), (5,)]
        assert out.log_q.shape == (5, 2)
        assert (out.method.name, out.t_min, out.seed) == ("pf-ode/uniform", 1e-5, 0)

    def test_chunks_do_not_matter(self, rng_untouched, exact_density):
        k = torch.arange(8)[:, None]
        for dequantization in (UNIFORM, NORMAL):
            whole, chunked = (
                dequantized(
                    normal(VP()), k, EIGHT, exact_density(1e-3), dequantization=dequantization,
                    seed=1, batch=b, draws=2,
                )
                for b in (None, 3)
            )  # fmt: skip
            torch.testing.assert_close(whole.log_prob, chunked.log_prob, rtol=1e-12, atol=0)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"seed": -1}, ValueError, "seed must be at least 0"),
            ({"seed": None}, ValueError, "exactly one of seed and noise"),
            ({"draws": 0}, ValueError, "draws must be at least 1"),
            ({"draws": 1.5}, TypeError, "draws must be an integer"),
            ({"batch": 0}, ValueError, "batch must be at least 1"),
            (
                {"seed": None, "noise": SampleNoise(0, [0, 1]), "batch": 1},
                ValueError,
                "batch needs a seed",
            ),
            ({"y": torch.zeros(3)}, ValueError, "y must be None: .* takes no condition"),
            ({"method": Known(len, 1.0)}, ValueError, "t_min must be less than 1"),
            ({"method": Known(len, 0.0)}, ValueError, "t_min must be greater than 0 for VP"),
            ({"data": torch.zeros(2, 1)}, TypeError, "k must be an integer tensor"),
            ({"data": torch.full((2, 1), 8)}, ValueError, r"k must lie in 0\.\.7, got 8\.\.8"),
        ],
    )
    def test_bad_arguments(self, change, error, message, exact_density):
        known = {"data": torch.zeros(2, 1).long(), "method": exact_density(1e-5), "seed": 0}
        with pytest.raises(error, match=message):
            dequantized(normal(VP()), spec=EIGHT, **{**known, **change})

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"spec": "digits"}, TypeError, "spec must be of type DataSpec, got str"),
            ({"dequantization": "uniform"}, TypeError, "must be of type Dequantization, got str"),
            ({"dtype": torch.float16}, TypeError, "dtype must be float32 or float64"),
            ({"method": ContinuousVLB(EIGHT)}, ValueError, "ContinuousVLB is of levels itself"),
        ],
    )
    def test_bad_settings(self, settings, error, message):
        with pytest.raises(error, match=message):
            Dequantized(**{"spec": EIGHT, **settings})
        with pytest.raises(TypeError, match="spec must be of type DataSpec, got str"):
            ContinuousVLB("digits")

    def test_data_of_another_shape(self, exact_density):
        """Their bits/dim would be over the dimensions of the spec."""
        model, k = normal(VP()), torch.zeros(2, 3).long()
        with pytest.raises(ValueError, match=r"x must have shape \(B, 1\), got \(2, 3\)"):
            dequantized(model, k, EIGHT, exact_density(1e-5), seed=0)

    def test_shapeless_data(self, exact_density):
        with pytest.raises(ValueError, match="x must have shape"):
            dequantized(normal(VP()), torch.tensor(3), EIGHT, exact_density(1e-5), seed=0)
