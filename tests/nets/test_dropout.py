"""Masks that belong to the examples of a training."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from scoresde.nets import MLP, UNet
from scoresde.nets.dropout import Dropout, keyed


def awake(net):
    """The net with random values in its zero layers, so that its output is not zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def masked(layers, examples, x, seed=3):
    """What each layer makes of x in a training."""
    net = nn.ModuleList([*layers, nn.Linear(1, 1)])
    with keyed(net, seed, examples):
        return [layer(x) for layer in layers]


def test_a_mask_is_a_function_of_seed_example_and_layer():
    layers, x = [Dropout(0.25), Dropout(0.5)], torch.ones(6, 3, 7)
    both = masked(layers, range(40, 46), x)
    for whole, tail in zip(both, masked(layers, range(43, 46), x[3:]), strict=True):
        assert torch.equal(tail, whole[3:])
    longer = masked(layers, range(40, 46), torch.ones(6, 30))
    assert torch.equal(longer[0][:, :21], both[0].flatten(1))
    # NumPy's generator gives the same pieces of 16 bits.
    key, counter = np.array([3, 42], dtype=np.uint64), np.array([0, 1, 0, 16], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(6).astype("<u8").view("<i2")
    assert torch.equal(both[1][2].flatten() == 0, torch.from_numpy(raw[:21]) < 0)
    masks = [kept == 0 for kept in (*both, *masked(layers, range(40, 46), x, seed=2**64 - 1))]
    assert not any(torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    assert all(layer.names is None for layer in layers)


@pytest.mark.parametrize("p", [0.25, 0.9, 1 - 1e-9])
def test_the_mean_is_kept_and_the_rest_is_zero(p):
    (kept,) = masked([Dropout(p)], range(500), torch.ones(500, 4000, dtype=torch.float64))
    realized = min(round(p * 2**16) / 2**16, 1 - 2**-16)
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / (1 - realized))]
    error = math.sqrt(realized / (1 - realized) / kept.numel())
    assert float(kept.mean()) == pytest.approx(1, abs=5 * error)


def test_outside_of_a_training_it_is_torch_s_dropout():
    """So it is for rows of which it is not known to which example they belong."""
    ours, theirs, x = Dropout(0.3), nn.Dropout(0.3), torch.randn(5, 8)
    found = []
    for layer, examples in ((theirs, range(5)), (ours, range(0)), (ours, range(4))):
        torch.manual_seed(0)
        found.append(masked([layer], examples, x)[0])
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert ours.eval()(x) is x


def test_the_same_masks_with_checkpointing_and_in_another_memory_format():
    net = awake(UNet((1, 8, 8), 8, (1, 2), 1, dropout=0.4)).double()
    x, label, gradients = torch.ones(3, 1, 8, 8).double(), torch.ones(3).double(), []
    for checkpointing, order in ((False, "contiguous_format"), (True, "channels_last")):
        net.checkpointing = checkpointing
        net.to(memory_format=getattr(torch, order)).zero_grad()
        with keyed(net, 0, range(3)):
            net(x, label).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-10)


def test_new_examples_do_not_compile_the_network_again():
    net, compilations = awake(MLP((2,), 8, 2, dropout=0.5)), []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph

    x, label, found = torch.ones(4, 2), torch.ones(4), {}
    for call in (net, torch.compile(net, backend=backend, fullgraph=True)):
        for first in (0, 4, 8):
            with keyed(net, 1, range(first, first + 4)):
                found.setdefault(first, []).append(call(x, label))
    assert len(compilations) == 1
    for eager, compiled in found.values():
        assert torch.allclose(eager, compiled)
    assert not torch.equal(found[0][0], found[4][0])
