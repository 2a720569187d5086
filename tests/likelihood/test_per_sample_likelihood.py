"""Likelihoods with a step size per sample: exact densities, and independence of batch mates."""

import math

import pytest
import torch
from calls import by_ode, solve
from torch import nn

from scoresde.exact import GaussianMixture
from scoresde.ivp import Adaptive, AdaptivePerSample, SolverError, Status
from scoresde.likelihood import Hutchinson, HutchPP, Probing, XTrace, encode
from scoresde.noise import SampleNoise
from scoresde.score import FunctionScore, NetworkScore, Preconditioning, ScoreModel
from scoresde.sde import VE, VP, SubVP

DOUBLE = torch.float64
EACH = {"per_sample": True}
LOOSE = {"per_sample": True, "rtol": 1e-2, "atol": 1e-2}


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


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


def references(**fast):
    """(method, SDE, t_min, values) for both methods; only the SDEs `fast` from 1e-5 are fast."""
    return [
        pytest.param(
            method,
            kind,
            t_min,
            torch.tensor(values, dtype=DOUBLE),
            id=f"{method}-{kind.__name__}-{t_min:g}",
            marks=[] if t_min == 1e-5 and kind in fast.get(method, ()) else pytest.mark.slow,
        )
        for (kind, t_min), values in REFERENCE.items()
        for method in ("dop853", "dopri5")
    ]


class TestAgainstExactDensities:
    """At two tolerances and for each method."""

    @pytest.mark.parametrize(("method", "kind", "t_min", "expected"), references(dop853=[VE]))
    @pytest.mark.slow
    def test_mixture_at_a_tight_tolerance(self, mixture, method, kind, t_min, expected):
        tight = {"rtol": 1e-9, "atol": 1e-9, "method": method}
        out = by_ode(mixture(kind()), POINTS, t_min=t_min, **tight, **EACH)
        assert float((out.log_prob - expected).abs().max()) < 1e-6  # measured below 1e-7

    @pytest.mark.parametrize(
        ("method", "kind", "t_min", "expected"), references(dop853=[SubVP, VE], dopri5=[VP])
    )
    @pytest.mark.by_default("dopri5")
    def test_mixture_at_the_default_tolerance(self, mixture, method, kind, t_min, expected):
        out = by_ode(mixture(kind()), POINTS, t_min=t_min, method=method, **EACH)
        bits = (out.log_prob - expected).abs() / (2 * math.log(2))
        assert float(bits.max()) < 1e-3  # measured below 4e-5

    @pytest.mark.slow
    def test_agrees_with_one_step_size_for_all(self, mixture):
        model = mixture(VP())
        together, each = (by_ode(model, POINTS, per_sample=p) for p in (False, True))
        assert isinstance(together.method.solver, Adaptive)
        assert isinstance(each.method.solver, AdaptivePerSample)
        bound = 20e-6 * (1 + together.log_prob.abs())
        assert ((together.log_prob - each.log_prob).abs() < bound).all()
        torch.testing.assert_close(together.latent, each.latent, rtol=2e-5, atol=2e-5)


RULES = [Hutchinson(probes=2), Hutchinson("orthogonal", 2), Probing(2, 2), HutchPP(6), XTrace(4)]


