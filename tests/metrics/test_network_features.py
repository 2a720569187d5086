"""Networks of published features: sizes, resize and refusals."""

import numpy as np
import pytest
import torch
from formula_weights import image, weights

from scoresde.comparison import feature_choice
from scoresde.comparison.feature_choice import check_features, choose_features, choose_statistics
from scoresde.comparison.quality import Quality
from scoresde.data import Dataset, DataSpec
from scoresde.metrics import FeatureSpace, NetworkFeatures, frechet_distance
from scoresde.metrics.dinov2 import DINOv2
from scoresde.metrics.efficientnet import EfficientNetLite0
from scoresde.metrics.resize import resize_tf1


def test_efficientnet_has_the_published_size():
    net = EfficientNetLite0()
    classifier = 1280 * 1000 + 1000
    assert round((sum(p.numel() for p in net.parameters()) + classifier) / 1e6, 2) == 4.65


def test_the_resize_of_tensorflow_reads_from_the_first_pixel():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    expected = torch.tensor([0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
    assert torch.equal(resize_tf1(ramp, 8)[0, 0], expected.expand(8, 8))


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("fid", (3, 32, 32), "features must be auto, .* got 'fid'"),
        ("inception", (3, 32, 32), "features must be auto"),
        ("inception:a:statistics=b:n=few", (3, 32, 32), "features must be auto"),
        ("auto:statistics=b", (3, 32, 32), "features must be auto"),
        ("inception:x.pth", (1, 32, 32), r"need RGB images .* got data of shape \(1, 32, 32\)"),
        ("efficientnet_lite0", (2,), "need RGB images"),
    ],
)
def test_wrong_names_and_kinds_of_data_are_refused(name, shape, match):
    with pytest.raises(ValueError, match=match):
        choose_features(name, DataSpec(shape, -1.0, 1.0, name="mine"), torch.zeros(4, *shape))


class Small(FeatureSpace):
    """Means of the channels, in place of a network."""

    name, fingerprint, dimension = "small", "0123456789", 3

    def __call__(self, x):
        return x.mean((2, 3)).double()


def test_published_statistics_replace_the_reference_of_the_frechet_distance(tmp_path, monkeypatch):
    weights, path = tmp_path / "weights.pth", tmp_path / "published.npz"
    weights.touch()
    name = f"inception:{weights}:statistics={path}"
    with pytest.raises(FileNotFoundError, match="there is no file .*published"):
        check_features(name)
    mu, sigma = np.array([0.1, 0.2, 0.3]), np.diag([1.0, 2.0, 3.0])
    np.savez(path, mu=mu, sigma=sigma)
    with pytest.raises(ValueError, match="does not say its n: give n; add :n=NUMBER to features"):
        choose_statistics(name, Small())
    monkeypatch.setattr(feature_choice, "NetworkFeatures", lambda *given: Small())
    feature_choice.NetworkFeatures.NAMES = ("inception",)
    stats = choose_statistics(f"{name}:n=50000", Small())
    assert stats.n == 50000
    images = torch.rand(3, 40, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    spec = DataSpec((3, 16, 16), -1.0, 1.0, name="mine")
    both = [Dataset("mine", x, None, spec) for x in images[:2]]
    quality = Quality.build(*both, 40, ["mmd2", "frechet"], f"{name}:n=50000")
    found = quality.measure(images[2])["frechet"]
    assert found.value == frechet_distance(Small()(images[2]), stats, space="small@01234567").value
    assert quality.about["reference"].endswith("of the Fréchet distance, a file for 50000 images")
    plain = Quality.build(*both, 40, ["mmd2", "frechet"], f"inception:{weights}")
    assert plain.fingerprint != quality.fingerprint
    np.savez(path, mu=mu[:2], sigma=sigma[:2, :2])
    with pytest.raises(ValueError, match="must hold statistics of 3 features for small, got 2"):
        choose_statistics(f"{name}:n=50000", Small())


def transformer_weights(side, d=128, depth=2):
    """Weights under the names of DINOv2 that a formula gives."""
    shapes = {"cls_token": (1, 1, d), "pos_embed": (1, 1 + side**2, d)}
    shapes |= {"patch_embed.proj.weight": (d, 3, 14, 14), "patch_embed.proj.bias": (d,)}
    shapes |= {"norm.weight": (d,), "norm.bias": (d,)}
    for i in range(depth):
        linear = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d)}
        linear |= {"mlp.fc2": (d, 4 * d)}
        parts = {
            f"{name}.{part}": (d,) for name in ("norm1", "norm2") for part in ("weight", "bias")
        }
        parts |= {"ls1.gamma": (d,), "ls2.gamma": (d,)}
        parts |= {f"{name}.weight": shape for name, shape in linear.items()}
        parts |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in parts.items()}
    made = weights(shapes, 0)
    return made | {"pos_embed": 20 * made["pos_embed"]}


PUBLISHED = [1.513837, -0.301821, 0.798818, -1.683319, -0.576358, 1.061203]


@torch.no_grad()
def test_the_transformer_equals_the_published_code():
    """Six numbers of the class token by the published code, with interpolated positions.

    They are net(x)[0, :6] of net = DinoVisionTransformer(img_size=70, patch_size=14, embed_dim=128,
    depth=2, num_heads=2, init_values=1.0, block_chunks=0, interpolate_offset=0.1) of
    facebookresearch/dinov2, commit b8931f7, on torch 2.14.1, with these weights and a zero
    mask_token. Without the offset of the positions they differ by 0.02.
    """
    found = DINOv2(transformer_weights(5)).eval()(image((3, 28, 42), 1, 2.0))
    assert found[0, :6].tolist() == pytest.approx(PUBLISHED, abs=1e-5)


def test_a_file_of_weights_is_read_and_one_of_another_network_refused(tmp_path):
    path, made = tmp_path / "vit.pth", transformer_weights(16)
    torch.save(made, path)
    space = choose_features(
        f"dinov2:{path}", DataSpec((3, 16, 16), -1.0, 1.0, name="mine"), torch.zeros(4, 3, 16, 16)
    )
    assert space(torch.zeros(2, 3, 16, 16)).shape == (2, space.dimension) == (2, 128)
    torch.save(made | {"register_tokens": torch.zeros(1, 4, 128)}, path)
    with pytest.raises(ValueError, match="weights of dinov2: a model with registers"):
        NetworkFeatures("dinov2", path)
    torch.save({"norm.weight": torch.ones(3)}, path)
    with pytest.raises(ValueError, match="does not hold the weights of dinov2$"):
        NetworkFeatures("dinov2", path)
