"""`Distribution` as one of torch.distributions: shapes, draws, densities, gradients, wrappers."""

import math

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Categorical,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
)

import scoresde
from scoresde import Distribution
from scoresde.exact import ConditionalMixture, GaussianMixture
from scoresde.likelihood import Ode, Path
from scoresde.samplers import AdaptiveSDE
from scoresde.score import FunctionScore
from scoresde.sde import VP

DOUBLE = torch.float64
CHEAP = "path:steps=6:nodes=4"
VECTORS = torch.tensor([[0.3], [-0.5], [0.9]], dtype=DOUBLE)


@pytest.fixture
def model(mixture):
    return mixture(VP())


@pytest.fixture
def conditional(mixture_parameters):
    """p(x | v): one number x given one number v, from the mixture in the plane."""
    return ConditionalMixture(VP(), *mixture_parameters, vector=1)


class TestDraws:
    @pytest.mark.parametrize("batch", [None, 4])
    def test_calls_continue_the_sequence_of_samples(self, model, batch):
        once, twice = (Distribution(model, seed=3, nfe=5, batch=batch) for _ in range(2))
        x = once.sample(6)
        assert torch.equal(torch.cat([twice.sample(3), twice.sample((3,))]), x)
        assert torch.equal(scoresde.sample(model, n=6, nfe=5, seed=3).x, x)
        assert not torch.equal(twice.sample(6), x)

    def test_with_conditions_too(self, conditional):
        once, twice = (Distribution(conditional, VECTORS, nfe=4) for _ in range(2))
        assert torch.equal(torch.cat([twice.sample(1), twice.rsample(2)]), once.sample(3))

    def test_expansions_share_the_sequence(self, model):
        d = Distribution(model, nfe=4)
        wide = d.expand((3,))
        together = torch.cat([wide.sample(2).reshape(6, 2), d.sample(2)])
        assert torch.equal(together, Distribution(model, nfe=4).sample(8))

    def test_have_the_density_that_is_stated(self, model):
        """−E log p is the entropy, 1.5460653713 nats by quadrature."""
        x = Distribution(model).sample(2000)
        log_prob = model.log_prob(x)
        error = float(log_prob.std()) / math.sqrt(2000)
        assert abs(float(log_prob.mean()) + 1.5460653713) < 4 * error

    def test_a_sampler_with_its_own_steps(self, model):
        assert Distribution(model, sampler=AdaptiveSDE(rtol=0.5)).sample(2).shape == (2, 2)


class TestShapes:
    @pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), 3])
    @pytest.mark.parametrize("y", [None, VECTORS[0], VECTORS, VECTORS.expand(2, 3, 1)])
    def test_of_draws_and_densities(self, model, conditional, shape, y):
        used = model if y is None else conditional
        d = Distribution(used, y, nfe=2, method=CHEAP)
        before = (shape,) if isinstance(shape, int) else shape
        batch = () if y is None else tuple(y.shape[:-1])
        x = d.sample(shape)
        assert (d.batch_shape, d.event_shape) == (batch, used.shape)
        assert x.shape == (*before, *batch, *used.shape)
        assert d.log_prob(x).shape == (*before, *batch)
        assert d.rsample(shape).shape == x.shape

    @pytest.mark.parametrize(
        ("y", "batch"),
        [(0.3, ()), ([0.3], ()), (torch.tensor([0.3, 0.1]), (2,)), ([[0.3], [0.1], [0.2]], (3,))],
    )
    def test_vectors_of_length_one_may_be_numbers(self, conditional, y, batch):
        assert Distribution(conditional, y).batch_shape == batch

    def test_classes_and_vectors_in_a_dict_are_broadcast(self, mixture_parameters):
        shares = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
        both = ConditionalMixture(VP(), *mixture_parameters, vector=1, shares=shares)
        d = Distribution(both, {"class": 1, "vector": VECTORS}, nfe=2)
        assert d.batch_shape == (3,)
        assert d.sample(2).shape == (2, 3, 1)

    @pytest.mark.parametrize("y", [1, torch.tensor(1)])
    def test_one_class_is_no_batch(self, mixture_parameters, y):
        """A condition without any axis: reshaping it to the batch shape () must be possible."""
        shares = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
        model = ConditionalMixture(VP(), *mixture_parameters, shares=shares)
        d = Distribution(model, y, nfe=2)
        assert d.batch_shape == ()
        assert torch.equal(d.sample(3), Distribution(model, [1], nfe=2).sample(3)[:, 0])

    def test_a_model_that_says_nothing(self):
        """The first dimension of the condition is the batch."""

        def eps(x, t, y):
            return x - y["mean"]

        d = Distribution(FunctionScore(VP(), eps), {"mean": torch.zeros(4, 3)}, (3,), nfe=2)
        assert d.batch_shape == (4,)
        assert d.sample().shape == (4, 3)

    def test_a_bound_condition(self, conditional):
        bound = Distribution(conditional.given(VECTORS), nfe=3)
        assert torch.equal(bound.sample(), Distribution(conditional, VECTORS, nfe=3).sample())


