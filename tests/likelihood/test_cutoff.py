"""The cut-off below t_min against exact densities, and the dequantization without a cut-off."""

import math

import pytest
import torch
from calls import dequantized, points_of

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    ExactTrace,
    GaussianNoising,
    Hutchinson,
    UniformDequantization,
    decoder_std,
    neglected,
)
from scoresde.noise import SampleNoise
from scoresde.score import FunctionScore, wrap
from scoresde.sde import VE, VP, SubVP, TabulatedVP

DOUBLE = torch.float64
POINTS = torch.tensor(
    [[0, 0], [-1, 0.5], [0.8, -0.6], [0.3, 1.2], [2, -1.5], [-3, 2]], dtype=DOUBLE
)
PLANE = DataSpec((2,), -4.0, 4.0)
EIGHT = DataSpec((1,), -1.0, 1.0, levels=8)


def hidden(model):
    """A model with the same scores that hides its density."""
    return FunctionScore(model.sde, lambda x, t: model.eps(x, float(t)))


def normal_law(mean, std):
    return torch.distributions.Normal(mean, torch.full_like(mean, std))


def slope(errors, sizes):
    """Observed order: d log error/d log size over the whole range."""
    return math.log(errors[0] / errors[-1]) / math.log(sizes[0] / sizes[-1])


