"""Laws of `sample(grad=True)`: finite differences, the same numbers, and memory of one state each.

The derivative along one random direction of x_init, the condition and all weights together is
compared with a central difference of step h. At t = 1 an error of ε is multiplied by σ/α, about
150, so that the relative error of the difference is about (150 h)², 2e-8 for h = 1e-6. It rounds
by 1e-16/h = 1e-10.
"""

import dataclasses
import weakref

import pytest
import torch
from torch import nn

from scoresde import grid
from scoresde.nets import MLP, UNet
from scoresde.samplers import DDIM, DPMSolverMultistep, GridSampler, sample
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.sde import VP, Linear

STEP = 1e-6
TS = grid.log_snr(VP(), 4)
# With this tolerance every step is accepted and the next one is ten times longer. The steps are
# then constants, as they are for the gradient.
ACCEPTS_ALL = 1e6


class Conditional(nn.Module):
    """A smooth network of x, the label and a vector."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner, self.outer = (
            nn.Parameter(0.5 * torch.randn(shape, generator=generator, dtype=torch.float64))
            for shape in ((5, 8), (8, 2))
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
    """(model, x_init, y), all of which require gradients."""
    model = NetworkScore(Conditional(), VP(), Preconditioning())
    return model, normal(3, 2).requires_grad_(), normal(3, 2, seed=1).requires_grad_()


def test_gradients_of_x_init_condition_and_weights(any_sampler, conditional):
    model, x, y = conditional
    sampler, ts = any_sampler.sampler, TS
    if sampler.adaptive:
        sampler, ts = dataclasses.replace(sampler, atol=ACCEPTS_ALL), [0.03, 0.01]
    tensors = [x, y, *model.parameters()]
    directions, weights = directions_for(tensors), normal(3, 2, seed=2)

    def run(**grad):
        return sample(model, sampler, ts, x_init=x, y=y, seed=3, **grad)

    with_grad, plain = run(grad=True), run()
    assert torch.equal(with_grad.x, plain.x)
    assert with_grad.nfe == plain.nfe
    found = derivative((weights * with_grad.x).sum(), tensors, directions)
    expected = difference(lambda: (weights * run().x).sum(), tensors, directions)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sde", [Linear(), VP()], ids=["linear", "vp"])
def test_gradients_of_a_unet(sde):
    torch.manual_seed(0)
    net = UNet((1, 4, 4), channels=4, multipliers=(1, 2), blocks=1, attention=(2,)).double()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # some are 0 at first
    model, x = NetworkScore(net, sde), normal(2, 1, 4, 4).requires_grad_()
    tensors = [x, *net.parameters()]
    directions = directions_for(tensors)

    def value(**grad):
        return sample(model, DPMSolverMultistep(2), x_init=x, nfe=4, **grad).x.square().sum()

    found = derivative(value(grad=True), tensors, directions)
    assert found == pytest.approx(difference(value, tensors, directions), rel=1e-5)


def test_batches_have_the_gradients_of_the_whole(conditional):
    model, x, y = conditional
    tensors = [x, y, *model.parameters()]
    found = [
        torch.autograd.grad(
            sample(model, DDIM(0.5), TS, x_init=x, y=y, seed=0, batch=size, grad=True).x.sum(),
            tensors,
        )
        for size in (None, 2)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_a_backward_pass_repeats_each_evaluation_and_counts_none(conditional):
    model, x, y = conditional
    out = sample(model, DDIM(), TS, x_init=x, y=y, grad=True)
    before = dataclasses.replace(model.nfe)
    assert out.nfe == before.forward == 5
    assert before.repeated == 1  # of the first sample, which finds what the model depends on
    out.x.sum().backward()
    assert dataclasses.replace(before, repeated=6) == model.nfe


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


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolverMultistep(3), DDIM(1.0)], ids=repr)
def test_each_evaluation_keeps_one_state(sampler):
    n, dims, steps = 64, 2, (3, 8)
    model = NetworkScore(MLP((dims,), width=64), VP())
    few, many = (
        saved(lambda k=k: sample(model, sampler, grid.log_snr(VP(), k), (n, dims), grad=True).x)
        for k in steps
    )
    assert many - few == (steps[1] - steps[0]) * n * dims * 4


def test_a_network_in_training_mode_is_computed_again_without_dropout():
    torch.manual_seed(0)
    net = MLP((2,), width=8, depth=1, dropout=0.5)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # the last layer is 0 at first
    x = torch.randn(4, 2, requires_grad=True)
    found = []
    for mode in (True, False):
        net.train(mode)
        out = sample(NetworkScore(net, VP()), DDIM(), TS, x_init=x, grad=True).x
        found.append(torch.autograd.grad(out.square().sum(), x)[0])
        assert net.training == mode
    assert torch.equal(*found)


def test_tensors_that_are_no_parameters():
    """A function may use a tensor, or what was computed from one, twice."""
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = normal(2, 2)

    def value(theta, **grad):
        scale = theta.exp()
        model = FunctionScore(VP(), lambda x, t: scale * x * theta)
        return sample(model, DDIM(), TS, x_init=x, **grad).x.sum()

    (found,) = torch.autograd.grad(value(theta, grad=True), theta)
    expected = difference(lambda: value(theta), [theta], [1.0])
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_weight_of_two_layers_counts_once():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False))
    net[2].weight = net[0].weight
    model = FunctionScore(VP(), lambda x, t: net(x))
    net.double()
    x, weight = normal(2, 2), net[0].weight

    def value(**grad):
        return sample(model, DDIM(), TS, x_init=x, **grad).x.sum()

    found = derivative(value(grad=True), [weight], [torch.ones_like(weight)])
    expected = difference(value, [weight], [torch.ones_like(weight)])
    assert found == pytest.approx(expected, rel=1e-6)


def test_call_backs_see_states_without_a_graph(conditional):
    model, x, y = conditional
    seen = []
    sample(
        *(model, DDIM(), TS),
        x_init=x,
        y=y,
        grad=True,
        on_step=lambda i, t, state: seen.append(state.requires_grad),
    )
    assert seen == [False] * 4


@pytest.mark.parametrize("grad", [True, False])
def test_contexts_of_the_caller_do_not_matter(conditional, grad):
    model, x, y = conditional
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = sample(model, DDIM(), TS, x_init=x, y=y, grad=grad).x
    assert out.requires_grad == grad
    assert torch.equal(out, sample(model, DDIM(), TS, x_init=x, y=y).x)


def test_weights_that_change_before_the_backward_pass_are_refused(conditional):
    model, x, y = conditional
    out = sample(model, DDIM(), TS, x_init=x, y=y, grad=True).x
    with torch.no_grad():
        model.net.inner += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


class Frozen(GridSampler):
    """A sampler that cannot be differentiated."""

    @torch.no_grad()
    def step(self, model, x, t, s, state, noise):
        return x - model.eps(x, t), None


def refused(model, error, match, sampler=None, **given):
    with pytest.raises(error, match=match):
        sample(model, sampler or DDIM(), TS, **({"shape": (2, 2)} | given), grad=True)


def test_what_has_no_gradient_is_refused(gaussian):
    exact = gaussian(VP(), 2)
    refused(exact, ValueError, "grad=True needs x, x_init, y or a weight .* got none")
    frozen = NetworkScore(MLP((2,), 8, 1), VP()).requires_grad_(False)
    refused(frozen, ValueError, r"requires_grad_\(True\)")
    with pytest.raises(TypeError, match="grad must be"):
        sample(exact, DDIM(), TS, shape=(2, 2), grad=1)
    x = torch.zeros(2, 2, requires_grad=True)
    with_start = {"shape": None, "x_init": x}
    detached = FunctionScore(VP(), lambda x, t: x.detach() * 0.5)
    refused(detached, RuntimeError, "not differentiable in x", **with_start)
    in_numpy = FunctionScore(VP(), lambda x, t: torch.from_numpy(x.numpy() * 0.5))
    refused(in_numpy, RuntimeError, "asked of FunctionScore, which is not dif.*", **with_start)
    refused(exact, RuntimeError, "asked of Frozen", Frozen(), **with_start)
    net = MLP((2,), 8, 1)
    weights = {name: weight.detach() for name, weight in net.named_parameters()}
    copied = FunctionScore(
        VP(), lambda x, t: torch.func.functional_call(net, weights, (x, x[:, 0]))
    )
    refused(copied, RuntimeError, "asked of FunctionScore, which detaches its weights")


def test_an_error_of_the_model_is_reported_as_it_is():
    x = torch.zeros(2, 2, requires_grad=True)
    wrong = FunctionScore(VP(), lambda x, t: x[:, :1])
    refused(wrong, RuntimeError, "network returned .*; expected a tensor", shape=None, x_init=x)
