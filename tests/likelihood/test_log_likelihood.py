"""Log-likelihood against exact densities, and its contract: seeds, batches, counts, errors."""

import math
import time

import numpy as np
import pytest
import torch
from calls import by_ode, solve

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import ExactTrace, Hutchinson, Path, encode, log_likelihood
from scoresde.likelihood.method import Likelihood
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import ProbabilityFlowODE
from scoresde.score import FunctionScore, ScoreModel
from scoresde.sde import VE, VP, SubVP

DOUBLE = torch.float64
TIGHT = {"rtol": 1e-9, "atol": 1e-9, "method": "dopri8"}
LOOSE = {"rtol": 1e-3, "atol": 1e-3}

POINTS = torch.tensor(
    [[0, 0], [-1, 0.5], [0.8, -0.6], [0.3, 1.2], [2, -1.5], [-3, 2]], dtype=DOUBLE
)
# The mixture of conftest by scipy's DOP853 at rtol 1e-12 with a closed-form trace, in numpy.
REFERENCE = {
    (VP, 1e-5): [-4.828846759172, -0.509188541952, -0.789123312564, -0.446415208181,
                 -10.511376081665, -33.384452408799],
    (VP, 1e-3): [-4.824490346048, -0.510013295751, -0.790142265574, -0.448461795156,
                 -10.503254003353, -33.348460597391],
    (SubVP, 1e-5): [-4.828921653561, -0.509215158637, -0.789135049512, -0.446413056448,
                    -10.511040365143, -33.383424943867],
    (SubVP, 1e-3): [-4.828812232665, -0.509106655458, -0.789026062956, -0.446307000182,
                    -10.512696346939, -33.388371361768],
    (VE, 1e-5): [-4.822262154959, -0.511721552780, -0.785276182781, -0.450253826109,
                 -10.486528322848, -33.398599714753],
}  # fmt: skip


def references(*fast):
    """(SDE, t_min, values) of each reference; only those of the SDEs `fast` from 1e-5 are fast."""
    return [
        pytest.param(
            kind,
            t_min,
            torch.tensor(values, dtype=DOUBLE),
            id=f"{kind.__name__}-{t_min:g}",
            marks=[] if t_min == 1e-5 and kind in fast else pytest.mark.slow,
        )
        for (kind, t_min), values in REFERENCE.items()
    ]


def normal_log_prob(x, mean, variance):
    """log N(x; mean, variance) of each entry, summed over each sample."""
    terms = -0.5 * ((x - mean) ** 2 / variance + torch.log(2 * math.pi * variance))
    return terms.reshape(len(x), -1).sum(1)


def perfect_likelihood(model, x, t_min):
    """L = log p_ε(x) + [log prior − log p_1](x_T): what solves the ODE of a single Gaussian.

    Its flow is x_T = α_T m + S_T^½ S_ε^{−½} (x − α_ε m), S = α² Σ + σ² I, by hand in the
    eigenbasis of Σ.
    """
    sde = model.sde
    start, end = sde.nodes(torch.tensor([t_min, 1.0], dtype=DOUBLE))
    variances, axes = torch.linalg.eigh(model.cov())
    mean = model.mean() @ axes
    s_start = start.alpha**2 * variances + start.sigma**2
    s_end = end.alpha**2 * variances + end.sigma**2
    z = x @ axes
    z_end = end.alpha * mean + (s_end / s_start).sqrt() * (z - start.alpha * mean)
    prior = torch.full_like(s_end, sde.prior_std**2)
    return (
        normal_log_prob(z, start.alpha * mean, s_start)
        + normal_log_prob(z_end, torch.zeros_like(mean), prior)
        - normal_log_prob(z_end, end.alpha * mean, s_end)
    )


def correlated_gaussian(sde, dims):
    root = torch.randn(dims, dims, generator=torch.Generator().manual_seed(dims), dtype=DOUBLE)
    cov = root @ root.T / dims + 0.05 * torch.eye(dims, dtype=DOUBLE)
    return GaussianMixture(sde, [1.0], torch.linspace(-1, 1, dims, dtype=DOUBLE)[None], cov[None])


