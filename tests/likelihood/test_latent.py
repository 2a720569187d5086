"""Latent codes: decoding against closed forms, round trips, and paths between data."""

import math

import numpy as np
import pytest
import torch
from calls import solve
from scipy.spatial.transform import Rotation

from scoresde.likelihood import decode, encode, interpolate, round_trip, spherical_interpolation
from scoresde.samplers import ProbabilityFlowODE, sample
from scoresde.score import FunctionScore, ScoreModel, count_nfe
from scoresde.sde import VE, VP, SubVP, TabulatedVP

DOUBLE = torch.float64
LOOSE = {"rtol": 1e-3, "atol": 1e-3}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def gaussian_decoding(sde, z, mean=0.3, variance=0.25, t_min=1e-5):
    """The affine flow of N(mean, variance): z's standard score at t = 1, kept down to t_min."""
    low, high = sde.nodes(torch.tensor([t_min, 1.0], dtype=DOUBLE))
    std_low, std_high = (math.sqrt(n.alpha**2 * variance + n.sigma**2) for n in (low, high))
    return low.alpha * mean + std_low / std_high * (z - high.alpha * mean)


class Labelled(ScoreModel):
    """N(y, 0.5²) for label y."""

    def eps(self, x, t):
        node = self.sde.at(t, x)
        mean = self.y.reshape(-1, 1).to(x)
        self.nfe.add_forward(node.t)
        return node.sigma * (x - node.alpha * mean) / (0.25 * node.alpha**2 + node.sigma**2)


class TestDecode:
    @pytest.mark.parametrize("per_sample", [False, True])
    @pytest.mark.by_default("VE", "Linear")
    def test_flow_of_a_gaussian(self, sde, gaussian, per_sample):
        z = sde.prior_std * normal(5, 2, 3)
        # the joints of TabulatedVP's cubics need smaller steps
        tolerance = 1e-7 if isinstance(sde, TabulatedVP) else 1e-6
        settings = {"rtol": tolerance, "atol": tolerance, "per_sample": per_sample}
        out = solve(decode, gaussian(sde, 2, 3), z, **settings)
        # each of some 50 steps fulfils the tolerance
        torch.testing.assert_close(out.x, gaussian_decoding(sde, z), rtol=0, atol=1e-5)

    def test_is_the_samplers_ode(self, mixture):
        """Another control of the steps, in the state's own dtype: the same flow."""
        model, z = mixture(VP()), normal(20, 2)
        ts = torch.tensor([1.0, 1e-3], dtype=DOUBLE)
        drawn = sample(
            model,
            ProbabilityFlowODE("dopri5", 1e-9, 1e-9),
            ts,
            z.shape,
            x_init=z,
            seed=0,
            dtype=DOUBLE,
            denoise=False,
        )
        out = solve(decode, model, z, t_min=1e-3, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out.x, drawn.x, rtol=0, atol=1e-6)

    def test_labels_follow_the_chunks(self):
        z, y = torch.zeros(5, 1, dtype=DOUBLE), torch.tensor([0, 1, 2, 1, 0])
        expected = [gaussian_decoding(VP(), 0.0, mean=float(c)) for c in y]
        for settings in ({}, {"batch": 2}, {"batch": 2, "per_sample": True}):
            out = solve(decode, Labelled(VP()), z, y=y, **settings)
            assert out.x[:, 0].tolist() == pytest.approx(expected, abs=2e-5)

    def test_a_sample_alone_is_the_same(self, mixture):
        """Each sample has its own steps: its batch mates do not matter."""
        z = normal(6, 2)
        whole = solve(decode, mixture(VP()), z, per_sample=True, **LOOSE)
        for i in range(6):
            alone = solve(decode, mixture(VP()), z[i : i + 1], per_sample=True, **LOOSE)
            torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-10, atol=1e-10)
            assert int(alone.counts.evaluations[0]) == int(whole.counts.evaluations[i])

    def test_cost_is_counted_at_the_call(self, mixture):
        model = mixture(VP())
        with count_nfe(model) as counted:
            out = solve(decode, model, normal(4, 2))
        assert out.nfe == counted.forward
        assert counted.derivative == 0
        assert (out.t_min, out.method.rtol) == (1e-5, 1e-6)

    def test_dtype_shape_and_input_are_kept(self, gaussian):
        z = normal(2, 1, 4, 4).float()
        before = z.clone()
        out = solve(decode, gaussian(VP(), 1, 4, 4), z, **LOOSE)
        assert (out.x.dtype, out.x.shape) == (torch.float32, z.shape)
        assert torch.equal(z, before)

    def test_empty_batch(self, gaussian):
        out = solve(decode, gaussian(VP(), 3), torch.empty(0, 3))
        assert (out.x.shape, out.nfe) == ((0, 3), 0)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"z": torch.zeros(2, 2).half()}, TypeError, "float32 or float64"),
            ({"z": torch.tensor([[math.nan, 0.0]])}, ValueError, "1 non-finite values of 2"),
            ({"t_min": 0}, ValueError, "t_min must be greater than 0 for VP"),
            ({"rtol": 1e-12}, ValueError, "at least 1e-07 in float32"),
            ({"method": "euler"}, ValueError, "method must be one of"),
            ({"batch": 0}, ValueError, "batch must be at least 1"),
            (
                {"y": torch.zeros(3)},
                ValueError,
                "y must be None: GaussianMixture takes no condition",
            ),
        ],
    )
    def test_bad_arguments(self, gaussian, change, error, message):
        arguments = {"z": torch.zeros(2, 2), **change}
        with pytest.raises(error, match=message):
            solve(decode, gaussian(VP(), 2), arguments.pop("z"), **arguments)

    def test_failures_name_the_time(self, mixture):
        model = mixture(VP())

        def broken(x, t):
            return model.eps(x, t) * (math.nan if float(t) < 0.3 else 1.0)

        with pytest.raises(RuntimeError, match=r"network output at t=0\.[012]\d*"):
            solve(decode, FunctionScore(VP(), broken), torch.ones(2, 2), **LOOSE)
        with pytest.raises(RuntimeError, match="limit of 20 network evaluations"):
            solve(decode, mixture(VP()), normal(4, 2), max_nfe=20)


