"""Adams paths: exactness for polynomials, order, and interpolation between the points."""

import functools
import math

import pytest
import torch

from scoresde.ivp.adams import HermiteCurve, adams_path

DOUBLE = torch.float64
# of unequal steps, for which the weights are not the tables'
TIMES = [0.0, 0.3, 0.45, 1.0, 1.1, 1.5, 2.2]


def power(degree):
    """A rate t^degree and its integral, at the times of `TIMES`."""
    ts = torch.tensor(TIMES, dtype=DOUBLE)
    return (lambda y, i: torch.full_like(y, TIMES[i] ** degree)), ts ** (degree + 1) / (degree + 1)


class TestExactness:
    @pytest.mark.parametrize("order", [1, 2, 3, 4])
    @pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
    def test_of_polynomials(self, order, degree):
        """Step i uses min(i + 1, order) known slopes and a new one: exact up to this degree."""
        rate, integral = power(degree)
        path = adams_path(rate, torch.zeros(1, 1, dtype=DOUBLE), TIMES, order)
        error = (path.points.flatten().diff() - integral.diff()).abs()
        for i, value in enumerate(error.tolist()):
            exact = degree <= min(i + 1, order)
            # a solved Vandermonde system of five knots
            assert (value < 1e-12) == exact, (i, value)

    @pytest.mark.parametrize("order", [1, 2, 3])
    @pytest.mark.parametrize("degree", [0, 1, 2, 3])
    def test_of_the_prediction(self, order, degree):
        """The rate is evaluated at the predictor's point, which is exact for one degree less."""
        rate, integral = power(degree)
        asked = []
        path = adams_path(
            lambda y, i: (asked.append(y.clone()), rate(y, i))[1],
            torch.zeros(1, 1, dtype=DOUBLE),
            TIMES,
            order,
        )
        for i in range(len(TIMES) - 1):
            step = float(asked[i + 1] - path.points[i]) - float(integral[i + 1] - integral[i])
            assert (abs(step) < 1e-12) == (degree < min(i + 1, order)), (i, step)

    def test_one_evaluation_per_point_in_order(self):
        asked = []

        def rate(y, i):
            asked.append(i)
            return -y

        path = adams_path(rate, torch.ones(1, 1, dtype=DOUBLE), TIMES, 3)
        assert asked == list(range(len(TIMES)))
        assert path.points.shape == path.slopes.shape == (len(TIMES), 1, 1)
        assert path.ts.tolist() == TIMES

    def test_slopes_are_those_found_at_the_prediction(self):
        """Mode PEC: no evaluation is spent on the corrected point."""
        asked = []

        def rate(y, i):
            asked.append(-(y**2))
            return asked[-1]

        path = adams_path(rate, torch.ones(1, 2, dtype=DOUBLE), TIMES, 2)
        assert torch.equal(path.slopes, torch.stack(asked))


class TestConvergence:
    """Order k + 1 at the points, the corrector's order, if the first steps are shorter.

    The first step is a trapezoid with Euler's prediction and local error O(h³). So the order is at
    most 3 on a uniform grid, and not limited if steps grow from the start.
    """

    @staticmethod
    @functools.cache
    def end(steps, order, grading=1.0):
        ts = (torch.linspace(0, 1, steps + 1, dtype=DOUBLE) ** grading * 2).tolist()
        start = torch.tensor([[1.0, 0.5]], dtype=DOUBLE)

        def pendulum(y, i):
            return torch.stack([y[:, 1], -torch.sin(y[:, 0])], dim=1)

        return adams_path(pendulum, start, ts, order).points[-1]

    @pytest.mark.parametrize(
        ("order", "grading", "wanted"),
        # measured 1.99, 2.98, 2.97, 2.99 and 1.98, 2.97, 3.91, 4.85
        [(1, 1, 2), (2, 1, 3), (3, 1, 3), (4, 1, 3), (1, 2, 2), (2, 2, 3), (3, 2, 4), (4, 2, 5)],
    )
    def test_order_of_the_points(self, order, grading, wanted):
        exact = self.end(2048, 4, 2)
        errors = [float((self.end(n, order, grading) - exact).norm()) for n in (64, 256)]
        assert math.log2(errors[0] / errors[1]) / 2 == pytest.approx(wanted, abs=0.2)


def sine_path(steps):
    ts = torch.linspace(0, 2, steps + 1, dtype=DOUBLE)
    return HermiteCurve(ts, torch.sin(3 * ts)[:, None, None], 3 * torch.cos(3 * ts)[:, None, None])


