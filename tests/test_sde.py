"""Laws of the forward SDEs, and their values from an independent numpy/scipy implementation."""

import math

import numpy as np
import pytest
import torch
from torch.func import jvp

from scoresde.sde import VE, VP, CosineVP, Linear, SubVP, TabulatedVP, cosine_betas

# t, VP α, VP σ, VP λ, SubVP σ, SubVP g², VE σ, VE g
SCHEDULES = [
    (1e-5, 9.999994995026252e-01, 1.000497125935239e-03, 6.907257776076,
     1.000994499004672e-06, 2.005971952131436e-07, 1.000085175559146e-02, 4.127625023325711e-02),
    (1e-3, 9.999450265110976e-01, 1.048541633509490e-02, 4.557714932730,
     1.099439557202749e-04, 2.636311126968133e-05, 1.008553567677516e-02, 4.162576393538327e-02),
    (1e-2, 9.990029973377464e-01, 4.464315524465706e-02, 3.108056781403,
     1.993011310198551e-03, 1.190633107368042e-03, 1.088904268000135e-02, 4.494205708119418e-02),
    (0.1, 9.467217988205980e-01, 3.220525355247045e-01, 1.078290592942,
     1.037178356378910e-01, 4.110576090589206e-01, 2.343672911592099e-02, 9.672979054978559e-02),
    (0.5, 2.811828807967524e-01, 9.596542020680363e-01, -1.227567734411,
     9.209361875468394e-01, 9.987176581281732e+00, 7.071067811865476e-01, 2.918423065872431e+00),
    (0.9, 1.699646326168928e-02, 9.998555496853503e-01, -4.074605539251,
     9.997111202366940e-01, 1.800999849703817e+01, 2.133403503223242e+01, 8.805139702057507e+01),
    (1.0, 6.571586494929619e-03, 9.999784068923386e-01, -5.024978406659,
     9.999568142509396e-01, 1.999999996269982e+01, 5.000000000000000e+01, 2.063636740249630e+02),
]  # fmt: skip

# A discrete model's index i, then ᾱ_i and the posterior variance β̃_i (None: not tabulated)
DDPM_LINEAR = [
    (0, 0.9999, 0.0), (1, 0.9997800920720721, 5.453187661302e-05),
    (9, 0.9981052047858344, 2.381820278235e-04), (99, 0.8970181456749600, 2.034596259491e-03),
    (249, 0.5240853738253606, 5.031720867917e-03), (499, 0.07858724288177824, 1.003135541461e-02),
    (749, 3.350550438936774e-3, 1.501925002601e-02), (999, 4.035829765375676e-5, 1.999998352656e-2),
]  # fmt: skip
DDPM_COSINE = [
    (0, 0.9999587157751780, None), (99, 0.9720927371139696, 5.172290804028e-04),
    (499, 0.4938435904406382, 3.136199904058e-03), (749, 0.1442721023857360, 7.536035300449e-03),
    (998, 2.428766907034854e-6, 7.499939281844e-01), (999, 2.428766907034857e-9, 0.998997576088),
]  # fmt: skip

# Closed forms in float64: every difference below is rounding.
ROUNDING = 1e-12


