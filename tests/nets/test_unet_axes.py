"""The U-Net in one, two and three dimensions is one network.

The oracles are relations between networks of different data: a network that looks along one axis
fewer, and the same network after an exchange of axes.
"""

import itertools

import pytest
import torch

from scoresde.nets import UNet
from scoresde.nets.axes import cropped, folded, padding, unfolded


def unet(shape, **kinds):
    """A network with every kind of layer, in float64, whose output is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(shape, 4, (1, 2), 1, array=1, fourier=[0], **kinds).double()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64))
    return net


def normal(*size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=torch.float64)


LABEL = torch.tensor([-1.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(7,), (4, 5)])
def test_data_that_are_constant_along_a_further_axis(sizes):
    """Kernels that look at their centre along that axis give the net without it, at each place."""
    thin, more = unet((2, *sizes)), 6  # 6 places along the new first axis
    thick = unet((2, more, *sizes))
    weights = thick.state_dict()
    for name, own in thin.state_dict().items():
        if weights[name].ndim == own.ndim:  # no layer of the grid
            weights[name] = own
        elif name == "no_array":
            weights[name] = own[:, None].expand_as(weights[name])
        else:  # the centre of a kernel of size 3 or 1
            weights[name].zero_()
            weights[name][:, :, weights[name].shape[2] // 2] = own
    thick.load_state_dict(weights)
    x, y = normal(2, 2, *sizes), normal(2, 1, *sizes)
    y[1] = torch.nan  # no array

    def repeated(v):
        return v[:, :, None].expand(*v.shape[:2], more, *sizes)

    out = thick(repeated(x), LABEL, repeated(y))
    # Sums over groups and positions are longer: rounding of float64.
    torch.testing.assert_close(out, repeated(thin(x, LABEL, y)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [(1, 0), (1, 2, 0)])
def test_exchanged_axes_of_data_and_kernels_exchange_those_of_the_output(order):
    sizes = (5, 4, 6)[: len(order)]
    one, other = unet((1, *sizes)), unet((1, *[sizes[i] for i in order]))

    def moved(v):
        """The last axes in the new order; tensors of other ranks as they are."""
        first = v.ndim - len(order)
        return v.permute(*range(first), *[first + i for i in order])

    grid = {name for name, p in one.named_parameters() if p.ndim == 2 + len(order)} | {"no_array"}
    weights = one.state_dict()
    other.load_state_dict({k: moved(v) if k in grid else v for k, v in weights.items()})
    x, y = normal(2, 1, *sizes), normal(2, 1, *sizes, seed=2)
    y[0] = torch.nan
    out = other(moved(x), LABEL, moved(y))
    torch.testing.assert_close(out, moved(one(x, LABEL, y)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sizes", [(6,), (4, 6), (2, 4, 6)])
def test_patches_are_folded_by_their_position(sizes):
    x = normal(2, 3, *sizes)
    deep = folded(x, 2)
    assert deep.shape == (2, 3 * 2 ** len(sizes), *[size // 2 for size in sizes])
    assert torch.equal(unfolded(deep, 2), x)
    for channel, offset in itertools.product(
        range(3), itertools.product((0, 1), repeat=len(sizes))
    ):
        within = int("".join(map(str, offset)), 2)  # the offset of the last axis runs fastest
        every = (slice(None), channel, *[slice(start, None, 2) for start in offset])
        assert torch.equal(deep[:, channel * 2 ** len(sizes) + within], x[every])


def test_padding_is_cropped_again():
    x = normal(1, 1, 3, 5, 8)
    pad = padding(x.shape[1:], 4)
    assert pad == (0, 0, 1, 2, 0, 1)  # the last axis first, the odd one at the end
    wide = torch.nn.functional.pad(x, pad)
    assert wide.shape == (1, 1, 4, 8, 8)
    assert torch.equal(cropped(wide, pad), x)


def test_the_array_has_the_size_of_the_data():
    net = unet((1, 2, 3, 4))
    assert net.condition.array == (1, 2, 3, 4)
    with pytest.raises(
        ValueError, match=r"must have shape \(2, 1, 2, 3, 4\), .*got \(2, 1, 3, 4\)"
    ):
        net(normal(2, 1, 2, 3, 4), LABEL, normal(2, 1, 3, 4))
