from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from scoresde.data import load_dataset
from scoresde.metrics import (
    CNNFeatures,
    GaussianStats,
    PCAFeatures,
    SmallCNN,
    frechet_distance,
    load_features,
    mmd2,
)

SHIPPED = {"digits": 8, "fashion-mnist": 28}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def untrained(seed: int = 0) -> CNNFeatures:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SmallCNN(8, features=6)
    return CNNFeatures("test_cnn", net, torch.zeros(6), torch.ones(6), {"seed": str(seed)})


@pytest.fixture(scope="module")
def digits() -> CNNFeatures:
    return load_features("digits")


def test_pca_diagonalizes_the_covariance_in_decreasing_order():
    x = normal(200, 5) * torch.tensor([0.1, 3.0, 1.0, 2.0, 0.5], dtype=torch.float64)
    features = PCAFeatures.fit(x, 4)(x)
    cov = torch.cov(features.T)
    expected = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)[:4]
    torch.testing.assert_close(cov, torch.diag(expected), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(features.mean(0), torch.zeros(4).double(), atol=1e-12, rtol=0)


def test_pca_keeps_distances_when_it_keeps_all_dimensions():
    x, y = normal(30, 4), 2 * normal(40, 4, seed=1)
    space = PCAFeatures.fit(y, 4)
    expected = frechet_distance(x, y).value
    assert frechet_distance(space(x), space(y)).value == pytest.approx(expected, rel=1e-10)


def test_pca_signs_are_fixed():
    x = normal(50, 6)
    space = PCAFeatures.fit(x, 3)
    again = PCAFeatures.fit(x.flip(0), 3)  # the same sample in another order
    torch.testing.assert_close(space.components, again.components, atol=1e-10, rtol=0)
    assert (space.components.abs().max(1).values == space.components.max(1).values).all()


def test_pca_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"d must be at most 3 .* got 4"):
        PCAFeatures.fit(normal(4, 9), 4)
    with pytest.raises(ValueError, match="x must have 5 dimensions for pca2, got 4"):
        PCAFeatures.fit(normal(9, 5), 2)(normal(3, 4))
    with pytest.raises(ValueError, match="mean and components must have shapes"):
        PCAFeatures(torch.zeros(3), torch.eye(4))


def test_fingerprints_tell_spaces_apart():
    x = normal(50, 6)
    labels = {
        PCAFeatures.fit(x, 3).label,
        PCAFeatures.fit(2 * x + 1, 3).label,
        untrained(0).label,
        untrained(1).label,
    }
    assert len(labels) == 4
    assert untrained(0).label == untrained(0).label


def test_features_do_not_depend_on_the_batch(digits):
    x = load_dataset("digits", "test")
    images = x.spec.encode(x.x)
    together = digits(images)
    alone = torch.cat([digits(images[[i]]) for i in range(5)])
    torch.testing.assert_close(together[:5], alone, atol=1e-4, rtol=0)  # float32 network
    assert together.dtype == torch.float64
    assert not together.requires_grad


def test_images_must_have_the_shape_and_scale_of_the_data(digits):
    with pytest.raises(
        ValueError, match=r"x must have shape \(n, 1, 8, 8\) .* got \(2, 1, 28, 28\)"
    ):
        digits(torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match=r"scale \[-1, 1\], got values from 0 to 16"):
        digits(torch.tensor([0.0, 16.0]).repeat(32).reshape(1, 1, 8, 8))
    with pytest.raises(ValueError, match="x must be finite"):
        digits(torch.full((2, 1, 8, 8), torch.nan))


def test_saved_features_load_again(tmp_path):
    space, path = untrained(), tmp_path / "f.safetensors"
    space.save(path)
    again = CNNFeatures.load(path)
    x = normal(4, 1, 8, 8).clamp(-1, 1)
    assert torch.equal(space(x), again(x))
    assert torch.equal(space.net(x.float()), again.net(x.float()))
    assert again.label == space.label
    assert again.metadata["seed"] == "0"


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    untrained().save(path)
    good = path.read_bytes()
    for position in (len(good) // 2, len(good) - 1):  # both lie in tensor data
        data = bytearray(good)
        data[position] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match="weights do not match their hash"):
            CNNFeatures.load(path)
    for broken in (good[:-1], b"", b"not weights"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="does not hold feature weights"):
            CNNFeatures.load(path)


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match="name must be one of digits, fashion-mnist, got mnist"):
        load_features("mnist")
    with pytest.raises(ValueError, match=r"size must be one of \[8, 28\], got 32"):
        SmallCNN(32)
    with pytest.raises(ValueError, match="std must be positive"):
        CNNFeatures("x", SmallCNN(8, 4), torch.zeros(4), torch.zeros(4))


@pytest.mark.parametrize(("name", "size"), SHIPPED.items())
def test_shipped_features(name, size):
    space = load_features(name)
    assert space.net.size == size
    assert space.net.hidden.out_features <= 64
    assert {"seed", "test_accuracy", "command"} <= space.metadata.keys()
    path = (
        Path(__file__).parents[2] / f"scoresde/assets/features_{name.replace('-', '_')}.safetensors"
    )
    assert path.stat().st_size <= 300_000
    with safe_open(str(path), "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}


def test_shipped_digits_classify_as_they_say(digits):
    test = load_dataset("digits", "test")
    accuracy = (digits.net(test.spec.encode(test.x)).argmax(1) == test.labels).double().mean()
    assert float(accuracy) == pytest.approx(float(digits.metadata["test_accuracy"]), abs=1e-4)
    assert accuracy > 0.96


def test_shipped_digits_are_standardized_on_the_training_images(digits):
    train = load_dataset("digits", "train")
    features = digits(train.spec.encode(train.x))
    assert features.mean(0).abs().max() < 1e-4  # float32 sums over 1,500 images
    torch.testing.assert_close(features.std(0), torch.ones(64).double(), atol=1e-4, rtol=0)


def test_worse_images_are_farther_away(digits):
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    reference = digits(train.spec.encode(train.x))
    target = GaussianStats.of(reference, digits.label)
    clean = test.spec.encode(test.x)
    noise = normal(*clean.shape).float()
    kernels, distances = [], []
    for std in (0.0, 0.4, 0.8):
        sample = digits(test.spec.encode(test.spec.to_levels(clean + std * noise)))
        kernels.append(mmd2(sample, reference))
        distances.append(frechet_distance(sample, target, space=digits.label))
    for series in (kernels, distances):
        for near, far in zip(series, series[1:], strict=False):
            assert far.value - near.value > 3 * max(far.std_error, near.std_error)


def test_the_hash_covers_every_tensor():
    space = untrained()
    before = space.fingerprint
    space.std[3] *= 2
    assert space.fingerprint != before
