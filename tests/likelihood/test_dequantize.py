"""Uniform dequantization and its bound against exact probabilities of levels."""

import math

import pytest
import torch

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import bits_per_dim, dequantize, discrete_log_likelihood
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.score import FunctionScore
from scoresde.sde import VP

DOUBLE = torch.float64
EIGHT = DataSpec((1,), -1.0, 1.0, levels=8)
LOOSE = {"rtol": 1e-4, "atol": 1e-4}


def cdf(x):
    return torch.special.ndtr((x - 0.1) / 0.5)


def cell_probabilities():
    """∫ N(x; 0.1, 0.5²) over each of the eight cells of [−1, 1]."""
    edges = torch.linspace(-1, 1, 9, dtype=DOUBLE)
    return cdf(edges[1:]) - cdf(edges[:-1])


def normal(*shape):
    mean = torch.full((1, *shape), 0.1, dtype=DOUBLE)
    return GaussianMixture(VP(), [1.0], mean, [0.25])


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

    def test_a_sample_is_the_same_in_any_batch(self):
        k = torch.randint(0, 8, (5, 3, 2), generator=torch.Generator().manual_seed(0))
        whole = dequantize(k, EIGHT, SampleNoise(4, range(5)))
        alone = dequantize(k[3:4], EIGHT, SampleNoise(4, [3]))
        assert torch.equal(whole[3:4], alone)

    def test_bad_levels(self):
        with pytest.raises(TypeError, match="k must be an integer tensor"):
            dequantize(torch.zeros(2, 1), EIGHT, BatchNoise(0))
        with pytest.raises(ValueError, match=r"k must lie in 0\.\.7"):
            dequantize(torch.tensor([[8]]), EIGHT, BatchNoise(0))
        with pytest.raises(ValueError, match="continuous"):
            dequantize(torch.zeros(2, 1).long(), DataSpec((1,), -1.0, 1.0), BatchNoise(0))


class TestBound:
    """T6e, D11."""

    def test_toy_of_eight_levels(self):
        """Jensen's bound lies above the exact code length, by a known gap."""
        copies = 500
        k = torch.arange(8).repeat(copies)[:, None]
        out = discrete_log_likelihood(normal(1), k, EIGHT, seed=0, dtype=DOUBLE, **LOOSE)
        bits = out.bits_per_dim.reshape(copies, 8)
        p = cell_probabilities()
        weights = p / p.sum()
        bound = float((bits.mean(0) * weights).sum())
        error = float((bits.var(0) / copies * weights**2).sum().sqrt())
        # besides statistics, the prior is not quite the density at t = 1 (1e-3 bits)
        assert abs(bound - 2.903046790) < 4 * error + 1e-3
        assert bound > 2.891411380 - 4 * error
        # and level by level
        standard = bits.std(0) / copies**0.5
        assert (bits.mean(0) > -torch.log2(p) - 4 * standard).all()

    def test_draws_are_averaged_with_their_standard_error(self):
        k = torch.full((40, 1), 6)
        out = discrete_log_likelihood(normal(1), k, EIGHT, seed=1, draws=6, dtype=DOUBLE, **LOOSE)
        assert out.log_prob.shape == (6, 40)
        assert out.bits_per_dim.shape == out.std_error.shape == (40,)
        mean = bits_per_dim(out.log_prob.mean(0), 1, 2.0)
        torch.testing.assert_close(out.bits_per_dim, mean)
        # forty estimates scatter as their errors say; a ratio of spreads, known to 15 %
        ratio = float(out.bits_per_dim.std() / out.std_error.square().mean().sqrt())
        assert 0.6 < ratio < 1.6

    def test_error_of_a_single_draw_is_unknown(self):
        out = discrete_log_likelihood(normal(1), torch.zeros(2, 1).long(), EIGHT, seed=0, **LOOSE)
        assert torch.isnan(out.std_error).all()

    def test_first_draws_stay_when_more_are_asked(self, rng_untouched):
        settings = {"seed": 3, "trace": "hutchinson", "probes": 2, **LOOSE}
        model, k = normal(3), torch.tensor([[0, 4, 7], [1, 1, 2]])
        one = discrete_log_likelihood(model, k, EIGHT, **settings)
        two = discrete_log_likelihood(model, k, EIGHT, draws=2, **settings)
        assert torch.equal(one.log_prob, two.log_prob[:1])
        assert not torch.equal(two.log_prob[0], two.log_prob[1])
        assert two.nfe > one.nfe  # of all draws
        assert two.nfe_derivative == 2 * two.nfe
        assert (two.seed, two.bits_offset, two.t_min) == (3, 2.0, 1e-5)

    def test_chunks_and_labels(self):
        k = torch.arange(8)[:, None]
        whole, chunked = (
            discrete_log_likelihood(normal(1), k, EIGHT, seed=0, batch=b, dtype=DOUBLE, **LOOSE)
            for b in (None, 3)
        )
        # the step size serves the batch: 20 tolerances
        assert float((whole.log_prob - chunked.log_prob).abs().max()) < 20e-4 * 5
        seen = []

        class Recording(FunctionScore):
            def eps(self, x, t):
                seen.append(self.y.tolist())
                return super().eps(x, t)

        model = Recording(VP(), lambda x, t: x * float(VP().sigma(t)))
        discrete_log_likelihood(model, k, EIGHT, seed=0, batch=3, y=k[:, 0], **LOOSE)
        assert {tuple(y) for y in seen} == {(0, 1, 2), (3, 4, 5), (6, 7)}

    def test_empty(self):
        k = torch.zeros(0, 3).long()
        out = discrete_log_likelihood(normal(3), k, EIGHT, seed=0, draws=2)
        assert out.bits_per_dim.shape == (0,)
        assert out.log_prob.shape == (2, 0)
        assert out.nfe == 0

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"seed": -1}, ValueError, "seed must be at least 0"),
            ({"draws": 0}, ValueError, "draws must be at least 1"),
            ({"batch": 0}, ValueError, "batch must be at least 1"),
            ({"dtype": torch.float16}, TypeError, "x must be float32 or float64"),
            ({"spec": DataSpec((1,), -1.0, 1.0)}, ValueError, "continuous"),
        ],
    )
    def test_bad_arguments(self, change, error, message):
        arguments = {"spec": EIGHT, "seed": 0, **change}
        with pytest.raises(error, match=message):
            discrete_log_likelihood(normal(1), torch.zeros(2, 1).long(), **arguments)


@pytest.mark.parametrize(
    ("levels", "low", "high", "offset"),
    [(256, -1.0, 1.0, 7.0), (256, 0.0, 1.0, 8.0), (32, -1.0, 1.0, 4.0)],
)
def test_offset_comes_from_levels_and_range(levels, low, high, offset):
    """T6f. A density uniform over the range gives every level log2(levels) bits."""
    spec = DataSpec((3,), low, high, levels=levels)
    assert spec.bits_offset == offset
    log_prob = torch.tensor([-3 * math.log(high - low)], dtype=DOUBLE)
    assert float(bits_per_dim(log_prob, 3, spec.bits_offset)) == pytest.approx(math.log2(levels))