def times(n=100, t_min=1e-5, t_max=1.0):
    """Times over all scales: half of them uniform, half geometric."""
    return torch.cat(
        [
            torch.linspace(t_min, t_max, n // 2, dtype=torch.float64),
            torch.logspace(math.log10(t_min), 0, n // 2, dtype=torch.float64).clamp(t_min, t_max),
        ]
    )


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: f"t={row[0]:g}")
def test_values(row):
    t, alpha, sigma, lam, sub_sigma, sub_g2, ve_sigma, ve_g = row
    vp, sub, ve = VP(), SubVP(), VE()
    got = [vp.alpha(t), vp.sigma(t), sub.alpha(t), sub.sigma(t), sub.g(t) ** 2, ve.sigma(t)]
    want = [alpha, sigma, alpha, sub_sigma, sub_g2, ve_sigma]
    assert [float(v) for v in got] == pytest.approx(want, rel=ROUNDING)
    assert float(ve.g(t)) == pytest.approx(ve_g, rel=ROUNDING)
    assert float(vp.lam(t)) == pytest.approx(lam, abs=1e-12)  # given to 12 decimals
    assert float(vp.g(t)) ** 2 == pytest.approx(0.1 + 19.9 * t, rel=ROUNDING)
    assert float(vp.f(t)) == float(sub.f(t)) == pytest.approx(-(0.1 + 19.9 * t) / 2, rel=ROUNDING)
    assert float(ve.alpha(t)) == 1
    assert float(ve.f(t)) == 0


def test_cosine_is_a_quarter_circle_at_constant_speed():
    sde = CosineVP(lam_max=8.0, lam_min=-5.0)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=ROUNDING, atol=0)
    angle = torch.atan2(sigma, alpha)
    torch.testing.assert_close(angle.diff(n=2), torch.zeros(99).double(), rtol=0, atol=1e-14)
    ends = sde.lam(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    assert ends == pytest.approx([8.0, -5.0], rel=ROUNDING)


def test_f_and_g_are_those_of_the_kernel(sde):
    """f = d log α/dt and dσ²/dt = 2 f σ² + g², by forward-mode differentiation."""
    t = times(t_max=sde.t_regular)
    one = torch.ones_like(t)
    _, log_alpha_slope = jvp(sde.log_alpha, (t,), (one,))
    torch.testing.assert_close(sde.f(t), log_alpha_slope, rtol=ROUNDING, atol=0)
    _, variance_slope = jvp(lambda u: sde.sigma(u) ** 2, (t,), (one,))
    damping, noise = 2 * sde.f(t) * sde.sigma(t) ** 2, sde.g(t) ** 2
    # Relative to the terms that are added: near t = 1 they cancel.
    error = (variance_slope - damping - noise).abs() / (damping.abs() + noise)
    assert float(error.max()) < ROUNDING


def test_rates_are_the_slopes_of_the_kernel(sde):
    """α′ and σ′ by forward-mode differentiation, up to t = 1; a node holds the same numbers."""
    t = times()
    one = torch.ones_like(t)
    found = sde.rates(t)
    for got, function in zip(found, (sde.alpha, sde.sigma), strict=True):
        _, slope = jvp(function, (t,), (one,))
        # g² + 2 f σ² cancels near t = 1: relative to the terms that are added
        size = sde.f(t).abs().clamp(1, 1e4) + slope.abs()
        assert float(((got - slope).abs() / size).max()) < ROUNDING
    for i in (0, 40, len(t) - 1):
        node = sde.nodes(t[i : i + 1])[0]
        assert (node.alpha_rate, node.sigma_rate) == pytest.approx([float(r[i]) for r in found])
        slope = 0.5 * node.g**2 / node.sigma**2  # −dλ/dt
        if node.alpha > 0:
            assert node.determinant == pytest.approx(node.alpha * node.sigma * slope, rel=1e-9)


def test_linear_ends_in_pure_noise():
    """At t = 1 α is 0, and f, g and λ are infinite; nothing is NaN, and the rest is finite."""
    sde = Linear()
    assert sde.ends_in_noise
    assert not any(other.ends_in_noise for other in (VP(), SubVP(), VE(), CosineVP()))
    node = sde.nodes([1.0])[0]
    assert node == (1.0, 0.0, 1.0, -math.inf, -math.inf, math.inf, -1.0, 1.0)
    assert node.determinant == 1.0
    assert float(sde.lam(sde.t_regular)) == pytest.approx(-6, abs=1e-12)
    assert VP().t_regular == VE().t_regular == 1.0
    # from any earlier state the transition to t = 1 is pure noise
    assert sde.transition(node, sde.nodes([0.3])[0]) == (0.0, 1.0)
    # the marginal of unit data at λ = −6, against 1 at t = 1
    assert sde.start_std(sde.t_regular) == pytest.approx(
        math.hypot(1 - sde.t_regular, sde.t_regular)
    )


def test_lam_decreases_and_t_of_lam_is_its_inverse(sde):
    t = times(2000).sort().values.unique()
    lam = sde.lam(t)
    assert bool((lam.diff() < 0).all())
    torch.testing.assert_close(sde.t_of_lam(lam), t, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        lam, torch.log(sde.alpha(t) / sde.sigma(t)), rtol=ROUNDING, atol=1e-14
    )


def test_float32_does_not_cancel(sde):
    """σ near t = 0 is where √(1 − e^x) would lose 2% and 1 − e^x 5%."""
    t = times(1000).float()
    exact = sde.sigma(t.double())
    assert float((sde.sigma(t).double() / exact - 1).abs().max()) < 2e-6


def test_number_and_tensor_times_agree(sde):
    t = torch.tensor([[0.1, 0.3], [0.7, 1.0]], dtype=torch.float64)
    for method in (sde.log_alpha, sde.alpha, sde.sigma, sde.lam, sde.f, sde.g):
        values = method(t)
        assert values.shape == t.shape
        assert values.dtype == torch.float64
        one = method(0.3)
        assert one.shape == ()
        assert one.dtype == torch.float64
        assert float(one) == float(values[0, 1])
        assert method(t.float()).dtype == torch.float32


@pytest.mark.parametrize("end", [0.5, 0.9])  # at 1 CosineVP has |f| h > 1 for N = 500
def test_moments_of_simulated_paths_tend_to_the_kernel(sde, end):
    """Euler–Maruyama from x_0 = 1, its mean and variance by exact recursion: error O(1/N)."""

    def errors(n):
        t = torch.arange(n, dtype=torch.float64) / n * end
        h = end / n
        mean, variance = 1.0, 0.0
        for f, g in zip(sde.f(t).tolist(), sde.g(t).tolist(), strict=True):
            mean, variance = mean * (1 + f * h), variance * (1 + f * h) ** 2 + g**2 * h
        # From clean data at t = 0, where the kernel may already carry σ(0) (VE: σ_min).
        ratio = float(sde.alpha(end) / sde.alpha(0.0))
        target = float(sde.sigma(end) ** 2) - ratio**2 * float(sde.sigma(0.0) ** 2)
        return abs(mean - ratio), abs(variance / target - 1)

    (mean_500, variance_500), (mean_1000, variance_1000) = errors(500), errors(1000)
    assert variance_500 / variance_1000 == pytest.approx(2.0, abs=0.1)
    if mean_1000 > 1e-12:  # VE leaves the mean alone
        assert mean_500 / mean_1000 == pytest.approx(2.0, abs=0.1)


def test_transitions_compose(sde):
    t, u, s = sde.nodes(torch.tensor([0.9, 0.4, 0.05], dtype=torch.float64))
    (a_ts, b_ts), (a_tu, b_tu), (a_us, b_us) = (
        sde.transition(*pair) for pair in ((t, s), (t, u), (u, s))
    )
    assert a_ts == pytest.approx(a_tu * a_us, rel=ROUNDING)
    assert b_ts**2 == pytest.approx(a_tu**2 * b_us**2 + b_tu**2, rel=ROUNDING)
    assert t.sigma**2 == pytest.approx(a_ts**2 * s.sigma**2 + b_ts**2, rel=ROUNDING)


def test_transition_of_a_short_step_is_the_sde(sde):
    """σ²_{t|s}/(t − s) → g², which a difference of squares could not show at this step."""
    h = 1e-7
    t, s = sde.nodes(torch.tensor([0.3 + h, 0.3], dtype=torch.float64))
    a, b = sde.transition(t, s)
    # O(h g'/g) truncation, and λ_t − λ_s has lost 9 digits
    assert b**2 / h == pytest.approx(s.g**2, rel=1e-5)
    assert math.log(a) / h == pytest.approx(s.f, rel=1e-5, abs=1e-9)


def test_vp_is_the_limit_of_ddpm():
    """N sup|ᾱ_N − α²| tends to a constant: DDPM's products are α² up to O(1/N)."""
    for n, want in ((100, 0.834296), (1000, 0.811266), (10_000, 0.808988), (100_000, 0.808760)):
        alpha_bar = torch.cumprod(1 - VP().ddpm_betas(n), 0)
        t = torch.arange(1, n + 1, dtype=torch.float64) / n
        gap = (alpha_bar - VP().alpha(t) ** 2).abs().max()
        assert n * float(gap) == pytest.approx(want, rel=1e-4)  # of the table's last digit


def test_linear_schedule_is_that_of_ddpm():
    betas = VP().ddpm_betas(1000)
    np.testing.assert_allclose(betas, np.linspace(1e-4, 0.02, 1000), rtol=ROUNDING)


def test_cosine_schedule_is_clipped_at_its_end():
    betas = cosine_betas(1000).tolist()
    assert betas[0] == pytest.approx(4.128422482197e-05, rel=1e-11)  # cancels in 1 − ᾱ'/ᾱ
    assert betas[998] == pytest.approx(0.7499993929011, rel=ROUNDING)
    assert betas[999] == 0.999


@pytest.mark.parametrize(
    ("betas", "rows"),
    [(VP().ddpm_betas(1000), DDPM_LINEAR), (cosine_betas(1000), DDPM_COSINE)],
    ids=["linear", "cosine"],
)
def test_a_table_is_its_discrete_model(betas, rows):
    sde = TabulatedVP(betas)
    knots = sde.ladder(1000).flip(0)
    alpha_bar = sde.alpha(knots) ** 2
    assert bool((alpha_bar.diff() < 0).all())
    assert bool(((alpha_bar > 0) & (alpha_bar < 1)).all())
    nodes = sde.nodes(knots)
    for i, want, beta_tilde in rows:
        # ᾱ is a product of up to 1000 factors
        assert float(alpha_bar[i]) == pytest.approx(want, rel=ROUNDING)
        assert float(sde.label(knots[i])) == pytest.approx(i, abs=1e-9)
        if i and beta_tilde is not None:
            _, std = sde.transition(nodes[i], nodes[i - 1])
            assert std**2 == pytest.approx(float(betas[i]), rel=1e-11)
            posterior = (std * nodes[i - 1].sigma / nodes[i].sigma) ** 2
            assert posterior == pytest.approx(beta_tilde, rel=1e-10)  # 13 digits tabulated


def test_a_table_is_smooth_between_its_knots():
    sde = TabulatedVP(VP().ddpm_betas(50))
    knots = torch.arange(1, 50, dtype=torch.float64) / 50
    left, right = sde.f(knots - 1e-12), sde.f(knots + 1e-12)
    torch.testing.assert_close(left, right, rtol=1e-8, atol=0)  # 1e-12 times the slope of f
    assert float(sde.log_alpha(0.0)) == 0
    assert float(sde.label(0.0)) == 0
    assert float(sde.label(1e-3)) == 0
    # It is O(1/N) from the continuous VP at the knots, and no farther between them (1% for the
    # maximum that falls between two knots).
    at_knots, between = (
        (sde.alpha(t) ** 2 - VP().alpha(t) ** 2).abs().max() for t in (knots, times(400, 0.02))
    )
    assert float(between) < 1.01 * float(at_knots)


def test_a_table_of_falling_betas_has_a_real_g():
    """Where PCHIP's end slope is 0, rounding to a positive f would make g = √(−2 f) NaN."""
    sde = TabulatedVP((0.2603564393085597, 0.68908232662791, 0.0011324182176156098))
    g = sde.g(torch.linspace(0, 1, 3001, dtype=torch.float64))
    assert bool(torch.isfinite(g).all())


def test_ladders_of_discrete_models(sde):
    ladder = sde.ladder(1000)
    assert ladder.shape == (1000,)
    assert float(ladder[0]) == 1
    assert bool((ladder.diff() < 0).all())
    if isinstance(sde, VE):
        ratios = sde.sigma(ladder)[1:] / sde.sigma(ladder)[:-1]  # NCSN: a geometric sequence
        torch.testing.assert_close(ratios, ratios[:1].expand(999), rtol=ROUNDING, atol=0)
        assert float(sde.sigma(ladder[-1])) == sde.sigma_min
    else:
        assert float(ladder[-1]) == 1e-3


def test_nodes_hold_the_sde_as_numbers(sde):
    ts = torch.tensor([1.0, 0.3, 1e-3], dtype=torch.float64)
    for t, node in zip(ts, sde.nodes(ts), strict=True):
        assert all(type(value) is float for value in node)
        want = (t, sde.alpha(t), sde.sigma(t), sde.lam(t), sde.f(t), sde.g(t), *sde.rates(t))
        # one vectorised call may round differently from six scalar ones
        assert tuple(node) == pytest.approx([float(v) for v in want], rel=1e-14)


def test_at_takes_any_kind_of_time(sde):
    x = torch.zeros(2, 1, 4, 3)
    node = sde.at(0.3, x)
    assert sde.at(node, x) is node
    assert sde.at(torch.tensor(0.3, dtype=torch.float64), x) == node
    each = sde.at(torch.tensor([0.3, 0.7]), x)
    assert all(value.shape == (2, 1, 1, 1) for value in each)
    assert all(value.dtype == torch.float64 for value in each)
    assert [float(v[0]) for v in each] == pytest.approx(list(node), rel=1e-5)  # float32 times


@pytest.mark.parametrize("t", [-1e-9, 1 + 1e-6, math.nan, math.inf])
def test_times_outside_the_interval_are_refused(sde, t):
    x = torch.zeros(2, 3)
    for bad in (t, torch.tensor(t), torch.tensor([0.5, t], dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"times must lie in \[0, 1\], got"):
            sde.at(bad, x)
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\], got"):
        sde.nodes(torch.tensor([0.5, t], dtype=torch.float64))


def test_the_end_points(sde):
    x = torch.zeros(2, 3)
    assert sde.at(1.0, x).t == 1.0
    if float(sde.sigma(0.0)) > 0:
        assert sde.at(0.0, x).sigma == float(sde.sigma(0.0))
        return
    for t in (0.0, torch.tensor([0.5, 0.0])):
        with pytest.raises(ValueError, match=r"t_min must be greater than 0 .* σ\(0\) = 0"):
            sde.at(t, x)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 1, 5, 3)])
