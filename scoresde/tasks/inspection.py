"""Describe a checkpoint, for `scoresde inspect`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import RawCheckpoint
from ..classification import NoisyClassifier
from ..data import DataSource, DataSpec, dataset_status
from ..data.transforms import chain_in_words
from ..names.autoencoders import build_autoencoder, is_of_autoencoder
from ..names.latents import decoded_spec_of
from ..names.loading import (
    build,
    check_foreign,
    config_of,
    net_from_text,
    sde_from_text,
    tables_of,
)
from ..names.sources import read_source
from ..plain import construct, is_class_path
from ..score import NetworkScore
from ..shipped import locate, shipped
from .noise_levels import ladder_in_words

__all__ = ["describe_checkpoint", "list_shipped", "to_toml"]


def describe_checkpoint(
    name_or_path: str | Path, net: str | None = None, sde: str | None = None
) -> dict[str, Any]:
    """The content of a checkpoint other than its tensors, as plain data.

    Args:
        name_or_path: File, or name of a shipped checkpoint.
        net: A network of the user's own, as `net_from_text` reads it.
        sde: An SDE of the user's own. With `net` or `sde` it is checked that the checkpoint fits
            both.

    Returns:
        Path, size, digest, number of network weights, operations of one evaluation, steps and
        seconds of training, whether it can be resumed, data, the autoencoder of a model of latents
        with the data that it decodes to, the latents of an autoencoder, noise levels of a ladder,
        provenance and config.

    Raises:
        CheckpointError: If the file is missing, damaged or not a checkpoint of scoresde, or does
            not fit the network or the SDE that is given.
        ConfigError: If these cannot be imported or made.
    """
    raw = read_source(name_or_path)
    if net is not None or sde is not None:
        check_foreign(raw, net is not None, sde is not None)
        own = None if sde is None else sde_from_text(sde, raw)
        _, spec = config_of(raw, own)
        build(raw, net=None if net is None else net_from_text(net, raw, spec), sde=own)
    config, spec = tables_of(raw)
    own_code = any(is_class_path(config[t].get("kind", "")) for t in ("net", "sde") if t in config)
    known = ("config", "data", "provenance", "steps_done", "seconds", "latent")
    return {
        "path": str(raw.path),
        "bytes": _size(raw),
        "sha256": raw.sha256,
        "weights": sum(tensor.numel() for tensor in raw.below("model.").values()),
        "flops": None
        if spec is None or own_code or is_of_autoencoder(raw.metadata)
        else _flops(build(raw).model, spec),
        "steps_done": raw.metadata.get("steps_done"),
        "seconds": raw.metadata.get("seconds"),
        "resumable": bool(raw.below("train.")),
        "data": None if spec is None else spec.to_dict(),
        "units": None if spec is None or not spec.transform else _units(spec),
        "decoded": _decoded(raw),
        "latents": _latents(raw),
        "class_map": None if spec is None else spec.class_map,
        "data_licence": _licence(config),
        "noise_levels": None if spec is None else ladder_in_words(config, spec.dims),
        "provenance": raw.metadata.get("provenance", {}),
        "config": config,
        "other": {k: v for k, v in raw.metadata.items() if k not in known},
    }


def _units(spec: DataSpec) -> str:
    """How the user's units become the model's scale, in words."""
    return chain_in_words(spec.transform, spec.feature_names)


def _latents(raw: RawCheckpoint) -> dict[str, Any] | None:
    """Shape of the latents and noise of the decoder of an autoencoder; None for other models."""
    if not is_of_autoencoder(raw.metadata):
        return None
    made = build_autoencoder(raw)
    return {"shape": list(made.latent_shape), "noise_std": float(made.noise_std)}


def _decoded(raw: RawCheckpoint) -> dict[str, Any] | None:
    """The data that the latents are decoded to, and the autoencoder; None without one."""
    spec = decoded_spec_of(raw.metadata)
    if spec is None:
        return None
    latent = raw.metadata["latent"]
    weights = sum(tensor.numel() for tensor in raw.below("autoencoder.").values())
    table = latent["autoencoder"].get("config", {}).get("autoencoder", {})
    about = {"kind": table.get("kind"), "weights": weights, "sha256": latent["sha256"]}
    return {"data": spec.to_dict(), "autoencoder": about}


def _flops(model: NetworkScore | NoisyClassifier, spec: DataSpec) -> int:
    """Floating-point operations of one evaluation of the network; a multiply-add is two.

    PyTorch counts the matrix products and convolutions of one forward pass of a batch of one.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    classifier = isinstance(model, NoisyClassifier)
    if not classifier and model.needs_labels:
        model = model.given(model.condition.example(1))
    evaluate = model.logits if classifier else model.x0
    # The fused attention of a CPU is not counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        evaluate(torch.zeros(1, *spec.shape), 0.5)
    return counted.get_total_flops()


def _size(raw: RawCheckpoint) -> int:
    """Bytes of a checkpoint's file, or of the files of another library's model."""
    if "report" in raw.metadata and raw.path.is_dir():
        return sum(entry["bytes"] for entry in raw.metadata["provenance"]["files"])
    return raw.path.stat().st_size


def list_shipped() -> list[dict[str, Any]]:
    """Name and size in bytes of each checkpoint that comes with the package."""
    names = shipped("checkpoints")
    return [{"name": name, "bytes": locate("checkpoints", name).stat().st_size} for name in names]


def _licence(config: Mapping[str, Any]) -> str | None:
    """The licence of a data set that is known by its name."""
    source = construct(DataSource, config["data"], "data") if "data" in config else None
    if source is None or not source.named:
        return None
    return {row.name: row.licence for row in dataset_status()}.get(source.name)


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of plain values as TOML, which `load_config` reads back.

    Args:
        tables: Name of each table -> its keys and values: numbers, text, booleans, lists of them.
    """
    blocks = [
        "\n".join([f"[{name}]", *(f"{key} = {_value(v)}" for key, v in values.items())])
        for name, values in tables.items()
    ]
    return "\n\n".join(blocks)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(k)} = {_value(v)}' for k, v in value.items())}}}"
    # Text, numbers and lists have the same form in JSON and TOML, except that TOML escapes DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
