"""Files of the mean and covariance of features: .npz with `mu` and `sigma`, as FID programs write.

Such a file replaces the reference data of a Fréchet distance. It holds no samples, so that no other
metric can use it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .._files import atomic_write
from .frechet import GaussianStats

__all__ = ["load_statistics", "save_statistics"]


def save_statistics(path: str | Path, stats: GaussianStats) -> None:
    """Write statistics as .npz: `mu` (d,) and `sigma` (d, d) in float64, and `n` and `space`.

    Programs that compute FID read the first two.

    Raises:
        OSError: If the file cannot be written.
    """
    values = {"mu": stats.mean.cpu().numpy(), "sigma": stats.cov.cpu().numpy()}
    with atomic_write(path) as file:
        np.savez(file, **values, n=np.int64(stats.n), space=np.str_(stats.space))


def load_statistics(
    path: str | Path, space: str | None = None, n: int | None = None
) -> GaussianStats:
    """Read statistics from .npz with `mu` and `sigma`, also those that other programs wrote.

    Files of other programs say neither of how many samples nor of which features they are. Both
    must be given for them. Features have the same label only if network, resize and rounding are
    the same: `sigma` of images that were resized in another manner gives a wrong distance without
    an error.

    Args:
        path: File.
        space: Label of the feature space (`FeatureSpace.label`); None for that of the file.
        n: Number of samples; None for that of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not hold `mu` (d,) and a covariance `sigma` (d, d), does not
            say its n or space and none is given, or says another than the given one.
    """
    arrays = _arrays(Path(path))
    known = {
        "space": str(arrays["space"]) if "space" in arrays else None,
        "n": int(arrays["n"]) if "n" in arrays else None,
    }
    for name, given in {"space": space, "n": n}.items():
        if known[name] is None and given is None:
            raise ValueError(f"{path} does not say its {name}: give {name}")
        if None not in (known[name], given) and known[name] != given:
            raise ValueError(f"{name} must be that of {path}, {known[name]}, got {given}")
        known[name] = given if known[name] is None else known[name]
    try:
        return GaussianStats(arrays["mu"], arrays["sigma"], **known)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error} (mu is the mean, sigma the covariance)") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, read without pickle."""
    content = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in ("mu", "sigma", "n", "space") if name in file}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(f"{path} cannot be read as .npz") from error
    missing = [name for name in ("mu", "sigma") if name not in content]
    if missing:
        raise ValueError(f"{path} must hold mu and sigma, but has no {' and no '.join(missing)}")
    return content