class TestDensity:
    def test_is_that_of_log_likelihood(self, model):
        x = model.sample(6, seed=1)
        d = Distribution(model, seed=5, method=CHEAP)
        expected = scoresde.log_likelihood(model, x, CHEAP, seed=5).log_prob
        assert torch.equal(d.log_prob(x.reshape(2, 3, 2)), expected.to(x).reshape(2, 3))
        assert torch.equal(d.log_prob(x), d.log_prob(x))

    def test_given_each_condition(self, conditional):
        """Points are broadcast with the batch, as for Normal(mean, std) with tensors."""
        d = Distribution(conditional, VECTORS, method="bosh3:rtol=1e-3:atol=1e-3")
        x = torch.linspace(-1, 1, 4, dtype=DOUBLE).reshape(4, 1, 1)
        each = [conditional.given(v[None]).log_prob(x[:, 0]) for v in VECTORS]
        # the prior in place of p(x(1)): about α(1) |x| |m| = 0.02
        torch.testing.assert_close(d.log_prob(x), torch.stack(each, 1), rtol=0, atol=0.05)

    def test_the_method_has_no_randomness_where_that_costs_little(self, model):
        assert Distribution(model).method == Ode()
        wide = GaussianMixture(VP(), [1.0], torch.zeros(1, 17), [1.0])
        assert Distribution(wide).method == Path()


class TestGradients:
    def test_of_the_density(self, model):
        """Against the difference quotient of the same number."""
        d, x = Distribution(model, method=CHEAP), model.sample(3, seed=1).double()
        value = d.log_prob(x.requires_grad_())
        (found,) = torch.autograd.grad(value.sum(), x)
        step = 1e-5 * torch.eye(2, dtype=DOUBLE)
        with torch.no_grad():
            sides = [[d.log_prob(x + sign * row) for row in step] for sign in (1, -1)]
            assert not d.log_prob(x).requires_grad
        quotient = (torch.stack(sides[0], 1) - torch.stack(sides[1], 1)) / 2e-5
        # rounding 1e-16 · 10/1e-5
        torch.testing.assert_close(found, quotient, rtol=1e-6, atol=1e-7)

    def test_of_draws_in_the_condition(self, conditional):
        v = VECTORS.clone().requires_grad_()
        x = Distribution(conditional, v, nfe=6).rsample()
        (found,) = torch.autograd.grad(x.sum(), v)
        near = [Distribution(conditional, VECTORS + h, nfe=6).sample() for h in (1e-3, -1e-3)]
        # float32 samples: rounding 1e-7/1e-3
        quotient = ((near[0] - near[1]) / 2e-3).to(found)
        torch.testing.assert_close(found, quotient, rtol=1e-2, atol=1e-3)
        assert not Distribution(conditional, v, nfe=2).sample().requires_grad

    def test_of_weights(self):
        """log N(x; 0, w²) by a network with one weight, against its closed form."""

        class Score(scoresde.ScoreModel):
            def __init__(self):
                super().__init__(VP())
                self.w = torch.nn.Parameter(torch.tensor(0.7, dtype=DOUBLE))

            def eps(self, x, t):
                node = self.sde.at(t, x)
                return node.sigma * x / ((node.alpha * self.w) ** 2 + node.sigma**2)

        model, x = Score(), torch.tensor([[0.5], [-1.0]], dtype=DOUBLE)
        d = Distribution(model, shape=(1,), method="dopri5:rtol=1e-6:atol=1e-6")
        (found,) = torch.autograd.grad(d.log_prob(x).sum(), model.w)
        expected = (x**2 / 0.7**3 - 1 / 0.7).sum()
        assert abs(float(found - expected)) < 2e-3  # t_min and the prior at t = 1
        assert d.rsample(2).requires_grad
        assert not d.sample(2).requires_grad


