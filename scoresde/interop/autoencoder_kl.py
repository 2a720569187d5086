"""Autoencoders of the library diffusers: folders with the config and weights of an AutoencoderKL.

The folder is that of the autoencoder (config.json and weights), or that of a pipeline with `vae/`.
Our `Encoder` and `Decoder` have the layers and names of its tensors, so that nothing is converted
but two names. The library is not needed, and none of its code runs.

Between raw latents u and those of the score model, z, diffusers has

    z = (u − shift_factor) · scaling_factor
    z = (u − latents_mean) · scaling_factor / latents_std      if these are given, for each channel

which is our z = (u − latent_mean)/latent_std.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .._tensor import check_fits, check_integer, check_number
from ..autoencoder import Autoencoder, convolutional_autoencoder
from ..checkpoint import CheckpointError
from ..data import DataSpec
from .diffusers import new_name, understood
from .imported import file_record
from .plain_json import read_table
from .weights import find_weights, is_weights, read_weights

__all__ = ["described_source", "is_autoencoder_folder", "read_autoencoder", "write_autoencoder"]

_CLASS, _CONFIG, _PART = "AutoencoderKL", "config.json", "vae"
_VERSION = "0.42.1"  # of diffusers, whose keys are written
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_LEVELS = 256  # of 8-bit images, whose first and last level are −1 and 1
# Keys whose absence means these values, which are the defaults of the class.
_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
# Where a tensor of ours is in the library, if it is elsewhere.
_MOVED = {
    "encoder.quant_conv": "quant_conv",
    "decoder.post_quant_conv": "post_quant_conv",
}


def is_autoencoder_folder(path: Path) -> bool:
    """Whether a folder, or a file that stands for it, is one of an AutoencoderKL; never raises."""
    try:
        return read_table(_folder(path) / _CONFIG, nested=True).get("_class_name") == _CLASS
    except (CheckpointError, OSError):
        return False


def described_source(path: str | Path) -> tuple[list[str], dict[str, Any]]:
    """What `read_autoencoder` does with each key of the config, and the provenance.

    Args:
        path: As for `read_autoencoder`, which must have read it.

    Returns:
        Lines of text; plain data: the format, the version of the library, and the files with their
        SHA-256.
    """
    folder = _folder(Path(path))
    config, (files, _) = read_table(folder / _CONFIG, nested=True), find_weights(folder)
    used = {*_DEFAULTS, "down_block_types", "up_block_types"}
    lines = [
        f"{key} = {value!r}: {'read' if key in used else 'not used'}"
        for key, value in config.items()
        if not key.startswith("_")
    ]
    about = {
        "format": f"diffusers {_CLASS}",
        "version": config.get("_diffusers_version"),
        "files": [file_record(place) for place in (folder / _CONFIG, *files)],
    }
    return lines, {key: value for key, value in about.items() if value is not None}


def _folder(path: Path) -> Path:
    """The folder with the config; `vae` of a pipeline's folder."""
    base = path.parent if path.name == _CONFIG or is_weights(path.name) else path
    return base / _PART if (base / _PART / _CONFIG).is_file() else base


def read_autoencoder(
    path: str | Path, size: int | None = None, noise_std: float = 0.1
) -> Autoencoder:
    """The autoencoder of a folder: frozen, in evaluation mode, on the CPU in float32.

    Args:
        path: The folder of an AutoencoderKL, or of a pipeline that has one.
        size: Side of the images; None for the config's `sample_size`.
        noise_std: Standard deviation of p(x | z), which the format does not hold; `fit_noise`
            measures it.

    Raises:
        CheckpointError: If files are missing, damaged, or describe another kind of model.
        ValueError: If `size` or `noise_std` is out of range, or the levels do not divide the size.
    """
    folder = _folder(Path(path))
    config = read_table(folder / _CONFIG, nested=True)
    with understood(folder, _CONFIG):
        values = _values(config)
        _scale(values)
    spec = _spec(values, size)
    files, _ = find_weights(folder)
    tensors = {_ours(new_name(name)): tensor for name, tensor in read_weights(files).items()}
    with understood(folder):
        levels = len(values["block_out_channels"])
        if values["layers_per_block"] * levels > len(tensors):
            raise ValueError(
                f"layers_per_block is {values['layers_per_block']} for {levels} "
                f"block_out_channels, but the weights are only {len(tensors)} tensors"
            )
        with torch.device("meta"):
            made = convolutional_autoencoder(spec, **_arguments(values), noise_std=noise_std)
        tensors |= _scale(values)
        tensors["log_noise_std"] = torch.tensor(noise_std).log()
        check_fits(tensors, made.state_dict(), "the autoencoder of config.json")
    made.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return made.requires_grad_(False).eval()


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the networks need, checked where the networks do not check them."""
    if config.get("_class_name", _CLASS) != _CLASS:
        raise ValueError(f"_class_name must be {_CLASS}, got {config['_class_name']!r}")
    values = _DEFAULTS | {key: config[key] for key in _DEFAULTS if key in config}
    channels = values["block_out_channels"]
    if not isinstance(channels, list) or not channels:
        raise TypeError(f"block_out_channels must be a list of integers, got {channels!r}")
    if values["in_channels"] != values["out_channels"]:
        raise ValueError(
            f"out_channels must be in_channels, {values['in_channels']}, got "
            f"{values['out_channels']}"
        )
    if values["act_fn"] not in ("silu", "swish"):
        raise ValueError(f"act_fn must be silu, got {values['act_fn']!r}")
    for key, kind in (("down_block_types", _DOWN), ("up_block_types", _UP)):
        if config.get(key, [kind]) not in ([kind], [kind] * len(channels)):
            raise ValueError(f"{key} must be {kind} for each level, got {config[key]!r}")
    for key in ("in_channels", "latent_channels", "layers_per_block"):
        check_integer(key, values[key], minimum=1)
    return values


def _spec(values: Mapping[str, Any], size: int | None) -> DataSpec:
    """Images of 256 levels, whose first and last are −1 and 1."""
    side = values["sample_size"] if size is None else check_integer("size", size, minimum=1)
    sides = side if isinstance(side, list) else [side, side]
    half = 1 / (_LEVELS - 1)  # of a cell; the levels are its centres
    shape = (values["in_channels"], *sides)
    return DataSpec(shape, -1 - half, 1 + half, _LEVELS, name="images of an imported autoencoder")


def _arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `convolutional_autoencoder`."""
    return {
        "latent_channels": values["latent_channels"],
        "channels": values["block_out_channels"],
        "layers": values["layers_per_block"],
        "groups": values["norm_num_groups"],
        "attention": values["mid_block_add_attention"],
        "mixed_encoder": values["use_quant_conv"],
        "mixed_decoder": values["use_post_quant_conv"],
    }


