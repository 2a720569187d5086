"""Log-likelihood along a corrected path: its identity, its noise, and its contract."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from calls import by_ode, by_path, solve
from torch import nn

from scoresde.exact import GaussianMixture
from scoresde.likelihood import ExactTrace, Hutchinson, Path, Probing, encode, fit_gaussian
from scoresde.likelihood.flow import log_prior
from scoresde.likelihood.path.node_error import error_of_sum
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.score import FunctionScore, NetworkScore, Preconditioning, ScoreModel
from scoresde.sde import VE, VP, SubVP

DOUBLE = torch.float64
T_MIN = 1e-5
POINTS = torch.tensor(
    [[0, 0], [-1, 0.5], [0.8, -0.6], [0.3, 1.2], [2, -1.5], [-3, 2]], dtype=DOUBLE
)
PROBED = [Hutchinson(), Hutchinson("gaussian", 2), Hutchinson(probes=4), Probing(2), ExactTrace()]


def slow(cases):
    """Cases, each a sequence of parameters, that only `-m slow` runs."""
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def some_path(**changes):
    """All settings named, so that no default matters here."""
    settings = {"steps": 16, "nodes": 16, "trace": Hutchinson(), "order": 3, "scale": 0.5}
    return Path(**{**settings, "spread": 1 / 6, **changes})


def converged(model, x, t_min=T_MIN):
    """The value of a perfect solver of the ODE, from the exact densities at its two ends.

    log p_ε(x) + log prior(x_T) − log p_1(x_T): no trace is computed, and only x_T is integrated.
    """
    # An error of x_T enters by the gradient of the prior's mismatch alone, which is small.
    z = solve(encode, model, x, t_min=t_min, rtol=1e-5, atol=1e-5).latent
    return ends(model, x, z, t_min)


def ends(model, x, z, t_min=T_MIN):
    """log p_ε(x) + log prior(z) − log p_1(z), where z is the end of any path."""
    prior = log_prior(z, model.sde.prior_std)
    return model.log_prob(x, t_min) + prior - model.log_prob(z, 1.0)


def correlated(sde, dims, shape=None):
    root = torch.randn(dims, dims, generator=torch.Generator().manual_seed(dims), dtype=DOUBLE)
    cov = root @ root.T / dims + 0.05 * torch.eye(dims, dtype=DOUBLE)
    mean = torch.linspace(-1, 1, dims, dtype=DOUBLE).reshape(1, *(shape or (dims,)))
    return GaussianMixture(sde, [1.0], mean, cov[None])


class TestIdentity:
    """(*) is exact on any path, so that a coarse path gives the density of its own two ends."""

    # nodes so many that what they add is far below the correction of the path
    @pytest.mark.parametrize(
        ("steps", "nodes"), [pytest.param(4, 300, marks=pytest.mark.slow), (8, 100)]
    )
    @pytest.mark.by_default("VP", "Linear")
    def test_the_correction_pays_for_a_coarse_path(self, sde, mixture, steps, nodes):
        model = mixture(sde)
        settings = some_path(steps=steps, nodes=nodes, trace=ExactTrace())
        out = by_path(model, POINTS, path=settings, seed=0)
        at_its_ends = (out.log_prob - ends(model, POINTS, out.latent)).abs().max()
        error = out.log_prob - converged(model, POINTS)
        # joints of the path's cubics under the nodes: measured at most 1.2e-3
        assert float(at_its_ends) < 2e-3
        # that x_T is off only the prior's mismatch sees: measured at most 1.3e-3
        assert float(error.abs().max()) < 2e-3
        uncorrected = float((error - out.correction).abs().max())
        assert uncorrected > max(0.1, 10 * float(error.abs().max()))

    def test_error_falls_with_the_steps(self, mixture):
        model, expected = mixture(VP()), converged(mixture(VP()), POINTS)
        errors = []
        for steps in (4, 16):
            settings = some_path(steps=steps, nodes=80, trace=ExactTrace())
            out = by_path(model, POINTS, path=settings, seed=0)
            errors.append([float(v.abs().max()) for v in (out.log_prob - expected, out.correction)])
        assert errors[1][0] < 0.25 * errors[0][0]
        assert errors[1][1] < 0.1 * errors[0][1]

    @pytest.mark.parametrize("order", [1, *slow([[2], [4]])])
    def test_whatever_the_order_of_the_path(self, mixture, order):
        settings = some_path(steps=10, nodes=100, order=order, trace=ExactTrace())
        out = by_path(mixture(VP()), POINTS, path=settings, seed=0)
        expected = ends(mixture(VP()), POINTS, out.latent)
        assert float((out.log_prob - expected).abs().max()) < 1e-3

    @pytest.mark.parametrize(
        ("kind", "scale", "spread"),
        [
            (VP, 0.2, 0.5),
            (VE, 3.0, 0.05),
            *slow(itertools.product((VP, VE), (0.1, 1.0, 3.0), (0.05, 0.5))),
        ],
    )
    @pytest.mark.by_default("VE")
    def test_whatever_the_coordinates(self, mixture, kind, scale, spread):
        settings = {"steps": 48, "nodes": 150, "trace": ExactTrace()}
        settings = some_path(scale=scale, spread=spread, **settings)
        model = mixture(kind())
        out = by_path(model, POINTS, path=settings, seed=0)
        error = (out.log_prob - ends(model, POINTS, out.latent)).abs().max()
        # where there are few nodes, the integrand's joints count more: measured at most 1.2e-2
        assert float(error) < 2e-2

    @pytest.mark.parametrize("kind", [VP, *slow([[SubVP], [VE]])])
    def test_is_the_ode_s_value(self, mixture, kind):
        """At the default tolerance, 1e-6, by another integral of the same field."""
        model = mixture(kind())
        expected = by_ode(model, POINTS, trace=ExactTrace())
        settings = some_path(steps=48, nodes=100, trace=ExactTrace())
        out = by_path(model, POINTS, path=settings, seed=0)
        torch.testing.assert_close(out.log_prob, expected.log_prob, rtol=0, atol=5e-4)
        torch.testing.assert_close(out.latent, expected.latent, rtol=2e-3, atol=2e-3)


class TestUnbiased:
    """Few nodes and any rule: the mean over seeds is the value with many nodes."""

    @pytest.mark.parametrize(
        ("nodes", "controlled", "trace"),
        [
            *itertools.product([4], [False], PROBED),
            (4, True, PROBED[0]),
            *slow(itertools.product([4], [True], PROBED[1:])),
            *slow(itertools.product([1], [False, True], PROBED)),
        ],
        ids=repr,
    )
    def test_mean_over_seeds(self, mixture, trace, controlled, nodes):
        model, n = mixture(VP()), 400
        control = fit_gaussian(VP(), model.sample(500, seed=1)) if controlled else None
        x = torch.tensor([[0.3, 1.2]], dtype=DOUBLE)
        fine = some_path(steps=8, nodes=60, trace=ExactTrace())
        expected = by_path(model, x, path=fine, control=control, seed=0)
        few = some_path(steps=8, nodes=nodes, trace=trace)
        # one stream per row: n seeds
        out = by_path(model, x.expand(n, 2), path=few, control=control, seed=1, t_min=T_MIN)
        error = float(out.log_prob.std()) / math.sqrt(n)
        assert abs(float(out.log_prob.mean() - expected.log_prob)) < 4 * error + 1e-4

    def test_the_correction_s_share(self, mixture):
        model, x = mixture(VP()), POINTS[4:5]
        settings = some_path(steps=6, nodes=150, trace=ExactTrace())
        expected = by_path(model, x, path=settings, seed=0).correction
        out = by_path(model, x.expand(400, 2), path=some_path(steps=6, nodes=6), seed=1)
        error = float(out.correction.std()) / math.sqrt(400)
        assert abs(float(out.correction.mean() - expected)) < 4 * error + 1e-4


class TestKnownPart:
    """∇·F₀ of a Gaussian is integrated in closed form, and leaves nothing if the data are one."""

    def perfect(self, model, x, latent):
        return ends(model, x, latent)

    @pytest.mark.parametrize("shape", [(5,), (1, 2, 3)])
    @pytest.mark.by_default("VE", "Linear")
    def test_isotropic_data_without_a_control(self, sde, gaussian, shape):
        """Rademacher probes of a multiple of I; d is the data's, and the path is straight."""
        model = gaussian(sde, *shape)
        centred = GaussianMixture(sde, [1.0], torch.zeros(1, *shape, dtype=DOUBLE), [0.25])
        x = model.sample(4, seed=0)
        settings = some_path(steps=2, nodes=4, scale=0.5)
        out = by_path(centred, x, path=settings, seed=0)
        torch.testing.assert_close(out.log_prob, ends(centred, x, out.latent), rtol=0, atol=1e-9)
        assert float(out.std_error.max()) < 1e-9
        assert float(out.correction.abs().max()) < 1e-9

    @pytest.mark.parametrize("scale", [0.3, 2.0])
    @pytest.mark.by_default("VE", "Linear")
    def test_isotropic_data_with_their_control(self, sde, gaussian, scale):
        """Whatever d: the control's variances take its place, and every node gives 0."""
        model = gaussian(sde, 5)
        x = model.sample(3, seed=0)
        fine = some_path(steps=64, nodes=6, scale=scale)
        out = by_path(model, x, path=fine, control=model, seed=0)
        rest = out.log_prob - out.correction
        known = log_prior(out.latent, sde.prior_std) + self.known(model)
        torch.testing.assert_close(rest, known, rtol=0, atol=1e-9)

    def known(self, model):
        first, last = model.sde.nodes(torch.tensor([T_MIN, 1.0], dtype=DOUBLE))
        variances = [n.alpha**2 * model.cov().diag() + n.sigma**2 for n in (first, last)]
        return 0.5 * torch.log(variances[1] / variances[0]).sum()

    def test_a_correlated_gaussian_by_an_exact_trace(self, sde):
        """For any covariance; the mean does not matter."""
        model = correlated(sde, 4)
        x = model.sample(3, seed=0)
        fine = some_path(steps=16, nodes=8, trace=ExactTrace())
        out = by_path(model, x, path=fine, control=model, seed=0)
        first, last = sde.nodes(torch.tensor([T_MIN, 1.0], dtype=DOUBLE))
        eye = torch.eye(4, dtype=DOUBLE)
        covs = [node.alpha**2 * model.cov() + node.sigma**2 * eye for node in (first, last)]
        known = 0.5 * (torch.logdet(covs[1]) - torch.logdet(covs[0]))
        known = known + log_prior(out.latent, sde.prior_std)
        torch.testing.assert_close(out.log_prob - out.correction, known, rtol=0, atol=1e-9)

    def test_a_control_changes_the_noise_only(self, mixture):
        """Even a Gaussian unrelated to the data does not change the mean."""
        model, x = mixture(VP()), POINTS[:3]
        settings = some_path(steps=16, nodes=80, trace=ExactTrace())
        plain = by_path(model, x, path=settings, seed=0)
        for other in (fit_gaussian(VP(), model.sample(200, seed=1)), correlated(VP(), 2)):
            out = by_path(model, x, path=settings, control=other, seed=0)
            torch.testing.assert_close(out.log_prob, plain.log_prob, rtol=0, atol=5e-4)


