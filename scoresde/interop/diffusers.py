"""Models of the library diffusers: folders with a UNet2DModel and a scheduler.

The folder is that of a pipeline (model_index.json, `unet`, `scheduler`), or the one of the network,
with the scheduler's beside it. Names of keys and tensors are facts of the format; the library
itself is not needed, and none of its code runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._tensor import check_fits
from .._text import reason_of
from ..checkpoint import CheckpointError
from ..data import DataSpec
from ..nets import BlockUNet
from ..score import NetworkScore
from ..shipped import is_model_folder
from .diffusers_config import arguments_of_config, in_keys
from .diffusers_scheduler import Scheduled, scheduled
from .imported import Imported, file_record
from .other_models import other_class
from .plain_json import read_table
from .weights import find_weights, is_weights, read_weights

__all__ = ["read", "recognizes"]

_INDEX, _UNET, _SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
_AVERAGED = "unet_ema"  # written by the training script beside `unet`
# What its EMA adds to the network's config.
_OF_AVERAGE = {
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step"),
    "use_ema_warmup",
}


def recognizes(path: Path) -> bool:
    """Whether a folder has the files of a pipeline or of a network of diffusers.

    Its model_index.json, or the config.json or the weights of a network, stand for the folder.
    """
    return is_model_folder(_folder_of(path))


def _folder_of(path: Path) -> Path:
    return path.parent if path.name in (_INDEX, _UNET) or is_weights(path.name) else path


def read(path: Path, label: str = "index") -> Imported:
    """The model of a folder.

    Args:
        path: The folder, or a file in it that stands for it; see `recognizes`.
        label: Meaning of a discrete label between the trained ones, "index" or "rounded_index";
            see `Preconditioning`. A network with a table of labels takes "rounded_index" only.

    Raises:
        CheckpointError: If files are missing, damaged, or describe another kind of model.
    """
    folder = _folder_of(path)
    with understood(folder):
        unet = _network_folder(folder)
    config = read_table(unet / _UNET)
    network = {key: value for key, value in config.items() if key not in _OF_AVERAGE}
    with understood(unet, _UNET):
        arguments, used = arguments_of_config(network)
    scheduler = _scheduler_file(folder, unet)
    plan = read_table(scheduler)
    with understood(scheduler.parent, _SCHEDULER):
        label = "rounded_index" if arguments.get("embedding") == "table" else label
        meaning = scheduled(plan, label)
    files, variant = find_weights(unet)
    with understood(unet):
        net = _loaded(arguments, read_weights(files))
        model = NetworkScore(net, meaning.sde, meaning.preconditioning)
        model = model.requires_grad_(False).eval()
        model.data = _data_of(arguments, meaning)
    report = [*_report("unet", config, used), *_report("scheduler", plan, meaning.used)]
    about = {
        "format": "diffusers",
        "version": config.get("_diffusers_version"),
        "averaging": _averaging(unet, config, variant),
        "licence": _licence(folder),
        "scheduler": plan,
        "files": [
            file_record(p, f"{p.parent.name}/{p.name}") for p in (unet / _UNET, scheduler, *files)
        ],
    }
    about = {key: value for key, value in about.items() if value is not None}
    return Imported(model, model.data, tuple(report), about)


@contextmanager
def understood(folder: Path, name: str | None = None) -> Iterator[None]:
    """Turn every error inside the block into a `CheckpointError` that names folder and file."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # torch may raise anything for sizes that no memory holds
        place = "" if name is None else f"{name}: "
        raise CheckpointError(f"{place}{reason_of(error)}", folder) from error


def _network_folder(folder: Path) -> Path:
    """The folder with the network; the one of averaged weights, if there are two."""
    if (folder / _INDEX).is_file():
        _check_pipeline(read_table(folder / _INDEX))
    for unet in (folder / _AVERAGED, folder / "unet", folder):
        if (unet / _UNET).is_file():
            return unet
    raise ValueError(f"neither unet/{_UNET} nor {_UNET} is in this folder")


