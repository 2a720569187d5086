"""Checkpoints of guided-diffusion and improved-diffusion: ADM and the networks before it.

Dhariwal & Nichol 2021, arXiv:2105.05233; Nichol & Dhariwal 2021, arXiv:2102.09672. The file holds
the weights alone. Its settings are given by the name of the published ones, or by a file; see
`guided_diffusion_settings`. Names of tensors are facts of the format; nothing in the file is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from .._tensor import check_choice
from .._text import reason_of
from ..checkpoint import CheckpointError
from ..data import DataSpec
from ..nets import BlockUNet
from ..nets.block_parts import Residual
from ..score import NetworkScore, Preconditioning
from ..score.preconditioning import INDEX_LABELS
from ..sde import SDE, TabulatedVP, cosine_betas, linear_betas
from .guided_diffusion_settings import PUBLISHED, levels_of, read_settings
from .imported import Imported, file_record
from .pickles import read_pickle
from .torch_files import head_of
from .unet_tensors import Naming, carried

__all__ = ["network", "read", "recognizes"]

_SEARCHED = 8 << 20  # bytes at the beginning of a file in which the names of the tensors are
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_q": "qkv", "to_out.0": "proj_out"}
_USES = {  # of settings that are not arguments of the network
    "diffusion_steps": "the number of discrete levels",
    "noise_schedule": "the SDE",
    "rescale_timesteps": "the label",
    "predict_xstart": "the target",
}


def recognizes(path: Path) -> bool:
    """Whether a file looks like PyTorch's and names tensors as guided-diffusion does."""
    head = head_of(path, _SEARCHED)
    names = (b"time_embed.0.weight", b"input_blocks.0.0.weight")
    return all(name in head for name in names)


def read(
    path: Path,
    settings: str | Path | None = None,
    label: Literal["index", "rounded_index"] = "index",
) -> Imported:
    """The model of a checkpoint.

    Args:
        path: The file.
        settings: Name of published settings, or a TOML or JSON file with settings. None: a file of
            the checkpoint's name that ends with .toml or .json instead, or the published settings
            of the checkpoint's name, as in `64x64_diffusion.pt`.
        label: Meaning of the labels between the trained ones; see `Preconditioning`.

    Raises:
        CheckpointError: If the file is damaged or is none of these, if its settings are not known,
            or if tensors do not fit them; the message lists the first that differ.
    """
    check_choice("label", label, INDEX_LABELS)
    path = Path(path)
    tensors = _content(read_pickle(path), path)
    name = _settings_for(path, settings)
    values = read_settings(name)
    try:
        net = network(values, tensors)
        model = NetworkScore(net, *process(values, label)).requires_grad_(False).eval()
        data = data_of(net)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's for sizes beyond 64 bits
        raise CheckpointError(f"{reason_of(error)} (settings {name})", path) from error
    provenance = {
        "format": "guided-diffusion",
        "settings": name,
        "averaging": "unknown: the file does not say whether its weights are averaged",
        "files": [file_record(path)],
    }
    return Imported(model, data, tuple(_report(values)), provenance)