class TestStandardError:
    @pytest.mark.parametrize(
        ("kind", "trace"),
        [
            (VP, Hutchinson()),
            (VE, Hutchinson(probes=2)),
            *slow([[VE, Hutchinson()], [VP, Hutchinson(probes=2)], [VP, Hutchinson(probes=4)]]),
        ],
    )
    def test_is_the_spread_over_seeds(self, kind, trace):
        """Root mean square over seeds, where probes are most of it: within 15 %."""
        model = correlated(kind(), 16)
        x = model.sample(1, seed=2).expand(800, 16)
        settings = some_path(nodes=24, trace=trace)
        out = by_path(model, x, path=settings, seed=0)
        stated = float(out.std_error.square().mean().sqrt())
        # 800 seeds tell the spread to 2.5 %
        assert stated == pytest.approx(float(out.log_prob.std()), rel=0.15)

    @pytest.mark.parametrize("kind", [VP, SubVP, VE])
    @pytest.mark.parametrize("nodes", [16, *slow([[8], [32], [96]])])
    def test_is_no_less_than_the_error_of_the_nodes(self, mixture, kind, nodes):
        """Without probes: from neighbours' differences, or for many nodes from the two ends."""
        x = POINTS.repeat_interleave(30, 0)
        settings = some_path(steps=max(32, nodes), nodes=nodes, trace=ExactTrace())
        model = mixture(kind())
        out = by_path(model, x, path=settings, seed=0)
        errors = out.log_prob - ends(model, x, out.latent)
        stated = out.std_error.square().mean().sqrt()
        assert float(stated) > float(errors.square().mean().sqrt())

    @pytest.mark.parametrize("nodes", [1, 2])
    def test_two_nodes_without_known_errors_cannot_tell(self, mixture, nodes):
        for trace in (Hutchinson(), ExactTrace()):
            settings = some_path(nodes=nodes, trace=trace)
            out = by_path(mixture(VP()), POINTS, path=settings, seed=0)
            assert torch.isnan(out.std_error).all()
            assert torch.isnan(out.half_width()).all()
            assert torch.isfinite(out.log_prob).all()

    def test_falls_as_the_root_of_the_nodes(self):
        model = correlated(VP(), 16)
        x = model.sample(1, seed=2).expand(300, 16)
        stated = []
        for nodes in (24, 96):
            settings = some_path(nodes=nodes, trace=Hutchinson(probes=2))
            out = by_path(model, x, path=settings, seed=0)
            stated.append(float(out.std_error.square().mean().sqrt()))
        assert stated[0] / stated[1] == pytest.approx(2, rel=0.1)

    def test_half_width_is_student_s(self, mixture):
        out = by_path(mixture(VP()), POINTS, path=some_path(), seed=0)
        assert (out.dof >= 1).all()
        for level, tail in ((0.95, 0.05), (0.5, 0.5)):
            t = out.half_width(level) / out.std_error
            # P(|T| > t) = I_{ν/(ν + t²)}(ν/2, ½), by quadrature of the density
            for value, nu in zip(t.tolist(), out.dof.tolist(), strict=True):
                assert student_tail(value, nu) == pytest.approx(tail, rel=1e-4)
        torch.testing.assert_close(out.half_width(), out.half_width(0.95))
        with pytest.raises(ValueError, match="level must be less than 1, got 1"):
            out.half_width(1)


