"""Samples with their log-density, against closed forms and against `log_likelihood`."""

import math

import pytest
import torch
from calls import by_ode, solve

from scoresde.likelihood import ExactTrace, Hutchinson, fit_gaussian, sample_with_log_prob
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import DDIM, sample
from scoresde.score import count_nfe
from scoresde.sde import VE, VP, SubVP, TabulatedVP

DOUBLE = torch.float64
TIGHT = {"rtol": 1e-8, "atol": 1e-8, "method": "dopri8", "dtype": DOUBLE}
LOOSE = {"rtol": 1e-3, "atol": 1e-3, "dtype": DOUBLE}
KINDS = pytest.mark.parametrize("kind", [VP, SubVP, VE])


def drawn(model, shape, **arguments):
    """`sample_with_log_prob`, arguments of the call and settings of the `Ode` mixed."""
    return solve(sample_with_log_prob, model, shape, **arguments)


def normal_log_prob(x, mean, std):
    terms = -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
    return terms.flatten(1).sum(1)


class TestAgainstClosedForms:
    @pytest.mark.parametrize("per_sample", [False, pytest.param(True, marks=pytest.mark.slow)])
    @pytest.mark.by_default("VE", "Linear")
    def test_gaussian(self, sde, gaussian, per_sample):
        """The flow is affine, so that the prior comes out as a Gaussian that is known."""
        # the joints of TabulatedVP's cubics need smaller steps
        tolerance = 1e-7 if isinstance(sde, TabulatedVP) else 1e-6
        settings = {"rtol": tolerance, "atol": tolerance, "dtype": DOUBLE, "per_sample": per_sample}
        out = drawn(gaussian(sde, 3), (4, 3), seed=1, **settings)
        low, high = sde.nodes(torch.tensor([1e-5, 1.0], dtype=DOUBLE))
        spreads = [math.sqrt(0.25 * node.alpha**2 + node.sigma**2) for node in (low, high)]
        factor = spreads[0] / spreads[1]
        mean = 0.3 * (low.alpha - factor * high.alpha)
        expected = normal_log_prob(out.x, mean, factor * sde.prior_std)
        # the tolerance over some 50 steps
        torch.testing.assert_close(out.log_prob, expected, rtol=0, atol=2e-5)
        assert out.std_error.tolist() == [0.0] * 4

    @pytest.mark.parametrize(
        "kind", [VP, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (SubVP, VE))]
    )
    def test_identity_of_the_continuity_equation(self, mixture, kind):
        """log p(x) = log p_ε(x) + [log prior − log p_1](x_T); no ODE on the right."""
        model = mixture(kind())
        out = drawn(model, (8, 2), seed=0, **TIGHT)
        x_init = out.latent
        mismatch = normal_log_prob(x_init, 0, model.sde.prior_std) - model.log_prob(x_init, 1.0)
        expected = model.log_prob(out.x, 1e-5) + mismatch
        torch.testing.assert_close(out.log_prob, expected, rtol=0, atol=1e-6)

    @KINDS
    @pytest.mark.by_default("VE")
    def test_is_nearly_the_density_of_the_data(self, mixture, kind):
        """Up to the terms neglected by Song et al.: the cut-off at t_min, and the prior for p_1."""
        model = mixture(kind())
        out = drawn(model, (50, 2), seed=0, rtol=1e-5, atol=1e-5, dtype=DOUBLE)
        apart = (out.log_prob - model.log_prob(out.x, 1e-5)).abs()
        # the prior is off by 7e-2 nats at most for VE, by 1e-2 for the others
        assert float(apart.max()) < (0.1 if kind is VE else 0.02)

    @pytest.mark.slow
    def test_mean_is_the_entropy(self, mixture):
        """−E log p of the mixture is 1.5460653713 nats, by quadrature."""
        out = drawn(mixture(VP()), (2000, 2), seed=0, **LOOSE)
        mean, error = -float(out.log_prob.mean()), float(out.log_prob.std()) / math.sqrt(2000)
        assert abs(mean - 1.5460653713) < 4 * error + 0.01  # and the mismatch of above


class TestAgainstTheLikelihood:
    @pytest.mark.parametrize(
        ("kind", "per_sample"),
        [(VP, False), (VE, True), pytest.param(SubVP, True, marks=pytest.mark.slow)],
    )
    @pytest.mark.by_default("VE")
    def test_is_the_log_likelihood_of_the_sample(self, mixture, kind, per_sample):
        model = mixture(kind())
        out = drawn(model, (10, 2), seed=0, per_sample=per_sample, dtype=DOUBLE)
        back = by_ode(model, out.x, per_sample=per_sample)
        # both to 1e-6 a step; on the way up small errors of x grow, the round trip's 2e-3
        # at most, and log p with them by the score
        assert float((out.log_prob - back.log_prob).abs().max()) < 2e-3

    def test_starts_where_sample_does(self, mixture):
        """Bitwise, in either dtype."""
        for dtype in (torch.float32, DOUBLE):
            settings = {"seed": 5, "dtype": dtype}
            ts = torch.tensor([1.0, 0.5], dtype=DOUBLE)
            plain = sample(mixture(VE()), DDIM(), ts, (6, 2), **settings)
            scored = drawn(
                mixture(VE()),
                (6, 2),
                rtol=1e-3,
                atol=1e-3,
                batch=4,
                **settings,
            )
            assert torch.equal(scored.latent, plain.x_init)
            assert scored.x.dtype == scored.latent.dtype == dtype
            assert scored.log_prob.dtype == DOUBLE


