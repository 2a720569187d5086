"""The MLP: shapes, conditioning, precision, errors."""

import pytest
import torch

from scoresde.nets import MLP


def awake(net):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.dtype))
    return net


def inputs(size, batch=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, size, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.linspace(-6, 6, batch, dtype=torch.float64).to(dtype)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("size", [1, 2, 64])
@pytest.mark.parametrize("batch", [0, 1, 4])
@pytest.mark.parametrize("width", [1, 7, 128])
def test_output_has_the_shape_of_the_input_and_starts_at_zero(size, batch, width):
    x, label = inputs(size, batch, torch.float32)
    assert torch.equal(MLP((size,), width)(x, label), torch.zeros_like(x))


def test_gradient_reaches_every_parameter():
    net = awake(MLP((2,), width=16, classes=3))
    x, label = inputs(2, dtype=torch.float32)
    net(x, label, torch.tensor([0, 1, 2, 3])).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("embedding", ["fourier", "sinusoidal"])
def test_label_and_class_change_the_output(embedding):
    net = awake(MLP((2,), width=16, classes=4, embedding=embedding).double())
    x, label = inputs(2)
    y = torch.arange(4)
    base = net(x, label, y)
    # Far above rounding (1e-16); how far is up to the random weights.
    assert (net(x, label + 0.5, y) - base).abs().amax(1).min() > 1e-6
    assert (net(x, label, (y + 1) % 4) - base).abs().amax(1).min() > 1e-6
    assert torch.equal(net(x, label), net(x, label, torch.full((4,), 4)))


def test_a_sample_does_not_depend_on_its_batch():
    net = awake(MLP((3,)).double())
    x, label = inputs(3, 7)
    with torch.no_grad():
        together = net(x, label)
        alone = torch.cat([net(x[i : i + 1], label[i : i + 1]) for i in range(7)])
    # Matrix products sum in another order for other batch sizes: rounding of float64.
    assert torch.allclose(together, alone, rtol=0, atol=1e-12 * float(together.abs().max()))


def test_lower_precision_follows_float64():
    net = awake(MLP((3,), width=32).double())
    x, label = inputs(3)
    exact = net(x, label)
    # Nine layers of rounding: about 1e-7 each in float32, 4e-3 in bfloat16.
    for dtype, tolerance in [(torch.float32, 1e-5), (torch.bfloat16, 0.1)]:
        low = net.to(dtype)(x.to(dtype), label)
        assert low.dtype == dtype
        assert (low.double() - exact).abs().max() < tolerance * exact.abs().max()


@pytest.mark.slow
def test_learns_a_function_of_vector_and_label():
    # The exact noise prediction for N(0, 1/4) data, with scaled input: linear in x, with a
    # slope that depends on the label alone. Baseline: zero output, mean square about 0.7.
    net = MLP((2,), width=32, depth=2)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(300):
        label = 6 * torch.rand(256, generator=generator) - 3
        x = torch.randn(256, 2, generator=generator)
        target = torch.sigmoid(2 * label + 1.386)[:, None] * x
        loss = (net(x, label) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


def test_state_dict_round_trip():
    net, other = awake(MLP([2], 16, classes=2)), MLP((2,), 16, classes=2)
    other.load_state_dict(net.state_dict())
    x, label = inputs(2, dtype=torch.float32)
    assert torch.equal(other(x, label), net(x, label))


def test_dropout_acts_in_training_only():
    net = awake(MLP((2,), dropout=0.5))
    x, label = inputs(2, dtype=torch.float32)
    assert not torch.equal(net(x, label), net(x, label))
    net.eval()
    assert torch.equal(net(x, label), net(x, label))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (0,)}, "each entry of shape must be at least 1, got 0"),
        ({"shape": (1, 2)}, r"shape must be \(D,\), got \(1, 2\)"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be less than 1, got 1.0"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"embedding": "wave"}, "embedding must be one of fourier, sinusoidal, ddpm, got 'wave'"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        MLP(**({"shape": (2,)} | change))


def test_bad_inputs():
    net = MLP((2,))
    x, label = inputs(2, dtype=torch.float32)
    with pytest.raises(ValueError, match="x must have shape"):
        net(x[:, :1], label)
    with pytest.raises(ValueError, match="y must be None"):
        net(x, label, torch.zeros(4, dtype=torch.int64))