class TestInTorchDistributions:
    def test_attributes(self, conditional):
        d = Distribution(conditional, VECTORS)
        assert isinstance(d, torch.distributions.Distribution)
        assert d.has_rsample
        assert not d.support.is_discrete
        assert d.support.event_dim == len(d.event_shape)
        assert d.support.check(torch.ones(5, 3, 1)).shape == (5, 3)
        assert repr(d) == (
            "Distribution(ConditionalMixture, batch_shape=(3,), event_shape=(1,), seed=0)"
        )

    def test_independent(self, conditional):
        d = Distribution(conditional, VECTORS, nfe=2, method=CHEAP)
        joint = Independent(d, 1)
        x = joint.sample((4,))
        assert (joint.event_shape, x.shape) == ((3, 1), (4, 3, 1))
        assert torch.equal(joint.log_prob(x), d.log_prob(x).sum(-1))

    def test_transformed(self, model):
        """log p(a + b x) = log p(x) − D log b."""
        d = Distribution(model, nfe=2, method=CHEAP)
        moved = TransformedDistribution(d, [AffineTransform(1.0, 2.0)])
        z = moved.sample((4,))
        assert (moved.event_shape, z.shape) == ((2,), (4, 2))
        expected = d.log_prob((z - 1) / 2) - 2 * math.log(2)
        torch.testing.assert_close(moved.log_prob(z), expected)
        assert moved.rsample((3,)).shape == (3, 2)

    def test_mixture(self, conditional):
        """Σ_k w_k p(x | y_k)."""
        d = Distribution(conditional, VECTORS, nfe=2, method="bosh3:rtol=1e-3:atol=1e-3")
        weights = torch.tensor([0.2, 0.3, 0.5], dtype=DOUBLE)
        family = MixtureSameFamily(Categorical(weights), d)
        x = torch.linspace(-1, 1, 4, dtype=DOUBLE)[:, None]
        expected = torch.logsumexp(d.log_prob(x[:, None]) + weights.log(), 1)
        torch.testing.assert_close(family.log_prob(x), expected, rtol=0, atol=1e-2)  # the tolerance
        assert family.sample((5,)).shape == (5, 1)

    def test_expand(self, conditional):
        d = Distribution(conditional, VECTORS, nfe=2, method=CHEAP)
        wide = d.expand((2, 3))
        assert (wide.batch_shape, wide.event_shape) == ((2, 3), (1,))
        assert wide.sample((4,)).shape == (4, 2, 3, 1)
        # the second row has probes and nodes of its own
        assert torch.equal(wide.log_prob(torch.ones(1))[0], d.log_prob(torch.ones(1)))
        with pytest.raises(ValueError, match=r"an expansion of \(3,\), got \(4,\)"):
            d.expand((4,))

    def test_values_are_validated(self, model):
        d = Distribution(model, method=CHEAP)
        for x in (torch.ones(3), torch.full((2,), math.nan)):
            with pytest.raises(ValueError, match="value"):
                d.log_prob(x)
        with pytest.raises(TypeError, match="value must be of type Tensor"):
            d.log_prob([0.0, 1.0])
        with pytest.raises(ValueError, match="x must be finite"):
            Distribution(model, validate_args=False).log_prob(torch.full((2,), math.nan))

    @pytest.mark.parametrize("what", ["mean", "variance", "stddev", "entropy"])
    def test_what_is_not_known_says_so(self, model, what):
        with pytest.raises(NotImplementedError, match="no closed form; estimate it by"):
            getattr(Distribution(model), what)()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"model": 3}, TypeError, "model must be of type ScoreModel"),
        ({"shape": (3,)}, ValueError, r"shape must be \(2,\) for the model's data, got \(3,\)"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"nfe": 0}, ValueError, "nfe must be at least 1"),
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"sampler": "ddim"}, TypeError, "sampler must be of type Sampler"),
        ({"method": "ito"}, ValueError, "method 'ito' is unknown"),
        ({"y": torch.zeros(3)}, ValueError, "y must be None"),
    ],
)
def test_wrong_arguments(model, arguments, error, match):
    with pytest.raises(error, match=match):
        Distribution(**({"model": model} | arguments)).sample()


def test_conditions_that_do_not_fit(conditional, model):
    with pytest.raises(ValueError, match="y must be given"):
        Distribution(conditional)
    with pytest.raises(ValueError, match="y must be one tensor"):
        Distribution(conditional, {"class": 0})
    with pytest.raises(TypeError, match="y must"):
        Distribution(conditional, "text")
    with pytest.raises(ValueError, match="shape must be given"):
        Distribution(FunctionScore(VP(), model.eps))
    with pytest.raises(ValueError, match="sample_shape must be at least 0, got -1"):
        Distribution(model).sample(-1)
