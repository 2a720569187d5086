"""The exact models against an independent numpy/scipy implementation, and against each other."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import jvp

from scoresde.exact import FiniteData, GaussianMixture, finite_data
from scoresde.noise import SampleNoise
from scoresde.sde import VE, VP, SubVP

POINTS = torch.tensor(
    [[0.0, 0.0], [-1.0, 0.5], [0.8, -0.6], [0.3, 1.2], [2.0, -1.5], [-3.0, 2.0]],
    dtype=torch.float64,
)
LOG_DENSITIES = [
    -4.830100591403447, -0.5082470469516286, -0.7914447849638520,
    -0.4454016985142972, -10.52117451513309, -33.36538990508581,
]  # fmt: skip
# Score and its divergence at (0, 0), then at (2, -1.5)
SCORES = {
    ("VP", 1e-3): ((5.11688584228140e00, 5.05620819534867e-01), 5.143760088932e01,
                   (-1.37663137641042e01, 3.24523801134236e00), -2.069563833517e01),
    ("VP", 0.1): ((4.62558207530650e-01, 7.51791485315755e-01), 1.373778858973e01,
                  (-6.59805022781410e00, 3.16826910784122e00), -1.007377726694e01),
    ("VP", 0.5): ((-5.84124841756260e-02, 9.38794518511003e-02), -2.049536598645e00,
                  (-2.04787047873131e00, 1.57557525359120e00), -2.057793782051e00),
    ("VP", 1.0): ((-1.31434457236219e-03, 2.03727167741485e-03), -2.000028765299e00,
                  (-2.00131521758995e00, 1.50204617988817e00), -2.000028463573e00),
    ("SubVP", 0.1): ((4.02102080024838e00, 5.69025820616249e-01), 4.936582369081e01,
                     (-1.38103898113683e01, 3.86107329563917e00), -2.023610371943e01),
    ("SubVP", 0.5): ((-6.31870785382246e-02, 1.01865265140042e-01), -2.214320909089e00,
                     (-2.20918828660440e00, 1.69686278707598e00), -2.228919919718e00),
    ("VE", 0.1): ((5.05917627786449e00, 5.06815962662114e-01), 5.116279890780e01,
                  (-1.36870148797412e01, 3.25069341231457e00), -2.058484456227e01),
    ("VE", 0.5): ((-1.43806264746716e-01, 4.71016971060648e-01), -2.821038621565e-01,
                  (-2.00322178623208e00, 1.29434068141826e00), -3.261422733563e00),
    ("VE", 1.0): ((-7.99833780832969e-05, 1.23995423383424e-04), -7.997865937406e-04,
                  (-8.79667508984527e-04, 7.23790071643842e-04), -7.997865244850e-04),
}  # fmt: skip
# D − σ² E|∇ log p_t|², which no network can go below: mixture under VP, under VE, and N(0.3, 0.25)
IRREDUCIBLE = [
    (0.01, 1.959400530, 1.997516960, 0.992075336591),
    (0.1, 1.192831593, 1.988576044, 0.683582936427),
    (0.3, 0.561384417, 1.725610440, 0.140993649151),
    (0.5, 0.107198911, 0.918278191, 0.021011914674),
    (1.0, 5.7606e-5, 5.33393e-4, 1.0796787e-5),
]
SDES = {"VP": VP(), "SubVP": SubVP(), "VE": VE()}
TIMES = [1e-5, 1e-3, 0.1, 0.5, 1.0]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def covariances(kind, n, dim):
    """n covariances: full, diagonal, isotropic, or of rank 1."""
    if kind == "isotropic":
        return torch.linspace(0.1, 0.4, n, dtype=torch.float64)
    if kind == "diagonal":
        return 0.1 + normal(n, dim, seed=5) ** 2
    root = normal(n, dim, 1 if kind == "singular" else dim + 2, seed=6)
    return root @ root.mT / dim


def random_mixture(sde, kind="full", shape=(3,), n=4):
    weights = torch.softmax(normal(n, seed=7), 0)
    dim = math.prod(shape)
    return GaussianMixture(sde, weights, normal(n, *shape, seed=8), covariances(kind, n, dim))


def _size(*values):
    return max(float(value.abs().max()) for value in values)


def test_log_densities_of_the_mixture(mixture):
    got = mixture(VP()).log_prob(POINTS)
    np.testing.assert_allclose(got, LOG_DENSITIES, rtol=1e-13)


def test_moments_of_the_mixture(mixture):
    model = mixture(VP())
    np.testing.assert_allclose(model.mean(), [-0.2, 0.31], rtol=1e-13)
    np.testing.assert_allclose(model.cov(), [[0.804, -0.244], [-0.244, 0.5299]], rtol=1e-13)


@pytest.mark.parametrize(("name", "t"), SCORES)
def test_scores_of_the_mixture(mixture, name, t):
    model = mixture(SDES[name])
    at_0, trace_0, at_4, trace_4 = SCORES[name, t]
    x = POINTS[[0, 4]]
    # printed to 15 digits, where they sum to 4 digits less at (0, 0), t = 1
    np.testing.assert_allclose(model.score(x, t), [at_0, at_4], rtol=1e-11)
    np.testing.assert_allclose(model.score_trace(x, t), [trace_0, trace_4], rtol=1e-11)


@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic", "singular"])
def test_scores_are_gradients_of_log_densities(sde, kind):
    model = random_mixture(sde, kind)
    for t in TIMES:
        x = model.sample(20, t, seed=3) + 0.1 * normal(20, 3)
        leaf = x.clone().requires_grad_()
        (want,) = torch.autograd.grad(model.log_prob(leaf, t).sum(), leaf)
        got = model.score(x, t)
        # The gradient passes through a softmax of log densities of up to 1/σ² = 1e12 (subVP).
        scale = float(want.abs().max())
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13 * scale)
        score = model.score(leaf, t)
        diagonal = [
            torch.autograd.grad(score[:, d].sum(), leaf, retain_graph=True)[0][:, d]
            for d in range(3)
        ]
        trace = torch.stack(diagonal).sum(0)
        got = model.score_trace(x, t)
        torch.testing.assert_close(got, trace, rtol=1e-9, atol=1e-12 * float(trace.abs().max()))


@pytest.mark.parametrize("shape", [(), (1,), (2,), (16,), (1, 4, 3), (3, 2, 2)])
def test_any_data_shape(sde, shape):
    """A mixture of images is one of flattened images."""
    dim = math.prod(shape)
    model = random_mixture(sde, "full", shape)
    flat = random_mixture(sde, "full", (dim,))
    x = normal(5, *shape)
    t = torch.tensor([0.1, 0.2, 0.4, 0.8, 1.0], dtype=torch.float64)
    for quantity in ("eps", "score", "x0", "v"):
        got = getattr(model, quantity)(x, t)
        assert got.shape == x.shape
        assert torch.equal(got.reshape(5, dim), getattr(flat, quantity)(x.reshape(5, dim), t))
    assert torch.equal(model.log_prob(x, t), flat.log_prob(x.reshape(5, dim), t))
    assert model.mean().shape == shape
    assert model.cov().shape == (dim, dim)
    assert model.sample(3, seed=0).shape == (3, *shape)
    assert model.eps(x[:0], 0.5).shape == (0, *shape)
    assert model.log_prob(x[:0], 0.5).shape == (0,)


@pytest.mark.parametrize("kind", ["diagonal", "isotropic"])
def test_short_forms_of_covariances(sde, kind):
    model = random_mixture(sde, kind)
    variances = covariances(kind, 4, 3).reshape(4, -1).expand(4, 3)
    full = GaussianMixture(sde, model.weights, model.means, torch.diag_embed(variances))
    x = normal(6, 3)
    for t in TIMES:
        torch.testing.assert_close(model.eps(x, t), full.eps(x, t), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(model.log_prob(x, t), full.log_prob(x, t), rtol=1e-12, atol=0)
    torch.testing.assert_close(model.cov(), full.cov(), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(model.log_prob(x), full.log_prob(x), rtol=1e-12, atol=0)


def test_quantities_belong_together(sde):
    """x_t = α x0 + σ ε and v = α ε − σ x0 hold for the conditional means."""
    for model in (random_mixture(sde), FiniteData(sde, normal(30, 3, seed=4))):
        for t in (*TIMES, torch.tensor([1e-4, 0.02, 0.3, 0.6, 1.0], dtype=torch.float64)):
            x = sde.perturb(normal(5, 3, seed=1), t, normal(5, 3))
            node = sde.at(t, x)
            x0, eps, v = model.x0(x, t), model.eps(x, t), model.v(x, t)
            # rounding of the largest term: ε is 1e6 for points that are not near the data
            close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14 * _size(eps, x, v))
            close(node.alpha * x0 + node.sigma * eps, x)
            close(node.alpha * eps - node.sigma * x0, v)
            torch.testing.assert_close(model.score(x, t), -eps / node.sigma, rtol=1e-12, atol=0)


def test_a_gaussian_in_closed_form(sde, gaussian):
    """ε = σ (x − α m)/v and x0 = m + α s² (x − α m)/v with v = α² s² + σ²."""
    model = gaussian(sde, 2)
    x = normal(4, 2)
    for t in TIMES:
        a, s = float(sde.alpha(t)), float(sde.sigma(t))
        gap, variance = x - 0.3 * a, 0.25 * a**2 + s**2
        torch.testing.assert_close(model.eps(x, t), s * gap / variance, rtol=1e-12, atol=1e-15)
        want = 0.3 + 0.25 * a * gap / variance
        torch.testing.assert_close(model.x0(x, t), want, rtol=1e-12, atol=1e-15)
        want = stats.norm(0.3 * a, math.sqrt(variance)).logpdf(x).sum(1)
        np.testing.assert_allclose(model.log_prob(x, t), want, rtol=1e-12)


def test_float32_input_gets_the_float64_answer(sde):
    for model in (random_mixture(sde), FiniteData(sde, normal(30, 3, seed=4))):
        for t in TIMES:
            x = sde.perturb(normal(50, 3, seed=1), t, normal(50, 3)).float()
            for quantity in ("eps", "score", "x0", "v"):
                got = getattr(model, quantity)(x, t)
                assert got.dtype == torch.float32
                want = getattr(model, quantity)(x.double(), t).float()
                # the score of a float32 x divides a rounded ε by σ
                torch.testing.assert_close(got, want, rtol=2e-7, atol=0)


def test_far_tails_are_finite(sde, mixture):
    """Where every component's density underflows, the nearest one decides."""
    model = mixture(sde)
    x = 1e6 * torch.tensor([[1.0, 0.3], [-1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    for t in TIMES:
        score = model.score(x, t)
        assert bool(torch.isfinite(score).all())
        assert bool((score * x).sum(1).lt(0).all())  # back towards the data
        assert bool(torch.isfinite(model.log_prob(x, t)).all())
        assert bool(torch.isfinite(model.score_trace(x, t)).all())


def test_density_tends_to_the_data_density(mixture):
    """At σ = 1e-6 (subVP, t = 1e-5) the truncation is 1.0e-6 nats: D (1 − α)."""
    model = mixture(SubVP())
    gap = model.log_prob(POINTS, 1e-5) - model.log_prob(POINTS)
    want = [1.001034e-06, 1.000985e-06, 1.000984e-06, 9.800462e-07, -1.523128e-05, -4.547342e-05]
    np.testing.assert_allclose(gap, want, rtol=1e-5, atol=1e-13)


@pytest.mark.parametrize("t", [None, 0.05, 0.3])
def test_densities_integrate_to_one(sde, mixture, t):
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    total = mixture(sde).log_prob(x, t).exp().sum() * 0.05**2
    # the rectangle rule converges faster than any power of its step; the tails hold 1e-8
    assert float(total) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("row", IRREDUCIBLE, ids=lambda row: f"t={row[0]}")
def test_irreducible_loss(mixture, gaussian, row):
    """E|ε − ε(x_t)|² = D − E|ε(x_t)|², by the rectangle rule over 9 standard deviations."""
    t, vp_mixture, ve_mixture, vp_gaussian = row

    def loss(model):
        a, s = float(model.sde.alpha(t)), float(model.sde.sigma(t))
        std = torch.sqrt(a**2 * model.cov().diagonal() + s**2)
        axes = a * model.mean() + std * torch.linspace(-9, 9, 201, dtype=torch.float64)[:, None]
        x = torch.cartesian_prod(*axes.T).reshape(-1, model.dim)
        mass = model.log_prob(x, t).exp() * (std * 18 / 200).prod()
        return model.dim - float((mass * model.eps(x, t).square().sum(1)).sum())

    got = [loss(mixture(VP())), loss(mixture(VE())), loss(gaussian(VP()))]
    # The rule has converged to 1e-11; the mixture's reference values to 4e-9.
    assert got == pytest.approx([vp_mixture, ve_mixture, vp_gaussian], abs=5e-9)


@pytest.mark.parametrize("t", [None, 0.2])
def test_samples_have_the_moments_of_the_density(sde, mixture, t):
    model, n = mixture(sde), 100_000
    x = model.sample(n, t, seed=4)
    a, s = (1.0, 0.0) if t is None else (float(sde.alpha(t)), float(sde.sigma(t)))
    mean, cov = a * model.mean(), a**2 * model.cov() + s**2 * torch.eye(2)
    # 4 standard errors; Var of a product of two is at most 3 σ² σ² for tails not above a normal's
    error = torch.sqrt(cov.diagonal() / n)
    assert bool(((x.mean(0) - mean).abs() < 4 * error).all())
    spread = torch.sqrt(3 * torch.outer(cov.diagonal(), cov.diagonal()) / n)
    assert bool(((torch.cov(x.T) - cov).abs() < 4 * spread).all())
    # and its entropy: the mean of −log p over samples, against the exact one where it is known
    log_prob = model.log_prob(x, t)
    if t is None:
        entropy = float(-log_prob.mean())
        assert entropy == pytest.approx(1.5460653713, abs=4 * float(log_prob.std()) / math.sqrt(n))


@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic", "singular"])
def test_each_component_is_drawn_with_its_own_moments(kind):
    """Means far apart tell the components of a sample."""
    n, k, dim = 40_000, 3, 3  # in the plane eigenvectors may be symmetric, and a transpose unseen
    means = 50 * torch.eye(dim, dtype=torch.float64)
    weights, covs = [0.5, 0.3, 0.2], covariances(kind, k, dim)
    x = GaussianMixture(VP(), weights, means, covs).sample(n, seed=9)
    nearest = torch.cdist(x, means).argmin(1)
    full = covs if covs.ndim == 3 else torch.diag_embed(covs.reshape(k, -1).expand(k, dim))
    for j in range(k):
        rows = x[nearest == j]
        share = math.sqrt(weights[j] * (1 - weights[j]) / n)
        assert len(rows) / n == pytest.approx(weights[j], abs=4 * share)
        scale = 4 / math.sqrt(len(rows))
        variances = full[j].diagonal()
        assert bool(((rows.mean(0) - means[j]).abs() <= scale * variances.sqrt()).all())
        spread = scale * torch.sqrt(2 * torch.outer(variances, variances))
        assert bool(((torch.cov(rows.T) - full[j]).abs() <= spread).all())


def test_sampling_is_reproducible_and_private(mixture, rng_untouched):
    model = mixture(VP())
    many = model.sample(50, seed=1)
    assert torch.equal(model.sample(7, seed=1), many[:7])
    assert not torch.equal(model.sample(7, seed=2), many[:7])
    assert model.sample(0, seed=1).shape == (0, 2)
    # With one seed for all, data must not be a function of the noise that perturbs them.
    standard = GaussianMixture(VP(), [1.0], torch.zeros(1, 2), [1.0]).sample(50, seed=1)
    noise = SampleNoise(1, range(50))
    for draws in (noise.prior((50, 2)), noise.fresh(standard), noise.probe(standard)):
        assert not set(standard.flatten().tolist()) & set(draws.flatten().tolist())


def test_a_singular_mixture_of_points_is_finite_data(sde):
    x = normal(20, 2, seed=2)
    points = GaussianMixture(sde, torch.full((20,), 1 / 20), x, torch.zeros(20))
    data = FiniteData(sde, x)
    for t in TIMES:
        noisy = sde.perturb(normal(6, 2), t, normal(6, 2, seed=1))
        for quantity in ("eps", "x0", "v"):
            got, want = (getattr(model, quantity)(noisy, t) for model in (data, points))
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match="the data have no density, a covariance is singular"):
        points.log_prob(x)


@pytest.mark.parametrize("shape", [(), (2,), (1, 3, 2)])
def test_finite_data_against_brute_force(sde, shape, monkeypatch):
    data, x = normal(40, *shape, seed=2), normal(7, *shape, seed=3)
    flat_data, flat = data.reshape(40, -1).numpy(), x.reshape(7, -1).numpy()
    model = FiniteData(sde, data)
    for t in (1e-3, 0.1, 0.5, 1.0):
        a, s = float(sde.alpha(t)), float(sde.sigma(t))
        want = np.empty_like(flat)
        for row, point in zip(want, flat, strict=True):
            logits = np.array([-((point - a * d) ** 2).sum() / (2 * s**2) for d in flat_data])
            weights = np.exp(logits - logits.max())
            row[:] = (weights[:, None] * flat_data).sum(0) / weights.sum()
        # the logits are of size 1/σ² up to 1e8
        np.testing.assert_allclose(model.x0(x, t).reshape(7, -1), want, rtol=1e-8, atol=1e-12)
        eps = (flat - a * want) / s
        np.testing.assert_allclose(model.eps(x, t).reshape(7, -1), eps, rtol=1e-8, atol=1e-9)
        whole = model.eps(x, t)
        monkeypatch.setattr(finite_data, "_LARGEST_TEMPORARY", 50)
        assert torch.equal(model.eps(x, t), whole)
        monkeypatch.undo()


def test_finite_data_ends_in_the_data(sde):
    """As σ → 0 the ideal denoiser returns the nearest data point."""
    data = normal(30, 3, seed=2)
    model = FiniteData(sde, data)
    t = 1e-3
    x = sde.perturb(data, t, normal(30, 3, seed=1))
    # two points are 0.1 apart at least: the others weigh e^{−0.005/σ²}, σ ≤ 0.011
    assert float(torch.cdist(data, data).fill_diagonal_(9).min()) > 0.1
    torch.testing.assert_close(model.x0(x, t), data, rtol=0, atol=1e-6)
    # and at σ ≫ |x| their mean
    if isinstance(sde, VE):
        torch.testing.assert_close(model.x0(x, 1.0), data.mean(0).expand(30, 3), rtol=0, atol=1e-2)


def test_per_sample_times(sde):
    t = torch.tensor([1e-3, 0.1, 0.5, 1.0], dtype=torch.float64)
    for model in (random_mixture(sde), FiniteData(sde, normal(30, 3, seed=4))):
        x = normal(4, 3)
        for quantity in ("eps", "score", "x0", "v", "log_prob", "score_trace"):
            if not hasattr(model, quantity):
                continue
            got = getattr(model, quantity)(x, t)
            alone = [getattr(model, quantity)(x[i : i + 1], float(t[i])) for i in range(4)]
            torch.testing.assert_close(got, torch.cat(alone), rtol=1e-11, atol=1e-13)


def test_derivatives_pass_through(sde):
    for model in (random_mixture(sde), FiniteData(sde, normal(30, 3, seed=4))):
        x, direction = normal(4, 3), normal(4, 3, seed=1)
        _, forward = jvp(lambda z, model=model: model.eps(z, 0.3), (x,), (direction,))
        step = 1e-6 * direction
        difference = (model.eps(x + step, 0.3) - model.eps(x - step, 0.3)) / 2e-6
        # h² of truncation and 1e-16/h of rounding
        torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-7)
        leaf = x.clone().requires_grad_()
        (backward,) = torch.autograd.grad((model.eps(leaf, 0.3) * direction).sum(), leaf)
        # the Jacobian of a gradient field is symmetric
        torch.testing.assert_close(backward, forward, rtol=1e-10, atol=1e-12)


def test_models_are_modules_with_a_state():
    for model in (random_mixture(VP()), FiniteData(VP(), normal(5, 3))):
        assert all(value.dtype == torch.float64 for value in model.buffers())
        assert not list(model.parameters())
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        assert torch.equal(model.to("cpu").eps(normal(2, 3), 0.5), model.eps(normal(2, 3), 0.5))


def test_arguments_are_copied_and_not_changed(mixture_parameters):
    before = [value.clone() for value in mixture_parameters]
    model = GaussianMixture(VP(), *mixture_parameters)
    data = normal(5, 2)
    finite = FiniteData(VP(), data)
    x = POINTS.clone()
    want = model.eps(x, 0.1), finite.eps(x, 0.1)
    model.log_prob(x), model.score_trace(x, 0.5), model.sample(3, seed=0)
    assert torch.equal(x, POINTS)
    assert all(torch.equal(a, b) for a, b in zip(before, mixture_parameters, strict=True))
    for value in (*mixture_parameters, data):
        value.zero_()
    assert torch.equal(model.eps(x, 0.1), want[0])
    assert torch.equal(finite.eps(x, 0.1), want[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [0.5, 0.6]}, "weights must sum to 1, got a sum of 1.1"),
        ({"weights": [1.5, -0.5]}, r"weights must be positive, got \[1.5, -0.5\]"),
        ({"weights": [1.0, 0.0]}, "weights must be positive"),
        ({"weights": [1.0]}, r"weights must have shape \(2,\), got \(1,\)"),
        ({"weights": [math.nan, 0.5]}, "weights must be finite"),
        ({"means": [[0.0, math.inf], [0.0, 0.0]]}, "means must be finite"),
        ({"means": torch.zeros(0, 2)}, r"means must have shape \(K, \*D\), K ≥ 1, got \(0, 2\)"),
        ({"means": 1.0}, r"means must have shape \(K, \*D\), K ≥ 1, got \(\)"),
        ({"covs": torch.ones(3)}, r"covs must have shape \(2, 2, 2\), \(2, 2\) or \(2,\), got \(3"),
        ({"covs": torch.ones(2, 3, 3)}, r"covs must have shape .* got \(2, 3, 3\)"),
        ({"covs": [1.0, -1.0]}, "covs must be positive semi-definite, got an eigenvalue -1 in com"),
        ({"covs": [[1.0, 1.0], [1.0, -0.1]]}, "got an eigenvalue -0.1 in component 1"),
        ({"covs": [[[1.0, 2.0], [2.0, 1.0]]] * 2}, "got an eigenvalue -1 in component 0"),
        ({"covs": [[[1.0, 0.5], [0.4, 1.0]]] * 2}, "covs must be symmetric"),
        ({"covs": [1.0, math.nan]}, "covs must be finite"),
    ],
)
def test_bad_mixtures_are_refused(changes, message):
    good = {"weights": [0.4, 0.6], "means": [[0.0, 0.0], [1.0, 1.0]], "covs": [1.0, 2.0]}
    with pytest.raises(ValueError, match=message):
        GaussianMixture(VP(), **(good | changes))


