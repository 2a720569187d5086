"""Models of the library diffusers: folders with a UNet2DModel and a scheduler.

The folder is that of a pipeline (model_index.json, `unet`, `scheduler`), or the one of the network,
with the scheduler's beside it. Names of keys and tensors are facts of the format; the library
itself is not needed, and none of its code runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._tensor import check_fits, check_integer
from .._text import reason_of
from ..checkpoint import CheckpointError
from ..data import DataSpec
from ..nets import BlockUNet
from ..score import NetworkScore
from .diffusers_scheduler import Scheduled, scheduled
from .imported import Imported, file_record
from .plain_json import read_table
from .weights import find_weights, read_weights

__all__ = ["DOWN", "FLAGS", "UP", "read", "recognizes"]

_INDEX, _UNET, _SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
_AVERAGED = "unet_ema"  # written by the training script beside `unet`

DOWN = {
    "DownBlock2D": "plain",
    "AttnDownBlock2D": "attention",
    "ResnetDownsampleBlock2D": "residual",
    "SkipDownBlock2D": "skip",
    "AttnSkipDownBlock2D": "skip_attention",
}
UP = {
    "UpBlock2D": "plain",
    "AttnUpBlock2D": "attention",
    "ResnetUpsampleBlock2D": "residual",
    "SkipUpBlock2D": "skip",
    "AttnSkipUpBlock2D": "skip_attention",
}
_EMBEDDINGS = {"positional": "waves", "fourier": "fourier", "learned": "table"}
_LAYERS = {"conv": "conv", "resnet": "residual"}
_SHIFTS = {"default": False, "scale_shift": True}
_ACTIVATIONS = {name: name for name in ("silu", "mish", "gelu", "relu")} | {"swish": "silu"}


def _choice(allowed: Mapping[str, Any]) -> Callable[[str, Any], Any]:
    """A reader of one of several names."""

    def read_choice(key: str, value: Any) -> Any:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
        return allowed[value]

    return read_choice


def _each(allowed: Mapping[str, str]) -> Callable[[str, Any], list[str]]:
    """A reader of a list of names; the prefix UNetRes of early versions is dropped."""

    def read_names(key: str, value: Any) -> list[str]:
        if not isinstance(value, list):
            raise TypeError(f"{key} must be a list, got {value!r}")
        names = [n.removeprefix("UNetRes") if isinstance(n, str) else n for n in value]
        return [_choice(allowed)(f"each entry of {key}", name) for name in names]

    return read_names


def _integer(key: str, value: Any) -> int:
    return check_integer(key, value, minimum=0, maximum=10**6)


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{key} must be true or false, got {value!r}")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} must be a number, got {value!r}")
    return float(value)


def _widths(key: str, value: Any) -> list[int]:
    if not isinstance(value, list):
        raise TypeError(f"{key} must be a list, got {value!r}")
    return [check_integer(f"each entry of {key}", n, minimum=1, maximum=10**6) for n in value]


# Key of the config -> (argument of `BlockUNet`, reader of the value, the value if it is not there).
# A value of null stands for the argument's own default.
FLAGS: dict[str, tuple[str, Callable[[str, Any], Any], Any]] = {
    "block_out_channels": ("widths", _widths, [224, 448, 672, 896]),
    "down_block_types": ("down", _each(DOWN), ["DownBlock2D", *["AttnDownBlock2D"] * 3]),
    "up_block_types": ("up", _each(UP), [*["AttnUpBlock2D"] * 3, "UpBlock2D"]),
    "layers_per_block": ("blocks", _integer, 2),
    "attn_norm_num_groups": ("middle_groups", _integer, None),
    "norm_eps": ("eps", _number, 1e-5),
    "attention_head_dim": ("head", _integer, 8),
    "resnet_time_scale_shift": ("scale_shift", _choice(_SHIFTS), "default"),
    "downsample_type": ("shrink", _choice(_LAYERS), "conv"),
    "upsample_type": ("grow", _choice(_LAYERS), "conv"),
    "downsample_padding": ("padding", _integer, 1),
    "mid_block_scale_factor": ("middle_scale", _number, 1),
    "act_fn": ("activation", _choice(_ACTIVATIONS), "silu"),
    "dropout": ("dropout", _number, 0.0),
    "time_embedding_type": ("embedding", _choice(_EMBEDDINGS), "positional"),
    "time_embedding_dim": ("width", _integer, None),
    "freq_shift": ("shift", _number, 0),
    "flip_sin_to_cos": ("cosine_first", _flag, True),
    "center_input_sample": ("centred", _flag, False),
}
# Keys that several arguments depend on.
_JOINT = {
    **{"sample_size": None, "in_channels": 3, "out_channels": 3, "norm_num_groups": 32},
    **{"mid_block_type": "UNetMidBlock2D", "add_attention": True, "num_train_timesteps": None},
    **{"class_embed_type": None, "num_class_embeds": None},
}


def recognizes(path: Path) -> bool:
    """Whether a folder has the files of a pipeline or of a network of diffusers."""
    folder = path.parent if path.name == _INDEX else path
    places = (folder / _INDEX, folder / _UNET, *(folder / n / _UNET for n in ("unet", _AVERAGED)))
    return folder.is_dir() and any(place.is_file() for place in places)


def read(path: Path, label: str = "index") -> Imported:
    """The model of a folder.

    Args:
        path: The folder, or its model_index.json.
        label: Meaning of a discrete label between the trained ones, "index" or "rounded_index";
            see `Preconditioning`. A network with a table of labels takes "rounded_index" only.

    Raises:
        CheckpointError: If files are missing, damaged, or describe another kind of model.
    """
    folder = path.parent if path.name == _INDEX else path
    with understood(folder):
        unet, averaged = _network_folder(folder)
    scheduler = _scheduler_file(folder, unet)
    config = read_table(unet / _UNET)
    with understood(unet, _UNET):
        arguments, used = arguments_of_config(config)
    plan = read_table(scheduler)
    with understood(scheduler.parent, _SCHEDULER):
        label = "rounded_index" if arguments.get("embedding") == "table" else label
        meaning = scheduled(plan, label)
    files = find_weights(unet)
    with understood(unet):
        net = _loaded(arguments, read_weights(files))
        model = NetworkScore(net, meaning.sde, meaning.preconditioning)
        model = model.requires_grad_(False).eval()
        data = _data_of(arguments, meaning, folder)
    report = [*_report("unet", config, used), *_report("scheduler", plan, meaning.used)]
    about = {
        "format": "diffusers",
        "version": config.get("_diffusers_version"),
        "averaging": averaged,
        "licence": _licence(folder),
        "scheduler": plan,
        "files": [
            file_record(p, f"{p.parent.name}/{p.name}") for p in (unet / _UNET, scheduler, *files)
        ],
    }
    return Imported(model, data, tuple(report), {k: v for k, v in about.items() if v is not None})


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


def _network_folder(folder: Path) -> tuple[Path, str]:
    """The folder with the network, and which averaged weights it holds, in words."""
    if (folder / _INDEX).is_file():
        _check_pipeline(read_table(folder / _INDEX))
    if (folder / _AVERAGED / _UNET).is_file():
        return folder / _AVERAGED, f"the averaged weights, of the folder {_AVERAGED}"
    unet = folder / "unet" if (folder / "unet" / _UNET).is_file() else folder
    if not (unet / _UNET).is_file():
        raise ValueError(f"neither unet/{_UNET} nor {_UNET} is in this folder")
    if unet.name == _AVERAGED:
        return unet, "the averaged weights, as the folder's name says"
    return unet, "unknown: the weights of a pipeline may be averaged or not"


def _check_pipeline(index: Mapping[str, Any]) -> None:
    """Raise ValueError if a pipeline has more than a network and a scheduler."""
    parts = [key for key in index if not key.startswith("_")]
    further = sorted(set(parts) - {"unet", "scheduler"})
    if further or "unet" not in parts:
        name = index.get("_class_name")
        raise ValueError(
            f"{name!r} has the parts {', '.join(parts)}; only pipelines of unet and scheduler can "
            "be read"
        )


def _scheduler_file(folder: Path, unet: Path) -> Path:
    """The scheduler's config, in the folder or beside it."""
    places = [base / "scheduler" / _SCHEDULER for base in (folder, folder.parent)]
    places += [unet / _SCHEDULER]
    for place in places:
        if place.is_file():
            return place
    raise CheckpointError(
        f"scheduler/{_SCHEDULER} is missing, in the folder and beside it; without it the noise "
        "levels and the prediction are unknown",
        folder,
    )