def test_perturb_and_drift_scale_each_sample(sde, shape):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=torch.float64)
    together, drift = sde.perturb(x0, t, eps), sde.drift(x0, t)
    for i in range(4):
        alone = sde.perturb(x0[i : i + 1], float(t[i]), eps[i : i + 1])[0]
        want = float(sde.alpha(t[i])) * x0[i] + float(sde.sigma(t[i])) * eps[i]
        torch.testing.assert_close(together[i], want, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(alone, want, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(drift[i], float(sde.f(t[i])) * x0[i], rtol=1e-14, atol=0)
    assert sde.perturb(x0.float(), t, eps.float()).dtype == torch.float32
    assert sde.drift(x0.float(), 0.3).dtype == torch.float32


@pytest.mark.parametrize("t", [torch.full((3,), 0.5), torch.full((4, 1), 0.5)])
def test_one_time_or_one_per_sample(sde, t):
    x = torch.zeros(4, 2)
    for call in (lambda: sde.perturb(x, t, x), lambda: sde.drift(x, t), lambda: sde.at(t, x)):
        with pytest.raises(ValueError, match=r"t must have shape \(\) or \(4,\)"):
            call()


def test_arguments_are_not_changed(sde):
    t = torch.linspace(0.1, 1, 4, dtype=torch.float64)
    x, eps = torch.full((4, 2), 0.5), torch.ones(4, 2)
    for method in (sde.log_alpha, sde.alpha, sde.sigma, sde.lam, sde.f, sde.g, sde.nodes):
        method(t)
    sde.t_of_lam(t)
    sde.perturb(x, t, eps)
    sde.drift(x, t)
    sde.at(t, x)
    assert torch.equal(t, torch.linspace(0.1, 1, 4, dtype=torch.float64))
    assert torch.equal(x, torch.full((4, 2), 0.5))
    assert torch.equal(eps, torch.ones(4, 2))


def test_the_prior_is_the_papers(sde):
    assert sde.prior_std == (50.0 if isinstance(sde, VE) else 1.0)


def test_ve_spans_the_data():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    assert VE.from_data(x, sigma_min=0.1) == VE(sigma_min=0.1, sigma_max=5.0)
    assert VE.from_data(x.reshape(3, 1, 2, 1)).sigma_max == 5.0


@pytest.mark.parametrize(("i", "j"), [(3, 700), (700, 3), (1101, 1102), (600, 1100)])
def test_ve_spans_the_data_of_more_rows_than_a_piece(i, j):
    """The two rows that are furthest apart may be in any two pieces."""
    x = torch.zeros(1200, 2)
    x[i], x[j] = torch.tensor([3.0, 0.0]), torch.tensor([0.0, -4.0])
    assert VE.from_data(x).sigma_max == 5.0


def test_of_many_data_the_outer_ones_bound_the_largest_distance(monkeypatch):
    """The number is between the largest distance and what the left out points could still give."""
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    true = VE.from_data(x).sigma_max
    monkeypatch.setattr("scoresde.sde.ve._MOST", 20)
    found = VE.from_data(x).sigma_max
    radii = (x - x.mean(0)).norm(dim=1).sort(descending=True).values
    assert 0.9 * true < found <= true <= max(found, float(radii[0] + radii[20]))
    x[:2] = torch.tensor([[9.0, 0.0, 0.0], [-9.0, 0.0, 0.0]])
    assert VE.from_data(x).sigma_max == 18.0  # more than any other pair can have
    with pytest.raises(ValueError, match="at least 2 data points, got 1"):
        VE.from_data(x[:1])


def test_overlap_is_that_of_the_lengths_of_noise():
    """For D = 3072 the normal law of the length is that of χ to 0.5 %."""
    sde, dims = VE(0.01, 50.0), 3072
    for levels in (100, 232, 400):
        gamma = 5000 ** (1 / (levels - 1))
        ends = gamma * (dims**0.5 + torch.tensor([-3.0, 3.0]).double() / 2**0.5)
        half = torch.tensor(dims / 2).double()
        below = torch.special.gammainc(half, ends.square() / 2)  # P(χ < end)
        assert sde.overlap(levels, dims) == pytest.approx(float(below[1] - below[0]), abs=5e-3)
    assert sde.overlap(10**6, 1) == pytest.approx(0.9973, abs=1e-4)  # three standard deviations


def test_levels_for_an_overlap_are_the_fewest():
    sde = VE(0.01, 9.0)
    levels = sde.levels_for(64)
    assert sde.overlap(levels - 1, 64) < 0.5 <= sde.overlap(levels, 64)
    assert sde.levels_for(2) == 2  # three standard deviations reach from one end to the other
    with pytest.raises(
        ValueError, match="overlap must be one that 1000000 levels reach, got 0.999"
    ):
        sde.levels_for(64, 0.999)


def test_tables_compare_by_value_and_print_short():
    assert TabulatedVP([0.1, 0.2]) == TabulatedVP(torch.tensor([0.1, 0.2], dtype=torch.float64))
    assert hash(TabulatedVP([0.1, 0.2])) == hash(TabulatedVP((0.1, 0.2)))
    assert repr(TabulatedVP(VP().ddpm_betas(1000))) == "TabulatedVP(N=1000, 0.0001..0.02)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: VP(beta_min=-0.1), ValueError, "beta_min must be at least 0, got -0.1"),
        (lambda: VP(beta_min=2, beta_max=2), ValueError, "beta_max must be greater than beta_min"),
        (lambda: SubVP(beta_max=math.inf), ValueError, "beta_max must be finite"),
        (lambda: SubVP(beta_min="0.1"), TypeError, "beta_min must be a number"),
        (lambda: VE(sigma_min=0), ValueError, "sigma_min must be greater than 0, got 0"),
        (lambda: VE(1.0, 0.5), ValueError, "sigma_max must be greater than sigma_min"),
        (lambda: VE(sigma_max=math.nan), ValueError, "sigma_max must be finite"),
        (lambda: CosineVP(1.0, 1.0), ValueError, "lam_min must be less than lam_max"),
        (lambda: CosineVP(lam_max=99.0), ValueError, "lam_max must be at most 20, got 99"),
        (lambda: CosineVP(lam_min=-99.0), ValueError, "lam_min must be at least -20, got -99"),
        (lambda: TabulatedVP([0.1]), ValueError, "betas must hold at least 2 values, got 1"),
        (lambda: TabulatedVP([0.1, 2]), ValueError, r"betas must lie in .* got betas\[1\] = 2"),
        (lambda: TabulatedVP([math.nan, 0.1]), ValueError, r"got betas\[0\] = nan"),
        (lambda: TabulatedVP([0.1, 0.2]).ladder(3), ValueError, "levels must be the table's 2"),
        (lambda: VP().ddpm_betas(20), ValueError, "steps must be greater than beta_max"),
        (lambda: VP().ddpm_betas(1), ValueError, "steps must be at least 2, got 1"),
        (lambda: VP().ladder(1), ValueError, "levels must be at least 2, got 1"),
        (lambda: cosine_betas(1), ValueError, "steps must be at least 2, got 1"),
        (lambda: cosine_betas(10, s=-1), ValueError, "s must be at least 0, got -1"),
        (lambda: cosine_betas(10, max_beta=1), ValueError, "max_beta must be less than 1, got 1"),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_starts_below_one_have_the_marginal_or_are_refused(sde):
    """s² is the variance of p_t wherever sampling may start, for one variance of the data."""
    assert sde.start_std(1) == sde.start_std(1.0) == sde.prior_std
    for t in torch.linspace(0.02, 1, 50, dtype=torch.float64).tolist():
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        if alpha / sigma > 0.1:
            with pytest.raises(ValueError, match=r"x_init must be given for a grid that starts at"):
                sde.start_std(t)
            continue
        # between the marginals of data of variance 0 and of variance 1; SubVP's prior has 2
        most = 2 if isinstance(sde, SubVP) else 1
        assert sigma * (1 - 1e-12) <= sde.start_std(t)
        assert sde.start_std(t) <= math.sqrt(most * alpha**2 + sigma**2) * (1 + 1e-9)


def test_starts_are_sigma_under_ve_and_one_under_vp():
    assert VE().start_std(0.9) == pytest.approx(float(VE().sigma(0.9)), rel=1e-12)
    for sde in (VP(), CosineVP(), TabulatedVP(VP().ddpm_betas(1000))):
        # v = (1 − σ²)/α² at t = 1, where 1 − σ² has lost 5 of float64's digits
        assert sde.start_std(0.97) == pytest.approx(1, abs=1e-10)


def test_numpy_scalars_are_the_numbers_they_are():
    plain = VE(0.5, 20)
    for number in (np.float32, np.float64, np.array, torch.tensor):
        got = VE(number(0.5), number(20))
        assert got == plain
        assert type(got.sigma_min) is float
        assert torch.equal(got.sigma(0.3), plain.sigma(0.3))
    assert torch.equal(VP().ladder(np.int64(4)), VP().ladder(4))
    assert TabulatedVP(np.array([0.1, 0.2], np.float32)) == TabulatedVP(
        [float(np.float32(0.1)), float(np.float32(0.2))]
    )
    for wrong in (True, np.bool_(True), "0.1", np.array([0.1]), 1j, None):
        with pytest.raises(TypeError, match="sigma_min must be a number"):
            VE(wrong, 20)
    with pytest.raises(TypeError, match="levels must be an integer, got 4.0"):
        VP().ladder(np.float64(4))
    with pytest.raises(ValueError, match="sigma_max must be at most 1e308 in size"):
        VE(0.01, 10**400)