class TestNeglected:
    def test_mixture_is_exact(self, mixture):
        """The table holds log p_ε − log p_0, in closed form by numpy; the sign is turned here."""
        found = neglected(mixture(VP()), POINTS.float(), 1e-5)
        wanted = -torch.tensor([4.01e-05, -7.58e-06, -9.37e-06, -1.88e-05, 7.48e-05, 3.31e-04])
        # three digits are given; float32 holds -1.5 and 0.3 to 6e-8, times a score of 10
        torch.testing.assert_close(found.value, wanted.double(), rtol=6e-3, atol=1e-6)
        assert found.exact
        assert (found.nfe, found.std_error.tolist()) == (0, [0.0] * 6)

    def test_correction_leads_to_the_density_of_the_data(self, sde, mixture):
        """At the usual t_min the estimate leaves less than 1 % of what was neglected."""
        model, t = mixture(sde), 1e-5
        found = neglected(hidden(model), POINTS, t)
        truth = model.log_prob(POINTS) - model.log_prob(POINTS, t)
        assert not found.exact
        assert float((found.value - truth).abs().max()) < 0.01 * float(truth.abs().max())
        assert float(found.std_error.abs().max()) == 0

    @pytest.mark.parametrize("sde", [VP(), SubVP()], ids=["VP", "SubVP"])
    @pytest.mark.parametrize(("order", "wanted"), [(1, 2.0), (2, 3.0)])
    def test_order_in_time(self, sde, mixture, order, wanted):
        model, times = mixture(sde), [4e-4, 2e-4, 1e-4]
        errors = []
        for t in times:
            truth = model.log_prob(POINTS) - model.log_prob(POINTS, t)
            value = neglected(hidden(model), POINTS, t, order=order).value
            errors.append(float((value - truth).abs().max()))
        assert slope(errors, times) == pytest.approx(wanted, abs=0.15)

    @pytest.mark.parametrize(("order", "wanted"), [(1, 4.0), (2, 6.0)])
    def test_order_in_the_lowest_noise_of_ve(self, mixture, order, wanted):
        """There t_min can be 0, and the part below σ_min is neglected."""
        sigmas, errors = [0.02, 0.01, 0.005], []
        for sigma in sigmas:
            model = mixture(VE(sigma_min=sigma))
            truth = model.log_prob(POINTS) - model.log_prob(POINTS, 0.0)
            value = neglected(hidden(model), POINTS, 0.0, order=order).value
            errors.append(float((value - truth).abs().max()))
        assert slope(errors, sigmas) == pytest.approx(wanted, abs=0.3)

    def test_probes(self, mixture):
        """Hutchinson's mean is the exact value, and its error the spread over seeds."""
        model = hidden(mixture(VE()))
        exact = neglected(model, POINTS, 0.0).value
        many = POINTS.repeat(400, 1)
        found = neglected(model, many, 0.0, trace=Hutchinson(probes=4), order=2, seed=5)
        second = neglected(model, POINTS, 0.0, order=2).value
        values, errors = found.value.reshape(400, 6), found.std_error.reshape(400, 6)
        spread = values.std(0)
        assert ((values.mean(0) - second).abs() < 4 * spread / 20 + 1e-12).all()
        # a spread of 400 is known to 4 %, its estimate from four values of ±1 products likewise
        ratio = spread / errors.square().mean(0).sqrt()
        assert float((ratio - 1).abs().max()) < 0.2
        assert float((second - exact).abs().max()) < 1e-4

    def test_a_smooth_density_is_told_from_the_error_of_a_network(self, sde, mixture):
        """An error of ε that does not fall with σ makes the estimate, and departs by 1."""
        model, t = mixture(sde), 1e-5
        smooth = neglected(hidden(model), POINTS, t, order=2)
        # to first order in τ; VE's σ_min is 0.01, a thirtieth of the narrowest deviation
        assert float(smooth.departure.max()) < 0.05
        assert float(neglected(model, POINTS, t).departure.max()) == 0
        assert torch.isnan(neglected(hidden(model), POINTS, t).departure).all()

        def wrong(x, t):
            return model.eps(x, float(t)) + 0.3 * torch.sin(3 * x + 1)

        found = neglected(FunctionScore(sde, wrong), POINTS, t, order=2)
        truth = neglected(model, POINTS, t).value
        assert float((found.value - truth).abs().median()) > 10 * float(truth.abs().median())
        assert float(found.departure.min()) > 0.5

    def test_a_sample_is_the_same_in_any_batch(self, mixture, rng_untouched):
        model, rule = hidden(mixture(VP())), Hutchinson(probes=3)
        whole = neglected(model, POINTS, 1e-4, trace=rule, seed=1)
        alone = neglected(model, POINTS[2:3], 1e-4, trace=rule, noise=SampleNoise(1, [2]))
        torch.testing.assert_close(whole.value[2:3], alone.value, rtol=1e-12, atol=0)

    def test_cost_is_counted(self, gaussian):
        model, x = hidden(gaussian(VP(), 20)), torch.zeros(2, 20)
        one = neglected(model, x, 1e-4, seed=0)
        assert (one.nfe, one.nfe_derivative) == (1, 1)  # above D = 16 a probe
        assert torch.isnan(one.std_error).all()
        two = neglected(model, x, 1e-4, trace=ExactTrace(), order=2)
        assert (two.nfe, two.nfe_derivative) == (2, 40)

    def test_empty(self, gaussian):
        found = neglected(hidden(gaussian(VP(), 3)), torch.zeros(0, 3), 1e-4)
        assert found.value.shape == found.std_error.shape == (0,)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"t_min": 0.0}, "t_min must be greater than 0 for VP"),
            ({"t_min": 1.0}, "t_min must be less than 1"),
            ({"order": 3}, "order must be 1 or 2, got 3"),
            ({"seed": 0, "noise": SampleNoise(0, [0])}, "at most one of seed and noise"),
            ({"trace": Hutchinson()}, "give seed or noise"),
        ],
    )
    def test_bad_arguments(self, gaussian, change, message):
        arguments = {"t_min": 1e-4, **change}
        with pytest.raises(ValueError, match=message):
            neglected(hidden(gaussian(VP())), torch.zeros(1, 1), **arguments)

    def test_levels_are_refused(self, gaussian):
        with pytest.raises(TypeError, match="x must be float32 or float64"):
            neglected(hidden(gaussian(VP())), torch.zeros(1, 1).long(), 1e-4)

    def test_models_without_a_density_are_refused(self):
        points = GaussianMixture(VP(), [1.0], [[0.0]], [0.0])
        with pytest.raises(ValueError, match="the data have no density"):
            neglected(points, torch.zeros(1, 1), 1e-4)
        sde = TabulatedVP(VP().ddpm_betas(100))
        rounded = wrap(lambda x, t: x, sde, "eps", label="rounded_index")
        with pytest.raises(ValueError, match="rounded labels"):
            neglected(rounded, torch.zeros(1, 1), 0.01)


