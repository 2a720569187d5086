"""`scoresde distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .lookups import Device, Named
from .names import STUDENTS
from .output import say
from .types import Integer, Real

__all__ = ["distill"]


@click.command(cls=Command)
@options.checkpoint(use="The teacher. ")
@click.option(
    "--method",
    type=Named("method", STUDENTS, "distillation.student.parse_method"),
    default="progressive",
    help="How the student learns, with or without parameters: progressive:steps=4:start=64, "
    f"consistency:solver=heun:first=10:last=80, or consistency-training; {', '.join(STUDENTS)}.",
)
@click.option(
    "--steps",
    type=Integer(1),
    default=2000,
    help="Optimizer steps of each student; progressive distillation makes one for each halving.",
)
@click.option("--batch", type=Integer(1), help="Batch size; the teacher's if not given.")
@click.option(
    "--learning-rate", type=Real(0, min_open=True), default=1e-3, help="Largest learning rate."
)
@click.option(
    "--guidance",
    type=options.GUIDANCE,
    help="As for sample: the student learns the guided model, at one NFE for two.",
)
@options.data
@options.data_root
@options.out("The student's folder; an earlier run of the same distillation is resumed.")
@options.late_device
@options.overwrite
@click.option("--save-every", type=Integer(1), default=1000, help="Steps between checkpoints.")
@click.option("--log-every", type=Integer(1), default=100, help="Steps between log lines.")
@click.option("--sample-every", type=Integer(1), default=5000, help="Steps between pictures.")
def distill(
    out: Path,
    device: str,
    overwrite: bool,
    save_every: int,
    log_every: int,
    sample_every: int,
    **settings: Any,
) -> None:
    """Train a student that samples in 1, 2 or 4 evaluations.

    The teacher is a checkpoint. Progressive distillation halves its steps again and again; a
    consistency student jumps to the data at once. The checkpoint of the student is sampled by
    `scoresde sample` and compared by `scoresde bench`; it has no likelihood.

    Example: scoresde distill --checkpoint digits-vp --method progressive:steps=2 --out runs/two
    """
    from scoresde.tasks.students.request import DistillRequest

    request = DistillRequest(device=Device.resolve(device), **settings)
    from scoresde._lock import lock_folder
    from scoresde.tasks.students.runs import student_runs
    from scoresde.tasks.train.files import Intervals
    from scoresde.tasks.train.run import Run

    from .progress import follow_training

    every = Intervals(log_every, save_every, sample_every)
    with lock_folder(out):
        for run in student_runs(request, out, overwrite, every):
            say(f"{run.model.distilled.in_words} in {run.folder}", err=True)
            follow_training(run, Run.steps)
    say(run.checkpoint)
