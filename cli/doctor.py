"""`scoresde doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .lookups import ClassPlace, Located
from .output import say
from .types import Integer

__all__ = ["doctor"]


@click.command(cls=Command)
@click.argument("checkpoint", metavar="CHECKPOINT", type=Located("checkpoints"))
@options.held_out
@click.option("--n", type=Integer(8), default=64, help="Number of data.")
@options.batch(64, "Data")
@click.option(
    "--fix",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="New file for the checkpoint with corrected metadata, if a mistake is found.",
)
@click.option(
    "--net", type=ClassPlace("network"), help="Class of the checkpoint's network if it is your own."
)
@click.option("--sde", type=ClassPlace("SDE"), help="Class of its SDE if it is your own.")
@options.out("Folder for doctor.json, doctor.txt and doctor.png.", required=False)
@options.seed
@options.device
@options.overwrite
@options.as_json
def doctor(
    out: Path | None, overwrite: bool, as_json: bool, fix: Path | None, **settings: Any
) -> None:
    """Test on data whether a checkpoint means what it claims, and name the likely mistake.

    The error of denoising is measured under the claimed SDE, target, label, scale and range, and
    under about 75 others, on the same data and noise. What the data cannot tell is said, with the
    number of data that could. The status is 1 if a mistake is found. (`scoresde check` tests the
    rules of the interface on random points; `doctor` tests the meaning against data.)

    Example: scoresde doctor digits-vp --data digits --n 64
    """
    from scoresde.verification.diagnosis.command import DoctorRequest, examine

    from .progress import follow

    with follow("doctor") as on_progress:
        found = examine(DoctorRequest(fix=fix, **settings), out, overwrite, on_progress)
    say(json.dumps(found["report"]) if as_json else found["text"])
    if found["fixed"] is not None:
        say(f"wrote {found['fixed']}", err=as_json)
    mistakes = found["report"]["mistakes"]
    if mistakes or found["not_fixed"]:
        raise RuntimeError("; ".join([*mistakes[:1], *filter(None, [found["not_fixed"]])]))
