"""The kinds of SDEs and networks that a config names, and the tables [sde] and [net]."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from .. import nets
from ..fingerprint import parameters
from ..plain import ConfigError, check_values, construct, construct_named, split_kind
from ..sde import SDE, VE, VP, CosineVP, Linear, SubVP, TabulatedVP, cosine_betas, linear_betas
from .importing import checked_kind, class_path, import_object
from .pairwise import PairwiseVE, is_pairwise

__all__ = [
    "CLASSIFIERS",
    "NETS",
    "SDES",
    "checked_net",
    "plain_value",
    "sde_of",
    "sde_table",
    "takes",
]

SDES: dict[str, type[SDE]] = {
    "vp": VP,
    "subvp": SubVP,
    "ve": VE,
    "cosine": CosineVP,
    "linear": Linear,
    "tabulated": TabulatedVP,
}
BETAS = {"linear": linear_betas, "cosine": cosine_betas}  # tables of β that have a name
NETS: dict[str, type[nn.Module]] = {
    "unet": nets.UNet,
    "minimal_unet": nets.MinimalUNet,
    "dense_unet": nets.DenseUNet,
    "ddpm_unet": nets.DDPMUNet,
    "block_unet": nets.BlockUNet,
    "ncsnpp": nets.NCSNpp,
    "mlp": nets.MLP,
    "transformer": nets.Transformer,
    "mlp_classifier": nets.MLPClassifier,
    "unet_classifier": nets.UNetClassifier,
}
CLASSIFIERS = ("mlp_classifier", "unet_classifier")  # networks that predict the class


def sde_table(sde: SDE) -> dict[str, Any]:
    """Kind and parameters of an SDE as plain data; parameters of other types are left out.

    The kind is one of our names, or the place of the class.
    """
    kind = next((name for name, cls in SDES.items() if type(sde) is cls), class_path(type(sde)))
    plain = {name: plain_value(value) for name, value in parameters(sde).items()}
    return {"kind": kind} | {k: v for k, v in plain.items() if isinstance(v, _PLAIN)}


def takes(make: Callable[..., Any], name: str) -> bool:
    """Whether a network's class or function has a parameter of this name."""
    return name in inspect.signature(make).parameters


def checked_net(
    values: Mapping[str, Any], where: str, own: bool, shaped: bool
) -> Callable[..., Any] | None:
    """What makes a network of the user's own, after its arguments have been checked."""
    kind = values.get("kind")
    if not (isinstance(kind, str) and ":" in kind):
        net, arguments = split_kind(NETS, values, where)
        check_values(net, arguments, where, skip=("shape",) if shaped else ())
        return None
    if not own:
        return None
    net = import_object(kind, "network")
    arguments = {key: value for key, value in values.items() if key != "kind"}
    check_values(net, arguments, where, skip=("shape",))
    return net


def sde_of(values: Mapping[str, Any], where: str, own: bool) -> SDE | PairwiseVE:
    """The forward process of a table [sde]; a class of the user's own only if `own` is set."""
    kind = values.get("kind")
    if own and is_pairwise(values, where):
        rest = {k: v for k, v in values.items() if k not in ("kind", "sigma_max")}
        return construct(PairwiseVE, rest, where)
    if isinstance(kind, str) and ":" in kind:
        if not own:
            name = kind.rpartition(":")[2]
            raise ConfigError(
                f"{where}: {kind} is of the user's own code, which is not imported from a "
                f"checkpoint; give sde={name}(…) (--sde {kind})"
            )
        arguments = {key: value for key, value in values.items() if key != "kind"}
        made = construct(import_object(kind, "SDE"), arguments, where)
        return checked_kind(made, SDE, where)
    sde, arguments = split_kind(SDES, values, where)
    if sde is TabulatedVP and isinstance(betas := arguments.get("betas"), str):
        arguments["betas"] = construct_named(f"{where}.betas:", betas, BETAS).tolist()
    return construct(sde, arguments, where)


_PLAIN = (bool, int, float, str, list, dict)


def plain_value(value: Any) -> Any:
    """A value as plain data: arrays, tensors and tuples become lists."""
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