class TestPath:
    def test_goes_through_its_points_with_its_slopes(self):
        generator = torch.Generator().manual_seed(0)
        points, slopes = torch.randn(2, 4, 5, 3, generator=generator, dtype=DOUBLE)
        path = HermiteCurve(torch.tensor([0.1, 0.2, 0.7, 1.5], dtype=DOUBLE), points, slopes)
        for i, t in enumerate(path.ts):
            place, slope = path.at(t.expand(5))
            torch.testing.assert_close(place, points[i], rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(slope, slopes[i], rtol=1e-13, atol=1e-13)
        assert torch.equal(path.at(path.ts[:1].expand(5))[0], points[0])  # the data, to the bit

    def test_is_smooth_at_its_points(self):
        """Position and slope are continuous where two cubics meet."""
        path = sine_path(4)
        for t in path.ts[1:-1]:
            below, above = (path.at(t.reshape(1) + gap) for gap in (-1e-9, 1e-9))
            for left, right in zip(below, above, strict=True):
                # curvature 10 times 2e-9
                torch.testing.assert_close(left, right, rtol=0, atol=1e-7)

    def test_slope_is_the_derivative(self):
        path = sine_path(4)
        t = torch.linspace(0.01, 1.99, 23, dtype=DOUBLE)
        for time in t:
            asked = time.reshape(1).requires_grad_()
            place, slope = path.at(asked)
            (derivative,) = torch.autograd.grad(place.sum(), asked)
            torch.testing.assert_close(derivative, slope.detach().flatten())

    def test_order_in_between(self):
        """O(h⁴) for positions, O(h³) for slopes."""
        t = torch.linspace(0.003, 1.997, 401, dtype=DOUBLE)
        exact = torch.sin(3 * t), 3 * torch.cos(3 * t)
        errors = []
        for steps in (16, 32):
            path = sine_path(steps)
            found = path.at(t[:1])[0].new_empty(2, len(t))
            for i, time in enumerate(t):
                found[0, i], found[1, i] = (v.squeeze() for v in path.at(time.reshape(1)))
            errors.append([float((found[k] - exact[k]).abs().max()) for k in range(2)])
        ratios = [math.log2(a / b) for a, b in zip(*errors, strict=True)]
        assert ratios == pytest.approx([4, 3], abs=0.2)

    def test_times_per_sample(self):
        generator = torch.Generator().manual_seed(1)
        points, slopes = torch.randn(2, 5, 4, 2, 3, generator=generator, dtype=DOUBLE)
        path = HermiteCurve(torch.linspace(0, 1, 5, dtype=DOUBLE), points, slopes)
        t = torch.tensor([0.9, 0.0, 1.0, 0.33], dtype=DOUBLE)
        together = path.at(t)
        for i in range(4):
            row = HermiteCurve(path.ts, points[:, i : i + 1], slopes[:, i : i + 1])
            for whole, single in zip(together, row.at(t[i : i + 1]), strict=True):
                assert torch.equal(whole[i], single[0])

    def test_a_column_of_a_matrix_as_times(self):
        t = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=DOUBLE)
        points = torch.zeros(3, 2, 1, dtype=DOUBLE)
        path = HermiteCurve(torch.linspace(0, 1, 3, dtype=DOUBLE), points, points)
        assert path.at(t[:, 1])[0].shape == (2, 1)


class TestContract:
    @pytest.mark.parametrize("shape", [(2, 1), (1, 3), (3, 2, 4, 5), (0, 2)])
    def test_any_shape_and_the_start_is_left_alone(self, shape):
        y = torch.ones(shape, dtype=DOUBLE)
        path = adams_path(lambda y, i: -y, y, TIMES, 3)
        assert torch.equal(y, torch.ones(shape, dtype=DOUBLE))
        assert torch.equal(path.points[0], y)
        place, slope = path.at(torch.full(shape[:1], 0.7, dtype=DOUBLE))
        assert place.shape == slope.shape == shape

    def test_nobody_depends_on_batch_mates(self):
        y = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)

        def path(rows):
            return adams_path(lambda y, i: torch.sin(y) - 0.1 * i, rows, TIMES, 3)

        together = path(y)
        for i in range(5):
            assert torch.equal(path(y[i : i + 1]).points[:, 0], together.points[:, i])
        order = [3, 0, 4, 1, 2]
        assert torch.equal(path(y[order]).points, together.points[:, order])
