"""The U-Net: shapes, conditioning, padding, precision, errors."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jvp, vjp

from scoresde.data import DataSpec
from scoresde.nets import MLP, UNet
from scoresde.nets.blocks import Attention, group_norm
from scoresde.nets.embedding import FourierEmbedding, SinusoidalEmbedding

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": ()}
SHAPES = [(1, 28, 28), (3, 32, 32), (4, 16, 16), (3, 28, 20), (1, 33, 17)]


def awake(net, seed=0):
    """The net with random values in its zero layers, so that its output is not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.dtype))
    return net


def inputs(shape, batch=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.linspace(-6, 6, batch, dtype=torch.float64).to(dtype)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_output_has_the_shape_of_the_input(shape, patch, batch):
    net = UNet(shape, **SMALL, patch=patch)
    x, label = inputs(shape, batch, torch.float32)
    out = net(x, label)
    assert out.shape == x.shape
    assert out.dtype == x.dtype


@pytest.mark.parametrize("patch", [1, 2])
def test_output_is_zero_at_initialisation(patch):
    net = UNet((2, 9, 6), **SMALL, patch=patch)
    x, label = inputs((2, 9, 6), dtype=torch.float32)
    assert torch.equal(net(x, label), torch.zeros_like(x))


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (2, 1, 3)])
def test_gradient_reaches_every_parameter(multipliers):
    side = 16 // 2 ** (len(multipliers) - 1)
    net = UNet((1, 16, 16), 8, multipliers, 2, (16, side), classes=2)
    x, label = inputs((1, 16, 16), dtype=torch.float32)
    awake(net)(x, label, torch.tensor([0, 1, 2])).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_every_residual_branch_starts_at_zero():
    net = UNet((1, 8, 8), **(SMALL | {"attention": (4,)}))
    ends = [m for n, m in net.named_modules() if n.endswith(("conv2", "proj", "head"))]
    assert len(ends) == 6  # 1 down + 2 middle + 1 up blocks, 1 attention, 1 head
    assert all(bool((p == 0).all()) for end in ends for p in end.parameters())


@pytest.mark.parametrize("embedding", ["fourier", "sinusoidal"])
def test_label_and_class_change_the_output(embedding):
    net = awake(UNet((1, 8, 8), **SMALL, classes=3, embedding=embedding).double())
    x, label = inputs((1, 8, 8))
    y = torch.tensor([0, 1, 2])
    base = net(x, label, y)
    # Far above rounding (1e-16); how far is up to the random weights.
    assert (net(x, label + 0.5, y) - base).abs().amax((1, 2, 3)).min() > 1e-6
    assert (net(x, label, (y + 1) % 3) - base).abs().amax((1, 2, 3)).min() > 1e-6
    # No class is the class K, so that mixed batches and y = None agree.
    assert torch.equal(net(x, label), net(x, label, torch.full((3,), 3)))
    assert (net(x, label) - base).abs().amax((1, 2, 3)).min() > 1e-6


@pytest.mark.parametrize(("shape", "fourier"), [((1, 8, 8), []), ((2, 7, 5), []), ((1, 8, 8), [7])])
def test_a_sample_does_not_depend_on_its_batch(shape, fourier):
    net = awake(UNet(shape, **(SMALL | {"attention": (4,)}), fourier=fourier).double())
    x, label = inputs(shape, 5)
    with torch.no_grad():
        together = net(x, label)
        alone = torch.cat([net(x[i : i + 1], label[i : i + 1]) for i in range(5)])
    # Convolution algorithms may differ with the batch size: rounding of float64.
    assert torch.allclose(together, alone, rtol=0, atol=1e-12 * float(together.abs().max()))


def test_lower_precision_follows_float64():
    net = awake(UNet((1, 8, 8), **(SMALL | {"attention": (4,)})).double())
    x, label = inputs((1, 8, 8))
    exact = net(x, label)
    size = exact.abs().max()
    assert exact.dtype == torch.float64
    # A dozen layers of rounding: about 1e-7 each in float32, 4e-3 in bfloat16.
    for dtype, tolerance in [(torch.float32, 1e-5), (torch.bfloat16, 0.1)]:
        low = net.to(dtype)(x.to(dtype), label)
        assert low.dtype == dtype
        assert (low.double() - exact).abs().max() < tolerance * size