def arguments_of_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments of a `BlockUNet`, and for each key what became of it.

    Args:
        config: The content of a UNet2DModel's config.json.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If the class is another one, or a key or a value is unknown.
    """
    if config.get("_class_name") != "UNet2DModel":
        raise ValueError(
            f"_class_name is {config.get('_class_name')!r}; only UNet2DModel can be read"
        )
    for key, value in config.items():
        if not (key.startswith("_") or key in FLAGS or key in _JOINT or value is None):
            raise ValueError(f"unknown key {key!r} = {value!r}: its meaning is not known")
    arguments, used = {}, {}
    for key, (argument, reader, default) in FLAGS.items():
        value = config.get(key, default)
        used[key] = f"net.{argument}"
        if value is not None:
            arguments[argument] = reader(key, value)
    joint = _JOINT | {key: config[key] for key in _JOINT if key in config}
    return arguments | _joint_arguments(joint, arguments), used | _joint_report(joint)


def _joint_arguments(joint: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that depend on several keys."""
    channels, groups = _integer("in_channels", joint["in_channels"]), joint["norm_num_groups"]
    outputs = _integer("out_channels", joint["out_channels"])
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"out_channels must be in_channels = {channels} or twice as many, got {outputs}"
        )
    arguments = {
        "shape": [channels, *_sides(joint["sample_size"])],
        "groups": 0 if groups is None else check_integer("norm_num_groups", groups, minimum=1),
        "middle": _middle(joint),
        "learned_variance": outputs == 2 * channels,
        "labels": joint["num_train_timesteps"],
        **_class_arguments(joint, known),
    }
    return {key: value for key, value in arguments.items() if value is not None}


