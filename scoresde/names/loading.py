"""From the file of a checkpoint to a model that is ready to use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._condition import ConditionSpec
from .._tensor import check_type
from .._text import reason_of
from ..checkpoint import CheckpointError, RawCheckpoint, load_into
from ..classification import NoisyClassifier
from ..data import DataSpec
from ..plain import ConfigError, check_types, construct, construct_named, is_class_path
from ..score import NetworkScore
from ..sde import SDE, VP
from .autoencoders import build_autoencoder, is_of_autoencoder
from .config import Config
from .importing import construct_imported
from .kinds import NETS, SDES, sde_table
from .latents import decoded_spec_of, decoder_of
from .sources import read_source

__all__ = [
    "Checkpoint",
    "build",
    "check_foreign",
    "config_of",
    "load",
    "net_from_text",
    "sde_from_text",
    "tables_of",
]

# Types of optional entries of the metadata.
_ABOUT = {
    **{"steps_done": int | None, "seconds": float | None, "provenance": dict},
    **{"unconditional": bool, "condition": dict, "sde_values": list[list]},
    "trained": bool,
    "latent": dict,
}


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with the description of its data and training.

    Attributes:
        model: The score model with averaged weights: frozen, in evaluation mode. A network of ours
            is in float32, one of the user's own keeps its dtype. A `NoisyClassifier` if the
            checkpoint is one of a classifier.
        data: Description of the data; None if the model was saved without one.
        config: Configuration of the training.
        metadata: All metadata of the file, steps and provenance included.
        sha256: Digest of the file's content.
        path: The file.
    """

    model: NetworkScore | NoisyClassifier
    data: DataSpec | None
    config: Config
    metadata: dict[str, Any]
    sha256: str
    path: Path


def load(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    net: nn.Module | None = None,
    sde: SDE | None = None,
) -> Checkpoint:
    """Load a checkpoint: a shipped one by name, such as "digits-vp", a file, or another library's.

    The file is data, never code: safetensors with a checksum over tensors and metadata. It names
    the class of a network or an SDE of the user's own for messages only; nothing is imported.

    Args:
        name_or_path: A name of `shipped("checkpoints")`, the path of a file, or the path of a model
            of another library in one of the formats of `interop.FORMATS`.
        device: Device of the model.
        net: The network, if it is of the user's own code. It receives the weights, and is moved and
            frozen in place.
        sde: The SDE, if it is of the user's own code.

    Returns:
        The model, ready for `sample` and `log_likelihood`.

    Raises:
        TypeError: If net is not a module, or sde not an SDE.
        ValueError: If it looks like a name but is unknown; the message gives the nearest name.
        CheckpointError: If the file is missing, damaged or not a checkpoint of scoresde, if its
            tensors do not fit the network, if its SDE is not `sde`, or if net or sde are missing,
            or given but not needed.
    """
    for name, value, kind in (("net", net, nn.Module), ("sde", sde, SDE)):
        if value is not None:
            check_type(name, value, kind)
    return build(read_source(name_or_path), device, net, sde)


@torch.inference_mode(False)  # inference tensors could not be differentiated through
def build(
    raw: RawCheckpoint,
    device: torch.device | str = "cpu",
    net: nn.Module | None = None,
    sde: SDE | None = None,
) -> Checkpoint:
    """The second half of `load`: the model of a checkpoint that has been read.

    A network of ours is first made without memory, on PyTorch's "meta" device. So a network that
    does not fit the tensors is refused at once, even if its config describes a very large network.

    Args:
        raw: From `read_checkpoint`.
        device: Device of the model.
        net: As for `load`.
        sde: As for `load`.

    Raises:
        CheckpointError: If config and tensors of the file do not fit together, or as for `load`.
        ConfigError: If `net` cannot be called as the file says.
    """
    check_foreign(raw, net is not None, sde is not None)
    config, spec = config_of(raw, sde)
    model = None if net is None else config.model_of(net)
    with _understood(raw):
        if model is None:
            _check_layer_count(config, raw)
            with torch.device("meta"):
                model = config.build_model(spec)
        load_into(model.net, raw, "model.")
        if not config.classifier:
            model.unconditional = raw.metadata.get("unconditional", model.unconditional)
        if condition := raw.metadata.get("condition"):
            model.condition = construct(ConditionSpec, condition, "metadata.condition")
        decoder = decoder_of(raw)
    model = model.requires_grad_(False).eval()
    model.data = spec
    model = (model.decoded_by(decoder) if isinstance(model, NetworkScore) else model).to(device)
    return Checkpoint(model, spec, config, raw.metadata, raw.sha256, raw.path)


