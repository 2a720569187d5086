"""Rows for `densities.py`: scikit-learn's tables and patches of scikit-image's pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["FOLDS", "SIDE", "TABLES", "Part", "folds", "patches", "table"]

FOLDS = 5
SIDE = 8  # pixels of a patch, as in BSDS300

# Natural scenes and textures among the pictures that come with scikit-image.
PICTURES = ("astronaut", "camera", "chelsea", "coffee", "rocket", "brick", "grass", "gravel")
TRAIN_COLUMNS = 0.8  # share of a picture's columns, from the left, whose patches are trained on

TABLES = {"wine": "load_wine", "breast-cancer": "load_breast_cancer", "diabetes": "load_diabetes"}


@dataclass(frozen=True)
class Part:
    """One division of a data set; float64, shapes (N, D).

    Args:
        train: Rows that every model is fitted to.
        validation: Rows that choose between fits.
        test: Rows whose log-density is reported.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def table(name: str) -> np.ndarray:
    """A table of scikit-learn, each column standardized by all its rows; shape (N, D).

    The binary column "sex" of diabetes is left out, because it has no density.
    """
    import sklearn.datasets

    options = {"scaled": False} if name == "diabetes" else {}
    found = getattr(sklearn.datasets, TABLES[name])(**options)
    kept = [i for i, column in enumerate(found.feature_names) if column != "sex"]
    x = found.data[:, kept].astype(np.float64)
    return (x - x.mean(0)) / x.std(0)


def folds(x: np.ndarray, seed: int) -> Iterator[Part]:
    """Five divisions into 3/5 train, 1/5 validation and 1/5 test; each row is tested once."""
    x = x[np.random.default_rng(seed).permutation(len(x))]
    fold = np.arange(len(x)) % FOLDS
    for test in range(FOLDS):
        validation = (test + 1) % FOLDS
        yield Part(x[(fold != test) & (fold != validation)], x[fold == validation], x[fold == test])


def patches(train: int, test: int, seed: int) -> Part:
    """Grey patches of 8×8 pixels, preprocessed as BSDS300's; shape (N, 63).

    Levels get uniform noise and are divided by 256, the mean of the patch is subtracted, and the
    last pixel, which follows from the others, is left out. Test and validation patches come from
    the right fifth of each picture, train patches from the rest, so that no pixel is in both.

    Args:
        train: Number of train patches.
        test: Number of test patches, and of validation patches.
        seed: Chooses patches and noise.
    """
    import skimage.color
    import skimage.data

    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {"left": [], "right": []}
    for name in PICTURES:
        picture = getattr(skimage.data, name)()
        if picture.ndim == 3:
            picture = np.rint(255 * skimage.color.rgb2gray(picture))
        cut = int(TRAIN_COLUMNS * picture.shape[1])
        for side, area, n in (
            ("left", picture[:, :cut], train),
            ("right", picture[:, cut:], 2 * test),
        ):
            windows = np.lib.stride_tricks.sliding_window_view(area, (SIDE, SIDE))
            windows = windows.reshape(-1, SIDE**2)
            parts[side].append(windows[rng.choice(len(windows), n // len(PICTURES), replace=False)])
    left, right = (_continuous(np.concatenate(found), rng) for found in parts.values())
    return Part(left, right[: len(right) // 2], right[len(right) // 2 :])


def _continuous(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = (levels[rng.permutation(len(levels))] + rng.random(levels.shape)) / 256
    return (x - x.mean(1, keepdims=True))[:, :-1]