def _sides(size: Any) -> list[int]:
    """Height and width."""
    if size is None:
        raise ValueError("sample_size is null: write the side of the images into it")
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2:
        raise ValueError(f"sample_size must be a side or [height, width], got {size!r}")
    return [check_integer("sample_size", side, minimum=1, maximum=1 << 16) for side in sides]


def _middle(joint: Mapping[str, Any]) -> str:
    if joint["mid_block_type"] is None:
        return "none"
    _choice({"UNetMidBlock2D": None})("mid_block_type", joint["mid_block_type"])
    return "attention" if _flag("add_attention", joint["add_attention"]) else "plain"


def _class_arguments(joint: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The condition of the network."""
    kind, classes = joint["class_embed_type"], joint["num_class_embeds"]
    if kind is None:
        return {"classes": classes}
    if kind == "identity":
        return {"vector": known.get("width", 4 * known["widths"][0])}
    if kind != "timestep":
        raise ValueError(f"class_embed_type must be null, timestep or identity, got {kind!r}")
    if classes is None:
        raise ValueError("num_class_embeds is null: write the number of classes into it")
    return {"classes": classes, "class_input": "waves"}


def _joint_report(joint: Mapping[str, Any]) -> dict[str, str]:
    return {
        **{"sample_size": "net.shape", "in_channels": "net.shape", "norm_num_groups": "net.groups"},
        **{"out_channels": "net.learned_variance: twice in_channels, of which half is not used"},
        **{"mid_block_type": "net.middle", "add_attention": "net.middle"},
        **{"num_train_timesteps": "net.labels", "class_embed_type": "the condition"},
        **{"num_class_embeds": "net.classes"},
    } | ({} if joint["class_embed_type"] != "identity" else {"num_class_embeds": "not used"})


def _loaded(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network with the weights of a file, in float32.

    It is first made without memory, so that a config which does not fit the weights is refused
    before memory is taken.
    """
    layers = arguments["blocks"] * len(arguments["widths"])
    if layers > len(tensors):
        raise ValueError(f"{layers} layers are more than the {len(tensors)} tensors")
    with torch.device("meta"):
        net = BlockUNet(**arguments)
    tensors = {new_name(name): tensor for name, tensor in tensors.items()}
    tensors = {
        name: t for name, t in tensors.items() if name not in _TWICE or _TWICE[name] not in tensors
    }
    check_fits(tensors, net.state_dict(), "the network of config.json")
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return net


_TWICE = {"time_proj.W": "time_proj.weight"}  # early versions stored it under both names
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def new_name(name: str) -> str:
    """The present name of a tensor that an early version of diffusers named otherwise."""
    head, _, kind = name.rpartition(".")
    block, _, layer = head.rpartition(".")
    if ".attentions." in name and layer in _OLD_ATTENTION:
        return f"{block}.{_OLD_ATTENTION[layer]}.{kind}"
    return name


def _data_of(arguments: Mapping[str, Any], meaning: Scheduled, folder: Path) -> DataSpec:
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
