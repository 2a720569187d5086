import io
import json
import math
import os
import pickle
import resource
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch

from scoresde.data import DataSource, DataSpec, load_dataset
from scoresde.data.arrays import load_array


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
    assert load_dataset(DataSource(tmp_path / "a.npy", levels=24, low=0, high=2)).spec.levels == 24


def test_floats_are_continuous_and_keep_their_range(tmp_path):
    x = np.array([[0.1, -2.0], [0.5, 3.0]])
    data = load_dataset(str(save(tmp_path / "a.npz", points=x)))
    assert data.spec == DataSpec((2,), -2, 3, name="a.npz")
    assert data.x.dtype == torch.float32
    assert data.labels is None
    # 0.1 is a limit that float32 rounds up.
    save(tmp_path / "b.npy", x=np.array([-0.1, 0.0, 0.1]))
    assert load_dataset(DataSource(tmp_path / "b.npy", low=-0.1, high=0.1)).x.shape == (3, 1)


def test_labels_and_integer_levels(tmp_path):
    x = np.array([[0, 999], [5, 6]])
    path = save(tmp_path / "a.npz", x=x, y=np.array([1, 0], dtype=np.uint8))
    data = load_dataset(DataSource(path, levels=1000))
    assert (data.x.dtype, data.x.tolist()) == (torch.int64, x.tolist())
    assert (data.labels.tolist(), data.spec.classes, data.spec.class_names) == ([1, 0], 2, None)
    bits = load_dataset(save(tmp_path / "b.npy", x=np.array([[True, False]])))
    assert (bits.spec.levels, bits.x.tolist()) == (2, [[1, 0]])
    whole = load_dataset(DataSource(save(tmp_path / "c.npy", x=np.array([[0.0, 16.0]])), levels=17))
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
        ({"a": np.zeros(2), "b": np.zeros(2)}, {}, "must hold one array, or x and y, .*, got a, b"),
        (
            {"x": np.eye(2), "y": np.zeros(3, int)},
            {},
            r"labels must have one entry for each of the 2 data, got shape \(3,\)",
        ),
        ({"x": np.eye(2), "y_class": np.zeros(2)}, {}, r"labels must be integers, .* got float64"),
        ({"x": np.eye(2), "y": np.array([0, -1])}, {}, r"labels must be at least 0, got -1"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(DataSource(save(tmp_path / "a.npz", **arrays), **options))


def test_a_file_has_no_test_split(tmp_path):
    with pytest.raises(ValueError, match="has no test split"):
        load_dataset(save(tmp_path / "a.npz", x=np.eye(2)), "test")


def test_files_that_are_no_arrays_are_refused(tmp_path):
    for name, content in (("a.npy", b"text"), ("b.npz", b"PK\x03\x04cut"), ("c.npy", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a .npy or .npz file"):
            load_dataset(tmp_path / name)
    whole = save(tmp_path / "d.npz", x=np.zeros((100, 8))).read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="d.npz is not a .npy or .npz file"):
        load_dataset(tmp_path / "d.npz")
    (tmp_path / "e.txt").write_text("1,2\n")
    with pytest.raises(
        ValueError, match=r"must be a folder of images, or a .npy, .npz, .csv or .tsv file"
    ):
        load_dataset(tmp_path / "e.txt")


@pytest.mark.parametrize(
    "y", [["fox", "cat", "dog", "cat"], ["10", "9", "2", "9"]], ids=["words", "numbers"]
)
def test_labels_that_are_text_are_names(tmp_path, y):
    path = save(tmp_path / "a.npz", x=np.arange(4.0), y=np.array(y))
    data = load_dataset(path)
    assert [data.spec.class_names[label] for label in data.labels] == y
    names = ("dog", "fox", "cat", "2", "9", "10")
    data = load_dataset(path, classes=names)
    assert [names[label] for label in data.labels] == y
    assert data.spec.class_names == names


@pytest.mark.parametrize(
    ("y", "empty"), [([1, 2, 3], "class 0"), ([0, 1, 3], "class 2"), ([9, 9, 9], "class 0")]
)
def test_a_class_without_a_datum_is_named(tmp_path, y, empty):
    path = save(tmp_path / "a.npz", x=np.arange(3.0), y=np.array(y))
    with pytest.warns(UserWarning, match=rf"a.npz: {empty} of 0 … {max(y)} has no datum"):
        data = load_dataset(path)
    assert data.spec.classes == max(y) + 1
    assert data.empty_class == empty
    # Where the classes are known, a part of them is as good as all.
    assert load_dataset(path, classes=10).spec.classes == 10
    assert load_dataset(path, labels=False).labels is None


def test_labels_are_not_looked_at_where_they_are_not_wanted(tmp_path):
    path = save(tmp_path / "a.npz", x=np.arange(3.0), y=np.array([-1.5, 2, 3]))
    assert load_dataset(path, labels=False).spec.classes is None


SHAPES = [  # (H, W, C) of images that are images only with the channels last
    *((height, width, c) for height in (2, 5, 32) for width in (8, 32) for c in (1, 3, 4)),
    *((side, side, c) for side, c in ((3, 1), (4, 1), (4, 3), (8, 2), (16, 13))),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_channels_come_first_in_whatever_order_they_are_stored(tmp_path, shape):
    first = np.random.default_rng(0).integers(256, size=(2, shape[2], *shape[:2]), dtype=np.uint8)
    last = np.ascontiguousarray(first.transpose(0, 2, 3, 1))
    for dtype, options in ((np.uint8, {}), (np.float32, {}), (np.int16, {"levels": 256})):
        right = load_dataset(DataSource(save(tmp_path / "a.npy", x=first.astype(dtype)), **options))
        save(tmp_path / "b.npy", x=last.astype(dtype))
        with pytest.warns(UserWarning, match=rf"taken for \(N, H, W, C\): .* {shape[2]} channel"):
            turned = load_dataset(DataSource(tmp_path / "b.npy", **options))
        assert turned.x.is_contiguous()
        assert turned.fingerprint == right.fingerprint


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (4, 4, 4), (3, 3, 3), (512, 1, 1), (16, 3, 3), (3, 8, 1)]
)
def test_what_can_be_channels_first_stays_as_it_is(tmp_path, shape):
    x = np.random.default_rng(0).standard_normal((2, *shape))
    assert load_dataset(save(tmp_path / "a.npy", x=x)).spec.shape == shape


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((28, 28, 3), r"one image \(H, W, C\); .* here \(1, 28, 28, 3\)"),
        ((20, 28, 1), r"one image \(H, W, C\)"),
        ((32, 32, 3, 50), r"images \(H, W, C, N\); .* here \(50, 32, 32, 3\)"),
        ((8, 8, 1, 2), r"images \(H, W, C, N\)"),
    ],
)
def test_axes_in_an_order_that_is_none_of_ours_are_refused(tmp_path, shape, said):
    save(tmp_path / "a.npy", x=np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=said):
        load_dataset(tmp_path / "a.npy")


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float64])
def test_quantized_images_without_channels_are_grey_in_every_dtype(tmp_path, dtype):
    x = np.eye(5)[None].repeat(2, 0).astype(dtype)
    data = load_dataset(DataSource(save(tmp_path / "a.npy", x=x), levels=2))
    assert torch.equal(data.x, torch.from_numpy(x.astype(np.uint8))[:, None])


