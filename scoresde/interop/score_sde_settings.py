"""Settings of score_sde_pytorch: those that its authors published, and those of a user's file.

The library keeps its settings in Python programs, which are not run here. The keys and values are
facts that the checkpoints do not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .settings_file import read_settings_of, without_like

__all__ = ["PUBLISHED", "checked_settings", "read_settings"]

_LARGEST = 4096  # of a side, a number of channels or of blocks
# Each key with its type and, of text, the allowed values.
_KEYS: dict[str, tuple[type, tuple[str, ...]]] = {
    "training.sde": (str, ("vpsde", "subvpsde", "vesde")),
    "training.continuous": (bool, ()),
    "data.dataset": (str, ()),
    "data.image_size": (int, ()),
    "data.num_channels": (int, ()),
    "data.centered": (bool, ()),
    "data.uniform_dequantization": (bool, ()),
    "model.name": (str, ("ddpm", "ncsnpp")),
    "model.sigma_min": (float, ()),
    "model.sigma_max": (float, ()),
    "model.num_scales": (int, ()),
    "model.beta_min": (float, ()),
    "model.beta_max": (float, ()),
    "model.dropout": (float, ()),
    "model.scale_by_sigma": (bool, ()),
    "model.nf": (int, ()),
    "model.ch_mult": (list, ()),
    "model.num_res_blocks": (int, ()),
    "model.attn_resolutions": (list, ()),
    "model.resamp_with_conv": (bool, ()),
    "model.embedding_type": (str, ("fourier", "positional")),
    "model.fir": (bool, ()),
    "model.skip_rescale": (bool, ()),
    "model.resblock_type": (str, ("ddpm", "biggan")),
    "model.progressive": (str, ("none", "output_skip", "residual")),
    "model.progressive_input": (str, ("none", "input_skip", "residual")),
    "model.progressive_combine": (str, ("sum", "cat")),
}
# Keys that have one value in every network that is read here.
_FIXED: dict[str, Any] = {
    "model.normalization": "GroupNorm",
    "model.nonlinearity": "swish",
    "model.conditional": True,
    "model.fir_kernel": [1, 3, 3, 1],
    "model.attention_type": "ddpm",
    "model.conv_size": 3,
}
# Keys that do not change the trained function.
_UNUSED = ("sampling.", "eval.", "optim.", "training.", "data.", "seed", "device")
_UNUSED_MODEL = (
    *("model.ema_rate", "model.init_scale", "model.fourier_scale", "model.num_classes"),
    "model.sigma_begin",
)


def _keys(table: str, **values: Any) -> dict[str, Any]:
    return {f"{table}.{key}": value for key, value in values.items()}


def _data(dataset: str, side: int, **model: Any) -> dict[str, Any]:
    """Settings of a data set, with what its published models have in common."""
    data = {"dataset": dataset, "image_size": side, "num_channels": 3, "centered": False}
    data |= {"uniform_dequantization": False}
    common = {"sigma_min": 0.01, "num_scales": 1000, "beta_min": 0.1, "beta_max": 20.0}
    return _keys("data", **data) | _keys("model", **(common | {"resamp_with_conv": True} | model))


_NO_BETA = {"model.beta_min": 0.1, "model.beta_max": 20.0}
_NO_PATHS = {"progressive": "none", "progressive_input": "none", "progressive_combine": "sum"}
_VE = _keys("training", sde="vesde", continuous=True) | _keys("model", scale_by_sigma=True)
_VP = (
    _keys("training", sde="vpsde", continuous=True)
    | _keys("data", centered=True)
    | _keys("model", scale_by_sigma=False)
)
_SUBVP = _VP | {"training.sde": "subvpsde"}
_DISCRETE = {"training.continuous": False}
_POSITIONAL = {"model.embedding_type": "positional"}
_DEEP = {"model.num_res_blocks": 8}

_CIFAR10 = _data("CIFAR10", 32, sigma_max=50.0, dropout=0.1)
_CELEBA = _data("CELEBA", 64, sigma_max=90.0, dropout=0.1)
_LSUN = _data("LSUN", 256, sigma_max=378.0, num_scales=2000, dropout=0.0)
_THOUSAND = {"model.num_scales": 1000}

_DDPM = _keys(
    "model",
    **{"name": "ddpm", "nf": 128, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 2},
    **{"attn_resolutions": [16], "embedding_type": "positional", "fir": False},
    **{"skip_rescale": False, "resblock_type": "ddpm", **_NO_PATHS},
)
_DDPM_256 = _DDPM | {"model.ch_mult": [1, 1, 2, 2, 4, 4]}
_DDPMPP = _DDPM | _keys(
    "model",
    **{"name": "ncsnpp", "num_res_blocks": 4, "skip_rescale": True, "resblock_type": "biggan"},
)
_NCSNPP = _DDPMPP | _keys("model", fir=True, progressive_input="residual", embedding_type="fourier")
_NCSNPP_256 = _NCSNPP | _keys(
    "model",
    **{"ch_mult": [1, 1, 2, 2, 2, 2, 2], "num_res_blocks": 2},
    **{"progressive": "output_skip", "progressive_input": "input_skip"},
)
_NCSNPP_1024 = _NCSNPP_256 | _keys(
    "model", nf=16, ch_mult=[1, 2, 4, 8, 16, 32, 32, 32], num_res_blocks=1, sigma_max=1348.0
)

# The names are those of the files with the settings, below `configs/`.
PUBLISHED: dict[str, dict[str, Any]] = {
    "vp/ddpm/cifar10": _CIFAR10 | _DDPM | _VP | _DISCRETE,
    "vp/ddpm/cifar10_continuous": _CIFAR10 | _DDPM | _VP,
    "vp/ddpm/bedroom": _LSUN | _THOUSAND | _DDPM_256 | _VP | _DISCRETE,
    "vp/ddpm/church": _LSUN | _THOUSAND | _DDPM_256 | _VP | _DISCRETE,
    "vp/ddpm/celebahq": _LSUN
    | _THOUSAND
    | _DDPM_256
    | _VP
    | _DISCRETE
    | {"data.dataset": "CelebAHQ"},
    "vp/cifar10_ddpmpp": _CIFAR10 | _DDPMPP | _VP | _DISCRETE,
    "vp/cifar10_ddpmpp_continuous": _CIFAR10 | _DDPMPP | _VP,
    "vp/cifar10_ddpmpp_deep_continuous": _CIFAR10 | _DDPMPP | _DEEP | _VP,
    "vp/cifar10_ncsnpp": _CIFAR10 | _NCSNPP | _POSITIONAL | _VP | _DISCRETE,
    "vp/cifar10_ncsnpp_continuous": _CIFAR10 | _NCSNPP | _POSITIONAL | _VP,
    "vp/cifar10_ncsnpp_deep_continuous": _CIFAR10 | _NCSNPP | _POSITIONAL | _DEEP | _VP,
    "subvp/cifar10_ddpm_continuous": _CIFAR10 | _DDPM | _SUBVP,
    "subvp/cifar10_ddpmpp_continuous": _CIFAR10 | _DDPMPP | _SUBVP,
    "subvp/cifar10_ddpmpp_deep_continuous": _CIFAR10 | _DDPMPP | _DEEP | _SUBVP,
    "subvp/cifar10_ncsnpp_continuous": _CIFAR10 | _NCSNPP | _POSITIONAL | _SUBVP,
    "subvp/cifar10_ncsnpp_deep_continuous": _CIFAR10 | _NCSNPP | _POSITIONAL | _DEEP | _SUBVP,
    "ve/cifar10_ddpm": _CIFAR10 | _DDPM | _VE | _DISCRETE,
    "ve/cifar10_ncsnpp": _CIFAR10 | _NCSNPP | _POSITIONAL | _VE | _DISCRETE,
    "ve/cifar10_ncsnpp_continuous": _CIFAR10 | _NCSNPP | _VE,
    "ve/cifar10_ncsnpp_deep_continuous": _CIFAR10 | _NCSNPP | _DEEP | _VE,
    "ve/celeba_ncsnpp": _CELEBA | _NCSNPP | _POSITIONAL | _VE | _DISCRETE,
    "ve/bedroom_ncsnpp_continuous": _LSUN | _NCSNPP_256 | _VE,
    "ve/church_ncsnpp_continuous": _LSUN | _NCSNPP_256 | _VE | {"model.sigma_max": 380.0},
    "ve/celebahq_256_ncsnpp_continuous": _LSUN
    | _NCSNPP_256
    | _VE
    | {"model.sigma_max": 348.0, "data.dataset": "CelebAHQ"},
    "ve/ffhq_256_ncsnpp_continuous": _LSUN
    | _NCSNPP_256
    | _VE
    | {"model.sigma_max": 348.0, "data.dataset": "FFHQ"},
    "ve/celebahq_ncsnpp_continuous": _LSUN
    | _NCSNPP_1024
    | _VE
    | {"data.image_size": 1024, "data.dataset": "CelebAHQ"},
    "ve/ffhq_ncsnpp_continuous": _LSUN
    | _NCSNPP_1024
    | _VE
    | {"data.image_size": 1024, "data.dataset": "FFHQ"},
}


def read_settings(source: str | Path) -> dict[str, Any]:
    """The settings of a published name, or of a TOML or JSON file.

    A file has the tables `training`, `data` and `model` with the library's keys. Its key `like` may
    name published settings, of which it then gives the differences.

    Args:
        source: A key of `PUBLISHED`, or the path of a file that ends with .toml or .json.

    Raises:
        CheckpointError: If there are no such settings, a key is missing or unknown, or a value is
            of the wrong type or not supported.
    """
    return read_settings_of(source, PUBLISHED, checked_settings)


def checked_settings(tables: Any) -> dict[str, Any]:
    """Tables of settings as one dictionary with keys such as `model.nf`, each value checked.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a key is missing or unknown, or a value is not supported.
    """
    if not isinstance(tables, dict):
        raise TypeError("settings must be tables training, data and model")
    given, like = without_like(tables, PUBLISHED)
    flat = {key: value for key, value in given.items() if not isinstance(value, dict)}
    for table, values in given.items():
        if isinstance(values, dict):
            flat |= {f"{table}.{key}": value for key, value in values.items()}
    settings = _not_said(flat) if like is None else like
    settings |= {key: _checked(key, value) for key, value in flat.items() if key in _KEYS}
    _check_others(flat)
    missing = [key for key in _KEYS if key not in settings]
    if missing:
        raise ValueError(f"settings must have {', '.join(missing)}")
    return settings


def _not_said(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Values that do not matter, of keys that the library's own settings may leave out.

    The layers of the network `ddpm` have one form, and VE has no β.
    """
    found = dict(_NO_BETA) if flat.get("training.sde") == "vesde" else {}
    one_form = ("fir", "skip_rescale", "resblock_type", "embedding_type", *_NO_PATHS)
    if flat.get("model.name") == "ddpm":
        found |= {f"model.{key}": _DDPM[f"model.{key}"] for key in one_form}
    return found


def _checked(key: str, value: Any) -> Any:
    kind, allowed = _KEYS[key]
    if kind is float and type(value) is int:
        value = float(value)
    if kind is list and isinstance(value, tuple):
        value = list(value)
    if type(value) is not kind:
        raise TypeError(f"{key} must be of type {kind.__name__}, got {value!r}")
    if allowed and value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
    for number in value if kind is list else [value] if kind is int else []:
        if type(number) is not int or not 1 <= number <= _LARGEST:
            raise ValueError(f"{key} must hold integers from 1 to {_LARGEST}, got {number!r}")
    return value


def _check_others(flat: Mapping[str, Any]) -> None:
    """Raise ValueError for keys that are unknown, or that have another value than is supported."""
    for key, value in flat.items():
        if key in _FIXED and value != _FIXED[key]:
            raise ValueError(f"{key} must be {_FIXED[key]!r}, got {value!r}")
        known = key in _KEYS or key in _FIXED or key.startswith(_UNUSED) or key in _UNUSED_MODEL
        if not known:
            raise ValueError(f"{key} is not a known setting")