@pytest.fixture
def expected(given, exact_density, hermite):
    """E over x_t of log p_t + log decoder − log q at each row of x, D = 1, by Gauss–Hermite."""
    nodes, weights = hermite(40)

    def expected(model, x, t):
        out = dequantized(
            model,
            x.repeat_interleave(40, 0),
            DataSpec((1,), -4.0, 4.0),
            exact_density(t),
            dequantization=GaussianNoising(),
            noise=given(nodes.repeat(len(x))),
            dtype=DOUBLE,
        )
        return out.log_prob.reshape(len(x), 40) @ weights

    return expected


class TestGaussianNoising:
    X = torch.tensor([[-1.2], [0.3], [0.7], [2.0]], dtype=DOUBLE)

    @pytest.mark.parametrize("t", [1e-3, 0.3, 0.8])
    def test_every_draw_is_right_for_a_gaussian_and_the_best_std(
        self, sde, gaussian, t, node_at, exact_density
    ):
        """q(x_t | x_0) is then the posterior of x_t: no gap, and no variance either."""
        model, node = gaussian(sde, 3), node_at(sde, t)
        std = node.sigma * math.sqrt(0.25 / (node.alpha**2 * 0.25 + node.sigma**2))
        x = model.sample(50, seed=0)
        out = dequantized(
            model, x, DataSpec((3,), -4.0, 4.0), exact_density(node.t), seed=1,
            dequantization=GaussianNoising(std), draws=2, dtype=DOUBLE,
        )  # fmt: skip
        # the three terms are of order (log σ + z²), large for VE at t = 0.8
        torch.testing.assert_close(out.log_prob, model.log_prob(x), rtol=1e-9, atol=1e-9)
        assert (out.method.name, out.nfe) == ("pf-ode/decoder", 2)

    @pytest.mark.parametrize("t", [1e-3, 0.3])
    def test_gap_in_closed_form(self, sde, gaussian, t, node_at, expected):
        """log p_0 − bound = log p_0/p_s + KL(q ‖ posterior), p_s what the decoder generates.

        p_s = N(m, a² V + s²) for x_t ~ N(α m, V) and x ~ N(m + a (x_t − α m), s²).
        """
        model, node = gaussian(sde), node_at(sde, t)
        m, c, s = 0.3, 0.25, node.sigma / node.alpha
        v = node.alpha**2 * c + node.sigma**2
        a = node.alpha * c / v
        x = self.X[:, 0]
        generated = normal_law(torch.full_like(x, m), math.sqrt(a**2 * v + s**2)).log_prob(x)
        variance = 1 / (1 / v + a**2 / s**2)
        posterior = node.alpha * m + variance * a / s**2 * (x - m)
        kl = torch.distributions.kl_divergence(
            normal_law(node.alpha * x, node.sigma), normal_law(posterior, math.sqrt(variance))
        )
        found = expected(model, self.X, t)
        torch.testing.assert_close(found, generated - kl, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("sde", [VP(), VE()], ids=["VP", "VE"])
    def test_is_closer_than_the_cut_off_and_of_higher_order(self, gaussian, sde, expected):
        """For the default s: O(σ⁴) against O(σ²) without the decoder."""
        times = sde.t_of_lam(torch.tensor([math.log(1 / s) for s in (0.08, 0.04, 0.02)]))
        model, gaps, cuts = gaussian(sde), [], []
        for t in times.tolist():
            truth = model.log_prob(self.X)
            gaps.append(float((truth - expected(model, self.X, t)).abs().max()))
            cuts.append(float((truth - model.log_prob(self.X, t)).abs().max()))
        sigmas = [0.08, 0.02]
        assert slope(cuts, sigmas) == pytest.approx(2.0, abs=0.1)
        assert slope(gaps, sigmas) == pytest.approx(4.0, abs=0.15)
        assert gaps[0] < 0.05 * cuts[0]

    def test_mixture_in_the_plane(self, mixture, given, hermite, exact_density):
        """By quadrature at six points: a hundredth of the cut-off is left under VE at t = 0."""
        model = mixture(VE())
        nodes, weights = hermite(12)
        z = torch.cartesian_prod(nodes, nodes)
        w = torch.cartesian_prod(weights, weights).prod(1)
        out = dequantized(
            model, POINTS.repeat_interleave(len(z), 0), PLANE, exact_density(0.0),
            dequantization=GaussianNoising(), noise=given(z.repeat(6, 1)), dtype=DOUBLE,
        )  # fmt: skip
        bound = out.log_prob.reshape(6, len(z)) @ w
        cut = neglected(model, POINTS, 0.0).value
        assert float((model.log_prob(POINTS) - bound).abs().max()) < 0.01 * float(cut.abs().max())

    def test_uniform_first(self, given, legendre, hermite, exact_density):
        """The same bits as at t = 0, though σ(t) = 0.04; without the decoder 7e-4 are missed."""
        model = GaussianMixture(VP(), [1.0], [[0.1]], [0.25])
        t = float(VP().t_of_lam(math.log(1 / 0.04)))
        edges = torch.linspace(-1, 1, 9, dtype=DOUBLE)
        p = (0.5 * torch.erfc(-(edges - 0.1) / 0.5 / math.sqrt(2))).diff()
        (u, w), (z, v) = legendre(20), hermite(12)
        pairs = torch.cartesian_prod(torch.special.ndtri(u), z)
        weights = torch.cartesian_prod(w, v).prod(1)
        found = {}
        for dequantization in (
            UniformDequantization(), GaussianNoising(before=UniformDequantization())
        ):  # fmt: skip
            bound = dequantized(
                model, torch.arange(8).repeat_interleave(len(pairs))[:, None], EIGHT,
                exact_density(t), dequantization=dequantization, dtype=DOUBLE,
                noise=given(pairs[:, 0].repeat(8), pairs[:, 1].repeat(8)),
            )  # fmt: skip
            bits = bound.bits_per_dim(EIGHT).reshape(8, len(pairs)) @ weights
            found[bound.method.name] = float(bits @ p / p.sum())
        assert 0 < found["pf-ode/uniform+decoder"] - 2.903046790 < 3e-5
        assert abs(found["pf-ode/uniform"] - 2.903046790) > 5e-4

    @pytest.mark.parametrize("sigma", [0.02, 0.08])
    def test_levels_from_the_centres(self, sigma, node_at, given, hermite, exact_density):
        """P(k) = ∫ p_t(x) P(k | x) dx by quadrature sums to one, and the bound is below it."""
        weights = [0.1, 0.2, 0.05, 0.15, 0.25, 0.05, 0.1, 0.1]
        centres = EIGHT.encode(torch.arange(8)).to(DOUBLE)
        model = GaussianMixture(VP(), weights, centres[:, None], [0.0] * 8)
        t = float(VP().t_of_lam(-math.log(sigma)))
        node = node_at(VP(), t)
        x = torch.linspace(-2, 2, 4001, dtype=DOUBLE)[:, None]
        std = node.sigma / node.alpha
        edges = torch.tensor([-math.inf, *torch.linspace(-1, 1, 9)[1:-1].tolist(), math.inf])
        gaps = (edges.double() - model.x0(x, node)) / std
        decoder = (0.5 * torch.erfc(-gaps / math.sqrt(2))).diff(dim=1)
        p = torch.trapezoid(model.log_prob(x, t).exp()[:, None] * decoder, x[:, 0], dim=0)
        # the trapezoidal rule on a smooth density that has died out at ±2
        assert float(p.sum()) == pytest.approx(1, abs=1e-9)
        z, w = hermite(80)
        bound = dequantized(
            model, torch.arange(8).repeat_interleave(80)[:, None], EIGHT, exact_density(t),
            dequantization=GaussianNoising(), noise=given(z.repeat(8)), dtype=DOUBLE,
        )  # fmt: skip
        gap = p.log() - bound.log_prob.reshape(8, 80) @ w
        assert float(gap.min()) > -1e-6  # of the quadrature
        # where cells are well apart the decoder knows the level, and nothing is lost
        assert float(gap.max()) < (1e-6 if sigma == 0.02 else 0.2)

    def test_float32_keeps_the_noise(self, gaussian, node_at):
        """x0(x_t) − x_0 is taken from ε: x_t/α − x_0 would have lost 4 digits at σ = 1e-3."""
        model, node = gaussian(VP(), 4), node_at(VP(), 1e-5)
        x, spec = model.sample(100, seed=0), DataSpec((4,), -4.0, 4.0)
        single, double = (
            points_of(
                GaussianNoising(), model, x, spec, SampleNoise(0, range(100)), node, dtype
            ).log_q
            for dtype in (torch.float32, DOUBLE)
        )
        # log q − log decoder = |ε|²/2 − z·ε + ...: z is known to 6e-8/σ
        assert float((single - double).abs().max()) < 1e-4

    def test_a_sample_is_the_same_in_any_batch(self, gaussian, rng_untouched, exact_density):
        model, k = gaussian(VP()), torch.arange(8)[:, None]
        for noising in (GaussianNoising(), GaussianNoising(before=UniformDequantization())):
            whole, chunked = (
                dequantized(
                    model, k, EIGHT, exact_density(0.01), dequantization=noising,
                    seed=0, batch=batch, dtype=DOUBLE,
                )
                for batch in (None, 3)
            )  # fmt: skip
            torch.testing.assert_close(whole.log_prob, chunked.log_prob, rtol=1e-12, atol=1e-12)

    def test_empty(self, gaussian, exact_density):
        for noising in (GaussianNoising(), GaussianNoising(before=UniformDequantization())):
            out = dequantized(
                gaussian(VP()), torch.zeros(0, 1).long(), EIGHT, exact_density(0.01), seed=0,
                dequantization=noising,
            )  # fmt: skip
            assert out.log_prob.shape == (0,)

    def test_bad_arguments(self, gaussian, exact_density):
        with pytest.raises(ValueError, match="std must be greater than 0, got 0"):
            GaussianNoising(0.0)
        levels, spec = torch.zeros(1, 1).long(), DataSpec((1,), 0, 1)
        with pytest.raises(TypeError, match="x must be float32 or float64"):
            dequantized(
                gaussian(VP()), levels, spec, exact_density(0.01), seed=0,
                dequantization=GaussianNoising(),
            )  # fmt: skip


def test_best_decoder_std_of_a_gaussian(gaussian, node_at):
    """s² = σ² c/(α² c + σ²), from 20,000 residuals: to 4 standard errors, 2 %."""
    node = node_at(VP(), 0.3)
    model = gaussian(VP(), 10)
    wanted = node.sigma * math.sqrt(0.25 / (node.alpha**2 * 0.25 + node.sigma**2))
    assert decoder_std(model, model.sample(2000, seed=0), 0.3, seed=1) == pytest.approx(
        wanted, rel=0.02
    )


def test_decoder_std_needs_data(gaussian):
    with pytest.raises(ValueError, match="x must hold at least one sample"):
        decoder_std(gaussian(VP()), torch.zeros(0, 1), 0.3, seed=1)
