"""The transformer: sets and their masks, patches, conditions, derivatives, errors."""

import math

import pytest
import torch
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoresde.likelihood.trace.jacobian import linearize
from scoresde.nets import Transformer
from scoresde.nets.transformer_blocks import PositionEmbedding

SMALL = {"width": 8, "depth": 2, "heads": 2}
TEXT = {"tokens": (4, 3), "classes": 2, "vector": 2}


def transformer(shape, seed=0, **arguments):
    """A network in float64 whose output is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Transformer(shape, **SMALL | arguments)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return net.double()


def normal(*size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def label_of(n):
    return torch.linspace(-2, 2, n, dtype=torch.float64)


def close(one, other):
    """Equal up to the rounding of float64 in sums of another order."""
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_an_exchange_of_points_exchanges_the_outputs():
    net = transformer((6, 3), positions=False)
    x, order = normal(2, 6, 3), torch.tensor([3, 0, 5, 1, 2, 4])
    out = net(x, label_of(2))
    close(net(x[:, order], label_of(2)), out[:, order])
    assert (out[:, 1:] - out[:, :1]).abs().max() > 1e-3  # no constant


def test_with_positions_the_order_counts():
    net = transformer((6, 3))
    x, order = normal(2, 6, 3), torch.tensor([3, 0, 5, 1, 2, 4])
    change = net(x[:, order], label_of(2)) - net(x, label_of(2))[:, order]
    assert change.abs().max() > 1e-3


def test_a_padded_set_has_the_output_of_a_network_without_padding():
    net, sizes = transformer((20, 2), sizes=(1, 20)), torch.tensor([5, 1, 20])
    x = normal(3, 20, 2)
    out = net(x, label_of(3), sizes)
    for i, n in enumerate(sizes.tolist()):
        short = transformer((n, 2), seed=1, sizes=(n, n))
        short.load_state_dict(net.state_dict())
        rows = slice(i, i + 1)
        close(out[rows, :n], short(x[rows, :n], label_of(3)[rows], sizes[rows]))
        assert torch.equal(out[i, n:], torch.zeros(20 - n, 2, dtype=torch.float64))


def test_padding_has_no_influence_not_even_as_nan():
    net, sizes = transformer((4, 2), sizes=(1, 4), classes=2), torch.tensor([2, 4])
    y = {"class": torch.tensor([0, 1]), "size": sizes}
    x = normal(2, 4, 2)
    x[0, 2:] = 0
    other = x.clone()
    other[0, 2:] = math.nan
    assert torch.equal(net(x, label_of(2), y), net(other, label_of(2), y))
    other.requires_grad_()
    net(other, label_of(2), y).sum().backward()
    assert torch.equal(other.grad[0, 2:], torch.zeros(2, 2, dtype=torch.float64))
    assert other.grad.isfinite().all()


def test_the_number_of_points_is_known_to_the_network():
    """Attention to equal points is the same for any number of them."""
    net = transformer((4, 2), sizes=(1, 4))
    x = torch.ones(2, 4, 2, dtype=torch.float64)
    out = net(x, torch.zeros(2, dtype=torch.float64), torch.tensor([2, 3]))
    assert (out[0, 0] - out[1, 0]).abs().max() > 1e-3


def test_sets_need_their_sizes():
    with pytest.raises(ValueError, match="y must be given, as the network takes the sizes 1 to 4"):
        transformer((4, 2), sizes=(1, 4))(normal(1, 4, 2), label_of(1))


@pytest.mark.parametrize(("shape", "patch"), [((2, 8), 4), ((1, 4, 6), 2), ((1, 2, 4, 2), 2)])
def test_each_patch_is_one_token(shape, patch):
    """Without attention and positions a patch of the output depends on that patch alone."""
    net = transformer(shape, patch=patch, positions=False)
    with torch.no_grad():
        for block in net.blocks:
            block.proj.weight.zero_()
    x = normal(1, *shape)
    other = x.clone()
    inside = (..., *[slice(patch, 2 * patch) if n > patch else slice(None) for n in shape[1:]])
    other[inside] += 1
    change = (net(other, label_of(1)) - net(x, label_of(1))) != 0
    expected = torch.zeros_like(change)
    expected[inside] = True
    assert torch.equal(change, expected)


def test_sizes_that_the_patch_does_not_divide_are_padded_by_the_border():
    odd, even = transformer((1, 5, 4), patch=4), transformer((1, 8, 4), seed=1, patch=4)
    even.load_state_dict(odd.state_dict())
    x = normal(2, 1, 5, 4)
    rows = [0, 0, 1, 2, 3, 4, 4, 4]
    whole = even(x[:, :, rows], label_of(2))
    close(odd(x, label_of(2)), whole[:, :, 1:6])


@pytest.mark.parametrize("grid", [(300,), (16, 9), (8, 7, 6)])
def test_positions_are_told_apart(grid):
    embedding = PositionEmbedding(grid, 4)
    with torch.no_grad():
        places = embedding.linear.in_features // len(grid)
        embedding.linear = torch.nn.Linear(places * len(grid), places * len(grid), bias=False)
        torch.nn.init.eye_(embedding.linear.weight)
        features = embedding().double()
    distance = torch.cdist(features, features).fill_diagonal_(math.inf)
    assert features.shape[0] == math.prod(grid)
    assert distance.min() > 0.5  # of vectors of length 5.7 for each axis


def test_tokens_act_by_cross_attention_which_knows_no_order():
    net = transformer((5, 2), **TEXT)
    y = {"class": torch.tensor([0, 1]), "vector": normal(2, 2), "tokens": normal(2, 4, 3)}
    x, label = normal(2, 5, 2), label_of(2)
    base = net(x, label, y)
    mixed = y | {"tokens": y["tokens"][:, [2, 0, 3, 1]]}
    close(net(x, label, mixed), base)
    changed = y["tokens"].clone()
    changed[1, 2] += 1
    move = (net(x, label, y | {"tokens": changed}) - base).abs().flatten(1).amax(1)
    assert move[1] > 1e-3
    assert move[0] < 1e-12


def tangent_case():
    """A field of padded sets with tokens, whose sizes are 3 and 2 of 3 points."""
    net = transformer((3, 2), sizes=(1, 3), tokens=(2, 2), depth=1)
    y = {"size": torch.tensor([3, 2]), "tokens": normal(2, 2, 2)}
    label = label_of(2)
    return lambda x: net(x, label, y)


UNITS = torch.eye(6, dtype=torch.float64).reshape(6, 1, 3, 2).expand(6, 2, 3, 2)


def test_its_jacobian_is_that_of_autograd_and_no_padding_has_part_in_it():
    field, x = tangent_case(), normal(2, 3, 2)
    full = torch.autograd.functional.jacobian(field, x)
    blocks = torch.stack([full[i, :, :, i].reshape(6, 6) for i in range(2)])
    jacobian = linearize(field, x)
    close(torch.stack([jacobian.vjp(v).flatten(1) for v in UNITS], dim=1), blocks)
    assert torch.equal(blocks[1, 4:], torch.zeros(2, 6, dtype=torch.float64))
    assert torch.equal(blocks[1, :, 4:], torch.zeros(6, 2, dtype=torch.float64))


# torch imports its own deprecated torch.jit.script at the first jvp.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.slow
def test_forward_and_reverse_derivatives_agree():
    field, x, v = tangent_case(), normal(2, 3, 2), normal(2, 3, 2, seed=2)
    w = normal(2, 3, 2, seed=3)
    forward = jvp(field, (x,), (v,))[1]
    close((w * forward).sum(), (linearize(field, x).vjp(w) * v).sum())


def test_a_trace_has_the_gradient_of_its_differences():
    field, x = tangent_case(), normal(2, 3, 2)

    def trace(x):
        value = field(x.requires_grad_())
        pulled = [torch.autograd.grad(value, x, v, create_graph=True)[0] for v in UNITS]
        return sum((g * v).sum() for g, v in zip(pulled, UNITS, strict=True))

    direction, step = normal(2, 3, 2, seed=3), 1e-5
    with sdpa_kernel(SDPBackend.MATH):  # the only kernel with second derivatives
        (gradient,) = torch.autograd.grad(trace(start := x.clone()), start)
        ends = [float(trace(x + s * step * direction).detach()) for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    # Truncation of order step² = 1e-10, rounding of 1e-16 / step = 1e-11.
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6)


def test_checkpointing_gives_the_same_gradients():
    def gradients(checkpointing):
        net = transformer((5, 2)).train()
        net.checkpointing = checkpointing
        net(normal(2, 5, 2), label_of(2)).square().sum().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    torch.testing.assert_close(gradients(True), gradients(False), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    net = transformer((5, 2), sizes=(1, 5), tokens=(2, 2))
    y = {"size": torch.tensor([3, 2]), "tokens": normal(2, 2, 2)}
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    x = normal(2, 5, 2)
    assert torch.equal(compiled(x, label_of(2), y), net(x, label_of(2), y))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shape": (2,)}, ValueError, r"shape must be \(N, F\) .*got \(2,\); vectors take an MLP"),
        ({"shape": (1, 8, 8)}, ValueError, r"got \(1, 8, 8\); images and volumes need patch"),
        ({"shape": (1, 128)}, ValueError, r"a single token, and series \(C, L\) need patch"),
        ({"shape": (8,), "patch": 2}, ValueError, r"shape must be \(C, L\), .* got \(8,\)"),
        ({"heads": 3}, ValueError, "heads must divide width = 8, got 3"),
        ({"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ({"patch": 0}, ValueError, "patch must be at least 1, got 0"),
        ({"dropout": 1}, ValueError, "dropout must be less than 1, got 1"),
        ({"positions": 1}, TypeError, "positions must be of type bool"),
        ({"sizes": (1, 3)}, ValueError, r"sizes must be \(least, 4\) for shape \(4, 2\), got \(1"),
        ({"sizes": (1, 4), "patch": 2}, ValueError, "patch must be None with sizes"),
        ({"tokens": (3,)}, ValueError, r"tokens must be two numbers \(T, F\), got \(3,\)"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Transformer(**({"shape": (4, 2)} | SMALL | arguments))
