"""The condition of samples: as asked for, as in the data, and in the arrays of a result."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scoresde._condition import ConditionSpec
from scoresde.data import DataSpec
from scoresde.tasks.conditions import condition_arrays, conditions_like, requested_condition

NAMES = ("cat", "dog", "7")


def given(unconditional=False, names=NAMES, **kinds):
    condition = ConditionSpec(**kinds)
    spec = DataSpec((1, 2, 2), -1, 1, classes=condition.classes, class_names=names)
    return SimpleNamespace(
        name="mine",
        condition=condition,
        unconditional=unconditional,
        classes=condition.classes,
        spec=spec,
    )


def test_a_class_is_asked_for_by_name_or_number_and_a_name_wins():
    model = given(classes=3)
    assert requested_condition(model, 4).tolist() == [0, 1, 2, 0]
    for label, number in (("dog", 1), ("1", 1), (1, 1), ("7", 2)):
        assert requested_condition(model, 2, label).tolist() == [number] * 2
    for label in ("dgo", "3", "-1", ""):
        with pytest.raises(ValueError, match="--label: .*is no class of mine; .*cat, dog, 7, or"):
            requested_condition(model, 2, label)
    with pytest.raises(ValueError, match="did you mean dog"):
        requested_condition(model, 2, "dgo")
    with pytest.raises(ValueError, match="--label: dog is no class of mine: it has no classes"):
        requested_condition(given(names=None, vector=2), 2, "dog")


def test_numbers_come_from_a_file_of_one_row_or_of_n(tmp_path):
    model, rows = given(names=None, vector=2), np.arange(6.0).reshape(3, 2)
    for name, y in (("a.npy", rows), ("b.npy", rows[:1]), ("c.npy", rows[0])):
        np.save(tmp_path / name, y)
        got = requested_condition(model, 3, file=tmp_path / name)
        assert got.tolist() == (rows if name == "a.npy" else rows[[0, 0, 0]]).tolist()
    with pytest.raises(
        ValueError, match="--condition: .*a.npy: y must have leading dimension 2, or"
    ):
        requested_condition(model, 2, file=tmp_path / "a.npy")
    with pytest.raises(ValueError, match="--condition: must be given, mine takes a vector of 2"):
        requested_condition(model, 2)
    assert requested_condition(given(unconditional=True, names=None, vector=2), 2) is None
    assert requested_condition(given(names=None), 2) is None


def test_several_kinds_come_from_one_file_or_from_a_label_and_a_file(tmp_path):
    model = given(classes=3, vector=2, array=(1, 2, 2))
    parts = {"y_vector": np.ones((1, 2)), "array": np.zeros((4, 1, 2, 2))}
    np.savez(tmp_path / "two.npz", **parts)
    np.savez(tmp_path / "all.npz", y_class=np.array(["dog"]), **parts)
    one = requested_condition(model, 4, "dog", tmp_path / "two.npz")
    two = requested_condition(model, 4, None, tmp_path / "all.npz")
    for kind in ("class", "vector", "array"):
        assert torch.equal(one[kind], two[kind])
    assert one["class"].tolist() == [1] * 4
    turns = requested_condition(model, 4, None, tmp_path / "two.npz")  # no class is named
    assert turns["class"].tolist() == [0, 1, 2, 0]
    assert torch.equal(turns["array"], one["array"])
    with pytest.raises(
        ValueError, match="all.npz must hold one array for each of vector, array, go"
    ):
        requested_condition(model, 4, "dog", tmp_path / "all.npz")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"text"), "y.npy is not a .npy or .npz file of plain num"),
        (lambda path: None, "y.npy does not exist"),
        (lambda path: np.save(path, np.full((2, 2), np.nan)), "the vector must be finite in floa"),
        (lambda path: np.save(path, np.ones(2) * 1j), "y.npy: the vector must hold real numbers, "),
        (lambda path: np.save(path, ["a", "b"]), "y.npy: the vector must hold real numbers, got "),
        (lambda path: np.save(path, np.ones((2, 3))), r"must have shape \(2, 2\), .* got \(2, 3\)"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, make, message):
    make(tmp_path / "y.npy")
    with pytest.raises(ValueError, match=f"--condition: .*{message}"):
        requested_condition(given(names=None, vector=2), 2, file=tmp_path / "y.npy")
    with pytest.raises(ValueError, match="--condition: .*, but mine takes no condition"):
        requested_condition(given(names=None), 2, file=tmp_path / "y.npy")


def test_samples_beside_data_have_the_conditions_of_evenly_spaced_data():
    spec = DataSpec((2,), -1, 1, classes=4, vector=1)
    y = {"class": torch.arange(10) % 4, "vector": torch.arange(10.0)[:, None]}
    got = conditions_like(y, spec, 5)
    assert got["vector"][:, 0].tolist() == [0, 2, 4, 6, 8]
    assert got["class"].tolist() == [0, 2, 0, 2, 0]
    assert conditions_like(y, spec, 15)["vector"][:4, 0].tolist() == [0, 0, 1, 2]
    classes = torch.tensor([0, 0, 0, 1])
    assert conditions_like(classes, spec, 4, "shares").bincount().tolist() == [3, 1]
    assert conditions_like(classes, spec, 4).tolist() == [0, 1, 2, 3]


def test_arrays_of_a_result_have_the_names_of_data():
    unknown = ConditionSpec()
    assert condition_arrays(None, unknown) == {}
    assert list(condition_arrays(torch.arange(2), unknown)) == ["labels"]
    assert list(condition_arrays(torch.zeros(2, 3), unknown)) == ["y_vector"]
    assert list(condition_arrays(torch.zeros(2, 1, 2, 2), unknown)) == ["y_array"]
    texts = ConditionSpec(tokens=(3, 2))
    assert list(condition_arrays(torch.zeros(2, 3, 2), texts)) == ["y_tokens"]
    both = condition_arrays({"class": torch.arange(2), "vector": torch.zeros(2, 3)}, unknown)
    assert list(both) == ["labels", "y_vector"]
    assert list(condition_arrays({"text": (torch.zeros(2),)}, unknown)) == ["y['text'][0]"]
