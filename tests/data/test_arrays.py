import math

import numpy as np
import pytest
import torch

from scoresde.data import DataSpec, load_dataset


def save(path, **arrays):
    if path.suffix == ".npy":
        np.save(path, arrays["x"])
    else:
        np.savez(path, **arrays)
    return path


def test_bytes_become_8_bit_images(tmp_path):
    x = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    data = load_dataset(save(tmp_path / "a.npy", x=x))
    assert data.spec == DataSpec((1, 3, 4), -1, 1, levels=256, name="a.npy")
    assert np.array_equal(data.x[:, 0].numpy(), x)
    assert load_dataset(tmp_path / "a.npy", levels=24, low=0, high=2).spec.levels == 24


def test_floats_are_continuous_and_keep_their_range(tmp_path):
    x = np.array([[0.1, -2.0], [0.5, 3.0]])
    data = load_dataset(str(save(tmp_path / "a.npz", points=x)))
    assert data.spec == DataSpec((2,), -2, 3, name="a.npz")
    assert data.x.dtype == torch.float32
    assert data.labels is None
    # 0.1 is a limit that float32 rounds up.
    save(tmp_path / "b.npy", x=np.array([-0.1, 0.0, 0.1]))
    assert load_dataset(tmp_path / "b.npy", low=-0.1, high=0.1).x.shape == (3, 1)


def test_labels_and_integer_levels(tmp_path):
    x = np.array([[0, 999], [5, 6]])
    path = save(tmp_path / "a.npz", x=x, y=np.array([2, 0], dtype=np.uint8))
    data = load_dataset(path, levels=1000)
    assert (data.x.dtype, data.x.tolist()) == (torch.int64, x.tolist())
    assert (data.labels.tolist(), data.spec.classes) == ([2, 0], 3)
    bits = load_dataset(save(tmp_path / "b.npy", x=np.array([[True, False]])))
    assert (bits.spec.levels, bits.x.tolist()) == (2, [[1, 0]])
    whole = load_dataset(save(tmp_path / "c.npy", x=np.array([[0.0, 16.0]])), levels=17)
    assert (whole.x.dtype, whole.x.tolist()) == (torch.uint8, [[0, 16]])


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": np.array([[1, "a"]], dtype=object)}, {}, "not a .npy or .npz file of plain numbers"),
        ({"x": np.array([["a"]])}, {}, "data must be real numbers, got dtype <U1"),
        ({"x": np.array([[1j]])}, {}, "data must be real numbers, got dtype complex128"),
        ({"x": np.array([[1, math.nan]])}, {}, "data must be finite in float32, got 1"),
        ({"x": np.array([[1, 1e300]])}, {}, "data must be finite"),
        ({"x": np.zeros((0, 2))}, {}, r"data must have shape \(N, \*D\) with N at least 1"),
        ({"x": np.array(1.0)}, {}, r"data must have shape"),
        ({"x": np.zeros((2, 2))}, {}, "all values are 0.0; give low and high"),
        ({"x": np.array([[1.0, 2.0]])}, {"low": 0, "high": 1}, r"data must lie in \[0, 1\], got 1"),
        ({"x": np.array([[1.0, 2.0]])}, {"low": 0}, "low and high must be given together"),
        ({"x": np.array([[1.0, 2.0]])}, {"low": 3, "high": 0}, r"must lie in|must be below"),
        ({"x": np.array([[1, 2]])}, {}, "levels must be given for integer data of dtype int64"),
        ({"x": np.array([[1, 2]])}, {"levels": 2}, "levels must lie in 0..1, got 1..2"),
        ({"x": np.array([[-1, 2]])}, {"levels": 4}, "levels must lie in 0..3, got -1..2"),
        ({"x": np.array([[0.5]])}, {"levels": 4}, "data must be whole levels 0..3"),
        ({"x": np.array([[math.nan]])}, {"levels": 4}, "data must be whole levels 0..3"),
        ({"x": np.array([[1]])}, {"levels": 0}, "levels must be at least 2, got 0"),
        ({"a": np.zeros(2), "b": np.zeros(2)}, {}, "must hold one array, or x and y, got a, b"),
        ({"x": np.eye(2), "y": np.zeros(3, int)}, {}, r"y must be integers .* of shape \(2,\)"),
        ({"x": np.eye(2), "y": np.zeros(2)}, {}, r"y must be integers .* got float64"),
        ({"x": np.eye(2), "y": np.array([0, -1])}, {}, r"y must be integers at least 0"),
        ({"x": np.eye(2)}, {"split": "test"}, "has no test split"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(save(tmp_path / "a.npz", **arrays), **options)


def test_files_that_are_no_arrays_are_refused(tmp_path):
    for name, content in (("a.npy", b"text"), ("b.npz", b"PK\x03\x04cut"), ("c.npy", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a .npy or .npz file"):
            load_dataset(tmp_path / name)
    whole = save(tmp_path / "d.npz", x=np.zeros((100, 8))).read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="d.npz is not a .npy or .npz file"):
        load_dataset(tmp_path / "d.npz")
    (tmp_path / "e.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"must be a folder of images, a .npy or a .npz file"):
        load_dataset(tmp_path / "e.csv")
