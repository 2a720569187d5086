"""Checkpoints of score_sde_pytorch: DDPM, DDPM++ and NCSN++ under VP, sub-VP and VE.

The file holds the weights, their moving averages in the order of the parameters, the state of the
optimizer and the step, but no settings. These are given by the name of the published ones, or by a
file; see `score_sde_settings`. Names of tensors are facts of the format; none of the library's code
is needed, and nothing in the file is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from .._tensor import check_choice, check_fits, finite_or_raise
from .._text import reason_of
from ..checkpoint import CheckpointError
from ..data import DataSpec
from ..nets import NCSNpp
from ..score import NetworkScore, Preconditioning
from ..score.preconditioning import INDEX_LABELS
from ..sde import SDE, VE, VP, SubVP, TabulatedVP
from .imported import Imported, file_record
from .pickles import read_pickle
from .score_sde_settings import PUBLISHED, read_settings
from .score_sde_tensors import from_library, in_library, names_of
from .torch_files import head_of

__all__ = ["network", "read", "recognizes"]

_SEARCHED = 8 << 20  # bytes at the beginning of a file in which the names of the tensors are
_NCSN = "begin_conv."  # the first layer of the networks before NCSN++
_PATHS = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}
_USES = {  # of settings that are not arguments of the network
    "training.sde": "the SDE",
    "training.continuous": "the SDE and the label",
    "data.dataset": "the name of the data",
    "data.centered": "the range of the data",
    "data.uniform_dequantization": "the range of the data",
    "model.sigma_min": "the SDE",
    "model.sigma_max": "the SDE",
    "model.num_scales": "the number of discrete levels",
    "model.beta_min": "the SDE",
    "model.beta_max": "the SDE",
}


def recognizes(path: Path) -> bool:
    """Whether a file looks like PyTorch's and names tensors as score_sde_pytorch does."""
    head = head_of(path, _SEARCHED)
    named = b"all_modules.0." in head or _NCSN.encode() in head
    return named and b"sigmas" in head


def read(
    path: Path,
    settings: str | Path | None = None,
    weights: Literal["ema", "model"] = "ema",
    label: Literal["index", "rounded_index"] = "index",
) -> Imported:
    """The model of a checkpoint.

    Args:
        path: The file.
        settings: Name of published settings, or a TOML or JSON file with settings. None: a file of
            the checkpoint's name that ends with .toml or .json instead, or the published settings
            that the folders of the path name, as in `ve/cifar10_ncsnpp_continuous/file.pth`.
        weights: "ema", the moving averages, or "model", the last weights.
        label: Meaning of the labels of a discrete VP network between the trained ones; see
            `Preconditioning`. Other networks have no such labels, and it is not used.

    Raises:
        CheckpointError: If the file is damaged or is none of these, if its settings are not known,
            or if tensors do not fit them; the message lists the first that differ.
    """
    check_choice("weights", weights, ("ema", "model"))
    check_choice("label", label, INDEX_LABELS)
    path = Path(path)
    tensors, averages, about = _content(read_pickle(path), path)
    name, values = _settings_for(path, settings, tensors)
    if weights == "ema" and averages is None:
        raise CheckpointError('it has no moving averages; weights="model" takes the others', path)
    try:
        _check_levels(tensors, values)
        net = network(values, tensors, averages if weights == "ema" else None)
        sde, preconditioning = process(values, label)
        model = NetworkScore(net, sde, preconditioning).requires_grad_(False).eval()
        data = _data_of(values)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's for sizes beyond 64 bits
        raise CheckpointError(f"{reason_of(error)} (settings {name})", path) from error
    provenance = {
        "format": "score_sde_pytorch",
        "settings": name,
        "averaging": about["averaging"] if weights == "ema" else "none",
        "files": [file_record(path)],
    }
    return Imported(model, data, tuple(_report(values, net)), provenance | about["step"])


