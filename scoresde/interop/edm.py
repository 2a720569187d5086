"""Pickles of EDM: its two networks under the preconditionings of VP, VE, iDDPM and EDM.

Karras et al. 2022, arXiv:2206.00364, table 1. The averaged network is taken. Classes, arguments and
tensors are read from the pickle; the source code that it holds as well is not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from .._tensor import check_choice, check_integer, check_number
from .._text import reason_of
from ..checkpoint import CheckpointError
from ..nets import NCSNpp
from ..score import NetworkScore, Preconditioning
from ..score.preconditioning import INDEX_LABELS
from ..sde import SDE, VE, VP, TabulatedVP, cosine_betas
from .edm_networks import NETWORKS, UNUSED, network
from .edm_pickle import StoredModule, stored_module
from .guided_diffusion import data_of
from .imported import Imported, file_record
from .pickles import read_pickle
from .torch_files import head_of

__all__ = ["process", "read", "recognizes"]

_SEARCHED = 1 << 16  # bytes at the beginning of a file, in which the first class is named
_SIGMAS = (0.002, 80.0)  # the paper's, table 1, for networks without a range of their own
# Arguments of each preconditioning with their defaults.
_PRECONDITIONINGS: dict[str, dict[str, float]] = {
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000},
    "EDMPrecond": {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5},
}
_REST = {
    "use_fp16": "not used; the network computes in float32",
    "epsilon_t": "not used; the least time of training",
    "M": "the label, and the number of levels of iDDPM",
}


def recognizes(path: Path) -> bool:
    """Whether a file looks like a pickle of EDM's modules, or names tensors as EDM does."""
    head = head_of(path, _SEARCHED)
    modules = (b"torch_utils.persistence", b"_reconstruct_persistent_obj")
    tensors = (b"map_layer0.weight", b"map_layer1.weight")
    return any(all(name in head for name in names) for names in (modules, tensors))


def read(path: Path, label: Literal["index", "rounded_index"] = "index") -> Imported:
    """The averaged model of a pickle.

    Args:
        path: The file.
        label: Meaning of the labels of iDDPM between the trained ones; see `Preconditioning`.

    Raises:
        CheckpointError: If the file is damaged or holds no model of EDM, or one that cannot be
            expressed here; or if tensors do not fit, with the first that differ.
    """
    check_choice("label", label, INDEX_LABELS)
    path = Path(path)
    tree = _content(read_pickle(path), path)
    try:
        outer = stored_module(tree["ema"], "ema")
        check_choice("the class of ema", outer.name, _PRECONDITIONINGS)
        inner = outer.submodule("model")
        net = network(inner.name, inner.arguments, inner.tensors())
        sde, meaning = process(outer, net, label)
        model = NetworkScore(net, sde, meaning).requires_grad_(False).eval()
        data = data_of(net)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's for sizes beyond 64 bits
        raise CheckpointError(reason_of(error), path) from error
    provenance = {
        "format": "edm",
        "averaging": "the averaged weights, of the entry ema",
        "licence": "not stated in the file; the weights that NVIDIA published have the licence "
        "CC BY-NC-SA 4.0, which allows no commercial use",
        "files": [file_record(path)],
    }
    return Imported(model, data, tuple(_report(outer, inner)), provenance)


def _content(tree: Any, path: Path) -> dict[str, Any]:
    """The entries of a snapshot; other files of EDM are refused by what they are."""
    if not isinstance(tree, dict):
        tree = {}
    if any(str(name).endswith("map_layer0.weight") for name in tree):
        raise CheckpointError(
            "holds the tensors of a network of EDM without its class and arguments; give the "
            "pickle, network-snapshot-….pkl",
            path,
        )
    if "ema" not in tree and "optimizer_state" in tree:
        raise CheckpointError(
            "is a training state of EDM, whose weights are not averaged; give the pickle, "
            "network-snapshot-….pkl",
            path,
        )
    if "ema" not in tree:
        raise CheckpointError("has no entry 'ema' with a network of EDM", path)
    return tree


def process(
    outer: StoredModule, net: nn.Module, label: Literal["index", "rounded_index"] = "index"
) -> tuple[SDE, Preconditioning]:
    """The SDE of a preconditioning, and the meaning of the network's input, label and output.

    VE's network, which predicts −ε, gets the opposite sign; this is exact.

    Args:
        outer: The preconditioning.
        net: The network, which may be changed.
        label: Of iDDPM; see `Preconditioning`.

    Raises:
        ValueError: If the network does not fit the preconditioning.
    """
    get, inner = _numbers(outer), outer.submodule("model").arguments
    doubled = inner["out_channels"] == 2 * inner["in_channels"]
    if doubled != (outer.name == "iDDPMPrecond"):
        raise ValueError(f"the number of output channels does not fit {outer.name}")
    if outer.name == "VPPrecond":
        sde = VP(get["beta_min"], get["beta_min"] + get["beta_d"])
        return sde, Preconditioning("eps", "time", scale_input=False, label_scale=get["M"] - 1)
    if outer.name == "iDDPMPrecond":
        betas = cosine_betas(get["M"], get["C_2"], 1 - get["C_1"])
        return TabulatedVP(tuple(betas.tolist())), Preconditioning("eps", label, scale_input=False)
    if outer.name == "VEPrecond":
        _negate(net)
        sde = VE(get["sigma_min"], get["sigma_max"])
        offset = -math.log(2)  # the label is log(σ/2)
        return sde, Preconditioning("eps", "log_sigma", scale_input=False, label_offset=offset)
    sde = VE(max(get["sigma_min"], _SIGMAS[0]), min(get["sigma_max"], _SIGMAS[1]))
    return sde, Preconditioning("edm", "edm", sigma_data=get["sigma_data"])


def _numbers(outer: StoredModule) -> dict[str, Any]:
    """The numbers of a preconditioning, checked."""
    defaults = _PRECONDITIONINGS[outer.name]
    get = {key: outer.arguments.get(key, value) for key, value in defaults.items()}
    for key, value in get.items():
        if key == "M":
            check_integer(key, value, minimum=2, maximum=10**5)
        elif (key, value) != ("sigma_max", float("inf")):
            check_number(key, value, at_least=0, below=1e9)
    if "C_1" in get:
        check_number("C_1", get["C_1"], above=0, below=1)
    return get


def _negate(net: nn.Module) -> None:
    """Give the output of a network the opposite sign."""
    if not isinstance(net, NCSNpp):
        last = [net.conv_out]
    else:
        last = [net.head] if net.head is not None else [level.part for level in net.up]
    with torch.no_grad():
        for layer in last:
            layer.weight.neg_()
            layer.bias.neg_()


def _report(outer: StoredModule, inner: StoredModule) -> Iterator[str]:
    yield f"class = {outer.name}: the SDE, the target and the label"
    for key, value in (_PRECONDITIONINGS[outer.name] | {"use_fp16": False}).items():
        shown = outer.arguments.get(key, value)
        yield f"{key} = {shown!r}: {_REST.get(key, 'the SDE or the preconditioning')}"
    yield f"model_type = {inner.name!r}: the network"
    given: Mapping[str, Any] = NETWORKS[inner.name] | dict(inner.arguments)
    for key, value in given.items():
        yield f"{key} = {value!r}: {UNUSED.get(key, 'the network')}"
    yield "the source code in the file is not used"
