"""Settings of guided-diffusion and improved-diffusion: the published ones, and a user's file.

The two libraries take settings as options of their programs; the files of weights do not hold them.
Keys and values are facts of the published commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .settings_file import read_settings_of, without_like

__all__ = ["PUBLISHED", "checked_settings", "levels_of", "read_settings"]

_LARGEST = 4096  # of a side, or of a number of channels, blocks or heads
_STEPS = 10**5
# Levels of the images of a side, where channel_mult is not given.
_LEVELS: dict[int, list[float]] = {
    **{32: [1, 2, 2, 2], 64: [1, 2, 3, 4], 128: [1, 1, 2, 3, 4], 256: [1, 1, 2, 2, 4, 4]},
    512: [0.5, 1, 1, 2, 2, 4, 4],
}
_SCHEDULES = ("linear", "cosine")
# Each key with its default. A default of None stands for a key that must be given.
_KEYS: dict[str, Any] = {
    **{"image_size": None, "num_channels": None, "num_res_blocks": None, "channel_mult": []},
    **{"attention_resolutions": None, "num_heads": 4, "num_head_channels": -1, "dropout": 0.0},
    **{"class_cond": False, "use_scale_shift_norm": True, "resblock_updown": False},
    **{"use_new_attention_order": False, "learn_sigma": False, "predict_xstart": False},
    **{"diffusion_steps": 1000, "noise_schedule": "linear", "rescale_timesteps": None},
}
_REQUIRED: dict[str, type] = {
    **{"image_size": int, "num_channels": int, "num_res_blocks": int},
    **{"attention_resolutions": list, "rescale_timesteps": bool},
}
_FIXED: dict[str, Any] = {"num_heads_upsample": -1}
# Keys of training and sampling, which do not change the trained function.
_UNUSED = (
    *("use_fp16", "use_checkpoint", "timestep_respacing", "use_kl", "rescale_learned_sigmas"),
    *("sigma_small", "lr", "batch_size", "microbatch", "schedule_sampler", "ema_rate"),
)

_ADM = {
    **{"num_channels": 256, "num_res_blocks": 2, "attention_resolutions": [32, 16, 8]},
    **{"num_head_channels": 64, "resblock_updown": True, "learn_sigma": True},
    "rescale_timesteps": False,
}
_LSUN = _ADM | {"image_size": 256, "dropout": 0.1}
_COSINE = {
    **{"num_channels": 128, "num_res_blocks": 3, "attention_resolutions": [16, 8]},
    **{"learn_sigma": True, "diffusion_steps": 4000, "noise_schedule": "cosine"},
    "rescale_timesteps": True,
}
_IMAGENET_64 = _COSINE | {"image_size": 64}
_CIFAR10 = _COSINE | {"image_size": 32, "dropout": 0.3}
_LSUN_FIRST = {
    **{"image_size": 256, "num_channels": 128, "num_res_blocks": 2, "num_heads": 1},
    **{"learn_sigma": True, "use_scale_shift_norm": False, "attention_resolutions": [16]},
    "rescale_timesteps": False,
}

# The names are those of the published files, without ".pt".
PUBLISHED: dict[str, dict[str, Any]] = {
    name: _KEYS | values
    for name, values in {
        "64x64_diffusion": _ADM
        | {"image_size": 64, "num_channels": 192, "num_res_blocks": 3, "class_cond": True}
        | {"dropout": 0.1, "noise_schedule": "cosine", "use_new_attention_order": True},
        "128x128_diffusion": _ADM
        | {"image_size": 128, "class_cond": True, "num_heads": 4, "num_head_channels": -1},
        "256x256_diffusion": _ADM | {"image_size": 256, "class_cond": True},
        "256x256_diffusion_uncond": _ADM | {"image_size": 256},
        "512x512_diffusion": _ADM | {"image_size": 512, "class_cond": True},
        "lsun_bedroom": _LSUN,
        "lsun_cat": _LSUN,
        "lsun_horse": _LSUN,
        "lsun_horse_nodropout": _LSUN | {"dropout": 0.0},
        "imagenet64_uncond_100M_1500K": _IMAGENET_64,
        "imagenet64_uncond_vlb_100M_1500K": _IMAGENET_64,
        "imagenet64_cond_270M_250K": _IMAGENET_64
        | {"num_channels": 192, "class_cond": True, "rescale_timesteps": False},
        "cifar10_uncond_50M_500K": _CIFAR10,
        "cifar10_uncond_vlb_50M_500K": _CIFAR10,
        "lsun_uncond_100M_1200K_bs128": _LSUN_FIRST,
        "lsun_uncond_100M_2400K_bs64": _LSUN_FIRST,
    }.items()
}


def read_settings(source: str | Path) -> dict[str, Any]:
    """The settings of a published name, or of a TOML or JSON file.

    A file has the options of the libraries as keys, with lists for `attention_resolutions` and
    `channel_mult`. Its key `like` may name published settings, of which it then gives the
    differences.

    Args:
        source: A key of `PUBLISHED`, or the path of a file that ends with .toml or .json.

    Raises:
        CheckpointError: If there are no such settings, a key is missing or unknown, or a value is
            of the wrong type or not supported.
    """
    return read_settings_of(source, PUBLISHED, checked_settings)


def checked_settings(table: Any) -> dict[str, Any]:
    """The settings of a file's content, each value checked.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a key is missing or unknown, or a value is not supported.
    """
    if not isinstance(table, dict):
        raise TypeError("settings must be a table")
    given, like = without_like(table, PUBLISHED)
    for key, value in given.items():
        if key in _FIXED and value != _FIXED[key]:
            raise ValueError(f"{key} must be {_FIXED[key]!r}, got {value!r}")
        if key not in (*_KEYS, *_FIXED, *_UNUSED):
            raise ValueError(f"{key} is not a known setting")
    settings = dict(_KEYS) if like is None else like
    settings |= {key: _checked(key, value) for key, value in given.items() if key in _KEYS}
    if settings["rescale_timesteps"] is None and settings["diffusion_steps"] == 1000:
        settings["rescale_timesteps"] = False  # the factor is 1
    missing = [key for key, value in settings.items() if value is None]
    if missing:
        raise ValueError(f"settings must have {', '.join(missing)}")
    if not settings["channel_mult"] and settings["image_size"] not in _LEVELS:
        raise ValueError(f"settings must have channel_mult for image_size {settings['image_size']}")
    return settings


def levels_of(settings: Mapping[str, Any]) -> list[float]:
    """Channels of each level, in units of `num_channels`."""
    return settings["channel_mult"] or _LEVELS[settings["image_size"]]


def _checked(key: str, value: Any) -> Any:
    kind = _REQUIRED.get(key) or type(_KEYS[key])
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"{key} must be of type {kind.__name__}, got {value!r}")
    if key == "noise_schedule" and value not in _SCHEDULES:
        raise ValueError(f"{key} must be one of {', '.join(_SCHEDULES)}, got {value!r}")
    if (key, value) == ("num_head_channels", -1):
        return value
    least, most = (32, _STEPS) if key == "diffusion_steps" else (1, _LARGEST)
    for number in value if kind is list else [value] if kind is int else []:
        if key == "channel_mult":
            if type(number) not in (int, float) or not 0 < number <= most:
                raise ValueError(f"{key} must hold numbers above 0, up to {most}, got {number!r}")
        elif type(number) is not int or not least <= number <= most:
            raise ValueError(f"{key} must hold integers from {least} to {most}, got {number!r}")
    return value