def config_of(raw: RawCheckpoint, sde: SDE | None = None) -> tuple[Config, DataSpec | None]:
    """The config and data specification inside a checkpoint.

    Args:
        raw: From `read_checkpoint`.
        sde: The SDE, if it is of the user's own code.

    Raises:
        CheckpointError: If they are missing or cannot be read, or if the SDE is not this one.
    """
    if sde is not None:
        with _understood(raw):
            _check_sde(sde, raw)
    return _read_metadata(raw, sde)


def tables_of(raw: RawCheckpoint) -> tuple[dict[str, Any], DataSpec | None]:
    """The config as plain data, and the data specification; no code of the user is needed.

    Raises:
        CheckpointError: If they are missing or cannot be read.
    """
    if is_of_autoencoder(raw.metadata):
        return dict(raw.metadata["config"]), build_autoencoder(raw).spec
    own_sde = _own_kind(raw, "sde") is not None
    config, spec = _read_metadata(raw, VP() if own_sde else None)
    tables = config.to_dict()
    return (tables | {"sde": dict(raw.metadata["config"]["sde"])} if own_sde else tables), spec


def _read_metadata(raw: RawCheckpoint, sde: SDE | None) -> tuple[Config, DataSpec | None]:
    _check_score_model(raw)
    with _understood(raw):
        values, data = raw.metadata["config"], raw.metadata.get("data")
        _check_sizes(raw.metadata)
        about = {key: raw.metadata[key] for key in _ABOUT if key in raw.metadata}
        check_types(about, _ABOUT, "metadata")
        trained = raw.metadata.get("trained", True)
        required = ("data", "sde", "net", "train") if trained else ("sde", "net")
        config = Config.from_dict(values, sde=sde, required=required)
        decoded_spec_of(raw.metadata)
        if data is None and trained:
            raise KeyError("data")
        if not isinstance(data, dict | None):
            raise ConfigError(f"data: must be a table, got {data!r}")
        return config, None if data is None else DataSpec.from_dict(data)


def _check_score_model(raw: RawCheckpoint) -> None:
    """Raise CheckpointError if a checkpoint is one of an autoencoder alone."""
    if is_of_autoencoder(raw.metadata):
        raise CheckpointError(
            "is an autoencoder and no score model; a config with [latent] autoencoder = "
            f'"{raw.path}" trains one of its latents, and scoresde.load_autoencoder reads it',
            raw.path,
        )


@contextmanager
def _understood(raw: RawCheckpoint) -> Iterator[None]:
    """Turn every error caused by wrong metadata inside the block into a `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"its metadata are not understood: {reason}", raw.path) from error


def _check_sizes(value: Any) -> None:
    """Raise ConfigError on an integer of 2^64 or more: even a seed is smaller."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _check_sizes(item)
    elif isinstance(value, int) and not -(2**64) < value < 2**64:
        raise ConfigError("an integer is 2^64 or larger")


def check_foreign(raw: RawCheckpoint, net: bool, sde: bool) -> None:
    """Raise unless what is of the user's own code is given, and only that.

    Args:
        raw: From `read_checkpoint`.
        net: Whether the network is given.
        sde: Whether the SDE is given.

    Raises:
        CheckpointError: The message names the classes of the network and the SDE.
    """
    kinds, given = {name: _own_kind(raw, name) for name in _NOUNS}, {"net": net, "sde": sde}
    missing = [name for name, kind in kinds.items() if kind is not None and not given[name]]
    if missing:
        calls = ", ".join(f"{n}={kinds[n].rpartition(':')[2]}(…)" for n in missing)
        options = " ".join(f"--{n} {kinds[n]}" for n in missing)
        raise CheckpointError(
            f"was made with {' and '.join(_NOUNS[n] for n in missing)} of your own, and holds no "
            f"code; give {calls} ({options})",
            raw.path,
        )
    if net and kinds["net"] is None:
        raise CheckpointError("its network is one of scoresde's; leave out net", raw.path)


