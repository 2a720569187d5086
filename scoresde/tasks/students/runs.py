"""The runs of a distillation, one for each student."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..._files import check_writable
from ..._lock import lock_folder
from ...checkpoint import load_into
from ...data import Dataset
from ...distillation.student import loss_of
from ...names.config import Config
from ...names.loading import Checkpoint, load
from ...output.bars import progress_bar
from ...output.manifest import MANIFEST
from ...score import NetworkScore, ScoreModel
from ...train import Training
from ..request import StoredModel, versions
from ..train.files import CHECKPOINT, Intervals, check_folder
from ..train.resuming import find_resumable
from ..train.run import Run
from .request import (
    DistillRequest,
    check_batch,
    folder_of,
    read_teacher,
    student_configs,
    training_data,
)

__all__ = ["distill", "student_runs"]


def student_runs(
    request: DistillRequest,
    out: Path,
    overwrite: bool = False,
    intervals: Intervals | None = None,
) -> Iterator[Run]:
    """The run of each student, which must be complete before the next one is asked for.

    Runs are resumed where they were stopped. The last student is trained in `out`, and the earlier
    ones of progressive distillation in folders student-32, student-16, ... inside it.

    Args:
        request: The options.
        out: Folder of the runs.
        overwrite: Start again.
        intervals: How often a run writes.

    Raises:
        CheckpointError: If the teacher cannot be read, or a folder holds another run.
        ConfigError: If the method or the guidance is wrong.
        FileNotFoundError: If the data are absent; the message says how to get them.
        ValueError: If the teacher cannot be distilled, the data do not suit it, or the folder holds
            files of other programs.
    """
    stored, given = read_teacher(request)
    check_writable(out)
    if (out / MANIFEST).exists():
        raise ValueError(f"--out {out}: holds results of another command; give another folder")
    source, data = training_data(request, stored)
    configs = student_configs(request, stored, given, source)
    check_batch(configs[0], data)
    folders = [folder_of(out, one.distilled, configs[-1].distilled) for one in configs]
    for folder in folders:
        check_folder(folder)
    run = None
    for config, folder in zip(configs, folders, strict=True):
        if run is not None:
            stored = given = StoredModel.read(run.checkpoint, request.net, request.sde)
            learned = replace(config.distilled, teacher=stored.source.sha256)
            config = replace(config, distilled=learned)
        teacher = given.build_own(request.device).requires_grad_(False).eval()
        run = _run(request, config, data, stored, teacher, folder, overwrite, intervals)
        yield run


def distill(
    checkpoint: str | Path,
    out: str | Path,
    method: str = "progressive",
    *,
    steps: int = 2000,
    overwrite: bool = False,
    **options: Any,
) -> Checkpoint:
    """Train a student that needs few evaluations, from a checkpoint.

        student = scoresde.distill("digits-vp", "runs/two", "progressive:steps=2").model
        samples = scoresde.sample(student, n=64).x

    It does what `scoresde distill` does. The same call continues a training that was stopped.

    Args:
        checkpoint: The teacher: a file, or the name of a shipped checkpoint.
        out: Folder of the student.
        method: "progressive:steps=4:start=64", "consistency" or "consistency-training", with or
            without parameters; see `Progressive`, `ConsistencyDistillation` and
            `ConsistencyTraining`.
        steps: Optimizer steps of each student; progressive distillation makes several.
        overwrite: Whether an earlier run in the folder is replaced.
        options: Further options of the command: batch, learning_rate, guidance, data, data_root,
            device.

    Returns:
        The student's checkpoint.

    Raises:
        CheckpointError: If the teacher cannot be read, or the folder holds another run.
        ConfigError: If the method or the guidance is wrong.
        ValueError: If the teacher cannot be distilled.
        RuntimeError: If the training diverges.
    """
    request = DistillRequest(str(checkpoint), method, steps, **options)
    with lock_folder(Path(out)):
        for run in student_runs(request, Path(out), overwrite):
            with progress_bar() as bar, closing(run.steps()) as states:
                task = bar.add_task("distill", total=steps, completed=run.done, note="")
                for state in states if run.done < steps else ():
                    bar.update(task, completed=state.step.step, note=f"loss {state.loss:.4g}")
    return load(run.checkpoint, request.device)


def _run(
    request: DistillRequest,
    config: Config,
    data: Dataset,
    started: StoredModel,
    teacher: ScoreModel,
    folder: Path,
    overwrite: bool,
    intervals: Intervals | None,
) -> Run:
    """The run of one student, resumed if its folder holds it."""
    metadata = _metadata(request, config, data, started)
    if not overwrite:
        find_resumable(folder / CHECKPOINT, metadata, data)
    student = _student(config, started).to(request.device)
    loss = loss_of(config.distilled, teacher)
    run = Run(folder, Training(student, data, loss, config.train), metadata, intervals)
    if not overwrite:
        run.resume()
    return run


def _student(config: Config, started: StoredModel) -> NetworkScore:
    """A model with the weights of the checkpoint it starts from, ready to train."""
    if config.foreign:
        net = started.build_own().net.train().requires_grad_(True)
        model = config.model_of(net)
        model.condition = started.condition
        return model
    model = config.build_model(started.spec)
    load_into(model.net, started.raw, "model.")
    return model


def _metadata(
    request: DistillRequest, config: Config, data: Dataset, started: StoredModel
) -> dict[str, Any]:
    """What the checkpoint of a student says about the run."""
    command = f"scoresde distill --method {request.method} --steps {request.steps}"
    found = {
        "config": config.to_dict(),
        "data": data.spec.to_dict(),
        "provenance": {
            **versions(),
            "python": platform.python_version(),
            "device": str(torch.device(request.device)),
            "command": command,
            "teacher": Path(started.name).name,
        },
    }
    if config.foreign and started.condition:
        found["condition"] = started.condition.to_dict()
    return found
