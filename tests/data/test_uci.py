"""The five sets for density estimation, in the layout of their published files.

The files here are small; each expected array is computed row by row or column by column from the
description of the preprocessing, not by the code under test.
"""

import re
import sys

import numpy as np
import pytest
import torch

from scoresde.data import DataSource, dataset_status, has_test_split, load_dataset
from scoresde.data.uci import UCI_SETS

pytestmark = pytest.mark.filterwarnings("ignore:.* rows, and the published")


@pytest.fixture(autouse=True)
def _away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCORESDE_DATA", raising=False)


def both(root, name):
    return tuple(
        load_dataset(DataSource(name, root), split).x.numpy() for split in ("train", "test")
    )


def close(found, expected):
    # float32, of standardized numbers: half a unit in the last place is 6e-8 of each
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def make_power(root, n=53):
    x = np.random.default_rng(0).random((n, 8)) * 10
    (root / "power").mkdir()
    np.save(root / "power" / "data.npy", x)
    return x


def make_miniboone(root, n=40):
    x = np.random.default_rng(1).standard_normal((n, 43)) * np.arange(1, 44) + 5
    (root / "miniboone").mkdir()
    np.save(root / "miniboone" / "data.npy", x.astype(np.float32))
    return x.astype(np.float32).astype(np.float64)


def make_gas(root, n=80):
    """Time, Meth, Eth and 8 sensors, each followed by one that has nearly the same readings."""
    rng = np.random.default_rng(2)
    base = rng.standard_normal((n, 8))
    sensors = np.repeat(base, 2, axis=1)
    sensors[:, 1::2] = 3 * base + 0.01 * rng.standard_normal((n, 8)) + 1
    x = np.concatenate([rng.random((n, 3)), sensors], axis=1)
    (root / "gas").mkdir()
    return x


def make_hepmass(root, n=200):
    """Labels, 27 features of which 6 have few values; a test file with one column more."""
    rng = np.random.default_rng(3)
    files = {}
    (root / "hepmass").mkdir()
    for split, extra in (("train", 0), ("test", 1)):
        x = rng.standard_normal((n, 28 + extra))
        x[:, 0] = rng.integers(2, size=n)
        x[:, [1, 5, 9, 13, 17, 27]] = rng.integers(3, size=(n, 6))
        names = ["# label", *(f"f{i}" for i in range(27)), "mass"]
        lines = [",".join(names[: 28 + extra])]
        lines += [",".join(repr(float(v)) for v in row) for row in x]
        (root / "hepmass" / f"1000_{split}.csv").write_text("\n".join(lines) + "\n")
        files[split] = x
    return files


def test_power_is_shuffled_then_noisy_then_standardized(tmp_path):
    x = make_power(tmp_path)
    n = len(x)
    rng = np.random.RandomState(42)
    order = list(range(n))
    rng.shuffle(order)
    voltage, power, meters = rng.rand(n, 1), rng.rand(n, 1), rng.rand(n, 3)
    rows = np.array(
        [
            [
                x[row, 0] + power[i, 0] / 1000,
                x[row, 2] + voltage[i, 0] / 100,
                *(x[row, 4 + k] + meters[i, k] for k in range(3)),
                x[row, 7],
            ]
            for i, row in enumerate(order)
        ]
    )
    train, test = rows[:48], rows[48:]  # 5 of 53 rows are a tenth
    mean = [sum(column) / 48 for column in train.T]
    std = [(sum((v - m) ** 2 for v in c) / 48) ** 0.5 for c, m in zip(train.T, mean, strict=True)]
    found = both(tmp_path, "power")
    close(found[0], (train - mean) / std)
    close(found[1], (test - mean) / std)


def test_miniboone_is_standardized_by_its_train_rows(tmp_path):
    x = make_miniboone(tmp_path)
    train, test = both(tmp_path, "miniboone")
    assert (len(train), len(test)) == (36, 4)
    for k, column in enumerate(x.T):
        mean = sum(column[:36]) / 36
        std = (sum((value - mean) ** 2 for value in column[:36]) / 36) ** 0.5
        close(train[:, k], (column[:36] - mean) / std)
        close(test[:, k], (column[36:] - mean) / std)


@pytest.mark.parametrize("form", ["csv", "npy"])
def test_gas_keeps_one_of_alike_sensors(form, tmp_path):
    x = make_gas(tmp_path)
    if form == "npy":
        np.save(tmp_path / "gas" / "ethylene_CO.npy", x)
    else:  # in any order of the columns
        names = ["s0", "Meth", "Time", *(f"s{i}" for i in range(1, 16)), "Eth"]
        columns = [x[:, 3], x[:, 1], x[:, 0], *x[:, 4:].T, x[:, 2]]
        lines = [
            ",".join(names),
            *(",".join(map(repr, map(float, r))) for r in np.array(columns).T),
        ]
        (tmp_path / "gas" / "ethylene_CO.csv").write_text("\n".join(lines))
    kept = x[:, 4::2]  # of each pair the first is left out
    mean = np.array([column.sum() / 80 for column in kept.T])
    std = np.array([(((column - column.mean()) ** 2).sum() / 79) ** 0.5 for column in kept.T])
    train, test = both(tmp_path, "gas")
    close(train, ((kept - mean) / std)[:72])
    close(test, ((kept - mean) / std)[72:])


def test_hepmass_keeps_signal_and_continuous_features(tmp_path):
    files = make_hepmass(tmp_path)
    kept = [i for i in range(1, 28) if i not in (1, 5, 9, 13, 17, 27)]
    signal = {
        split: np.array([[row[i] for i in kept] for row in x if row[0] == 1])
        for split, x in files.items()
    }
    mean, std = (
        signal["train"].mean(0),
        signal["train"].std(0) * np.sqrt(len(signal["train"]) / (len(signal["train"]) - 1)),
    )
    found = both(tmp_path, "hepmass")
    close(found[0], (signal["train"] - mean) / std)
    close(found[1], (signal["test"] - mean) / std)