def _own_kind(raw: RawCheckpoint, table: str) -> str | None:
    """The place of the user's class of which a checkpoint's network or SDE is; None if ours."""
    config = raw.metadata.get("config")
    values = config.get(table) if isinstance(config, dict) else None
    kind = values.get("kind") if isinstance(values, dict) else None
    return kind if isinstance(kind, str) and ":" in kind else None


_NOUNS = {"net": "a network", "sde": "an SDE"}


def _check_sde(sde: SDE, raw: RawCheckpoint) -> None:
    """Raise CheckpointError if an SDE is not the stored one: in a parameter, or as a function."""
    own, stored = sde_table(sde), raw.metadata["config"]["sde"]
    if own["kind"] != stored["kind"] and {own["kind"], stored["kind"]} & SDES.keys():
        raise CheckpointError(f"its SDE is {stored['kind']}, got sde = {own['kind']}", raw.path)
    for name in [key for key in {**stored, **own} if key != "kind"]:
        if own.get(name) != stored.get(name):
            there, here = stored.get(name), own.get(name)
            raise CheckpointError(f"its SDE has {name} = {there!r}, got {here!r}", raw.path)
    for t, *there in raw.metadata.get("sde_values", ()):
        try:
            here = float(sde.log_alpha(t)), float(sde.sigma(t))
        except Exception as error:
            reason = f"{type(error).__name__}: {reason_of(error)}"
            raise CheckpointError(
                f"the SDE {own['kind']} raised {reason}, at t = {t:g}", raw.path
            ) from error
        for what, a, b in zip(("log α", "σ"), there, here, strict=True):
            if not math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9):
                raise CheckpointError(
                    f"its SDE has {what}({t:g}) = {a:.6g}, got {b:.6g}: another function", raw.path
                )


def sde_from_text(text: str, raw: RawCheckpoint | None = None) -> SDE:
    """An SDE from our names or the place of a class, with parameters.

    Args:
        text: `name:key=value` or `package.module:Name:key=value`; the module is imported.
        raw: A checkpoint; its parameters are used if the text names a class without parameters.

    Raises:
        ConfigError: If there is no such SDE, or it refuses its parameters.
    """
    if not is_class_path(text) or text.partition(":")[0] in SDES:
        return construct_named("SDE", text, SDES)
    return construct_imported("SDE", text, SDE, _stored(raw, "sde"))


def net_from_text(text: str, raw: RawCheckpoint, spec: DataSpec | None) -> nn.Module:
    """A network of the user's own from the place of its class, for a checkpoint.

    Args:
        text: `package.module:Name:key=value`; the module is imported.
        raw: The checkpoint; its arguments are used if the text has none.
        spec: What the data are: gives the parameter `shape`, if there is one.

    Raises:
        ConfigError: If there is no such class, or it refuses its arguments.
    """
    return construct_imported("network", text, nn.Module, _stored(raw, "net"), spec and spec.shape)


def _stored(raw: RawCheckpoint | None, table: str) -> dict[str, Any]:
    """The arguments in a table of a checkpoint's config."""
    stored = {} if raw is None else raw.metadata["config"].get(table, {})
    return {key: value for key, value in stored.items() if key != "kind"}


def _check_layer_count(config: Config, raw: RawCheckpoint) -> None:
    """Raise ConfigError if the network has more layers than the file has tensors.

    Making millions of layers takes minutes even without memory for their weights.
    """
    most = len(raw.tensors)
    for name, value in config.net.items():
        counts = name in NETS[config.net["kind"]].layer_counts
        count = value if counts else len(value) if isinstance(value, list) else 0
        if count > most:
            raise ConfigError(f"net.{name}: {count} layers, but the file has {most} tensors")
