import math

import numpy as np
import pytest
import torch

from scoresde.metrics import GaussianStats, frechet_bias, frechet_distance


def sampler(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def stats(mean, cov, n=1000, space="raw") -> GaussianStats:
    return GaussianStats(
        torch.tensor(mean, dtype=torch.float64), torch.tensor(cov, dtype=torch.float64), n, space
    )


A = stats([1, 2], [[2, 0.5], [0.5, 1]])
B = stats([0.5, 2.5], [[1, -0.3], [-0.3, 0.8]])


def test_two_gaussians():
    # In two dimensions tr (AB)^½ = √(tr AB + 2 √det AB): computed independently.
    assert frechet_distance(A, B).value == pytest.approx(0.950586393105022, abs=1e-10)
    assert frechet_distance(B, A).value == pytest.approx(0.950586393105022, abs=1e-10)


def test_rank_deficient():
    first = stats([0, 0, 0], np.diag([1.0, 4.0, 9.0]))
    second = stats([0, 0, 0], np.diag([4.0, 1.0, 0.0]))
    # (1 − 2)² + (2 − 1)² + (3 − 0)²
    assert frechet_distance(first, second).value == pytest.approx(11, abs=1e-6)


@pytest.mark.parametrize("d", [1, 5, 40])
def test_commuting_covariances_of_any_rank(d):
    """Σ (√a_i − √b_i)² for covariances with common eigenvectors, half of them singular."""
    basis, _ = torch.linalg.qr(sampler()(d, d))
    a, b = torch.arange(d).double(), torch.arange(d).flip(0).double() * 2
    first = stats([0.0] * d, ((basis * a) @ basis.T).tolist())
    second = stats([0.0] * d, ((basis * b) @ basis.T).tolist())
    expected = float((a.sqrt() - b.sqrt()).square().sum())
    # One eigenvalue of each is 0 up to 1e-14, its root 1e-7.
    assert frechet_distance(first, second).value == pytest.approx(expected, abs=1e-6 * d)


@pytest.mark.parametrize(("n", "d"), [(200, 8), (20, 64), (2, 5)])
def test_distance_to_itself_is_zero_and_it_is_symmetric(n, d):
    normal = sampler()
    x, y = normal(n, d), 2 * normal(n + 3, d) + 1
    assert 0 <= frechet_distance(x, x).value < 1e-8 * d
    there, back = frechet_distance(x, y), frechet_distance(y, x)
    assert math.isfinite(there.value)
    assert there.value == pytest.approx(back.value, rel=1e-10)
    assert there.std_error == pytest.approx(back.std_error, rel=1e-8)


def test_few_samples_are_flagged():
    normal = sampler()
    assert "n = 20 <= d = 64" in frechet_distance(normal(20, 64), normal(100, 64)).note
    assert frechet_distance(normal(66, 64), normal(100, 64)).note == ""


def test_statistics_in_batches_equal_one_pass():
    x = 3 * sampler()(101, 6) + 1e3  # far from 0: naive sums of squares would cancel
    whole = GaussianStats.of(x)
    batched = GaussianStats.of(iter(x.split(20)))  # the last batch holds one row
    merged = (
        GaussianStats.of(x[:1]).merge(GaussianStats.of(x[1:60])).merge(GaussianStats.of(x[60:]))
    )
    for other in (batched, merged):
        assert other.n == 101
        torch.testing.assert_close(other.mean, whole.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(other.cov, whole.cov, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(whole.cov.numpy(), np.cov(x.numpy().T), rtol=1e-10, atol=1e-10)


def test_spaces_and_dimensions_must_agree():
    x = sampler()(9, 2)
    other = stats([0, 0], np.eye(2), space="digits_cnn@12345678")
    with pytest.raises(ValueError, match="same feature space, got raw and digits_cnn@12345678"):
        frechet_distance(x, other)
    with pytest.raises(ValueError, match="same feature space"):
        A.merge(other)
    assert frechet_distance(x, other, space=other.space).name == "fd_digits_cnn@12345678"
    with pytest.raises(ValueError, match="same dimension, got 3 and 2"):
        frechet_distance(sampler()(9, 3), A)


def test_malformed_statistics_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(d,\) and \(d, d\)"):
        stats([0, 0], np.eye(3))
    with pytest.raises(ValueError, match="cov must be symmetric"):
        stats([0, 0], [[1, 0.5], [0, 1]])
    with pytest.raises(ValueError, match="must be finite"):
        stats([0, math.inf], np.eye(2))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        stats([0, 0], np.eye(2), n=0)
    with pytest.raises(ValueError, match="cov must be positive semi-definite, got eigenvalue -1"):
        frechet_distance(stats([0, 0], [[1, 2], [2, 1]]), A)
    with pytest.raises(ValueError, match="reference must hold at least 2 samples, got 1"):
        frechet_distance(A, GaussianStats.of(torch.zeros(1, 2)))


def test_std_error_covers_the_samples_given_as_features():
    normal = sampler()
    x, y = normal(400, 3), normal(300, 3) + 0.5
    both = frechet_distance(x, y).std_error
    one = frechet_distance(x, GaussianStats.of(y)).std_error
    other = frechet_distance(GaussianStats.of(x), y).std_error
    assert both == pytest.approx(math.hypot(one, other), rel=1e-12)
    assert math.isnan(frechet_distance(A, B).std_error)


def test_jackknife_leaves_out_one_row_at_a_time():
    normal = sampler()
    x, target = 2 * normal(12, 3) + 5, GaussianStats.of(normal(50, 3))
    rest = [x[[j for j in range(12) if j != i]] for i in range(12)]
    values = torch.tensor([frechet_distance(r, target).value for r in rest])
    expected = math.sqrt(11 / 12 * float((values - values.mean()).square().sum()))
    assert frechet_distance(x, target, blocks=12).std_error == pytest.approx(expected, rel=1e-5)


def test_std_error_is_the_spread():
    normal = sampler()
    results = [frechet_distance(1.5 * normal(120, 3) + 0.5, normal(200, 3)) for _ in range(80)]
    spread = np.std([r.value for r in results], ddof=1)
    # 8% from 80 repetitions, a few percent from 20 blocks.
    assert np.median([r.std_error for r in results]) == pytest.approx(spread, rel=0.3)


def test_order_of_the_rows_does_not_move_the_std_error_much():
    """Rows sorted by class, or in a cycle of classes, are dealt to blocks all the same."""
    normal = sampler()
    centres = 3 * normal(10, 4)
    noise, reference = normal(1000, 4), centres.repeat(100, 1) + normal(1000, 4)
    cyclic = centres.repeat(100, 1) + noise
    by_class = cyclic[torch.arange(1000).reshape(100, 10).T.reshape(-1)]
    target = GaussianStats.of(reference + 1)
    errors = [frechet_distance(x, target).std_error for x in (cyclic, by_class)]
    # A jackknife of 20 blocks knows its error to 1/√38 = 16%; wrong blocks miss by a factor of 5.
    assert errors[0] == pytest.approx(errors[1], rel=0.6)


def test_bias_formula():
    eye = torch.eye(16, dtype=torch.float64)
    n, d = 2000, 16
    assert frechet_bias(eye, n, n) == pytest.approx(d * (d + 1) / (2 * n) + 2 * d / n, rel=1e-12)
    assert frechet_bias(eye, n, math.inf) == pytest.approx(d * (d + 1) / (4 * n) + d / n, rel=1e-12)
    with pytest.raises(ValueError, match="m must be at least 2, got 1"):
        frechet_bias(eye, n, 1)


def test_bias_of_unequal_variances():
    normal, scales = sampler(), torch.tensor([3.0, 1.0, 0.3, 0.0], dtype=torch.float64)
    values = [
        float(
            frechet_distance(
                GaussianStats.of(normal(300, 4) * scales), GaussianStats.of(normal(500, 4) * scales)
            ).value
        )
        for _ in range(300)
    ]
    expected = frechet_bias(torch.diag(scales.square()), 300, 500)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    # The next order in 1/n is below 1% of it.
    assert abs(np.mean(values) - expected) < 4 * error + 0.01 * expected


@pytest.mark.slow
def test_bias_in_64_dimensions():
    normal, d, n = sampler(), 64, 10_000
    values = [
        frechet_distance(GaussianStats.of(normal(n, d)), GaussianStats.of(normal(n, d))).value
        for _ in range(20)
    ]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    expected = d * (d + 1) / (2 * n) + 2 * d / n  # 0.2208 to leading order
    # The next order is a factor 1 + O(d/n); measured elsewhere: 0.2228 ± 0.0023.
    assert abs(np.mean(values) - expected) < 4 * error + expected * d / n
