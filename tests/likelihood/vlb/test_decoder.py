"""The discretized decoder: its probabilities sum to 1 and agree with scipy."""

import math

import pytest
import torch
from scipy.stats import norm

from scoresde.data import DataSpec
from scoresde.likelihood.vlb.decoder import cell_log_prob

DOUBLE = torch.float64
SPECS = [DataSpec((1,), -1, 1, 2), DataSpec((1,), 0, 1, 17), DataSpec((1,), -1, 1, 256)]
each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.levels))


def every_level(spec, mean, std):
    """log P of each level under N(mean, std²)."""
    k = torch.arange(spec.levels)[:, None]
    return cell_log_prob(k, torch.full((spec.levels, 1), mean, dtype=DOUBLE), std, spec)


@each_spec
@pytest.mark.parametrize("std", [1e-4, 0.01, 0.3, 20.0])
@pytest.mark.parametrize("mean", [-7.0, -0.999, 0.0, 0.3, 1.2])
def test_the_levels_sum_to_one(spec, mean, std):
    total = torch.logsumexp(every_level(spec, mean, std), 0)
    # the rounding of one cell, times the number of cells
    assert abs(float(total)) < 1e-15 * (spec.levels + 10)


@each_spec
def test_equals_the_integral_over_the_cell(spec):
    mean, std = 0.2, 0.5
    edges = spec.low + spec.span * torch.arange(spec.levels + 1, dtype=DOUBLE) / spec.levels
    edges[0], edges[-1] = -math.inf, math.inf
    cdf = norm.cdf(edges.numpy(), mean, std)
    # Φ near 1 has an absolute rounding of 1e-16, which is all that this oracle can see
    got = every_level(spec, mean, std).exp()
    assert torch.allclose(got, torch.from_numpy(cdf[1:] - cdf[:-1]), rtol=1e-12, atol=1e-15)


def test_far_tails_are_finite_and_symmetric():
    spec = DataSpec((1,), -1.0, 1.0, levels=16)
    below, above = every_level(spec, -0.9, 1e-3), every_level(spec, 0.9, 1e-3)
    assert bool(torch.isfinite(below).all())
    assert torch.equal(below, above.flip(0))
    # 1.775 below the last cell, to first order in 1/z
    z = 1775.0
    assert float(below[-1]) == pytest.approx(
        -0.5 * z**2 - math.log(z * math.sqrt(2 * math.pi)), rel=1e-9
    )


def test_sums_over_the_sample():
    spec = DataSpec((2, 3), 0.0, 1.0, levels=4)
    k = torch.arange(12).reshape(2, 2, 3) % 4
    mean = torch.linspace(0, 1, 12, dtype=DOUBLE).reshape(2, 2, 3)
    flat = cell_log_prob(k.reshape(12, 1), mean.reshape(12, 1), 0.2, spec)
    assert torch.allclose(cell_log_prob(k, mean, 0.2, spec), flat.reshape(2, 6).sum(1))


def test_errors():
    spec, mean = DataSpec((1,), 0.0, 1.0, levels=4), torch.zeros(1, 1)
    with pytest.raises(ValueError, match="std must be greater than 0"):
        cell_log_prob(torch.tensor([[0]]), mean, 0.0, spec)
    with pytest.raises(ValueError, match=r"k must lie in 0\.\.3, got 4\.\.4"):
        cell_log_prob(torch.tensor([[4]]), mean, 0.1, spec)
    with pytest.raises(TypeError, match="k must be an integer tensor"):
        cell_log_prob(torch.tensor([[0.5]]), mean, 0.1, spec)
    with pytest.raises(ValueError, match="levels = None"):
        cell_log_prob(torch.tensor([[0]]), mean, 0.1, DataSpec((1,), 0.0, 1.0))