class TestEstimatedTraces:
    @pytest.mark.slow
    def test_mean_and_reported_error(self, mixture):
        settings = {"seed": 0, "rtol": 1e-5, "atol": 1e-5, "dtype": DOUBLE}
        exact = drawn(mixture(VP()), (32, 2), trace=ExactTrace(), **settings)
        rule = Hutchinson(probes=64)
        out = drawn(mixture(VP()), (32, 2), trace=rule, **settings)
        ratio = (out.log_prob - exact.log_prob) / out.std_error
        # 32 ratios of a standard normal, of which the largest is beyond 4.5 once in 5000 seeds
        assert float(ratio.abs().max()) < 4.5
        assert 0.6 < float(ratio.square().mean().sqrt()) < 1.4  # 3.2 standard errors
        assert (out.method.trace, out.nfe_derivative) == (rule, 64 * out.nfe)

    def test_one_probe_cannot_tell(self, mixture):
        out = drawn(mixture(VP()), (2, 2), seed=0, trace=Hutchinson(), **LOOSE)
        assert torch.isnan(out.std_error).all()

    def test_control_of_a_gaussian_leaves_no_variance(self, gaussian):
        model = gaussian(VP(), 20)
        settings = {"seed": 0, "trace": Hutchinson("gaussian", 2), **LOOSE}
        plain = drawn(model, (3, 20), **settings)
        controlled = drawn(model, (3, 20), control=model, **settings)
        assert float(plain.std_error.min()) > 1e-2
        assert float(controlled.std_error.max()) < 1e-9
        rough = fit_gaussian(VP(), 0.3 + 0.5 * torch.randn(500, 20, generator=generator()))
        assert drawn(model, (3, 20), control=rough, **settings).std_error.max() < 1


def generator():
    return torch.Generator().manual_seed(0)


class TestRandomnessAndBatches:
    """Seeds fix every bit; a sample alone is the same."""

    SETTINGS = {"trace": Hutchinson(probes=2), **LOOSE}

    def test_a_seed_fixes_every_bit(self, mixture, rng_untouched):
        first, again, other = (
            drawn(mixture(VP()), (4, 2), seed=s, **self.SETTINGS) for s in (1, 1, 2)
        )
        assert torch.equal(first.x, again.x)
        assert torch.equal(first.log_prob, again.log_prob)
        assert not torch.equal(first.log_prob, other.log_prob)
        assert (first.seed, other.seed) == (1, 2)

    def test_noise_of_the_same_seed_is_the_same(self, mixture):
        seeded = drawn(mixture(VP()), (4, 2), seed=3, **self.SETTINGS)
        noise = SampleNoise(3, range(4))
        given = drawn(mixture(VP()), (4, 2), noise=noise, **self.SETTINGS)
        assert torch.equal(seeded.x, given.x)
        assert torch.equal(seeded.log_prob, given.log_prob)
        assert given.seed is None

    def test_a_sample_alone_is_the_same(self, mixture):
        settings = {"seed": 0, "per_sample": True, **self.SETTINGS}
        whole = drawn(mixture(VP()), (5, 2), **settings)
        out = drawn(mixture(VP()), (5, 2), batch=2, **settings)
        torch.testing.assert_close(out.log_prob, whole.log_prob, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out.x, whole.x, rtol=1e-10, atol=1e-10)

    def test_cost_is_counted_at_the_call(self, mixture):
        model = mixture(VP())
        with count_nfe(model) as counted:
            out = drawn(model, (3, 2), seed=0, **LOOSE)
        assert (out.nfe, out.nfe_derivative) == (counted.forward, counted.derivative)
        assert out.nfe_derivative == 2 * out.nfe  # the exact trace of two dimensions
        assert (out.t_min, out.method.trace) == (1e-5, ExactTrace())

    def test_nothing(self, gaussian):
        out = drawn(gaussian(VP(), 3), (0, 3), seed=0)
        assert (out.x.shape, out.log_prob.shape, out.nfe) == ((0, 3), (0,), 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shape": ()}, ValueError, r"shape must be \(n, \*D\)"),
        ({"shape": (2, 0)}, ValueError, r"every D ≥ 1, got \(2, 0\)"),
        ({"shape": (-1, 2)}, ValueError, "n ≥ 0"),
        ({"seed": None}, ValueError, "exactly one of seed and noise"),
        ({"noise": BatchNoise(0)}, ValueError, "exactly one of seed and noise"),
        ({"seed": None, "noise": BatchNoise(0), "batch": 1}, ValueError, "batch needs a seed"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"dtype": torch.float16}, TypeError, "dtype must be torch.float32 or torch.float64"),
        ({"dtype": torch.int64}, TypeError, "dtype must be torch.float32 or torch.float64"),
        ({"shape": (1, 5000), "trace": ExactTrace()}, ValueError, "D = 5000 derivative passes"),
        ({"trace": "skilling"}, ValueError, "trace 'skilling' is unknown"),
        ({"t_min": 0}, ValueError, "t_min must be greater than 0 for VP"),
        ({"y": torch.zeros(3)}, ValueError, "y must be None: .* takes no condition"),
    ],
)
def test_bad_arguments(gaussian, change, error, message):
    model = gaussian(VP(), 2)
    arguments = {"shape": (2, 2), "seed": 0, **change}
    with pytest.raises(error, match=message):
        drawn(model, **arguments)
    assert model.nfe.forward == 0