def network(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> BlockUNet:
    """The network of these settings with these weights.

    Args:
        settings: As from `read_settings`.
        tensors: By their names in the library.

    Raises:
        ValueError: If tensors are missing or unexpected, or have another shape.
        NonFiniteError: If a tensor is not finite.
    """
    classes = None
    if settings["class_cond"]:
        table = tensors.get("label_emb.weight")
        if table is None or table.ndim != 2 or len(table) < 1:
            raise ValueError("class_cond is true, but no label_emb.weight holds the classes")
        classes = len(table)
    with torch.device("meta"):
        net = BlockUNet(**_arguments(settings, classes))
    net.load_state_dict(carried(net, list(_places(net)), tensors, _naming(settings)), assign=True)
    return net


def process(
    settings: Mapping[str, Any], label: Literal["index", "rounded_index"] = "index"
) -> tuple[SDE, Preconditioning]:
    """The SDE of settings, and the meaning of the network's label and output.

    The linear table of N levels spans the same noise for each N: from 0.1/N to 20/N, as for DDPM's
    1000. With `rescale_timesteps` the label is the index times 1000/N. (Nichol & Dhariwal 2021,
    arXiv:2102.09672, section 3.2, and DDPM, arXiv:2006.11239, section 4.)
    """
    n = settings["diffusion_steps"]
    cosine = settings["noise_schedule"] == "cosine"
    betas = cosine_betas(n) if cosine else linear_betas(n, 0.1 / n, 20.0 / n)
    scale = 1000 / n if settings["rescale_timesteps"] else 1.0
    target = "x0" if settings["predict_xstart"] else "eps"
    meaning = Preconditioning(target, label, scale_input=False, label_scale=scale)
    return TabulatedVP(tuple(betas.tolist())), meaning


def data_of(net: BlockUNet) -> DataSpec:
    """256 levels from −1 to 1; a cell of a level reaches half a step to both sides."""
    half = 1 / 255
    classes = net.condition.classes
    name = "images of an imported model"
    return DataSpec(net.shape, -1.0 - half, 1.0 + half, levels=256, classes=classes, name=name)


def _content(tree: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name."""
    tensors = tree if isinstance(tree, dict) else {}
    if "input_blocks.0.0.weight" not in tensors:
        raise CheckpointError("its tensors are not named as guided-diffusion does it", path)
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{str(name)[:80]} is not a tensor", path)
    if not any(name.startswith("output_blocks.") for name in tensors):
        raise CheckpointError(
            "holds a classifier of noisy images, which is no score model, and is not supported",
            path,
        )
    first = tensors["input_blocks.0.0.weight"]
    if first.ndim == 4 and first.shape[1] == 6:
        raise CheckpointError(
            "its network takes a second image of lower resolution, which is not supported", path
        )
    return tensors


def _settings_for(path: Path, given: str | Path | None) -> str:
    """The name of the published settings of a checkpoint, or the path of a file with settings."""
    if given:
        return str(given)
    beside = [path.with_suffix(end) for end in (".toml", ".json")]
    for source in beside:
        if source.is_file():
            return str(source)
    if path.stem in PUBLISHED:
        return path.stem
    raise CheckpointError(
        "the file does not say its settings: give the name of published ones "
        f"({', '.join(PUBLISHED)}), or write those of your training into {beside[0].name} beside "
        "it",
        path,
    )


def _arguments(settings: Mapping[str, Any], classes: int | None) -> dict[str, Any]:
    """The arguments of `BlockUNet`."""
    side, channels = settings["image_size"], settings["num_channels"]
    widths = [int(factor * channels) for factor in levels_of(settings)]
    factors = [side // least for least in settings["attention_resolutions"]]
    plain = "residual" if settings["resblock_updown"] else "plain"
    kinds = ["attention" if 2**i in factors else plain for i in range(len(widths))]
    change = "residual" if settings["resblock_updown"] else "conv"
    fixed = settings["num_head_channels"] != -1
    several = not fixed and settings["num_heads"] > 1
    return {
        "shape": [3, side, side],
        "widths": widths,
        "down": kinds,
        "up": kinds[::-1],
        "blocks": settings["num_res_blocks"],
        "groups": 32,
        "middle_groups": 32,
        "head": settings["num_head_channels"] if fixed else None,
        "heads": settings["num_heads"] if several else None,
        "scale_shift": settings["use_scale_shift_norm"],
        "shrink": change,
        "grow": change,
        "dropout": settings["dropout"],
        "features": None if channels == widths[0] else channels,
        "learned_variance": settings["learn_sigma"],
        "classes": classes,
    }


def _naming(settings: Mapping[str, Any]) -> Naming:
    first = ("part", "head") if settings["use_new_attention_order"] else ("head", "part")
    return Naming(_RESIDUAL, _ATTENTION, (*first, "channel"), ones=1)


def _places(net: BlockUNet) -> Iterator[tuple[str, str]]:
    """(name in the library, our name) of each block or layer."""
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    if net.condition.classes is not None:
        yield "label_emb", "class_embedding"
    yield "input_blocks.0.0", "conv_in"
    number = 1
    for i, level in enumerate(net.down_blocks):
        for j in range(len(level.resnets)):
            yield f"input_blocks.{number}.0", f"down_blocks.{i}.resnets.{j}"
            if len(level.attentions):
                yield f"input_blocks.{number}.1", f"down_blocks.{i}.attentions.{j}"
            number += 1
        for layer in level.downsamplers:
            yield _resampling(f"input_blocks.{number}.0", f"down_blocks.{i}.down", layer, "op")
            number += 1
    for number, ours in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        yield f"middle_block.{number}", f"mid_block.{ours}"
    yield from _places_up(net)
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"


def _places_up(net: BlockUNet) -> Iterator[tuple[str, str]]:
    number = 0
    for i, level in enumerate(net.up_blocks):
        attends = len(level.attentions) > 0
        for j in range(len(level.resnets)):
            yield f"output_blocks.{number}.0", f"up_blocks.{i}.resnets.{j}"
            if attends:
                yield f"output_blocks.{number}.1", f"up_blocks.{i}.attentions.{j}"
            number += 1
        for layer in level.upsamplers:
            place = f"output_blocks.{number - 1}.{1 + attends}"
            yield _resampling(place, f"up_blocks.{i}.up", layer, "conv")


def _resampling(theirs: str, ours: str, layer: torch.nn.Module, name: str) -> tuple[str, str]:
    """Both names of a layer that halves or doubles the resolution; its convolution is `name`."""
    if isinstance(layer, Residual):
        return theirs, f"{ours}samplers.0"
    return f"{theirs}.{name}", f"{ours}samplers.0.conv"


def _report(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield f"{key} = {value!r}: {_USES.get(key, 'the network')}"
