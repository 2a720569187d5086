"""The check that a run may continue from a checkpoint: the same config and the same data.

The config in the metadata says which data were held out: `Split` chooses them by train.seed
and train.validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ...checkpoint import CheckpointError, RawCheckpoint, read_checkpoint
from ...data import Dataset, Stream
from ...fingerprint import difference
from ...loss import Objective
from ...nets.dropout import DROPOUT_VERSION
from ...noise import NOISE_VERSION
from ...score import Preconditioning
from ...train import TrainSettings

__all__ = ["VERSIONS", "doubts", "find_resumable", "flat", "identity_of", "versions_of"]

VERSIONS = {"noise_version": NOISE_VERSION, "dropout_version": DROPOUT_VERSION}
"""The definitions of the random numbers with which a new run begins, for its checkpoints."""

# Settings that a resumed run may change: it may train longer, with less memory, or use the same
# data in another place. If the checkpoint records the content of the data, their name may change as
# well.
_FREE = {"train.steps", "train.cooldown", "train.checkpointing", "data.root", "data.workers"}
_NAMES = {"data.name", "name", "latent.autoencoder"}
_SETTINGS = {"preconditioning": Preconditioning, "objective": Objective, "train": TrainSettings}


def identity_of(data: Dataset | Stream, test: Dataset | None = None) -> dict[str, Any]:
    """Number and content of the training data, for the checkpoint; of a stream both are unknown.

    Of a test split, if there is one, the content belongs to it.
    """
    if isinstance(data, Stream):
        return {"images": None, "data_fingerprint": None}
    tested = {} if test is None else {"test_fingerprint": test.fingerprint}
    return {"images": len(data), "data_fingerprint": data.fingerprint, **tested}


def versions_of(raw: RawCheckpoint) -> dict[str, int]:
    """The definitions of the random numbers with which a run was begun; see `VERSIONS`."""
    return {name: raw.metadata.get(name, 1) for name in VERSIONS}


def find_resumable(
    checkpoint: Path,
    metadata: Mapping[str, Any],
    data: Dataset | Stream,
    test: Dataset | None = None,
) -> RawCheckpoint | None:
    """The checkpoint from which a run can continue; None if there is no checkpoint.

    It builds no network.

    Args:
        checkpoint: The file; need not exist.
        metadata: "config" and "data" of the run that is to continue.
        data: Training data of this run.
        test: The test split on which this run is validated, if it is.

    Raises:
        CheckpointError: If the file cannot be read, holds no training state, or was made with
            another config or from other data.
    """
    if not checkpoint.exists():
        return None
    raw = read_checkpoint(checkpoint)
    reason = _refusal(raw, metadata, data, test)
    if reason is not None:
        raise CheckpointError(reason, checkpoint)
    return raw


def _refusal(
    raw: RawCheckpoint, metadata: Mapping[str, Any], data: Dataset | Stream, test: Dataset | None
) -> str | None:
    """The reason why a run with these metadata and data cannot continue; None if it can."""
    other = _other_settings(raw, metadata) or _other_autoencoder(raw, metadata)
    if other is not None:
        return f"was made with {other}; use another folder, or --overwrite"
    if not raw.below("train."):
        return "holds no training state, as after `export`: cannot be resumed"
    now = identity_of(data)
    before = {key: raw.metadata.get(key, value) for key, value in now.items()}
    if before["images"] != now["images"]:
        counts = [n if n is not None else "a stream of" for n in (before["images"], now["images"])]
        return f"was trained on {counts[0]} data points, there are {counts[1]} now"
    if before != now:
        what = "images" if len(data.spec.shape) == 3 else "data points"
        labelled = " or their labels" if data.labels is not None else ""
        return (
            f"the {len(data)} {what}{labelled} are not those the run was trained on, or are in "
            "another order; put those back, use another folder, or --overwrite"
        )
    if test is not None and raw.metadata.get("test_fingerprint") != test.fingerprint:
        return (
            "its validation losses are of another test split; put that back, use another folder, "
            "or --overwrite"
        )
    return None


def doubts(raw: RawCheckpoint, data: Dataset | Stream) -> Iterator[str]:
    """Reasons why the resumed run may differ from a run without a break."""
    if "data_fingerprint" not in raw.metadata:
        yield (
            "an earlier version wrote it and did not record the content of the data; make sure "
            f"that the {len(data)} data points are still the same"
        )
    before = versions_of(raw)
    net = raw.metadata.get("config", {}).get("net", {})
    matters = {"noise": True, "dropout": bool(net.get("dropout", 0))}
    for what, there in matters.items():
        name = f"{what}_version"
        if there and before[name] != VERSIONS[name]:
            yield (
                f"the run was begun with another definition of the {what}, so its next steps are "
                "not those of an unbroken run"
            )
            return


def _other_settings(raw: RawCheckpoint, metadata: Mapping[str, Any]) -> str | None:
    """The first setting that differs, as `config net.width = 8, not 16`; None if all are equal."""
    before, now = raw.metadata, metadata
    free = _FREE | _NAMES if "data_fingerprint" in before else _FREE
    # An earlier version recorded less about the data; only recorded settings can be compared.
    before = {**before, "config": _with_defaults(before.get("config", {}))}
    known = before.get("data", {}).keys()
    recorded = {k: v for k, v in now.get("data", {}).items() if k in known or k == "transform"}
    now = {**now, "data": recorded}
    if (other := _other_transform(before, now)) is not None:
        return other
    for what in ("config", "data"):
        other = difference(*(_settings(about, what) for about in (before, now)), free)
        if other is not None:
            return f"{what} {other}"
    return None


def _other_autoencoder(raw: RawCheckpoint, metadata: Mapping[str, Any]) -> str | None:
    """What is said if the latents of two runs are of different autoencoders."""
    then, now = (m.get("latent", {}).get("sha256") for m in (raw.metadata, metadata))
    return None if then == now else "another autoencoder than latent.autoencoder names now"


def _other_transform(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What is said if only one of two runs maps its data to another scale."""
    then, here = ("transform" in about.get("data", {}) for about in (before, now))
    if then == here:
        return None
    if then:
        return "a transform of the data, and data.transform is none now; set it to what it was"
    return "data.transform = none, as all runs of earlier versions; to continue, set it to none"


def _settings(about: Mapping[str, Any], what: str) -> dict[str, Any]:
    """One kind of metadata in one level; "none" is the same as no transform."""
    found = flat(about.get(what, {}))
    return {key: v for key, v in found.items() if (key, v) != ("data.transform", "none")}


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the defaults of the settings that did not exist when it was written."""
    filled = dict(config)
    for table, cls in _SETTINGS.items():
        if table not in config and ("autoencoder" in config or "distilled" in config):
            continue  # autoencoders and students have no such settings
        defaults = {f.name: f.default for f in fields(cls) if f.default not in (MISSING, None)}
        # As JSON has them.
        defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
        filled[table] = defaults | dict(config.get(table, {}))
    return filled


def flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """One level of tables as `table.key`."""
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        nested = isinstance(value, Mapping)
        flat |= {f"{name}.{key}": v for key, v in value.items()} if nested else {name: value}
    return flat
