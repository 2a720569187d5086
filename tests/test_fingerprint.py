"""A fingerprint is equal for equal content, and differs as soon as any part of it does."""

import hashlib
import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from scoresde.fingerprint import ADDED, difference, file_fingerprint, fingerprint


@dataclass(frozen=True)
class Settings:
    steps: int
    rate: float = 0.5


@dataclass(frozen=True)
class Others:
    steps: int
    rate: float = 0.5


X = np.arange(6, dtype=np.float32).reshape(2, 3)

DIFFERENT = [
    *(None, False, True, 0, 1, 1.0, 0.0, -0.0, "1", "", b"1", b""),
    *([], [1], [1, 2], [2, 1], [[1], 2], [1, [2]], ["ab", "c"], ["a", "bc"], ["abc"]),
    *({}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": {"b": 1}}, {"a": 1, "b": 1}),
    *(X, X.T, X.reshape(3, 2), X.reshape(-1), X.astype(np.float64), X.astype(np.int32), X + 1),
    *(np.zeros((0, 3)), np.zeros((3, 0)), np.array(0.0, np.float32)),
    *(
        torch.tensor([1.0], dtype=torch.bfloat16),
        torch.tensor([1.0], dtype=torch.bfloat16).view(torch.int16),
    ),
    *(Settings(1), Settings(2), Settings(1, 0.25), Others(1), {"steps": 1, "rate": 0.5}),
    *(torch.float32, torch.device("cpu"), "cpu"),
]


def test_different_content_has_different_fingerprints():
    found = [fingerprint(value) for value in DIFFERENT]
    for (i, a), (j, b) in itertools.combinations(enumerate(found), 2):
        assert a != b, f"{DIFFERENT[i]!r} and {DIFFERENT[j]!r}"
    assert all(len(digits) == 64 for digits in found)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"a": 1, "b": [2]}, {"b": (2,), "a": 1}),
        (X, torch.from_numpy(X)),
        (X, np.asfortranarray(X)),
        (X, X.astype(">f4")),
        (X.T, torch.from_numpy(X).T),
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (Settings(1), Settings(1, 0.5)),
    ],
)
def test_equal_content_has_one_fingerprint(a, b):
    assert fingerprint(a) == fingerprint(b)


def test_a_single_bit_tells():
    x = torch.zeros(1000, dtype=torch.uint8)
    before = fingerprint(x)
    x[999] = 1
    assert fingerprint(x) != before


@pytest.mark.parametrize("value", [object(), {1: 2}, np.array([None]), {"a": {1, 2}}, 1j])
def test_what_has_no_fingerprint_is_refused(value):
    with pytest.raises(TypeError, match="fingerprint"):
        fingerprint(value)


def test_the_fingerprint_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_fingerprint(path) == hashlib.sha256(b"abc").hexdigest()


def test_the_first_difference_of_settings():
    before = {"n": 4, "seed": 0, "batch": 8}
    assert difference(before, dict(reversed(before.items()))) is None
    assert difference(before, before | {"seed": 1, "n": 5}) == "n = 4, not 5"
    assert difference(before, before | {"seed": 1, "n": 5}, free={"n"}) == "seed = 0, not 1"
    assert difference(before, before | {"split": "test"}) == "split = None, not 'test'"
    assert difference(before, {"n": 4, "seed": 0}) == "batch = 8, not None"


def test_a_field_added_later_counts_only_with_another_value():
    @dataclass(frozen=True)
    class Before:
        a: int = 1

    @dataclass(frozen=True)
    class Now:
        a: int = 1
        b: float = field(default=math.inf, metadata=ADDED)

    Now.__qualname__ = Before.__qualname__
    assert fingerprint(Now()) == fingerprint(Before())
    assert fingerprint(Now(b=1.0)) not in (fingerprint(Before()), fingerprint(Now(b=2.0)))
