"""Exact trace and Hutchinson's estimate against full Jacobians, Hadamard probes, closed forms."""

import math

import pytest
import torch
from scipy.linalg import hadamard
from torch import nn
from torch.autograd.functional import jacobian

from scoresde.likelihood.trace import ExactTrace, Hutchinson, exact_trace, hutchinson_trace
from scoresde.nets import UNet
from scoresde.noise import SampleNoise
from scoresde.score import NFE

DOUBLE = torch.float64
# ∫ J dt of the Gaussian with covariance [[1, .6], [.6, .5]] under VP from 1e-5 (matrix logarithm).
J_GAUSS = torch.tensor(
    [[0.2377714144756795, -0.6089981290677581], [-0.6089981290677581, 0.7452698553654779]],
    dtype=DOUBLE,
)


def mlp():
    return nn.Sequential(
        nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 8)
    )


def conv_net():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 2, 3, padding=1)
    )


class Attending(nn.Module):
    """Our U-Net with attention: the fused kernel's backward has no rule for `vmap`."""

    def __init__(self):
        super().__init__()
        self.net = UNet((1, 4, 4), channels=8, multipliers=(1,), blocks=1, attention=(4,))
        for p in self.parameters():
            nn.init.normal_(p, std=0.2)  # its last layers start at zero

    def forward(self, x):
        return self.net(x, torch.zeros(len(x), dtype=x.dtype))


NETS = {"mlp": (mlp, (8,)), "conv": (conv_net, (2, 4, 4)), "attention": (Attending, (1, 4, 4))}


@pytest.fixture(params=NETS)
def net_and_x(request):
    make, shape = NETS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double(), torch.randn(3, *shape, dtype=DOUBLE)


def trace_of_jacobian(function, x):
    dims = x[0].numel()
    rows = [jacobian(lambda p: function(p[None])[0], point).reshape(dims, dims) for point in x]
    return torch.stack([row.trace() for row in rows])


def field_of(net):
    return lambda x, t: net(x) * t


class TestExact:
    def test_three_ways_agree(self, net_and_x):
        """T6h: D products = mean over the rows of a Hadamard matrix = trace of the Jacobian."""
        net, x = net_and_x
        dims = x[0].numel()
        value, exact = exact_trace(field_of(net), x, 0.5)
        rows = torch.tensor(hadamard(dims), dtype=DOUBLE).reshape(dims, 1, *x.shape[1:])
        _, forms = hutchinson_trace(field_of(net), x, 0.5, rows.expand(dims, *x.shape))

        trace = trace_of_jacobian(lambda x: 0.5 * net(x), x)
        # rounding of O(dims) products of O(1)
        torch.testing.assert_close(exact[:, 0], trace, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(forms.mean(1), trace, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(value, 0.5 * net(x), rtol=1e-12, atol=1e-12)

    def test_weights_get_no_gradient_and_x_stays_as_it_was(self, net_and_x):
        net, x = net_and_x
        before = x.clone()
        value, trace = exact_trace(field_of(net), x, 1.0)
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
        assert not x.requires_grad
        assert torch.equal(x, before)
        assert not value.requires_grad
        assert not trace.requires_grad

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_works_where_gradients_are_off(self, mode):
        with mode():
            x = torch.ones(2, 3, dtype=DOUBLE)
            _, trace = exact_trace(lambda x, t: t * x**2, x, 0.5)
        assert trace.flatten().tolist() == [3.0, 3.0]

    def test_derivative_passes_are_counted(self):
        count, x = NFE(), torch.ones(2, 3)
        exact_trace(lambda x, t: x, x, 1.0, count)
        hutchinson_trace(lambda x, t: x, x, 1.0, torch.ones(5, 2, 3), count)
        assert count.derivative == 3 + 5
        assert count.forward == 0  # the model counts those

    @pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 3, 1, 2)])
    def test_any_shape(self, shape):
        x = torch.full(shape, 2.0)
        _, trace = exact_trace(lambda x, t: x**2, x, 1.0)
        assert trace.dtype == DOUBLE
        assert trace.tolist() == [[4.0 * math.prod(shape[1:])]] * shape[0]

    def test_a_detached_field_has_no_trace(self):
        with pytest.raises(RuntimeError, match="not differentiable in x"):
            exact_trace(lambda x, t: x.detach(), torch.ones(2, 3), 0.5)

    def test_a_derivative_that_is_not_finite_is_named(self):
        with pytest.raises(
            RuntimeError, match=r"derivative .* at t=0.25: 3 non-finite values of 6"
        ):
            exact_trace(lambda x, t: x.sqrt(), torch.tensor([[0.0] * 3, [1.0] * 3]), 0.25)


