"""Dequantizations against scipy's distributions, and their independence of the batch."""

import math

import pytest
import torch
from calls import points_of
from scipy.stats import truncnorm

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import TruncatedNormalDequantization, UniformDequantization, dequantize
from scoresde.likelihood.dequantize import log_normal, truncated_normal
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.sde import VE, VP

DOUBLE = torch.float64
EIGHT = DataSpec((1,), -1.0, 1.0, levels=8)
ALL = [UniformDequantization(), TruncatedNormalDequantization()]


def normal(sde, *shape):
    return GaussianMixture(sde, [1.0], torch.full((1, *shape), 0.1, dtype=DOUBLE), [0.25])


class TestDequantize:
    def test_fills_the_cells_uniformly(self):
        k = torch.arange(8).repeat(2000)[:, None]
        x = dequantize(k, EIGHT, SampleNoise(0, range(len(k))), dtype=DOUBLE)
        u = (x + 1) * 4 - k
        n = len(k)
        assert float(u.min()) >= 0
        assert float(u.max()) <= 1
        assert abs(float(u.mean()) - 1 / 2) < 4 * (1 / 12 / n) ** 0.5
        # Var (u − ½)² = 1/180
        assert abs(float(((u - 0.5) ** 2).mean()) - 1 / 12) < 4 * (1 / 180 / n) ** 0.5

    @pytest.mark.parametrize("levels", [2, 17, 256])
    def test_is_undone_by_rounding(self, levels):
        spec = DataSpec((levels,), 0.0, 1.0, levels=levels)
        k = torch.arange(levels).expand(20, levels)
        x = dequantize(k, spec, BatchNoise(0))
        assert x.dtype == torch.float32
        assert torch.equal(spec.to_levels(x).long(), k)


@pytest.mark.parametrize("dequantization", ALL, ids=lambda d: d.name)
class TestAnyDequantization:
    def test_a_sample_is_the_same_in_any_batch(self, dequantization, node_at):
        k = torch.randint(0, 8, (5, 3, 2), generator=torch.Generator().manual_seed(0))
        model, node = normal(VP(), 3, 2), node_at(VP(), 1e-3)
        whole, again, alone = (
            points_of(dequantization, model, part, EIGHT, noise, node)
            for part, noise in (
                (k, SampleNoise(4, range(5))),
                (k, SampleNoise(4, range(5))),
                (k[3:4], SampleNoise(4, [3])),
            )
        )
        assert torch.equal(whole.x, again.x)
        assert torch.equal(whole.x[3:4], alone.x)
        assert torch.equal(whole.log_q[3:4], alone.log_q)
        assert whole.x.dtype == torch.float32
        assert whole.log_q.dtype == DOUBLE

    def test_empty(self, dequantization, node_at):
        k = torch.zeros(0, 3, dtype=torch.long)
        out = points_of(
            dequantization, normal(VP(), 3), k, EIGHT, SampleNoise(0, []), node_at(VP(), 1e-3)
        )
        assert out.x.shape == (0, 3)
        assert out.log_q.shape == (0,)

    def test_bad_levels(self, dequantization, node_at):
        def draw(k, spec=EIGHT):
            points_of(dequantization, normal(VP(), 1), k, spec, BatchNoise(0), node_at(VP(), 1e-3))

        with pytest.raises(TypeError, match="k must be an integer tensor"):
            draw(torch.zeros(2, 1))
        with pytest.raises(ValueError, match=r"k must lie in 0\.\.7"):
            draw(torch.tensor([[8]]))
        with pytest.raises(ValueError, match="continuous"):
            draw(torch.zeros(2, 1).long(), DataSpec((1,), -1.0, 1.0))


@pytest.mark.parametrize(
    ("levels", "low", "high"), [(256, -1.0, 1.0), (256, 0.0, 1.0), (32, -1.0, 1.0), (17, -3.0, 0.5)]
)
def test_uniform_density_is_that_of_a_cell(levels, low, high, node_at):
    """And its points are those of `dequantize`, at any t."""
    spec = DataSpec((3,), low, high, levels=levels)
    k = torch.tensor([[0, 1, levels - 1], [levels - 1, 0, 1]])
    out = points_of(
        UniformDequantization(),
        normal(VP(), 3),
        k,
        spec,
        SampleNoise(2, range(2)),
        node_at(VP(), 0.5),
    )
    assert torch.equal(out.x, dequantize(k, spec, SampleNoise(2, range(2))))
    cell = (high - low) / levels
    torch.testing.assert_close(out.log_q, torch.full((2,), -3 * math.log(cell), dtype=DOUBLE))


