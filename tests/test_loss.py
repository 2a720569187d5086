import math

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from scoresde.loss import Objective, denoising_error
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.sde import VE, VP, TabulatedVP

# Irreducible error of ε at t = 0.01, 0.1, 0.3, 0.5, 1, from quadrature of the exact score.
TIMES = (0.01, 0.1, 0.3, 0.5, 1.0)
MIXTURE_VP = (1.959400530, 1.192831593, 0.561384417, 0.107198911, 5.7606e-5)
MIXTURE_VE = (1.997516960, 1.988576044, 1.725610440, 0.918278191, 5.33393e-4)
GAUSSIAN_VP = (0.992075336591, 0.683582936427, 0.140993649151, 0.021011914674, 1.0796787e-5)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def midpoints(n: int) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def relative_error_of_variance(values: torch.Tensor) -> float:
    """√((kurtosis − 1)/n)."""
    z = (values - values.mean()) / values.std()
    return math.sqrt(float((z**4).mean() - 1) / len(values))


@pytest.mark.parametrize(
    "times", ["uniform", "log_snr", "log_normal", "logit_normal", "ladder", "second_moment"]
)
def test_times_stay_in_range_at_the_ends_of_u(sde, times):
    objective = Objective(times=times, t_min=1e-3)
    t, factor = objective.draw_times(sde, torch.tensor([0.0, 1.0], dtype=torch.float64))
    low = 0.0 if times == "ladder" else 1e-3
    assert bool(((t >= low) & (t <= 1)).all())
    assert bool(torch.isfinite(factor).all())


def test_uniform_times():
    u = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    t, factor = Objective(t_min=0.2).draw_times(VP(), u)
    torch.testing.assert_close(t, torch.tensor([0.2, 0.4, 1.0], dtype=torch.float64))
    assert factor.tolist() == [1, 1, 1]


def test_log_snr_factor_is_one_over_the_density(sde):
    objective = Objective(times="log_snr", t_min=1e-3)
    u, h = torch.linspace(0.01, 0.99, 99, dtype=torch.float64), 1e-6
    t, factor = objective.draw_times(sde, u)
    above, below = (objective.draw_times(sde, u + d)[0] for d in (h, -h))
    # u is the distribution function of t run backwards, so its density is −du/dt. Central
    # differences: h² truncation and 1e-16/h rounding (TabulatedVP has kinks in dλ/dt).
    density = (below - above) / (2 * h) / (sde.t_regular - 1e-3)
    torch.testing.assert_close(density, factor, rtol=1e-4, atol=1e-9)
    assert bool((sde.lam(t).diff() > 0).all())
    torch.testing.assert_close(
        sde.lam(t).diff().diff(), torch.zeros(97).double(), atol=1e-8, rtol=0
    )


def test_log_snr_factor_makes_means_those_of_uniform_times(sde):
    t, factor = Objective(times="log_snr", t_min=1e-2).draw_times(sde, midpoints(20_001))
    for power in range(3):
        last = sde.t_regular
        exact = (last ** (power + 1) - 1e-2 ** (power + 1)) / (power + 1) / (last - 1e-2)
        # The midpoint rule errs by O(1/n²); the pieces of TabulatedVP cost some of its order.
        assert float((factor * t**power).mean()) == pytest.approx(exact, rel=1e-6)


def test_learned_times_keep_the_mean_of_every_function(sde, gaussian):
    objective = Objective(times="second_moment", t_min=1e-2)
    history = objective.new_history(gaussian(sde))
    t, _ = objective.draw_times(sde, midpoints(500))
    history.add(t[:-10], t[:-10])
    before, _ = objective.draw_times(sde, midpoints(500), history)
    assert torch.equal(before, t)  # λ stays uniform until the last bin has seen 10 errors as well
    history.add(t[-10:], t[-10:])
    t, factor = objective.draw_times(sde, midpoints(100_001), history)
    assert not torch.allclose(t, objective.draw_times(sde, midpoints(100_001))[0])
    for power in range(3):
        last = sde.t_regular
        exact = (last ** (power + 1) - 1e-2 ** (power + 1)) / (power + 1) / (last - 1e-2)
        # The density jumps at the ends of the bins, where the midpoint rule errs by O(1/n).
        assert float((factor * t**power).mean()) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("weighting", ["simple", "likelihood"])
