"""`fit`: train a score model of an array in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._files import atomic_write, check_writable
from ..._lock import lock_folder
from ..._tensor import check_integer
from ...data import DataSource, load_dataset
from ...data.sets import pad_sets
from ...names.config_source import ConfigSource
from ...names.loading import Checkpoint, load
from ...output.bars import progress_bar
from ...output.files import read_arrays, save_arrays
from ...plain import ConfigError, check_keys
from ..own_data import is_place
from .defaults import default_tables
from .prepare import prepare_run
from .run import Run

__all__ = ["fit"]

CONFIG = "config.toml"
DATA = "data.npz"

_CHANGEABLE = ("data", "latent", "sde", "net", "preconditioning", "objective", "train")


def fit(
    data: Any,
    out: str | Path,
    *,
    steps: int,
    y: Any = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> Checkpoint:
    """Train a score model of data by denoising score matching.

        model = scoresde.fit(x, "runs/mine", steps=2000).model
        samples = scoresde.sample(model, n=64).x

    It does what `scoresde train` does. The folder gets the data, the config with the chosen
    settings, the checkpoint and the log. The same call continues a training that was stopped, and
    returns at once if it is complete; with more steps it trains longer. All commands take the
    checkpoint.

    The network depends on the kind of data, as `default_tables` says. The defaults suit small data
    sets; `config` changes them.

    Args:
        data: An array or tensor of shape (N, *D): floats in your units, or integers that are levels
            (only of bytes their number is known: 256). Vectors have shape (N, D), series (N, C, L),
            images (N, C, H, W), volumes (N, C, D, H, W). A list of arrays (n_i, F) holds sets of
            n_i points. Or the path of a file or a folder, or the name of a data set; these are not
            copied into the run's folder.
        out: Folder of the run.
        steps: Optimizer steps in all.
        y: Conditions of arrays, N rows, which the network takes: class numbers (integers) or names,
            a vector, or an array of the data's size.
        config: Tables of a config, as in a TOML file. Their keys replace the defaults, for example
            `{"net": {"width": 256}, "train": {"batch": 64}, "data": {"levels": 17}}`. A table with
            a `kind` replaces the whole table of the defaults. `{"latent": {"autoencoder": PATH}}`
            trains on the latents of an autoencoder of these data; samples are decoded.
        device: "cpu", "cuda" or "cuda:N"; None for a CUDA device if there is one.
        overwrite: Whether an earlier run in the folder is replaced.

    Returns:
        The checkpoint, as `scoresde.load` gives it.

    Raises:
        ConfigError: If a setting is not valid, or does not suit the data.
        TypeError: If the data are not numbers, or an argument has a wrong type.
        ValueError: If the data are not finite, have a wrong shape, or differ from those of the run
            in the folder; if the folder holds files of other programs.
        CheckpointError: If the folder holds a run with other settings.
        RuntimeError: If the training diverges, memory is too small, or another process trains in
            this folder.
    """
    check_integer("steps", steps, minimum=1)
    given, out = _tables_of(config), Path(out)
    check_writable(out)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with lock_folder(out):
        place = _placed(data, y, out, overwrite) | given.pop("data", {})
        source = DataSource(**place)
        defaults = default_tables(load_dataset(source), source, steps, given.get("latent"))
        tables = {"data": place} | _merged(defaults, given)
        run = prepare_run(ConfigSource(CONFIG, tables=tables), out, device, overwrite)
        with atomic_write(out / CONFIG, "w") as file:
            file.write(_toml(tables))
        _train(run)
    return load(run.checkpoint, device)


def _tables_of(config: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The tables of the argument `config`, checked."""
    config = {} if config is None else config
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a dict of tables, got {type(config).__name__}")
    check_keys(config, _CHANGEABLE, "config")
    for name, table in config.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"config: {name} must be a dict of keys, got {table!r}")
    if "steps" in config.get("train", {}):
        raise ConfigError("config: train.steps must be given by the argument steps")
    return {name: dict(table) for name, table in config.items()}


def _merged(
    defaults: dict[str, dict[str, Any]], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The default tables with the given keys; a table that has a kind is taken as it is."""
    whole = {name: dict(table) for name, table in given.items() if "kind" in table}
    parts = {name: table for name, table in given.items() if name not in whole}
    return {
        name: whole.get(name, defaults.get(name, {}) | dict(parts.get(name, {})))
        for name in {**defaults, **given}
    }


def _placed(data: Any, y: Any, out: Path, overwrite: bool) -> dict[str, Any]:
    """The table [data]: the place of the data, after an array has been written into the folder."""
    if is_place(data):
        if y is not None:
            raise ValueError("y must be None for the data of a file, which holds its conditions")
        source = data if isinstance(data, DataSource) else DataSource(data)
        table = {key: value for key, value in vars(source).items() if value is not None}
        return {key: str(v) if isinstance(v, Path) else v for key, v in table.items()}
    if isinstance(data, (list, tuple)) and any(hasattr(one, "shape") for one in data):
        padded, sizes = pad_sets(data)
        arrays = {"x": padded.numpy(), "sizes": sizes.numpy()}
    else:
        arrays = {"x": _array("data", data)}
    if y is not None:
        arrays["y"] = _array("y", y)
    path = out.resolve() / DATA
    if path.exists() and not overwrite:
        there = read_arrays(path.read_bytes())
        same = there.keys() == arrays.keys() and all(
            there[name].dtype == array.dtype and np.array_equal(there[name], array)
            for name, array in arrays.items()
        )
        if not same:
            raise ValueError(
                f"{path}: holds other data than these; give another folder, or overwrite=True"
            )
    else:
        save_arrays(path, False, **arrays)
    return {"name": str(path)}


def _array(name: str, values: Any) -> np.ndarray:
    """Values as an array of numbers or text."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in ("buif" if name == "data" else "buifU"):
        raise TypeError(f"{name} must be an array or tensor of numbers, got {array.dtype}")
    return array


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables as TOML; numbers, text and lists are written as in JSON."""
    return "\n".join(
        "\n".join([f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items()), ""])
        for name, table in tables.items()
    )


def _train(run: Run) -> None:
    """All steps that are left, with a progress bar."""
    total = run.settings.steps
    if run.done == total:
        return
    with progress_bar() as bar, closing(run.steps()) as states:
        task = bar.add_task("train", total=total, completed=run.done, note="")
        for state in states:
            bar.update(task, completed=state.step.step, note=f"loss {state.loss:.4f}")
