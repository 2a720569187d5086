import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from scoresde.metrics import CubicKernel, GaussianKernel, KernelReference, mmd, mmd2


def sampler(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_value_is_the_average_over_all_pairs():
    normal = sampler()
    x, y = normal(5, 3).tolist(), normal(4, 3).tolist()

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 3 + 1) ** 3

    own_x = np.mean([k(a, b) for a, b in itertools.permutations(x, 2)])
    own_y = np.mean([k(a, b) for a, b in itertools.permutations(y, 2)])
    cross = np.mean([k(a, b) for a in x for b in y])
    value = mmd2(torch.tensor(x), torch.tensor(y)).value
    assert value == pytest.approx(own_x + own_y - 2 * cross, rel=1e-6)  # x, y rounded to float32


def test_gaussian_kernel_is_the_formula():
    normal = sampler()
    x, y = normal(3, 2), normal(4, 2)
    expected = [[math.exp(-float((a - b).square().sum()) / (2 * 0.7**2)) for b in y] for a in x]
    torch.testing.assert_close(
        GaussianKernel(0.7)(x, y), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("shift", [0.0, 0.6])
@pytest.mark.by_default("0.6")
def test_mean_is_the_closed_form_and_std_error_the_spread(shift):
    """Gaussian kernel, N(0, I) against N(δ, I) in d dimensions, |δ|² = d·shift²:
    MMD² = 2 (ℓ²/(ℓ² + 2))^{d/2} (1 − exp(−|δ|²/(2(ℓ² + 2)))).
    """
    normal, d, ell, repetitions = sampler(), 3, 1.5, 400
    results = [
        mmd2(normal(40, d) + shift, normal(70, d), GaussianKernel(ell)) for _ in range(repetitions)
    ]
    values = np.array([r.value for r in results])
    exact = 2 * (ell**2 / (ell**2 + 2)) ** (d / 2)
    exact *= -math.expm1(-d * shift**2 / (2 * (ell**2 + 2)))
    spread = values.std(ddof=1)
    assert abs(values.mean() - exact) < 4 * spread / math.sqrt(repetitions)
    # The median error is within 16% of the spread, which itself is known to 4%.
    assert np.median([r.std_error for r in results]) == pytest.approx(spread, rel=0.16)
    # The root mean square is at most 1.2 times too large at equality, where the variance of first
    # order is 0 and its estimate half counted if negative.
    assert 0.9 < np.mean([r.std_error**2 for r in results]) ** 0.5 / spread < 1.25


@pytest.mark.slow
def test_cubic_kernel_is_unbiased_at_equality():
    normal, repetitions = sampler(1), 400
    results = [mmd2(normal(30, 4), normal(50, 4)) for _ in range(repetitions)]
    values = np.array([r.value for r in results])
    assert abs(values.mean()) < 4 * values.std(ddof=1) / math.sqrt(repetitions)
    assert np.median([r.std_error for r in results]) == pytest.approx(values.std(), rel=0.2)


def test_variance_estimate_is_unbiased_against_exact_enumeration():
    """All samples of a three-point law are enumerated: no Monte Carlo on either side."""
    points = torch.tensor([[0.0], [1.0], [2.5]], dtype=torch.float64)
    n, m, p, q = 4, 4, (0.5, 0.3, 0.2), (0.2, 0.2, 0.6)
    gram = CubicKernel()(points, points)

    def law(weights, size):
        for counts in itertools.product(range(size + 1), repeat=3):
            if sum(counts) == size:
                ways = math.factorial(size) / math.prod(map(math.factorial, counts))
                weight = ways * math.prod(w**c for w, c in zip(weights, counts, strict=True))
                yield weight, [i for i, c in enumerate(counts) for _ in range(c)]

    mean = square = estimated = 0.0
    for (wx, ix), (wy, iy) in itertools.product(law(p, n), law(q, m)):
        table = torch.tensor(ix + iy)
        value = _u_statistic(gram[table][:, table], n)
        mean, square = mean + wx * wy * value, square + wx * wy * value**2
        estimated += wx * wy * _unclipped_variance(points[ix], points[iy])
    assert estimated == pytest.approx(square - mean**2, rel=1e-10)


def _u_statistic(gram: torch.Tensor, n: int) -> float:
    off = gram - torch.diag(gram.diagonal())
    m = len(gram) - n
    xx, yy = off[:n, :n].sum() / (n * (n - 1)), off[n:, n:].sum() / (m * (m - 1))
    return float(xx + yy - 2 * gram[:n, n:].mean())


def _unclipped_variance(x: torch.Tensor, y: torch.Tensor) -> float:
    kernel = CubicKernel()
    sums = mmd._sums(kernel, x), mmd._sums(kernel, y), mmd._sums(kernel, x, y)
    plain, excess = mmd._variance(*sums, mmd._influence(*sums))
    return plain - excess


class TestFarFromTheOrigin:
    """A common shift loses no digits: 1.7e9 as of times in seconds, 1e6 as of wave numbers."""

    @pytest.mark.parametrize("shift", [1e6, 1e8, 1.7e9])
    @pytest.mark.parametrize("sizes", [(40, 30), (200, 200)])
    def test_a_kernel_of_differences_does_not_see_it(self, shift, sizes):
        """The data themselves are rounded by 2e-7 at 1.7e9."""
        normal = sampler()
        x, y = normal(sizes[0], 3), normal(sizes[1], 3) + 0.3
        near, far = mmd2(x, y, GaussianKernel(1.5)), mmd2(x + shift, y + shift, GaussianKernel(1.5))
        assert far.value == pytest.approx(near.value, rel=1e-5)
        assert far.std_error == pytest.approx(near.std_error, rel=1e-5)

    def test_far_apart_groups(self):
        """Half of the points lie 1e8 away. No common origin helps, so distances must be exact."""
        normal = sampler()
        x, y = normal(200, 3), normal(160, 3) + 0.3
        both = [torch.cat([rows, rows + 1e8]) for rows in (x, y)]
        kernel = GaussianKernel(1.5)
        gram = kernel(both[0], both[1])
        expected = kernel(x, y)
        torch.testing.assert_close(gram[:200, :160], expected, rtol=1e-7, atol=1e-12)
        torch.testing.assert_close(gram[200:, 160:], expected, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("shift", [0.0, 10.0, 1e6, 1.7e9])
    def test_the_cubic_kernel_in_rational_numbers(self, shift):
        normal = sampler()
        x, y = normal(6, 3) + shift, normal(5, 3) + shift + 0.3
        first, second = ([[Fraction(v) for v in row] for row in rows.tolist()] for rows in (x, y))

        def k(a, b):
            return (sum(p * q for p, q in zip(a, b, strict=True)) / 3 + 1) ** 3

        own = [
            sum(k(a, b) for a, b in itertools.permutations(rows, 2)) / (len(rows) * (len(rows) - 1))
            for rows in (first, second)
        ]
        cross = sum(k(a, b) for a in first for b in second) / 30
        assert mmd2(x, y).value == pytest.approx(float(sum(own) - 2 * cross), rel=1e-12)

    def test_around_an_origin_only_terms_of_one_point_are_gone(self):
        normal = sampler()
        x, y, c = normal(7, 4), normal(5, 4), normal(4)
        for kernel in (CubicKernel(), GaussianKernel(1.5)):
            gap = kernel(x, y) - kernel.around(c, x - c, y - c)
            # f(x) + g(y): nothing is left when both marginal means are taken away
            left = gap - gap.mean(0) - gap.mean(1, keepdim=True) + gap.mean()
            torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-12)

    def test_float32_features(self):
        normal = sampler()
        x, y = (normal(100, 3) + 1e3).float(), (normal(100, 3) + 1e3).float()
        for kernel in (GaussianKernel(1.5), CubicKernel()):
            assert mmd2(x, y, kernel).value == mmd2(x.double(), y.double(), kernel).value


def test_chunks_do_not_change_the_result(monkeypatch):
    normal = sampler()
    x, y = normal(23, 3), normal(17, 3) + 1
    whole = mmd2(x, y)
    monkeypatch.setattr(mmd, "_KERNEL_VALUES", 40)
    chunked = mmd2(x, y)
    assert chunked.value == pytest.approx(whole.value, rel=1e-12)
    assert chunked.std_error == pytest.approx(whole.std_error, rel=1e-10)


def test_a_reference_summed_once_gives_the_same_estimate():
    normal = sampler()
    x, y = normal(9, 3), normal(7, 3) + 1
    for kernel in (None, GaussianKernel(1.5)):
        once, plain = mmd2(x, KernelReference.of(y, kernel)), mmd2(x, y, kernel)
        assert once == plain
        assert all(map(torch.equal, once.influence, plain.influence))
    with pytest.raises(ValueError, match="kernel must be None, because the reference has a kernel"):
        mmd2(x, KernelReference.of(y), CubicKernel())


def test_small_samples_have_no_std_error():
    normal = sampler()
    assert math.isnan(mmd2(normal(3, 2), normal(9, 2)).std_error)
    assert mmd2(normal(4, 2), normal(4, 2)).std_error > 0


def test_median_bandwidth_comes_from_the_reference_alone():
    reference = torch.tensor([0.0, 1.0, 3.0, 3.5])  # distances 1, 3, 3.5, 2, 2.5, 0.5
    assert GaussianKernel.median(reference).bandwidth == 2.0
    large = sampler()(3000, 2)
    assert GaussianKernel.median(large) == GaussianKernel.median(large)
    # |x − x'|² is 2 χ²₂ = Exp of mean 4, median 4 log 2; 1,000 rows: spread below 2%.
    assert GaussianKernel.median(large).bandwidth == pytest.approx(
        math.sqrt(4 * math.log(2)), rel=0.05
    )


def test_median_bandwidth_of_coinciding_points_is_refused():
    with pytest.raises(ValueError, match="positive median distance"):
        GaussianKernel.median(torch.zeros(5, 2))