def test_learned_times_have_the_least_mean_square_of_the_loss(sde, gaussian, weighting):
    n, model = 40_000, gaussian(sde)
    x0, eps = model.sample(n, seed=1), normal(n, 1, seed=2)
    objective = Objective(weighting, "second_moment", t_min=1e-3)
    history, u = objective.new_history(model), midpoints(n)
    before, t, errors = objective(model, x0, u, eps)
    history.add(t, errors)
    after, _, _ = objective(model, x0, u, eps, history)
    # By Cauchy and Schwarz no density of λ has a mean square below (∫ √E[L²] dλ)². The running
    # means of about 100 values, the share of 1 % and the statistics of the sample cost some of it.
    bound = before.square().reshape(50, -1).mean(1).sqrt().mean().square()
    assert bound < 0.9 * before.square().mean()
    assert after.square().mean() == pytest.approx(float(bound), rel=0.1)


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.0, 0.3), (-4.0, 2.0)])
def test_log_normal_times_follow_the_truncated_normal(sde, mean, std):
    objective = Objective(times="log_normal", log_mean=mean, log_std=std, t_min=1e-3)
    u = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)
    t, factor = objective.draw_times(sde, u)
    low, high = (-float(sde.lam(end)) for end in (1e-3, 1.0))
    oracle = truncnorm.ppf(u.numpy(), (low - mean) / std, (high - mean) / std, mean, std)
    torch.testing.assert_close(-sde.lam(t), torch.from_numpy(oracle), rtol=1e-9, atol=1e-9)
    assert bool((factor == 1).all())


@pytest.mark.parametrize("sde", [VP(), VE(), TabulatedVP(VP().ddpm_betas(40))], ids=type)
def test_ladder_visits_every_level_equally_often(sde):
    t, _ = Objective(times="ladder", levels=40).draw_times(sde, midpoints(400))
    levels, counts = torch.unique(t, return_counts=True)
    assert torch.equal(levels, sde.ladder(40).flip(0))
    assert counts.tolist() == [10] * 40


@pytest.mark.parametrize("shape", [(2,), (1, 3, 4)])
def test_weightings_are_the_papers_in_their_own_terms(sde, shape):
    def eps_model(x, t):
        return torch.tanh(x) + 0.3

    model = FunctionScore(sde, eps_model)
    x0, eps, u = normal(50, *shape), normal(50, *shape, seed=1), midpoints(50)
    t = Objective(t_min=0.01).draw_times(sde, u, t_most=model.t_most)[0]
    x_t = sde.perturb(x0, t, eps)
    alpha, sigma, g = sde.alpha(t), sde.sigma(t), sde.g(t)

    def per_dimension(error):
        return error.square().flatten(1).mean(1)

    score_error = per_dimension(model.score(x_t, t) + eps / sigma.reshape(-1, *[1] * len(shape)))
    x0_error = per_dimension(model.x0(x_t, t) - x0)
    sigma_hat, d, gamma = sigma / alpha, 0.7, 3.0
    oracles = {
        "simple": sigma**2 * score_error,  # NCSN's λ(σ) = σ²
        "likelihood": g**2 * score_error,
        "edm": (sigma_hat**2 + d**2) / (sigma_hat * d) ** 2 * x0_error,
        "min_snr": torch.minimum(sigma_hat**-2, torch.tensor(gamma)) * x0_error,
    }
    for weighting, oracle in oracles.items():
        objective = Objective(weighting, t_min=0.01, sigma_data=d, gamma=gamma)
        losses, times, errors = objective(model, x0, u, eps)
        torch.testing.assert_close(losses, oracle, rtol=1e-8, atol=1e-12)  # 1/α² amplifies rounding
        assert torch.equal(times, t)
        torch.testing.assert_close(errors, oracles["simple"], rtol=1e-8, atol=1e-12)


def test_edm_weight_of_unit_data_is_the_error_of_v():
    sde, x0, eps, u = VP(), normal(50, 2), normal(50, 2, seed=1), midpoints(50)
    model = FunctionScore(sde, lambda x, t: torch.tanh(x) + 0.3)
    losses, t, _ = Objective("edm", sigma_data=1.0, t_min=0.01)(model, x0, u, eps)
    v = sde.alpha(t)[:, None] * eps - sde.sigma(t)[:, None] * x0
    oracle = (model.v(sde.perturb(x0, t, eps), t) - v).square().mean(1)
    torch.testing.assert_close(losses, oracle, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("sde", "values"), [(VP(), MIXTURE_VP), (VE(), MIXTURE_VE)], ids=["VP", "VE"]
)
def test_exact_model_has_the_irreducible_error_on_the_mixture(mixture, sde, values):
    model, n = mixture(sde), 40_000
    x0, eps = model.sample(n, seed=0), normal(n, 2)
    for t, value in zip(TIMES, values, strict=True):
        error = denoising_error(model, x0, torch.full((n,), t, dtype=torch.float64), eps)
        mean, std_error = mean_and_error(error)
        assert abs(mean - value) < 4 * std_error