def test_an_archive_with_two_arrays_of_one_name_is_refused(tmp_path):
    save(tmp_path / "a.npz", x=np.eye(2))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("x", archive.read("x.npy"))
    with pytest.raises(ValueError, match="holds two arrays of one name"):
        load_dataset(tmp_path / "a.npz")


def test_sample_files_of_guided_diffusion_are_read(tmp_path):
    images, labels = np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1])
    np.savez(tmp_path / "a.npz", images, labels)
    with pytest.warns(UserWarning, match=r"taken for \(N, H, W, C\)"):
        data = load_dataset(tmp_path / "a.npz")
    assert data.spec == DataSpec((3, 8, 8), -1, 1, 256, 2, "a.npz")


def own_samples(path, spec, x, **more):
    save(path, x=x, ts=np.ones(3), nfe=np.array(2), seed=np.array(0, np.uint64), **more)
    if spec is not None:
        save(path, **dict(np.load(path)), spec=np.array(json.dumps(spec.to_dict())))
    return path


def test_own_samples_are_data(tmp_path):
    x, k = np.linspace(-1.2, 1.2, 8).reshape(2, 4).astype(np.float32), np.arange(8).reshape(2, 4)
    spec = DataSpec((4,), 0, 2, 17, 4, "digits", ("a", "b", "c", "d"))
    path = own_samples(tmp_path / "a.npz", spec, x, levels=k, labels=np.array([3, 1]))
    data = load_dataset(path)
    assert torch.equal(data.x, torch.from_numpy(k).byte())
    assert data.labels.tolist() == [3, 1]
    assert data.spec == DataSpec((4,), 0, 2, 17, 4, "a.npz", ("a", "b", "c", "d"))
    # Another checkpoint may have other numbers for the same names.
    assert load_dataset(path, classes=("d", "x", "b")).labels.tolist() == [0, 2]
    points = DataSpec((4,), -1, 1)
    data = load_dataset(own_samples(tmp_path / "b.npz", points, x))
    assert (data.spec.levels, data.spec.high) == (None, pytest.approx(1.2))
    # Files from before the spec was stored
    old = own_samples(tmp_path / "c.npz", None, x, levels=k, labels=np.array([0, 1]))
    assert load_dataset(DataSource(old, levels=17)).spec.classes == 2
    for dtype in (np.uint8, np.int64):
        save(tmp_path / "d.npz", **dict(np.load(old)) | {"levels": k.astype(dtype)})
        with pytest.raises(ValueError, match="levels must be given"):
            load_dataset(tmp_path / "d.npz")


