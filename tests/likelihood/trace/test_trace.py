"""Every trace rule against full Jacobians, closed forms of its variance, and its exact cases."""

import math

import pytest
import torch
from scipy.linalg import hadamard
from torch import nn
from torch.autograd.functional import jacobian

from scoresde.evaluation import NFE
from scoresde.likelihood.trace.jacobian import KnownJacobian, linearize, quadratic_forms
from scoresde.likelihood.trace.probing import Probing, colouring
from scoresde.likelihood.trace.rules import ExactTrace, Hutchinson
from scoresde.likelihood.trace.sketch import HutchPP, XTrace
from scoresde.nets import UNet
from scoresde.noise import SampleNoise

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


def of(matrix, n=1):
    """n points of the field x ↦ J x, with J the same at all of them."""
    x = torch.zeros(n, len(matrix), dtype=DOUBLE)
    return linearize(lambda x: x @ matrix.T, x)


def estimate(rule, matrix, n, seed=0):
    """Independent estimates of one matrix, shape (n, columns)."""
    x = torch.zeros(n, len(matrix), dtype=DOUBLE)
    return rule.estimate(of(matrix, n), rule.draw(SampleNoise(seed, range(n)), x))


def random_matrix(dims, rank=None, seed=0):
    """Not symmetric; of full or a given rank."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, dims, rank or dims, generator=generator, dtype=DOUBLE)
    return left @ right.T


def by_rule(rules):
    return pytest.mark.parametrize("rule", rules, ids=repr)


class TestLinearize:
    def test_value_and_products(self, net_and_x):
        net, x = net_and_x
        before, v = x.clone(), torch.ones_like(x)
        jac = linearize(net, x)
        torch.testing.assert_close(jac.value, net(x), rtol=1e-12, atol=1e-12)
        direction = jacobian(lambda p: (net(p) * v).sum(), x)
        torch.testing.assert_close(jac.vjp(v), direction, rtol=1e-10, atol=1e-10)
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
        assert torch.equal(x, before)
        assert not any(tensor.requires_grad for tensor in (x, jac.value, jac.vjp(v)))

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_works_where_gradients_are_off(self, mode):
        with mode():
            x = torch.ones(2, 3, dtype=DOUBLE)
            jac = linearize(lambda x: 0.5 * x**2, x)
            rules = (ExactTrace(), Hutchinson(), Probing(2), HutchPP(9), XTrace(2))
            traces = [rule.estimate(jac, rule.draw(SampleNoise(0, range(2)), x)) for rule in rules]
        for trace in traces:
            torch.testing.assert_close(trace, torch.full_like(trace, 3.0))

    def test_a_detached_field_has_no_trace(self):
        with pytest.raises(RuntimeError, match="field at t=0.5 is not differentiable in x"):
            linearize(lambda x: x.detach(), torch.ones(2, 3), t=0.5)

    def test_a_derivative_that_is_not_finite_is_named(self):
        x = torch.tensor([[0.0] * 3, [1.0] * 3])
        jac = linearize(torch.sqrt, x, t=torch.tensor([0.25, 0.5]))
        with pytest.raises(RuntimeError, match=r"derivative .* at t=0.25..0.5: 3 non-finite .* 6"):
            jac.vjp(torch.ones(2, 3))

    @by_rule([ExactTrace(), Hutchinson("gaussian", 5), Probing(4, 2), HutchPP(9), XTrace(8)])
    def test_derivative_passes_are_counted(self, rule):
        count, x = NFE(), torch.ones(2, 7)
        jac = linearize(lambda x: x.sin(), x, count)
        probes = rule.draw(SampleNoise(0, range(2)), x)
        assert rule.estimate(jac, probes).shape == (2, rule.columns)
        assert count.derivative == rule.cost(7)
        assert count.forward == 0  # the model counts those

    @by_rule([ExactTrace(), Hutchinson(), Probing(2)])
    def test_traces_have_gradients_on_request(self, rule):
        """For J = diag(a cos x) signs have no error: the gradient is −a sin x, and Σ cos x."""
        a = torch.tensor(1.5, dtype=DOUBLE, requires_grad=True)
        x = torch.linspace(-1, 1, 8, dtype=DOUBLE).reshape(2, 4).requires_grad_()
        jac = linearize(lambda x: a * x.sin(), x, second=True)
        trace = rule.estimate(jac, rule.draw(SampleNoise(0, range(2)), x)).mean(1).sum()
        of_x, of_a = torch.autograd.grad(trace, (x, a))
        torch.testing.assert_close(of_x, -a.detach() * x.detach().sin(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(of_a, x.detach().cos().sum(), rtol=1e-10, atol=1e-12)

    def test_a_known_part_is_subtracted_and_added_back(self):
        """The mean does not change, and the known part has no variance."""
        matrix = random_matrix(6)
        known = matrix + 0.01 * random_matrix(6, seed=1)
        jac = of(matrix, 500)
        trace = known.trace().expand(500)
        rest = jac.minus(KnownJacobian(lambda v: v @ known, trace))
        rule = Hutchinson("gaussian")
        probes = rule.draw(SampleNoise(0, range(500)), jac.value)
        plain, controlled = rule.estimate(jac, probes), rule.estimate(rest, probes)
        assert float(controlled.std()) == pytest.approx(
            0.01 * deviation(random_matrix(6, seed=1)), rel=0.2
        )
        assert float(plain.std()) > 50 * float(controlled.std())
        assert (
            abs(float(controlled.mean() - matrix.trace())) < 4 * float(controlled.std()) / 500**0.5
        )
        exact = ExactTrace().estimate(rest, probes[:0])
        torch.testing.assert_close(exact, matrix.trace().expand(500, 1))


def deviation(matrix, probe="gaussian"):
    """Standard deviation of one probe, by the formulas of the docstring."""
    s, dims = (matrix + matrix.T) / 2, len(matrix)
    squares = float((s**2).sum())
    if probe == "rademacher":
        squares -= float((s.diagonal() ** 2).sum())
    if probe == "orthogonal":
        squares = dims / (dims + 2) * (squares - float(s.trace()) ** 2 / dims)
    return math.sqrt(2 * squares)


class TestExact:
    def test_three_ways_agree(self, net_and_x):
        """D products = mean over the rows of a Hadamard matrix = trace of the Jacobian."""
        net, x = net_and_x
        dims = x[0].numel()
        jac = linearize(net, x)
        exact = ExactTrace().estimate(jac, ExactTrace().draw(None, x))
        rows = torch.tensor(hadamard(dims), dtype=DOUBLE).reshape(dims, 1, *x.shape[1:])
        forms = quadratic_forms(jac, rows.expand(dims, *x.shape))

        trace = trace_of_jacobian(net, x)
        # rounding of O(dims) products of O(1)
        torch.testing.assert_close(exact[:, 0], trace, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(forms.mean(1), trace, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 3, 1, 2)])
    def test_any_shape(self, shape):
        x = torch.full(shape, 2.0)
        trace = ExactTrace().estimate(linearize(lambda x: x**2, x), x[:0])
        assert trace.dtype == DOUBLE
        assert trace.tolist() == [[4.0 * math.prod(shape[1:])]] * shape[0]


RULES = [
    Hutchinson(),
    Hutchinson("gaussian"),
    Hutchinson("orthogonal", 3),
    Probing(3, 2),
    HutchPP(6),
    XTrace(6),
]


class TestEveryRule:
    @by_rule(RULES)
    def test_unbiased_and_its_error_known(self, rule):
        """On a matrix that is not symmetric: the mean within 4 errors, the error to 10 %."""
        n, matrix = 4000, random_matrix(8)
        forms = estimate(rule, matrix, n)
        means = forms.mean(1)
        assert abs(float(means.mean() - matrix.trace())) < 4 * float(means.std()) / n**0.5
        errors = rule.std_error(forms, 8)
        if rule.columns == 1:
            assert torch.isnan(errors).all()
        else:
            assert float(errors.square().mean().sqrt()) == pytest.approx(
                float(means.std()), rel=0.1
            )

    @by_rule(
        [
            ExactTrace(),
            Hutchinson("orthogonal", 8),
            Probing(8),
            Probing(50),  # more colours than there are coordinates
            HutchPP(24),
            XTrace(16),
        ]
    )
    def test_exact_with_enough_probes(self, rule):
        matrix = random_matrix(8)
        forms = estimate(rule, matrix, 20)
        # XTrace divides by the length of what is left of a probe, which may be small
        torch.testing.assert_close(forms.mean(1), matrix.trace().expand(20), rtol=1e-8, atol=1e-8)

    @by_rule([HutchPP(9), XTrace(8)])
    def test_exact_on_a_low_rank(self, rule):
        matrix = random_matrix(20, rank=3)
        forms = estimate(rule, matrix, 200)
        torch.testing.assert_close(forms, matrix.trace().expand_as(forms), rtol=1e-8, atol=1e-8)

    @by_rule(RULES)
    def test_zero_is_zero(self, rule):
        """If the control variate is exact, the rule's estimate of the rest is 0."""
        assert float(estimate(rule, torch.zeros(6, 6, dtype=DOUBLE), 3).abs().max()) < 1e-12

    @by_rule(RULES)
    def test_probes_of_a_sample_depend_on_seed_and_sample_alone(self, rule):
        x = torch.zeros(4, 2, 3)
        four = rule.draw(SampleNoise(7, range(4)), x)
        one = rule.draw(SampleNoise(7, [2]), x[:1])
        assert torch.equal(four[:, 2:3], one)
        assert not torch.equal(four[:, :1], one)
        assert four.dtype == x.dtype

    @by_rule(RULES)
    def test_a_sample_does_not_depend_on_its_batch(self, rule):
        generator = torch.Generator().manual_seed(0)
        matrices = torch.randn(4, 6, 6, generator=generator, dtype=DOUBLE)
        x = torch.zeros(4, 6, dtype=DOUBLE)
        probes = rule.draw(SampleNoise(0, range(4)), x)

        def run(rows):
            field = linearize(lambda x: (matrices[rows] @ x[:, :, None])[:, :, 0], x[rows])
            return rule.estimate(field, probes[:, rows])

        # the order of sums inside a batch moves the last bits
        torch.testing.assert_close(run([2]), run([0, 1, 2, 3])[2:3], rtol=1e-10, atol=1e-10)

    @by_rule(RULES)
    def test_needs_randomness(self, rule):
        with pytest.raises(ValueError, match="give seed or noise"):
            rule.draw(None, torch.zeros(1, 4))

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (
                lambda: Hutchinson("uniform"),
                ValueError,
                "probe must be one of rademacher, gaussian",
            ),
            (lambda: Hutchinson(probes=0), ValueError, "probes must be at least 1, got 0"),
            (lambda: Hutchinson(probes=1.5), TypeError, "probes must be an integer"),
            (lambda: Probing(0), ValueError, "colours must be at least 1, got 0"),
            (lambda: Probing(2, 0), ValueError, "blocks must be at least 1, got 0"),
            (lambda: HutchPP(4), ValueError, "probes must be a multiple of 3 for HutchPP, got 4"),
            (lambda: XTrace(3), ValueError, "probes must be a multiple of 2 for XTrace, got 3"),
        ],
    )
    def test_bad_arguments(self, make, error, message):
        with pytest.raises(error, match=message):
            make()

    @by_rule([Hutchinson("orthogonal", 3), HutchPP(9), XTrace(6)])
    def test_more_probes_than_dimensions(self, rule):
        with pytest.raises(ValueError, match="probes .* D = 2"):
            rule.draw(SampleNoise(0, [0]), torch.zeros(1, 2))