def student_tail(t, nu):
    """P(|T| > t) of Student's t, by 200,000 midpoints in the angle arctan(x/√ν)."""
    angle = (torch.arange(200_000, dtype=DOUBLE) + 0.5) / 200_000
    edge = math.atan(t / math.sqrt(nu))
    inside = torch.cos(angle * edge) ** (nu - 1) * edge
    whole = torch.cos(angle * math.pi / 2) ** (nu - 1) * math.pi / 2
    return 1 - float(inside.mean() / whole.mean())


class TestErrorOfSum:
    """On constructed terms with known mean and variance."""

    def noise(self, m, n=20_000, seed=0):
        return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)

    def test_white_noise_of_unknown_variance(self):
        terms = 0.3 * self.noise(24)
        error, dof = error_of_sum(terms, torch.zeros_like(terms))
        # the smallest of three estimates: a little low
        assert float(error.square().mean()) == pytest.approx(24 * 0.09, rel=0.1)
        assert 3 < float(dof.mean()) < 24

    def test_a_smooth_part_does_not_count(self):
        angle = (torch.arange(24, dtype=DOUBLE) + 0.5) / 24 * math.pi
        terms = 5 * torch.sin(angle) ** 2 + 0.1 * self.noise(24, 2000)
        plain, _ = error_of_sum(terms, torch.zeros_like(terms))
        known, _ = error_of_sum(terms, torch.full_like(terms, 0.1))
        assert float(plain.square().mean()) == pytest.approx(24 * 0.01, rel=0.15)
        # a quarter of what alternating sums exceed it by, which noise makes positive half the time
        assert 24 * 0.01 <= float(known.square().mean()) < 1.3 * 24 * 0.01

    def test_known_errors_that_differ(self):
        errors = torch.zeros(1, 20, dtype=DOUBLE)
        errors[0, 5:8] = 1.0
        terms = torch.zeros(1, 20, dtype=DOUBLE)
        error, dof = error_of_sum(terms, errors)
        assert float(error) == pytest.approx(math.sqrt(3))
        # about as many as nodes that matter, not as many as there are
        assert 2 < float(dof) < 10

    def test_a_function_that_differs_at_its_ends(self):
        """∫ u du on [0, 1] by 50 nodes and one offset U: off by (U − ½)/50."""
        offset = (torch.arange(400, dtype=DOUBLE)[:, None] + 0.5) / 400
        terms = (torch.arange(50, dtype=DOUBLE) + offset) / 50 / 50
        spread = float((terms.sum(1) - 0.5).square().mean().sqrt())
        error, _ = error_of_sum(terms, torch.zeros_like(terms))
        # the first and the last node are 49/50 apart
        assert float(error.mean()) == pytest.approx(0.98 * spread, rel=1e-4)

    def test_no_samples(self):
        empty = torch.empty(0, 5, dtype=DOUBLE)
        error, dof = error_of_sum(empty, empty)
        assert error.shape == dof.shape == (0,)