def network(
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    averages: list[Tensor] | None = None,
) -> NCSNpp:
    """The network of these settings with these weights.

    Args:
        settings: As from `read_settings`.
        tensors: By their names in the library, without prefix.
        averages: Values for those that were trained, in their order; None for `tensors` alone.

    Raises:
        ValueError: If tensors are missing or unexpected, or have another shape.
        NonFiniteError: If a tensor is not finite.
    """
    with torch.device("meta"):
        net = NCSNpp(**_arguments(settings))
    names = dict(names_of(net))
    own = net.state_dict()
    given = {name: value for name, value in tensors.items() if name != "sigmas"}
    expected = {theirs: in_library(own[ours], theirs) for theirs, ours in names.items()}
    check_fits(given, expected, "the network of these settings")
    if averages is not None:
        trained = [name for name in given if names[name] != "waves.weight"]
        if len(averages) != len(trained):
            raise ValueError(f"there are {len(averages)} moving averages of {len(trained)} tensors")
        given |= dict(zip(trained, averages, strict=True))
        check_fits(given, expected, "the network of these settings")
    for name, value in given.items():
        if not value.is_meta:
            finite_or_raise(value, name)
    cast = {ours: from_library(given[theirs], theirs, own[ours]) for theirs, ours in names.items()}
    net.load_state_dict(cast, assign=True)
    return net


def process(
    settings: Mapping[str, Any], label: Literal["index", "rounded_index"] = "index"
) -> tuple[SDE, Preconditioning]:
    """The SDE of settings, and the meaning of the network's input, label and output.

    Song et al. 2021, arXiv:2011.13456, appendix C. The networks of VP and sub-VP predict ε at the
    label 999 t, or at the index of one of N levels. Those of VE predict the score; their label is σ
    here, and a network of N discrete levels finds their index from it.
    """
    kind, continuous = settings["training.sde"], settings["training.continuous"]
    least, most = settings["model.beta_min"], settings["model.beta_max"]
    if kind == "vesde":
        sde = VE(settings["model.sigma_min"], settings["model.sigma_max"])
        return sde, Preconditioning("score", "sigma", scale_input=False)
    if kind == "subvpsde" or continuous:
        sde = (SubVP if kind == "subvpsde" else VP)(least, most)
        return sde, Preconditioning("eps", "time", scale_input=False, label_scale=999.0)
    count = settings["model.num_scales"]
    return TabulatedVP(VP(least, most).ddpm_betas(count).tolist()), Preconditioning(
        "eps", label, scale_input=False
    )


def _content(
    tree: Any, path: Path
) -> tuple[dict[str, Tensor], list[Tensor] | None, dict[str, Any]]:
    """The tensors by name, the moving averages, and what else is worth keeping."""
    state = tree if isinstance(tree, dict) else {}
    found = state.get("model", state)
    found = found if isinstance(found, dict) else {}
    tensors = {str(name).removeprefix("module."): value for name, value in found.items()}
    if f"{_NCSN}weight" in tensors:
        raise CheckpointError(
            "holds a network of NCSN or NCSNv2, which is not supported; DDPM, DDPM++ and NCSN++ "
            "are",
            path,
        )
    if not any(name.startswith("all_modules.") for name in tensors):
        raise CheckpointError("its tensors are not named as score_sde_pytorch does it", path)
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name[:80]} is not a tensor", path)
    ema, step = state.get("ema"), state.get("step")
    ema = ema if isinstance(ema, dict) else {}
    averages = ema.get("shadow_params")
    if averages is not None and not (
        isinstance(averages, list) and all(isinstance(value, Tensor) for value in averages)
    ):
        raise CheckpointError("its moving averages are not a list of tensors", path)
    about = {"averaging": f"exponential moving average, decay {ema.get('decay')}"}
    return tensors, averages, about | {"step": {"step": step} if type(step) is int else {}}


