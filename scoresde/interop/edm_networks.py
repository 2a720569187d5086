"""The two networks of EDM as ours: `SongUNet` is an `NCSNpp`, `DhariwalUNet` a `BlockUNet`.

`SongUNet` is DDPM++ or NCSN++ (Song et al. 2021, arXiv:2011.13456), `DhariwalUNet` ADM (Dhariwal &
Nichol 2021, arXiv:2105.05233); Karras et al. 2022, arXiv:2206.00364, table 1 and appendix F.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._tensor import check_choice, check_fits, check_integer, finite_or_raise
from ..nets import BlockUNet, NCSNpp
from ..nets.block_parts import AttentionBlock
from .unet_tensors import Naming, carried

__all__ = ["NETWORKS", "UNUSED", "network"]

_LARGEST = 4096  # of a side, or of a number of channels
_RESIDUAL = {
    "norm1": "norm0",
    "conv1": "conv0",
    "time_emb_proj": "affine",
    "norm2": "norm1",
    "conv2": "conv1",
    "conv_shortcut": "skip",
}
_ATTENTION = {"group_norm": "norm2", "to_q": "qkv", "to_out.0": "proj"}
_NAMING = Naming(_RESIDUAL, _ATTENTION, ("head", "channel", "part"), ones=2)
_PATHS = {"standard": "none", "skip": "skip", "residual": "residual"}
_HEAD = 64  # channels of a head of DhariwalUNet

_COMMON: dict[str, Any] = {
    **{"img_resolution": None, "in_channels": None, "out_channels": None, "label_dim": 0},
    **{"augment_dim": 0, "channel_mult_emb": 4, "dropout": 0.1, "label_dropout": 0},
}
# Arguments of each network with their defaults; None stands for one that is always given.
NETWORKS: dict[str, dict[str, Any]] = {
    "SongUNet": _COMMON
    | {"model_channels": 128, "channel_mult": [1, 2, 2, 2], "num_blocks": 4}
    | {"attn_resolutions": [16], "embedding_type": "positional", "channel_mult_noise": 1}
    | {"encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1]},
    "DhariwalUNet": _COMMON
    | {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "num_blocks": 3}
    | {"attn_resolutions": [32, 16, 8]},
}
# Arguments that do not change the function of images and classes alone.
UNUSED = {
    "augment_dim": "of training; images here are not augmented",
    "label_dropout": "of training; here a class must be given",
}


def network(name: str, given: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network with the weights of a stored one.

    Args:
        name: Name of its class.
        given: Arguments of its constructor.
        tensors: By their names in the library.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the class is another one, an argument is missing, unknown or has no
            counterpart here, or if tensors do not fit.
        NonFiniteError: If a tensor is not finite.
    """
    check_choice("the class of the network", name, NETWORKS)
    unknown = [key for key in given if key not in NETWORKS[name]]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a known argument of {name}")
    get = NETWORKS[name] | dict(given)
    _check(name, get, len(tensors))
    song = name == "SongUNet"
    with torch.device("meta"):
        net = NCSNpp(**_song(get)) if song else BlockUNet(**_dhariwal(get))
    rest = {
        key: value
        for key, value in tensors.items()
        if not key.endswith("resample_filter") and key not in ("map_augment.weight", *_APART)
    }
    if song:
        outputs = [key for key in rest if _OUTPUT in key]
        whole = [key for key in outputs if rest[key].shape[:1] == (get["out_channels"],)]
        rest |= {key: rest[key][: get["in_channels"]] for key in whole}
    places = _song_places(net) if song else _dhariwal_places(net)
    found = carried(net, list(places), rest, _NAMING)
    found |= _classes(net, tensors)
    if song and get["embedding_type"] == "fourier":
        found["waves.weight"] = _taken(tensors, "map_noise.freqs", net.waves.weight.shape)
    net.load_state_dict(found, assign=True)
    return net


# The output of SongUNet. iDDPM's has a second half, which EDM itself does not use.
_OUTPUT = "_aux_conv."
_APART = ("map_noise.freqs", "map_label.weight", "map_label.bias")


