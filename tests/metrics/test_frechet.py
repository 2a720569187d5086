import math

import numpy as np
import pytest
import torch

from scoresde.metrics import (
    GaussianStats,
    frechet,
    frechet_bias,
    frechet_distance,
    frechet_extrapolated,
)


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
    with pytest.raises(
        ValueError,
        match="positive semi-definite, got an eigenvalue of -1 beside a largest one of 3",
    ):
        frechet_distance(stats([0, 0], [[1, 2], [2, 1]]), A)
    with pytest.raises(ValueError, match="reference must hold at least 2 samples, got 1"):
        frechet_distance(A, GaussianStats.of(torch.zeros(1, 2)))


def test_std_error_covers_the_samples_given_as_features():
    normal = sampler()
    x, y = normal(400, 3), normal(300, 3) + 0.5
    both = frechet_distance(x, y).std_error
    one = frechet_distance(x, GaussianStats.of(y)).std_error
    other = frechet_distance(GaussianStats.of(x), y).std_error
    # but for the correction near equality, a few percent of the variance here, of both together
    assert both == pytest.approx(math.hypot(one, other), rel=0.02)
    assert both > 1.1 * max(one, other)
    assert math.isnan(frechet_distance(A, B).std_error)


def test_influence_of_a_row_on_a_singular_covariance():
    """Rows in a plane of 5 dimensions have the optimal map of the plane."""
    normal = sampler()
    flat, basis = normal(60, 2) * 2 + 1, torch.linalg.qr(normal(5, 2)).Q
    x, y = flat @ basis.T, normal(80, 2) @ basis.T
    inside = frechet_distance(flat, y @ basis)
    found = frechet_distance(x, y)
    assert found.value == pytest.approx(inside.value, rel=1e-9)
    assert found.std_error == pytest.approx(inside.std_error, rel=1e-7)


@pytest.mark.parametrize("d", [3, 12])
@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1.0, 0.3), (1.5, 0.5)], ids=["equal", "shift", "scale"]
)
@pytest.mark.by_default("equal-3", "scale-12")
def test_std_error_is_the_spread(d, scale, shift):
    normal = sampler()
    results = [frechet_distance(scale * normal(120, d) + shift, normal(200, d)) for _ in range(80)]
    spread = np.std([r.value for r in results], ddof=1)
    # A spread of 80 repetitions is known to 8 %; without the halved correction at equality the
    # error would be 1.4 times as large.
    assert np.mean([r.std_error**2 for r in results]) ** 0.5 == pytest.approx(spread, rel=0.27)


def test_variance_of_the_null_is_that_of_a_gaussian_sample():
    """To leading order in 1/n, for unequal eigenvalues."""
    normal, scales = sampler(), torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64)
    target = GaussianStats(torch.zeros(3, dtype=torch.float64), torch.diag(scales**2), 10**9)
    values = [
        frechet_distance(GaussianStats.of(normal(400, 3) * scales), target).value
        for _ in range(250)
    ]
    # a variance of 250 skewed values (a sum of a few χ²) is known to about 15 %
    expected = frechet._null_moments(target.cov / 400)[1]
    assert np.var(values, ddof=1) == pytest.approx(expected, rel=0.4)


def test_plain_time(monkeypatch):
    """The standard error costs less than ten distances, whatever the number of rows."""
    decompositions = []
    for name in ("eigh", "eigvalsh", "svd"):
        call = getattr(torch.linalg, name)
        monkeypatch.setattr(
            torch.linalg,
            name,
            lambda *a, _call=call, **k: decompositions.append(1) or _call(*a, **k),
        )
    frechet_distance(sampler()(500, 4), sampler(1)(400, 4))
    assert len(decompositions) <= 5


