"""The model that `scoresde check MODEL` names."""

from __future__ import annotations

from ..checkpoint import read_checkpoint
from ..names.importing import construct_imported, import_object, is_class_path
from ..names.loading import build, config_of, net_from_text, sde_from_text
from ..score import ScoreModel
from ..shipped import locate

__all__ = ["named_model"]


def named_model(
    name: str, device: str = "cpu", net: str | None = None, sde: str | None = None
) -> ScoreModel:
    """The score model of a checkpoint, or one of the user's own code.

    Args:
        name: A shipped checkpoint's name, a file, or `package.module:Name` of a score model, or of
            a class or function that makes one: without arguments, or with those of the text
            `package.module:Name:key=value`. The module is imported, which runs its code.
        device: Device of the model.
        net: Place of the network of a checkpoint whose network is the user's own.
        sde: SDE of a checkpoint whose SDE is the user's own.

    Raises:
        ConfigError: If a module cannot be imported, or has no such object.
        CheckpointError: If the checkpoint cannot be read, or does not fit net or sde.
        ValueError: If net or sde are given without a checkpoint, or the name is unknown.
    """
    if not is_class_path(name):
        return _of_checkpoint(name, device, net, sde)
    for option, value in (("--net", net), ("--sde", sde)):
        if value is not None:
            raise ValueError(f"{option}: {value} is for a checkpoint, and {name} is a model itself")
    module, _, rest = name.partition(":")
    found = import_object(f"{module}:{rest.partition(':')[0]}", "model")
    if not isinstance(found, ScoreModel):
        found = construct_imported("model", name, ScoreModel)
    return found.to(device)


def _of_checkpoint(name: str, device: str, net: str | None, sde: str | None) -> ScoreModel:
    raw = read_checkpoint(locate("checkpoints", name))
    own_sde = None if sde is None else sde_from_text(sde, raw)
    spec = config_of(raw, own_sde)[1]
    own_net = None if net is None else net_from_text(net, raw, spec)
    return build(raw, device, own_net, own_sde).model
