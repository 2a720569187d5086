"""Images in another size."""

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import DataSource, load_dataset


def load(tmp_path, x, **options):
    np.savez(tmp_path / "x.npz", x=x)
    return load_dataset(DataSource(tmp_path / "x.npz", **options)).x


@pytest.mark.parametrize("size", [32, 12])
def test_bytes_are_resized_as_pillow_does_it(tmp_path, size):
    x = np.random.default_rng(0).integers(256, size=(3, 28, 28), dtype=np.uint8)
    resized = load(tmp_path, x, size=size)
    pictures = [
        Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in x
    ]
    want = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))[:, None]
    assert resized.dtype == torch.uint8
    # Pillow rounds after each of the two axes.
    assert int((resized.int() - want.int()).abs().max()) <= 1


@pytest.mark.parametrize(
    ("x", "levels"),
    [
        (np.array([[0.0, 1.0], [2.0, 1999.0]])[None], 2000),
        (np.array([[-0.1, 0.7], [0.3, 0.1]], np.float32)[None, None], None),
    ],
)
def test_levels_stay_levels_and_no_value_leaves_the_range(tmp_path, x, levels):
    whole, resized = load(tmp_path, x, levels=levels), load(tmp_path, x, levels=levels, size=9)
    assert resized.dtype == whole.dtype
    assert resized.shape == (1, 1, 9, 9)
    assert whole.min() <= resized.min() <= resized.max() <= whole.max()
    corners = resized[..., [0, 0, -1, -1], [0, -1, 0, -1]].flatten()
    assert torch.equal(corners, whole.flatten())  # nothing is extrapolated


def test_both_splits_of_a_named_set_are_resized():
    for split in ("train", "test"):
        data = load_dataset(DataSource("digits", size=16), split)
        assert data.x.shape[1:] == data.spec.shape == (1, 16, 16)
        assert data.spec.levels == 17
    assert torch.equal(load_dataset(DataSource("digits", size=8)).x, load_dataset("digits").x)


@pytest.mark.parametrize(
    ("arrays", "size", "message"),
    [
        ({"x": np.zeros((2, 4, 5), np.uint8)}, 8, r"square images .*, got 8 for .*\(2, 1, 4, 5\)"),
        ({"x": np.zeros((2, 4))}, 8, r"size must be absent unless .*\(2, 4\)"),
        ({"x": np.zeros((2, 4, 4), np.uint8)}, 0, "size must be at least 1, got 0"),
        (
            {"x": np.zeros((2, 4, 4), np.uint8), "y_array": np.zeros((2, 1, 4, 4))},
            *(8, "size must be absent for images with an array as condition, got 8"),
        ),
    ],
)
def test_what_cannot_be_resized(tmp_path, arrays, size, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_dataset(DataSource(tmp_path / "x.npz", size=size))
