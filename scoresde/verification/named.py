"""The model of `scoresde check MODEL`, and the sampler of `scoresde verify --sampler PLACE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._text import reason_of
from ..interop.samplers import ForeignSampler, foreign_sampler
from ..names.importing import construct_imported, import_any, import_object
from ..names.samplers import is_own, parse_sampler
from ..plain import ConfigError, is_class_path, split_name
from ..score import ScoreModel
from ..tasks.request import StoredModel

__all__ = ["named_model", "named_sampler"]


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
        return StoredModel.read(name, net, sde).build(device)
    for option, value in (("--net", net), ("--sde", sde)):
        if value is not None:
            raise ValueError(f"{option}: {value} is for a checkpoint, and {name} is a model itself")
    module, _, rest = name.partition(":")
    found = import_object(f"{module}:{rest.partition(':')[0]}", "model")
    if not isinstance(found, ScoreModel):
        found = construct_imported("model", name, ScoreModel)
    return found.to(device)


def named_sampler(text: str, arguments: Mapping[str, Any] | None = None) -> ForeignSampler:
    """The sampler of any library at a place, or one of this package by its name.

    Args:
        text: A name with parameters as `parse_sampler` reads it, or `package.module:Name` or
            `package.module:Name:key=value` of anything that `foreign_sampler` takes. The module is
            imported, which runs its code.
        arguments: Further arguments of an object at a place.

    Raises:
        ConfigError: If there is no such sampler, or a parameter is unknown.
    """
    if not is_own(text):
        return foreign_sampler(parse_sampler(text), arguments, text)
    module, _, rest = text.strip().partition(":")
    name, *_ = rest.split(":")
    found = import_any(f"{module}:{name}", "sampler")
    _, given = split_name("sampler", rest, [name])
    try:
        return foreign_sampler(found, given | dict(arguments or {}), rest)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sampler {text!r}: {error}") from error
    except Exception as error:  # the constructor may raise anything
        reason = f"making it raised {type(error).__name__}: {reason_of(error)}"
        raise ConfigError(f"sampler {text!r}: {reason}") from error
