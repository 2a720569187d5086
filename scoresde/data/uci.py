"""Five sets on which density estimators are compared: POWER, GAS, HEPMASS, MINIBOONE, BSDS300.

The files, the preprocessing and the test rows are those of Papamakarios, Pavlakou and Murray 2017,
arXiv:1705.07057 (Masked Autoregressive Flow), and of the code that they published. Log-likelihoods
in papers are in nats per row *of the preprocessed data*, that is with standardized features (for
BSDS300 with pixels in [0, 1]), and so are ours. Their validation rows are the last tenth of our
train split, which holds both: hold out a share with `train.validation = 0.1`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from .._text import reason_of
from .npy import opened, read_array
from .tables import read_table

__all__ = ["UCI_SETS", "UCISet", "find_uci", "load_uci"]

Splits = tuple[np.ndarray, np.ndarray]  # rows of the train and of the test split

_WHERE = "data.tar.gz of https://zenodo.org/records/1161203"

_CHUNK = 200_000  # rows of HEPMASS that are read at a time: half of them are left out at once

_SAME = 0.98  # GAS: of two features with a larger correlation one is left out
_REPEATED = 5  # HEPMASS: a feature whose least value occurs more often is left out


@dataclass(frozen=True)
class UCISet:
    """Facts about one of the sets.

    Args:
        features: Number of features after the preprocessing.
        counts: Rows of the train split (with the validation rows of the papers) and of the test
            split.
        folder: Folder of its files below the root.
        files: Files of which one must be there; the first is the published one.
        read: What makes both splits of this folder.
        licence: Licence of the data.
    """

    features: int
    counts: tuple[int, int]
    folder: str
    files: tuple[str, ...]
    read: Callable[[Path], Splits]
    licence: str

    @property
    def get(self) -> str:
        """How to get the files, and where they must lie."""
        return f"unpack {_WHERE}, so that DATA-ROOT/{self.folder}/{self.files[0]} exists"


def find_uci(name: str, root: Path | None = None) -> Path | None:
    """The first folder that holds one of the files of a set; None if there is none.

    Searched in this order: `root`, $SCORESDE_DATA, ./data. The folder bears the name of the set.
    """
    known = UCI_SETS[name]
    parents = [] if root is None else [root]
    if os.environ.get("SCORESDE_DATA"):
        parents.append(Path(os.environ["SCORESDE_DATA"]))
    for parent in (*parents, Path("data")):
        for folder in (parent / known.folder, parent / name):
            if any((folder / file).is_file() for file in known.files):
                return folder
    return None


def load_uci(name: str, split: str, root: Path | None = None) -> np.ndarray:
    """Rows of one split of a set, preprocessed as in the papers; float64, shape (N, D).

    - power: columns 1 and 3 (reactive power and intensity, from 0) are left out. The rows are
      shuffled, and noise is added against the rounding: U(0, 0.001) to the active power, U(0, 0.01)
      to the voltage, U(0, 1) to the three meters; all with NumPy's old generator of seed 42, the
      noise in the order voltage, power, meters. The last tenth is the test split. Features are
      standardized by the train split.
    - gas: the columns Time, Meth and Eth are left out. While there are two features with a
      correlation above 0.98, the first that has such a partner is left out. Features are
      standardized by all rows, with N − 1 degrees of freedom. The last tenth is the test split.
    - hepmass: the rows of label 1 of both files. A column of the test file that the train file
      lacks is left out. Features are standardized by the train file, with N − 1 degrees of freedom.
      Features whose least value occurs more than 5 times in it are left out.
    - miniboone: the rows of the file. The last tenth is the test split. Features are standardized
      by the train split.
    - bsds300: the rows of the file, as they are: grey patches of 8×8 pixels in [0, 1] with uniform
      noise, less their mean, without their last pixel.

    Args:
        name: Key of `UCI_SETS`.
        split: "train" or "test". "train" holds train and validation rows of the papers, in this
            order.
        root: Folder searched first.

    Raises:
        FileNotFoundError: If none of the searched folders holds the files; the message says how to
            get them.
        ValueError: If a file cannot be read, is a pickle, or does not lead to the known number of
            features.
    """
    known, folder = UCI_SETS[name], find_uci(name, root)
    if folder is None:
        raise FileNotFoundError(
            f"{name} is not on this machine; {known.get}, and name DATA-ROOT by --data-root or "
            "$SCORESDE_DATA"
        )
    train, test = known.read(folder)
    if {train.shape[1], test.shape[1]} != {known.features}:
        raise ValueError(
            f"{folder} does not hold the published {name}: after the preprocessing it has "
            f"{train.shape[1]} features, not {known.features}"
        )
    if (len(train), len(test)) != known.counts:
        warnings.warn(
            f"{folder} holds {len(train):,} + {len(test):,} rows, and the published {name} "
            f"{known.counts[0]:,} + {known.counts[1]:,}: results are not those of papers",
            stacklevel=4,
        )
    return train if split == "train" else test


def _power(folder: Path) -> Splits:
    x = _npy(folder / "data.npy", columns=8)
    rng = np.random.RandomState(42)
    rng.shuffle(x)
    x = x[:, [0, 2, 4, 5, 6, 7]]  # power, voltage, three meters, time of day
    n = len(x)
    x[:, 1] += 0.01 * rng.rand(n)
    x[:, 0] += 0.001 * rng.rand(n)
    x[:, 2:5] += rng.rand(n, 3)
    return _standardized(*_last_tenth(x))


def _gas(folder: Path) -> Splits:
    x = _gas_rows(folder)
    alike = np.corrcoef(x.T) > _SAME
    kept = np.arange(x.shape[1])
    while (doubled := alike[np.ix_(kept, kept)].sum(1) > 1).any():
        kept = np.delete(kept, np.argmax(doubled))
    x = x[:, kept]
    return _last_tenth((x - x.mean(0)) / x.std(0, ddof=1))


def _gas_rows(folder: Path) -> np.ndarray:
    """The 16 sensors of GAS."""
    table, array = folder / "ethylene_CO.csv", folder / "ethylene_CO.npy"
    if table.is_file():
        found = read_table(table)
        missing = [name for name in ("Time", "Meth", "Eth") if name not in (found.names or ())]
        if missing:
            raise ValueError(f"{table} has no column {missing[0]}")
        return np.delete(found.x, [found.names.index(n) for n in ("Time", "Meth", "Eth")], axis=1)
    if array.is_file():  # Time, Meth and Eth first
        return _npy(array, columns=19)[:, 3:]
    raise ValueError(
        f"{folder / 'ethylene_CO.pickle'} is a pickle, which can run code and is never opened; if "
        "you trust it, convert it once: pandas.read_pickle('ethylene_CO.pickle')"
        ".to_csv('ethylene_CO.csv', index=False)"
    )


def _hepmass(folder: Path) -> Splits:
    train, test = (_signal(folder / f"1000_{split}.csv") for split in ("train", "test"))
    test = test[:, : train.shape[1]]
    least = train == train.min(0)
    kept = least.sum(0) <= _REPEATED
    train, test = train[:, kept], test[:, kept]
    return _standardized(train, test, ddof=1)


def _signal(path: Path) -> np.ndarray:
    """The rows of label 1, without the label."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            next(file)  # its names are of no use, and may be more or fewer than the columns
            parts = [part[part[:, 0] == 1, 1:] for part in _blocks(file)]
        return np.concatenate(parts)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except (ValueError, StopIteration, IndexError) as error:
        raise ValueError(f"{path} is not a table of numbers: {reason_of(error)}") from error


