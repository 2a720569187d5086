"""Editing: its law for data whose conditional densities are known, its ends, and its refusals."""

import math

import pytest
import torch

import scoresde
from scoresde import ConditionalMixture, GaussianMixture, edit, noised, translate
from scoresde.inverse import Mask, Measured, Replacement
from scoresde.likelihood import Ode
from scoresde.samplers import DDIM

MEAN, VAR = 0.5, 0.3


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(sde):
    return GaussianMixture(sde, [1.0], [[MEAN]], [VAR])


def check_law(x, mean, variance, slack=0.0):
    """Three standard errors of mean and variance of normal numbers, and the steps' error."""
    n = len(x)
    assert abs(float(x.mean()) - mean) < 3 * math.sqrt(variance / n) + slack
    assert abs(float(x.var()) / variance - 1) < 3 * math.sqrt(2 / n) + slack


def test_noised_data_have_the_noise_of_samples_of_the_seed(sde):
    model, n, t = normal(sde), 1000, 0.6
    node = sde.nodes([t])[0]
    x = torch.full((n, 1), 1.7, dtype=torch.float64)
    found = noised(model, x, t, seed=4)
    check_law(found, 1.7 * node.alpha, node.sigma**2)
    eps = (found - node.alpha * x) / node.sigma
    drawn = scoresde.sample(model, DDIM(), [1.0, 0.5] if sde.t_regular == 1 else
                            [sde.t_regular, 0.5], n=n, seed=4, dtype=x.dtype)  # fmt: skip
    torch.testing.assert_close(eps, drawn.x_init / drawn.start_std, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noised(model, x[:2], t, seed=4), found[:2], rtol=0, atol=0)


def test_gaussian_data_are_moved_along_the_flow(sde):
    """By the ODE the standard score of x_t is that of the result."""
    model, x, strength = normal(sde), torch.full((20, 1), 2.0, dtype=torch.float64), 0.6
    out = edit(model, x, strength, nfe=20, seed=2)
    node = sde.nodes([strength])[0]
    slope = math.sqrt(VAR / (node.alpha**2 * VAR + node.sigma**2))
    wanted = MEAN + slope * (out.x_init - node.alpha * MEAN)
    torch.testing.assert_close(out.x, wanted, rtol=0, atol=2e-3)  # 20 evaluations of order 4


@pytest.mark.slow  # 250 steps
def test_gaussian_data_are_edited_to_a_known_normal(sde):
    """By the reverse SDE it is normal given x: E[x_0 | x_t] = MEAN + gain (x_t − α MEAN)."""
    model, x, strength = normal(sde), torch.full((3000, 1), 2.0, dtype=torch.float64), 0.5
    node = sde.nodes([strength])[0]
    total = node.alpha**2 * VAR + node.sigma**2
    gain = node.alpha * VAR / total
    mean = MEAN + gain * node.alpha * (2.0 - MEAN)
    variance = VAR * node.sigma**2 / total + gain**2 * node.sigma**2
    out = edit(model, x, strength, DDIM(eta=1.0), nfe=250, seed=1)
    check_law(out.x, mean, variance, slack=0.04)  # of the steps: 0.11 with 80 of them


@pytest.mark.slow  # two dimensions and 60 steps
def test_a_mixture_is_edited_to_the_mean_over_its_noised_points(mixture):
    """E[x_0] = E[E[x_0 | x_t]], the mean of x0(x_t, t) over fresh noise."""
    model, n, t = mixture(scoresde.VP()), 4000, 0.35
    x = double([1.5, -1.5]).expand(n, 2)
    out = edit(model, x, t, DDIM(eta=1.0), nfe=100, seed=1)
    denoised = model.x0(noised(model, x, t, seed=2), t)
    error = ((out.x.var(0) + denoised.var(0)) / n).sqrt()
    assert bool(((out.x.mean(0) - denoised.mean(0)).abs() < 3 * error + 0.01).all())


def test_strength_1_is_an_ordinary_sample_and_0_is_the_input(mixture):
    model = mixture(scoresde.VP())
    x = double([0.2, 0.1], [-0.4, 1.0], [1.1, -0.3])
    free = scoresde.sample(model, n=3, seed=5, dtype=x.dtype)
    whole = edit(model, torch.zeros_like(x), 1.0, seed=5)
    assert (whole.nfe, len(whole.ts)) == (free.nfe, len(free.ts))
    torch.testing.assert_close(whole.x, free.x, rtol=0, atol=1e-3)  # 1 − σ(1) is 2e-5
    before = model.nfe.forward
    same = edit(model, x, 0.0, seed=5)
    assert torch.equal(same.x, x)
    assert (same.nfe, model.nfe.forward) == (0, before)


