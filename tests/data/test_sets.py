"""Sets of points as data: padding, files, sizes of new sets, and what is refused."""

import numpy as np
import pytest
import torch

from scoresde.data import Dataset, DataSpec, draw_sizes, load_dataset


def some_sets(n=30, least=3, most=7, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(k, 2)) + 5 for k in rng.integers(least, most + 1, n)]


def padded(sets):
    x = np.zeros((len(sets), max(map(len, sets)), sets[0].shape[1]), np.float32)
    for row, points in zip(x, sets, strict=True):
        row[: len(points)] = points
    return x, np.array([len(points) for points in sets])


def test_of_sets_and_file(tmp_path):
    sets = some_sets()
    data = Dataset.of_sets(sets)
    x, sizes = padded(sets)
    assert np.array_equal(data.x.numpy(), x)
    assert data.labels.tolist() == sizes.tolist()
    assert (data.spec.kind, data.spec.shape, data.spec.sizes) == ("set", (7, 2), (3, 7))
    assert data.spec.size_counts == tuple(np.bincount(sizes, minlength=8)[3:])
    assert data.spec.low == pytest.approx(min(points.min() for points in sets))  # no padding
    assert DataSpec.from_dict(data.spec.to_dict()) == data.spec
    np.savez(tmp_path / "sets.npz", x=x, sizes=sizes)
    found = load_dataset(tmp_path / "sets.npz")
    assert found.fingerprint == data.fingerprint


def test_other_conditions(tmp_path):
    sets = some_sets()
    x, sizes = padded(sets)
    np.savez(tmp_path / "sets.npz", x=x, sizes=sizes, y=np.arange(30) % 3)
    found = load_dataset(tmp_path / "sets.npz")
    assert found.labels["size"].tolist() == sizes.tolist()
    assert found.class_labels.tolist() == [i % 3 for i in range(30)]
    assert str(found.spec.condition) == "3 classes and the sizes 3 to 7 of sets"
    made = Dataset.of_sets(sets, found.spec, labels=torch.arange(30) % 3)
    assert made.fingerprint == found.fingerprint


def test_sizes_of_new_sets():
    spec = DataSpec((4, 2), -1, 1, sizes=(2, 4), size_counts=(10, 0, 30))
    found = draw_sizes(spec, 4000, seed=1)
    counts = torch.bincount(found, minlength=5)
    assert counts[3] == 0
    assert counts[2] / 4000 == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    assert found[:9].tolist() == draw_sizes(spec, 9, seed=1).tolist()


def test_sets_of_a_smaller_file():
    data = Dataset.of_sets(some_sets(least=4, most=5))
    wide = data.widened((3, 8))
    assert (wide.spec.shape, wide.spec.sizes) == ((8, 2), (3, 8))
    assert torch.equal(wide.x[:, :5], data.x)
    assert not wide.x[:, 5:].any()
    assert wide.spec.size_counts == (0, *data.spec.size_counts, 0, 0, 0)
    assert data.widened((5, 8)) is data


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        ([], "at least one set, got none"),
        ([np.ones((2, 2)), np.ones((2, 3))], r"sets\[1\] must have 2 features"),
        ([np.ones((0, 2))], r"sets\[0\] must have shape \(n, F\) with n ≥ 1"),
        ([np.ones(3)], r"sets\[0\] must have shape \(n, F\)"),
        ([np.array([[np.nan, 1.0]])], r"sets\[0\] must be finite"),
        ([np.array([["a", "b"]])], "real numbers"),
        ([np.ones((5, 2)) * 0.5], "sets[0] must have at most 4 points, got 5".replace("[", r"\[")),
        ([np.ones((1, 2)) * 0.5], "y must hold sizes of sets 2 to 4, got 1"),
    ],
)
def test_of_sets_refuses(sets, match):
    spec = DataSpec((4, 2), -1, 1, sizes=(2, 4))
    with pytest.raises((TypeError, ValueError), match=match):
        Dataset.of_sets(sets, spec)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"sizes": np.array([2, 5])},
            "sizes must be 1 to 4, the number of rows of a set, got 2 to 5",
        ),
        ({"sizes": np.array([0, 2])}, "got 0 to 2"),
        ({"sizes": np.array([2.0, 2.0])}, "sizes must be integers"),
        ({"sizes": np.array([2])}, "one entry for each of the 2 data"),
        ({"x": np.ones((2, 4, 2))}, "x must be 0 after the points.*first in set 0 of 2 points"),
        ({"x": np.ones((2, 4))}, "sizes belong to sets"),
    ],
)
def test_files_refused(tmp_path, change, match):
    x = np.zeros((2, 4, 2))
    x[:, :2] = [[0.5, 1.0], [2.0, 3.0]]
    np.savez(tmp_path / "sets.npz", **{"x": x, "sizes": np.array([2, 2])} | change)
    with pytest.raises(ValueError, match=match):
        load_dataset(tmp_path / "sets.npz")


def test_volumes_without_channels_warn(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(3, 8, 8, 8)))
    with pytest.warns(
        UserWarning, match=r"for volumes make it \(N, C, D, H, W\), \(3, 1, 8, 8, 8\)"
    ):
        load_dataset(tmp_path / "x.npy")
