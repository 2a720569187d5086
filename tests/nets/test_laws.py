"""Laws of the networks at reduced width: those of the tutorials, and each kind of data."""

import pytest
import torch

from scoresde.nets import DenseUNet, MinimalUNet, Transformer, UNet

NETS = {
    "dense": lambda: DenseUNet((1, 4, 6), (40, 20, 10)),
    "normed": lambda: DenseUNet((24,), (40, 20), layer_norm=True),
    "minimal": lambda: MinimalUNet((2, 4, 8), 8, (1, 2)),
    "unet of series": lambda: UNet((2, 13), 8, (1, 2), 1, patch=2),
    "unet of volumes": lambda: UNet((1, 3, 4, 5), 8, (1, 2), 1),
    "transformer of points": lambda: Transformer((5, 2), 16, 1, 2, positions=False),
    "transformer of volumes": lambda: Transformer((1, 2, 4, 3), 16, 1, 2, patch=2),
}

every_net = pytest.mark.parametrize("kind", NETS)


def awake(net):
    """The net with other values in all layers, so that its output is not zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.double()


def inputs(net, batch=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *net.shape, generator=generator, dtype=torch.float64)
    return x, torch.linspace(0.1, 0.9, batch, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@every_net
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_output_is_zero_and_of_the_shape_of_the_input_at_initialisation(kind, batch):
    net = NETS[kind]()
    x, label = (v.float() for v in inputs(net, batch))
    assert torch.equal(net(x, label), torch.zeros_like(x))


@every_net
def test_a_sample_does_not_depend_on_its_batch(kind):
    net = awake(NETS[kind]())
    x, label = inputs(net)
    with torch.no_grad():
        together = net(x, label)
        alone = torch.cat([net(x[i : i + 1], label[i : i + 1]) for i in range(4)])
    # Matrix products sum in another order for other batch sizes: rounding of float64.
    assert torch.allclose(together, alone, rtol=0, atol=1e-12 * float(together.abs().max()))


@every_net
def test_gradient_reaches_every_parameter(kind):
    net = awake(NETS[kind]())
    net(*inputs(net)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@every_net
def test_the_label_changes_every_sample(kind):
    net = awake(NETS[kind]())
    x, label = inputs(net)
    change = net(x, label + 0.1) - net(x, label)
    assert change.flatten(1).abs().amax(1).min() > 1e-6  # far above rounding


SLOW = [kind for kind in NETS if " of " in kind]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in NETS]
)
def test_overfits_one_batch(kind):
    """It predicts the noise of eight noisy data, whose mean square is 1."""
    net = NETS[kind]()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, *net.shape, generator=generator)
    eps, label = torch.randn(x.shape, generator=generator), torch.linspace(0.1, 1, 8)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        loss = (net(0.6 * x + 0.8 * eps, label) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


def test_without_its_time_input_the_dense_network_sees_no_label():
    net = awake(DenseUNet((6,), (8, 4), time_input=False))
    x, label = inputs(net)
    assert net.down[0].linear.in_features == 6
    assert torch.equal(net(x, label), net(x, 1 - label))


def test_the_dense_network_adds_the_way_down_to_the_way_up():
    """If the way up gives zeros, the output is that of the first layer alone."""
    net = awake(DenseUNet((6,), (8, 4, 2)))
    x, label = inputs(net)
    with torch.no_grad():
        for parameter in net.up.parameters():
            parameter.zero_()
        first = net.down[0](torch.cat([x, label[:, None]], dim=1))
        assert torch.equal(net(x, label), net.head(first))


def test_the_minimal_network_joins_the_features_of_each_side():
    """What the lowest level computes does not reach the output if nothing above takes it."""
    net = awake(MinimalUNet((1, 8, 8), 4, (1, 2, 2)))
    x, label = inputs(net)
    base = net(x, label)
    with torch.no_grad():
        net.up[-1].layers[0].weight[:, :8].zero_()  # the channels from below
        without = net(x, label)
        for parameter in net.down[1:].parameters():
            parameter.add_(1)
        assert torch.equal(net(x, label), without)
    assert not torch.allclose(base, without)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DenseUNet((0,)), ValueError, "each entry of shape must be at least 1, got 0"),
        (lambda: DenseUNet((2,), ()), ValueError, "widths must name at least one layer, got none"),
        (lambda: DenseUNet((2,), (3, 0)), ValueError, "each entry of widths must be at least 1"),
        (lambda: DenseUNet((2,), time_input=2), TypeError, "time_input must be of type bool"),
        (lambda: MinimalUNet((2,)), ValueError, r"shape must be \(C, H, W\) .*got \(2,\)"),
        (lambda: MinimalUNet((1, 28, 28)), ValueError, "that 8 divides, for 4 .*data.size"),
        (lambda: MinimalUNet((1, 8, 8), 0), ValueError, "channels must be at least 1, got 0"),
        (lambda: MinimalUNet((1, 8, 8), 4, []), ValueError, "multipliers must name at least one"),
    ],
)  # fmt: skip
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_bad_inputs():
    net = DenseUNet((2,), (3,))
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2\)"):
        net(torch.zeros(3, 1), torch.zeros(3))
