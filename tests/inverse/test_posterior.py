"""The exact posterior against quadrature, and models that claim to be exact for Gaussian data."""

import math

import pytest
import torch

import scoresde
from scoresde.exact import ConditionalMixture, GaussianMixture
from scoresde.inverse import DDNM, DPS, Blur, Mask, Measured, PiGDM, Projection, posterior

TIMES = [0.05, 0.4, 0.9]


def grid_of(n, low, high):
    """Points of the plane in a square grid, shape (n², 2), and the area of one."""
    line = torch.linspace(low, high, n, dtype=torch.float64)
    return torch.cartesian_prod(line, line), float(line[1] - line[0]) ** 2


def test_it_is_the_normalised_product_of_prior_and_likelihood(mixture):
    """By quadrature in the plane, of a smooth function that vanishes at the border."""
    prior = mixture(scoresde.VP())
    operator, noise = Projection(torch.tensor([[1.0, -0.5]])), 0.4
    y = torch.tensor([0.7], dtype=torch.float64)
    found = posterior(prior, operator, y, noise)
    points, area = grid_of(240, -4, 4)
    gap = (y - operator.A(points))[:, 0] / noise
    product = torch.exp(prior.log_prob(points) - 0.5 * gap**2)
    density = product / (product.sum() * area)
    # The midpoint rule converges exponentially here; 1e-9 is left of the border.
    torch.testing.assert_close(found.log_prob(points).exp(), density, rtol=1e-8, atol=1e-9)
    mean = (density[:, None] * points).sum(0) * area
    torch.testing.assert_close(found.mean(), mean, rtol=1e-8, atol=1e-8)


def test_without_noise_the_measured_entries_are_fixed(mixture):
    operator = Mask(torch.tensor([True, False]))
    y = torch.tensor([[0.3]], dtype=torch.float64)
    found = posterior(mixture(scoresde.VP()), operator, y, 0.0)
    x = found.sample(20, seed=0)
    torch.testing.assert_close(operator.A(x), y.expand(20, 1), rtol=0, atol=1e-12)


def test_a_condition_and_a_measurement_are_two_measurements():
    """p(x | v, y) of a joint mixture of (x, v), and the posterior of both entries measured."""
    sde, weights, means = scoresde.VP(), [0.4, 0.6], [[-1.0, 0.2, 0.5], [0.7, -0.4, -0.6]]
    root = torch.tensor([[0.8, 0.0, 0.0], [0.3, 0.6, 0.0], [-0.2, 0.4, 0.5]], dtype=torch.float64)
    covs = torch.stack([root @ root.T, 0.5 * root.T @ root])
    v, y = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    model = ConditionalMixture(sde, weights, means, covs, vector=1)
    found = posterior(model.given(v), ROWS, y, 0.3)
    whole = posterior(GaussianMixture(sde, weights, means, covs),
                      Mask(torch.tensor([False, False, True])), v[0], 0.0)  # fmt: skip
    rows = Projection(torch.cat([ROWS.matrix, torch.zeros(1, 1)], 1))
    wanted = posterior(whole, rows, y, 0.3)
    torch.testing.assert_close(found.mean(), wanted.mean()[:2], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.cov(), wanted.cov()[:2, :2], rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="y must be one condition, got 2"):
        posterior(model.given(torch.zeros(2, 1)), ROWS, y, 0.3)


def test_components_that_y_excludes_are_left_out():
    prior = GaussianMixture(scoresde.VP(), [0.5, 0.5], [[-100.0], [100.0]], [1.0, 1.0])
    found = posterior(prior, Projection(torch.ones(1, 1)), torch.tensor([99.0]), 0.1)
    assert found.weights.tolist() == [1.0]


def isotropic(sde, variance):
    mean = torch.tensor([[0.3, -0.5, 0.8, 0.1]], dtype=torch.float64)
    return GaussianMixture(sde, [1.0], mean, [variance])