def test_autocast_returns_the_dtype_of_the_input():
    net = awake(UNet((1, 8, 8), **(SMALL | {"attention": (4,)})))
    x, label = inputs((1, 8, 8), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(x, label)
    assert low.dtype == torch.float32
    full = net(x, label)
    assert (low - full).abs().max() < 0.05 * full.abs().max()  # bfloat16: 8 bits


def test_frequencies_survive_a_change_of_dtype():
    net = UNet((1, 8, 8), **SMALL)
    before = net.embedding.waves.frequencies.clone()
    assert torch.equal(net.bfloat16().embedding.waves.frequencies, before)
    assert net.double().embedding.waves.frequencies.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 7, 5)])
def test_channels_last_gives_the_same(shape):
    net = awake(UNet(shape, **(SMALL | {"attention": (4,)}), patch=1))
    x, label = inputs(shape, dtype=torch.float32)
    expected = net(x, label)
    last = net.to(memory_format=torch.channels_last)
    got = last(x.to(memory_format=torch.channels_last), label)
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()  # float32 rounding


@pytest.mark.parametrize(
    ("patch", "size", "rows", "columns"),
    [
        (1, (7, 5), [0, *range(1, 7), 6], [0, *range(1, 5), 4]),  # to 8 × 6, below and at the right
        (2, (9, 6), [0, *range(9), 8, 8], [0, *range(6), 5]),  # to 12 × 8, on all sides
    ],
)
def test_padding_repeats_the_border_and_is_cropped(patch, size, rows, columns):
    odd = UNet((1, *size), **SMALL, patch=patch).double()
    even = UNet((1, len(rows), len(columns)), **SMALL, patch=patch).double()
    even.load_state_dict(awake(odd).state_dict())
    x, label = inputs((1, *size))
    top, left = rows.index(1) - 1, columns.index(1) - 1
    whole = even(x[..., rows, :][..., columns], label)
    by_hand = whole[..., top : top + size[0], left : left + size[1]]
    assert torch.equal(odd(x, label), by_hand)
    assert even.pad == (0, 0, 0, 0)


def test_a_one_pixel_image_can_be_padded():
    net = awake(UNet((1, 1, 1), **SMALL, patch=2))
    x, label = inputs((1, 1, 1), dtype=torch.float32)
    assert net(x, label).shape == x.shape


def test_stem_and_head_fold_and_unfold_patches_alike():
    # With identity in between (centre tap 1), patches of 2 must come back where they were.
    net = UNet((1, 8, 8), channels=4, multipliers=(1,), blocks=1, attention=(), patch=2)
    for layer in (net.stem, net.head):
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    net.norm = nn.Identity()
    net.middle.register_forward_hook(lambda module, args, out: args[0])
    x, label = inputs((1, 8, 8), dtype=torch.float32)
    assert torch.equal(net(x, label), nn.functional.silu(x))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 24), (1, 28, 28), (2, 5, 3)])
@pytest.mark.parametrize("patch", [1, 2])
def test_attention_is_at_the_lowest_resolution_by_default(shape, patch):
    """It was at 7 pixels once, which can be no other resolution: 7 cannot be halved."""
    net = UNet(shape, 4, patch=patch)
    places = [name for name, module in net.named_modules() if isinstance(module, Attention)]
    assert {name.split(".")[0] for name in places} == {"middle"}
    left, right, top, bottom = net.pad
    lowest = max(shape[1] + top + bottom, shape[2] + left + right) // patch // 4
    assert (
        net.state_dict().keys()
        == UNet(shape, 4, patch=patch, attention=[lowest]).state_dict().keys()
    )