class TestAgainstExactDensities:
    """The value is that of a perfect solver of the ODE, and is a density."""

    @pytest.mark.parametrize(("kind", "t_min", "expected"), references(VP))
    @pytest.mark.slow
    def test_mixture_at_a_tight_tolerance(self, mixture, kind, t_min, expected):
        out = by_ode(mixture(kind()), POINTS, t_min=t_min, **TIGHT)
        error = (out.log_prob - expected).abs().max()
        assert float(error) < 1e-6  # measured below 1e-8

    @pytest.mark.parametrize(("kind", "t_min", "expected"), references(VP, SubVP, VE))
    @pytest.mark.by_default("VE")
    def test_mixture_at_the_default_tolerance(self, mixture, kind, t_min, expected):
        out = by_ode(mixture(kind()), POINTS, t_min=t_min)
        error = (out.log_prob - expected).abs().max()
        assert float(error) / (2 * math.log(2)) < 1e-3  # bits/dim; measured below 1e-4
        assert out.nfe < 250

    @pytest.mark.parametrize(
        ("kind", "dims"),
        [
            (VP, 4),  # two dimensions under every SDE have the next test
            pytest.param(VP, 16, marks=pytest.mark.slow),
            *[pytest.param(VE, d, marks=pytest.mark.slow) for d in (2, 16)],
            *[pytest.param(SubVP, d, marks=pytest.mark.slow) for d in (1, 2, 16)],
        ],
    )
    def test_gaussian_of_any_covariance(self, kind, dims):
        model = correlated_gaussian(kind(), dims)
        x = model.sample(3, seed=1)
        out = by_ode(model, x, rtol=1e-7, atol=1e-7, method="dopri8")
        bits = (out.log_prob - perfect_likelihood(model, x, 1e-5)).abs() / dims / math.log(2)
        assert float(bits.max()) < 1e-6

    @pytest.mark.by_default("SubVP", "Linear")
    def test_every_schedule(self, sde):
        model = correlated_gaussian(sde, 2)
        x = model.sample(3, seed=1)
        out = by_ode(model, x)
        error = (out.log_prob - perfect_likelihood(model, x, 1e-5)).abs()
        # steps fulfil 1e-6; errors of TabulatedVP are the same at 1e-7, where the solver does not
        # see the thousand joints of its cubics
        assert (error < 20e-6 * (1 + out.log_prob.abs())).all()

    def test_identity_of_the_continuity_equation(self):
        """L = log p_ε(x) + [log prior − log p_1](x_T) for any density; no ODE on the right."""
        generator = torch.Generator().manual_seed(5)
        means = torch.randn(4, 3, generator=generator, dtype=DOUBLE)
        model = GaussianMixture(VP(), [0.1, 0.2, 0.3, 0.4], means, [0.02, 0.1, 0.3, 0.05])
        x = torch.randn(5, 3, generator=generator, dtype=DOUBLE)
        out = by_ode(model, x, rtol=1e-8, atol=1e-8, method="dopri8")
        z = out.latent
        prior = normal_log_prob(z, torch.zeros(3, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE))
        identity = model.log_prob(x, 1e-5) + prior - model.log_prob(z, 1.0)
        torch.testing.assert_close(out.log_prob, identity, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        ("kind", "side"),
        [
            (VP, 33),
            pytest.param(VP, 161, marks=pytest.mark.slow),
            pytest.param(SubVP, 41, marks=pytest.mark.slow),
            pytest.param(VE, 41, marks=pytest.mark.slow),
        ],
    )
    @pytest.mark.slow
    def test_density_integrates_to_one(self, mixture, kind, side):
        """A sum over a grid is exact to 1e-6 once its step is near the smallest deviation, 0.22.

        The grid holds all but 1e-9 of the mass.
        """
        axis = torch.linspace(-4, 4, side, dtype=DOUBLE)
        grid = torch.cartesian_prod(axis, axis)
        out = by_ode(mixture(kind()), grid, batch=20_000, rtol=1e-4, atol=1e-4)
        total = float(out.log_prob.exp().sum()) * (8 / (side - 1)) ** 2
        assert abs(total - 1) < 1e-3

    @pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 3, 2)])
    def test_any_shape(self, gaussian, shape):
        """The likelihood of independent entries is the sum of theirs."""
        x = torch.linspace(-1, 1, math.prod(shape), dtype=DOUBLE).reshape(shape)
        whole = FunctionScore(VP(), gaussian_eps(VP()))
        out = by_ode(whole, x, trace=ExactTrace())
        single = perfect_likelihood(gaussian(VP()), x.reshape(-1, 1), 1e-5)
        expected = single.reshape(shape[0], -1).sum(1)
        dims = math.prod(shape[1:])
        torch.testing.assert_close(out.log_prob, expected, rtol=0, atol=2e-5 * dims)
        assert out.latent.shape == shape

    def test_latent_of_a_gaussian(self, gaussian):
        """The map is affine, x = 0.799022942714496 where x_T = 1 (VP, 1e-5)."""
        x = torch.tensor([[0.799022942714496]], dtype=DOUBLE)
        assert float(by_ode(gaussian(VP()), x, **TIGHT).latent) == pytest.approx(1.0)