class TestRoundTrip:
    """The error is of the size of the tolerance."""

    # measured at most 1e-4, 1e-5 and 2e-7
    @pytest.mark.parametrize(
        ("kind", "tolerance", "bound"),
        [
            (VP, 1e-5, 1e-2),
            (VP, 1e-8, 1e-4),
            *((kind, 1e-6, 2e-3) for kind in (VP, SubVP, VE)),
            *(
                pytest.param(kind, *case, marks=pytest.mark.slow)
                for kind in (SubVP, VE)
                for case in ((1e-5, 1e-2), (1e-8, 1e-4))
            ),
        ],
    )
    @pytest.mark.by_default("VE", "VP-1e-05-0.01")
    def test_error(self, mixture, kind, tolerance, bound):
        model = mixture(kind())
        x = model.sample(64, seed=0)
        out = solve(round_trip, model, x, rtol=tolerance, atol=tolerance)
        assert float(out.error.max()) < bound

    def test_what_is_returned(self, mixture):
        model, x = mixture(VP()), normal(5, 2)
        out = solve(round_trip, model, x, **LOOSE)
        assert out.nfe == model.nfe.forward
        assert torch.equal(out.x, x)
        assert torch.equal(out.latent, solve(encode, model, x, **LOOSE).latent)
        assert torch.equal(out.decoded, solve(decode, model, out.latent, **LOOSE).x)
        for i in range(5):
            apart = (x[i] - out.decoded[i]).abs().tolist()
            assert float(out.error[i]) == max(apart)
            assert float(out.rms[i]) == pytest.approx(math.hypot(*apart) / math.sqrt(2), rel=1e-12)

    def test_images_in_float32(self, gaussian):
        x = normal(3, 1, 4, 4).float()
        out = solve(round_trip, gaussian(VP(), 1, 4, 4), x, batch=2)
        assert out.error.shape == out.rms.shape == (3,)
        assert out.decoded.dtype == torch.float32
        # the network's rounding, 6e-8 of it, and the tolerance
        assert float(out.error.max()) < 2e-5

    def test_empty_batch(self, gaussian):
        assert solve(round_trip, gaussian(VP(), 3), torch.empty(0, 3)).error.shape == (0,)