def _averaging(unet: Path, config: Mapping[str, Any], variant: str | None) -> str:
    """Which weights were read, in words."""
    if unet.name == _AVERAGED or "decay" in config:
        decay = config.get("decay")
        return "the averaged weights" + ("" if decay is None else f", of decay {decay}")
    if variant == "ema":
        return "the averaged weights, as the file's name says"
    if variant == "non_ema":
        return "none: the last weights, as the file's name says"
    return "unknown: the weights of a pipeline may be averaged or not"


def _check_pipeline(index: Mapping[str, Any]) -> None:
    """Raise ValueError if a pipeline has more than a network and a scheduler."""
    # A part that is absent is [null, null].
    parts = [key for key, value in index.items() if key[:1] != "_" and value != [None, None]]
    further = sorted(set(parts) - {"unet", "scheduler"})
    if further or "unet" not in parts:
        name = index.get("_class_name")
        raise ValueError(
            f"{name!r} has the parts {', '.join(parts)}; only pipelines of unet and scheduler can "
            f"be read{other_class(' '.join(further))}"
        )


def _scheduler_file(folder: Path, unet: Path) -> Path:
    """The scheduler's config, in the folder, beside it, or two folders above.

    The training scripts write OUT/scheduler, and OUT/checkpoint-500/unet.
    """
    bases = [base / "scheduler" for base in (folder, *folder.absolute().parents[:2])]
    for place in (base / _SCHEDULER for base in (*bases, unet)):
        if place.is_file():
            return place
    raise CheckpointError(
        f"scheduler/{_SCHEDULER} is missing, in the folder, beside it and above; without it the "
        "noise levels and the prediction are unknown",
        folder,
    )


def _loaded(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network with the weights of a file, in float32.

    It is first made without memory, so that a config which does not fit the weights is refused
    before memory is taken.
    """
    blocks, levels = arguments["blocks"], len(arguments["widths"])
    if blocks * levels > len(tensors):
        raise ValueError(
            f"layers_per_block is {blocks} for {levels} block_out_channels: more layers than the "
            f"file of weights has tensors ({len(tensors)})"
        )
    try:
        with torch.device("meta"):
            net = BlockUNet(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(in_keys(str(error))) from error
    tensors = {new_name(name): tensor for name, tensor in _unwrapped(tensors).items()}
    tensors = {
        name: t for name, t in tensors.items() if name not in _TWICE or _TWICE[name] not in tensors
    }
    check_fits(tensors, net.state_dict(), "the network of config.json")
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return net


_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def _unwrapped(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors under their own names, if a wrapper of the network gave all a prefix."""
    for prefix in _WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _unwrapped({name.removeprefix(prefix): t for name, t in tensors.items()})
    return tensors


_TWICE = {"time_proj.W": "time_proj.weight"}  # early versions stored it under both names
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def new_name(name: str) -> str:
    """The present name of a tensor that an early version of diffusers named otherwise."""
    head, _, kind = name.rpartition(".")
    block, _, layer = head.rpartition(".")
    if ".attentions." in name and layer in _OLD_ATTENTION:
        return f"{block}.{_OLD_ATTENTION[layer]}.{kind}"
    return name


def _data_of(arguments: Mapping[str, Any], meaning: Scheduled) -> DataSpec:
    """256 levels, whose values are equally spaced from the lowest to the highest one."""
    half = 0.5 * (meaning.high - meaning.low) / 255  # of a cell; the levels are its centres
    return DataSpec(
        tuple(arguments["shape"]),
        meaning.low - half,
        meaning.high + half,
        256,
        arguments.get("classes"),
        name="images of an imported model",
        vector=arguments.get("vector"),
    )


def _report(source: str, config: Mapping[str, Any], used: Mapping[str, str]) -> Iterator[str]:
    for key, value in config.items():
        if not key.startswith("_"):
            shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
            yield f"{source}.{key} = {shown}: {used.get(key, 'kept; not used')}"


def _licence(folder: Path) -> str | None:
    """The licence that the head of the folder's README.md states."""
    for base in (folder, folder.parent):
        if (base / "README.md").is_file():
            with open(base / "README.md", encoding="utf-8", errors="replace") as file:
                found = re.search(
                    r"^license: *([\w.-]{1,60})\s*$", file.read(1 << 16), re.MULTILINE
                )
            return found[1] if found else None
    return None