def gaussian_eps(sde, mean=0.3):
    """ε of N(mean, 0.5² I) at any shape: σ (x − α m)/(α² 0.25 + σ²)."""

    def eps(x, t):
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        return sigma * (x - alpha * mean) / (0.25 * alpha**2 + sigma**2)

    return eps


class TestHutchinson:
    """Mean and spread over probes, in closed form for Gaussians."""

    CORRELATED = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=DOUBLE)

    def model(self):
        return GaussianMixture(VP(), [1.0], torch.zeros(1, 2, dtype=DOUBLE), self.CORRELATED[None])

    def test_no_variance_for_an_isotropic_gaussian(self, gaussian):
        model, x = gaussian(VP(), 5), torch.full((2, 5), 0.4, dtype=DOUBLE)
        out = by_ode(model, x, trace=Hutchinson(probes=3), seed=0)
        exact = by_ode(model, x, trace=ExactTrace())
        assert float(out.std_error.max()) < 1e-9
        torch.testing.assert_close(out.log_prob, exact.log_prob, rtol=0, atol=1e-9)

    def test_two_values_for_a_correlated_gaussian(self):
        x = torch.full((12, 2), 0.5, dtype=DOUBLE)
        settings = {"rtol": 1e-8, "atol": 1e-8, "method": "dopri8"}
        out = by_ode(self.model(), x, trace=Hutchinson(), seed=0, **settings)
        z = out.latent
        integral = out.log_prob + (0.5 * z**2 + 0.5 * math.log(2 * math.pi)).sum(1)
        values = torch.tensor([-0.234954988294, 2.201037527977], dtype=DOUBLE)
        which = (integral > 1).long()
        torch.testing.assert_close(integral, values[which], rtol=0, atol=1e-8)
        assert 0 < int(which.sum()) < 12

    @pytest.mark.parametrize(
        ("probe", "spread"), [("rademacher", 1.217996258), ("gaussian", 1.645429941)]
    )
    def test_mean_and_reported_error(self, probe, spread):
        samples, probes = 512, 8
        x = torch.full((samples, 2), 0.5, dtype=DOUBLE)
        out = by_ode(self.model(), x, trace=Hutchinson(probe, probes), seed=0, **LOOSE)
        exact = by_ode(self.model(), x[:1], trace=ExactTrace(), **LOOSE)
        assert abs(float(out.log_prob.mean() - exact.log_prob)) < 4 * spread / 64 + 1e-3
        # Variances are estimated without bias. 4096 integrals tell the deviation of the Gaussian
        # ones, whose fourth moment is 15 times the squared variance, to 3 %. With n instead of
        # n − 1 it would be 6 % too low.
        stated = float(out.std_error.square().mean().sqrt())
        assert stated == pytest.approx(spread / math.sqrt(probes), rel=0.05)

    def test_standard_error_is_never_a_guess(self, gaussian):
        x = torch.zeros(2, 3, dtype=DOUBLE)
        single = by_ode(gaussian(VP(), 3), x, trace=Hutchinson(), seed=0, **LOOSE)
        exact = by_ode(gaussian(VP(), 3), x, trace=ExactTrace(), **LOOSE)
        assert torch.isnan(single.std_error).all()
        assert exact.std_error.tolist() == [0.0, 0.0]

    def test_auto_is_exact_in_low_dimension_only(self, gaussian):
        loose = {"rtol": 0.1, "atol": 0.1, "method": "bosh3"}  # the value does not matter here
        low = by_ode(gaussian(VP(), 16), torch.zeros(1, 16), **loose)
        high = by_ode(gaussian(VP(), 17), torch.zeros(1, 17), seed=0, **loose)
        assert low.method.trace == ExactTrace()
        assert high.method.trace == Hutchinson("rademacher", 1)


