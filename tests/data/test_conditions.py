"""Conditions in array files: which kind an array is, what is refused, and what is recorded."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from scoresde._condition import ConditionSpec
from scoresde.data import DataSpec, load_dataset

IMAGES = np.linspace(-1, 1, 5 * 2 * 4 * 5).reshape(5, 2, 4, 5)
POINTS = np.arange(10.0).reshape(5, 2)
V = np.arange(15.0).reshape(5, 3)


def load(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return load_dataset(folder / "a.npz")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_floats_are_a_vector(tmp_path, dtype):
    data = load(tmp_path, x=POINTS, y=V.astype(dtype))
    assert torch.equal(data.labels, torch.from_numpy(V).float())
    assert data.spec.condition == ConditionSpec(vector=3)
    data = load(tmp_path, arr_0=POINTS, arr_1=V[:, 0])  # one number for each datum
    assert data.labels.tolist() == [[0], [3], [6], [9], [12]]
    assert data.class_labels is None


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, ">i4", np.bool_, np.str_])
def test_whole_numbers_and_text_are_classes_and_their_matrices_a_vector(tmp_path, dtype):
    """Class numbers (N,) or (N, 1), as other libraries save them; one-hot rows are a vector."""
    y = np.array([0, 1, 1, 0, 1]).astype(dtype)
    for given in (y, y[:, None]):
        data = load(tmp_path, x=POINTS, y=given)
        assert data.labels.tolist() == [0, 1, 1, 0, 1]
        assert data.labels.dtype == torch.int64
        assert data.spec.condition == ConditionSpec(2)
    two = np.stack([y, y], 1)
    if two.dtype.kind == "U":
        with pytest.raises(ValueError, match=r"y must hold labels .*, got <U\d+ \(5, 2\)"):
            load(tmp_path, x=POINTS, y=two)
    else:
        data = load(tmp_path, x=POINTS, y=two)
        assert torch.equal(data.labels, torch.from_numpy(two.astype(np.float32)))
        assert data.spec.condition == ConditionSpec(vector=2)


@pytest.mark.parametrize(
    "y", [IMAGES[:, :1], IMAGES[:, 0], IMAGES[:, :1].transpose(0, 2, 3, 1), IMAGES[:, :1] > 0]
)
def test_what_has_the_size_of_the_images_is_an_array(tmp_path, y):
    """Also without channels, with channels last, and of another dtype."""
    data = load(tmp_path, x=IMAGES, y=y)
    want = IMAGES[:, :1] > 0 if y.dtype == bool else IMAGES[:, :1]
    assert torch.equal(data.labels, torch.from_numpy(want).float())
    assert data.spec.condition == ConditionSpec(array=(1, 4, 5))


@pytest.mark.parametrize("sizes", [(6,), (4, 3, 2)])
def test_series_and_volumes_have_arrays_of_their_size(tmp_path, sizes):
    x, y = np.random.default_rng(0).normal(size=(2, 5, 2, *sizes))
    for given in (y, np.moveaxis(y, 1, -1)):
        data = load(tmp_path, x=x, y_array=given)
        assert torch.equal(data.labels, torch.from_numpy(y).float())
        assert data.spec.condition == ConditionSpec(array=(2, *sizes))
    assert load(tmp_path, x=x, y_array=y[:, 0]).spec.array == 1


def test_tokens_are_a_condition_of_any_data(tmp_path):
    tokens = np.arange(40.0).reshape(5, 4, 2)
    data = load(tmp_path, x=POINTS, y_tokens=tokens, y_vector=V)
    assert torch.equal(data.labels["tokens"], torch.from_numpy(tokens).float())
    assert data.spec.condition == ConditionSpec(vector=3, tokens=(4, 2))
    assert DataSpec.from_dict(json.loads(json.dumps(data.spec.to_dict()))) == data.spec
    assert load(tmp_path, x=POINTS, y_tokens=tokens).spec.condition == ConditionSpec(tokens=(4, 2))


def test_several_conditions_are_a_dict(tmp_path):
    names = np.array(["cat", "dog", "cat", "dog", "dog"])
    data = load(tmp_path, x=IMAGES, y_class=names, y_vector=V.astype(int), y_array=IMAGES)
    assert data.labels["class"].tolist() == data.class_labels.tolist() == [0, 1, 0, 1, 1]
    assert data.labels["vector"].dtype == data.labels["array"].dtype == torch.float32
    assert data.spec.condition == ConditionSpec(2, 3, (2, 4, 5))
    assert data.spec.class_names == ("cat", "dog")
    own = data.given_for(ConditionSpec(vector=3))
    assert own.labels is data.labels["vector"]
    assert data.given_for(ConditionSpec()).labels is None
    assert load(tmp_path, x=POINTS, y_vector=V).labels.shape == (5, 3)
    with pytest.raises(
        ValueError, match="the network takes a vector of 2, the data have 2 classes"
    ):
        data.given_for(ConditionSpec(vector=2))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"y": V[:4]},
            r"the vector must have one entry for each of the 5 data, got shape \(4, 3\)",
        ),
        ({"y": np.float64(1)}, r"y must hold labels .*, got float64 \(\)"),
        ({"y": np.where(V > 3, np.nan, V)}, "the vector must be finite in float32, got 11 values"),
        ({"y": 1e39 * V}, "the vector must be finite in float32, got 14 values"),
        ({"y": np.zeros((5, 0))}, r"the vector must hold numbers of shape \(5, V\), got .* \(5, 0"),
        ({"y": IMAGES}, r"an array as condition needs series \(N, C, L\), .* got \(5, 2\)"),
        ({"y": V * 1j}, r"y must hold labels .*, got complex128 \(5, 3\)"),
        ({"y_class": V}, r"labels must be integers, bool or text of shape \(5,\), got float64"),
        ({"y": V, "y_class": np.zeros(5, int)}, "it must hold one array, or x and y, or arr_0 and"),
        ({"y": np.array([{}] * 5)}, "it holds objects, not numbers"),
        ({"y_tokens": V}, r"the tokens must hold numbers of shape \(5, T, F\), got .* \(5, 3\)"),
    ],
)
def test_bad_conditions_are_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, x=POINTS, **arrays)


def test_an_array_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(5, C, 4, 5\), the size of the data, got float"):
        load(tmp_path, x=IMAGES, y=IMAGES[:, :, :2])


def test_a_fingerprint_covers_the_conditions_and_not_their_absence(tmp_path):
    data = load(tmp_path, x=POINTS, y=V)
    other = V.copy()
    other[4, 2] += 1
    assert load(tmp_path, x=POINTS, y=other).fingerprint != data.fingerprint
    assert load(tmp_path, x=POINTS, y=V).fingerprint == data.fingerprint
    assert load(tmp_path, x=POINTS, y_vector=V).fingerprint == data.fingerprint


def test_a_spec_records_the_conditions_and_leaves_absent_ones_out():
    spec = DataSpec((1, 4, 5), -1, 1, classes=2, vector=3, array=2)
    assert DataSpec.from_dict(spec.to_dict()) == spec
    assert {"vector", "array", "class_names"} & replace(
        spec, vector=None, array=None
    ).to_dict().keys() == set()
    for change, message in [
        ({"vector": 0}, "vector must be at least 1, got 0"),
        ({"shape": (3,)}, r"array must be None for data of shape \(3,\), got 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(spec, **change)


def test_own_samples_keep_their_conditions_as_data(tmp_path):
    spec = DataSpec((2,), -4, 9, classes=3, class_names=("a", "b", "c"), vector=3)
    text = np.array(json.dumps(spec.to_dict()))
    own = {"x": POINTS, "ts": V[0], "nfe": 1, "seed": 0, "spec": text}
    data = load(tmp_path, **own, labels=np.array([2, 1, 0, 1, 2]), y_vector=V)
    assert data.spec.condition == spec.condition
    assert data.labels["class"].tolist() == [2, 1, 0, 1, 2]
    assert torch.equal(data.labels["vector"], torch.from_numpy(V).float())
    assert load(tmp_path, **own).labels is None
