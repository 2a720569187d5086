"""From a config to a training run, for `scoresde train`."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from ..._files import check_writable
from ...data import Dataset, has_test_split, load_dataset
from ...distributed import Ranks
from ...names.config import Config, load_config
from ...names.config_source import ConfigSource
from ...output.manifest import MANIFEST
from ...plain import ConfigError
from ...score import NetworkScore
from ...train import Training, check_data, check_ranks
from ..request import versions
from .encoding import LatentEncoding
from .files import CHECKPOINT, Intervals, check_folder
from .resuming import find_resumable, flat, identity_of
from .run import Run
from .units import in_units

__all__ = ["prepare_run"]

ALONE = Ranks()


def prepare_run(
    config: str | Path | ConfigSource,
    folder: Path,
    device: str = "cpu",
    overwrite: bool = False,
    compiled: bool = False,
    skip_bad: bool = False,
    intervals: Intervals | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """Load the config and its data, build the model, and resume if the folder holds this run.

    Args:
        config: A TOML file or a shipped config's name; a `ConfigSource` to change single keys.
        folder: The run's folder.
        device: Where to train.
        overwrite: Start again; the first step removes the files of an earlier run in the folder.
        compiled: Compile the network with `torch.compile`, before the first step.
        skip_bad: Leave out images of a folder that cannot be decoded.
        intervals: How often to write the log, checkpoints and sample grids.
        ranks: The processes that train together.

    Raises:
        ConfigError: If the config is not valid, its data are too few for `train.batch` and
            `train.validation`, or the device cannot compute in its `autocast`.
        ValueError: If the folder's path is a file, or the folder holds files of other programs or
            commands that a run would replace.
        FileNotFoundError: If the data are absent; the message says how to get them.
        PermissionError: If the folder cannot be written.
        CheckpointError: If the folder holds a run of another config or of other data.
        ValueError: If the processes were started differently, or see different folders.
        PeerError: If another process fails.
    """
    config = config if isinstance(config, ConfigSource) else ConfigSource(config)
    settings = load_config(config)
    _check_autocast(settings, torch.device(device))
    check_writable(folder)
    if (folder / MANIFEST).exists():
        raise ValueError(f"--out {folder}: holds results of another command; give another folder")
    check_folder(folder)
    if intervals is not None and intervals.validate_bits and settings.no_likelihood is not None:
        raise ValueError(
            f"--validate-bits: must be 0 for {settings.no_likelihood}, got "
            f"{intervals.validate_bits}: it has no likelihood of the data"
        )
    if settings.train.validation == "test" and not has_test_split(settings.data):
        raise ConfigError(
            f"{config}: train.validation must be a share of the data, got 'test': "
            f"{settings.data.name} has no test split"
        )
    encoding = LatentEncoding.of(settings, device, str(config))
    data = load_dataset(settings.data, skip_bad=skip_bad)
    test = _test_split(settings, data)
    try:
        check_data(data, test, settings.train)
        check_ranks(ranks, settings.train)
    except ValueError as error:
        raise ConfigError(f"{config}: train.{error}") from error
    if encoding is None:
        data = in_units(settings, data, None if overwrite else folder / CHECKPOINT, str(config))
        test = None if test is None else test.in_units_of(data.spec)
    else:
        data = encoding.of_data(data, str(config))
        test = None if test is None else encoding.of_data(test, str(config))
    settings = settings.of_data(data, str(config))
    # Only a network of the user's own must be built to know its conditions.
    model = settings.build_model(data.spec) if settings.foreign else None
    data = _for_network(settings, data, model)
    test = None if test is None else _for_network(settings, test, model)
    if model is not None and model.condition is None:
        model.condition = data.spec.condition  # which it does not state, but is trained on
    command = f"scoresde train {config.options} --out {folder.name}"
    metadata = _metadata(settings, data, model, device, command)
    tensors, about = ({}, {}) if encoding is None else encoding.content(data)
    metadata |= about
    options = {"--overwrite": overwrite, "--compile": compiled, **vars(intervals or Intervals())}
    ranks.agree(versions() | flat(metadata["config"]) | identity_of(data, test) | options)
    if not overwrite:  # refuse before the network is built, which takes time
        find_resumable(folder / CHECKPOINT, metadata, data, test)
    model = _on_device(model or settings.build_model(data.spec), torch.device(device))
    if compiled:
        model.net.compile()
    if encoding is not None:
        model = model if settings.classifier else encoding.decoding(model, data)
        data, test = data.in_memory(), None if test is None else test.in_memory()
    training = Training(model, data, settings.loss, settings.train, test, ranks)
    run = Run(folder, training, metadata, intervals, tensors)
    if not overwrite:
        run.resume()
    ranks.agree({f"the number of steps done in {folder}": run.done})  # all see the same disk
    if compiled and run.done < settings.train.steps:
        run.warm_up()
    return run


def _metadata(
    settings: Config, data: Dataset, model: NetworkScore | None, device: str, command: str
) -> dict[str, Any]:
    """What the checkpoints say about the run; `model` is that of a network of the user's own."""
    metadata = {
        "config": settings.to_dict(),
        "data": data.spec.to_dict(),
        "provenance": {
            **versions(),
            "python": platform.python_version(),
            "device": device,
            "command": command,
        },
    }
    if model is not None and model.condition:
        metadata["condition"] = model.condition.to_dict()
    return metadata


def _test_split(settings: Config, data: Dataset) -> Dataset | None:
    """The test split, with the classes of the training data; None if it is not needed."""
    if settings.train.validation != "test":
        return None
    classes = data.spec.class_names or data.spec.classes
    return load_dataset(settings.data, "test", labels=data.labels is not None, classes=classes)


def _for_network(settings: Config, data: Dataset, model: NetworkScore | None) -> Dataset:
    """The data with the conditions that the network takes; all of them if it does not say."""
    condition = settings.condition_among(data.spec) if model is None else model.condition
    if condition is None:
        return data
    try:
        return data.given_for(condition)
    except ValueError as error:
        raise ConfigError(f"net: {data.name} does not suit it: {error}") from error


def _check_autocast(settings: Config, device: torch.device) -> None:
    wanted = settings.train.autocast == "bfloat16"
    if wanted and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            f"train.autocast must be float16 or absent: {device} cannot compute in bfloat16"
        )


def _on_device(model: NetworkScore, device: torch.device) -> NetworkScore:
    model = model.to(device)
    # Convolutions on tensor cores need the channels last. Those of a volume have a layout of their
    # own, which `Module.to` cannot give together with that of images.
    volumes = any(parameter.ndim == 5 for parameter in model.parameters())
    if device.type != "cuda" or volumes:
        return model
    return model.to(memory_format=torch.channels_last)
