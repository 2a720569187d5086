"""DDPM's U-Net: the published size, both families, linear attention, learning."""

import pytest
import torch
from torch.nn import functional as F

from scoresde.names.config import load_config
from scoresde.nets import DDPMUNet
from scoresde.nets.blocks import LinearAttention

FORMS = [(r, j) for r in ("strided", "pooled") for j in ("concatenate", "add")]
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def awake(net):
    """The net with random values in its zero layers."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def meta(shape, **arguments):
    with torch.device("meta"):
        return DDPMUNet(shape, **arguments)


def size(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_published_network_has_its_published_size():
    """35.7 million weights: Ho et al. 2020, appendix B; the sum is counted layer by layer."""
    arguments = {k: v for k, v in load_config("ddpm_cifar10").net.items() if k != "kind"}
    net = meta((3, 32, 32), **arguments)

    def conv(a, b, k=9):
        return k * a * b + b

    def block(a, b):
        same = 0 if a == b else conv(a, b, 1)
        return 2 * (a + b) + conv(a, b) + conv(512, b, 1) + conv(b, b) + same

    attention = 2 * 256 + 4 * conv(256, 256, 1)
    label = conv(128, 512, 1) + conv(512, 512, 1)
    ends = conv(3, 128) + 2 * 128 + conv(128, 3)
    down = 2 * block(128, 128) + block(128, 256) + 5 * block(256, 256) + 2 * attention
    down += conv(128, 128) + 2 * conv(256, 256)
    middle = 2 * block(256, 256) + attention
    up = 8 * block(512, 256) + block(384, 256) + 3 * attention + 3 * conv(256, 256)
    up += block(384, 128) + 2 * block(256, 128)
    assert size(net) == label + ends + down + middle + up
    assert round(size(net) / 1e6, 1) == 35.7


def test_attention_is_where_it_is_said():
    net = meta((3, 32, 32), attention=(16,), linear_attention=(32, 16))
    kinds = [[type(step.attention).__name__ for step in level.steps] for level in net.down]
    plain = ["Identity"] * 2
    assert kinds == [["LinearAttention"] * 2, ["Attention"] * 2, plain, plain]
    assert [len(level.steps) for level in net.up] == [3] * 4
    assert type(net.middle[0].attention).__name__ == "Attention"
    assert type(net.middle[1].attention).__name__ == "Identity"


@pytest.mark.parametrize(("resampling", "joining"), FORMS)
def test_both_families(resampling, joining):
    """Zero at first, of the shape of x also where it is padded; batch mates do not matter."""
    form = {"resampling": resampling, "joining": joining}
    net = DDPMUNet((2, 7, 5), **SMALL, **form, linear_attention=(8,), classes=2).double()
    x, label = torch.randn(3, 2, 7, 5, dtype=torch.float64), torch.tensor([0.0, 500.0, 999.0])
    assert torch.equal(net(x, label), torch.zeros_like(x))
    y = torch.tensor([0, 1, 2])
    together = awake(net)(x, label, y)
    alone = torch.cat([net(x[i : i + 1], label[i : i + 1], y[i : i + 1]) for i in range(3)])
    # rounding of convolutions at other batch sizes
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    together.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert net(x[:0], label[:0]).shape == (0, 2, 7, 5)


def test_levels_are_joined_as_said():
    """The last level sees the features of the first one beside its own, or added to them."""
    seen = []
    for resampling, joining in FORMS:
        net = DDPMUNet((1, 8, 8), **SMALL, resampling=resampling, joining=joining)
        net.up[-1].steps[0].register_forward_hook(lambda _, given, out: seen.append(given[0]))
        net(torch.randn(1, 1, 8, 8), torch.zeros(1))
    assert [x.shape[1] for x in seen] == [16 + 8, 8, 16 + 8, 8]


def test_linear_attention_is_the_sum_over_all_positions():
    """Shen et al. 2018: softmax over the channels of q, over the positions of k, written out."""
    layer = awake(LinearAttention(64, skip_scale=False)).double()
    assert layer.heads == 2
    x = torch.randn(2, 64, 3, 2, dtype=torch.float64)
    tokens = layer.norm(x).flatten(2).transpose(1, 2)
    q, k, v = layer.qkv(tokens).chunk(3, dim=2)
    mixed = torch.zeros_like(tokens)
    for b in range(2):
        for head in (slice(0, 32), slice(32, 64)):
            for i in range(6):
                for j in range(6):
                    share = k[b, :, head].exp()[j] / k[b, :, head].exp().sum(0)
                    weight = (F.softmax(q[b, i, head], 0) * share).sum()
                    mixed[b, i, head] += weight * v[b, j, head]
    wanted = x + layer.proj(mixed).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("resampling", "joining"), [FORMS[0], pytest.param(*FORMS[3], marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_it_overfits_one_batch(resampling, joining):
    form = {"resampling": resampling, "joining": joining, "activation": "gelu"}
    net = DDPMUNet((1, 8, 8), **SMALL, **form, attention=(8,), linear_attention=(4,))
    x, label = torch.randn(4, 1, 8, 8), torch.tensor([0.0, 300.0, 600.0, 999.0])
    wanted = torch.randn(4, 1, 8, 8)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.mse_loss(net(x, label), wanted)
        loss.backward()
        optimizer.step()
    assert loss < 0.25  # from 1 for the output 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": (5,)}, r"attention must name resolutions among \[8, 4\], got 5"),
        ({"linear_attention": (2,)}, r"linear_attention must name resolutions among \[8, 4\]"),
        ({"resampling": "average"}, "resampling must be one of strided, pooled, got 'average'"),
        ({"joining": "sum"}, "joining must be one of concatenate, add, got 'sum'"),
        ({"activation": "relu"}, "activation must be one of silu, gelu, got 'relu'"),
        ({"multipliers": ()}, "multipliers must name at least one level"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        meta((1, 8, 8), **(SMALL | arguments))