def _classes(net: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vector of each class: a column of a matrix, in SongUNet times √K and with a bias."""
    count = net.condition.classes
    if count is None:
        return {}
    features = net.class_embedding.weight.shape[1]
    table = _taken(tensors, "map_label.weight", (features, count)).T
    if isinstance(net, NCSNpp):
        table = table * math.sqrt(count) + _taken(tensors, "map_label.bias", (features,))
    return {"class_embedding.weight": table.contiguous()}


def _taken(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    given = {name: tensors[name]} if name in tensors else {}
    check_fits(given, {name: torch.empty(shape, device="meta")}, "the network of these settings")
    value = tensors[name]
    value = value if value.is_meta else finite_or_raise(value, name)
    return value.to(torch.float32, copy=True)


def _check(name: str, get: Mapping[str, Any], tensors: int) -> None:
    for key in ("img_resolution", "in_channels", "out_channels", "model_channels", "num_blocks"):
        check_integer(key, get[key], minimum=1, maximum=_LARGEST)
    for key in ("label_dim", "augment_dim"):
        check_integer(key, get[key], minimum=0, maximum=10**6)
    for key in ("channel_mult", "attn_resolutions"):
        if not isinstance(get[key], list | tuple):
            raise TypeError(f"{key} must be a list, got {get[key]!r}")
        for number in get[key]:
            check_integer(f"each entry of {key}", number, minimum=1, maximum=_LARGEST)
    if get["num_blocks"] * len(get["channel_mult"]) > tensors:
        raise ValueError(f"num_blocks is {get['num_blocks']}, but there are {tensors} tensors")
    check_integer("channel_mult_emb", get["channel_mult_emb"], minimum=1, maximum=64)
    if get["out_channels"] != 2 * get["in_channels"] and get["out_channels"] != get["in_channels"]:
        raise ValueError(
            f"out_channels is {get['out_channels']} for {get['in_channels']} in_channels"
        )


def _song(get: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `NCSNpp`."""
    side, steps = get["img_resolution"], len(get["channel_mult"])
    check_choice("embedding_type", get["embedding_type"], ("positional", "fourier"))
    check_choice("encoder_type", get["encoder_type"], _PATHS)
    check_choice("decoder_type", get["decoder_type"], ("standard", "skip"))
    fourier = get["embedding_type"] == "fourier"
    for key, wanted in {"channel_mult_emb": 4, "channel_mult_noise": 2 if fourier else 1}.items():
        if get[key] != wanted:
            raise ValueError(f"{key} must be {wanted} for {get['embedding_type']}, got {get[key]}")
    kernel = list(get["resample_filter"])
    if kernel not in ([1, 1], [1, 3, 3, 1]):
        raise ValueError(f"resample_filter must be [1, 1] or [1, 3, 3, 1], got {kernel}")
    fir = len(kernel) == 4
    if get["encoder_type"] == "residual" and not fir:
        raise ValueError("resample_filter must be [1, 3, 3, 1] for the encoder_type residual")
    sides = [side // 2**level for level in range(steps)]
    return {
        "shape": [get["in_channels"], side, side],
        "channels": get["model_channels"],
        "multipliers": get["channel_mult"],
        "blocks": get["num_blocks"],
        "attention": [n for n in get["attn_resolutions"] if n in sides],
        "fir": fir,
        "input_path": _PATHS[get["encoder_type"]],
        "output_path": _PATHS[get["decoder_type"]],
        "embedding": "fourier_label" if fourier else "waves",
        "dropout": get["dropout"],
        "classes": get["label_dim"] or None,
    }


def _dhariwal(get: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `BlockUNet`."""
    side, channels = get["img_resolution"], get["model_channels"]
    widths = [channels * factor for factor in get["channel_mult"]]
    for width in widths:
        if width < 128 or width % _HEAD:
            raise ValueError(f"each level must have 128, 192, 256, … channels, got {width}")
    chosen = get["attn_resolutions"]
    kinds = ["attention" if side >> i in chosen else "residual" for i in range(len(widths))]
    return {
        "shape": [get["in_channels"], side, side],
        "widths": widths,
        "down": kinds,
        "up": kinds[::-1],
        "blocks": get["num_blocks"],
        "middle_groups": 32,
        "head": _HEAD,
        "scale_shift": True,
        "shrink": "residual",
        "grow": "residual",
        "dropout": get["dropout"],
        "features": None if widths[0] == channels else channels,
        "width": channels * get["channel_mult_emb"],
        "learned_variance": get["out_channels"] == 2 * get["in_channels"],
        "classes": get["label_dim"] or None,
    }


def _song_places(net: NCSNpp) -> Iterator[tuple[str, str]]:
    """(name in the library, our name) of each block or layer."""
    yield from _mapping("embedder")
    sides = [net.shape[1] >> i for i in range(len(net.down))]
    yield f"enc.{_at(sides[0])}_conv", "stem"
    for i, (side, level) in enumerate(zip(sides, net.down, strict=True)):
        count = -1
        for j, step in enumerate(level.steps):
            count += not isinstance(step, AttentionBlock)
            yield f"enc.{_at(side)}_block{count}", f"down.{i}.steps.{j}"
        if level.shrink is not None:
            yield f"enc.{_at(side // 2)}_down", f"down.{i}.shrink"
        if level.join is not None:
            skip = isinstance(level.join, nn.Conv2d)
            name = "skip" if skip else "residual"
            yield f"enc.{_at(side // 2)}_aux_{name}", f"down.{i}.join" + ("" if skip else ".conv")
    yield from _middle(sides[-1], "middle.0", "middle.1", "middle.2")
    for i, (side, level) in enumerate(zip(reversed(sides), net.up, strict=True)):
        for j in range(len(level.blocks)):
            yield f"dec.{_at(side)}_block{j}", f"up.{i}.blocks.{j}"
        if level.attention is not None:
            yield f"dec.{_at(side)}_block{len(level.blocks) - 1}", f"up.{i}.attention"
        if level.grow is not None:
            yield f"dec.{_at(2 * side)}_up", f"up.{i}.grow"
        if level.part is not None:
            yield f"dec.{_at(side)}_aux_norm", f"up.{i}.norm"
            yield f"dec.{_at(side)}_aux_conv", f"up.{i}.part"
    if net.head is not None:
        yield f"dec.{_at(sides[0])}_aux_norm", "norm"
        yield f"dec.{_at(sides[0])}_aux_conv", "head"


def _dhariwal_places(net: BlockUNet) -> Iterator[tuple[str, str]]:
    """(name in the library, our name) of each block or layer."""
    yield from _mapping("time_embedding")
    sides = [net.shape[1] >> i for i in range(len(net.down_blocks))]
    yield f"enc.{_at(sides[0])}_conv", "conv_in"
    for i, side in enumerate(sides):
        yield from _level(net.down_blocks[i], f"enc.{_at(side)}_block", f"down_blocks.{i}")
        if i + 1 < len(sides):
            yield f"enc.{_at(side // 2)}_down", f"down_blocks.{i}.downsamplers.0"
    middle = [f"mid_block.{name}" for name in ("resnets.0", "attentions.0", "resnets.1")]
    yield from _middle(sides[-1], *middle)
    for i, side in enumerate(reversed(sides)):
        yield from _level(net.up_blocks[i], f"dec.{_at(side)}_block", f"up_blocks.{i}")
        if i + 1 < len(sides):
            yield f"dec.{_at(2 * side)}_up", f"up_blocks.{i}.upsamplers.0"
    yield "out_norm", "conv_norm_out"
    yield "out_conv", "conv_out"


def _mapping(ours: str) -> Iterator[tuple[str, str]]:
    for number in (0, 1):
        yield f"map_layer{number}", f"{ours}.linear_{number + 1}"


def _middle(side: int, first: str, attention: str, last: str) -> Iterator[tuple[str, str]]:
    yield f"dec.{_at(side)}_in0", first
    yield f"dec.{_at(side)}_in0", attention
    yield f"dec.{_at(side)}_in1", last


def _level(level: nn.Module, theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for part in ("resnets", "attentions"):
        for j in range(len(getattr(level, part))):
            yield f"{theirs}{j}", f"{ours}.{part}.{j}"


def _at(side: int) -> str:
    return f"{side}x{side}"