class TestSphericalInterpolation:
    def test_is_a_rotation_in_space(self):
        """Of unit vectors: the rotation by s θ about a × b, as scipy has it."""
        a, b = (normal(3, seed=s) for s in (0, 1))
        a, b = a / a.norm(), b / b.norm()
        fractions = torch.linspace(0, 1, 5, dtype=DOUBLE)
        path = spherical_interpolation(a[None], b[None], fractions)[0]
        axis = np.cross(a, b)
        axis *= np.arccos(float(a @ b)) / np.linalg.norm(axis)
        for s, point in zip(fractions.tolist(), path, strict=True):
            turned = Rotation.from_rotvec(s * axis).apply(a.numpy())
            np.testing.assert_allclose(point.numpy(), turned, atol=1e-14)

    def test_norm_is_linear(self):
        a, b = 2 * normal(4, 2, 5), 7 * normal(4, 2, 5, seed=1)
        fractions = torch.tensor([0.25, 0.5], dtype=DOUBLE)
        path = spherical_interpolation(a, b, fractions)
        assert path.shape == (4, 2, 2, 5)
        ends = [v.flatten(1).norm(dim=1) for v in (a, b)]
        for k, s in enumerate(fractions.tolist()):
            wanted = (1 - s) * ends[0] + s * ends[1]
            torch.testing.assert_close(
                path[:, k].flatten(1).norm(dim=1), wanted, rtol=1e-13, atol=0
            )

    @pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
    def test_ends_are_met_to_the_last_bit(self, dtype):
        a, b = normal(50, 7).to(dtype), 3 * normal(50, 7, seed=1).to(dtype)
        path = spherical_interpolation(a, b, torch.tensor([0.0, 1.0], dtype=DOUBLE))
        assert torch.equal(path[:, 0], a)
        assert torch.equal(path[:, 1], b)
        assert path.dtype == dtype

    @pytest.mark.parametrize("angle", [1e-3, 1e-5, 1e-6, 1e-7, 1e-12, 0.0])
    def test_nearly_parallel(self, angle):
        """Norm and direction turn linearly; either formula is that, to the angle's square."""
        a = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
        b = 2 * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=DOUBLE)
        s = 0.3
        (point,) = spherical_interpolation(a, b, torch.tensor([s], dtype=DOUBLE))[0].tolist()
        wanted = [1.3 * math.cos(s * angle), 1.3 * math.sin(s * angle)]
        # the straight line, below 1e-6, has its direction weighted by the norms
        slack = 1e-14 if angle > 1e-6 else angle
        assert point == pytest.approx(wanted, abs=1e-14 + slack)

    def test_opposite_and_in_one_dimension_it_is_straight(self):
        a, b = torch.tensor([[1.0], [0.0]], dtype=DOUBLE), torch.tensor([[-3.0], [2.0]])
        path = spherical_interpolation(a, b.to(a), torch.tensor([0.25, 0.5], dtype=DOUBLE))
        assert path[:, :, 0].tolist() == [[0.0, -1.0], [0.5, 1.0]]
        assert spherical_interpolation(a[1:], a[1:], torch.tensor([0.5]).double()).item() == 0

    def test_codes_stay_typical(self):
        """In 3072 dimensions midpoints of N(0, I) keep its norm, 0.7 of it on a straight line."""
        a, b = normal(4, 3072), normal(4, 3072, seed=1)
        path = spherical_interpolation(a, b, torch.tensor([0.5], dtype=DOUBLE))
        size = path.square().mean(2).sqrt()
        assert (size - 1).abs().max() < 4 / math.sqrt(2 * 3072)  # four standard errors


class TestInterpolate:
    def test_paths_of_a_centred_gaussian(self, gaussian):
        """Its flow only scales, so that the path is spherical in the data as well."""
        model = FunctionScore(VP(), lambda x, t: x * scale(t))

        def scale(t):
            alpha, sigma = float(VP().alpha(t)), float(VP().sigma(t))
            return sigma / (0.25 * alpha**2 + sigma**2)

        a, b = 0.5 * normal(3, 4), 0.5 * normal(3, 4, seed=1)
        out = solve(interpolate, model, a, b, 5, rtol=1e-8, atol=1e-8)
        assert out.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
        wanted = spherical_interpolation(a, b, out.fractions)
        torch.testing.assert_close(out.x, wanted, rtol=0, atol=1e-6)

    @pytest.mark.slow
    def test_ends_are_the_data_and_the_error_says_how_nearly(self, mixture):
        model = mixture(VP())
        a, b = model.sample(4, seed=0), model.sample(4, seed=1)
        out = solve(interpolate, model, a, b, 3, batch=5)
        assert out.x.shape == out.latent.shape == (4, 3, 2)
        for i in range(4):
            apart = [(out.x[i, 0] - a[i]).abs().max(), (out.x[i, -1] - b[i]).abs().max()]
            assert out.error[i].tolist() == [float(value) for value in apart]
        assert float(out.error.max()) < 2e-3  # as of a round trip
        codes = encode(model, torch.cat([a, b]), batch=5).latent
        assert torch.equal(out.latent[:, 0], codes[:4])

    def test_labels_belong_to_a_whole_path(self):
        y = torch.tensor([0, 2])
        a, b = y[:, None] + normal(2, 1), y[:, None] + normal(2, 1, seed=1)
        out = solve(interpolate, Labelled(VP()), a, b, 4, y=y, batch=3)
        for i in range(2):
            one = slice(i, i + 1)
            alone = interpolate(Labelled(VP()), a[one], b[one], 4, y=y[one])
            torch.testing.assert_close(alone.x[0], out.x[i], rtol=0, atol=2e-5)

    def test_cost_is_that_of_both_ways(self, mixture):
        model = mixture(VP())
        with count_nfe(model) as counted:
            out = solve(interpolate, model, normal(2, 2), normal(2, 2, seed=1), 3, **LOOSE)
        assert out.nfe == counted.forward

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"steps": 1}, ValueError, "steps must be at least 2, got 1"),
            ({"steps": 2.5}, TypeError, "steps must be an integer"),
            ({"x_b": torch.zeros(1, 2)}, ValueError, r"x_b must have .* got \(1, 2\)"),
            ({"x_b": torch.zeros(2, 2).double()}, ValueError, "shape and dtype of x_a"),
        ],
    )
    def test_bad_arguments(self, gaussian, change, error, message):
        arguments = {"x_a": torch.zeros(2, 2), "x_b": torch.zeros(2, 2), "steps": 3, **change}
        model = gaussian(VP(), 2)
        with pytest.raises(error, match=message):
            solve(interpolate, model, *(arguments[name] for name in ("x_a", "x_b", "steps")))
        assert model.nfe.forward == 0
