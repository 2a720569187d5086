"""Data that are not held in memory are the data that they are in memory."""

import signal
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde._rows import watched
from scoresde._workers import ReadError, in_order
from scoresde.data import Dataset, DataSource, DataSpec, load_dataset
from scoresde.scaling import scale_warning
from scoresde.sde import VP


@pytest.fixture
def nothing_fits(monkeypatch):
    """Make every file too large for memory, and blocks shorter than the data."""
    monkeypatch.setattr("scoresde.data.memory._COMFORTABLE", 0)
    monkeypatch.setattr("scoresde._rows._BLOCK_BYTES", 100)


def both(monkeypatch, path, request_fixture, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = load_dataset(DataSource(path, **options))
        request_fixture.getfixturevalue("nothing_fits")
        return held, load_dataset(DataSource(path, **options))


RNG = np.random.default_rng(0)
ARRAYS = {
    "bytes": (RNG.integers(0, 256, (7, 3, 4, 4), np.uint8), {}),
    "resized": (RNG.integers(0, 256, (7, 3, 4, 4), np.uint8), {"size": 8}),
    "channels last": (RNG.integers(0, 256, (7, 6, 6, 3), np.uint8), {}),
    "grey": (RNG.integers(0, 256, (7, 4, 5), np.uint8), {}),
    "half": (RNG.normal(size=(9, 5)).astype(np.float16), {}),
    "big-endian": (RNG.normal(size=(9, 2)).astype(">f8"), {"low": -9.0, "high": 9.0}),
    "numbers": (RNG.normal(size=9), {}),
    "levels": (RNG.integers(0, 999, (9, 4)), {"levels": 1000}),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_in_a_file_is_the_array_in_memory(kind, tmp_path, monkeypatch, request):
    x, options = ARRAYS[kind]
    np.save(tmp_path / "x.npy", x)
    held, read = both(monkeypatch, tmp_path / "x.npy", request, **options)
    assert isinstance(held.x, torch.Tensor)
    assert not isinstance(read.x, torch.Tensor)
    assert read.spec == held.spec
    assert read.fingerprint == held.fingerprint
    assert scale_warning(VP(), read) == scale_warning(VP(), held)
    for rows in (torch.tensor([5, 0, 5, 2]), slice(2, 6), slice(0, 7, 3), np.array([], dtype=int)):
        expected = held.x[torch.as_tensor(rows) if not isinstance(rows, slice) else rows]
        assert torch.equal(read.x[rows], expected)
        assert read.x[rows].dtype == expected.dtype


def test_what_is_wrong_in_a_late_row_is_found_before_training(tmp_path, nothing_fits):
    x = np.zeros((50, 4), np.float32)
    x[49, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "k.npy", np.array([[1]] * 99 + [[5]]))
    with pytest.warns(UserWarning, match=r"x.npy: 0.0 MB are not held in memory: rows are read"):
        with pytest.raises(ValueError, match="data must be finite in float32, got 1"):
            load_dataset(tmp_path / "x.npy")
    with pytest.warns(UserWarning, match="not held"):
        with pytest.raises(ValueError, match=r"levels must lie in 0..4, got 1..5"):
            load_dataset(DataSource(tmp_path / "k.npy", levels=5))


@pytest.mark.parametrize(("levels", "readings"), [(None, 1), (200, 2)])
def test_bytes_are_read_once_for_their_fingerprint_and_the_reading_is_reported(
    levels, readings, tmp_path, nothing_fits
):
    """Every byte is one of 256 levels, so that only another number of levels must be checked."""
    np.save(tmp_path / "x.npy", np.zeros((70, 4), np.uint8))  # 25 rows are a block
    told = []
    with watched(lambda *report: told.append(report)), pytest.warns(UserWarning, match="not held"):
        _ = load_dataset(DataSource(tmp_path / "x.npy", levels=levels)).fingerprint
    assert told == [(str(tmp_path / "x.npy"), done, 70) for done in (25, 50, 70)] * readings


def test_a_file_that_changes_while_it_is_used_is_refused(tmp_path, nothing_fits):
    np.save(tmp_path / "x.npy", np.arange(40.0).reshape(20, 2))
    with pytest.warns(UserWarning, match="not held"):
        data = load_dataset(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.arange(40.0).reshape(20, 2) + 1)
    with pytest.raises(ValueError, match=r"x.npy has changed since it was opened"):
        data.x[:3]
    with pytest.raises(IndexError, match="must lie in 0 … 19"):
        data.x[torch.tensor([20])]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_a_folder_are_those_in_memory(workers, tmp_path, monkeypatch, request):
    for i in range(9):
        mode, shape = ("L", (5, 4)) if i % 2 else ("RGB", (5, 4, 3))
        folder = tmp_path / "abc"[i % 3]
        folder.mkdir(exist_ok=True)
        pixels = RNG.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels, mode=None).convert(mode).save(folder / f"{i}.png")
    held, read = both(monkeypatch, tmp_path, request, workers=workers)
    assert read.spec == held.spec
    assert read.fingerprint == held.fingerprint
    assert torch.equal(read.x[torch.tensor([8, 1])], held.x[[8, 1]])
    (tmp_path / "a" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="0.png has changed since it was opened"):
        read.x[:1]


class Items:
    """A torch dataset whose items are pairs of levels and a class."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return torch.tensor([i, 7, 0]), i % 2


SPEC = DataSpec((3,), -1, 1, levels=32, classes=2)


def test_a_torch_dataset_is_the_data_of_its_items():
    x = torch.stack([Items()[i][0] for i in range(20)]).byte()
    held = Dataset("x", x, torch.arange(20) % 2, SPEC)
    read = Dataset.of(Items(), SPEC, "x")
    assert torch.equal(read.labels, held.labels)
    assert read.fingerprint == held.fingerprint
    assert torch.equal(Dataset.of(Items(), SPEC, labels=[1, 0] * 10).labels, 1 - held.labels)
    other = {"shape": (4,), "levels": 16, "classes": 1}
    for key, message in zip(
        other, (r"shape \(n, 4\)", "levels 0 … 15", "classes 0 to 0"), strict=True
    ):
        values = {**vars(SPEC), key: other[key]}
        with pytest.raises((ValueError, ReadError), match=message):
            Dataset.of(Items(), DataSpec(**values)).x[:]
    with pytest.raises(TypeError, match="must hold floats, got torch.int64"):
        Dataset.of(Items(), DataSpec((3,), -1, 1))
    with pytest.raises(ValueError, match="item 0 of data differs when it is read again"):
        Dataset.of(Noise(), DataSpec((3,), 0, 1))


class Noise(Items):
    def __getitem__(self, i):
        return torch.rand(3)


ERRORS = {
    KeyError("gone"): (ReadError, "it cannot be read: 'gone'"),
    ValueError("bad"): (ValueError, "^bad"),
}


@pytest.mark.parametrize("raised", ERRORS, ids=repr)
def test_results_and_errors_of_workers_are_those_of_this_process(raised, rng_untouched):
    def fails(i):
        if i == 5:
            raise raised
        return torch.full((2,), i)

    handler, (kind, text) = signal.getsignal(signal.SIGCHLD), ERRORS[raised]
    for workers in (0, 2):
        results = in_order(fails, range(9), workers, "it")
        assert [next(results).tolist() for _ in range(5)] == [[i, i] for i in range(5)]
        with pytest.raises(kind, match=text):
            next(results)
    # A worker's death must not raise in the middle of an optimizer step.
    assert signal.getsignal(signal.SIGCHLD) is handler