class TestCost:
    @pytest.mark.parametrize("trace", [Hutchinson(), Hutchinson(probes=3), Probing(2, 2)])
    @pytest.mark.parametrize(("steps", "nodes"), [(1, 1), (5, 7)])
    def test_by_hand(self, steps, nodes, trace):
        calls = []

        def eps(x, t):
            calls.append(t)
            return 0.1 * x

        x = torch.ones(2, 4, dtype=DOUBLE)
        settings = some_path(steps=steps, nodes=nodes, trace=trace)
        out = by_path(FunctionScore(VP(), eps), x, path=settings, seed=0)
        assert out.nfe == len(calls) == steps + 1 + nodes
        assert out.nfe_derivative == nodes * trace.cost(4)
        assert [t.ndim for t in calls] == [0] * (steps + 1) + [1] * nodes
        times = torch.cat([t.reshape(-1) for t in calls])
        assert float(times.min()) >= T_MIN
        assert float(times.max()) <= 1

    def test_exact_trace(self, mixture):
        settings = some_path(steps=3, nodes=4, trace=ExactTrace())
        model = mixture(VP())
        out = by_path(model, POINTS, path=settings, seed=0)
        assert (out.nfe, out.nfe_derivative) == (8, 8)
        assert (model.nfe.forward, model.nfe.derivative) == (8, 8)

    def test_chunks_do_not_add_to_a_sample_s_cost(self, mixture):
        settings = some_path(steps=3, nodes=4)
        out = by_path(mixture(VP()), POINTS, path=settings, seed=0, batch=2)
        assert (out.nfe, out.nfe_derivative) == (8, 4)

    def test_record(self, mixture):
        settings = some_path(steps=3, nodes=4)
        out = by_path(mixture(VP()), POINTS, path=settings, seed=7, t_min=1e-3)
        wanted = replace(settings, t_min=1e-3)
        assert (out.method, out.seed, out.t_min) == (wanted, 7, 1e-3)
        noise = SampleNoise(7, range(6))
        given = by_path(mixture(VP()), POINTS, path=settings, noise=noise)
        assert given.seed is None


