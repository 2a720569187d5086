import numpy as np
import pytest

from scoresde.data.classes import natural_order, number_labels


@pytest.mark.parametrize(
    "names",
    [
        [str(n) for n in range(12)],
        ["cat", "dog", "fox"],
        ["1", "2", "10", "cat"],
        ["img1", "img2", "img10a", "img10b"],
        ["01", "1", "2"],
        ["9" * 5000, "1" + "0" * 5000],  # Python makes no int of so many digits
    ],
)
def test_natural_order_is_that_of_the_numbers_and_does_not_depend_on_the_input(names):
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert natural_order(rng.permutation(names).tolist()) == names


def numbers(labels, known=None):
    found, classes, names = number_labels("d", np.array(labels), known)
    return found.tolist(), classes, names


def test_names_get_the_places_of_the_known_ones():
    assert numbers(["fox", "dog"]) == ([1, 0], 2, ("dog", "fox"))
    assert numbers(["fox", "dog"], known=["cat", "dog", "fox"]) == (
        [2, 1],
        3,
        ("cat", "dog", "fox"),
    )
    assert numbers(["fox", "dog"], known=["fox", "cat", "dog"])[0] == [0, 2]
    assert numbers(["10", "9"]) == ([1, 0], 2, ("9", "10"))


def test_of_unnamed_classes_the_names_must_be_their_numbers():
    assert numbers(["07", "3"], known=8) == ([7, 3], 8, None)
    for wrong in ("8", "-1", "cat", "1.0", "٣"):
        with pytest.raises(ValueError, match=r"class .* is none of the classes; .* 0 … 7"):
            numbers(["3", wrong], known=8)


def test_integers_are_class_numbers():
    assert numbers([2, 0]) == ([2, 0], 3, None)
    assert numbers([2, 0], known=5) == ([2, 0], 5, None)
    assert numbers([2, 0], known=["a", "b", "c"]) == ([2, 0], 3, ("a", "b", "c"))
    assert numbers([1, 0], known=["0", "1"])[0] == [1, 0]


@pytest.mark.parametrize(
    ("labels", "known", "message"),
    [
        (["owl", "cat"], ["cat", "dog"], "d: class owl is none of the classes; they are cat, dog"),
        ([0, -1], None, "d: labels must be at least 0, got -1"),
        ([0, -1], 3, "d: labels must be at least 0, got -1"),
        ([0, 3], 3, r"d: labels must lie in 0 … 2, got 3"),
        ([0, 2], ["cat", "dog"], r"d: labels must lie in 0 … 1, got 2"),
        ([1, 2], ["1", "2", "3"], "d: labels must be text, since the classes are named 1, 2, 3"),
        ([1, 0], ["1", "other"], "d: labels must be text, since the classes are named 1, other"),
        ([0, 2**40], None, "d: labels must be below 2147483648, got 1099511627776"),
        (np.array([0, 2**63], np.uint64), None, "d: labels must be below"),
    ],
)
def test_labels_of_no_class_are_refused(labels, known, message):
    with pytest.raises(ValueError, match=message):
        numbers(labels, known=known)