OPERATORS = {
    "mask": Mask(torch.tensor([True, False, True, False])),
    "rows": Projection.random((4,), 2, seed=1),
    "unequal rows": Projection(torch.tensor([[1.0, 2.0, 0.0, 1.0], [0.5, 0.0, 0.3, 0.0]])),
}


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("method", [PiGDM, DDNM])
@pytest.mark.by_default("VE", "Linear")
def test_gaussian_data_have_the_exact_score(sde, method, noise):
    """At all times together, which are tensors of one per sample."""
    variance = 0.6
    model = isotropic(sde, variance)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    t = torch.tensor(TIMES, dtype=torch.float64)
    for operator in OPERATORS.values():
        y = torch.randn(1, 2, dtype=torch.float64, generator=generator)
        exact = posterior(model, operator, y[0], noise)
        found = method(model, operator, noise, data_var=variance).given(y)
        for quantity in ("eps", "x0", "v", "velocity"):
            got, wanted = getattr(found, quantity)(x, t), getattr(exact, quantity)(x, t)
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
            one = getattr(found, quantity)(x, TIMES[1])
            torch.testing.assert_close(one[1], wanted[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", TIMES)
def test_the_gradient_of_dps_is_that_of_the_norm(sde, mixture, t):
    model, operator, scale = mixture(sde), Projection(torch.tensor([[1.0, 0.4]])), 2.5
    x = torch.tensor([[0.3, -0.2], [1.1, 0.7]], dtype=torch.float64)
    y = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    found = DPS(model, operator, scale).given(y)
    for i in range(2):
        for j in range(2):  # central differences, whose error is about h²
            step = torch.zeros(1, 2, dtype=torch.float64)
            step[0, j] = 1e-5
            up, down = (
                float((y[i] - operator.A(model.x0(x[i : i + 1] + s * step, t))).norm())
                for s in (1, -1)
            )
            wanted = float(model.score(x[i : i + 1], t)[0, j]) - scale * (up - down) / 2e-5
            assert float(found.score(x, t)[i, j]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_passes_are_counted(mixture):
    model, operator = mixture(scoresde.VP()), Projection(torch.tensor([[1.0, 0.4]]))
    x, y = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for made, derivatives in ((PiGDM(model, operator, 0.1), 1), (DPS(model, operator), 1),
                              (DDNM(model, operator, 0.1), 0)):  # fmt: skip
        made.given(y).eps(x, 0.3)
        assert (made.nfe.forward, made.nfe.derivative) == (1, derivatives)


def test_a_perfect_fit_has_no_gradient(mixture):
    """|y − A x0| is not differentiable at 0; the gradient there is 0 and not NaN."""
    model, operator = mixture(scoresde.VP()), Mask(torch.tensor([True, True]))
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    found = DPS(model, operator, 5.0).given(model.x0(x, 0.4))
    torch.testing.assert_close(found.x0(x, 0.4), model.x0(x, 0.4), rtol=0, atol=1e-12)


def test_ddnm_starts_in_pure_noise():
    sde = scoresde.Linear()
    model, operator = isotropic(sde, 0.6), OPERATORS["rows"]
    y = torch.tensor([[0.4, -0.2]], dtype=torch.float64)
    found = DDNM(model, operator, 0.3, data_var=0.6).given(y)
    exact = posterior(model, operator, y, 0.3)
    assert found.t_most == 1
    x = torch.ones(1, 4, dtype=torch.float64)
    for quantity in ("eps", "x0", "v", "velocity"):
        wanted = getattr(exact, quantity)(x, 1.0)
        torch.testing.assert_close(getattr(found, quantity)(x, 1.0), wanted, rtol=1e-9, atol=1e-9)
    assert PiGDM(model, operator, 0.3).t_most == sde.t_regular


def test_networks_are_differentiated_and_samples_differentiable():
    """A network's own output, with its checks, inside and outside `grad=True`."""
    sde = scoresde.VP()
    with scoresde.evaluation.seeded(0):
        net = torch.nn.Linear(3, 3).double()
    model = scoresde.wrap(lambda x, t: torch.tanh(net(x)) - t[:, None], sde, "x0", label="time")
    operator = Mask(torch.tensor([True, False, True]))
    made = PiGDM(model, operator, 0.2)
    ts = scoresde.grid.log_snr(sde, steps=3)
    y = torch.zeros(1, 2, dtype=torch.float64)
    plain = scoresde.sample(made, scoresde.DDIM(), ts, y=y, n=2, dtype=torch.float64)
    y = y.requires_grad_()
    out = scoresde.sample(made, scoresde.DDIM(), ts, y=y, n=2, dtype=torch.float64, grad=True)
    assert torch.equal(out.x.detach(), plain.x)
    (slope,) = torch.autograd.grad(out.x.sum(), y)
    with torch.no_grad():
        moved = [
            float(scoresde.sample(made, scoresde.DDIM(), ts, n=2, dtype=torch.float64,
                                  y=y.detach() + step * torch.eye(2)[:1].double()).x.sum())
            for step in (1e-5, -1e-5)
        ]  # fmt: skip
    assert float(slope[0, 0]) == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-5)


ROWS = Projection(torch.tensor([[1.0, 0.4]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: PiGDM(m, Mask(torch.tensor([True])), 0.1), r"samples of shape \(2,\), those of"),
        (lambda m: PiGDM(m, ROWS, -0.1), "noise must be at least 0, got -0.1"),
        (lambda m: PiGDM(m, ROWS, math.nan), "noise must be finite"),
        (lambda m: PiGDM(m, ROWS, 0.1, data_var=0), "data_var must be greater than 0, got 0"),
        (lambda m: DPS(m, ROWS, -1), "scale must be at least 0, got -1"),
        (lambda m: scoresde.sample(DDNM(m, ROWS, 0.1), n=2), r"y must be given: .*\(n, 1\)"),
        (lambda m: scoresde.sample(DDNM(m, ROWS, 0.1), n=2, y=torch.zeros(1, 3)),
         r"y must have shape \(n, 1\), as the operator measures, .* got \(2, 3\)"),
        (lambda m: scoresde.sample(DDNM(m, ROWS, 0.1), n=2, y=torch.tensor([[math.nan]])),
         "y must be finite"),
        (lambda m: posterior(m, ROWS, torch.zeros(2), 0.1), r"y must have shape \(1,\), got"),
        (lambda m: posterior(m, Projection(torch.ones(2, 2)), torch.zeros(2), 0.0),
         "noise must be above 0 here, got 0"),
        (lambda m: posterior(ConditionalMixture(m.sde, [1.0], [[0.0] * 2], [1.0], shares=[[1.0]]),
                             ROWS, torch.zeros(1), 0.1), "model must be without a condition"),
        (lambda m: Measured(ConditionalMixture(m.sde, [1.0], [[0.0] * 2], [1.0], shares=[[1.0]])
                            .given(torch.zeros(3, dtype=torch.int64)), ROWS, 0.1),
         "one condition for all samples, .* got 3 rows"),
        (lambda m: Measured(ConditionalMixture(m.sde, [1.0], [[0.0] * 2], [1.0], shares=[[1.0]])
                            .given(torch.tensor([4])), ROWS, 0.1),
         "y must hold classes 0 to 0, got 4"),
        (lambda m: posterior(m, ROWS, torch.tensor([1e170], dtype=torch.float64), 0.1),
         "y must be nearer"),
        (lambda m: scoresde.sample(Measured(m, ROWS, 0.1), n=2, y=torch.zeros(1, 1)),
         "sampler must be one that uses the measurement, such as DDRM .* got AngularAdams"),
        (lambda m: Measured(scoresde.wrap(Blind(), m.sde, "eps", label="time"), Bare(), 0.1),
         r"operator must be Foreign\(Bare, shape\)"),
    ],
)  # fmt: skip
def test_bad_problems_are_refused_before_an_evaluation(mixture, make, words):
    model = mixture(scoresde.VP())
    with pytest.raises(ValueError, match=words):
        make(model)
    assert model.nfe.forward == 0


class Blind(torch.nn.Module):
    """A network that does not know the shape of its data."""

    def forward(self, x, t):
        """Nothing is evaluated."""
        raise AssertionError


class Bare:
    """A foreign operator, which does not know its shape either."""

    A = A_adjoint = abs


def test_a_measurement_of_integers_and_an_operator_without_adjoint_are_refused(mixture):
    model = mixture(scoresde.VP())
    with pytest.raises(TypeError, match="y must be a tensor of floating numbers"):
        scoresde.sample(DDNM(model, ROWS, 0.1), n=2, y=torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(TypeError, match="operator must have the method A, which Module"):
        PiGDM(model, torch.nn.Module(), 0.1)
    assert Blur.gaussian((1, 4, 4), 0.5).measured == (1, 4, 4)