class TestHutchinson:
    def test_rademacher_probes_of_a_correlated_gaussian_take_two_values(self):
        """tr J ± 2 J_12."""
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=DOUBLE)] * 2)[:, None]
        forms = Hutchinson(probes=4).estimate(of(J_GAUSS), signs)
        expected = [-0.234954988294, 2.201037527977, 2.201037527977, -0.234954988294]
        torch.testing.assert_close(
            forms[0].sort().values, torch.tensor(expected, dtype=DOUBLE).sort().values
        )

    @pytest.mark.parametrize("probe", ["rademacher", "gaussian", "orthogonal"])
    def test_variance(self, probe):
        """The docstring's, on a random matrix; a deviation from 4096 draws is known to 2 %."""
        matrix = random_matrix(8)
        forms = estimate(Hutchinson(probe), matrix, 4096)
        assert float(forms.std()) == pytest.approx(deviation(matrix, probe), rel=0.1)

    @pytest.mark.parametrize(
        ("probe", "spread"), [("rademacher", 1.217996258), ("gaussian", 1.645429941)]
    )
    def test_mean_and_spread_of_random_probes(self, probe, spread):
        """In closed form."""
        n = 4096
        forms = estimate(Hutchinson(probe), J_GAUSS, n)
        assert abs(float(forms.mean()) - 0.983041269841) < 4 * spread / n**0.5
        assert float(forms.std()) == pytest.approx(spread, rel=0.1)

    def test_orthogonal_probes_are_draws_without_replacement(self):
        """Factor (D − K)/(D − 1) of the variance; both are probes of the same matrix."""
        matrix = random_matrix(8)
        means = estimate(Hutchinson("orthogonal", 6), matrix, 4096).mean(1)
        expected = deviation(matrix, "orthogonal") * math.sqrt(2 / 7 / 6)
        assert float(means.std()) == pytest.approx(expected, rel=0.1)

    def test_orthogonal_probes(self):
        v = Hutchinson("orthogonal", 3).draw(SampleNoise(1, range(2)), torch.zeros(2, 1, 2, 4))
        gram = torch.einsum("ibcde,jbcde->bij", v, v)
        torch.testing.assert_close(gram, 8 * torch.eye(3).expand(2, 3, 3), rtol=0, atol=1e-5)

    def test_rademacher_probes_are_signs(self):
        v = Hutchinson("rademacher", 2).draw(SampleNoise(3, range(50)), torch.zeros(50, 4))
        assert v.shape == (2, 50, 4)
        assert set(v.unique().tolist()) == {-1.0, 1.0}

    @pytest.mark.parametrize("probe", ["gaussian", "orthogonal"])
    def test_a_probe_does_not_depend_on_how_many_there_are(self, probe):
        x = torch.zeros(2, 3, dtype=DOUBLE)
        three, two = (Hutchinson(probe, k).draw(SampleNoise(7, range(2)), x) for k in (3, 2))
        torch.testing.assert_close(three[:2], two)

    def test_a_probe_is_not_a_function_of_the_dequantization(self):
        """With one stream for both, sign(probe) would be sign(u − ½): a biased trace."""
        x = torch.zeros(500, 1, dtype=DOUBLE)
        z = SampleNoise(0, range(500)).fresh(x)
        v = Hutchinson("gaussian").draw(SampleNoise(0, range(500)), x)[0]
        correlation = float((z * v).mean())
        assert abs(correlation) < 4 / 500**0.5

    def test_standard_error(self):
        estimates = torch.tensor([[1.0, 3.0], [2.0, 2.0]], dtype=DOUBLE)
        assert Hutchinson(probes=2).std_error(estimates, 9).tolist() == [1.0, 0.0]
        assert torch.isnan(Hutchinson().std_error(estimates[:, :1], 9)).all()
        assert ExactTrace().std_error(estimates[:, :1], 9).tolist() == [0.0, 0.0]
        orthogonal = Hutchinson("orthogonal", 2)
        assert orthogonal.std_error(estimates, 8).tolist() == [math.sqrt(0.75), 0.0]
        assert orthogonal.std_error(estimates, 2).tolist() == [0.0, 0.0]