def _settings_for(
    path: Path, given: str | Path | None, tensors: Mapping[str, Tensor]
) -> tuple[str, dict[str, Any]]:
    """The settings of a checkpoint, with their name."""
    beside = [path.with_suffix(end) for end in (".toml", ".json")]
    folders = path.absolute().parent.as_posix()
    named = [name for name in PUBLISHED if f"{folders}/".endswith(f"/{name}/")]
    for source in [given] if given else [*(p for p in beside if p.is_file()), *named]:
        return str(source), read_settings(source)
    fitting = [name for name, values in PUBLISHED.items() if _fits(values, tensors)]
    raise CheckpointError(
        "the file does not say its settings: give the name of published ones, or write those of "
        f"your training into {beside[0].name} beside it; its tensors fit "
        f"{', '.join(fitting) or 'none of the published ones'}",
        path,
    )


def _fits(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    shapes = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
    try:
        _check_levels(tensors, settings)
        network(settings, shapes)
    except (ValueError, RuntimeError):
        return False
    return True


def _check_levels(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless the noise levels in the file are those of the settings."""
    sigmas = tensors.get("sigmas")
    if sigmas is None:
        return
    if sigmas.ndim != 1 or len(sigmas) < 2 or not sigmas.is_floating_point():
        raise ValueError("the noise levels in the file are not a list of numbers")
    found = {
        "model.num_scales": len(sigmas),
        "model.sigma_max": float(sigmas[0]),
        "model.sigma_min": float(sigmas[-1]),
    }
    for key, value in found.items():
        if not math.isclose(value, settings[key], rel_tol=1e-4):
            raise ValueError(
                f"{key} is {settings[key]:g} in the settings and {value:g} in the file"
            )


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `NCSNpp`.

    Raises:
        ValueError: If settings do not fit together.
    """
    get = {key.partition(".")[2]: value for key, value in settings.items()}
    first, side, steps = get["name"] == "ddpm", get["image_size"], len(get["ch_mult"])
    discrete_ve = get["sde"] == "vesde" and not get["continuous"]
    fourier = get["embedding_type"] == "fourier" and not first
    if get["sde"] == "vesde" and fourier == discrete_ve:
        raise ValueError(
            "model.embedding_type must be fourier with training.continuous, and positional "
            f"without, for vesde, got {get['embedding_type']}"
        )
    if get["sde"] != "vesde" and get["scale_by_sigma"]:
        raise ValueError(f"model.scale_by_sigma must be false for {get['sde']}, got true")
    sides = [side // 2**level for level in range(steps)]
    return {
        "shape": [get["num_channels"], side, side],
        "channels": get["nf"],
        "multipliers": get["ch_mult"],
        "blocks": get["num_res_blocks"],
        "attention": [n for n in get["attn_resolutions"] if n in sides],
        "block": "ddpm" if first else get["resblock_type"],
        "fir": get["fir"] and not first,
        "input_path": "none" if first else _PATHS[get["progressive_input"]],
        "output_path": "none" if first else _PATHS[get["progressive"]],
        "joining": "concatenate" if get["progressive_combine"] == "cat" else "add",
        "convolve": get["resamp_with_conv"],
        "skip_scale": get["skip_rescale"] and not first,
        "groups": 32 if first else 0,
        "embedding": "fourier" if fourier else "waves",
        "ladder": [get["sigma_min"], get["sigma_max"], get["num_scales"]] if discrete_ve else None,
        "divide": get["scale_by_sigma"],
        "centred": not get["centered"],
        "dropout": get["dropout"],
    }


def _data_of(settings: Mapping[str, Any]) -> DataSpec:
    """The data, whose 256 levels have the values k/255, or fill the range if dequantized."""
    side = settings["data.image_size"]
    low = -1.0 if settings["data.centered"] else 0.0
    half = 0.0 if settings["data.uniform_dequantization"] else (1.0 - low) / 510
    shape = (settings["data.num_channels"], side, side)
    name = settings["data.dataset"].lower()
    return DataSpec(shape, low - half, 1.0 + half, levels=256, name=name)


def _report(settings: Mapping[str, Any], net: NCSNpp) -> Iterator[str]:
    for key, value in settings.items():
        yield f"{key} = {value!r}: {_USES.get(key, 'the network')}"
    if net.ladder is not None:
        yield "between its discrete levels the network gets interpolated indices"