class TestTruncatedNormal:
    @pytest.mark.parametrize("sde", [VP(), VE()], ids=["VP", "VE"])
    @pytest.mark.parametrize("t", [1e-5, 1e-2, 0.4])
    @pytest.mark.parametrize("levels", [8, 256])
    def test_distribution_is_scipys(self, sde, t, levels, node_at, given):
        """From τ = 100 (the whole normal) down to 0.01 (nearly uniform)."""
        spec, node = DataSpec((1,), -1.0, 1.0, levels=levels), node_at(sde, t)
        u = torch.linspace(0.001, 0.999, 401, dtype=DOUBLE)
        k = torch.full((401, 1), 2)
        out = points_of(
            TruncatedNormalDequantization(),
            normal(sde, 1),
            k,
            spec,
            given(torch.special.ndtri(u)),
            node,
            DOUBLE,
        )
        tau = node.alpha / levels / node.sigma
        centre = node.alpha * (-1 + 2 * 2.5 / levels)
        law = truncnorm(-tau, tau, loc=centre, scale=node.sigma)
        # the centre is of order 1, so z = (x − αc)/σ loses 1e-16/σ of its digits, τ relatively
        found = torch.from_numpy(law.cdf(out.x[:, 0].numpy()))
        torch.testing.assert_close(found, u, rtol=0, atol=1e-9)
        log_density = torch.from_numpy(law.logpdf(out.x[:, 0].numpy()))
        torch.testing.assert_close(out.log_q, log_density, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("levels", [2, 17, 256])
    def test_points_stay_in_the_scaled_cell(self, levels, node_at):
        spec = DataSpec((levels,), 0.0, 1.0, levels=levels)
        node = node_at(VP(), 0.3)
        k = torch.arange(levels).expand(50, levels)
        out = points_of(
            TruncatedNormalDequantization(),
            normal(VP(), levels),
            k,
            spec,
            SampleNoise(0, range(50)),
            node,
            DOUBLE,
        )
        assert torch.equal(spec.to_levels(out.x / node.alpha).long(), k)

    def test_mean_of_log_q_in_closed_form(self, node_at, given, legendre):
        """E log q = −½ (1 + log 2πσ²) − log Z + τ φ(τ)/Z of each dimension, by quadrature."""
        node, nodes, weights = node_at(VP(), 2e-3), *legendre(400)
        out = points_of(
            TruncatedNormalDequantization(), normal(VP(), 1), torch.full((400, 1), 3),
            DataSpec((1,), -1.0, 1.0, levels=32),
            given(torch.special.ndtri(nodes)), node, DOUBLE,
        )  # fmt: skip
        tau = node.alpha / 32 / node.sigma
        z = math.erf(tau / math.sqrt(2))
        phi = math.exp(-0.5 * tau**2) / math.sqrt(2 * math.pi)
        wanted = -0.5 * (1 + math.log(2 * math.pi * node.sigma**2)) - math.log(z) + tau * phi / z
        assert float(weights @ out.log_q) == pytest.approx(wanted, abs=1e-8)

    def test_tails_are_not_rounded(self):
        """Without truncation the draws come back, though Φ(8.5) rounds to 1."""
        z = torch.linspace(-8.5, 8.5, 101, dtype=DOUBLE)
        torch.testing.assert_close(truncated_normal(z, 30.0), z, rtol=1e-12, atol=1e-12)

    def test_narrow_cells_are_filled_uniformly(self):
        u = torch.linspace(0, 1, 101, dtype=DOUBLE)
        z = truncated_normal(torch.special.ndtri(u), 1e-4)
        # the normal density varies by τ²/2 over the cell; 1e-16/τ of a probability is lost
        torch.testing.assert_close(z / 1e-4, 2 * u - 1, rtol=0, atol=1e-8)

    def test_log_q_is_that_of_the_rounded_point(self, node_at):
        """In float32 p and q are asked at the same x, so that rounding cancels between them."""
        node, k = node_at(VP(), 1e-5), torch.full((200, 4), 5)
        out = points_of(
            TruncatedNormalDequantization(),
            normal(VP(), 4),
            k,
            EIGHT,
            SampleNoise(1, range(200)),
            node,
        )
        centre = torch.full((4,), node.alpha * (-1 + 2 * 5.5 / 8), dtype=DOUBLE)
        # Z = 1: τ = 118
        torch.testing.assert_close(out.log_q, log_normal(out.x, centre, node.sigma))