class TestHutchinson:
    def test_rademacher_probes_of_a_correlated_gaussian_take_two_values(self):
        """D4: tr J ± 2 J_12."""
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=DOUBLE)] * 2)[:, None]
        x = torch.zeros(1, 2, dtype=DOUBLE)
        _, forms = hutchinson_trace(lambda x, t: x @ J_GAUSS, x, 1.0, signs)
        expected = [-0.234954988294, 2.201037527977, 2.201037527977, -0.234954988294]
        torch.testing.assert_close(
            forms[0].sort().values, torch.tensor(expected, dtype=DOUBLE).sort().values
        )

    @pytest.mark.parametrize(
        ("probe", "spread"), [("rademacher", 1.217996258), ("gaussian", 1.645429941)]
    )
    def test_mean_and_spread_of_random_probes(self, probe, spread):
        n = 4096
        x = torch.zeros(n, 2, dtype=DOUBLE)
        v = Hutchinson(probe).draw(SampleNoise(0, range(n)), x)
        _, forms = hutchinson_trace(lambda x, t: x @ J_GAUSS, x, 1.0, v)
        assert abs(float(forms.mean()) - 0.983041269841) < 4 * spread / n**0.5
        # a standard deviation from 4096 draws is known to 1 to 3 %
        assert float(forms.std()) == pytest.approx(spread, rel=0.1)

    def test_rademacher_probes_are_signs(self):
        v = Hutchinson("rademacher", 2).draw(SampleNoise(3, range(50)), torch.zeros(50, 4))
        assert v.shape == (2, 50, 4)
        assert set(v.unique().tolist()) == {-1.0, 1.0}

    def test_a_probe_depends_on_seed_and_sample_alone(self):
        x = torch.zeros(4, 3, dtype=DOUBLE)
        four = Hutchinson("gaussian", 3).draw(SampleNoise(7, range(4)), x)
        one = Hutchinson("gaussian", 2).draw(SampleNoise(7, [2]), x[:1])
        assert torch.equal(four[:2, 2:3], one)
        assert not torch.equal(four[0], four[1])

    def test_a_probe_is_not_a_function_of_the_dequantization(self):
        """With one stream for both, sign(probe) would be sign(u − ½): a biased trace."""
        x = torch.zeros(500, 1, dtype=DOUBLE)
        z = SampleNoise(0, range(500)).fresh(x, 0.0)
        v = Hutchinson("gaussian").draw(SampleNoise(0, range(500)), x)[0]
        correlation = float((z * v).mean())
        assert abs(correlation) < 4 / 500**0.5

    def test_standard_error(self):
        estimates = torch.tensor([[1.0, 3.0], [2.0, 2.0]], dtype=DOUBLE)
        assert Hutchinson(probes=2).std_error(estimates).tolist() == [1.0, 0.0]
        assert torch.isnan(Hutchinson(probes=1).std_error(estimates[:, :1])).all()
        assert ExactTrace().std_error(estimates[:, :1]).tolist() == [0.0, 0.0]

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"probe": "uniform"}, ValueError, "probe must be rademacher or gaussian"),
            ({"probes": 0}, ValueError, "probes must be at least 1, got 0"),
            ({"probes": 1.5}, TypeError, "probes must be an integer"),
        ],
    )
    def test_bad_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            Hutchinson(**arguments)

    def test_needs_randomness(self):
        with pytest.raises(ValueError, match="give seed or noise"):
            Hutchinson().bind(torch.zeros(1, 1), None, NFE())
