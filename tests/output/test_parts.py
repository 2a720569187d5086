"""Parts are used again only for the same fingerprint, and never if they are damaged."""

import json
import warnings

import numpy as np
import pytest

from scoresde.output.parts import load_part, save_part

ARRAYS = {"x": np.arange(12.0).reshape(3, 4), "n": np.array([3, 1], dtype=np.int64)}
ABOUT = {"nfe": 20, "seconds": 1.5, "names": ["a", None]}


@pytest.fixture
def path(tmp_path):
    """A part made from "this"."""
    path = tmp_path / "parts" / "1.npz"
    save_part(path, "this", ARRAYS, ABOUT)
    return path


def equal(part):
    same = all(np.array_equal(part.arrays[name], value) for name, value in ARRAYS.items())
    return same and part.arrays.keys() == ARRAYS.keys() and part.about == ABOUT


def test_it_comes_back_for_the_same_fingerprint_only(path):
    assert equal(load_part(path, "this"))
    assert load_part(path, "that") is None
    assert load_part(path.with_name("2.npz"), "this") is None
    before = path.read_bytes()
    assert equal(save_part(path, "this", ARRAYS, ABOUT))
    assert path.read_bytes() == before


def test_no_damaged_byte_goes_unseen(path):
    """One bit flipped at many places, and cut at many places: never an exception."""
    whole, warned = path.read_bytes(), 0
    damages = [whole[:i] for i in range(0, len(whole), 37)]
    for i in range(0, len(whole), 11):
        damages.append(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
    for damaged in damages:
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            part = load_part(path, "this")
        if part is None:
            warned += 1
            assert [str(w.message) for w in caught] == [f"{path} is damaged; it is made again"]
        else:  # a date, or another byte that says nothing
            assert equal(part)
    assert warned > 0.6 * len(damages)


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.zeros((3, 4))},
        {"x": ARRAYS["x"][:2]},
        {"x": ARRAYS["x"].astype(np.float32)},
        {"x": ARRAYS["x"] * np.nan},
        {"more": np.zeros(1)},
        {"about": np.array(json.dumps({**ABOUT, "nfe": 21}))},
        {"about": np.array("{")},
        {"digest": np.array("0" * 64)},
        {"made_from": np.array("that")},
        {"x": None},
        {"digest": None},
        {"about": None},
    ],
    ids=str,
)
def test_a_part_that_was_written_by_something_else_is_damaged(path, change):
    with np.load(path) as file:
        values = {**file, **change}
    np.savez(path, **{name: value for name, value in values.items() if value is not None})
    with pytest.warns(UserWarning, match=r"1.npz is damaged; it is made again"):
        assert load_part(path, "this") is None


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00{"])
def test_other_files_are_damaged_parts(path, content):
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        assert load_part(path, "this") is None