def test_bad_arguments_are_refused():
    model, data = random_mixture(VP()), FiniteData(VP(), normal(5, 3))
    for call in (model.eps, model.x0, model.v, model.log_prob, model.score_trace, data.eps):
        with pytest.raises(ValueError, match=r"x must have shape \(B, 3\), got \(4, 2\)"):
            call(torch.zeros(4, 2), 0.5)
    assert model.nfe.forward == 0
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        model.sample(-1, seed=0)
    for n in (1.5, True):
        with pytest.raises(TypeError, match="n must be an integer, got"):
            model.sample(n, seed=0)
    for x in (torch.zeros(0, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"x must have shape \(n, \*D\), n ≥ 1, got"):
            FiniteData(VP(), x)
    with pytest.raises(ValueError, match="x must be finite"):
        FiniteData(VP(), torch.tensor([[math.nan]]))
    for call in (model.eps, data.eps, model.log_prob, model.score_trace):
        with pytest.raises(ValueError, match="t_min must be greater than 0"):
            call(torch.zeros(4, 3), 0.0)


def test_only_evaluations_of_the_model_are_counted():
    model = random_mixture(VP())
    x = normal(4, 3)
    model.log_prob(x), model.log_prob(x, 0.5), model.score_trace(x, 0.5), model.sample(2, seed=0)
    assert model.nfe.forward == 0
    model.v(x, torch.full((4,), 0.5))
    assert model.nfe.forward == 1


@pytest.mark.parametrize("sde", [VP(), VE()])
@pytest.mark.parametrize("kind", ["mixture", "points"])
def test_least_error_is_what_the_derivative_of_eps_says(sde, kind):
    """tr Cov(ε | x_t) = D − σ ∇ · ε̂(x_t), by Tweedie's formula; times differ between samples."""
    means = torch.tensor([[0.3, -0.4], [1.0, 0.2], [-0.6, 0.9]], dtype=torch.float64)
    model = FiniteData(sde, means)
    if kind == "mixture":
        model = GaussianMixture(sde, [0.2, 0.3, 0.5], means, torch.tensor([0.01, 0.2, 0.05]))
    x, t = POINTS[:3], torch.tensor([0.1, 0.4, 1.0], dtype=torch.float64)
    axes = torch.eye(2, dtype=torch.float64)
    slopes = [jvp(lambda x: model.eps(x, t), (x,), (a.expand(3, 2),))[1] @ a for a in axes]
    expected = 2 - sde.sigma(t) * sum(slopes)
    assert torch.allclose(model.least_error(x, t), expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(model.least_error(x[:1], 0.1), expected[:1], rtol=1e-9, atol=1e-12)