class TestRandomnessAndBatches:
    """Seeds fix every bit; batches and labels do not mix."""

    def run(self, model, x, **settings):
        return by_ode(model, x, trace=Hutchinson(probes=2), **LOOSE, **settings)

    def test_a_seed_fixes_every_bit(self, mixture, rng_untouched):
        first, again, other = (self.run(mixture(VP()), POINTS, seed=s) for s in (1, 1, 2))
        assert torch.equal(first.log_prob, again.log_prob)
        assert torch.equal(first.std_error, again.std_error)
        assert not torch.equal(first.log_prob, other.log_prob)
        assert (first.seed, other.seed) == (1, 2)

    def test_noise_of_the_same_seed_is_the_same(self, mixture):
        seeded = self.run(mixture(VP()), POINTS, seed=3)
        given = self.run(mixture(VP()), POINTS, noise=SampleNoise(3, range(6)))
        shared = self.run(mixture(VP()), POINTS, noise=BatchNoise(3))
        assert torch.equal(seeded.log_prob, given.log_prob)
        assert not torch.equal(seeded.log_prob, shared.log_prob)

    @pytest.mark.parametrize(("samples", "batch"), [(3, 1), (6, 4)])
    def test_chunks_do_not_matter_beyond_the_tolerance(self, mixture, samples, batch):
        x = POINTS[:samples]
        whole = self.run(mixture(VP()), x, seed=0)
        chunked = self.run(mixture(VP()), x, seed=0, batch=batch)
        # the whole batch has one step size
        bound = 20 * LOOSE["rtol"] * (1 + whole.log_prob.abs())
        assert ((chunked.log_prob - whole.log_prob).abs() < bound).all()
        assert chunked.latent.shape == x.shape

    @pytest.mark.parametrize("tolerance", [1e-3, 1e-5, pytest.param(1e-7, marks=pytest.mark.slow)])
    def test_easy_batch_mates_do_not_spoil_a_hard_sample(self, mixture, tolerance):
        easy = 0.3 * torch.randn(63, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
        settings = {"rtol": tolerance, "atol": tolerance}
        alone = by_ode(mixture(VP()), POINTS[4:5], **settings).log_prob[0]
        together = by_ode(mixture(VP()), torch.cat([POINTS[4:5], easy]), **settings).log_prob[0]
        assert abs(float(alone - together)) < 20 * tolerance * (1 + abs(float(alone)))

    def test_labels_follow_the_chunks(self):
        x, y = torch.zeros(5, 1, dtype=DOUBLE), torch.tensor([0, 1, 2, 1, 0])
        models = [GaussianMixture(VP(), [1.0], [[float(c)]], [0.25]) for c in y]
        expected = [float(perfect_likelihood(m, x[:1], 1e-5)) for m in models]
        whole = by_ode(Labelled(VP()), x, y=y)
        given = by_ode(Labelled(VP()), x, y=y, batch=2)
        bound = by_ode(Labelled(VP()).given(y), x, batch=2)
        for out in (whole, given, bound):
            assert out.log_prob.tolist() == pytest.approx(expected, abs=2e-5)

    def test_empty_batch(self, gaussian):
        model = gaussian(VP(), 3)
        out = by_ode(model, torch.empty(0, 3), trace=Hutchinson(probes=2), seed=0)
        assert out.log_prob.shape == out.std_error.shape == out.dof.shape == (0,)
        assert out.latent.shape == (0, 3)
        assert out.nfe == out.nfe_derivative == model.nfe.forward == 0


class Labelled(ScoreModel):
    """N(y, 0.5²) for label y."""

    def eps(self, x, t):
        node = self.sde.at(t, x)
        mean = self.y.reshape(-1, 1).to(x)
        self.nfe.add_forward(node.t)
        return node.sigma * (x - node.alpha * mean) / (0.25 * node.alpha**2 + node.sigma**2)


class TestCountsAndRecord:
    def test_evaluations_are_counted_at_the_call(self):
        calls = []

        def eps(x, t):
            calls.append(float(t))
            return gaussian_eps(VP())(x, t)

        model = FunctionScore(VP(), eps)
        x = torch.zeros(2, 3, dtype=DOUBLE)
        exact = by_ode(model, x, trace=ExactTrace())
        assert exact.nfe == len(calls)
        assert exact.nfe_derivative == 3 * len(calls)
        # dopri5: 6 per attempted step, 2 for the first step size
        counts = exact.counts
        assert counts.evaluations.tolist() == [exact.nfe] * 2
        assert torch.equal(counts.evaluations, 6 * (counts.accepted + counts.rejected) + 2)
        assert all(1e-5 <= t <= 1 for t in calls)
        calls.clear()
        probed = by_ode(model, x, trace=Hutchinson(probes=4), seed=0)
        assert (probed.nfe, probed.nfe_derivative) == (len(calls), 4 * len(calls))

    def test_what_is_needed_to_repeat_it(self, gaussian):
        out = by_ode(
            gaussian(VP(), 2), torch.zeros(1, 2), t_min=1e-3, rtol=1e-3, atol=1e-4, method="bosh3"
        )
        assert out.t_min == 1e-3
        method = out.method
        assert (method.method, method.rtol, method.atol) == ("bosh3", 1e-3, 1e-4)
        assert (method.trace, out.seed) == (ExactTrace(), None)

    def test_bits_per_dim_only_of_quantized_data(self, gaussian):
        out = by_ode(gaussian(VP(), 2), torch.zeros(1, 2, dtype=DOUBLE))
        expected = -float(out.log_prob) / 2 / math.log(2) + 7
        found = out.bits_per_dim(DataSpec((2,), -1.0, 1.0, levels=256))
        assert float(found) == pytest.approx(expected, rel=1e-14)
        with pytest.raises(ValueError, match="needs quantized data"):
            out.bits_per_dim(DataSpec((2,), -1.0, 1.0))

    def test_inputs_and_weights_are_left_alone(self, mixture):
        model, x = mixture(VP()), POINTS.clone()
        with torch.inference_mode():
            by_ode(model, x, **LOOSE)
        by_ode(model, x, **LOOSE)
        assert torch.equal(x, POINTS)
        assert not x.requires_grad

    def test_float32_agrees_with_float64(self, mixture):
        """To rounding of the network."""
        single = by_ode(mixture(VP()), POINTS.float())
        double = by_ode(mixture(VP()), POINTS.float().double())
        bits = (single.log_prob - double.log_prob).abs() / (2 * math.log(2))
        assert float(bits.max()) < 5e-4
        assert single.log_prob.dtype == DOUBLE
        assert single.latent.dtype == torch.float32


class TestEncode:
    """Codes are decoded by a sampler, and are those of the likelihood."""

    def test_a_sampler_decodes_it(self, mixture):
        """Like `round_trip`, which is tested at other tolerances and under other SDEs."""
        model, tolerance, bound = mixture(VP()), 1e-6, 2e-3
        x = 0.3 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
        code = solve(encode, model, x, rtol=tolerance, atol=tolerance)
        ts = torch.tensor([1.0, 1e-5], dtype=DOUBLE)
        decoder = ProbabilityFlowODE("dopri5", tolerance, tolerance)
        with torch.no_grad():
            back = decoder.run(model, code.latent, ts, BatchNoise(0)).state
        assert float((back - x).abs().max()) < bound

    def test_is_the_latent_of_the_likelihood(self, mixture):
        model = mixture(VP())
        code = encode(model, POINTS, batch=4)
        assert model.nfe.derivative == 0
        assert 0 < code.nfe < model.nfe.forward  # two chunks
        out = by_ode(model, POINTS)
        # steps of other sizes, each good to 1e-6
        torch.testing.assert_close(code.latent, out.latent, rtol=2e-5, atol=2e-5)


class TestFailures:
    """An exception that names time and cause, within two seconds."""

    @pytest.fixture(autouse=True)
    def soon(self):
        start = time.process_time()
        yield
        assert time.process_time() - start < 2

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("after", [0.0, 0.3, 0.99])
    def test_network_not_finite(self, value, after):
        def eps(x, t):
            return x * (value if float(t) > after else 1.0)

        with pytest.raises(RuntimeError, match=r"network output at t=.*non-finite values of 4"):
            by_ode(FunctionScore(VP(), eps), torch.ones(2, 2), **LOOSE)

    def test_network_of_a_wrong_shape(self):
        model = FunctionScore(VP(), lambda x, t: x[:, :1])
        with pytest.raises(
            RuntimeError, match=r"network returned \(2, 1\) for x of shape \(2, 2\)"
        ):
            by_ode(model, torch.ones(2, 2))

    def test_derivative_not_finite(self):
        model = FunctionScore(VP(), lambda x, t: x.abs().sqrt())
        with pytest.raises(RuntimeError, match="derivative of the network at t=1e-05"):
            by_ode(model, torch.zeros(1, 2))

    def test_network_without_a_gradient(self):
        model = FunctionScore(VE(), lambda x, t: x.detach())
        with pytest.raises(RuntimeError, match="not differentiable"):
            by_ode(model, torch.ones(1, 2))

    def test_budget_of_evaluations(self, mixture):
        with pytest.raises(RuntimeError, match=r"limit of 20 network evaluations .* at t=0\.\d+"):
            by_ode(mixture(VP()), POINTS, max_nfe=20)

    def test_budget_counts_each_chunk(self, mixture):
        need = by_ode(mixture(VP()), POINTS[:1], **LOOSE).nfe
        out = by_ode(mixture(VP()), POINTS[:1].expand(2, 2), batch=1, max_nfe=need, **LOOSE)
        assert out.nfe == need

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (
                {"x": torch.zeros(2, 2, dtype=torch.uint8)},
                TypeError,
                "x must be float32 or float64",
            ),
            ({"x": torch.zeros(2, 2).half()}, TypeError, "x must be float32 or float64"),
            ({"x": torch.zeros(())}, ValueError, "x must have shape"),
            ({"x": torch.zeros(2, 0)}, ValueError, "x must have shape"),
            ({"x": torch.tensor([[math.nan, 0.0]])}, ValueError, "1 non-finite values of 2"),
            ({"t_min": 0}, ValueError, "t_min must be greater than 0 for VP"),
            ({"t_min": 1}, ValueError, "t_min must be less than 1"),
            ({"t_min": -1e-3}, ValueError, "t_min must be at least 0"),
            ({"t_min": math.nan}, ValueError, "t_min must be finite"),
            ({"rtol": 0}, ValueError, "rtol must be greater than 0"),
            ({"rtol": 1e-12}, ValueError, "at least 1e-07 in float32"),
            ({"atol": 1e-8}, ValueError, "at least 1e-07 in float32"),
            ({"method": "euler"}, ValueError, "method must be one of"),
            ({"trace": "skilling"}, ValueError, "trace 'skilling' is unknown"),
            ({"trace": Hutchinson()}, ValueError, "exactly one of seed and noise must be given"),
            ({"seed": -1, "trace": Hutchinson()}, ValueError, "seed must be at least 0"),
            ({"per_sample": True, "method": "dopri8"}, ValueError, "method must be one of dop853"),
            ({"control": "data"}, TypeError, "control must be a GaussianMixture, got str"),
            ({"seed": 1, "noise": BatchNoise(0)}, ValueError, "at most one of seed and noise"),
            ({"noise": BatchNoise(0), "batch": 1}, ValueError, "batch needs a seed"),
            ({"batch": 0}, ValueError, "batch must be at least 1"),
            ({"max_nfe": 0}, ValueError, "max_nfe must be at least 1"),
            ({"y": torch.zeros(3)}, ValueError, "y must be None: .* takes no condition"),
            (
                {"x": torch.zeros(1, 4097), "trace": ExactTrace()},
                ValueError,
                "D = 4097 derivative passes per evaluation, more than 4096.*force=True",
            ),
        ],
    )
    def test_bad_arguments(self, change, error, message):
        model = FunctionScore(VP(), gaussian_eps(VP()))
        with pytest.raises(error, match=message):
            by_ode(model, **{"x": torch.zeros(2, 2), **change})
        assert model.nfe.forward == 0

    def test_t_min_may_be_zero_where_sigma_is_not(self, gaussian):
        out = by_ode(gaussian(VE()), torch.zeros(1, 1), t_min=0, **LOOSE)
        assert torch.isfinite(out.log_prob).all()

    def test_float32_network_under_float64_data(self):
        class Net(torch.nn.Linear):
            def forward(self, x, t):
                return super().forward(x)

        model = FunctionScore(VP(), Net(2, 2))
        with pytest.raises(ValueError, match="in float32"):
            by_ode(model, torch.zeros(1, 2, dtype=DOUBLE), rtol=1e-9)


def test_a_seed_of_numpy_is_kept_as_a_number(mixture):
    model = mixture(VP())
    found = log_likelihood(model, model.sample(1, seed=0), Path(steps=2, nodes=2), seed=np.int64(3))
    assert (found.seed, type(found.seed)) == (3, int)


def test_bits_per_dim_of_known_densities():
    """The uniform density on [−1, 1] is worth exactly 8 bits, N(0, 1) at 0 8.325748065."""

    def bits(log_prob, dims):
        zeros = torch.zeros_like(log_prob)
        found = Likelihood(log_prob, zeros, zeros, zeros, 0, 0, 1e-5, Path())
        return float(found.bits_per_dim(DataSpec((dims,), -1.0, 1.0, levels=256)))

    assert bits(torch.full((1,), 12 * -math.log(2), dtype=DOUBLE), 12) == 8.0
    normal = torch.tensor([3 * -0.5 * math.log(2 * math.pi)], dtype=DOUBLE)
    assert bits(normal, 3) == pytest.approx(8.325748065, abs=1e-9)