class Labelled(ScoreModel):
    """N(y, 0.5²) for label y."""

    def eps(self, x, t):
        node = self.sde.at(t, x)
        self.nfe.add_forward(node.t)
        mean = self.y.reshape(-1, 1).to(x)
        return node.sigma * (x - node.alpha * mean) / (0.25 * node.alpha**2 + node.sigma**2)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x, label, y=None):
        label = label.reshape(-1, 1, 1, 1).expand_as(x)
        return self.last(torch.tanh(self.first(torch.cat([x, label], dim=1))))


def conv_model(sde, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NetworkScore(ConvNet().to(dtype), sde, Preconditioning())


class TestBatches:
    """A sample is the same alone, in any batch, in any order."""

    def streams(self, model, x, indices, **settings):
        noise = SampleNoise(3, indices)
        settings = some_path(steps=8, nodes=6, **settings)
        return by_path(model, x, path=settings, noise=noise)

    @pytest.mark.by_default("VE", "Linear")
    def test_alone_permuted_or_in_chunks(self, sde, mixture):
        model, rule = mixture(sde), Hutchinson(probes=2)
        whole = self.streams(model, POINTS, range(6), trace=rule)
        order = [4, 0, 5, 2, 1, 3]
        permuted = self.streams(model, POINTS[order], order, trace=rule)
        settings = some_path(steps=8, nodes=6, trace=rule)
        chunked = by_path(model, POINTS, path=settings, seed=3, batch=4)
        for name in ("log_prob", "std_error", "dof", "correction", "latent"):
            expected = getattr(whole, name)
            close = {"rtol": 1e-10, "atol": 1e-10}
            torch.testing.assert_close(getattr(permuted, name), expected[order], **close)
            torch.testing.assert_close(getattr(chunked, name), expected, **close)
        for i in (0, 4):
            alone = self.streams(model, POINTS[i : i + 1], [i], trace=rule)
            assert float(alone.log_prob) == pytest.approx(float(whole.log_prob[i]), rel=1e-10)

    def test_a_float32_network(self):
        """Its forward pass depends on the batch by rounding, 1e-7."""
        model = conv_model(VP())
        x = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
        whole = self.streams(model, x, range(5))
        for i in range(5):
            alone = self.streams(model, x[i : i + 1], [i])
            assert float(alone.log_prob) == pytest.approx(float(whole.log_prob[i]), rel=1e-5)

    def test_a_seed_fixes_every_bit(self, mixture, rng_untouched):
        settings = some_path(steps=4, nodes=5, trace=Hutchinson(probes=2))
        first, again, other = (
            by_path(mixture(VP()), POINTS, path=settings, seed=s) for s in (1, 1, 2)
        )
        for name in ("log_prob", "std_error", "correction"):
            assert torch.equal(getattr(first, name), getattr(again, name))
            assert not torch.equal(getattr(first, name), getattr(other, name))
        assert torch.equal(first.latent, other.latent)  # the path is not random

    def test_noise_is_keyed_by_seed_and_place(self, mixture):
        x = POINTS[:1].expand(3, 2)
        model, settings = mixture(VP()), some_path(steps=4, nodes=5)
        seeded = by_path(model, x, path=settings, seed=3)
        source = SampleNoise(3, range(3))
        given = by_path(model, x, path=settings, noise=source)
        shared = by_path(model, x, path=settings, noise=BatchNoise(3))
        assert torch.equal(seeded.log_prob, given.log_prob)
        assert len(set(seeded.log_prob.tolist())) == 3
        assert not torch.equal(seeded.log_prob, shared.log_prob)

    def test_labels_follow_their_samples(self):
        x, y = torch.zeros(5, 1, dtype=DOUBLE), torch.tensor([0, 1, 2, 1, 0])
        settings = some_path(steps=24, nodes=30, trace=ExactTrace())
        model = Labelled(VP())
        gaussians = [GaussianMixture(VP(), [1.0], [[float(label)]], [0.25]) for label in y]
        arguments = {"path": settings, "seed": 0}
        for out in (
            by_path(model, x, y=y, **arguments),
            by_path(model, x, y=y, batch=4, **arguments),
            by_path(model.given(y), x, batch=4, **arguments),
        ):
            expected = [
                float(ends(one, x[:1], z[None]))
                for one, z in zip(gaussians, out.latent, strict=True)
            ]
            assert out.log_prob.tolist() == pytest.approx(expected, abs=2e-3)
        assert model.y is None

    @pytest.mark.parametrize("control", [False, True])
    def test_nothing(self, gaussian, control):
        model = gaussian(VP(), 3)
        empty = torch.empty(0, 3)
        for batch in (None, 4):
            out = by_path(
                model,
                empty,
                path=some_path(),
                seed=0,
                batch=batch,
                control=model if control else None,
            )
            assert out.log_prob.shape == out.std_error.shape == out.half_width().shape == (0,)
            assert out.correction.shape == out.dof.shape == (0,)
            assert out.latent.shape == (0, 3)
            assert out.nfe == out.nfe_derivative == model.nfe.forward == 0


class TestTensors:
    @pytest.mark.parametrize("shape", [(2, 1), (2, 2), (2, 1, 8, 8), (2, 3, 5, 7), (1, 4)])
    def test_any_shape(self, gaussian, shape):
        model = gaussian(VP(), *shape[1:])
        x = model.sample(shape[0], seed=0).float()
        before = x.clone()
        dims = math.prod(shape[1:])
        settings = some_path(steps=16, nodes=16, trace=Hutchinson())
        out = by_path(model, x, path=settings, seed=0)
        assert out.latent.shape == shape
        assert out.latent.dtype == torch.float32
        assert out.log_prob.dtype == out.std_error.dtype == DOUBLE
        # isotropic: no noise of probes, only that of nodes on the correction
        expected = converged(model, x.double())
        torch.testing.assert_close(out.log_prob, expected, rtol=0, atol=2e-3 * dims)
        assert torch.equal(x, before)

    @pytest.mark.parametrize("kind", [SubVP, *slow([[VP], [VE]])])
    def test_a_float32_network_agrees_with_float64(self, kind):
        """Within 5e-4 bits/dim with the same seed."""
        single, double = conv_model(kind()), conv_model(kind(), DOUBLE)
        x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
        settings = some_path(trace=Hutchinson(probes=2))
        low, high = (
            by_path(m, x.to(t), path=settings, seed=0)
            for m, t in ((single, torch.float32), (double, DOUBLE))
        )
        bits = (low.log_prob - high.log_prob).abs() / (64 * math.log(2))
        assert float(bits.max()) < 5e-4

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_works_in_any_mode(self, mixture, mode):
        settings = some_path(steps=4, nodes=4)
        model = mixture(VP())
        expected = by_path(model, POINTS, path=settings, seed=0)
        with mode():
            out = by_path(model, POINTS.clone(), path=settings, seed=0)
        assert torch.equal(out.log_prob, expected.log_prob)
        assert not out.log_prob.requires_grad

    @pytest.mark.parametrize("function", [by_path, by_ode])
    def test_a_network_that_multiplies_by_its_time(self, function):
        """Autograd would need to save a tensor made in inference mode, which is not allowed."""
        model = FunctionScore(VP(), lambda x, t: x * t.reshape(-1, 1))
        settings = {"path": some_path()} if function is by_path else {}
        settings |= {"per_sample": True, "rtol": 1e-3, "atol": 1e-3} if function is by_ode else {}
        expected = function(model, POINTS, seed=0, **settings)
        with torch.inference_mode():
            out = function(model, POINTS.clone(), seed=0, **settings)
        assert torch.equal(out.log_prob, expected.log_prob)

    def test_weights_modes_and_gradients_are_left_alone(self):
        net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2)).double()
        net[1].eval()
        model = FunctionScore(VP(), lambda x, t: net(x))
        model.net = net
        x = POINTS.clone().requires_grad_()
        settings = some_path(steps=3, nodes=3)
        net[0].train()
        out = [by_path(model, x, path=settings, seed=0) for _ in range(2)]
        assert torch.equal(out[0].log_prob, out[1].log_prob)
        assert [m.training for m in net] == [True, False, True]
        assert x.grad is None
        assert all(p.grad is None for p in net.parameters())

    def test_mode_is_restored_after_a_failure(self):
        model = FunctionScore(VP(), lambda x, t: x * math.nan)
        model.train()
        with pytest.raises(RuntimeError):
            by_path(model, POINTS, path=some_path(), seed=0)
        assert model.training

    def test_t_min_may_be_zero_where_sigma_is_not(self, mixture):
        model = mixture(VE())
        settings = some_path(steps=24, nodes=100, trace=ExactTrace())
        out = by_path(model, POINTS, path=settings, seed=0, t_min=0)
        expected = ends(model, POINTS, out.latent, 0.0)
        torch.testing.assert_close(out.log_prob, expected, rtol=0, atol=1e-3)


