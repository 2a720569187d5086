"""Feature networks and the Fréchet distance beside torchmetrics, torch-fidelity and Pillow.

torchvision is imported where it is used: every process that collects the tests would wait for it.
"""

import numpy as np
import pytest
import torch
from formula_weights import weights
from PIL import Image

from scoresde.metrics import NetworkFeatures, frechet_distance
from scoresde.metrics.resize import resize_pillow, resize_tf1


def noise(n, height, width, seed=0):
    """Images of independent pixels, uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


def at_scale(pixels):
    """The same images on [-1, 1], in the middle of each level."""
    return (pixels + 0.5) / 128 - 1


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A file of weights of the FID Inception network that a formula gives."""
    from scoresde.metrics.inception import FIDInception

    shapes = {name: value.shape for name, value in FIDInception().net.state_dict().items()}
    made = weights(shapes, 0)
    for name, value in made.items():
        if name.endswith("running_var"):
            made[name] = 0.5 + value.abs()
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(made, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (40, 311)])
def test_inception_features_equal_those_of_torchmetrics(inception_file, size):
    """With the resize of FID, which torchmetrics takes if antialias is off."""
    fid = pytest.importorskip("torchmetrics.image.fid")
    pytest.importorskip("torch_fidelity")
    path = str(inception_file)
    theirs = fid.NoTrainInceptionV3("ours", ["2048"], path, antialias=False)
    pixels = noise(2, *size)
    pixels[1] //= 4
    expected = theirs(pixels).double()
    found = NetworkFeatures("inception", path)(at_scale(pixels))
    assert (found - expected).norm() < 1e-5 * (expected[0] - expected[1]).norm()


@pytest.mark.slow
def test_the_resize_of_tensorflow_equals_that_of_torch_fidelity():
    module = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    theirs = module.interpolate_bilinear_2d_like_tensorflow1x
    for height, width in [(32, 32), (40, 311), (500, 299)]:
        pixels = noise(2, height, width).float()
        expected = theirs(pixels, size=(299, 299), align_corners=False)
        torch.testing.assert_close(resize_tf1(pixels, 299), expected, rtol=0, atol=1e-4)


def test_the_resizes_of_pillow_take_whole_images_or_single_channels():
    """clean-fid gives Pillow channels of floats, FD-DINOv2 whole images of 8 bits."""
    pixels = noise(1, 40, 31)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    whole = image.resize((224, 224), Image.Resampling.BICUBIC)  # as torchvision's Resize
    assert np.array_equal(resize_pillow(pixels, 224)[0].permute(1, 2, 0), whole)
    rounded_at_the_end = resize_pillow(pixels.float(), 224).round().clamp(0, 255)
    assert (resize_pillow(pixels, 224) - rounded_at_the_end).abs().max() > 10
    exact = torch.nn.functional.interpolate(
        pixels.double(), size=(99, 99), mode="bicubic", antialias=True
    )
    found = resize_pillow(pixels.float(), 99)
    torch.testing.assert_close(found, exact.float(), rtol=0, atol=1e-3)
    assert found.min() < 0
    assert found.max() > 255


@pytest.mark.slow
def test_the_frechet_distance_equals_that_of_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(48, 48, generator=generator, dtype=torch.float64)
    real, other = torch.randn(2, 300, 48, generator=generator, dtype=torch.float64) @ mix
    other = 0.7 * other[:200] + 0.5
    features = torch.nn.Identity()
    features.num_features = 48
    theirs = fid.FrechetInceptionDistance(features).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(other, real=False)
    assert frechet_distance(other, real).value == pytest.approx(float(theirs.compute()), rel=1e-9)
