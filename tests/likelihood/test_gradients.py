"""Laws of `log_likelihood(grad=True)`: finite differences, and the exact score for exact models.

The derivative along one random direction of x, the condition and all weights together is compared
with a central difference of step h = 1e-5. Its relative error is h² times a third derivative,
about 1e-9, and it rounds by 1e-16/h = 1e-11 of log p.
"""

import dataclasses
import weakref

import pytest
import torch
from torch import nn

from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import (
    DDPMVLB,
    Dequantized,
    ExactTrace,
    GaussianNoising,
    Hutchinson,
    HutchPP,
    Ode,
    Path,
    Probing,
    TruncatedNormalDequantization,
    UniformDequantization,
    XTrace,
    fit_gaussian,
    log_likelihood,
)
from scoresde.nets import MLP, UNet
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.score.gradients import with_gradients
from scoresde.sde import VE, VP, CosineVP, Linear, SubVP

STEP = 1e-5
DIMS = 4
SHORT = Path(steps=2, nodes=2)
# At this tolerance every step is accepted and ten times longer than the one before. The steps are
# then constants, as they are for the gradient.
FIXED = {"rtol": 0.5, "atol": 1e6, "t_min": 0.05}


class Conditional(nn.Module):
    """A smooth network of x, the label and a vector."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner, self.outer = (
            nn.Parameter(0.5 * torch.randn(shape, generator=generator, dtype=torch.float64))
            for shape in ((DIMS + 2, 8), (8, DIMS))
        )

    def forward(self, x, label, y):
        return torch.tanh(torch.cat([x, label[:, None].tanh(), y], 1) @ self.inner) @ self.outer


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def difference(value, tensors, directions):
    """The central difference of value() as all tensors move along their directions."""
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            for tensor, direction in zip(tensors, directions, strict=True):
                tensor += sign * STEP * direction
            ends.append(float(value()))
            for tensor, direction in zip(tensors, directions, strict=True):
                tensor -= sign * STEP * direction
    return (ends[0] - ends[1]) / (2 * STEP)


def derivative(value, tensors, directions):
    """The same derivative from gradients."""
    found = torch.autograd.grad(value, tensors)
    return sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))


def directions_for(tensors):
    return [normal(*tensor.shape, seed=10 + i) for i, tensor in enumerate(tensors)]


@pytest.fixture
def conditional():
    """(model, x, y), all of which require gradients."""
    model = NetworkScore(Conditional(), VP(), Preconditioning())
    return model, normal(3, DIMS).requires_grad_(), normal(3, 1, seed=1).requires_grad_()


METHODS = {
    "path-exact": dataclasses.replace(SHORT, trace=ExactTrace()),
    "path-probes": SHORT,
    "path-probing": dataclasses.replace(SHORT, trace=Probing(2)),
    "path-hutch++": dataclasses.replace(SHORT, trace=HutchPP(3)),
    "path-xtrace": dataclasses.replace(SHORT, trace=XTrace(4)),
    "path-control": dataclasses.replace(SHORT, control=fit_gaussian(VP(), normal(9, DIMS))),
    "ode-exact": Ode("bosh3", **FIXED),
    "ode-probes": Ode("adaptive_heun", trace=Hutchinson(probes=2), **FIXED),
    "ode-each": Ode("bosh3", per_sample=True, trace="hutchinson", **FIXED),
    "ode-control": Ode("bosh3", control=fit_gaussian(VP(), normal(9, DIMS)), **FIXED),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_gradients_of_x_condition_and_weights(method, conditional):
    model, x, y = conditional
    tensors = [x, y, *model.parameters()]
    directions, weights = directions_for(tensors), normal(3, seed=2)

    def run(**grad):
        return log_likelihood(model, x, method, y=y, seed=3, **grad)

    with_grad, plain = run(grad=True), run()
    assert torch.equal(with_grad.log_prob, plain.log_prob)
    assert (with_grad.nfe, with_grad.nfe_derivative) == (plain.nfe, plain.nfe_derivative)
    assert not with_grad.std_error.requires_grad
    assert not with_grad.dof.requires_grad
    found = derivative(weights @ with_grad.log_prob, tensors, directions)
    expected = difference(lambda: weights @ run().log_prob, tensors, directions)
    assert found == pytest.approx(expected, rel=1e-6)


SLOW = {True: [pytest.mark.slow], False: []}
DEQUANTIZATIONS = {
    "uniform": UniformDequantization(),
    "truncated": TruncatedNormalDequantization(),
    "noise": GaussianNoising(before=UniformDequantization()),
    "cells": GaussianNoising(),
}


@pytest.mark.parametrize(
    "dequantization",
    [
        pytest.param(q, id=name, marks=SLOW[name != "uniform"])
        for name, q in DEQUANTIZATIONS.items()
    ],
)
def test_gradients_for_quantized_data(dequantization, conditional):
    model, _, y = conditional
    spec = DataSpec((DIMS,), -1.0, 1.0, levels=8)
    levels = torch.tensor([[0, 3, 7, 5], [2, 2, 1, 6], [4, 0, 3, 3]])
    short = dataclasses.replace(SHORT, t_min=0.05)
    method = Dequantized(spec, short, dequantization, draws=2, dtype=torch.float64)
    tensors = [y, *model.parameters()]
    directions = directions_for(tensors)

    def value(**grad):
        return log_likelihood(model, levels, method, y=y, seed=3, **grad).log_prob.sum()

    found = derivative(value(grad=True), tensors, directions)
    assert found == pytest.approx(difference(value, tensors, directions), rel=1e-6)


def test_continuous_data_keep_the_gradient_of_x(conditional):
    model, x, y = conditional
    spec = DataSpec((DIMS,), -1.0, 1.0)
    found = [
        torch.autograd.grad(
            log_likelihood(model, x, method, y=y, seed=0, grad=True).log_prob.sum(), x
        )[0]
        for method in (SHORT, Dequantized(spec, SHORT, dtype=torch.float64))
    ]
    assert torch.equal(*found)


def test_batches_have_the_gradients_of_the_whole(conditional):
    model, x, y = conditional
    tensors = [x, y, *model.parameters()]
    found = [
        torch.autograd.grad(
            log_likelihood(model, x, SHORT, y=y, seed=0, batch=size, grad=True).log_prob.sum(),
            tensors,
        )
        for size in (None, 2)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "dims", [(8,), pytest.param((8, 8), marks=pytest.mark.slow)], ids=["small", "two-levels"]
)
def test_gradients_of_a_unet_with_attention(dims):
    """Weight gradients need second derivatives, which fused attention does not have."""
    torch.manual_seed(0)
    multipliers = (1,) * len(dims)
    net = UNet((1, 4, 4), channels=8, multipliers=multipliers, blocks=1, attention=(4,)).double()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # some are 0 at first
    model, x = NetworkScore(net, VP()), normal(2, 1, 4, 4).requires_grad_()
    tensors, method = [x, *net.parameters()], Path(steps=2, nodes=1)
    directions = directions_for(tensors)

    def value(**grad):
        return log_likelihood(model, x, method, seed=0, **grad).log_prob.sum()

    found = derivative(value(grad=True), tensors, directions)
    assert found == pytest.approx(difference(value, tensors, directions), rel=1e-5)


@pytest.mark.parametrize(
    "sde",
    [VP(), VE(), SubVP(), CosineVP(), Linear()],
    ids=lambda sde: type(sde).__name__,
)
@pytest.mark.slow
def test_the_gradient_of_an_exact_log_density_is_the_score(sde):
    """∇ log p of the probability-flow ODE is the score at t_min, up to the prior's mismatch.

    The mismatch changes log p by about α(1)² of its gradient, at most 5e-5 for these SDEs. So the
    model is compared with itself: its exact log-density at t = 1 replaces the prior.
    """
    means = torch.tensor([[-0.8, 0.3], [0.5, 0.6]], dtype=torch.float64)
    exact = GaussianMixture(sde, [0.4, 0.6], means, [0.1, 0.05])
    x = normal(3, 2).mul_(0.5).requires_grad_()
    method = Ode("dop853", 1e-8, 1e-8, t_min=0.01)
    found = log_likelihood(exact, x, method, grad=True)
    prior = torch.distributions.Normal(0.0, sde.prior_std).log_prob(found.latent).sum(1)
    log_prob = found.log_prob - prior + exact.log_prob(found.latent, exact.t_most)
    (gradient,) = torch.autograd.grad(log_prob.sum(), x)
    score = exact.score(x.detach(), 0.01)
    torch.testing.assert_close(gradient, score, rtol=1e-5, atol=1e-6)


class Kept:
    """A tensor that autograd keeps; the object lives as long as the graph that needs it."""

    def __init__(self, tensor):
        self.tensor = tensor.detach()  # attached, a saved result would hold its own node


def saved(run):
    """Bytes of the tensors that autograd keeps after run(), each memory counted once."""
    alive = weakref.WeakSet()

    def pack(tensor):
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        out = run()
    storages = {kept.tensor.untyped_storage() for kept in alive}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    assert out.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("width", [16, 64])
def test_memory_does_not_depend_on_the_width_of_the_network(width):
    """Each of 4 more nodes keeps 8 states: x, its place on the curve, the slope, and products."""
    n, dims = 32, 4
    model, x = NetworkScore(MLP((dims,), width=width, depth=2), VP()), torch.zeros(n, dims)
    few, many = (
        saved(lambda m=m: log_likelihood(model, x, Path(4, m), seed=0, grad=True).log_prob)
        for m in (2, 6)
    )
    assert many - few <= 4 * 8 * (8 * n * dims)


def test_a_backward_pass_repeats_each_evaluation_and_counts_none(conditional):
    model, x, y = conditional
    out = log_likelihood(model, x, SHORT, y=y, seed=0, grad=True)
    before = dataclasses.replace(model.nfe)
    assert (before.forward, before.derivative, before.repeated) == (3 + 2, 2 * 2, 1)
    out.log_prob.sum().backward()
    assert dataclasses.replace(before, repeated=1 + 5 + 4) == model.nfe


def refused(model, error, match, method=SHORT, x=None):
    x = torch.zeros(2, DIMS, dtype=torch.float64) if x is None else x
    with pytest.raises(error, match=match):
        log_likelihood(model, x, method, seed=0, grad=True)


def test_what_has_no_gradient_is_refused(gaussian):
    exact = gaussian(VP(), DIMS)
    refused(exact, ValueError, "grad=True needs x, x_init, y or a weight .* got none")
    spec = DataSpec((DIMS,), -1.0, 1.0, levels=8)
    levels = torch.zeros(2, DIMS, dtype=torch.int64)
    refused(
        exact, ValueError, "grad must be False for DDPMVLB", DDPMVLB([1.0, 0.5, 0.1], spec), levels
    )
    x = torch.zeros(2, DIMS, requires_grad=True)
    detached = FunctionScore(VP(), lambda x, t: x.detach() * 0.5)
    refused(detached, RuntimeError, "not differentiable in x", x=x)
    in_numpy = FunctionScore(VP(), lambda x, t: torch.from_numpy(x.numpy() * 0.5))
    refused(in_numpy, RuntimeError, "asked of FunctionScore, which is not differentiable", x=x)


def test_binding_a_condition_leaves_the_model_as_it_was():
    """A copy of a module shares its table of submodules."""
    model = FunctionScore(VP(), lambda x, t, y: x * y[:, None])
    x = torch.ones(2, 1, requires_grad=True)
    first = with_gradients(model.given(torch.ones(2)), x, 0.5)
    first.given(torch.zeros(2))
    assert torch.equal(first.model.y, torch.ones(2))
