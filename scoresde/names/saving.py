"""From a model to the file of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .. import __version__
from .._tensor import check_type
from ..checkpoint import save_checkpoint
from ..classification import NoisyClassifier
from ..data import DataSpec
from ..score import NetworkScore
from ..sde import SDE
from .config import Config
from .importing import class_path
from .kinds import CLASSIFIERS, NETS, SDES
from .latents import latent_content

__all__ = ["content_of", "save", "sde_values"]


def save(
    path: str | Path, model: NetworkScore | NoisyClassifier, data: DataSpec | None = None
) -> None:
    """Save a model as a checkpoint for `load` and for the commands.

    The file holds the network's tensors, the SDE with its parameters, the meaning of the network's
    label and output, and how it is called. A network of ours is recorded with its arguments. Of a
    network or an SDE of the user's own only the class is named: `load` needs `net=` or `sde=` then.

    Args:
        path: The file, usually with the suffix `.safetensors`; its folder must exist.
        model: The model, on any device. It must have no condition bound.
        data: Description of the data, which the commands need; None takes `model.data`.

    Raises:
        TypeError: If the model is neither a `NetworkScore` of a module nor a `NoisyClassifier` of a
            network of ours, or an argument of `model.call` is not plain data.
        ValueError: If a condition is bound, or a weight is not finite.
        OSError: If the file cannot be written; an older file is then unchanged.
    """
    if not isinstance(model, NoisyClassifier):
        check_type("model", model, NetworkScore)
    data = model.data if data is None else data
    if data is not None:
        check_type("data", data, DataSpec)
    if model.y is not None:
        raise ValueError("model has a condition bound, which is not saved; save model.given(None)")
    save_checkpoint(path, *content_of(model, data))


def content_of(
    model: NetworkScore | NoisyClassifier,
    data: DataSpec | None,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of the checkpoint of a model, as `save` writes them.

    Args:
        model: The model, without a bound condition.
        data: Description of the data, or None.
        provenance: Where the model comes from; None says that it was made here.

    Raises:
        TypeError: If the network has no tensors, an argument of `model.call` is no plain data, or
            the model's autoencoder has networks of the user's own.
    """
    net = _bare(model.net)
    tensors = {f"model.{name}": value for name, value in net.state_dict().items()}
    if not tensors:
        raise TypeError("model.net has no tensors to save: a function must be put into a Module")
    if isinstance(model, NoisyClassifier) and _net_table(net)["kind"] not in CLASSIFIERS:
        raise TypeError(
            f"model.net must be one of the classifiers {', '.join(CLASSIFIERS)} to be saved, got "
            f"{type(net).__name__}"
        )
    parts = (None, model.sde, _net_table(net), None, model.preconditioning)
    config = Config(*parts, call=model.call, distilled=model.distilled)
    condition = None if model.condition is None else model.condition.to_dict()
    about = {
        "trained": False,
        "config": config.to_dict(),
        "data": None if data is None else data.to_dict(),
        "unconditional": getattr(model, "unconditional", None),
        "condition": condition,
        "provenance": {"scoresde": __version__, "torch": torch.__version__}
        | dict(provenance or {}),
        **sde_values(model.sde),
    }
    if isinstance(model, NetworkScore) and model.decoder is not None:
        inside, latent = latent_content(model.decoder.autoencoder, model.decoder.spec)
        tensors, about = tensors | inside, about | latent
    return tensors, {k: v for k, v in about.items() if v is not None}


def sde_values(sde: SDE) -> dict[str, Any]:
    """Metadata that show later whether an SDE of the user's own is still the same function.

    Returns:
        "sde_values", rows of t, log α(t) and σ(t); nothing for an SDE of ours.
    """
    if type(sde) in SDES.values():
        return {}
    times = (0.05, 0.2, 0.5, 0.8, 1.0)
    return {"sde_values": [[t, float(sde.log_alpha(t)), float(sde.sigma(t))] for t in times]}


def _bare(net: nn.Module) -> nn.Module:
    """The network inside the wrappers of parallel and compiled networks."""
    # The class of compiled networks is not imported: that takes a second, at each command.
    while isinstance(net, (DataParallel, DistributedDataParallel)) or hasattr(net, "_orig_mod"):
        net = net._orig_mod if hasattr(net, "_orig_mod") else net.module
    return net


def _net_table(net: nn.Module) -> dict[str, Any]:
    """Kind and arguments of a network of ours; the place of the class of another one."""
    for kind, cls in NETS.items():
        if type(net) is cls:
            return {"kind": kind, **net.arguments}
    return {"kind": class_path(type(net))}