def test_own_samples_that_contradict_themselves_are_refused(tmp_path):
    k = np.arange(8).reshape(2, 4)
    spec = DataSpec((4,), 0, 2, 17, 2, "digits", ("a", "b"))
    path = own_samples(tmp_path / "a.npz", spec, k / 8, levels=k, labels=np.array([1, -1]))
    with pytest.raises(ValueError, match="labels must be at least 0, got -1"):
        load_dataset(path)
    with pytest.raises(ValueError, match="levels of .* must be 17, got 256"):
        load_dataset(DataSource(path, levels=256), labels=False)


def npy(header, data=b""):
    """A .npy file with this header, whatever it says."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


HOSTILE = {
    "more than follows": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9, 9)}", bytes(8)),
    "less than follows": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
    "terabytes": npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({1 << 45}, 9)}}"),
    "beyond integers": npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**400},)}}"),
    "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", bytes(8)),
    "no number": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1.5,)}", bytes(8)),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])),
    "records": npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}", bytes(8)),
    "dates": npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
    "no text": npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff" * 4),
    "nothing": npy(""),
    "open bracket": npy("{'descr': (((((("),
    "deep": npy("(" * 9000),
    "code": npy("__import__('os').abort()"),
    "keys": npy("{'descr': '<f8'}"),
    "version": b"\x93NUMPY\x09\x00" + bytes(20),
    "pickle": pickle.dumps([1.0]),
    "text": b"1,2,3\n",
    "empty": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("zipped", [False, True])
def test_hostile_files_are_refused_in_one_line(tmp_path, content, zipped):
    path = tmp_path / "a.npz"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a .npy or .npz file of plain numbers: .") as error:
        load_dataset(path)
    assert "\n" not in str(error.value)


def whole(kind):
    file = io.BytesIO()
    x, y = np.random.default_rng(0).integers(256, size=(9, 5), dtype=np.uint8), np.arange(9)
    if kind == "npy":
        np.save(file, x)
    elif kind == "stored":
        np.savez(file, x=x, y=y)
    else:
        np.savez_compressed(file, x=x, y=y)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["npy", "stored", "compressed"])
def test_a_damaged_file_is_refused_or_differs_in_numbers_alone(tmp_path, kind):
    rng, content, path = np.random.default_rng(1), whole(kind), tmp_path / "a.npz"
    path.write_bytes(content)
    sound = load_array(path)
    refused = 0
    for trial in range(150):
        damaged = bytearray(content)
        if trial % 2:
            del damaged[rng.integers(len(damaged)) :]
        else:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's, of headers it reads with difficulty
                found = load_array(path, 256)
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            # Of an archive a checksum guards the numbers; flips elsewhere may not matter.
            assert kind == "npy" or torch.equal(found.x, sound.x)
            assert trial % 2 == 0  # a file that was cut is never read
    assert refused >= 75


def bomb(path, size):
    """Zeros that are compressed a thousand fold."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as f,
    ):
        f.write(npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size // 64}, 64)}}"))
        for _ in range(size >> 20):
            f.write(bytes(1 << 20))
    return path


def test_an_archive_that_expands_a_thousand_fold_is_refused_before_it_does(tmp_path):
    size = 128 << 20
    path = bomb(tmp_path / "a.npz", size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"x.npy expands from 0.1 MB to 134.2 MB, more than 100"):
        load_dataset(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < size / 1024 / 2  # kB


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    sparse = tmp_path / "a.npy"  # in this order its rows cannot be read one by one
    header = npy(f"{{'descr': '<f4', 'fortran_order': True, 'shape': ({1 << 26}, 4)}}")
    with sparse.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + (1 << 30))  # 1 GB, of which nothing is on the disk
    monkeypatch.setattr("scoresde.data.memory.free_bytes", lambda: 10**9)
    with pytest.raises(ValueError, match=r"needs 1,073.7 MB of memory, and 1,000.0 MB are free"):
        load_dataset(sparse)
    small = save(tmp_path / "b.npy", x=np.zeros(9))

    def full(*_):
        raise MemoryError

    monkeypatch.setattr("scoresde.data.reading.float_tensor", full)
    with pytest.raises(ValueError, match=r"b.npy does not fit into memory"):
        load_dataset(small)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a.npy must be a folder of images, or a .npy"):
        load_dataset(tmp_path / "a.npy")