def _scale(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """`latent_mean` and `latent_std`; see the formulas above."""
    scale = check_number("scaling_factor", values["scaling_factor"], above=0)
    mean, std, n = values["latents_mean"], values["latents_std"], values["latent_channels"]
    if (mean is None) != (std is None):
        raise ValueError("latents_mean and latents_std must be given together, or none of them")
    if mean is not None and values["shift_factor"]:
        raise ValueError("shift_factor must be absent beside latents_mean")
    if mean is None:
        mean, std = [values["shift_factor"] or 0.0] * n, [1.0] * n
    for name, numbers in (("latents_mean", mean), ("latents_std", std)):
        if not isinstance(numbers, list) or len(numbers) != n:
            raise ValueError(f"{name} must be {n} numbers, one for each channel, got {numbers!r}")
    mean = [check_number("latents_mean", value) for value in mean]
    std = [check_number("latents_std", value, above=0) for value in std]
    return {"latent_mean": torch.tensor(mean), "latent_std": torch.tensor(std) / scale}


def _ours(name: str) -> str:
    """Our name of a tensor of the library."""
    back = {there: here for here, there in _MOVED.items()}
    head, _, kind = name.rpartition(".")
    return f"{back.get(head, head)}.{kind}"


def write_autoencoder(autoencoder: Autoencoder, out: str | Path) -> list[str]:
    """Write the folder of an AutoencoderKL, which diffusers loads with `from_pretrained`.

    Args:
        autoencoder: A convolutional autoencoder.
        out: The folder to make; it appears only when it is complete.

    Returns:
        Lines of text: what was written, and what the format cannot say.

    Raises:
        ValueError: If the folder exists, or diffusers cannot express the autoencoder.
        OSError: If the folder cannot be written.
    """
    out, table = Path(out), autoencoder.table or {}
    if table.get("kind") != "convolutional":
        raise ValueError(
            "autoencoder must be a convolutional one, which alone diffusers can express, got kind "
            f"{table.get('kind')!r}"
        )
    if out.exists():
        raise ValueError(f"{out} is there already; give a folder that does not exist")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        text = json.dumps(_config(autoencoder), indent=2, sort_keys=True)
        (made / _CONFIG).write_text(f"{text}\n", "utf-8")
        weights = made / "diffusion_pytorch_model.safetensors"
        safetensors.torch.save_file(_theirs(autoencoder), weights, metadata={"format": "pt"})
        made.chmod(0o755)
        os.replace(made, out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    spec = autoencoder.spec
    return [
        f"{out}: {sum(p.numel() for p in autoencoder.parameters()) - 1:,} weights",
        f"not in this format: levels, data range {spec.low:g} to {spec.high:g}, noise_std "
        f"{float(autoencoder.noise_std.detach()):.4g} of p(x | z)",
    ]


def _theirs(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """The tensors of both networks under the library's names."""
    found = {}
    for name, value in autoencoder.state_dict().items():
        head, _, kind = name.rpartition(".")
        if head:  # not the scale and the noise, which are no tensors there
            found[f"{_MOVED.get(head, head)}.{kind}"] = value.detach().cpu().float().contiguous()
    return found


def _config(autoencoder: Autoencoder) -> dict[str, Any]:
    """The content of config.json."""
    table, spec = autoencoder.table, autoencoder.spec
    height, width = spec.shape[1:]
    levels = len(table["channels"])
    mean = autoencoder.latent_mean.double().tolist()
    std = autoencoder.latent_std.double().tolist()
    scale: dict[str, Any] = {"scaling_factor": 1.0, "latents_mean": mean, "latents_std": std}
    if len(set(mean)) == len(set(std)) == 1:
        scale = {"scaling_factor": 1 / std[0], "shift_factor": mean[0] or None}
    return {
        **{"_class_name": _CLASS, "_diffusers_version": _VERSION, "act_fn": "silu"},
        **{"in_channels": spec.shape[0], "out_channels": spec.shape[0]},
        **{"down_block_types": [_DOWN] * levels, "up_block_types": [_UP] * levels},
        "block_out_channels": list(table["channels"]),
        "layers_per_block": table["layers"],
        "latent_channels": table["latent_channels"],
        "norm_num_groups": table["groups"],
        "sample_size": height if height == width else [height, width],
        "use_quant_conv": table["mixed_encoder"],
        "use_post_quant_conv": table["mixed_decoder"],
        "mid_block_add_attention": table["attention"],
        **scale,
    }
