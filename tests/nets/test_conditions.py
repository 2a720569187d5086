"""The networks under every kind of condition: what changes, and what "no condition" means."""

import math

import pytest
import torch

from scoresde.nets import MLP, Transformer, UNet


def awake(net):
    """The net with random values in its zero layers, so that its output is not zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.double()


def unet(**kinds):
    return awake(UNet((1, 5, 4), 8, (1, 2), 1, (), **kinds))


NETS = {
    "mlp": (lambda: awake(MLP((3,), 16, classes=4, vector=2)), (3,)),
    "unet": (lambda: unet(classes=4, vector=2, array=2), (1, 5, 4)),
    "patches": (lambda: unet(classes=4, vector=2, array=2, patch=2), (1, 5, 4)),
    "transformer": (
        lambda: awake(Transformer((4, 2), 8, 1, 2, classes=4, vector=2, tokens=(3, 2))),
        (4, 2),
    ),
}


def inputs(shape, net, n=3):
    generator = torch.Generator().manual_seed(1)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    y = {"class": torch.arange(n), "vector": normal(n, 2)}
    if net.condition.array is not None:
        y["array"] = normal(n, *net.condition.array)
    if net.condition.tokens is not None:
        y["tokens"] = normal(n, *net.condition.tokens)
    return normal(n, *shape), torch.linspace(-2, 2, n, dtype=torch.float64), y


def nothing(net, y):
    """The condition with "no condition" in every entry."""
    return net.condition.without(y, torch.ones(len(y["class"]), dtype=torch.bool))


@pytest.mark.parametrize("kind", NETS)
def test_each_part_of_a_condition_changes_its_own_sample_alone(kind):
    make, shape = NETS[kind]
    net = make()
    x, label, y = inputs(shape, net)
    base, none = net(x, label, y), nothing(net, y)
    for name, part in y.items():
        other, absent = part.clone(), part.clone()
        other[1] += 1
        absent[1] = none[name][1]
        for changed in (other, absent):
            moved = (net(x, label, y | {name: changed}) - base).abs().flatten(1).amax(1)
            assert moved[1] > 1e-6, name  # far above rounding
            assert moved[0] + moved[2] < 1e-12, name


@pytest.mark.parametrize("kind", NETS)
def test_no_condition_is_the_same_in_every_form(kind):
    """None, and class K with NaN, in some rows or in all of them."""
    make, shape = NETS[kind]
    net = make()
    x, label, y = inputs(shape, net)
    absent = net(x, label)
    torch.testing.assert_close(net(x, label, nothing(net, y)), absent, rtol=1e-12, atol=1e-12)
    some = torch.tensor([False, True, False])
    mixed = net(x, label, net.condition.without(y, some))
    want = net(x, label, y)
    want[some] = absent[some]
    torch.testing.assert_close(mixed, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", NETS)
def test_gradients_are_finite_and_reach_every_parameter_under_label_dropout(kind):
    make, shape = NETS[kind]
    net = make()
    x, label, y = inputs(shape, net)
    some = torch.tensor([False, True, False])
    net(x, label, net.condition.without(y, some)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_one_kind_alone_is_a_tensor():
    x, label = torch.zeros(3, 1, 5, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for net, y in [(unet(array=2), torch.ones(3, 2, 5, 4)), (unet(vector=1), torch.ones(3))]:
        assert net(x, label, y).shape == x.shape  # float32 for a network in float64
        with pytest.raises(ValueError, match="y must be one tensor for a.* got a dict"):
            net(x, label, {"vector": y})
    with pytest.raises(ValueError, match="y must be None: the network takes no condition"):
        unet()(x, label, torch.ones(3))


def test_the_array_has_the_size_of_the_image():
    net = unet(array=2)
    assert net.condition.array == (2, 5, 4)
    x, label = torch.zeros(3, 1, 5, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must have shape \(3, 2, 5, 4\), .*got \(3, 2, 4, 5\)"):
        net(x, label, torch.ones(3, 2, 4, 5))


def test_a_sample_without_a_condition_is_not_nan():
    net = MLP((2,), 8, vector=3).bfloat16()
    out = net(torch.ones(2, 2).bfloat16(), torch.zeros(2), torch.full((2, 3), math.nan))
    assert torch.isfinite(out).all()
