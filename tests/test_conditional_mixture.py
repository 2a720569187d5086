"""The exact conditional model, and every sampler and likelihood under a condition of numbers."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from scoresde import grid
from scoresde.data import DataSpec
from scoresde.exact import ConditionalMixture, GaussianMixture
from scoresde.likelihood import (
    DDPMVLB,
    ContinuousVLB,
    Dequantized,
    ExactTrace,
    Ode,
    Path,
    decode,
    encode,
    interpolate,
    log_likelihood,
    sample_with_log_prob,
)
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.noise import SampleNoise
from scoresde.samplers import DDIM, ProbabilityFlowODE, sample
from scoresde.sde import VE, VP

V = torch.tensor([[0.3], [-1.2], [0.9], [0.0], [2.1]], dtype=torch.float64)
C = torch.tensor([0, 2, 1, 1, 0])
CONDITIONS = {
    "vector": {"vector": 1},
    "class": {"shares": [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]},
}
CONDITIONS["both"] = CONDITIONS["vector"] | CONDITIONS["class"]
Y = {"vector": V, "class": C, "both": {"class": C, "vector": V}}


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def joint(sde, kind):
    """Three components in the plane, and their joint parameters with the vector."""
    size = 2 + CONDITIONS[kind].get("vector", 0)
    root = normal(3, size, size + 2, seed=6)
    covs = 0.15 * root @ root.mT / size
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = 0.7 * normal(3, size, seed=8)
    return ConditionalMixture(sde, weights, means, covs, **CONDITIONS[kind]), weights, means, covs


@pytest.mark.parametrize("kind", CONDITIONS)
def test_the_density_is_that_of_the_pair_over_that_of_the_condition(kind):
    """Bayes' rule with scipy's densities, at t = 0 and at a time, where x has more noise."""
    sde, points = VP(), normal(5, 2, seed=3)
    model, weights, means, covs = joint(sde, kind)
    q = torch.tensor(CONDITIONS[kind].get("shares", [[1.0]] * 3), dtype=torch.float64).numpy()
    for t in (None, 0.3):
        a, s = (1.0, 0.0) if t is None else (float(sde.alpha(t)), float(sde.sigma(t)))
        got = model.given(Y[kind]).log_prob(points, t)
        for i, x in enumerate(points):
            v = V[i] if "vector" in CONDITIONS[kind] else V[i, :0]
            pair = own = 0.0
            for k in range(3):
                scale = torch.tensor([a, a, 1.0], dtype=torch.float64)[: len(means[k])]
                cov = covs[k] * scale * scale[:, None]
                cov[:2, :2] += s**2 * torch.eye(2, dtype=torch.float64)
                share = float(weights[k]) * (q[k, C[i]] if "shares" in CONDITIONS[kind] else 1.0)
                both = stats.multivariate_normal(means[k] * scale, cov)
                pair += share * both.pdf(torch.cat([x, v]).numpy())
                if len(v):
                    share *= stats.multivariate_normal(means[k, 2:], covs[k, 2:, 2:]).pdf(v)
                own += share
            # a dozen roundings in float64
            assert float(got[i].exp()) == pytest.approx(pair / own, rel=1e-11)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_averaged_over_conditions_it_is_the_marginal(kind):
    """Moments of the pairs, and p(x) as the mean of p(x | y) over 4,000 drawn conditions."""
    model, *_ = joint(VP(), kind)
    x, y = model.sample_joint(4000, seed=0)
    marginal = model.marginal
    assert (x.mean(0) - marginal.mean()).abs().max() < 4 * float(x.std(0).max()) / 4000**0.5
    points = x[:5]
    values = torch.stack([model.given(y).log_prob(p.expand(4000, 2)).exp() for p in points])
    error = values.std(1) / 4000**0.5
    assert ((values.mean(1) - marginal.log_prob(points).exp()).abs() < 4 * error).all()


def test_score_is_the_gradient_of_the_density_and_moments_are_those_of_samples():
    model = joint(VE(), "both")[0].given(Y["both"])
    x = normal(5, 2, seed=1).requires_grad_()
    (want,) = torch.autograd.grad(model.log_prob(x, 0.4).sum(), x)
    torch.testing.assert_close(model.score(x.detach(), 0.4), want, rtol=1e-10, atol=1e-12)
    one = model.given({"class": torch.tensor([2]), "vector": V[1:2]})
    mean, cov = one.mean()[0], one.cov()[0]
    drawn = one.sample(20_000, seed=0)  # one condition for all
    assert (drawn.mean(0) - mean).abs().max() < 4 * float(cov.diagonal().max() / 20_000) ** 0.5
    torch.testing.assert_close(torch.cov(drawn.T), cov, rtol=0.05, atol=0.05 * float(cov.max()))


def rows(kind, chosen):
    y = Y[kind]
    return {k: v[chosen] for k, v in y.items()} if isinstance(y, dict) else y[chosen]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.by_default(
    "ddim",
    "dpmpp-2m",
    "em",
    "euler-maruyama",
    "gotta-go-fast",
    "dopri5",
    "ancestral",
    "heun",
    "pc",
    "restart",
)
def test_every_sampler_carries_the_condition_along(name):
    """Each sample is that of its own Gaussian mixture, for every size of the batch.

    The mixture of sample i is written without a condition; its draws are those of sample i.
    """
    sde = VP()
    model, *_ = joint(sde, "both")
    sampler = parse_sampler(name)
    tolerance = 1e-9
    if isinstance(sampler, ProbabilityFlowODE):
        # Steps of a solver that advances the whole batch depend on the mates of a sample.
        sampler, tolerance = replace(sampler, rtol=1e-3, atol=1e-3), 0.05
    elif sampler.adaptive:
        sampler, tolerance = replace(sampler, rtol=0.3, atol=0.3), 1e-6
    ts = grid.log_snr(sde, 3)
    options = {"dtype": torch.float64, "denoise": False}
    # 3 samples in batches of 2: the third one has a batch with rows of its own
    y = rows("both", slice(0, 3))
    cut = sample(model, sampler, ts, (3, 2), y=y, batch=2, seed=3, **options).x
    for i in (1, 2):
        alone = model.given(rows("both", slice(i, i + 1)))
        log_weights, means = alone._terms(1)
        plain = GaussianMixture(sde, log_weights[:, 0].exp(), means[:, 0], _covs(alone))
        want = sample(plain, sampler, ts, (1, 2), noise=SampleNoise(3, [i]), **options).x[0]
        torch.testing.assert_close(cut[i], want, rtol=tolerance, atol=tolerance)


def _covs(model):
    return model.axes @ (model.variances[..., None] * model.axes.mT)


@pytest.mark.slow
def test_likelihoods_are_exact_to_a_millionth_of_a_nat():
    """With steps of each sample, and, for samples that the solver makes itself, of the batch."""
    sde = VP()
    model, *_ = joint(sde, "both")
    y = rows("both", slice(0, 3))
    bound = model.given(y)
    x = bound.sample(3, 0.01, seed=2)
    each, whole = (
        Ode(name, rtol=1e-8, atol=1e-8, t_min=0.01, trace=ExactTrace())
        for name in ("dop853", "dopri8")
    )
    found = log_likelihood(model, x, each, seed=0, y=y)
    drawn = sample_with_log_prob(model, (3, 2), whole, seed=0, y=y, dtype=torch.float64)
    for points, got in ((x, found), (drawn.x, drawn)):
        # The method takes the prior in place of p_1: a known difference, which is removed here.
        prior = stats.norm(scale=sde.prior_std).logpdf(got.latent.numpy()).sum(1)
        value = got.log_prob - torch.from_numpy(prior) + bound.log_prob(got.latent, 1.0)
        torch.testing.assert_close(value, bound.log_prob(points, 0.01), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "method", [Path(steps=6), ContinuousVLB(draws=1), DDPMVLB(12, draws=1)], ids=lambda m: type(m)
)
def test_every_method_carries_the_condition_along(method):
    """The same bits for each datum in any batch, and other values under another condition."""
    model, *_ = joint(VP(), "both")
    x = normal(5, 2, seed=4)
    whole = log_likelihood(model, x, method, seed=0, y=Y["both"]).log_prob
    cut = log_likelihood(model, x, method, seed=0, y=Y["both"], batch=2).log_prob
    torch.testing.assert_close(cut, whole, rtol=1e-10, atol=1e-10)
    other = log_likelihood(model, x, method, seed=0, y=rows("both", torch.arange(4, -1, -1)))
    moved = (other.log_prob - whole).abs() > 1e-3
    assert moved.tolist() == [True, True, False, True, True]  # the third keeps its own condition


def test_dequantization_repeats_the_data_and_keeps_their_conditions():
    model, *_ = joint(VP(), "both")
    spec = DataSpec((2,), -3, 3, levels=8)
    k = torch.tensor([[1, 4], [5, 3], [2, 2], [6, 6], [4, 4]])
    method = Dequantized(spec, Path(steps=4), draws=2, dtype=torch.float64)
    whole = log_likelihood(model, k, method, seed=0, y=Y["both"], batch=2)
    for i in (1, 4):
        alone = log_likelihood(
            model, k[i:], method, noise=SampleNoise(0, range(i, 5)), y=rows("both", slice(i, None))
        )
        torch.testing.assert_close(alone.log_prob[0], whole.log_prob[i], rtol=1e-10, atol=1e-10)


def test_codes_and_paths_keep_their_conditions():
    model, *_ = joint(VP(), "both")
    y = rows("both", slice(0, 4))
    x = model.given(y).sample(4, 1e-3, seed=5)
    method = Ode(rtol=1e-6, atol=1e-6)
    back = decode(model, encode(model, x, method, y=y, batch=3).latent, method, y=y, batch=2)
    assert (back.x - x).abs().max() < 1e-4
    halves = rows("both", slice(0, 2))
    found = interpolate(model, x[:2], x[2:], 3, method, y=halves, batch=2)
    assert found.error.max() < 1e-4  # both ends of a path are coded under the path's condition
    middle = model.given(halves)
    code = encode(middle, found.x[:, 1], method).latent
    torch.testing.assert_close(code, found.latent[:, 1], rtol=1e-3, atol=1e-3)


def test_a_condition_that_is_missing_or_of_another_kind_is_refused():
    model, *_ = joint(VP(), "both")
    for y, message in [
        (None, "y must be given: the network takes 3 classes and a vector of 1"),
        (V, "y must be a dict with keys class, vector, got Tensor"),
        ({"class": C, "vector": V[:2]}, r"y\['vector'\] must have leading dimension 5, or 1"),
    ]:
        for call in (
            lambda y: sample(model, DDIM(), [1.0, 0.1], (5, 2), seed=0, y=y),
            lambda y: log_likelihood(model, normal(5, 2), seed=0, y=y),
            lambda y: encode(model, normal(5, 2), y=y),
        ):
            with pytest.raises(ValueError, match=message):
                call(y)
    assert model.nfe.forward == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vector": 0}, "vector must be at least 1, or shares must be given, got neither"),
        ({"vector": 3}, r"means must have shape \(K, D \+ 3\), got \(1, 3\)"),
        ({"covs": [[1, 1, 0]]}, "covs must give every component a positive definite Σ_vv"),
        ({"shares": [[0.5, 0.6]]}, "each row must sum to 1"),
        ({"shares": [[1.0, 0.0]]}, "every class a positive probability"),
        ({"shares": [1.0]}, r"shares must have shape \(1, C\), got \(1,\)"),
    ],
)
def test_what_is_no_joint_mixture(change, message):
    given = {"weights": [1.0], "means": [[0, 0, 0]], "covs": [1.0], "vector": 1} | change
    with pytest.raises(ValueError, match=message):
        ConditionalMixture(VP(), **given)
