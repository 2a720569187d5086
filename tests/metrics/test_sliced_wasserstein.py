import math

import numpy as np
import pytest
import torch

from scoresde.metrics import directions, sliced_wasserstein
from scoresde.metrics.sliced_wasserstein import _transport


def sampler(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("d", "groups", "size"), [(1, 10, 1), (3, 3, 3), (4, 2, 4), (50, 2, 5)])
def test_directions_are_groups_of_orthonormal_rows(d, groups, size):
    theta = directions(d, 10)
    assert theta.shape == (groups, size, d)
    identity = torch.eye(size, dtype=torch.float64).expand(groups, -1, -1)
    torch.testing.assert_close(theta @ theta.mT, identity)
    assert torch.equal(theta, directions(d, 10))
    assert not torch.equal(theta, directions(d, 10, seed=1))


def test_directions_are_uniform_on_the_sphere():
    theta = directions(3, 30_000).reshape(-1, 3)
    # E θ = 0 and E θ₁⁴ = 3/(d(d + 2)) = 1/5; standard errors about 0.003 and 0.0014.
    assert theta.mean(0).abs().max() < 0.013
    assert float(theta.pow(4).mean()) == pytest.approx(0.2, abs=0.006)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_shift_is_exact(d):
    """A shift δ gives W₂² = (θ·δ)² on each line, |δ|²/d over whole orthonormal groups."""
    x = sampler()(30, d)
    delta = torch.arange(1.0, d + 1, dtype=torch.float64)
    result = sliced_wasserstein(x + delta, x, projections=40)
    assert result.value == pytest.approx(float(delta.norm()) / math.sqrt(d), rel=1e-12)


def test_gaussians_of_different_scale():
    """N(0, a² I) against N(0, b² I): every W₂ is |a − b|."""
    normal = sampler()
    result = sliced_wasserstein(1.5 * normal(20_000, 3), normal(30_000, 3), projections=24)
    assert abs(result.value - 0.5) < 4 * result.std_error  # its bias is 1e-4, far below the error
    assert result.std_error < 0.01


def test_unequal_sizes_equal_replicated_samples():
    """n points each repeated m times, against m points each repeated n times: the same measures."""
    normal = sampler()
    x, y = normal(7, 2), normal(5, 2) + 0.3
    theta = directions(2, 8).reshape(-1, 2)
    squared, *_ = _transport(x, y, theta)
    px = (theta @ x.T).repeat_interleave(5, 1).sort(1).values
    py = (theta @ y.T).repeat_interleave(7, 1).sort(1).values
    torch.testing.assert_close(squared, (px - py).square().mean(1))
    assert sliced_wasserstein(x, y).value == pytest.approx(sliced_wasserstein(y, x).value)


@pytest.mark.parametrize(("n", "m"), [(6, 4), (5, 5), (3, 7)])
def test_potentials_are_the_derivative_with_respect_to_the_weights(n, m):
    """One more copy of a point raises W₂² by its weight times (its potential − the mean)."""
    normal, copies = sampler(), 4000
    x, y, theta = normal(n, 1), normal(m, 1), torch.ones(1, 1, dtype=torch.float64)
    _, potential, _ = _transport(x, y, theta)
    for i in range(n):
        heavier = torch.cat([x.repeat(copies, 1), x[[i]]])
        lighter = torch.cat([x.repeat(copies, 1)[np.arange(n * copies) != i]])
        gain = _transport(heavier, y, theta)[0] - _transport(lighter, y, theta)[0]
        # Central difference of step 1/(n copies): error of the second order, and at kinks
        # (levels that coincide) the mean of the two one-sided slopes.
        assert float(gain) * n * copies / 2 == pytest.approx(float(potential[i]), abs=2e-3)


def test_std_error_is_the_spread_at_equality():
    normal = sampler()
    results = [
        sliced_wasserstein(normal(150, 3), normal(200, 3), projections=30) for _ in range(100)
    ]
    spread = np.std([r.value for r in results], ddof=1)
    # The scatter between directions, common to all repetitions here, adds a tenth; a spread of
    # 100 is known to 7 %. The variance of first order alone would give 1.4 to 1.5.
    assert 0.85 < np.median([r.std_error for r in results]) / spread < 1.3


def test_std_error_covers_the_directions():
    """The two samples are narrow and far apart, so that only the directions are random."""
    normal = sampler()
    x, y = 1e-6 * normal(6, 12) + torch.arange(12.0, dtype=torch.float64), 1e-6 * normal(5, 12)
    # groups of 12 orthonormal directions measure a shift without error
    assert sliced_wasserstein(x, y, projections=40).std_error < 1e-6
    parts = [sliced_wasserstein(x, y, projections=16, seed=seed) for seed in range(300)]
    spread = np.std([r.value for r in parts], ddof=1)
    # an error from the difference of two groups; 300 of them are known to 7 %, their spread to 4 %
    assert np.mean([r.std_error**2 for r in parts]) ** 0.5 == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("shift", [1e6, 1.7e9])
def test_a_common_shift_takes_no_digits(shift):
    normal = sampler()
    x, y = normal(50, 3), normal(40, 3) + 0.3
    near, far = sliced_wasserstein(x, y), sliced_wasserstein(x + shift, y + shift)
    # the data themselves are rounded by 2e-7 at 1.7e9
    assert far.value == pytest.approx(near.value, rel=1e-6)
    assert far.std_error == pytest.approx(near.std_error, rel=1e-5)


def test_equal_samples_have_distance_zero():
    x = sampler()(20, 3)
    result = sliced_wasserstein(x, x[torch.randperm(20, generator=torch.Generator())])
    assert result.value < 1e-12
    assert sliced_wasserstein(torch.ones(4, 2), torch.ones(6, 2)).std_error == 0
