"""Conditions as trees of tensors: binding, rows, and what a network was built for."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from scoresde._condition import ConditionSpec, bound_rows, leaves
from scoresde.batches import batches
from scoresde.score import FunctionScore, NetworkScore, Preconditioning
from scoresde.sde import VP

ALL = ConditionSpec(classes=3, vector=2, array=(1, 4, 4), tokens=(2, 3))


def tree():
    """A nested condition of four samples; every number names its sample."""
    rows = torch.arange(4)
    text = (rows.double()[:, None].expand(4, 3), rows > 1)
    return {"class": rows, "text": text, "map": rows.float().reshape(4, 1, 1, 1).expand(4, 1, 2, 2)}


def whole(n=4):
    """A condition of every kind."""
    return {
        "class": torch.arange(n) % 3,
        "vector": torch.arange(2.0 * n).reshape(n, 2),
        "array": torch.ones(n, 1, 4, 4),
        "tokens": torch.ones(n, 2, 3),
    }


class Silent(nn.Module):
    """A network that does not say what it takes; it spoils its arguments and keeps them."""

    def forward(self, x, label, y=None):
        self.seen = None if y is None else [leaf.clone() for _, leaf in leaves(y)]
        for _, leaf in leaves(y) if y is not None else ():
            leaf.zero_()
        return x


def test_a_tree_is_cut_into_batches_leaf_by_leaf():
    model = NetworkScore(Silent(), VP(), Preconditioning())
    for size, cuts in [(3, [[0, 1, 2], [3]]), (1, [[0], [1], [2], [3]]), (None, [[0, 1, 2, 3]])]:
        parts = batches(model, 4, "cpu", seed=0, y=tree(), batch=size)
        for part, rows in zip(parts, cuts, strict=True):
            got = part.model.y
            assert got["class"].tolist() == rows
            assert got["text"][0][:, 2].tolist() == rows
            assert got["text"][1].tolist() == [row > 1 for row in rows]
            assert got["map"][:, 0, 1, 1].tolist() == rows
    bound = model.given(tree()).take(torch.tensor([3, 1]))
    assert [leaf.flatten()[0].item() for _, leaf in leaves(bound.y)] == [3, 3.0, True, 3.0]


def test_a_network_gets_its_own_copy_in_its_own_dtype():
    y = tree()
    model = NetworkScore(Silent(), VP(), Preconditioning()).given(y)
    model.eps(torch.zeros(4, 2, dtype=torch.float64), 0.5)
    assert [leaf.dtype for leaf in model.net.seen] == [
        torch.int64,
        torch.float64,
        torch.bool,
        torch.float64,
    ]
    assert y["class"].tolist() == [0, 1, 2, 3]  # although the network spoiled what it was given


@pytest.mark.parametrize("y", [2.5, [2.5], np.float32([2.5]), torch.tensor(2.5)])
def test_one_condition_is_repeated_for_all_samples(y):
    model = NetworkScore(Silent(), VP(), Preconditioning())
    for bound in (model.labelled(y, 3, "cpu"), model.given(torch.as_tensor(y))):
        bound.eps(torch.zeros(3, 2), 0.5)
        assert model.net.seen[0].tolist() == [2.5] * 3
    assert model.labelled(y, 0, "cpu").y.shape == (0,)


def test_python_numbers_keep_their_digits():
    assert float(bound_rows([0.1], 1, "cpu")) == 0.1
    assert float(bound_rows(0.1, 1, "cpu")) == 0.1


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (
            {"a": ([1, 2], [1, 2, 3])},
            ValueError,
            r"y\['a'\]\[1\] must have leading dimension 2, or",
        ),
        ({1: [1, 2]}, TypeError, "y must have text as keys, got 1"),
        ([1j, 2j], TypeError, "y must hold real numbers, got torch.complex64"),
        ({"a": None}, TypeError, r"y\['a'\] must be a tensor of numbers, got NoneType"),
        ([torch.zeros(2), torch.zeros(3)], TypeError, "y must be a tensor of numbers, got list"),
    ],
)
def test_what_is_no_condition(y, error, message):
    with pytest.raises(error, match=message):
        bound_rows(y, 2, "cpu")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"class": [0, 1, 2, 3]}, ValueError, r"y\['class'\] must hold classes 0 to 2, got 3"),
        ({"vector": [[1, 2]]}, TypeError, r"y\['vector'\] must hold floating numbers, got torch.i"),
        ({"vector": torch.zeros(4, 3)}, ValueError, r"must have shape \(4, 2\), as the network ta"),
        ({"vector": torch.full((4, 2), math.inf)}, ValueError, "must be finite, got 8 values"),
        ({"array": torch.zeros(1, 4, 4)}, ValueError, r"\(4, 1, 4, 4\), as .* got \(4, 4, 4\)"),
        ({"depth": torch.zeros(4)}, ValueError, "keys class, vector, array, tokens, got the key"),
    ],
)
def test_a_condition_of_another_kind_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        ALL.checked(bound_rows(whole() | change, 4, "cpu"), 4)


def test_a_condition_needs_all_kinds_of_the_network():
    with pytest.raises(ValueError, match="dict with keys class, vector, array, tokens, got Te"):
        ALL.checked(torch.zeros(4), 4)
    with pytest.raises(ValueError, match="y must be one tensor for a vector of 2, got a dict"):
        ConditionSpec(vector=2).checked(whole(), 4)
    with pytest.raises(ValueError, match="y must be None: FunctionScore takes no condition"):
        FunctionScore(VP(), lambda x, t: x).labelled(whole(), 4, "cpu")


def test_a_vector_of_one_may_be_given_without_its_axis():
    assert ConditionSpec(vector=1).checked(torch.arange(3.0), 3).tolist() == [[0], [1], [2]]


def test_no_condition_is_class_k_and_nan_in_the_chosen_rows_only():
    rows = torch.tensor([True, False, False, True])
    got, kept = ALL.without(whole(), rows), whole()
    assert got["class"].tolist() == [3, 1, 2, 3]
    for kind in ("vector", "array", "tokens"):
        assert torch.isnan(got[kind][rows]).all()
        assert torch.equal(got[kind][~rows], kept[kind][~rows])
    assert ConditionSpec(classes=3).without(torch.tensor([0, 1]), rows[:2]).tolist() == [3, 1]


def test_a_network_takes_its_own_kinds_of_the_data():
    y = whole()
    assert ConditionSpec().selected(y, ALL) is None
    assert ConditionSpec(vector=2).selected(y, ALL) is y["vector"]
    assert set(ConditionSpec(vector=2, classes=3).selected(y, ALL)) == {"class", "vector"}
    for wanted in (ConditionSpec(classes=4), ConditionSpec(vector=2, array=(2, 4, 4))):
        with pytest.raises(ValueError, match="the network takes .*, the data have 3 classes and a"):
            wanted.selected(y, ALL)
    with pytest.raises(ValueError, match="the network takes 3 classes, the data have no condition"):
        ConditionSpec(classes=3).selected(None, ConditionSpec())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"classes": 0}, ValueError, "classes must be at least 1, got 0"),
        ({"vector": 2.5}, TypeError, "vector must be an integer, got 2.5"),
        ({"array": (3,)}, ValueError, r"array must have shape \(C, L\), .* got \(3,\)"),
        ({"array": (3, 4, 0)}, ValueError, "array must be at least 1, got 0"),
        ({"tokens": (4,)}, ValueError, r"tokens must be two numbers \(T, F\), got \(4,\)"),
        ({"tokens": (0, 4)}, ValueError, "each entry of tokens must be at least 1, got 0"),
    ],
)
def test_what_is_no_spec(arguments, error, message):
    with pytest.raises(error, match=message):
        ConditionSpec(**arguments)


@pytest.mark.parametrize(("said", "classes"), [(3, 3), (None, None), (["a", "b"], None), (0, None)])
def test_the_classes_that_a_foreign_network_says(said, classes):
    net = Silent()
    net.classes = said
    model = NetworkScore(net, VP(), Preconditioning())
    assert model.classes == classes
    assert model.needs_labels == (said == 3)
    assert (model.condition is None) == (said in (["a", "b"], 0))