class TestProbing:
    def test_only_pairs_of_one_colour_are_left(self):
        """Exact for a matrix whose entries reach no farther than the colours do."""
        shape = (1, 6, 6)
        places = torch.cartesian_prod(torch.arange(6), torch.arange(6))
        distance = (places[:, None] - places).square().sum(-1)
        near = random_matrix(36) * (distance < 4)  # 4 colours are 2 apart
        x = torch.zeros(30, *shape, dtype=DOUBLE)
        jac = linearize(lambda x: (x.flatten(1) @ near.T).reshape(x.shape), x)
        forms = [
            rule.estimate(jac, rule.draw(SampleNoise(0, range(30)), x))
            for rule in (Probing(4), Hutchinson(probes=4))
        ]
        trace = near.trace().expand(30)
        torch.testing.assert_close(forms[0][:, 0], trace, rtol=1e-12, atol=1e-12)
        assert float(forms[1].mean(1).std()) > 5

    def test_variance(self):
        matrix, colours = random_matrix(8), torch.arange(8) % 3
        s = (matrix + matrix.T) / 2
        same = (colours[:, None] == colours) & ~torch.eye(8, dtype=torch.bool)
        means = estimate(Probing(3), matrix, 4096)[:, 0]
        assert float(means.std()) == pytest.approx(float(2 * (s[same] ** 2).sum()) ** 0.5, rel=0.1)

    @pytest.mark.parametrize(
        ("shape", "colours", "squared"),
        [
            ((12,), 4, 16),
            ((1, 8, 8), 2, 2),  # a chessboard
            ((1, 8, 8), 4, 4),
            ((1, 28, 28), 5, 5),  # a knight's move
            ((1, 28, 28), 8, 8),
            ((3, 8, 8), 2, 2),
            ((3, 16, 16), 4, 2),
            ((2,), 4, None),
        ],
    )
    def test_a_colour_is_far_from_itself(self, shape, colours, squared):
        found = colouring(shape, colours)
        assert found.shape == shape
        assert sorted(found.unique().tolist()) == list(range(min(colours, math.prod(shape))))
        places = torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape))
        apart = (places[:, None] - places).square().sum(-1)
        same = (found.flatten()[:, None] == found.flatten()) & (apart > 0)
        assert (int(apart[same].min()) if bool(same.any()) else None) == squared