def test_exact_model_has_the_irreducible_error_on_the_gaussian(gaussian):
    model, n = gaussian(VP()), 40_000
    x0, eps = model.sample(n, seed=0), normal(n, 1)
    for t, value in zip(TIMES, GAUSSIAN_VP, strict=True):
        error = denoising_error(model, x0, torch.full((n,), t, dtype=torch.float64), eps)
        mean, std_error = mean_and_error(error)
        assert abs(mean - value) < 4 * std_error


@pytest.mark.parametrize("weighting", ["simple", "likelihood", "edm", "min_snr", "velocity"])
def test_optimum_on_a_gaussian_is_the_exact_score(sde, gaussian, weighting):
    # ε̂ = a x + b at one time; with Gauss–Hermite nodes for x_0 and ε the expectation is exact.
    z, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(6))
    w = w / w.sum()
    x0 = (0.3 + 0.5 * z).repeat_interleave(6)[:, None]
    eps, weights = z.repeat(6)[:, None], torch.outer(w, w).flatten()
    exact = gaussian(sde)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for t in (0.05, 0.5, 0.95):
        b, a_plus_b = exact.eps(ends, t).flatten()
        theta = torch.stack([a_plus_b - b, b]).requires_grad_()
        model = FunctionScore(sde, lambda x, _, theta=theta: theta[0] * x + theta[1])
        objective = Objective(weighting, t_min=0.0 if isinstance(sde, VE) else 1e-3)
        u = torch.full(
            (36,), (t - objective.t_min) / (sde.t_regular - objective.t_min), dtype=torch.float64
        )
        losses, _, _ = objective(model, x0, u, eps)
        (gradient,) = torch.autograd.grad((weights * losses).sum(), theta)
        assert float(gradient.abs().max()) < 1e-10 * max(1.0, float(losses.detach().max()))


def test_likelihood_weight_is_constant_at_log_snr_times(sde):
    objective = Objective("likelihood", "log_snr", t_min=1e-3)
    t, factor = objective.draw_times(sde, midpoints(1000))
    weight = objective.weight(sde.at(t, t)) * factor
    span = float(sde.lam(1e-3) - sde.lam(sde.t_regular))
    torch.testing.assert_close(
        weight, torch.full_like(weight, 2 * span / (sde.t_regular - 1e-3)), rtol=1e-9, atol=0
    )


def test_importance_sampling_keeps_the_mean_and_lowers_the_variance(sde, gaussian):
    n, model = 60_000, gaussian(sde)
    x0, eps = model.sample(n, seed=1), normal(n, 1, seed=2)
    uniform, log_snr = (
        Objective("likelihood", times, t_min=1e-3)(model, x0, midpoints(n), eps)[0]
        for times in ("uniform", "log_snr")
    )
    mean, error = mean_and_error(uniform)
    other, other_error = mean_and_error(log_snr)
    assert abs(mean - other) < 4 * math.hypot(error, other_error)
    ratio = float(log_snr.var() / uniform.var())
    if isinstance(sde, VE):  # the uniform time already is uniform in λ
        errors = [relative_error_of_variance(losses) for losses in (uniform, log_snr)]
        assert ratio == pytest.approx(1, abs=4 * math.hypot(*errors))
    else:
        assert ratio < 0.5