def _blocks(file: Iterator[str]) -> Iterator[np.ndarray]:
    while lines := list(islice(file, _CHUNK)):
        yield np.loadtxt((line.rstrip(",\r\n") for line in lines), delimiter=",", ndmin=2)


def _miniboone(folder: Path) -> Splits:
    return _standardized(*_last_tenth(_npy(folder / "data.npy")))


def _bsds300(folder: Path) -> Splits:
    if not (folder / "BSDS300.hdf5").is_file():
        train, validation, test = (
            _npy(folder / f"{part}.npy") for part in ("train", "validation", "test")
        )
        return np.concatenate([train, validation]), test
    path = folder / "BSDS300.hdf5"
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            f"{path} needs h5py: pip install 'scoresde[h5]', or save its arrays as train.npy, "
            "validation.npy and test.npy beside it and move it away"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            train, validation, test = (file[part][:] for part in ("train", "validation", "test"))
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}") from error
    return np.concatenate([train, validation]), test


def _npy(path: Path, columns: int | None = None) -> np.ndarray:
    """A matrix of numbers in float64."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    x = opened(path, lambda file: read_array(path, file, path.stat().st_size))
    if x.ndim != 2 or x.dtype.kind not in "buif" or columns not in (None, x.shape[-1]):
        wanted = "D" if columns is None else columns
        raise ValueError(
            f"{path} must hold numbers of shape (N, {wanted}), got {x.dtype} {x.shape}"
        )
    return x.astype(np.float64, order="C")


def _last_tenth(x: np.ndarray) -> Splits:
    n = int(0.1 * len(x))
    return x[: len(x) - n], x[len(x) - n :]


def _standardized(train: np.ndarray, test: np.ndarray, ddof: int = 0) -> Splits:
    mean, std = train.mean(0), train.std(0, ddof=ddof)
    return (train - mean) / std, (test - mean) / std


_UCI = "CC BY 4.0 (UCI Machine Learning Repository)"

UCI_SETS: dict[str, UCISet] = {
    "power": UCISet(6, (1_844_352, 204_928), "power", ("data.npy",), _power, _UCI),
    "gas": UCISet(
        8,
        (946_859, 105_206),
        "gas",
        ("ethylene_CO.pickle", "ethylene_CO.csv", "ethylene_CO.npy"),
        _gas,
        _UCI,
    ),
    "hepmass": UCISet(21, (350_136, 174_987), "hepmass", ("1000_train.csv",), _hepmass, _UCI),
    "miniboone": UCISet(43, (32_840, 3_648), "miniboone", ("data.npy",), _miniboone, _UCI),
    "bsds300": UCISet(
        63,
        (1_050_000, 250_000),
        "BSDS300",
        ("BSDS300.hdf5", "train.npy"),
        _bsds300,
        "for research and education (Martin et al. 2001)",
    ),
}