class TestBatches:
    """A sample is the same alone, in any batch, in any order."""

    @pytest.mark.parametrize("method", ["dopri5", slow("dop853"), slow("bosh3")])
    @pytest.mark.by_default("VE", "Linear")
    def test_alone_permuted_or_in_chunks(self, sde, mixture, method):
        """The same to rounding, and exactly the same counts, on every SDE."""
        model, settings = mixture(sde), {"method": method, **LOOSE}
        whole = by_ode(model, POINTS, **settings)
        assert len(set(whole.counts.evaluations.tolist())) > 1  # else nobody would leave early
        order = [5, 2, 0]
        part = by_ode(model, POINTS[order], **settings)
        torch.testing.assert_close(part.log_prob, whole.log_prob[order], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(part.latent, whole.latent[order], rtol=1e-10, atol=1e-10)
        assert torch.equal(part.counts.evaluations, whole.counts.evaluations[order])
        parts = by_ode(model, POINTS, batch=4, **settings)
        torch.testing.assert_close(parts.log_prob, whole.log_prob, rtol=1e-10, atol=1e-10)
        assert torch.equal(parts.counts.rejected, whole.counts.rejected)

    @pytest.mark.parametrize("rule", RULES, ids=repr)
    @pytest.mark.by_default("Hutchinson(probe='rademacher', probes=2)", "XTrace(budget=4)")
    def test_probes_stay_with_their_samples(self, mixture, rule):
        model, settings = mixture(VP()), {"trace": rule, **LOOSE}
        whole = by_ode(model, POINTS, seed=5, **settings)
        order = [5, 2, 0]
        part = by_ode(model, POINTS[order], noise=SampleNoise(5, order), **settings)
        torch.testing.assert_close(part.log_prob, whole.log_prob[order], rtol=1e-10, atol=1e-10)

    @pytest.mark.slow
    def test_a_float32_network(self):
        """Rounding may change whether a step is accepted; steps then differ within tolerance."""
        model, tolerance = NetworkScore(_Net(), VP(), Preconditioning()), 1e-3
        x = torch.randn(3, 1, 4, 3, generator=torch.Generator().manual_seed(1))
        settings = {"seed": 0, "trace": Hutchinson(probes=2), **EACH}
        settings |= {"rtol": tolerance, "atol": tolerance}
        whole = by_ode(model, x, **settings)
        alone = by_ode(model, x, batch=1, **settings)
        bound = 20 * tolerance * (1 + whole.log_prob.abs())
        assert ((whole.log_prob - alone.log_prob).abs() < bound).all()

    def test_labels_stay_with_their_samples(self):
        """A label sets the width of its density, and so the number of steps of its sample."""
        x, y = torch.full((5, 1), 0.4, dtype=DOUBLE), torch.tensor([3, 0, 2, 1, 0])
        whole = by_ode(Widths(VP()), x, y=y, **EACH)
        bound = by_ode(Widths(VP()).given(y), x, batch=2, **EACH)
        assert len(set(whole.counts.evaluations.tolist())) > 1
        torch.testing.assert_close(whole.log_prob, bound.log_prob, rtol=1e-10, atol=1e-10)
        for label, value in zip(y.tolist(), whole.log_prob.tolist(), strict=True):
            single = GaussianMixture(VP(), [1.0], torch.zeros(1, 1), [Widths.variance(label)])
            # truncation, mismatch and the solver
            assert value == pytest.approx(float(single.log_prob(x[:1])), abs=2e-3)

    def test_empty_batch(self, gaussian):
        model = gaussian(VP(), 3)
        out = by_ode(model, torch.empty(0, 3), **EACH)
        assert out.log_prob.shape == out.counts.status.shape == out.dof.shape == (0,)
        assert out.nfe == model.nfe.forward == 0


class Widths(ScoreModel):
    """N(0, 4^−y) for label y."""

    @staticmethod
    def variance(label):
        return 4.0**-label

    def eps(self, x, t):
        node = self.sde.at(t, x)
        self.nfe.add_forward(node.t)
        variance = self.variance(self.y.reshape(-1, 1).to(x))
        return node.sigma * x / (variance * node.alpha**2 + node.sigma**2)


class _Net(nn.Module):
    """A small network in float32 whose output for a sample depends on that sample alone."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x, label, y):
        level = label.to(x.dtype)[:, None, None, None].expand_as(x)
        return x + self.last(torch.tanh(self.first(torch.cat([x, level], dim=1))))


class TestCounts:
    def test_each_sample_has_its_own(self, mixture):
        calls = []

        class Counted(FunctionScore):
            def eps(self, x, t):
                calls.append(len(x))
                return super().eps(x, t)

        exact = mixture(VP())
        out = by_ode(Counted(VP(), lambda x, t: exact.eps(x, t)), POINTS, **LOOSE)
        counts = out.counts
        assert counts.status.tolist() == [Status.DONE] * 6
        assert torch.equal(counts.evaluations, 2 + 6 * (counts.accepted + counts.rejected))
        # the model is called as long as anybody runs, by those that run
        assert out.nfe == len(calls) == int(counts.evaluations.max())
        assert sum(calls) == int(counts.evaluations.sum())
        assert out.nfe_derivative == 2 * out.nfe

    def test_encode(self, mixture):
        model = mixture(VP())
        code = solve(encode, model, POINTS, batch=4, **EACH)
        out = by_ode(model, POINTS, **EACH)
        torch.testing.assert_close(code.latent, out.latent, rtol=2e-5, atol=2e-5)
        assert (code.counts.evaluations <= out.counts.evaluations).all()
        assert isinstance(code.method.solver, AdaptivePerSample)


class TestFailures:
    """Errors name the time and the sample."""

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("after", [0.0, 0.3, 0.99])
    def test_network_not_finite(self, value, after):
        def eps(x, t):
            return torch.where(t.reshape(-1, 1) > after, value, 1.0) * x

        with pytest.raises(RuntimeError, match=r"network output at t=.*non-finite values of"):
            by_ode(FunctionScore(VP(), eps), torch.ones(2, 2), **LOOSE)

    def test_derivative_not_finite(self):
        model = FunctionScore(VP(), lambda x, t: x.abs().sqrt())
        with pytest.raises(RuntimeError, match="derivative of the network at t=1e-05"):
            by_ode(model, torch.zeros(1, 2), **LOOSE)

    def test_the_sample_is_named_by_its_place_in_the_data(self, mixture):
        """Not in its chunk. The last of them is the one that needs most."""
        needs = by_ode(mixture(VP()), POINTS, **LOOSE).counts.evaluations
        order = needs.argsort()
        settings = {"batch": 2, "max_nfe": int(needs[order[-2]]), **LOOSE}
        with pytest.raises(SolverError, match=r"on 1 of 2 samples, first on sample 5 at t=0\.\d+"):
            by_ode(mixture(VP()), POINTS[order], **settings)

    def test_the_sample_is_named_by_its_stream(self, mixture):
        """If the caller makes the chunks, the noise holds the indices of the samples."""
        noise = SampleNoise(0, [17, 31])
        with pytest.raises(SolverError, match="first on sample 17"):
            by_ode(mixture(VP()), POINTS[:2], noise=noise, max_nfe=20, **EACH)