class TestSingle:
    """Statistics that were computed and kept in float32 give the distance to 1e-3."""

    @pytest.mark.parametrize(("n", "d"), [(50, 128), (150, 128), (128, 128), (5000, 64), (40, 3)])
    @pytest.mark.parametrize("kept", [torch.float32, torch.float64])
    def test_result(self, n, d, kept):
        normal = sampler()
        x, y = normal(n, d), 1.3 * normal(n, d) + 0.1
        right = frechet_distance(GaussianStats.of(x), GaussianStats.of(y)).value

        def single(rows):
            rows = rows.float()
            return GaussianStats(rows.mean(0).to(kept), torch.cov(rows.T).to(kept), len(rows))

        first, second = single(x), single(y)
        assert first.cov.dtype == first.mean.dtype == torch.float64
        assert torch.equal(first.cov, first.cov.T)
        assert frechet_distance(first, second).value == pytest.approx(right, rel=1e-3)
        assert 0 <= frechet_distance(first, first).value < 1e-3 * d

    def test_features_of_a_wide_range_of_variances(self):
        normal, scales = sampler(), torch.logspace(0, -3, 64, dtype=torch.float64)
        x, y = normal(50, 64) * scales, 1.3 * normal(50, 64) * scales
        right = frechet_distance(x, y).value
        both = [GaussianStats(r.float().mean(0), torch.cov(r.float().T), 50) for r in (x, y)]
        assert frechet_distance(*both).value == pytest.approx(right, rel=1e-3)

    @pytest.mark.parametrize("d", [2, 64, 512])
    def test_what_is_really_indefinite_is_refused(self, d):
        lam = torch.linspace(0.0, 1.0, d, dtype=torch.float64)
        lam[0] = -1e-3
        basis = torch.linalg.qr(sampler()(d, d)).Q
        bad = GaussianStats(torch.zeros(d), (basis * lam) @ basis.T, 100)
        good = GaussianStats(torch.zeros(d), torch.eye(d), 100)
        for pair in ((bad, good), (good, bad)):
            with pytest.raises(
                ValueError, match="positive semi-definite, got an eigenvalue of -0.0"
            ):
                frechet_distance(*pair)
        with pytest.raises(ValueError, match="positive semi-definite"):
            frechet_bias(-torch.eye(d), 10, 10)


@pytest.mark.parametrize("shift", [1e6, 1.7e9])
def test_a_common_shift_takes_no_digits(shift):
    normal = sampler()
    x, y = normal(500, 4), normal(300, 4) + 0.3
    near, far = frechet_distance(x, y), frechet_distance(x + shift, y + shift)
    # the data themselves are rounded by 2e-7 at 1.7e9
    assert far.value == pytest.approx(near.value, rel=1e-5)
    assert far.std_error == pytest.approx(near.std_error, rel=1e-5)


def test_order_of_the_rows_does_not_matter():
    normal = sampler()
    centres = 3 * normal(10, 4)
    noise, reference = normal(1000, 4), centres.repeat(100, 1) + normal(1000, 4)
    cyclic = centres.repeat(100, 1) + noise
    by_class = cyclic[torch.arange(1000).reshape(100, 10).T.reshape(-1)]
    target = GaussianStats.of(reference + 1)
    errors = [frechet_distance(x, target).std_error for x in (cyclic, by_class)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)


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


def test_statistics_are_taken_from_any_container():
    want = frechet_distance(A, B).value
    arrays = GaussianStats(A.mean.numpy(), A.cov.numpy(), np.int64(1000), "raw")
    lists = GaussianStats(A.mean.tolist(), A.cov.tolist(), torch.tensor(1000), "raw")
    for given in (arrays, lists):
        assert type(given.n) is int
        assert frechet_distance(given, B).value == want


@pytest.mark.parametrize("mean", [torch.ones(2) * 1j, "ab", [None, 1.0]])
def test_statistics_hold_real_numbers(mean):
    with pytest.raises(TypeError, match="mean must hold real numbers"):
        GaussianStats(mean, torch.eye(2), 10)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.by_default("False")
def test_the_extrapolated_distance_has_no_bias_in_1_over_n(known):
    """N(0, I) against N(δ, s² I): |δ|² + d (s − 1)². Without it the bias is eight errors."""
    normal, d, n, repetitions = sampler(), 6, 80, 80
    exact = GaussianStats(torch.zeros(d).double(), torch.eye(d).double(), 10**9)
    plain, found = [], []
    for _ in range(repetitions):
        x, y = 1.3 * normal(n, d) + 0.1, exact if known else normal(n, d)
        plain.append(frechet_distance(x, y).value)
        found.append(frechet_extrapolated(x, y).value)
    truth, error = d * 0.01 + d * 0.09, np.std(found) / repetitions**0.5
    assert abs(np.mean(found) - truth) < 4 * error
    assert np.mean(plain) - truth > 8 * error


def test_halves_with_too_few_rows_are_flagged():
    normal = sampler()
    found = frechet_extrapolated(normal(12, 8), normal(30, 8))
    assert found.note == "half of the rows: n = 6 <= d = 8: singular covariance"