class TestFailures:
    """An exception that names time and cause."""

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize(
        ("fails", "where"),
        [
            (lambda t: True, r"t=1e-05: "),  # at the data
            (lambda t: t > 0.3, r"t=0\.[3-9]\d*: "),  # on the way
            (lambda t: t > 0.9999, r"t=1: "),  # at the noise
        ],
        ids=["first", "middle", "last"],
    )
    def test_network_not_finite_on_the_path(self, value, fails, where):
        def eps(x, t):
            return x * (value if fails(float(t.max())) else 0.1)

        message = f"network output at {where}4 non-finite values of 4"
        with pytest.raises(RuntimeError, match=message):
            by_path(FunctionScore(VP(), eps), torch.ones(2, 2), path=some_path(), seed=0)

    @pytest.mark.parametrize("node", [0, 2, 4])
    def test_network_not_finite_at_a_node(self, node):
        calls = []

        def eps(x, t):
            calls.append(t.ndim)
            bad = calls.count(1) == node + 1
            return torch.where(torch.arange(2)[:, None] == 1, math.nan, 0.1) * x if bad else 0.1 * x

        settings = some_path(steps=3, nodes=5)
        with pytest.raises(RuntimeError, match=r"at t=\d.*\.\.\d.*: 2 non-finite values of 4"):
            by_path(FunctionScore(VP(), eps), torch.ones(2, 2), path=settings, seed=0)
        assert calls == [0] * 4 + [1] * (node + 1)

    def test_derivative_not_finite(self):
        model = FunctionScore(VP(), lambda x, t: x.abs().sqrt())
        with pytest.raises(RuntimeError, match=r"derivative of the network at t=.*non-finite"):
            by_path(model, torch.zeros(1, 2), path=some_path(), seed=0)

    @pytest.mark.parametrize(
        ("eps", "message"),
        [
            (lambda x, t: x[:, :1], r"network returned \(2, 1\) for x of shape \(2, 2\)"),
            (lambda x, t: x.long(), r"network returned torch\.int64, a floating dtype is needed"),
            (lambda x, t: x.detach(), "not differentiable"),
            (lambda x, t: None, "network returned NoneType"),
        ],
    )
    def test_network_of_another_kind(self, eps, message):
        with pytest.raises(RuntimeError, match=message):
            by_path(FunctionScore(VP(), eps), torch.ones(2, 2), path=some_path(), seed=0)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"x": torch.zeros(2, 2).byte()}, TypeError, "x must be float32 or float64"),
            ({"x": torch.zeros(2, 2).half()}, TypeError, "x must be float32 or float64"),
            ({"x": torch.zeros(())}, ValueError, "x must have shape"),
            ({"x": torch.zeros(2, 0)}, ValueError, "x must have shape"),
            ({"x": torch.tensor([[math.nan, 0.0]])}, ValueError, "1 non-finite values of 2"),
            ({"t_min": 0}, ValueError, "t_min must be greater than 0 for VP"),
            ({"t_min": 1}, ValueError, "t_min must be less than 1, got 1"),
            ({"t_min": -1e-3}, ValueError, "t_min must be at least 0, got -0.001"),
            ({"t_min": math.nan}, ValueError, "t_min must be finite"),
            ({"seed": None}, ValueError, "exactly one of seed and noise must be given"),
            ({"noise": BatchNoise(0)}, ValueError, "exactly one of seed and noise must be given"),
            (
                {"seed": None, "noise": BatchNoise(0), "batch": 1},
                ValueError,
                "batch needs a seed",
            ),
            ({"seed": -1}, ValueError, "seed must be at least 0"),
            ({"seed": 1.0}, TypeError, "seed must be an integer"),
            ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
            ({"batch": 1.5}, TypeError, "batch must be an integer, got 1.5"),
            ({"y": torch.zeros(3)}, ValueError, "y must be None: .* takes no condition"),
            ({"control": "data"}, TypeError, "control must be a GaussianMixture, got str"),
        ],
    )
    def test_bad_arguments(self, gaussian, change, error, message):
        model = gaussian(VP(), 2)
        arguments = {"x": torch.zeros(2, 2), "seed": 0, "path": some_path(), **change}
        with pytest.raises(error, match=message):
            by_path(model, **arguments)
        assert model.nfe.forward == 0

    def test_a_control_of_another_kind(self, mixture, gaussian):
        x = torch.zeros(1, 2)
        for control, message in (
            (mixture(VP()), "control must be one Gaussian, got a mixture of 3"),
            (gaussian(VP(), 3), r"shape of the data \(2,\), got \(3,\)"),
        ):
            with pytest.raises(ValueError, match=message):
                by_path(mixture(VP()), x, path=some_path(), control=control, seed=0)

    def test_rounded_labels_are_refused(self):
        class Rounded(FunctionScore):
            snapped = True

        model = Rounded(VP(), lambda x, t: x)
        with pytest.raises(ValueError, match="rounded labels"):
            by_path(model, torch.zeros(1, 2), path=some_path(), seed=0)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
            ({"nodes": 0}, ValueError, "nodes must be at least 1, got 0"),
            ({"nodes": 2.0}, TypeError, "nodes must be an integer, got 2.0"),
            ({"order": 0}, ValueError, "order must be at least 1, got 0"),
            ({"scale": 0}, ValueError, "scale must be greater than 0, got 0"),
            ({"scale": math.nan}, ValueError, "scale must be finite"),
            ({"spread": 0}, ValueError, "spread must be greater than 0, got 0"),
        ],
    )
    def test_bad_settings(self, change, error, message):
        with pytest.raises(error, match=message):
            some_path(**change)