def test_cost_falls_with_the_strength_and_batches_do_not_matter(mixture):
    model = mixture(scoresde.VP())
    x = double([0.2, 0.1], [-0.4, 1.0], [1.1, -0.3])
    costs = []
    for strength in (0.2, 0.4, 0.8):
        out = edit(model, x, strength, DDIM(), nfe=20, seed=3)
        costs.append(out.nfe)
        assert float(out.ts[0]) == strength
        parts = edit(model, x, strength, DDIM(), nfe=20, seed=3, batch=2)
        torch.testing.assert_close(parts.x, out.x, rtol=1e-9, atol=1e-9)
    assert costs == sorted(set(costs))
    assert costs[-1] < 20
    near = out.ts[:-1] - out.ts[1:]
    assert float(near[0]) > 0.4 * float(near[1])  # no step that is much shorter than the next one


def test_it_runs_on_a_measured_model(mixture):
    """Edited within a mask: the rest is replaced by what is measured."""
    model = Measured(mixture(scoresde.VP()), Mask(torch.tensor([True, False])), 0.0)
    x = double([0.2, 0.1], [-0.4, 1.0])
    out = edit(model, x, 0.5, Replacement(), y=x[:, :1], seed=0)
    assert bool(out.x.isfinite().all())
    assert float((out.x[:, 0] - x[:, 0]).abs().max()) < 0.3


TWO = {"shares": [[1.0, 0.0], [0.0, 1.0]]}
METHOD = Ode(rtol=1e-5, atol=1e-5, t_min=1e-3)


def test_translation_of_gaussian_classes_is_affine_and_leads_back():
    model = ConditionalMixture(scoresde.VP(), [0.5, 0.5], [[-1.0], [1.5]], [0.2, 0.8], **TWO)
    x = double([-1.3], [-0.8], [-1.0])
    low, high = model.sde.nodes([1e-3, 1.0])
    first, second = torch.tensor([0]), torch.tensor([1])
    out = translate(model, x, METHOD, y=first, to=second)

    def standard(x, node, mean, variance):
        return (x - node.alpha * mean) / math.sqrt(node.alpha**2 * variance + node.sigma**2)

    code = high.alpha * -1.0 + standard(x, low, -1.0, 0.2) * math.sqrt(
        high.alpha**2 * 0.2 + high.sigma**2
    )
    wanted = low.alpha * 1.5 + standard(code, high, 1.5, 0.8) * math.sqrt(
        low.alpha**2 * 0.8 + low.sigma**2
    )
    torch.testing.assert_close(out.latent, code, rtol=0, atol=1e-3)
    torch.testing.assert_close(out.translated, wanted, rtol=0, atol=1e-3)
    back = translate(model, out.translated, METHOD, y=second, to=first)
    torch.testing.assert_close(back.translated, x, rtol=0, atol=1e-3)
    target = model.given(second)
    other = translate(model.given(first), x, METHOD, target=target)
    torch.testing.assert_close(other.translated, out.translated, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: edit(m, double([0.0, 0.0]), 1.5), "strength must be at most 1, got 1.5"),
        (lambda m: edit(m, double([0.0, 0.0]), -0.1), "strength must be at least 0, got -0.1"),
        (lambda m: edit(m, double([0.0, 0.0]), 1e-4),
         "strength must be 0 or above 0.[0-9]*, the last time of the grid, got 0.0001"),
        (lambda m: edit(m, double([0.0]), 0.5), r"x must have shape \(B, 2\), got \(1, 1\)"),
        (lambda m: edit(m, double([0.0, math.nan]), 0.5), "x must be finite, got 1 non-finite"),
        (lambda m: noised(m, double([0.0, 0.0]), 1.2, seed=0), "t must be at most 1, got 1.2"),
        (lambda m: noised(m, double([0.0, 0.0]), 0.2), "exactly one of seed and noise"),
        (lambda m: translate(m, double([0.0, 0.0]), target=GaussianMixture(
            scoresde.VE(), [1.0], [[0.0, 0.0]], [1.0])), "target must have codes of standard"),
        (lambda m: translate(m, double([0.0, 0.0]), target=normal(m.sde)),
         r"target must be of data of shape \(2,\), got \(1,\)"),
        (lambda m: translate(m, double([0.0, 0.0]), target=ConditionalMixture(
            m.sde, [1.0], [[0.0, 0.0]], [1.0], shares=[[1.0]])), "y must be given"),
    ],
)  # fmt: skip
def test_bad_edits_are_refused_before_an_evaluation(mixture, make, words):
    model = mixture(scoresde.VP())
    with pytest.raises(ValueError, match=words):
        make(model)
    assert model.nfe.forward == 0


def test_levels_are_refused(mixture):
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        edit(mixture(scoresde.VP()), torch.zeros(1, 2, dtype=torch.int64), 0.5)