def test_attention_is_softmax_attention():
    layer = awake(Attention(256, skip_scale=False).double())  # two heads of 128
    x, _ = inputs((256, 3, 2))
    tokens = layer.norm(x).reshape(3, 256, 6).movedim(1, 2)
    q, k, v = layer.qkv(tokens).chunk(3, dim=2)
    heads = []
    for part in (slice(0, 128), slice(128, 256)):
        weights = torch.exp(torch.einsum("bic,bjc->bij", q[..., part], k[..., part]) / 128**0.5)
        weights = weights / weights.sum(2, keepdim=True)
        heads.append(torch.einsum("bij,bjc->bic", weights, v[..., part]))
    expected = x + layer.proj(torch.cat(heads, 2)).movedim(1, 2).reshape(x.shape)
    # Rounding of float64; the values are of order one to ten.
    assert torch.allclose(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_skip_scale_keeps_the_variance_of_a_sum():
    scaled = UNet((1, 8, 8), **SMALL, skip_scale=True)
    plain = UNet((1, 8, 8), **SMALL, skip_scale=False)
    plain.load_state_dict(scaled.state_dict())
    x, embedding = torch.randn(2, 8, 8, 8), torch.randn(2, 16)
    ratio = scaled.down[0](x, embedding) / plain.down[0](x, embedding)
    assert torch.allclose(ratio, torch.full_like(ratio, 0.5**0.5))


# torch imports its own deprecated torch.jit.script at the first jvp.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_forward_and_reverse_derivatives_agree():
    net = awake(UNet((1, 8, 8), **(SMALL | {"attention": (4,)})).double())
    x, label = inputs((1, 8, 8))
    v, w = torch.randn_like(x), torch.randn_like(x)
    _, forward = jvp(lambda z: net(z, label), (x,), (v,))
    reverse = vjp(lambda z: net(z, label), x)[1](w)[0]
    # ⟨w, J v⟩ = ⟨Jᵀ w, v⟩ up to rounding.
    assert torch.allclose((w * forward).sum(), (reverse * v).sum(), rtol=1e-10)


def seen_by_stem(net, x, label):
    """The output of the net, and the channels that its first layer sees."""
    seen = []
    handle = net.stem.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    out = net(x, label)
    handle.remove()
    return out, seen[0]


def test_a_network_without_fourier_features_is_that_of_old_checkpoints():
    old = {"shape": (2, 8, 8), **SMALL}  # without the key, as before it existed
    torch.manual_seed(3)
    before = awake(UNet(**old))
    torch.manual_seed(3)
    after = UNet(**old, fourier=[])
    assert {k: v.shape for k, v in before.state_dict().items()} == {
        k: v.shape for k, v in after.state_dict().items()
    }
    after.load_state_dict(before.state_dict())
    x, label = inputs((2, 8, 8), dtype=torch.float32)
    out, seen = seen_by_stem(after, x, label)
    assert torch.equal(out, before(x, label))
    assert torch.equal(seen, x)  # no further channels


def test_fourier_features_are_those_of_float32_under_autocast():
    """In bfloat16 the angle 2⁷π x, up to 400, would have an error of about 1."""
    net = awake(UNet((2, 8, 8), **SMALL, fourier=[1, 7]))
    x, label = inputs((2, 8, 8), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, seen = seen_by_stem(net, x, label)
    assert seen.shape == (3, 2 * (1 + 4), 8, 8)
    angles = [2.0**n * np.pi * x.numpy().astype(np.float64) for n in (1, 7)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    expected = np.concatenate([x.numpy(), *waves], axis=1)
    # float32 rounds an angle of 1600 by up to 6e-5
    np.testing.assert_allclose(seen.numpy(), expected, rtol=0, atol=2e-4)


def test_fourier_features_tell_neighbouring_levels_apart():
    """At the centres of 256 levels, n = 7 alternates between ±1, and n = 8 is the same at all."""
    spec = DataSpec((1, 16, 16), -1, 1, levels=256)
    x = spec.encode(torch.arange(256).reshape(1, 1, 16, 16))
    net = UNet(spec.shape, **SMALL, fourier=[7, 8])
    _, seen = seen_by_stem(net, x, torch.zeros(1))
    sin7, _, sin8, cos8 = seen[0, 1:].flatten(1)
    signs = 1 - 2 * (torch.arange(256) % 2)
    torch.testing.assert_close(sin7 * sin7[0].sign(), signs.float(), rtol=0, atol=1e-4)
    steps = torch.stack([sin8, cos8]).diff(dim=1)
    assert steps.abs().max() < 2e-4  # the rounding of angles of 800


def test_dropout_acts_in_training_only():
    net = awake(UNet((1, 8, 8), **SMALL, dropout=0.5))
    x, label = inputs((1, 8, 8), dtype=torch.float32)
    assert not torch.equal(net(x, label), net(x, label))
    net.eval()
    assert torch.equal(net(x, label), net(x, label))


def test_state_dict_round_trip():
    net = awake(UNet([1, 8, 8], 8, [1, 2], 1, [4], classes=2))  # lists, as a config file gives
    other = UNet((1, 8, 8), 8, (1, 2), 1, (4,), classes=2)
    other.load_state_dict(net.state_dict())
    x, label = inputs((1, 8, 8), dtype=torch.float32)
    assert torch.equal(other(x, label), net(x, label))


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    net = awake(UNet((1, 7, 8), **(SMALL | {"attention": (4,)}), classes=2))
    x, label = inputs((1, 7, 8), dtype=torch.float32)
    y = torch.tensor([0, 1, 2])
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, label, y), net(x, label, y))


def test_inputs_are_left_alone():
    net = awake(UNet((1, 8, 8), **SMALL))
    x, label = inputs((1, 8, 8), dtype=torch.float32)
    before = x.clone(), label.clone()
    net(x, label)
    assert torch.equal(x, before[0])
    assert torch.equal(label, before[1])


def test_sizes_of_the_shipped_networks():
    def count(net):
        return sum(p.numel() for p in net.parameters())

    digits = UNet((1, 8, 8), channels=32, multipliers=(1, 2), blocks=1, attention=(4,))
    assert 4 * count(digits) < 1e6  # fits in 1 MB as float32
    fashion = UNet((1, 28, 28), 64, (1, 2), 2, (7,), patch=2)
    assert 4 * count(fashion) < 6e6


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (6, 1), (8, 2), (12, 3), (32, 8), (64, 16), (256, 32), (36, 9)]
)
def test_groups_have_four_channels_or_more(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("kind", [FourierEmbedding, SinusoidalEmbedding])
def test_embedding_is_smooth_yet_tells_labels_apart(kind):
    waves = kind(32)
    label = torch.arange(-12, 12, 0.05, dtype=torch.float64)
    features = waves(label) / 8  # unit vectors: 64 features of mean square 1
    assert torch.allclose(features.norm(dim=1), torch.ones_like(label))
    steps = (features[1:] - features[:-1]).norm(dim=1)
    assert steps.min() > 0.01
    assert steps.max() < 0.1
    similar = features @ features.T
    far = (label[:, None] - label).abs() > 0.5
    assert similar[far].max() < 0.97


@pytest.mark.parametrize("kind", [FourierEmbedding, SinusoidalEmbedding])
def test_embedding_uses_no_global_state(kind):
    state = torch.random.get_rng_state()
    first = kind(16).frequencies
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(kind(16).frequencies, first)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (1, 0, 8)}, "each entry of shape must be at least 1, got 0"),
        ({"shape": (1, 8, -8)}, "each entry of shape must be .* got -8"),
        (
            {"shape": (8,)},
            r"shape must be \(C, L\), \(C, H, W\) or \(C, D, H, W\) for a U-Net, got \(8,\); "
            "vectors take an MLP",
        ),
        ({"shape": (1, 2, 2, 2, 2)}, r"for a U-Net, got \(1, 2, 2, 2, 2\)"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"channels": 8.0}, "channels must be an integer, got 8.0"),
        ({"multipliers": ()}, "multipliers must name at least one level"),
        ({"multipliers": (1, 0)}, "each entry of multipliers must be .* got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"attention": (7,)}, r"attention must name resolutions among \[8, 4\], got 7"),
        ({"dropout": 1.0}, "dropout must be less than 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0, got -0.1"),
        ({"dropout": float("nan")}, "dropout must be finite, got nan"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"vector": 0}, "vector must be at least 1, got 0"),
        ({"array": 1.5}, "array must be an integer, got 1.5"),
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"fourier": [-1]}, "each entry of fourier must be at least 0, got -1"),
        ({"fourier": [6.5]}, "each entry of fourier must be an integer, got 6.5"),
        ({"embedding": "wave"}, "embedding must be one of fourier, sinusoidal, ddpm, got 'wave'"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        UNet(**({"shape": (1, 8, 8)} | SMALL | change))


def test_bad_inputs():
    net, labelled = UNet((1, 8, 8), **SMALL), UNet((1, 8, 8), **SMALL, classes=2)
    x, label = inputs((1, 8, 8), dtype=torch.float32)
    with pytest.raises(ValueError, match="x must have shape"):
        net(x[..., :6], label)
    with pytest.raises(ValueError, match=r"label \(B,\)"):
        net(x, label[0])
    with pytest.raises(ValueError, match="y must be None"):
        net(x, label, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"y must have shape \(3,\), .* got \(2,\)"):
        labelled(x, label, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="y must hold integer class labels, got torch.float32"):
        labelled(x, label, torch.zeros(3))
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"y must hold classes 0 to 2, got {wrong}"):
            labelled(x, label, torch.tensor([0, wrong, 1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "strict"),
    [
        ("unet", True),
        ("unet", False),
        ("conditional unet", False),
        ("mlp", True),
        ("mlp", False),
    ],
)
def test_export_leaves_the_batch_size_free(kind, strict):
    conditional = kind == "conditional unet"
    if kind == "mlp":
        net, shape = MLP((2,), width=8, depth=1), (2,)
    else:
        kinds = {"classes": 3, "vector": 2, "array": 1} if conditional else {}
        net = UNet((1, 8, 8), **SMALL | {"attention": (4,)}, **kinds)
        shape = (1, 8, 8)
    net = awake(net).eval()

    def arguments(batch):
        x, label = inputs(shape, batch, torch.float32)
        if not conditional:
            return x, label
        return x, label, {"class": torch.arange(batch) % 3, "vector": x[:, 0, 0, :2], "array": x}

    batch = torch.export.Dim("batch", min=2, max=64)
    free = ({0: batch}, {0: batch}, {kind: {0: batch} for kind in ("class", "vector", "array")})
    free = free if conditional else free[:2]
    exported = torch.export.export(net, arguments(3), dynamic_shapes=free, strict=strict).module()
    for n in (2, 5, 64):
        # the same kernels, perhaps in another order of sums
        torch.testing.assert_close(
            exported(*arguments(n)), net(*arguments(n)), rtol=1e-5, atol=1e-6
        )


def test_checkpointing_keeps_few_activations_and_gives_the_same_gradients(rng_untouched):
    """With dropout, which draws the same numbers again; saved inputs of other nodes are counted."""

    def gradients(checkpointing):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = UNet((1, 8, 8), 8, (1, 2), 2, dropout=0.2).train()
            torch.nn.init.normal_(net.head.weight)
            net.checkpointing = checkpointing
            own = {p.data_ptr() for p in net.parameters()}
            saved = {}

            def pack(tensor):
                if tensor.data_ptr() not in own:
                    saved[tensor.data_ptr(), tensor.shape] = tensor.nbytes
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = net(torch.randn(4, 1, 8, 8), torch.zeros(4)).square().sum()
            size = sum(saved.values())
            loss.backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()]), size

    (plain, all_of_them), (again, few) = gradients(False), gradients(True)
    assert few < 0.5 * all_of_them
    assert float(plain.norm()) > 1
    torch.testing.assert_close(again, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))