def test_hepmass_with_more_names_than_columns(tmp_path):
    """As the published test file may be read: a name, or a delimiter at the end, has no column."""
    make_hepmass(tmp_path)
    plain = both(tmp_path, "hepmass")
    path = tmp_path / "hepmass" / "1000_train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",mass", *(line + "," for line in lines[1:])]))
    for found, expected in zip(both(tmp_path, "hepmass"), plain, strict=True):
        assert np.array_equal(found, expected)


def bsds_parts():
    rng = np.random.default_rng(4)
    return {
        part: rng.standard_normal((n, 63)).astype(np.float32)
        for part, n in (("train", 20), ("validation", 5), ("test", 7))
    }


def check_bsds(root):
    parts = bsds_parts()
    train, test = both(root, "bsds300")
    assert np.array_equal(train, np.concatenate([parts["train"], parts["validation"]]))
    assert np.array_equal(test, parts["test"])


@pytest.mark.parametrize("folder", ["BSDS300", "bsds300"])
def test_bsds300_of_arrays(folder, tmp_path):
    (tmp_path / folder).mkdir()
    for part, x in bsds_parts().items():
        np.save(tmp_path / folder / f"{part}.npy", x)
    check_bsds(tmp_path)
    (tmp_path / folder / "test.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.npy does not exist"):
        load_dataset(DataSource("bsds300", tmp_path))


def test_bsds300_as_published(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "BSDS300").mkdir()
    with h5py.File(tmp_path / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for part, x in bsds_parts().items():
            file[part] = x
    check_bsds(tmp_path)
    (tmp_path / "BSDS300" / "BSDS300.hdf5").write_bytes(b"no such file")
    with pytest.raises(ValueError, match=r"BSDS300\.hdf5 cannot be read"):
        load_dataset(DataSource("bsds300", tmp_path))


def test_bsds300_without_h5py_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "BSDS300").mkdir()
    (tmp_path / "BSDS300" / "BSDS300.hdf5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"needs h5py: pip install 'scoresde\[h5\]'"):
        load_dataset(DataSource("bsds300", tmp_path))


def test_a_pickle_is_never_opened(tmp_path):
    (tmp_path / "gas").mkdir()
    (tmp_path / "gas" / "ethylene_CO.pickle").write_bytes(b"cos\nabort\n(tR.")  # os.abort()
    with pytest.raises(ValueError, match=r"is a pickle, .*convert it once: .*to_csv") as error:
        load_dataset(DataSource("gas", tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", UCI_SETS)
def test_an_absent_set_says_how_to_get_it(name, tmp_path):
    known = UCI_SETS[name]
    wanted = rf"{name} is not on .*zenodo.*DATA-ROOT/{known.folder}/{re.escape(known.files[0])}"
    with pytest.raises(FileNotFoundError, match=wanted) as error:
        load_dataset(name)
    assert "\n" not in str(error.value)
    row = next(row for row in dataset_status() if row.name == name)
    assert (row.where, row.shape) == (None, (known.features,))


@pytest.mark.parametrize("place", ["root", "home", "working directory"])
def test_places(place, tmp_path, monkeypatch):
    parent = tmp_path / "data"
    parent.mkdir()
    make_miniboone(parent)
    if place != "working directory":
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
    if place == "home":
        monkeypatch.setenv("SCORESDE_DATA", str(parent))
    root = parent if place == "root" else None
    data = load_dataset(DataSource("miniboone", root))
    assert data.spec.shape == (43,)
    assert data.spec.levels is None
    assert has_test_split("miniboone")
    assert (data.spec.low, data.spec.high) == tuple(map(float, torch.aminmax(data.x)))


@pytest.mark.filterwarnings("default")
def test_other_data_in_their_place(tmp_path):
    make_miniboone(tmp_path)
    source = DataSource("miniboone", tmp_path)
    with pytest.warns(UserWarning, match=r"36 \+ 4 rows, and the published .* 32,840 \+ 3,648"):
        load_dataset(source)
    np.save(tmp_path / "miniboone" / "data.npy", np.random.default_rng(0).random((20, 50)))
    with pytest.raises(ValueError, match="published miniboone: .* 50 features, not 43"):
        load_dataset(source)
    np.save(tmp_path / "miniboone" / "data.npy", np.zeros(20))
    with pytest.raises(ValueError, match=r"must hold numbers of shape \(N, D\), got float64"):
        load_dataset(source)
    make_power(tmp_path)
    np.save(tmp_path / "power" / "data.npy", np.zeros((20, 6)))
    with pytest.raises(ValueError, match=r"must hold numbers of shape \(N, 8\), got float64"):
        load_dataset(DataSource("power", tmp_path))
    with pytest.raises(ValueError, match="power takes no levels or size"):
        load_dataset(DataSource("power", tmp_path, levels=256))
    (tmp_path / "gas").mkdir()
    (tmp_path / "gas" / "ethylene_CO.csv").write_text("Time,Meth,x\n1,2,3\n")
    with pytest.raises(ValueError, match="has no column Eth"):
        load_dataset(DataSource("gas", tmp_path))
    (tmp_path / "hepmass").mkdir()
    (tmp_path / "hepmass" / "1000_train.csv").write_text("label,f0\n1,x\n")
    with pytest.raises(ValueError, match=r"1000_train\.csv is not a table of numbers"):
        load_dataset(DataSource("hepmass", tmp_path))