def test_ladder_on_a_table_is_ddpms_simple_loss():
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = torch.from_numpy(np.cumprod(1 - betas))
    n = torch.tensor([0, 1, 9, 99, 499, 998, 999])  # the step i of DDPM, from 0
    x0, eps = normal(7, 1, 4, 4), normal(7, 1, 4, 4, seed=1)

    def network(x, index):
        return torch.sin(x) * (1 + index.reshape(-1, 1, 1, 1) / 1000)

    a = alpha_bar[n].reshape(-1, 1, 1, 1)
    by_hand = (
        (eps - network(a.sqrt() * x0 + (1 - a).sqrt() * eps, n.double()))
        .square()
        .flatten(1)
        .mean(1)
    )

    sde = TabulatedVP(betas)
    model = FunctionScore(sde, lambda x, t: network(x, sde.label(t)))
    u = 1 - (n + 0.5).double() / 1000  # the ladder descends
    losses, t, _ = Objective(times="ladder", levels=1000)(model, x0, u, eps)
    torch.testing.assert_close(t, (n + 1).double() / 1000)
    torch.testing.assert_close(losses, by_hand, rtol=1e-10, atol=0)


def test_a_network_with_discrete_labels_is_not_trained_before_its_first():
    sde = TabulatedVP(VP().ddpm_betas(50))

    class Zero(torch.nn.Module):
        def forward(self, x, label, y=None):
            return torch.zeros_like(x)

    u, x = torch.tensor([0.0, 1e-3, 1.0], dtype=torch.float64), normal(3, 2)
    for times in ("uniform", "log_snr"):
        first = {}
        for label in ("index", "time"):
            model = NetworkScore(Zero(), sde, Preconditioning(label=label))
            first[label] = float(Objective(times=times)(model, x, u, x)[1].min())
        assert first["index"] == pytest.approx(1 / 50)
        assert first["time"] == pytest.approx(1e-5)


def test_ladder_on_ve_is_ncsns_loss():
    sigmas = torch.from_numpy(np.geomspace(50.0, 0.01, 232))
    i = torch.arange(232)
    x0, z = normal(232, 3), normal(232, 3, seed=1)
    sde = VE(0.01, 50.0)

    def score(x, sigma):
        return -torch.tanh(x) / sigma[:, None]

    s = sigmas[i]
    residual = score(x0 + s[:, None] * z, s) + z / s[:, None]
    by_hand = 0.5 * s**2 * residual.square().sum(1)  # λ(σ) = σ², Song & Ermon 2019, eq. (5)

    model = FunctionScore(sde, lambda x, t: torch.tanh(x))
    losses, _, _ = Objective(times="ladder", levels=232)(model, x0, (i + 0.5) / 232, z)
    torch.testing.assert_close(losses * 3 / 2, by_hand, rtol=1e-10, atol=1e-14)


def test_gradient_reaches_the_model_and_not_the_errors():
    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    model = FunctionScore(VP(), lambda x, t: theta * x)
    losses, t, errors = Objective()(model, normal(4, 2), midpoints(4), normal(4, 2, seed=1))
    assert losses.requires_grad
    assert not errors.requires_grad
    assert losses.shape == t.shape == errors.shape == (4,)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            {"weighting": "snr"},
            "weighting must be one of simple, likelihood, edm, min_snr, velocity",
        ),
        (
            {"times": "cosine"},
            "times must be one of uniform, log_snr, log_normal, logit_normal, ladder, second",
        ),
        ({"t_min": -1e-3}, "t_min must be at least 0"),
        ({"t_min": 1.0}, "t_min must be less than 1"),
        ({"t_min": math.nan}, "t_min must be finite"),
        ({"sigma_data": 0.0}, "sigma_data must be greater than 0"),
        ({"gamma": -1.0}, "gamma must be greater than 0"),
        ({"log_std": 0.0}, "log_std must be greater than 0"),
        ({"levels": 1}, "levels must be at least 2"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Objective(**arguments)


def test_levels_must_be_an_integer():
    with pytest.raises(TypeError, match="levels must be an integer"):
        Objective(levels=10.5)


@pytest.mark.parametrize(
    ("objective", "sde", "match"),
    [
        (Objective(t_min=0.0), VP(), "t_min must be greater than 0 for VP"),
        (Objective(times="log_snr", t_min=0.0), VP(), "t_min must be greater than 0 for VP"),
        (Objective(times="log_normal", log_mean=30.0), VP(), "log_mean 30.0 and log_std 1.2"),
        (Objective(times="ladder", levels=9), TabulatedVP((0.1,) * 10), "the table's 10"),
    ],
)
def test_check_refuses_what_the_sde_cannot_serve(objective, sde, match):
    with pytest.raises(ValueError, match=match):
        objective.check(sde)


def test_check_allows_time_zero_where_sigma_is_positive():
    Objective(t_min=0.0).check(VE())
